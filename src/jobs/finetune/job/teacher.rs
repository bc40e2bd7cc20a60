//! The model that another one learns from: whether it speaks of the same tokens.

use super::error::Error;
use crate::gguf::{Header, Metadata};

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
/// `llama_token_type` of a token that is none.
const UNUSED: i32 = 5;

/// Distances between two models' opinions mean something only where token by token they are about the same text. A teacher may be padded
/// further, as larger models of a family are: nobody knows of its tokens that are none.
///
/// # Errors
/// What is different, and what helps.
pub fn expect_same_vocabulary(base: &Header, teacher: &Header) -> Result<(), Error> {
    difference(&base.metadata, &teacher.metadata).map_or(Ok(()), |why| Err(Error::Vocabulary { why }))
}

fn difference(base: &Metadata, teacher: &Metadata) -> Option<String> {
    let (Some(ours), Some(theirs)) = (base.strings(TOKENS), teacher.strings(TOKENS)) else {
        return Some("one of the two files has no vocabulary".to_owned());
    };
    let different = ours.iter().zip(theirs.iter()).position(|(one, other)| one != other);
    if let Some(token) = different {
        let name =
            |all: &crate::gguf::Strings| String::from_utf8_lossy(all.get(token).unwrap_or_default()).chars().take(40).collect::<String>();
        return Some(format!("token {token} is `{}` to the base and `{}` to the teacher", name(ours), name(theirs)));
    }
    let is_padding = |token: usize| {
        let named = theirs.get(token).is_some_and(|name| name.starts_with(b"[PAD"));
        named || teacher.i32s(TYPES).and_then(|types| types.get(token)).is_some_and(|kind| *kind == UNUSED)
    };
    let padded = theirs.len() >= ours.len() && (ours.len()..theirs.len()).all(is_padding);
    (!padded).then(|| format!("the base has {} tokens, and the teacher {}", ours.len(), theirs.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Value;

    fn vocabulary(tokens: &[&str], types: &[i32]) -> Metadata {
        let mut metadata = Metadata::default();
        metadata.set(TOKENS, Value::Strings(tokens.iter().collect()));
        metadata.set(TYPES, Value::I32s(types.to_vec()));
        metadata
    }

    #[test]
    fn only_padding_may_come_behind_the_same_tokens() {
        let base = vocabulary(&["a", "b"], &[1, 1]);
        assert_eq!(difference(&base, &base), None);
        assert_eq!(difference(&base, &vocabulary(&["a", "b", "[PAD2]", "x"], &[1, 1, 1, UNUSED])), None);
        let of = |tokens: &[&str]| difference(&base, &vocabulary(tokens, &vec![1; tokens.len()])).expect("different");
        assert!(of(&["a", "c"]).contains("token 1 is `b` to the base and `c`"));
        assert!(of(&["a"]).contains("the base has 2 tokens, and the teacher 1"));
        assert!(of(&["a", "b", "c"]).contains("the teacher 3"));
        assert!(difference(&base, &Metadata::default()).expect("different").contains("no vocabulary"));
    }
}
