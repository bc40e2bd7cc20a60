"""Writes llamacpp.json: what llama.cpp says about the demo model, for tests/it/lm.rs.

    pip install xllamacpp && python tests/golden/llamacpp.py MODEL.gguf
    python tests/golden/llamacpp.py --f32 MODEL-F32.gguf

The second writes llamacpp_f32.json: the perplexity of the first tokens of the same text on the model in F32, all computed in 32 bits, for
tests/it/gemma_folder.rs, which leaves that file in the folder that ARRIERO_TEST_KEEP names.

For each prompt: its token ids, the 64 tokens llama.cpp adds greedily, and at each of them how far the second best token was
behind (difference of log-probabilities). For perplexity.txt: the ids of its first tokens and llama.cpp's perplexity on them.
The server gives no log-probabilities of a prompt, so every token of the text is asked for as if it were the next one,
forced by a bias (which its log-probabilities do not contain).
"""

import hashlib
import json
import math
import sys
import urllib.request
from pathlib import Path

import xllamacpp

HERE = Path(__file__).parent
GENERATED = 64
TEXT_TOKENS = 2000
F32_TOKENS = 400
FORCE = 1e6
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village at the edge of a forest,",
    "The three laws of thermodynamics state that",
    "def fibonacci(n):\n    ",
    "#include <stdio.h>\n\nint main(void) {\n",
    "SELECT name, price FROM products WHERE",
    "Die Hauptstadt von Deutschland ist",
    "Le petit chat noir dormait sur",
    "En un lugar de la Mancha, de cuyo nombre",
    "日本の首都は",
    "Water boils at 100 degrees Celsius, which is",
    "To make a good cup of coffee, you need",
    "1, 1, 2, 3, 5, 8, 13,",
    "Q: What is the largest planet in the solar system?\nA:",
    "Dear Sir or Madam,\n\nI am writing to",
    "{\"name\": \"Alice\", \"age\": 30, \"city\":",
    "The quick brown fox jumps over the lazy dog. The lazy dog",
    "In 1969, the first human",
    "Breaking news: scientists have discovered",
    "Ingredients:\n- 200 g flour\n- 3 eggs\n-",
]


def start(model, wide=False):
    params = xllamacpp.CommonParams()
    if wide:
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.model.path = model
    params.n_ctx = 4096
    params.n_parallel = 1
    params.verbosity = 0
    # Without it a prompt is read anew as soon as it is longer than the window.
    params.swa_full = True
    # Its fused attention adds up in half precision.
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return xllamacpp.Server(params)


def tokenize(server, text):
    body = json.dumps({"content": text, "add_special": True}).encode()
    request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["tokens"]


def complete(server, tokens, **options):
    answer = server.handle_completions({"prompt": tokens, "temperature": 0, "ignore_eos": False, **options})
    return answer["choices"][0]["logprobs"]["content"]


def continuation(server, prompt):
    tokens = tokenize(server, prompt)
    steps = complete(server, tokens, n_predict=GENERATED, n_probs=2, cache_prompt=False)
    margins = [step["top_logprobs"][0]["logprob"] - step["top_logprobs"][1]["logprob"] for step in steps]
    return {
        "text": prompt,
        "prompt": tokens,
        "next": [step["id"] for step in steps],
        "margins": [round(margin, 4) for margin in margins],
    }


def log_probability(server, before, token):
    [step] = complete(server, before, n_predict=1, n_probs=1, cache_prompt=True, logit_bias=[[token, FORCE]])
    assert step["id"] == token, (step, token)
    return step["logprob"]


def perplexity(server, count=TEXT_TOKENS):
    tokens = tokenize(server, (HERE / "perplexity.txt").read_text(encoding="utf-8"))[:count]
    total = sum(log_probability(server, tokens[:i], tokens[i]) for i in range(1, len(tokens)))
    return {"tokens": tokens, "perplexity": math.exp(-total / (len(tokens) - 1))}


def version():
    return xllamacpp.__version__ if hasattr(xllamacpp, "__version__") else "unknown"


def main_f32(model):
    digest = hashlib.sha256(Path(model).read_bytes()).hexdigest()
    golden = {"model_sha256": digest, "xllamacpp": version(), "text": perplexity(start(model, wide=True), F32_TOKENS)}
    (HERE / "llamacpp_f32.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
    print(len(golden["text"]["tokens"]), "tokens, perplexity", golden["text"]["perplexity"])


def main():
    if sys.argv[1] == "--f32":
        return main_f32(sys.argv[2])
    model = sys.argv[1]
    server = start(model)
    golden = {
        "model_sha256": hashlib.sha256(Path(model).read_bytes()).hexdigest(),
        "xllamacpp": version(),
        "continuations": [continuation(server, prompt) for prompt in PROMPTS],
        "text": perplexity(server),
    }
    (HERE / "llamacpp.json").write_text(json.dumps(golden, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    print(len(golden["text"]["tokens"]), "tokens, perplexity", golden["text"]["perplexity"])


main()
