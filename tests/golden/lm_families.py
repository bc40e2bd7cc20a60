"""Writes lm_*.gguf and lm_families.json: tiny random models of each family and the logits `transformers` gives for them.

    pip install torch transformers gguf numpy && python -P tests/golden/lm_families.py [NAME…]

The models are random and tiny; their weights are written in 32 bits and laid out as llama.cpp's converter lays them out (Llama's
queries and keys permuted, 1 added to Gemma's norms, Llama 3's scaling and Phi 3's factors as tensors). The logits are of some
positions of one sequence, from one pass in 32 bits with plain attention. Models whose rope changes with the length of the sequence
have another entry for one that is shorter. With names only those models are made anew; the others stay as they are.
"""

import json
import math
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
SHOWN = [0, 1, 9, 20, 38, 39]
LENGTH = 40
SHORT = 12
SHOWN_SHORT = [0, 1, 9, 11]
SIZES = dict(vocab_size=72, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
# Tokens outside of this vocabulary otherwise.
PHI3 = dict(pad_token_id=None, eos_token_id=1)
# Phi 3 takes its own setting of this before that of the rope.
LONG = dict(original_max_position_embeddings=16)
LONGROPE = dict(rope_type="longrope", rope_theta=10000.0, **LONG)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
OUTER = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}


def families():
    llama = transformers.LlamaConfig, transformers.LlamaForCausalLM
    mistral = transformers.MistralConfig, transformers.MistralForCausalLM
    gemma = transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM
    gemma1 = transformers.GemmaConfig, transformers.GemmaForCausalLM
    gemma2 = transformers.Gemma2Config, transformers.Gemma2ForCausalLM
    phi3 = transformers.Phi3Config, transformers.Phi3ForCausalLM
    qwen = transformers.Qwen2Config, transformers.Qwen2ForCausalLM
    qwen3 = transformers.Qwen3Config, transformers.Qwen3ForCausalLM
    plain = dict(rope_type="default", rope_theta=10000.0)
    return [
        ("llama-untied-gqa", "llama", llama, dict(num_hidden_layers=2, tie_word_embeddings=False, rope_parameters=plain)),
        ("llama3-scaling-tied", "llama", llama, dict(num_hidden_layers=2, tie_word_embeddings=True, rope_parameters=LLAMA3)),
        (
            "llama-linear-scaling",
            "llama",
            llama,
            dict(num_hidden_layers=2, tie_word_embeddings=True, rope_parameters=dict(rope_type="linear", factor=4.0, rope_theta=5000.0)),
        ),
        (
            "mistral-window",
            "llama",
            mistral,
            dict(num_hidden_layers=2, tie_word_embeddings=False, sliding_window=8, head_dim=16, rope_parameters=plain),
        ),
        (
            "gemma3-window",
            "gemma3",
            gemma,
            dict(
                num_hidden_layers=7,
                sliding_window=8,
                head_dim=16,
                query_pre_attn_scalar=16,
                rope_parameters=dict(
                    sliding_attention=plain,
                    full_attention=dict(rope_type="default", rope_theta=1000000.0),
                ),
            ),
        ),
        ("qwen2-biases", "qwen2", qwen, dict(num_hidden_layers=2, tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=1000000.0))),
        ("qwen2-yarn", "qwen2", qwen, dict(num_hidden_layers=2, tie_word_embeddings=True, rope_parameters=YARN)),
        ("qwen3-norms", "qwen3", qwen3, dict(num_hidden_layers=2, tie_word_embeddings=False, head_dim=16, rope_parameters=plain)),
        ("gemma-mqa", "gemma", gemma1, dict(num_hidden_layers=2, num_key_value_heads=1, head_dim=16, rope_parameters=plain)),
        (
            "gemma2-softcaps",
            "gemma2",
            gemma2,
            dict(
                num_hidden_layers=2,
                sliding_window=8,
                head_dim=16,
                query_pre_attn_scalar=16,
                attn_logit_softcapping=3.0,
                final_logit_softcapping=4.0,
                rope_parameters=plain,
            ),
        ),
        (
            "phi3-window",
            "phi3",
            phi3,
            dict(num_hidden_layers=2, num_key_value_heads=4, sliding_window=8, tie_word_embeddings=False, rope_parameters=plain, **PHI3),
        ),
        (
            "phi3-longrope",
            "phi3",
            phi3,
            dict(num_hidden_layers=2, tie_word_embeddings=False, rope_parameters=longrope(4), **PHI3, **LONG),
        ),
        (
            "phi3-partial-tied",
            "phi3",
            phi3,
            dict(num_hidden_layers=2, tie_word_embeddings=True, rope_parameters=dict(**longrope(3), partial_rotary_factor=0.75), **PHI3, **LONG),
        ),
    ]


def longrope(pairs):
    """Factors that differ from each other and from pair to pair."""
    return dict(LONGROPE, short_factor=[1.0 + 0.1 * i for i in range(pairs)], long_factor=[1.5 + 2.5 * i for i in range(pairs)])


def randomise(model):
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if name.endswith("norm.weight"):
                weight += 0.2 * noise
            elif "embed_tokens" in name:
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(noise * (2.0 / math.sqrt(weight.shape[-1]) if weight.dim() > 1 else 0.3))


def permute(weight, heads):
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def gguf_name(name, architecture):
    name = name.removeprefix("model.")
    if name in OUTER:
        return OUTER[name]
    _, index, rest = name.split(".", 2)
    part, kind = rest.rsplit(".", 1)
    names = {**NAMES, **GEMMA_NAMES} if architecture in ("gemma2", "gemma3") else NAMES
    return f"blk.{index}.{names[part]}.{kind}"


def tensors(model, config, architecture):
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.numpy().astype(np.float32)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            values = values + np.float32(1)
        if architecture == "llama" and ".q_proj." in name:
            values = permute(values, config.num_attention_heads)
        if architecture == "llama" and ".k_proj." in name:
            values = permute(values, config.num_key_value_heads)
        yield gguf_name(name, architecture), values


def llama3_factors(rope, head_length):
    frequencies = rope["rope_theta"] ** (-np.arange(0, head_length, 2, dtype=np.float64) / head_length)
    low, high, old, factor = (rope[key] for key in ("low_freq_factor", "high_freq_factor", "original_max_position_embeddings", "factor"))
    factors = []
    for wavelength in 2 * math.pi / frequencies:
        if wavelength < old / high:
            factors.append(1.0)
        elif wavelength > old / low:
            factors.append(factor)
        else:
            smooth = (old / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def write_phi3(writer, config, rope, head_length):
    writer.add_rope_dimension_count(int(rope.get("partial_rotary_factor", 1.0) * head_length))
    original = rope.get("original_max_position_embeddings", config.max_position_embeddings)
    writer.add_rope_scaling_orig_ctx_len(original)
    if rope["rope_type"] == "longrope":
        scale = config.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
        for which in ("long", "short"):
            writer.add_tensor(f"rope_factors_{which}.weight", np.array(rope[f"{which}_factor"], dtype=np.float32))


def write(path, model, config, architecture):
    writer = gguf.GGUFWriter(path, architecture)
    head_length = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_length)
    writer.add_value_length(head_length)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters
    if architecture == "gemma3":
        writer.add_float32("gemma3.rope.freq_base_swa", rope["sliding_attention"]["rope_theta"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if architecture == "phi3":
        write_phi3(writer, config, rope, head_length)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if getattr(config, "sliding_window", None) and architecture != "qwen2":
        writer.add_sliding_window(config.sliding_window)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_length))
    for name, values in tensors(model, config, architecture):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def entry(name, model, tokens, length):
    with torch.no_grad():
        logits = model(torch.tensor([tokens[:length]]), use_cache=False).logits[0].double().numpy()
    print(name, length, "largest logit", abs(logits).max())
    shown = SHOWN if length == LENGTH else SHOWN_SHORT
    made = {"name": name} if length == LENGTH else {"name": name, "length": length, "positions": shown}
    return {**made, "logits": [[float(f"{x:.7g}") for x in logits[position]] for position in shown]}


def main(wanted):
    tokens = [(i * i * 5 + 3 * i + 2) % SIZES["vocab_size"] for i in range(LENGTH)]
    path = HERE / "lm_families.json"
    old = json.loads(path.read_text())["families"] if wanted else []
    golden = {"transformers": transformers.__version__, "tokens": tokens, "positions": SHOWN, "families": []}
    for name, architecture, (config_class, model_class), settings in families():
        if wanted and name not in wanted:
            golden["families"] += [entry for entry in old if entry["name"] == name]
            continue
        config = config_class(**{**SIZES, **settings}, attn_implementation="eager")
        model = model_class(config).eval().float()
        randomise(model)
        write(HERE / f"lm_{name}.gguf", model, config, architecture)
        lengths = [LENGTH, SHORT] if settings["rope_parameters"].get("rope_type") == "longrope" else [LENGTH]
        golden["families"] += [entry(name, model, tokens, length) for length in lengths]
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
