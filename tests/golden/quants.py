#!/usr/bin/env python3
"""Makes quants.json: what ggml (llama.cpp b11434, x86-64) packs, and what llama-quantize writes, as hashes.

    python3 tests/golden/quants.py FOLDER    # the folder that has libggml-base.so and llama-quantize

The numbers come from a counter and integer arithmetic, so that the tests in src/gguf make the same ones. Packages: numpy, gguf.
"""
import ctypes, hashlib, json, pathlib, subprocess, sys, tempfile

import gguf
import numpy as np

F32 = np.float32
FOLDER = pathlib.Path(sys.argv[1]).resolve()
KINDS = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
         "IQ4_NL": 20, "IQ4_XS": 23, "BF16": 30}
COUNT, ROW = 6 * 1024 + 256 * 3, 768


def mix(seed, count):
    """splitmix64 of seed, seed + 1, …"""
    z = (np.arange(count, dtype=np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def bell(seed, count):
    """Sums of four 16-bit numbers: about normal, with a standard deviation of 0.58."""
    z = mix(seed, count)
    parts = sum(((z >> np.uint64(16 * k)) & np.uint64(0xFFFF)).astype(np.int64) for k in range(4))
    return ((parts - 131070).astype(F32)) / F32(65536)


def powers(seed, count, least, span):
    return np.ldexp(F32(1), (mix(seed, count) % np.uint64(span)).astype(np.int64) + least).astype(F32)


def inputs():
    x = bell(1, COUNT)
    i = np.arange(COUNT)
    block = i // 32
    yield "bell", x
    yield "small", x * F32(0.02)
    yield "heavy", x * powers(100_000, COUNT, -12, 24)
    yield "positive", np.abs(x) + F32(1)
    yield "negative", -np.abs(x) - F32(0.5)
    yield "zero", x * F32(0)
    yield "constant", np.full(COUNT, 0.37, F32)
    yield "sparse", np.where(mix(200_000, COUNT) % np.uint64(32) == 0, x, F32(0))
    yield "denormal", x * F32(2.0**-140)
    yield "tiny", x * F32(2.0**-49)
    yield "huge", x * F32(2.0**100)
    yield "grid", np.floor(x * F32(8)) / F32(8)
    yield "blocks", x * powers(300_000, COUNT // 32, -40, 50)[block]
    yield "holes", np.where(mix(400_000, COUNT // 32)[block] % np.uint64(3) == 0, F32(0), x)
    yield "offset", F32(1000) + x
    yield "signs", np.where(x < 0, F32(-1), F32(1))


def importance(row, seed):
    """Between zero and one, a quarter of it zero."""
    z = mix(seed, row)
    return np.where(z % np.uint64(4) == 0, F32(0), (z >> np.uint64(40)).astype(F32) / F32(1 << 24))


def digest(data):
    return hashlib.sha256(data.tobytes() if hasattr(data, "tobytes") else data).hexdigest()[:20]


def packed():
    ggml = ctypes.CDLL(str(FOLDER / "libggml-base.so"))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    ggml.ggml_quantize_chunk.restype = size
    ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, pointer]

    class Traits(ctypes.Structure):
        _fields_ = [("name", ctypes.c_char_p), ("block", ctypes.c_int64), ("interleave", ctypes.c_int64), ("bytes", size),
                    ("quantized", ctypes.c_bool), ("unpack", ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_int64))]

    ggml.ggml_get_type_traits.restype = ctypes.POINTER(Traits)
    cases = []
    for name, x in inputs():
        x = np.ascontiguousarray(x, F32)
        for kind, code in KINDS.items():
            traits = ggml.ggml_get_type_traits(code).contents
            for weights in (None, importance(ROW, 7)):
                out = np.zeros(COUNT // traits.block * traits.bytes, np.uint8)
                back = np.zeros(COUNT, F32)
                at = weights.ctypes.data if weights is not None else None
                ggml.ggml_quantize_chunk(code, x.ctypes.data, out.ctypes.data, 0, COUNT // ROW, ROW, at)
                traits.unpack(out.ctypes.data, back.ctypes.data, COUNT)
                cases.append([kind, name, weights is not None, digest(out), digest(back)])
    return cases


EMBEDDING, FEED, LAYERS, WORDS, HEADS, SHARED = 256, 288, 8, 96, 8, 2


def shapes():
    kv = EMBEDDING // HEADS * SHARED
    yield "token_embd.weight", [WORDS, EMBEDDING]
    for layer in range(LAYERS):
        for part, shape in [("attn_norm", [EMBEDDING]), ("ffn_down", [EMBEDDING, FEED]), ("ffn_gate", [FEED, EMBEDDING]),
                            ("ffn_up", [FEED, EMBEDDING]), ("ffn_norm", [EMBEDDING]), ("attn_k", [kv, EMBEDDING]),
                            ("attn_output", [EMBEDDING, EMBEDDING]), ("attn_q", [EMBEDDING, EMBEDDING]), ("attn_v", [kv, EMBEDDING])]:
            yield f"blk.{layer}.{part}.weight", shape
    yield "output_norm.weight", [EMBEDDING]
    yield "output.weight", [WORDS, EMBEDDING]


def model(path):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(LAYERS)
    w.add_context_length(512)
    w.add_embedding_length(EMBEDDING)
    w.add_feed_forward_length(FEED)
    w.add_head_count(HEADS)
    w.add_head_count_kv(SHARED)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_file_type(1)
    w.add_tokenizer_model("llama")
    w.add_token_list([b"t%d" % i for i in range(WORDS)])
    w.add_token_scores([0.0] * WORDS)
    w.add_token_types([1] * WORDS)
    w.add_add_bos_token(True)
    for index, (name, shape) in enumerate(shapes()):
        x = bell(1_000_000 * (index + 1), int(np.prod(shape))).reshape(shape) * F32(0.05)
        w.add_tensor(name, x if len(shape) == 1 else x.astype(np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def weighted():
    """The matrices that the importance files have values for: all but the embeddings."""
    return [(name, importance(shape[1], 50 + index)) for index, (name, shape) in enumerate(shapes()) if len(shape) > 1 and index > 0]


def legacy_imatrix(path):
    def text(s):
        return np.int32(len(s)).tobytes() + s.encode()

    out = np.int32(len(weighted())).tobytes()
    for name, values in weighted():
        out += text(name) + np.int32(3).tobytes() + np.int32(len(values)).tobytes() + values.tobytes()
    path.write_bytes(out + np.int32(5).tobytes() + text("words.txt"))


def modern_imatrix(path):
    w = gguf.GGUFWriter(path, "")
    w.kv_data[0].clear()
    w.add_string("general.type", "imatrix")
    w.add_array("imatrix.datasets", ["words.txt"])
    w.add_uint32("imatrix.chunk_count", 9)
    w.add_uint32("imatrix.chunk_size", 512)
    for name, values in weighted():
        w.add_tensor(name + ".in_sum2", values.reshape(1, -1))
        w.add_tensor(name + ".counts", np.full((1, 1), 0 if "blk.2" in name else 7, F32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def files():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model(folder / "in.gguf")
        legacy_imatrix(folder / "importance.dat")
        modern_imatrix(folder / "importance.gguf")
        result = {"source": digest((folder / "in.gguf").read_bytes()),
                  "legacy": digest((folder / "importance.dat").read_bytes()),
                  "modern": digest((folder / "importance.gguf").read_bytes())}
        plain = ["COPY", "F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M",
                 "Q5_K_S", "Q5_K_M", "Q6_K", "IQ4_NL", "IQ4_XS"]
        runs = [(kind, None) for kind in plain]
        runs += [(kind, matrix) for kind in ["Q4_0", "Q2_K_S", "Q3_K_M", "Q4_K_M", "Q6_K", "IQ4_XS"] for matrix in ["importance.dat", "importance.gguf"]]
        for kind, matrix in runs:
            extra = ["--imatrix", matrix] if matrix else []
            subprocess.run([FOLDER / "llama-quantize", *extra, "in.gguf", "out.gguf", kind, "2"], cwd=folder, check=True, capture_output=True)
            result[f"{kind} {matrix}" if matrix else kind] = digest((folder / "out.gguf").read_bytes())
        return result


lines = ",\n".join("    " + json.dumps(case) for case in packed())
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text('{\n  "files": ' + json.dumps(files(), indent=4).replace("\n}", "\n  }") + ',\n  "packed": [\n' + lines + "\n  ]\n}\n")
