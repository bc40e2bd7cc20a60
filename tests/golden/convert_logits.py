"""Writes convert/logits.json: the logits that `transformers` gives for the tiny folders in convert/.

    pip install torch transformers numpy && python -P tests/golden/convert_logits.py

Their weights are the numbers that convert.py makes from names. What arriero converts from these folders has to give the same
logits in the embedded engine: of a few tokens, from one pass in 32 bits with plain attention. Gemma's scores are scaled as
llama.cpp scales them: by the length of a head, whatever the configuration says.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent / "convert"
TOKENS = [2, 200, 17, 101, 5, 64, 230, 9, 31, 88, 120, 7]


def splitmix(state):
    """One step of splitmix64 for each counter, as in convert.py."""
    with np.errstate(over="ignore"):
        z = state * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weights(name, dtype, shape):
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        bits = splitmix(seed + np.arange(int(np.prod(shape)), dtype=np.uint64)) >> np.uint64(48)
    numbers = torch.from_numpy((bits.astype(np.int64) - 32768).astype(np.float32) / np.float32(262144))
    rounded = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    return numbers.to(rounded).float().reshape(shape)


def model(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    if hasattr(config, "query_pre_attn_scalar"):
        config.query_pre_attn_scalar = config.head_dim
    # In 32 bits from the start: Gemma 3 keeps what it scales embeddings by in the type that it is made with.
    made = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    state = {name: weights(name, dtype, shape) for _, name, dtype, shape in json.loads((folder / "tensors.json").read_text())}
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (folder, missing, unexpected)
    if "lm_head.weight" not in state:
        made.tie_weights()
    return made


def main():
    golden = {"transformers": transformers.__version__, "tokens": TOKENS, "logits": {}}
    for folder in sorted(path for path in HERE.iterdir() if (path / "tensors.json").exists()):
        with torch.no_grad():
            logits = model(folder)(torch.tensor([TOKENS]), use_cache=False).logits[0, -1]
        golden["logits"][folder.name] = [float(f"{x:.7g}") for x in logits.double().numpy()]
        print(folder.name, "largest logit", float(logits.abs().max()))
    (HERE / "logits.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


main()
