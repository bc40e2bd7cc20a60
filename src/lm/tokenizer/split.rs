//! Cutting a text into words before BPE, by the rules that `tokenizer.ggml.pre` names.
//!
//! The rules are published as regular expressions. Those need backtracking, which has limits and bad cases; here each is a small
//! hand-written scanner that looks at every character a bounded number of times. Tests compare the two.

use super::Error;
use super::classes::{LETTER, LOWER, NUMBER, PUNCTUATION, SPACE, UPPER};

/// How one vocabulary cuts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Applied in turn, each to the pieces of the one before.
    stages: &'static [Stage],
    /// A word that is a token is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    pub(super) adds_bos: bool,
}

/// One pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Words { digits: usize },
    /// As [`Stage::Words`] with words that end where lower case turns to upper, and slashes after punctuation:
    /// `[^\r\n\p{L}\p{N}]?U*L+ C?|[^\r\n\p{L}\p{N}]?U+L* C?|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
    /// where `C` are the contractions, if `contractions`.
    Cases { digits: usize, contractions: bool },
    /// `\p{N}`
    EachNumber,
    /// `\p{N}+`
    Numbers,
    /// `[0-9][0-9][0-9]`
    Triples,
    /// `[\p{P}$+<=>^~|]+`
    Punctuation,
}

const KNOWN: &[(&[&str], Rules)] = &[
    (
        &["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        Rules { stages: &[Stage::Words { digits: 3 }], ignore_merges: true, adds_bos: true },
    ),
    (&["dbrx", "smaug-bpe"], Rules { stages: &[Stage::Words { digits: 3 }], ignore_merges: false, adds_bos: false }),
    (
        &["qwen2", "deepseek-r1-qwen", "stablelm2", "hunyuan", "megrez"],
        Rules { stages: &[Stage::Words { digits: 1 }], ignore_merges: false, adds_bos: false },
    ),
    (
        &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4"],
        Rules { stages: &[Stage::Gpt2], ignore_merges: false, adds_bos: false },
    ),
    (
        &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        Rules { stages: &[Stage::EachNumber, Stage::Gpt2], ignore_merges: false, adds_bos: false },
    ),
    (&["tekken"], Rules { stages: &[Stage::Cases { digits: 1, contractions: false }], ignore_merges: true, adds_bos: true }),
    (&["gpt-4o", "llama4"], Rules { stages: &[Stage::Cases { digits: 3, contractions: true }], ignore_merges: false, adds_bos: false }),
    (
        &["default"],
        Rules { stages: &[Stage::Punctuation, Stage::Gpt2, Stage::Numbers, Stage::Triples], ignore_merges: false, adds_bos: false },
    ),
];

impl Rules {
    pub(super) fn named(pre: &str) -> Result<Self, Error> {
        KNOWN.iter().find(|(names, _)| names.contains(&pre)).map(|(_, rules)| *rules).ok_or_else(|| {
            let known: Vec<&str> = KNOWN.iter().flat_map(|(names, _)| names.iter().copied()).collect();
            Error::PreTokenizer { pre: pre.chars().take(80).collect(), known: known.join(", ") }
        })
    }

    /// Hands out the words of a text in order; together they are the text.
    pub(super) fn each_word<'a>(&self, text: &'a str, mut word: impl FnMut(&'a str)) {
        run(self.stages, text, &mut word);
    }
}

fn run<'a>(stages: &[Stage], text: &'a str, word: &mut dyn FnMut(&'a str)) {
    let Some((stage, later)) = stages.split_first() else { return word(text) };
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(stage.first_piece(rest));
        run(later, piece, word);
        rest = after;
    }
}

type Test = fn(char) -> bool;

fn letter(c: char) -> bool {
    LETTER.has(c)
}

fn number(c: char) -> bool {
    NUMBER.has(c)
}

fn space(c: char) -> bool {
    SPACE.has(c)
}

fn newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// Neither blank nor letter nor number.
fn other(c: char) -> bool {
    !space(c) && !letter(c) && !number(c)
}

fn starts(text: &str, test: Test) -> bool {
    text.chars().next().is_some_and(test)
}

/// Bytes of the characters at the start that pass.
fn span(text: &str, test: Test) -> usize {
    text.char_indices().find(|(_, c)| !test(*c)).map_or(text.len(), |(at, _)| at)
}

/// Bytes of the first `count` characters at most, as far as they pass.
fn span_of(text: &str, test: Test, count: usize) -> usize {
    text.chars().take(count).take_while(|c| test(*c)).map(char::len_utf8).sum()
}

impl Stage {
    /// Bytes of the first piece of a text that is not empty.
    fn first_piece(self, text: &str) -> usize {
        match self {
            Self::Gpt2 => gpt2(text),
            Self::Words { digits } => words(text, digits),
            Self::Cases { digits, contractions } => cases(text, digits, contractions),
            Self::EachNumber => piece_or_gap(text, number, 1),
            Self::Numbers => piece_or_gap(text, number, usize::MAX),
            Self::Punctuation => piece_or_gap(text, |c| PUNCTUATION.has(c), usize::MAX),
            Self::Triples => triples(text),
        }
    }
}

/// At most `most` characters that pass, or all up to the first that does.
fn piece_or_gap(text: &str, test: Test, most: usize) -> usize {
    match span_of(text, test, most) {
        0 => text.find(test).unwrap_or(text.len()),
        bytes => bytes,
    }
}

fn triples(text: &str) -> usize {
    let bytes = text.as_bytes();
    let triple = |at: &usize| bytes[*at..*at + 3].iter().all(u8::is_ascii_digit);
    match (0..bytes.len().saturating_sub(2)).find(triple) {
        Some(0) => 3,
        Some(at) => at,
        None => bytes.len(),
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d`: bytes, or 0.
fn contraction(text: &str, any_case: bool) -> usize {
    let Some(rest) = text.strip_prefix('\'') else { return 0 };
    let is = |ending: &str| {
        rest.as_bytes()
            .get(..ending.len())
            .is_some_and(|start| if any_case { start.eq_ignore_ascii_case(ending.as_bytes()) } else { start == ending.as_bytes() })
    };
    ["s", "t", "re", "ve", "m", "ll", "d"].into_iter().find(|ending| is(ending)).map_or(0, |ending| 1 + ending.len())
}

/// `\s+(?!\S)|\s+`: blanks, of which the last is left to the word that follows.
fn blanks(text: &str) -> usize {
    let all = span(text, space);
    let last = text[..all].chars().next_back().map_or(0, char::len_utf8);
    if all == text.len() || all == last { all } else { all - last }
}

/// ` ?X+` for what the text begins with, or 0.
fn spaced(text: &str, test: Test) -> usize {
    let skip = usize::from(text.starts_with(' '));
    match span(&text[skip..], test) {
        0 => 0,
        bytes => skip + bytes,
    }
}

fn gpt2(text: &str) -> usize {
    let tries =
        [|t: &str| contraction(t, false), |t: &str| spaced(t, letter), |t: &str| spaced(t, number), |t: &str| spaced(t, other), blanks];
    first_match(text, &tries)
}

fn first_match(text: &str, tries: &[fn(&str) -> usize]) -> usize {
    tries.iter().map(|attempt| attempt(text)).find(|bytes| *bytes > 0).unwrap_or(text.len())
}

fn words(text: &str, digits: usize) -> usize {
    let attempt = first_or(contraction(text, true), || prefixed_letters(text));
    first_or(attempt, || tail(text, digits, newline))
}

fn first_or(bytes: usize, otherwise: impl FnOnce() -> usize) -> usize {
    if bytes > 0 { bytes } else { otherwise() }
}

/// Bytes of a first character that may stand before a word: `[^\r\n\p{L}\p{N}]`.
fn prefix(text: &str) -> usize {
    text.chars().next().filter(|c| !newline(*c) && !letter(*c) && !number(*c)).map_or(0, char::len_utf8)
}

/// `[^\r\n\p{L}\p{N}]?\p{L}+`
fn prefixed_letters(text: &str) -> usize {
    let before = prefix(text);
    match span(&text[before..], letter) {
        0 => 0,
        bytes => before + bytes,
    }
}

/// `\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[after]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn tail(text: &str, digits: usize, after: Test) -> usize {
    if starts(text, number) {
        return span_of(text, number, digits);
    }
    let punctuation = spaced(text, other);
    if punctuation > 0 {
        return punctuation + span(&text[punctuation..], after);
    }
    let run = &text[..span(text, space)];
    run.rfind(newline).map_or_else(|| first_or(blanks(text), || text.len()), |last| last + 1)
}

fn cases(text: &str, digits: usize, contractions: bool) -> usize {
    let before = prefix(text);
    // Alternatives in the pattern's order: each first with the prefix, then without.
    let word = [before, 0].into_iter().find_map(|skip| upper_lower(&text[skip..]).map(|bytes| skip + bytes)).or_else(|| {
        [before, 0].into_iter().find_map(|skip| match span(&text[skip..], |c| UPPER.has(c)) {
            0 => None,
            upper => Some(skip + upper + span(&text[skip + upper..], |c| LOWER.has(c))),
        })
    });
    match word {
        Some(bytes) if contractions => bytes + contraction(&text[bytes..], true),
        Some(bytes) => bytes,
        None => tail(text, digits, |c| newline(c) || c == '/'),
    }
}

/// `U*L+`, as a backtracking matcher finds it: as many of `U` as leave at least one `L`.
fn upper_lower(text: &str) -> Option<usize> {
    let upper = span(text, |c| UPPER.has(c));
    match span(&text[upper..], |c| LOWER.has(c)) {
        0 => text[..upper].char_indices().rfind(|(_, c)| LOWER.has(*c)).map(|(at, c)| at + c.len_utf8()),
        lower => Some(upper + lower),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use proptest::prelude::*;
    use tokenizers::utils::SysRegex;

    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    const LLAMA3: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const QWEN2: &str = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+('[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*('[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    const PATTERNS: &[(&str, &[&str])] = &[
        ("gpt-2", &[GPT2]),
        ("llama-bpe", &[LLAMA3]),
        ("qwen2", &[QWEN2]),
        ("smollm", &[r"\p{N}", GPT2]),
        ("tekken", &[TEKKEN]),
        ("gpt-4o", &[GPT4O]),
        ("default", &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    ];

    static COMPILED: LazyLock<Vec<(&str, Vec<SysRegex>)>> = LazyLock::new(|| {
        let compile = |patterns: &[&str]| patterns.iter().map(|pattern| SysRegex::new(pattern).expect("a pattern")).collect();
        PATTERNS.iter().map(|(pre, patterns)| (*pre, compile(patterns))).collect()
    });

    /// What the published patterns say.
    fn by_regex(patterns: &[SysRegex], text: &str) -> Vec<String> {
        let mut pieces = vec![text.to_owned()];
        for regex in patterns {
            pieces = pieces.iter().flat_map(|piece| cut(regex, piece)).collect();
        }
        pieces
    }

    fn cut(regex: &SysRegex, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let mut done = 0;
        for (start, end) in regex.find_iter(text) {
            pieces.extend([&text[done..start], &text[start..end]]);
            done = end;
        }
        pieces.push(&text[done..]);
        pieces.into_iter().filter(|piece| !piece.is_empty()).map(str::to_owned).collect()
    }

    fn by_hand(pre: &str, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        Rules::named(pre).expect("known").each_word(text, |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn the_scanners_cut_where_the_patterns_do() {
        let texts = [
            "Hello, world! It's 12345 o'clock, I'LL they'Re",
            "  leading\n\n \t tabs \r\n  x\u{a0}y\u{3000}z ",
            "camelCase XMLHttpRequest ABC本語Xyz ǅ\u{301}a //path/to\n\n/x",
            "नमस्ते ١٢٣ ½ ⅷ 👩‍👩‍👧 e\u{301}\u{301}",
            "'s'S 'x '' '",
        ];
        for (pre, patterns) in COMPILED.iter() {
            for text in texts {
                assert_eq!(by_hand(pre, text), by_regex(patterns, text), "{pre}: {text:?}");
            }
        }
    }

    #[test]
    fn long_runs_are_quick() {
        for text in [" ".repeat(1_000_000), "a".repeat(1_000_000), "A本".repeat(300_000), "\n ".repeat(400_000), "1".repeat(1_000_000)] {
            for (pre, _) in PATTERNS {
                let mut bytes = 0;
                Rules::named(pre).expect("known").each_word(&text, |word| bytes += word.len());
                assert_eq!(bytes, text.len());
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = Rules::named("martian").expect_err("unknown").to_string();
        assert!(error.contains("martian") && error.contains("qwen2"), "{error}");
    }

    proptest! {
        #[test]
        fn random_texts_too(text in "[ \\r\\n\\t'stdSRelvaAB1é本ǅ٣\u{301}!/$\u{a0}]{0,24}") {
            for (pre, patterns) in COMPILED.iter() {
                prop_assert_eq!(by_hand(pre, &text), by_regex(patterns, &text), "{}", pre);
            }
        }

        #[test]
        fn any_text_too(text in ".{0,16}") {
            for (pre, patterns) in COMPILED.iter() {
                prop_assert_eq!(by_hand(pre, &text), by_regex(patterns, &text), "{}", pre);
            }
        }
    }
}
