//! A guess at the language of a row, by its letters and by how they follow each other.

use whatlang::Lang;

use crate::jobs::dataset::example::Body;

/// Shorter texts could be in many languages, in characters.
const MIN_CHARS: usize = 60;
/// As much of a row tells enough, in bytes.
const SAMPLE_BYTES: usize = 4_096;

/// The code of a row's language (ISO 639-3), where it can be told.
pub(super) fn of(body: &Body) -> Option<&'static str> {
    let mut sample = String::new();
    for text in body.answers() {
        let end = (0..=SAMPLE_BYTES.saturating_sub(sample.len()).min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        sample.push_str(&text[..end.unwrap_or(0)]);
        sample.push('\n');
    }
    if sample.chars().count() < MIN_CHARS {
        return None;
    }
    whatlang::detect(&sample).filter(whatlang::Info::is_reliable).map(|info| info.lang().code())
}

pub(super) fn is_known(code: &str) -> bool {
    Lang::from_code(code).is_some_and(|lang| lang.code() == code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::dataset::example::samples::text;

    #[test]
    fn languages_are_guessed_where_there_is_enough_to_go_by() {
        let english = "The quick brown fox jumps over the lazy dog, and then it goes back into the forest where it lives with its family.";
        let german =
            "Der schnelle braune Fuchs springt über den faulen Hund und läuft danach wieder in den Wald, in dem seine Familie wohnt.";
        assert_eq!(of(&text(english).body), Some("eng"));
        assert_eq!(of(&text(german).body), Some("deu"));
        assert_eq!(of(&text("OK").body), None);
        assert!(is_known("eng") && !is_known("en") && !is_known("ENG"));
    }
}
