"""LoRA with PyTorch and PEFT on the shapes and batches of `arriero bench-training`: tokens/s and peak memory.

    python3 bench/train_vs_peft.py [--shape llama-8b|qwen2.5-0.5b] [--rows 2] [--tokens 4096] [--checkpointing full|off] [--rank 16]
                                   [--steps 5] [--attention sdpa|flash_attention_2] [--adapters bf16|f32] [--forms]
                                   [--device cuda|cpu] [--threads 2]

Random weights made on the device, adapters on all seven linear layers, AdamW, loss on every token. On a GPU weights are bf16. Adapters: bf16
throughout, the fastest that PEFT can; or single precision under autocast, as its defaults have it and as our engine keeps them. On the CPU all
is single precision. Needs torch, transformers and peft. `--forms`: several batches, one after the other. Prints one JSON object for each.
"""

import argparse
import gc
import json
import re
import statistics
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

SHAPES = {
    "llama-8b": (
        LlamaForCausalLM,
        LlamaConfig(
            vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
            max_position_embeddings=8192, rope_theta=500000.0, rms_norm_eps=1e-5, tie_word_embeddings=False,
        ),
    ),
    "qwen2.5-0.5b": (
        Qwen2ForCausalLM,
        Qwen2Config(
            vocab_size=151936, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2,
            max_position_embeddings=8192, rope_theta=1000000.0, rms_norm_eps=1e-6, tie_word_embeddings=True,
        ),
    ),
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FORMS = {
    "llama-8b": [(2, 4096, "full"), (4, 2048, "full"), (1, 4096, "full"), (1, 2048, "off"), (2, 4096, "off")],
    "qwen2.5-0.5b": [(8, 1024, "full"), (8, 1024, "off")],
}


def model(o, checkpointing):
    kind, config = SHAPES[o.shape]
    config._attn_implementation = o.attention
    config.use_cache = False
    torch.set_default_dtype(torch.bfloat16 if o.device == "cuda" else torch.float32)
    with torch.device(o.device):
        base = kind(config)
    torch.set_default_dtype(torch.float32)
    if checkpointing == "full":
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.enable_input_require_grads()
    lora = LoraConfig(r=o.rank, lora_alpha=2 * o.rank, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, lora, autocast_adapter_dtype=o.adapters == "f32")
    adapted.train()
    return adapted


def resident(name):
    """Bytes of this process, as the system tells."""
    return int(re.search(name + r":\s+(\d+) kB", open("/proc/self/status").read()).group(1)) << 10


def measure(o, rows, tokens, checkpointing):
    on_gpu = o.device == "cuda"
    learner = model(o, checkpointing)
    trained = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=on_gpu)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        open("/proc/self/clear_refs", "w").write("5")
        loaded = resident("VmRSS")
    synchronize = torch.cuda.synchronize if on_gpu else lambda: None
    warm = 2 if on_gpu else 1
    times, cpu_times, losses = [], [], []
    for step in range(o.steps + warm):
        ids = torch.randint(0, SHAPES[o.shape][1].vocab_size, (rows, tokens), device=o.device)
        synchronize()
        begin, cpu_begin = time.perf_counter(), time.process_time()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=on_gpu and o.adapters == "f32"):
            loss = learner(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        synchronize()
        if step >= warm:
            times.append(time.perf_counter() - begin)
            cpu_times.append(time.process_time() - cpu_begin)
    seconds = statistics.median(times)
    found = {
        "engine": f"torch {torch.__version__} + PEFT", "device": o.device, "shape": o.shape, "rows": rows, "tokens": tokens,
        "checkpointing": checkpointing, "attention": o.attention, "rank": o.rank, "tokens_per_s": round(rows * tokens / seconds),
        "s_per_step": round(seconds, 4), "cpu_s_per_step": round(statistics.median(cpu_times), 3), "adapters": str(trained[0].dtype),
        "losses": [round(x, 4) for x in losses],
    }
    if not on_gpu:
        return found | {"loaded_bytes": loaded, "peak_bytes": resident("VmHWM")}
    free, total = torch.cuda.mem_get_info()
    return found | {
        "peak_allocated_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2), "device_used_gb": round((total - free) / 1e9, 2),
    }


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--shape", default="llama-8b", choices=SHAPES)
    options.add_argument("--rows", type=int, default=2)
    options.add_argument("--tokens", type=int, default=4096)
    options.add_argument("--checkpointing", default="full", choices=["full", "off"])
    options.add_argument("--rank", type=int, default=16)
    options.add_argument("--steps", type=int, default=5)
    options.add_argument("--attention", default="sdpa")
    options.add_argument("--adapters", default="bf16", choices=["bf16", "f32"])
    options.add_argument("--forms", action="store_true")
    options.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options.add_argument("--threads", type=int, help="on the CPU; as many as there are cores")
    o = options.parse_args()
    if o.threads:
        torch.set_num_threads(o.threads)
    for rows, tokens, checkpointing in FORMS[o.shape] if o.forms else [(o.rows, o.tokens, o.checkpointing)]:
        try:
            print(json.dumps(measure(o, rows, tokens, checkpointing)), flush=True)
        except torch.OutOfMemoryError as error:
            print(json.dumps({"shape": o.shape, "rows": rows, "tokens": tokens, "checkpointing": checkpointing, "error": str(error)[:200]}), flush=True)
        gc.collect()
        if o.device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
