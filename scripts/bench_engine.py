#!/usr/bin/env python3
"""Compares the embedded engine with llama.cpp on one file with the same threads, in turn, and prints one line of JSON.

    bench_engine.py ARRIERO MODEL.gguf [--threads N] [--rounds N]

Both read a prompt of 512 tokens and generate 64 greedily. Ratios are of medians over the rounds; above 1 the engine is faster.
Each engine runs in a process of its own, so that neither meets the other's memory or threads.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

PROMPT_TOKENS = 512
GENERATED_TOKENS = 64
RATES = ("prefill_tokens_per_s", "decode_tokens_per_s")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arriero")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama-cpp", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.llama_cpp:
        print(json.dumps(llama_cpp(args.model, args.threads)))
        return
    threads = str(args.threads)
    sides = {
        "arriero": [args.arriero, "bench-engine", args.model, "--threads", threads],
        "llama_cpp": [sys.executable, __file__, args.arriero, args.model, "--threads", threads, "--llama-cpp"],
    }
    runs = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, command in sides.items():
            runs[name].append(one(command))
    print(json.dumps(report(runs, args.threads)))


def one(command):
    """The figures of one run: the last line that it prints."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(runs, threads):
    def middle(name, figure):
        return statistics.median(run[figure] for run in runs[name])

    def extremes(name, figure):
        values = [run[figure] for run in runs[name]]
        return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}

    figures = (*RATES, "load_s")
    ratios = {figure: round(middle("arriero", figure) / middle("llama_cpp", figure), 3) for figure in figures}
    return {
        "scenario": "engine",
        "threads": threads,
        "rounds": len(runs["arriero"]),
        "ratios": ratios,
        "arriero": {figure: extremes("arriero", figure) for figure in figures},
        "llama_cpp": {figure: extremes("llama_cpp", figure) for figure in figures},
    }


def llama_cpp(model, threads):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = 2 * PROMPT_TOKENS
    params.n_parallel = 1
    params.verbosity = 0
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    begun = time.perf_counter()
    server = xllamacpp.Server(params)
    load = time.perf_counter() - begun
    # The same tokens as the engine's own measurement reads: any do, the work is the same. The first run warms up.
    tokens = [(i * 7919 + 13) % 200_000 for i in range(PROMPT_TOKENS)]
    ask(server, tokens[:32], 4)
    timings = ask(server, tokens, GENERATED_TOKENS)
    return {
        "load_s": load,
        "prefill_tokens_per_s": timings["prompt_per_second"],
        "decode_tokens_per_s": timings["predicted_per_second"],
    }


def ask(server, tokens, generate):
    body = {"prompt": tokens, "n_predict": generate, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    return server.handle_completions(body)["timings"]


if __name__ == "__main__":
    main()
