#!/usr/bin/env python3
"""Makes tokens.json: what llama.cpp (PyPI `xllamacpp`) makes of difficult strings, to compare our tokenizer with.

    pip install xllamacpp tokenizers gguf numpy
    python tests/golden/tokens.py path/to/gemma-3-270m-q4_k_m.gguf

SentencePiece is checked on the real Gemma 3 vocabulary. For BPE a small vocabulary is trained here and written to
`bpe-<pre>.gguf` once for each pre-tokenizer; llama.cpp gets the same vocabulary with a tiny random model around it. For `tekken` and
`gpt-4o` the reference is the `tokenizers` library with the published pattern, which llama.cpp only approximates.
"""

import json
import pathlib
import sys
import tempfile
import urllib.request

import gguf
import numpy as np
import tokenizers
import xllamacpp
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent

CORPUS = [
    "",
    " ",
    "  ",
    "\n",
    "\t",
    "a",
    " a",
    "a ",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "   leading and trailing   ",
    "many      spaces          inside",
    "tabs\tand\t\ttabs\t\t\tand\t \tmixed",
    "line\nline\n\nline\n\n\n\n\nline\r\nline\r\rline",
    "\n\n\n   \n \n\t\n indented",
    " \n \n \n",
    "\u00a0non\u00a0breaking\u2003em\u3000ideographic\u200bzero\u2028line\u2029paragraph\u0085next",
    "I'll you've they're it's don't I'm he'd 'S 'LL 'Ve O'Reilly 'tis ''s",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 0x1F 1e-10 ½ ² Ⅷ ٣٤٥ 一二三",
    "café naïve résumé Zürich Ångström Øresund Łódź Ñandú ŒUVRE ß ẞ ŉ ǅ ﬁ",
    "e\u0301 a\u030a o\u0308\u0304 combining\u0300\u0301\u0302marks",
    "Привет, мир! Съешь ещё этих мягких французских булок.",
    "Γειά σου Κόσμε· Ξεσκεπάζω τὴν ψυχοφθόρα βδελυγμία",
    "你好，世界！今天天气怎么样？我们去公园散步吧。",
    "こんにちは世界。カタカナとひらがな、漢字が混ざる文章です。ｶﾅ",
    "안녕하세요 세계! 오늘 날씨가 좋네요.",
    "مرحبا بالعالم! كيف حالك؟ السَّلَامُ عَلَيْكُمْ ۝",
    "שלום עולם! נִקּוּד עברי",
    "नमस्ते दुनिया! क्षत्रिय ज्ञान श्री",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่าง",
    "வணக்கம் உலகம் ស្វាគមន៍ ကမ္ဘာ",
    "😀 😃😄 🦙 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ☃️ ❤️ #️⃣ 🫠",
    "🦙" * 20,
    "𝕳𝖊𝖑𝖑𝖔 𐍈 𠜎𠜱 \U0010ffff \ue000 \ufffd \ufeff",
    "\x00 \x01\x02\x03 \x07\x08 \x0b\x0c \x1b[31mred\x1b[0m \x7f \x80\x9f",
    "<bos>text<eos> <pad> <unk> <mask> <start_of_turn>user\nHi<end_of_turn>\n<unused0> <unused99>",
    "<s>text</s> <|im_start|>user\nHi<|im_end|> <|endoftext|> [INST] x [/INST] <0x0A> <0xFF>",
    "<|im_start|><|im_start|> <|im_end|>x<|im_end <|im_end|",
    "<table><tr><td>1</td></tr></table> <h1>Title</h1><code>x</code> <br/> </strong><i>",
    "▁ ▁▁ ▁a a▁b literal▁underscores ▁▁▁▁",
    "fn main() {\n    let x: Vec<u32> = (0..10).map(|n| n * 2).collect();\n    println!(\"{x:?}\");\n}\n",
    "def f(x):\n\tif x == None:\n\t\treturn {'a': [1, 2, 3], \"b\": x ** 2}\n\n\n# comment\n",
    "#include <stdio.h>\n/* c */ int main(void){for(int i=0;i<10;++i){printf(\"%d\\n\",i);}return 0;}",
    '{"key": [1, 2.5e10, null, true], "nested": {"a": "b\\u00e9"}}',
    "SELECT * FROM t WHERE a<>b AND c>=10 OR d IS NOT NULL; -- comment",
    "https://example.com/path?query=1&x=%20#fragment user@example.org /usr/local/bin C:\\Windows\\System32",
    "camelCase PascalCase snake_case kebab-case SCREAMING_CASE XMLHttpRequest iPhone15Pro aBcDeF ABCdefGHI",
    "!!! ??? ... --- === *** ### $$$ %%% ^^^ &&& ((( ))) [[[ ]]] {{{ }}} ~~~ ``` ||| \\\\\\ ///",
    "$100 €50 £20 ¥1000 ₿ §5 ©2024 ®™ «quoted» „Zitat“ ‘single’ “double” – — … • · ° ± × ÷ ≠ ∞ ∑ √",
    "/\n/\r\n//\n\n;\n}\n.\n!\n",
    "a/b//c/\n\nd",
    "ends with space ",
    "ends with newline\n",
    "ends with many   \n\n  ",
    "x" * 300,
    "ab" * 150 + " " + "ba" * 150,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "Lopado­temacho­selacho­galeo­kranio­leipsano­drim­hypo­trimmato",
    "aAaAaA AAAAaaaa éÉéÉ ñÑ ßẞ 本Abc本 Abc本abc ǅungla",
    "\u202eright to left override\u202c \u200f\u200e\u2066isolate\u2069",
    "ha" * 5 + "!" * 40 + "?" * 7 + "." * 13,
    " " * 100 + "end",
    "\t" * 45 + "\n" * 45 + "\r\n" * 10,
    "the the the The THE tHe the\u0301 t h e",
    "Don't stop 'til you're  done—I've  said it'll  be fine, he'd say; 'twas   ever thus.\n\n   - Item 1\n   - Item 2\n\n\tQuote: \"x\"",
]

# One long text without spaces and one with: [text, repetitions].
LONG = [["abcdefghij", 400], ["Lorem ipsum dolor sit amet, 本日は晴天なり。 ", 60], ["\n ", 200], ["👩‍👩‍👧", 60]]

WORDS = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
REST = r"|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
PUBLISHED = {
    "tekken": (WORDS % ("", "") + REST % "", True),
    "gpt-4o": (WORDS % (CONTRACTIONS, CONTRACTIONS) + REST % "{1,3}", False),
}
BY_LLAMA = ["default", "gpt-2", "llama-bpe", "qwen2", "smollm"]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def texts():
    return CORPUS + [text * times for text, times in LONG]


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=SPECIALS, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = sorted(model["vocab"], key=model["vocab"].get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return vocabulary, merges


def write(path, pre, vocabulary, merges, weights):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny BPE vocabulary")
    if weights:
        writer.add_context_length(8192)
        writer.add_embedding_length(32)
        writer.add_block_count(1)
        writer.add_feed_forward_length(32)
        writer.add_head_count(2)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(vocabulary.index("<|endoftext|>"))
    writer.add_eos_token_id(vocabulary.index("<|im_end|>"))
    if weights:
        rng = np.random.default_rng(1)
        square = {f"blk.0.{name}.weight": (32, 32) for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
        norms = {f"{name}.weight": (32,) for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")}
        for name, shape in {"token_embd.weight": (len(vocabulary), 32), **square, **norms}.items():
            writer.add_tensor(name, rng.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def by_llama(model):
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = 512
    params.port = 0
    params.warmup = False
    server = xllamacpp.Server(params)

    def ask(text, special):
        body = json.dumps({"content": text, "add_special": special, "parse_special": special}).encode()
        request = urllib.request.Request(server.listening_address + "/tokenize", body, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request))["tokens"]

    return {"plain": [ask(text, False) for text in texts()], "special": [ask(text, True) for text in texts()]}


def by_library(pre, vocabulary, merges):
    pattern, ignore_merges = PUBLISHED[pre]
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[tuple(merge.split(" ")) for merge in merges], ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return {"plain": [tokenizer.encode(text).ids for text in texts()]}


def main():
    vocabulary, merges = train()
    cases = {"gemma3": by_llama(sys.argv[1])}
    for pre in [*BY_LLAMA, *PUBLISHED]:
        write(HERE / f"bpe-{pre}.gguf", pre, vocabulary, merges, weights=False)
        if pre in PUBLISHED:
            cases[pre] = by_library(pre, vocabulary, merges)
            continue
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "model.gguf"
            write(model, pre, vocabulary, merges, weights=True)
            cases[pre] = by_llama(model)
    made_with = {"llama.cpp": f"xllamacpp {getattr(xllamacpp, '__version__', 'unknown')}", "tokenizers": tokenizers.__version__}
    golden = {"made_with": made_with, "texts": CORPUS, "long": LONG, "cases": cases}
    (HERE / "tokens.json").write_text(json.dumps(golden, ensure_ascii=True, separators=(",", ":")).replace('"plain"', '\n"plain"').replace('"special"', '\n"special"') + "\n")


main()
