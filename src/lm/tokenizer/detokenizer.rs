//! From the bytes of tokens to text that never breaks a character.

/// Keeps back the beginning of a character until its end comes.
#[derive(Debug, Clone, Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Takes the bytes of one more token and gives the text that is ready. Bytes that can be no character become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = &self.pending[..];
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => error,
            };
            let (valid, after) = rest.split_at(error.valid_up_to());
            text.push_str(&String::from_utf8_lossy(valid));
            rest = after;
            let Some(broken) = error.error_len() else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            rest = &rest[broken..];
        }
        self.pending = rest.to_vec();
        text
    }

    /// What is left at the end: U+FFFD for a character that never became whole.
    pub fn flush(&mut self) -> String {
        if std::mem::take(&mut self.pending).is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_character_in_pieces_comes_whole() {
        let mut detokenizer = Detokenizer::default();
        let emoji = "🦙".as_bytes();
        assert_eq!(detokenizer.push(&emoji[..1]), "");
        assert_eq!(detokenizer.push(&emoji[1..3]), "");
        assert_eq!(detokenizer.push(&[&emoji[3..], b"!"].concat()), "🦙!");
        assert_eq!(detokenizer.flush(), "");
    }

    #[test]
    fn broken_bytes_become_a_replacement() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(b"a\xffb\xf0\x9f"), "a\u{fffd}b");
        assert_eq!(detokenizer.push(b"c"), "\u{fffd}c");
        assert_eq!(detokenizer.push(b"\xe2"), "");
        assert_eq!(detokenizer.flush(), "\u{fffd}");
        assert_eq!(detokenizer.flush(), "");
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_is_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..60), cut in 1..7_usize) {
            let mut detokenizer = Detokenizer::default();
            let mut text: String = bytes.chunks(cut).map(|chunk| detokenizer.push(chunk)).collect();
            text += &detokenizer.flush();
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
