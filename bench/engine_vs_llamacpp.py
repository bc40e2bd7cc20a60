"""Compares the embedded engine with llama.cpp on one file and as many threads: decode, prefill and load.

    pip install xllamacpp && python bench/engine_vs_llamacpp.py target/release/arriero MODEL.gguf [--threads 2] [--rounds 5]

The two take turns, each in a process of its own, so that what else the machine does hits both. Each round loads the model, reads
a prompt of 512 tokens and generates 64 behind it. Prints one JSON object: per figure the ratio ours / theirs of each round as
median, least and most (above 1 is better for decode and prefill, below 1 for load).
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

PROMPT_TOKENS = 512
GENERATED_TOKENS = 64


def theirs(model, threads):
    """One run of llama.cpp, in this process."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = PROMPT_TOKENS + GENERATED_TOKENS + 64
    params.n_parallel = 1
    params.warmup = False
    params.fit_params = False
    params.verbosity = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    begun = time.perf_counter()
    server = xllamacpp.Server(params)
    load_s = time.perf_counter() - begun
    prompt = [(i * 7919 + 13) % 32000 for i in range(PROMPT_TOKENS)]
    ask = {"temperature": 0, "ignore_eos": True, "cache_prompt": False}
    server.handle_completions({**ask, "prompt": prompt[:32], "n_predict": 1})
    timings = server.handle_completions({**ask, "prompt": prompt, "n_predict": GENERATED_TOKENS})["timings"]
    return {
        "load_s": load_s,
        "prefill_tokens_per_s": timings["prompt_per_second"],
        "decode_tokens_per_s": timings["predicted_per_second"],
    }


def output_of(command):
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(next(line for line in lines.splitlines() if line.startswith("{")))


def compare(arriero, model, threads, rounds):
    ours_command = [arriero, "bench-engine", model, "--threads", str(threads)]
    theirs_command = [sys.executable, __file__, arriero, model, "--threads", str(threads), "--theirs"]
    runs = [(output_of(ours_command), output_of(theirs_command)) for _ in range(rounds)]
    result = {"threads": threads, "rounds": rounds, "device": runs[0][0]["device"]}
    for figure in ["decode_tokens_per_s", "prefill_tokens_per_s", "load_s"]:
        ratios = [ours[figure] / theirs[figure] for ours, theirs in runs]
        result[figure.removesuffix("_s").removesuffix("_tokens_per")] = {
            "ratio_median": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
            "ours_median": round(statistics.median(ours[figure] for ours, _ in runs), 3),
            "theirs_median": round(statistics.median(theirs[figure] for _, theirs in runs), 3),
        }
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arriero")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.theirs:
        print(json.dumps(theirs(args.model, args.threads)))
    else:
        print(json.dumps(compare(args.arriero, args.model, args.threads, args.rounds)))


main()
