"""LoRA with PyTorch and PEFT on the shapes and batches of `arriero bench-training`: tokens/s and peak memory.

    python3 bench/train_vs_peft.py [--shape llama-8b|qwen2.5-0.5b] [--rows 2] [--tokens 4096] [--checkpointing full|off] [--rank 16]
                                   [--steps 5] [--attention sdpa|flash_attention_2] [--adapters bf16|f32] [--forms]

Random bf16 weights made on the device, adapters on all seven linear layers, fused AdamW, loss on every token. Adapters: bf16 throughout, the
fastest that PEFT can; or single precision under autocast, as its defaults have it and as our engine keeps them. Needs an NVIDIA GPU, torch, transformers and peft. `--forms`: several batches, one after the other.
Prints one JSON object for each.
"""

import argparse
import gc
import json
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


def model(shape, rank, attention, checkpointing, adapters):
    kind, config = SHAPES[shape]
    config._attn_implementation = attention
    config.use_cache = False
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        base = kind(config)
    torch.set_default_dtype(torch.float32)
    if checkpointing == "full":
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    base.enable_input_require_grads()
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=TARGETS, task_type="CAUSAL_LM")
    adapted = get_peft_model(base, lora, autocast_adapter_dtype=adapters == "f32")
    adapted.train()
    return adapted


def measure(shape, rows, tokens, checkpointing, rank, steps, attention, adapters):
    torch.cuda.reset_peak_memory_stats()
    learner = model(shape, rank, attention, checkpointing, adapters)
    trained = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    times, losses = [], []
    for step in range(steps + 2):
        ids = torch.randint(0, SHAPES[shape][1].vocab_size, (rows, tokens), device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=adapters == "f32"):
            loss = learner(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        torch.cuda.synchronize()
        if step >= 2:
            times.append(time.perf_counter() - begin)
    free, total = torch.cuda.mem_get_info()
    seconds = statistics.median(times)
    return {
        "engine": f"torch {torch.__version__} + PEFT", "shape": shape, "rows": rows, "tokens": tokens, "checkpointing": checkpointing,
        "attention": attention, "rank": rank, "tokens_per_s": round(rows * tokens / seconds), "s_per_step": round(seconds, 4),
        "adapters": str(trained[0].dtype), "peak_allocated_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "peak_reserved_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2), "device_used_gb": round((total - free) / 1e9, 2),
        "losses": [round(x, 4) for x in losses],
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
    o = options.parse_args()
    for rows, tokens, checkpointing in FORMS[o.shape] if o.forms else [(o.rows, o.tokens, o.checkpointing)]:
        try:
            print(json.dumps(measure(o.shape, rows, tokens, checkpointing, o.rank, o.steps, o.attention, o.adapters)), flush=True)
        except torch.OutOfMemoryError as error:
            print(json.dumps({"shape": o.shape, "rows": rows, "tokens": tokens, "checkpointing": checkpointing, "error": str(error)[:200]}), flush=True)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
