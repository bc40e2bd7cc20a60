"""Writes peft/: adapters as PEFT itself saves them, and peft.json: the logits that the adapted models give.

    pip install torch transformers==4.57.6 peft gguf numpy && python -P tests/golden/peft_adapters.py
    python -P tests/golden/peft_adapters.py FOLDER...

The models are those of lm_families.py, whose weights are taken from the files that it wrote; that they are the same models is seen
from their logits. The second form checks folders that were written here (`src/jobs/finetune/export`): in each there are `adapter` in
PEFT's format, `merged` in Hugging Face's, and `base`, merged from no parameters at all; it prints by how much the logits of the model
with the adapter and of the merged one differ.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
import peft
import torch
import transformers

HERE = Path(__file__).parent
GOLDEN = json.loads((HERE / "lm_families.json").read_text())
SIZES = dict(vocab_size=72, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
PARTS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "ffn_norm": "post_attention_layernorm",
}
GEMMA = {"ffn_norm": "pre_feedforward_layernorm", "post_attention_norm": "post_attention_layernorm", "post_ffw_norm": "post_feedforward_layernorm"}
OUTER = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


def cases():
    """Each model, and an adapter with settings that the others do not have."""
    llama, mistral = (transformers.LlamaConfig, transformers.LlamaForCausalLM), (transformers.MistralConfig, transformers.MistralForCausalLM)
    gemma, qwen = (transformers.Gemma3TextConfig, transformers.Gemma3ForCausalLM), (transformers.Qwen2Config, transformers.Qwen2ForCausalLM)
    return [
        ("llama-untied-gqa", llama, dict(num_hidden_layers=2, tie_word_embeddings=False), dict(r=4, lora_alpha=8, target_modules=ALL, modules_to_save=["lm_head"])),
        (
            "llama3-scaling-tied",
            llama,
            dict(num_hidden_layers=2, tie_word_embeddings=True, rope_scaling=LLAMA3),
            dict(r=4, lora_alpha=2, use_rslora=True, target_modules=["q_proj", "k_proj", "up_proj"], rank_pattern={"up_proj": 2}, alpha_pattern={"q_proj": 3}),
        ),
        (
            "mistral-window",
            mistral,
            dict(num_hidden_layers=2, tie_word_embeddings=False, sliding_window=8, head_dim=16),
            dict(r=4, lora_alpha=8, use_dora=True, target_modules=ALL),
        ),
        (
            "gemma3-window",
            gemma,
            dict(num_hidden_layers=7, sliding_window=8, head_dim=16, query_pre_attn_scalar=16, rope_theta=1000000.0, rope_local_base_freq=10000.0),
            dict(r=2, lora_alpha=4, target_modules=ATTENTION),
        ),
        (
            "qwen2-biases",
            qwen,
            dict(num_hidden_layers=2, tie_word_embeddings=True, rope_theta=1000000.0),
            dict(r=2, lora_alpha=5, target_modules=["v_proj", "model.layers.0.mlp.down_proj"]),
        ),
    ]


def unpermute(weight, heads):
    shape = weight.shape
    return weight.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def weights(name, config):
    """The weights of a GGUF file as Hugging Face has them."""
    reader = gguf.GGUFReader(HERE / f"lm_{name}.gguf")
    is_gemma, is_llama = "gemma" in name, "llama" in name or "mistral" in name
    state = {}
    for tensor in reader.tensors:
        values = np.array(tensor.data)
        if tensor.name == "rope_freqs.weight":
            continue
        if tensor.name in OUTER:
            theirs = OUTER[tensor.name]
        else:
            _, layer, part, kind = tensor.name.split(".")
            theirs = f"model.layers.{layer}.{({**PARTS, **GEMMA} if is_gemma else PARTS)[part]}.{kind}"
        if is_gemma and theirs.endswith("norm.weight"):
            values = values - np.float32(1)
        if is_llama and ".q_proj." in theirs:
            values = unpermute(values, config.num_attention_heads)
        if is_llama and ".k_proj." in theirs:
            values = unpermute(values, config.num_key_value_heads)
        state[theirs] = torch.from_numpy(values)
    return state


def logits(model):
    with torch.no_grad():
        return model(torch.tensor([GOLDEN["tokens"]]), use_cache=False).logits[0].double().numpy()


def load(name, config_class, model_class, settings):
    config = config_class(**SIZES, **settings, attn_implementation="eager")
    model = model_class(config).eval().float()
    missing, extra = model.load_state_dict(weights(name, config), strict=False)
    assert set(missing) <= {"lm_head.weight"} and not extra, (missing, extra)
    model.tie_weights()
    known = next(family for family in GOLDEN["families"] if family["name"] == name)
    difference = np.abs(logits(model)[GOLDEN["positions"]] - np.array(known["logits"])).max()
    assert difference < 2e-5, (name, difference)
    return model


def train(model):
    """Numbers as if it had been trained."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if "lora_A" in name or "lora_B" in name:
                weight.copy_(noise * (0.5 if "lora_A" in name else 0.1))
            elif "lora_magnitude_vector" in name:
                weight *= 1 + 0.1 * noise
            elif "modules_to_save" in name:
                weight += 0.1 * noise


def main():
    golden = []
    for name, (config_class, model_class), settings, lora in cases():
        base = load(name, config_class, model_class, settings)
        model = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **lora)).eval()
        train(model)
        folder = HERE / "peft" / name
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        found = logits(model)
        golden.append({"name": name, "logits": [[float(f"{x:.7g}") for x in found[position]] for position in GOLDEN["positions"]]})
        print(name, "largest change", np.abs(found[GOLDEN["positions"]] - np.array(next(f["logits"] for f in GOLDEN["families"] if f["name"] == name))).max())
    text = {"peft": peft.__version__, "transformers": transformers.__version__, "adapters": golden}
    (HERE / "peft.json").write_text(json.dumps(text, separators=(",", ":")) + "\n")


def check(folder):
    tokens = torch.tensor([[(i * i * 5 + 3 * i + 2) % 200 + 3 for i in range(40)]])

    def answers(path, adapter=None):
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
        if adapter:
            model = peft.PeftModel.from_pretrained(model, adapter).eval()
        with torch.no_grad():
            return model(tokens, use_cache=False).logits[0].double().numpy()

    plain, adapted, merged = answers(folder / "base"), answers(folder / "base", folder / "adapter"), answers(folder / "merged")
    print(
        f"{folder.name}: adapter and merged differ by {np.abs(adapted - merged).max():.2e}, the adapter changes {np.abs(adapted - plain).max():.2e}, "
        f"the largest logit is {np.abs(adapted).max():.2e}"
    )
    assert np.abs(adapted - merged).max() < 1e-5 * max(1, np.abs(adapted).max()) and np.abs(adapted - plain).max() > 1e-2


if __name__ == "__main__":
    if sys.argv[1:]:
        for folder in sys.argv[1:]:
            check(Path(folder))
    else:
        main()
