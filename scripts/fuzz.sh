#!/usr/bin/env bash
# Runs each fuzz target for some time, with what tests/golden has as its first inputs.
# usage: fuzz.sh TARGET_FOLDER SECONDS [TARGET...]
set -euo pipefail

cd "$(dirname "$0")/.."
folder=$1/fuzz seconds=$2
shift 2
golden=tests/golden

# joined FILE...: the files one after the other, parted by zeros; one that is not there is empty.
joined() {
    local first=1
    for file in "$@"; do
        [[ $first ]] || printf '\0'
        first=
        [[ ! -f $file ]] || cat "$file"
    done
}

# header MODEL: the header of a safetensors file with the weights that the list of a golden model names.
header() {
    python3 - "$golden/convert/$1/tensors.json" <<'PY'
import json, math, sys
header, end = {}, 0
for _, name, dtype, shape in json.load(open(sys.argv[1])):
    size = math.prod(shape) * (4 if dtype == "F32" else 2)
    header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
    end += size
print(json.dumps(header), end="")
PY
}

# adapter: an adapter of one matrix, settings and the header of its weights.
adapter() {
    printf '{"peft_type":"LORA","r":4,"lora_alpha":8,"use_rslora":true,"alpha_pattern":{"q_proj":16},"rank_pattern":{"v_proj":2}}\0'
    printf '{"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight":{"dtype":"F32","shape":[4,256],"data_offsets":[0,4096]},'
    printf '"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight":{"dtype":"F32","shape":[256,4],"data_offsets":[4096,8192]}}'
}

# imatrix: one entry of the old format.
imatrix() {
    printf '\1\0\0\0\22\0\0\0blk.0.attn_q.weigh\2\0\0\0\2\0\0\0\0\0\200\77\0\0\200\77\1\0\0\0\4\0\0\0text'
}

seed() {
    local target=$1 seeds=$folder/seeds/$1
    mkdir -p "$seeds" "$folder/corpus/$target"
    case $target in
    gguf) cp "$golden"/*.gguf "$seeds" ;;
    imatrix)
        cp "$golden"/bpe-gpt-2.gguf "$seeds"
        imatrix >"$seeds/old"
        ;;
    safetensors)
        printf '\0' | cat - <(header tiny-qwen2) >"$seeds/header"
        printf '\1\12\0\0\0\0\0\0\0{"a":null}' >"$seeds/whole"
        ;;
    adapter) adapter >"$seeds/one" ;;
    config)
        for model in "$golden"/convert/*/; do
            joined "$model/config.json" "$model/generation_config.json" >"$seeds/$(basename "$model")"
        done
        ;;
    tokenizer)
        for model in "$golden"/convert/*/; do
            [[ ! -f $model/tokenizer.json ]] || joined "$model/tokenizer.json" "$model/tokenizer_config.json" >"$seeds/$(basename "$model")"
        done
        ;;
    sentencepiece)
        for model in "$golden"/convert/*/; do
            [[ ! -f $model/tokenizer.model ]] || cp "$model/tokenizer.model" "$seeds/$(basename "$model")"
        done
        ;;
    esac
}

# Without a sanitizer a stable compiler is enough, and the bound on memory is measured as it is.
options=(--fuzz-dir fuzz --sanitizer none --target-dir "$folder/build")
if [[ $# == 0 ]]; then
    mapfile -t targets < <(cargo fuzz list --fuzz-dir fuzz)
else
    targets=("$@")
fi
cargo fuzz build "${options[@]}"
for target in "${targets[@]}"; do
    seed "$target"
    echo "== $target: $seconds s"
    cargo fuzz run "${options[@]}" "$target" "$folder/corpus/$target" "$folder/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
        -artifact_prefix="$folder/found-$target-"
done
