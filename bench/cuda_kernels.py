"""Checks the CUDA kernels of the fine-tuning engine against PyTorch in double precision, and times them.

    python3 bench/cuda_kernels.py [--quick]

Needs an NVIDIA GPU of compute capability 8.0 or later, torch and cupy. The kernels are read from the sources and compiled by NVRTC, as the
engine does. Inputs are fresh and random, outputs are filled with NaN before each run. Exit code 1 if a check fails.
"""

import argparse
import functools
import pathlib
import statistics
import sys

import cupy
import numpy
import torch

KERNELS = pathlib.Path(__file__).resolve().parent.parent / "src/jobs/finetune/engine/cuda/kernels"
LIMIT = 1e-2  # of ‖out − reference‖ / ‖reference‖, for results in bf16
BF16 = torch.bfloat16
rows: list[tuple] = []
failed: list[str] = []


@functools.cache
def module(name, **defined):
    code = "\n".join((KERNELS / part).read_text() for part in ("numbers.cuh", "mma.cuh", f"{name}.cu"))
    options = tuple(f"-D{key}={value}" for key, value in defined.items())
    return cupy.RawModule(code=code, backend="nvrtc", options=("--std=c++17", *options))


POINTWISE, CROSS_ENTROPY = module("pointwise"), module("cross_entropy")


def argument(value):
    if isinstance(value, torch.Tensor):
        return numpy.uint64(value.data_ptr())
    if value is None:
        return numpy.uint64(0)
    return numpy.float32(value) if isinstance(value, float) else numpy.int32(value)


def launch(library, name, grid, block, *arguments, shared=0):
    kernel = library.get_function(name)
    if shared > 48 * 1024:
        kernel.max_dynamic_shared_size_bytes = shared
    with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
        kernel(grid, (block,), tuple(argument(a) for a in arguments), shared_mem=shared)


def blocks(items, of=256):
    return ((items + of - 1) // of,)


def poisoned(*shape, dtype=BF16):
    return torch.full(shape, float("nan"), dtype=dtype, device="cuda")


def random(*shape, scale=1.0):
    return (torch.randn(*shape, device="cuda") * scale).to(BF16)


def check(name, out, reference, limit=LIMIT):
    out, reference = out.double(), reference.double()
    error = ((out - reference).norm() / reference.norm()).item()
    good = error < limit
    print(f"{'ok  ' if good else 'FAIL'} {name}: {error:.2e}", flush=True)
    if not good:
        failed.append(name)


def median_ms(run, repeats=20):
    """`run(i)`: one run on the i-th set of inputs."""
    for i in range(3):
        run(i)
    times = []
    for i in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run(i)
        end.record()
        times.append((start, end))
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in times)


def note(name, ms, unit, amount, ceiling):
    rate = amount / ms * 1e-9
    rows.append((name, ms, f"{rate:,.0f} {unit}", f"{100 * rate / ceiling:.0f} %"))


# Attention


def tiles(starts, size):
    """(first, begin of the row, end of the row, 0) of every tile, those with most to read first."""
    found = [(first, a, b, 0) for a, b in zip(starts, starts[1:]) for first in range(a, b, size)]
    return found


def table(found, key):
    return torch.tensor(sorted(found, key=key), dtype=torch.int32, device="cuda")


class Attention:
    def __init__(self, starts, heads, kv_heads, size, cap=0.0, window=0, rows=None):
        self.starts, self.heads, self.kv_heads, self.size, self.cap, self.window = starts, heads, kv_heads, size, cap, window
        self.tokens, self.scale = starts[-1], size**-0.5
        self.rows = rows or (1 if size == 256 else 2)
        self.forward_tiles = table(tiles(starts, 64 * self.rows), key=lambda t: t[1] - t[0])
        self.query_tiles = table(tiles(starts, 64), key=lambda t: t[1] - t[0])
        self.key_tiles = table(tiles(starts, 64), key=lambda t: t[0] - t[2])
        self.pitch = (size + 8) * 2

    def inputs(self):
        """Queries, keys and values within one projection, as the engine has them."""
        qkv = random(self.tokens, (self.heads + 2 * self.kv_heads) * self.size)
        q, k, v = qkv.split([self.heads * self.size, self.kv_heads * self.size, self.kv_heads * self.size], 1)
        return q, k, v, random(self.tokens, self.heads * self.size)

    def shape(self):
        return self.heads // self.kv_heads, float(self.scale), float(self.cap), self.window

    def forward(self, q, k, v, out, lse):
        tile, library = 64 * self.rows, module("attention_forward", HEAD_SIZE=self.size, FORWARD_ROWS=self.rows)
        launch(
            library, "attention_forward", (self.heads, len(self.forward_tiles)), 128, q, k, v, out, lse, self.forward_tiles,
            self.tokens, q.stride(0), k.stride(0), v.stride(0), out.stride(0), *self.shape(), shared=(tile + 128) * self.pitch,
        )

    def backward(self, q, k, v, out, lse, grad, delta, dq, dk, dv, parts=("delta", "keys", "queries")):
        size, pitch = self.size, self.pitch
        strides = (self.tokens, q.stride(0), k.stride(0), v.stride(0), grad.stride(0))
        backward = module("attention_backward", HEAD_SIZE=size)
        if "delta" in parts:
            launch(backward, "attention_delta", blocks(self.tokens * self.heads, 8), 256, out, grad, delta, self.tokens, self.heads, out.stride(0))
        if "keys" in parts:
            queries = 16 if size == 256 else 64
            shared = (128 + 3 * queries) * pitch + 16 * queries
            for name in ("keys", "values") if size == 256 else ("keys_values",):
                launch(
                    backward, f"attention_backward_{name}", (self.kv_heads, len(self.key_tiles)), 128, q, k, v, grad, lse, delta, dk, dv,
                    self.key_tiles, *strides, dk.stride(0), dv.stride(0), *self.shape(), shared=shared,
                )
        if "queries" in parts:
            shared = (192 if size < 256 else 128 + 64) * pitch
            launch(
                backward, "attention_backward_queries", (self.heads, len(self.query_tiles)), 128, q, k, v, grad, lse, delta, dq,
                self.query_tiles, *strides, dq.stride(0), *self.shape(), shared=shared,
            )

    def reference(self, q, k, v, grad):
        q, k, v = (t.double().detach().requires_grad_() for t in (q, k, v))
        outs, sums = [], []
        group = self.heads // self.kv_heads
        for a, b in zip(self.starts, self.starts[1:]):
            n = b - a
            qs = q[a:b].reshape(n, self.heads, self.size).transpose(0, 1)
            ks = k[a:b].reshape(n, self.kv_heads, self.size).transpose(0, 1).repeat_interleave(group, 0)
            vs = v[a:b].reshape(n, self.kv_heads, self.size).transpose(0, 1).repeat_interleave(group, 0)
            scores = qs @ ks.transpose(1, 2) * self.scale
            if self.cap:
                scores = self.cap * torch.tanh(scores / self.cap)
            i, j = torch.arange(n, device="cuda")[:, None], torch.arange(n, device="cuda")[None]
            hidden = (j > i) | ((i - j >= self.window) if self.window else False)
            scores = scores.masked_fill(hidden, float("-inf"))
            sums.append(torch.logsumexp(scores, -1))
            outs.append((scores.softmax(-1) @ vs).transpose(0, 1).reshape(n, -1))
        out = torch.cat(outs)
        out.backward(grad.double())
        return out.detach(), torch.cat(sums, 1).detach(), q.grad, k.grad, v.grad

    def buffers(self):
        out, lse = poisoned(self.tokens, self.heads * self.size), poisoned(self.heads, self.tokens, dtype=torch.float32)
        delta = poisoned(self.heads, self.tokens, dtype=torch.float32)
        dq, dk, dv = poisoned(self.tokens, (self.heads + 2 * self.kv_heads) * self.size).split(
            [self.heads * self.size, self.kv_heads * self.size, self.kv_heads * self.size], 1)
        return out, lse, delta, dq, dk, dv


def check_attention():
    starts = [0, 1, 130, 130 + 64, 707, 1000]
    for size in (64, 96, 128, 256):
        for cap, window in ((0.0, 0), (20.0, 0), (0.0, 100), (5.0, 37)):
            a = Attention(starts, 8, 2, size, cap, window)
            q, k, v, grad = a.inputs()
            expected = a.reference(q, k, v, grad)
            out, lse, delta, dq, dk, dv = a.buffers()
            a.forward(q, k, v, out, lse)
            a.backward(q, k, v, out, lse, grad, delta, dq, dk, dv)
            name = f"attention {size} cap {cap} window {window}"
            check(f"{name} out", out, expected[0])
            check(f"{name} lse", lse, expected[1], 1e-4)
            for what, got, want in zip(("dq", "dk", "dv"), (dq, dk, dv), expected[2:]):
                check(f"{name} {what}", got, want)
            again = a.buffers()
            a.forward(q, k, v, again[0], again[1])
            a.backward(q, k, v, again[0], again[1], grad, *again[2:])
            if not all(torch.equal(x, y) for x, y in zip((out, lse, dq, dk, dv), (again[0], again[1], *again[3:]))):
                failed.append(f"{name}: two runs differ")


def time_attention(quick):
    for size, heads, kv_heads, length, count in ((128, 32, 8, 4096, 2), (128, 32, 8, 2048, 4), (64, 14, 2, 1024, 8), (256, 8, 4, 4096, 2), (96, 32, 32, 2048, 4)):
        a = Attention([i * length for i in range(count + 1)], heads, kv_heads, size)
        sets = [(a.inputs(), a.buffers()) for _ in range(3)]
        for (q, k, v, grad), (out, lse, delta, dq, dk, dv) in sets:
            a.forward(q, k, v, out, lse)
        torch.cuda.synchronize()

        def forward(i):
            (q, k, v, _), (out, lse, *_rest) = sets[i % 3]
            a.forward(q, k, v, out, lse)

        def backward(i, parts=("delta", "keys", "queries")):
            (q, k, v, grad), (out, lse, delta, dq, dk, dv) = sets[i % 3]
            a.backward(q, k, v, out, lse, grad, delta, dq, dk, dv, parts)

        operations = 2 * 2 * size * heads * count * length * length / 2
        name = f"{count}×{length} heads {heads}/{kv_heads} size {size}"
        note(f"attention forward {name}", median_ms(forward), "TFLOP/s", operations, 790)
        if size <= 128:
            other = Attention(a.starts, heads, kv_heads, size, rows=1)
            narrow = median_ms(lambda i: other.forward(*sets[i % 3][0][:3], *sets[i % 3][1][:2]))
            note("   with tiles of 64 queries", narrow, "TFLOP/s", operations, 790)
        note(f"attention backward {name} (2.5×)", median_ms(backward), "TFLOP/s", 2.5 * operations, 790)
        note("   of it keys and values (2×)", median_ms(lambda i: backward(i, ("keys",))), "TFLOP/s", 2 * operations, 790)
        note("   of it queries (1.5×)", median_ms(lambda i: backward(i, ("queries",))), "TFLOP/s", 1.5 * operations, 790)
        q, k, v = (torch.randn(count, n, length, size, device="cuda", dtype=BF16, requires_grad=True) for n in (heads, kv_heads, kv_heads))
        grad = torch.randn_like(q)

        def theirs(_i):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        note("   PyTorch's forward", median_ms(theirs, 10), "TFLOP/s", operations, 790)
        out = theirs(0)
        back = median_ms(lambda _i: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True), 10)
        note("   PyTorch's backward", back, "TFLOP/s", 2.5 * operations, 790)
        if quick:
            return


# Norms


def pieces(columns):
    return next(p for p in (1, 2, 4, 8) if p * 2048 >= columns)


def rms(x, weight, eps):
    x = x.double()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight.double()


def check_norms():
    eps = 1e-5
    for columns in (64, 896, 4096, 5120, 16384):
        n, library = 37, module("norm", PIECES=pieces(columns))
        x, added, grad, residual = (random(n, columns) for _ in range(4))
        weight = torch.rand(columns, device="cuda") + 0.5
        out, total = poisoned(n, columns), poisoned(n, columns)
        launch(library, "rms_norm", (n,), 256, x, weight, out, columns, columns, eps)
        check(f"rms_norm {columns}", out, rms(x, weight, eps))
        launch(library, "add_rms_norm", (n,), 256, x, added, weight, total, out.fill_(float("nan")), columns, columns, eps)
        check(f"add_rms_norm {columns} sum", total, x.double() + added.double())
        check(f"add_rms_norm {columns}", out, rms(total, weight, eps))
        leaf = x.double().requires_grad_()
        rms(leaf, weight, eps).backward(grad.double())
        launch(library, "rms_norm_backward", (n,), 256, x, weight, grad, out.fill_(float("nan")), columns, columns, columns, eps)
        check(f"rms_norm_backward {columns}", out, leaf.grad)
        launch(library, "rms_norm_backward_add", (n,), 256, x, weight, grad, residual, out.fill_(float("nan")), columns, columns, columns, eps)
        check(f"rms_norm_backward_add {columns}", out, leaf.grad + residual.double())
    for size in (64, 96, 128, 256):
        n, heads, stride = 37, 5, 5 * size + 16
        x, grad = random(n, stride), random(n, stride)
        weight = torch.rand(size, device="cuda") + 0.5
        leaf = x[:, : heads * size].reshape(n, heads, size).double().requires_grad_()
        want = rms(leaf, weight, eps)
        want.backward(grad[:, : heads * size].reshape(n, heads, size).double())
        out = poisoned(n, heads * size)
        launch(module("norm", PIECES=1), "head_norm", blocks(n * heads, 8), 256, x, weight, out, n, heads, size, stride, heads * size, eps)
        check(f"head_norm {size}", out, want.reshape(n, -1))
        rest = grad[:, heads * size :].clone()
        launch(module("norm", PIECES=1), "head_norm_backward", blocks(n * heads, 8), 256, x, weight, grad, grad, n, heads, size, stride, stride, eps)
        check(f"head_norm_backward {size} in place", grad[:, : heads * size], leaf.grad.reshape(n, -1))
        check(f"head_norm_backward {size} leaves the rest", grad[:, heads * size :], rest, 1e-30)


def time_norms():
    n, columns, eps = 32768, 4096, 1e-5
    library = module("norm", PIECES=2)
    sets = [tuple(random(n, columns) for _ in range(4)) for _ in range(2)]
    weight, out = torch.rand(columns, device="cuda"), poisoned(n, columns)
    bytes_each = n * columns * 2

    def named(name, touched, run):
        note(f"{name} {n}×{columns}", median_ms(lambda i: run(*sets[i % 2])), "GB/s", touched * bytes_each * 1e3, 4300)

    named("rms_norm", 2, lambda x, *_: launch(library, "rms_norm", (n,), 256, x, weight, out, columns, columns, eps))
    named("add_rms_norm", 4, lambda x, y, z, _: launch(library, "add_rms_norm", (n,), 256, x, y, weight, z, out, columns, columns, eps))
    named("rms_norm_backward_add", 4, lambda x, y, z, _: launch(library, "rms_norm_backward_add", (n,), 256, x, weight, y, z, out, columns, columns, columns, eps))


# Rotary embeddings and gates


def angles(length, pairs):
    frequencies = 10000.0 ** (-torch.arange(pairs, device="cuda", dtype=torch.float64) / pairs)
    angle = torch.arange(length, device="cuda", dtype=torch.float64)[:, None] * frequencies
    return angle.cos().float().contiguous(), angle.sin().float().contiguous()


def check_rotary():
    for size, pairs in ((64, 32), (96, 48), (128, 64), (256, 128), (128, 32)):
        n, heads, stride = 61, 5, 7 * size
        cosines, sines = angles(500, pairs)
        positions = torch.randint(0, 500, (n,), device="cuda", dtype=torch.int32)
        c, s = cosines[positions.long()].double()[:, None], sines[positions.long()].double()[:, None]
        for name in ("rotate_halves", "rotate_adjacent"):
            x = random(n, stride)
            heads_of = x[:, : heads * size].reshape(n, heads, size).double()
            turned, rest = heads_of[..., : 2 * pairs], heads_of[..., 2 * pairs :]
            if name == "rotate_halves":
                a, b = turned[..., :pairs], turned[..., pairs:]
                want = torch.cat([a * c - b * s, b * c + a * s], -1)
            else:
                a, b = turned[..., 0::2], turned[..., 1::2]
                want = torch.stack([a * c - b * s, b * c + a * s], -1).flatten(-2)
            want = torch.cat([want, rest], -1).reshape(n, -1)
            before = x.clone()
            count = n * heads * pairs // 8
            launch(POINTWISE, name, blocks(count), 256, x, positions, cosines, sines, n, stride, heads, size, pairs, 1.0)
            check(f"{name} {size}/{pairs}", x[:, : heads * size], want)
            launch(POINTWISE, name, blocks(count), 256, x, positions, cosines, sines, n, stride, heads, size, pairs, -1.0)
            check(f"{name} {size}/{pairs} and back", x, before)


def check_gates():
    n, columns = 53, 1000
    for name, activation in (("swiglu", torch.nn.functional.silu), ("geglu", lambda t: torch.nn.functional.gelu(t, approximate="tanh"))):
        both, grad = random(n, 2 * columns, scale=2.0), random(n, columns)
        gate, up = both[:, :columns], both[:, columns:]
        g, u = gate.double().detach().requires_grad_(), up.double().detach().requires_grad_()
        want = activation(g) * u
        want.backward(grad.double())
        out = poisoned(n, columns)
        launch(POINTWISE, name, blocks(n * columns // 8), 256, gate, up, out, n, columns, 2 * columns, columns)
        check(name, out, want)
        launch(POINTWISE, f"{name}_backward", blocks(n * columns // 8), 256, gate, up, grad, gate, up, n, columns, 2 * columns, 2 * columns)
        check(f"{name}_backward gate", gate, g.grad)
        check(f"{name}_backward up", up, u.grad)


def time_pointwise():
    n, size, heads, pairs = 32768, 128, 40, 64
    cosines, sines = angles(4096, pairs)
    positions = torch.arange(n, device="cuda", dtype=torch.int32) % 4096
    sets = [random(n, 48 * size) for _ in range(2)]
    count = n * heads * pairs // 8
    run = lambda i: launch(POINTWISE, "rotate_halves", blocks(count), 256, sets[i % 2], positions, cosines, sines, n, 48 * size, heads, size, pairs, 1.0)
    note(f"rotate_halves {n}×{heads}×{size}", median_ms(run), "GB/s", 2 * n * heads * size * 2 * 1e3, 4300)
    n, columns = 8192, 14336
    both, grad, out = [random(n, 2 * columns) for _ in range(2)], random(n, columns), poisoned(n, columns)
    items = blocks(n * columns // 8)
    forward = lambda i: launch(POINTWISE, "swiglu", items, 256, both[i % 2], both[i % 2][:, columns:], out, n, columns, 2 * columns, columns)
    back = lambda i: launch(POINTWISE, "swiglu_backward", items, 256, both[i % 2], both[i % 2][:, columns:], grad, both[i % 2], both[i % 2][:, columns:], n, columns, 2 * columns, 2 * columns)
    note(f"swiglu {n}×{columns}", median_ms(forward), "GB/s", 3 * n * columns * 2 * 1e3, 4300)
    note(f"swiglu_backward {n}×{columns}", median_ms(back), "GB/s", 5 * n * columns * 2 * 1e3, 4300)


# Cross-entropy


def check_cross_entropy():
    for columns in (8, 1000, 32064, 151936):
        for cap in (0.0, 30.0):
            for kind in (torch.float32, BF16):
                n = 19
                logits = (torch.randn(n, columns, device="cuda") * 6).to(kind)
                labels = torch.randint(0, columns, (n,), device="cuda", dtype=torch.int32)
                weights = torch.rand(n, device="cuda") - 0.2
                leaf = logits.double().requires_grad_()
                z = cap * torch.tanh(leaf / cap) if cap else leaf
                want = torch.log_softmax(z, -1).gather(1, labels.long()[:, None])[:, 0]
                (-(want * weights.double()).sum()).backward()
                logs, grads = poisoned(n, dtype=torch.float32), poisoned(n, columns) if kind == torch.float32 else logits
                launch(CROSS_ENTROPY, f"cross_entropy_{'f32' if kind == torch.float32 else 'bf16'}", (n,), 512, logits, labels, weights, logs, grads, columns, cap)
                check(f"cross_entropy {columns} {kind} cap {cap} ln p", logs, want, 1e-5)
                check(f"cross_entropy {columns} {kind} cap {cap} gradient", grads, leaf.grad)


def time_cross_entropy():
    n, columns = 2048, 128256
    logits = [torch.randn(n, columns, device="cuda") for _ in range(2)]
    grads, labels = poisoned(n, columns), torch.randint(0, columns, (n,), device="cuda", dtype=torch.int32)
    weights, logs = torch.ones(n, device="cuda"), poisoned(n, dtype=torch.float32)
    run = lambda i: launch(CROSS_ENTROPY, "cross_entropy_f32", (n,), 512, logits[i % 2], labels, weights, logs, grads, columns, 0.0)
    note(f"cross_entropy_f32 {n}×{columns} (f32 read once, bf16 written)", median_ms(run), "GB/s", 6 * n * columns * 1e3, 4300)
    small = [t.to(BF16) for t in logits]
    run = lambda i: launch(CROSS_ENTROPY, "cross_entropy_bf16", (n,), 512, small[i % 2], labels, weights, logs, small[i % 2], columns, 0.0)
    note(f"cross_entropy_bf16 {n}×{columns} (bf16 read once and written)", median_ms(run), "GB/s", 4 * n * columns * 1e3, 4300)


# What cuBLAS gives on the products of an 8B shape, and what LoRA's part costs in three ways


def time_products():
    n = 8192
    a, b = random(1 << 30), poisoned(1 << 30)
    note("copy of 2 GiB", median_ms(lambda _i: b.copy_(a), 10), "GB/s", 4 * (1 << 30) * 1e3, 4300)
    del a, b
    for inputs, outputs in ((4096, 6144), (4096, 4096), (4096, 28672), (14336, 4096), (4096, 128256)):
        tokens = 2048 if outputs > 100000 else n
        x, w = random(tokens, inputs), random(outputs, inputs)
        operations = 2 * tokens * inputs * outputs
        note(f"x·Wᵀ {tokens}×{inputs}→{outputs}", median_ms(lambda _i: x @ w.T, 10), "TFLOP/s", operations, 790)
        grad = random(tokens, outputs)
        note(f"g·W {tokens}×{outputs}→{inputs}", median_ms(lambda _i: grad @ w, 10), "TFLOP/s", operations, 790)
        if outputs > 100000:
            continue
        low, up, y, da = random(tokens, 16), random(outputs, 16), poisoned(tokens, outputs).zero_(), random(16, inputs)
        note("   x·Aᵀ, rank 16", median_ms(lambda _i: x @ da.T, 10), "GB/s", tokens * inputs * 2 * 1e3, 4300)
        note("   y += u·Bᵀ, rank 16", median_ms(lambda _i: y.addmm_(low, up.T), 10), "GB/s", tokens * outputs * 4 * 1e3, 4300)
        note("   dB = gᵀ·u, rank 16", median_ms(lambda _i: grad.T @ low, 10), "GB/s", tokens * outputs * 2 * 1e3, 4300)
        wide_x, wide_w = random(tokens, inputs + 64), random(outputs, inputs + 64)
        note("   [x u]·[W B]ᵀ, 64 wider", median_ms(lambda _i: wide_x @ wide_w.T, 10), "TFLOP/s", operations, 790)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true", help="time attention of one shape alone")
    quick = options.parse_args().quick
    print(torch.cuda.get_device_name(), torch.__version__, cupy.__version__)
    torch.backends.cuda.matmul.allow_tf32 = False
    for part in (check_norms, check_rotary, check_gates, check_cross_entropy, check_attention):
        part()
    time_attention(quick)
    if not quick:
        for part in (time_norms, time_pointwise, time_cross_entropy, time_products):
            part()
    torch.cuda.synchronize()
    print(f"\n{'':70} {'ms':>9} {'rate':>16} {'of ceiling':>10}")
    for name, ms, rate, share in rows:
        print(f"{name:70} {ms:9.3f} {rate:>16} {share:>10}")
    print(f"\n{len(failed)} checks failed{': ' if failed else ''}{'; '.join(failed)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
