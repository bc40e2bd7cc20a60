#!/usr/bin/env python3
"""Writes dataset/: what Hugging Face makes of conversations, for src/jobs/dataset/tokenise/tests.rs.

    pip install transformers tokenizers sentencepiece protobuf gguf jinja2
    python -P tests/golden/dataset.py

For each chat template: a tiny vocabulary as GGUF (no weights), and in golden.json the template as the models of its family have it, and for
each conversation the ids of `apply_chat_template` and its assistant mask. For the mask, the same template with `{% generation %}` around what
the assistant says and the token that ends it; that both make the same ids is checked here. Where a template refuses a system's text, that
text stands before the first question, as the library's own documentation advises.
"""

import json
import tempfile
from pathlib import Path

import gguf
import sentencepiece
import tokenizers
import transformers
from sentencepiece import sentencepiece_model_pb2 as spm
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent / "dataset"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")


def turns(*texts, system=None):
    roles = ["user", "assistant"]
    talk = [{"role": roles[index % 2], "content": text} for index, text in enumerate(texts)]
    return ([{"role": "system", "content": system}] if system else []) + talk


CORPUS = [
    turns("Who are you?", "I am a small model."),
    turns("Add 17 and 25, please.", "17 + 25 = 42", "And 100 more?", "That makes 142.", system="You are a careful calculator."),
    turns(" spaces  around \n", "\n and in the answer, too  "),
    turns("Übersetze: „Guten Morgen“", "Good morning! ☀️", "auf Japanisch", "おはようございます 👩‍👩‍👧", "noch einmal", "おはよう"),
    turns("Write a loop.", "```python\nfor i in range(3):\n\tprint(i)\n\n\n```\n\nDone."),
    turns("assistant", "user", "system\n", "<|im_sta and [/INS and </ s>"),
    turns("Repeat it.", "Who are you? I am a small model."),
    turns("x" * 60, "yes", "no", "a", "b", "c", system="Be brief.\n\nVery brief."),
]

LLAMA = r"""{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
LLAMA_MARKED = r"""{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}{% if message.role == 'assistant' %}{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""
CHATML = r"""{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
CHATML_MARKED = r"""{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n'}}{% if message.role == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
# Qwen 3's, without tools: thoughts of earlier turns are taken out, and the last turn gets empty ones.
QWEN3 = r"""{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\n' }}GEN{{- '<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\n' }}GEN{{- content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' }}GEN{{- content }}
        {%- endif %}
        {{- '<|im_end|>' }}END{{- '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"""
GEMMA = r"""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' }}GEN{{ message['content'] | trim + '<end_of_turn>' }}END{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"""
MISTRAL = r"""{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}GEN{{ message['content'] + eos_token }}END{{ ' ' }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"""
PHI3 = r"""{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n'}}GEN{{ message['content'] + '<|end|>'}}END{{'\n'}}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"""


GEMMA_IDS = dict(pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>", unk_piece="<unk>")


def plain(template):
    return template.replace("GEN", "").replace("END", "")


def marked(template):
    """Only what the assistant says is marked; in templates that write all turns at one place, by a condition."""
    if "'<start_of_turn>' + role" in template:
        text = "{{ message['content'] | trim + '<end_of_turn>' }}"
        return template.replace(
            f"GEN{text}END", "{% if message.role == 'assistant' %}{% generation %}" + text + "{% endgeneration %}{% else %}" + text + "{% endif %}"
        )
    if template is QWEN3:
        # A block cannot begin in one branch and end behind it: each branch ends its own.
        closed = template.replace("        {{- '<|im_end|>' }}END{{- '\\n' }}\n", "")
        for text in ["'<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n')", "content"]:
            closed = closed.replace("GEN{{- " + text + " }}", "{%- generation -%}{{- " + text + " + '<|im_end|>' }}{%- endgeneration -%}{{- '\\n' }}")
        return closed
    return template.replace("GEN", "{% generation %}").replace("END", "{% endgeneration %}")


def texts():
    return [turn["content"] for talk in CORPUS for turn in talk] * 3


def bpe(name, pattern, pre, specials, own=()):
    """A byte-level vocabulary, for Hugging Face and as GGUF."""
    split = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    tokenizer.pre_tokenizer = split
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in specials])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in own])
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    kind = lambda token: 3 if token in specials else 4 if token in own else 1
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    ids = {"bos": tokens.index(specials[0]), "eos": tokens.index(specials[1])}
    write(name, "gpt2", pre, tokens, [kind(token) for token in tokens], ids, merges=merges, bos=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[1])


def pieces(name, kind, prefix, symbols, end, strip=()):
    """A SentencePiece vocabulary with added tokens, for Hugging Face and as GGUF."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([line for text in texts() for line in text.splitlines() if line.strip()]), model_prefix=str(path), model_type="bpe",
            vocab_size=460, byte_fallback=True, character_coverage=0.98, add_dummy_prefix=prefix, remove_extra_whitespaces=False,
            normalization_rule_name="identity", split_digits=True, minloglevel=2, num_threads=1,
            **(GEMMA_IDS if kind == "gemma" else {}),
        )
        model = spm.ModelProto()
        model.ParseFromString(path.with_suffix(".model").read_bytes())
        for symbol in symbols if kind == "gemma" else []:
            piece = model.pieces.add()
            piece.piece, piece.score, piece.type = symbol, -1000.0, spm.ModelProto.SentencePiece.CONTROL
        path.with_suffix(".model").write_bytes(model.SerializeToString())
        cls = transformers.GemmaTokenizerFast if kind == "gemma" else transformers.LlamaTokenizerFast
        names = {} if kind == "gemma" else {"legacy": True, "add_prefix_space": True, "eos_token": end}
        tokenizer = cls(vocab_file=str(path.with_suffix(".model")), **names)
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [AddedToken(symbol, special=True, normalized=False, rstrip=symbol in strip) for symbol in symbols if symbol != end]}
        )
        if end in strip or end in symbols:
            tokenizer.add_tokens([AddedToken(end, special=True, normalized=False)], special_tokens=True)
    listed = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    added = sorted((index, token.content) for index, token in tokenizer.added_tokens_decoder.items() if index >= len(listed))
    listed += [(token, -1000.0, 3) for _, token in added]
    by_name = {token: index for index, (token, _, _) in enumerate(listed)}
    ids = {"bos": tokenizer.bos_token_id, "eos": by_name[end], "unknown": tokenizer.unk_token_id}
    write(
        name, "llama", "default", [token for token, _, _ in listed], [3 if token in symbols else kind for token, _, kind in listed], ids,
        scores=[score for _, score, _ in listed], bos=True, prefix=prefix,
    )
    return tokenizer


def write(name, model, pre, tokens, types, ids, merges=None, scores=None, bos=False, prefix=None):
    writer = gguf.GGUFWriter(HERE / f"{name}.gguf", "llama")
    writer.add_name("phi-3 tiny" if name == "phi3" else f"{name} tiny")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges is not None:
        writer.add_token_merges(merges)
    if scores is not None:
        writer.add_token_scores(scores)
    writer.add_bos_token_id(ids["bos"])
    writer.add_eos_token_id(ids["eos"])
    if "unknown" in ids:
        writer.add_unk_token_id(ids["unknown"])
    writer.add_add_bos_token(bos)
    if prefix is not None:
        writer.add_add_space_prefix(prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def folded(talk):
    """The system's text before the first question."""
    if talk[0]["role"] != "system":
        return talk
    first = {"role": "user", "content": talk[0]["content"] + "\n\n" + talk[1]["content"]}
    return [first, *talk[2:]]


def rows(tokenizer, template, marked_template, folds, corpus):
    made = []
    for talk in corpus:
        given = folded(talk) if folds else talk
        ids = tokenizer.apply_chat_template(given, chat_template=template, tokenize=True)
        both = tokenizer.apply_chat_template(
            given, chat_template=marked_template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert both["input_ids"] == ids, (talk, ids, both["input_ids"])
        assert any(both["assistant_masks"]), talk
        asks = tokenizer.apply_chat_template(given[:-1], chat_template=template, tokenize=True, add_generation_prompt=True)
        made.append({"messages": talk, "ids": ids, "mask": "".join(map(str, both["assistant_masks"])), "asks": asks})
    return made


def main():
    HERE.mkdir(exist_ok=True)
    thoughts = [turns("Think.", "<think>\nhm, 1+1\n</think>\n\nTwo.", "Again.", "<think>\nstill\n</think>\n\n2"), turns("a", "<think>\nb\n</think>\n\nc", "d", "e")]
    phi = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
    llama = ["<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"]
    chatml = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    families = {
        "llama3": (bpe("llama3", LLAMA3, "llama-bpe", llama), LLAMA, LLAMA_MARKED, False, CORPUS),
        "qwen2": (bpe("qwen2", QWEN2, "qwen2", chatml), CHATML, CHATML_MARKED, False, CORPUS),
        "qwen3": (bpe("qwen3", QWEN2, "qwen2", chatml, ["<think>", "</think>"]), plain(QWEN3), marked(QWEN3), False, CORPUS + thoughts),
        "gemma": (pieces("gemma", "gemma", False, ["<start_of_turn>", "<end_of_turn>"], "<eos>"), plain(GEMMA), marked(GEMMA), True, CORPUS),
        "mistral": (pieces("mistral", "llama", True, [], "</s>"), plain(MISTRAL), marked(MISTRAL), True, CORPUS),
        "phi3": (pieces("phi3", "llama", True, phi, "<|endoftext|>", phi[1:]), plain(PHI3), marked(PHI3), False, CORPUS),
    }
    golden = {"made_with": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}, "families": {}}
    for name, (tokenizer, template, with_marks, folds, corpus) in families.items():
        golden["families"][name] = {"template": template, "rows": rows(tokenizer, template, with_marks, folds, corpus)}
    text = json.dumps(golden, ensure_ascii=True, separators=(",", ":")).replace('{"messages"', '\n{"messages"').replace('"template"', '\n"template"')
    (HERE / "golden.json").write_text(text + "\n")


main()
