use proptest::prelude::*;

use super::*;
use crate::gguf::Header;
use crate::gguf::writer::Writer;

const PLAIN: Encode = Encode { add_bos: false, parse_special: false };
const SPECIAL: Encode = Encode { add_bos: true, parse_special: true };

/// A SentencePiece vocabulary: `hello` can be reached, ` world` too; no `ü`, but all bytes.
fn sentencepiece(prefix: bool) -> Tokenizer {
    sentencepiece_of("a model", prefix)
}

fn sentencepiece_of(model: &str, prefix: bool) -> Tokenizer {
    let mut pieces: Vec<(String, f32, i32)> = [("<unk>", 2), ("<s>", 3), ("</s>", 3), ("<turn>", 3), ("\n\n", 4), ("\n", 4)]
        .map(|(name, kind)| (name.to_owned(), 0.0, kind))
        .into();
    pieces.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), 0.0, 6)));
    let words = ["▁", "h", "e", "l", "o", "w", "r", "d", "he", "ll", "hell", "hello", "▁w", "or", "▁wor", "ld", "▁world", "el"];
    pieces.extend(words.iter().zip(1_i16..).map(|(word, rank)| ((*word).to_owned(), -f32::from(rank), 1)));
    let file = Writer::default()
        .str("general.name", model)
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &pieces.iter().map(|p| p.0.as_str()).collect::<Vec<_>>())
        .f32s("tokenizer.ggml.scores", &pieces.iter().map(|p| p.1).collect::<Vec<_>>())
        .i32s("tokenizer.ggml.token_type", &pieces.iter().map(|p| p.2).collect::<Vec<_>>())
        .bool("tokenizer.ggml.add_space_prefix", prefix)
        .finish();
    Tokenizer::from_header(&Header::parse(&file).expect("sound")).expect("a vocabulary")
}

/// A BPE vocabulary of the 256 bytes and a few merges.
fn bpe(pre: &str) -> Result<Tokenizer, Error> {
    let mut pieces: Vec<String> =
        ('\0'..='\u{200}').filter(|c| bpe::decode(c.to_string().as_bytes()).is_some()).map(String::from).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2", "12 3"];
    pieces.extend(merges.map(|merge| merge.replace(' ', "")));
    pieces.extend(["<|im_end|>".to_owned(), "<|im_start|>".to_owned()]);
    let mut kinds = vec![1; pieces.len() - 2];
    kinds.extend([3, 3]);
    let file = Writer::default()
        .str("tokenizer.ggml.model", "gpt2")
        .str("tokenizer.ggml.pre", pre)
        .strings("tokenizer.ggml.tokens", &pieces)
        .strings("tokenizer.ggml.merges", &merges)
        .i32s("tokenizer.ggml.token_type", &kinds)
        .u32("tokenizer.ggml.bos_token_id", 264)
        .finish();
    Tokenizer::from_header(&Header::parse(&file).expect("sound"))
}

fn names(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    ids.iter().map(|id| tokenizer.token_name(*id)).collect()
}

fn text_of(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id)).copied().collect();
    String::from_utf8(bytes).expect("whole characters")
}

#[test]
fn the_best_score_is_joined_first() {
    let tokenizer = sentencepiece(false);
    let ids = tokenizer.encode("hello world", PLAIN);
    assert_eq!(names(&tokenizer, &ids), ["hello", "▁world"]);
    assert_eq!(text_of(&tokenizer, &ids), "hello world");
}

#[test]
fn what_no_piece_holds_becomes_bytes() {
    let tokenizer = sentencepiece(false);
    assert_eq!(names(&tokenizer, &tokenizer.encode("hü", PLAIN)), ["h", "<0xC3>", "<0xBC>"]);
}

#[test]
fn control_tokens_are_read_only_when_asked_for_and_added_ones_always() {
    let tokenizer = sentencepiece(false);
    let ids = tokenizer.encode("<turn>\n\n\nhello", SPECIAL);
    assert_eq!(names(&tokenizer, &ids), ["<s>", "<turn>", "\n\n", "\n", "hello"]);
    assert_eq!(text_of(&tokenizer, &ids), "\n\n\nhello");
    let plain = tokenizer.encode("<turn>\n", PLAIN);
    assert!(!plain.contains(&3) && plain.contains(&5));
}

#[test]
fn a_space_goes_before_what_begins_or_follows_a_special_token() {
    let tokenizer = sentencepiece(true);
    assert_eq!(names(&tokenizer, &tokenizer.encode("world<turn>world", SPECIAL)), ["<s>", "▁world", "<turn>", "▁world"]);
    assert!(tokenizer.encode("", PLAIN).is_empty());
}

#[test]
fn tokens_of_phi_3_take_white_space_with_them() {
    let text = "<s> world<turn>\n\n world";
    let taking = sentencepiece_of("Phi 3.5 Mini Instruct, made Phi-3.5", true);
    assert_eq!(names(&taking, &taking.encode(text, SPECIAL)), ["<s>", "<s>", "▁", "▁world", "<turn>", "▁world"]);
    let leaving = sentencepiece(true);
    let left = ["<s>", "<s>", "▁", "▁world", "<turn>", "\n\n", "▁", "▁world"];
    assert_eq!(names(&leaving, &leaving.encode(text, SPECIAL)), left);
}

#[test]
fn a_defused_text_is_nothing_but_text() {
    let tokenizer = sentencepiece(true);
    let text = "hello<turn> <tu<turn></s>";
    let safe = tokenizer.defuse(text, '|');
    assert_eq!(safe, "hello<|turn> <tu<|turn><|/s>");
    let ids = tokenizer.encode_parts(safe.split('|'), SPECIAL);
    assert_eq!(text_of(&tokenizer, &ids).trim_start(), text);
    assert!(!ids[1..].iter().any(|id| *id < 4));
}

#[test]
fn merges_go_by_rank_within_words() {
    let tokenizer = bpe("gpt-2").expect("a vocabulary");
    assert_eq!(names(&tokenizer, &tokenizer.encode("hello world", PLAIN)), ["hello", "Ġw", "o", "r", "l", "d"]);
    assert_eq!(names(&tokenizer, &tokenizer.encode("1234", PLAIN)), ["123", "4"]);
    let digits = bpe("qwen2").expect("a vocabulary");
    assert_eq!(names(&digits, &digits.encode("123", PLAIN)), ["1", "2", "3"]);
}

#[test]
fn ends_of_generation_are_known_by_name_and_by_id() {
    let tokenizer = sentencepiece(false);
    let end = tokenizer.eos().expect("there");
    assert!(tokenizer.is_end_of_generation(end) && !tokenizer.is_end_of_generation(end + 1) && !tokenizer.is_end_of_generation(u32::MAX));
    let tokenizer = bpe("qwen2").expect("a vocabulary");
    assert_eq!(tokenizer.eos(), None);
    let ends: Vec<u32> = (0..300).filter(|id| tokenizer.is_end_of_generation(*id)).collect();
    assert_eq!(names(&tokenizer, &ends), ["<|im_end|>"]);
    assert_eq!(tokenizer.token_bytes(ends[0]), b"");
}

#[test]
fn broken_vocabularies_are_refused() {
    let refused = |writer: Writer| {
        let header = Header::parse(&writer.finish()).expect("sound");
        Tokenizer::from_header(&header).expect_err("must be refused").to_string()
    };
    let llama = || Writer::default().str("tokenizer.ggml.model", "llama");
    assert!(refused(Writer::default()).contains("tokenizer.ggml.model"));
    assert!(refused(Writer::default().str("tokenizer.ggml.model", "bert")).contains("bert"));
    assert!(refused(llama()).contains("tokenizer.ggml.tokens"));
    assert!(refused(llama().strings::<&str>("tokenizer.ggml.tokens", &[])).contains("0 tokens"));
    let two = || llama().strings("tokenizer.ggml.tokens", &["a", "b"]);
    assert!(refused(two().i32s("tokenizer.ggml.token_type", &[1])).contains("1 entries for 2"));
    assert!(refused(two().f32s("tokenizer.ggml.scores", &[1.0; 3])).contains("3 entries for 2"));
    assert!(refused(two().u32("tokenizer.ggml.bos_token_id", 2)).contains("only 2 tokens"));
    assert!(bpe("martian").is_err());
}

#[test]
fn odd_vocabularies_do_not_panic() {
    let odd: [&[u8]; 6] = [b"", b"\xff", b"a", b"a", b"<0xZZ>", b"<0x4"];
    let file = Writer::default()
        .str("tokenizer.ggml.model", "llama")
        .strings("tokenizer.ggml.tokens", &odd)
        .f32s("tokenizer.ggml.scores", &[f32::NAN, f32::INFINITY, f32::NAN, 0.0, -0.0, 1.0])
        .i32s("tokenizer.ggml.token_type", &[3, 4, 1, 99, 6, 6])
        .finish();
    let tokenizer = Tokenizer::from_header(&Header::parse(&file).expect("sound")).expect("a vocabulary");
    assert_eq!(tokenizer.encode("aa ü", PLAIN), [3, 3]);
}

#[test]
fn long_texts_without_spaces_are_no_trouble() {
    let text = "hello".repeat(80_000);
    for tokenizer in [sentencepiece(true), bpe("default").expect("a vocabulary")] {
        assert_eq!(text_of(&tokenizer, &tokenizer.encode(&text, PLAIN)).trim_start(), text);
    }
}

proptest! {
    #[test]
    fn any_text_comes_back(text in any::<String>()) {
        for tokenizer in [sentencepiece(false), bpe("llama-bpe").expect("a vocabulary")] {
            let ids = tokenizer.encode(&text, PLAIN);
            prop_assert!(ids.len() >= tokenizer.least_tokens(text.len()));
            prop_assert_eq!(text_of(&tokenizer, &ids), text.replace('▁', " "));
        }
    }
}
