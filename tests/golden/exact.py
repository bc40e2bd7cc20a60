"""Writes exact.json: what `transformers` says where llamacpp.json says what llama.cpp does, in 32 bits.

    pip install torch transformers gguf numpy && python tests/golden/exact.py MODEL.gguf

llama.cpp and Arriero both round activations to 8 bits, each in its own places, which moves log-probabilities of this model by
some tenths. Where the two differ, this third opinion says whether there was a near-tie: the weights of the same file, unpacked,
and no other rounding. For each of llama.cpp's continuations and each step: the three best tokens and their log-probabilities,
and that of llama.cpp's token. Then the perplexity of the text.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGUFReader, dequantize
from lm_families import GEMMA_NAMES, NAMES, OUTER

HERE = Path(__file__).parent
TOP = 3


def config():
    plain = dict(rope_type="default")
    return transformers.Gemma3TextConfig(
        vocab_size=262144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_parameters=dict(sliding_attention=dict(plain, rope_theta=1e4), full_attention=dict(plain, rope_theta=1e6)),
        attn_implementation="eager",
    )


def hf_name(name):
    inner = {ours: theirs for theirs, ours in {**NAMES, **GEMMA_NAMES}.items()}
    outer = {ours: theirs for theirs, ours in OUTER.items()}
    if name in outer:
        return "model." + outer[name]
    _, index, part, kind = name.split(".")
    return f"model.layers.{index}.{inner[part]}.{kind}"


def load(path):
    weights = {}
    for tensor in GGUFReader(path).tensors:
        values = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape.tolist()))).astype(np.float32)
        name = hf_name(tensor.name)
        weights[name] = torch.from_numpy(values - np.float32(1) if name.endswith("norm.weight") else values.copy())
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model = transformers.Gemma3ForCausalLM(config()).eval()
    model.load_state_dict(weights)
    return model


def log_probabilities(model, tokens, first, last):
    """Those of the tokens behind positions first..last."""
    hidden = model.model(torch.tensor([tokens])).last_hidden_state[0]
    for start in range(first, last, 100):
        yield from torch.log_softmax(model.lm_head(hidden[start : min(start + 100, last)]), -1)


def steps(model, prompt, following):
    found = []
    start = len(prompt) - 1
    for row, token in zip(log_probabilities(model, prompt + following, start, start + len(following)), following):
        values, ids = row.topk(TOP)
        best = [[int(i), round(float(value), 4)] for i, value in zip(ids, values)]
        found.append({"best": best, "theirs": round(float(row[token]), 4)})
    return found


def main():
    golden = json.loads((HERE / "llamacpp.json").read_text(encoding="utf-8"))
    model = load(sys.argv[1])
    with torch.no_grad():
        continuations = [steps(model, prompt["prompt"], prompt["next"]) for prompt in golden["continuations"]]
        text = golden["text"]["tokens"]
        rows = log_probabilities(model, text, 0, len(text) - 1)
        total = sum(float(row[token]) for row, token in zip(rows, text[1:]))
    perplexity = math.exp(-total / (len(text) - 1))
    exact = {"transformers": transformers.__version__, "continuations": continuations, "perplexity": perplexity}
    (HERE / "exact.json").write_text(json.dumps(exact, separators=(",", ":")) + "\n")
    print("perplexity", perplexity)


main()
