#!/usr/bin/env python3
"""Makes types.txt from what `llama-quantize --dry-run` said of the shapes of real models: model, mixture, tensor, format.

    python3 tests/golden/file_types.py TYPES.tsv.gz

For each model: a line with its name, architecture, blocks, heads, shared heads and experts; a line for each tensor with its
dimensions, in the order of writing, where `#` stands for each block's number; then for each mixture one letter a tensor.
"""
import gzip, itertools, pathlib, re, sys

# architecture, words, embedding, feed-forward, blocks, heads, key-value heads, head size
MODELS = {
    "Llama-3.2-1B": ("llama", 128256, 2048, 8192, 16, 32, 8, 64),
    "Llama-3.2-3B": ("llama", 128256, 3072, 8192, 28, 24, 8, 128),
    "Llama-3.1-8B": ("llama", 128256, 4096, 14336, 32, 32, 8, 128),
    "Mistral-7B-v0.3": ("llama", 32768, 4096, 14336, 32, 32, 8, 128),
    "Phi-3-mini": ("phi3", 32064, 3072, 8192, 32, 32, 32, 96),
    "gemma-2b": ("gemma", 256000, 2048, 16384, 18, 8, 1, 256),
    "gemma-7b": ("gemma", 256000, 3072, 24576, 28, 16, 16, 256),
    "gemma-2-2b": ("gemma2", 256000, 2304, 9216, 26, 8, 4, 256),
    "gemma-2-9b": ("gemma2", 256000, 3584, 14336, 42, 16, 8, 256),
    "gemma-3-270m": ("gemma3", 262144, 640, 2048, 18, 4, 1, 256),
    "gemma-3-1b": ("gemma3", 262144, 1152, 6912, 26, 4, 1, 256),
    "Qwen2.5-0.5B": ("qwen2", 151936, 896, 4864, 24, 14, 2, 64),
    "Qwen2.5-1.5B": ("qwen2", 151936, 1536, 8960, 28, 12, 2, 128),
    "Qwen3-4B": ("qwen3", 151936, 2560, 9728, 36, 32, 8, 128),
    "Qwen3-8B": ("qwen3", 151936, 4096, 12288, 36, 32, 8, 128),
}
LETTERS = {"f32": "F", "f16": "H", "bf16": "B", "q8_0": "8", "q4_0": "a", "q4_1": "b", "q5_0": "c", "q5_1": "d", "q2_K": "2", "q3_K": "3",
           "q4_K": "4", "q5_K": "5", "q6_K": "6", "iq4_nl": "n", "iq4_xs": "x"}


def dimensions(model, name):
    _, words, embedding, feed, _, heads, shared, head = MODELS[model]
    part = name.split(".")[-2]
    if name.endswith(".bias") or part.endswith("_norm") or part.startswith("rope_"):
        return [embedding]
    fused = part == "ffn_up" and model.startswith("Phi-3")
    return {
        "token_embd": [embedding, words], "output": [embedding, words], "attn_q": [embedding, heads * head],
        "attn_k": [embedding, shared * head], "attn_v": [embedding, shared * head], "attn_output": [heads * head, embedding],
        "attn_qkv": [embedding, (heads + 2 * shared) * head], "ffn_gate": [embedding, feed],
        "ffn_up": [embedding, feed * (1 + fused)], "ffn_down": [feed, embedding],
    }[part]


rows = [line.split("\t") for line in gzip.open(sys.argv[1], "rt").read().splitlines()]
out = []
for model, of_model in itertools.groupby(rows, lambda row: row[0]):
    arch, _, _, _, blocks, heads, shared, _ = MODELS[model]
    out.append(f"model {model} {arch} {blocks} {heads} {shared} 0")
    named = False
    for mixture, of_mixture in itertools.groupby(of_model, lambda row: row[1]):
        of_mixture = list(of_mixture)
        names = [row[2] for row in of_mixture]
        if not named:
            outer = [name for name in names if not name.startswith("blk.")]
            inner = [name for name in names if name.startswith("blk.0.")]
            inner = [name.replace("blk.0.", "blk.#.") for name in inner]
            assert names == outer + [name.replace("#", str(block)) for block in range(blocks) for name in inner], model
            out += ["tensor " + " ".join([name, *map(str, dimensions(model, name))]) for name in outer + inner]
            first, named = names, True
        assert names == first
        out.append(f"mixture {mixture} " + "".join(LETTERS[row[3]] for row in of_mixture))
pathlib.Path(__file__).with_suffix(".txt").write_text("\n".join(out) + "\n")
