//! One way of writing what looks the same.

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::jobs::dataset::example::Body;

/// Writes all texts of a row in the one way; whether that changed any.
pub(super) fn apply(body: &mut Body) -> bool {
    let mut changed = false;
    for text in body.texts_mut() {
        let written = normal(text);
        if written != *text {
            *text = written;
            changed = true;
        }
    }
    changed
}

/// Composed Unicode, `\n` for line breaks, plain spaces, nothing that is not seen, and no white space around it.
fn normal(text: &str) -> String {
    let composed: String = match is_nfc_quick(text.chars()) {
        IsNormalized::Yes => text.replace("\r\n", "\n"),
        _ => text.nfc().collect::<String>().replace("\r\n", "\n"),
    };
    let seen: String = composed.chars().filter_map(shown).collect();
    seen.trim().to_owned()
}

/// What a character is written as.
fn shown(c: char) -> Option<char> {
    match c {
        '\n' | '\t' => Some(c),
        '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some('\n'),
        '\u{a0}' | '\u{202f}' | '\u{3000}' => Some(' '),
        // The mark of byte order, what changes the direction of a text unseen, and what are no characters, as Unicode says.
        '\u{feff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fdd0}'..='\u{fdef}' => None,
        c if c.is_control() || u32::from(c) & 0xfffe == 0xfffe => None,
        c => Some(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_look_the_same_are_written_the_same() {
        for (text, expected) in [
            ("  a\u{a0}b\r\n\tc \n", "a b\n\tc"),
            ("e\u{301}\u{202e}x\u{0}\u{1b}[1m", "éx[1m"),
            ("\u{feff}\u{fdd0}日\u{3000}本\r", "日 本"),
            ("👩‍👩‍👧 می‌خواهم", "👩‍👩‍👧 می‌خواهم"),
            ("", ""),
        ] {
            assert_eq!(normal(text), expected);
            assert_eq!(normal(expected), expected, "once is enough");
        }
    }
}
