//! Answers as words.

use std::collections::HashMap;

/// A text as it is compared: lower case, its words with one blank between them, without what surrounds words.
pub(super) fn normalised(text: &str) -> String {
    let word = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let words: Vec<String> = text.split_whitespace().map(word).filter(|word| !word.is_empty()).collect();
    // A text of signs alone is compared as it is.
    if words.is_empty() { text.trim().to_owned() } else { words.join(" ") }
}

/// Harmonic mean of precision and recall of the words of `found`, as SQuAD counts them (Rajpurkar et al. 2016), of texts that are
/// [`normalised`].
pub(super) fn f1(found: &str, expected: &str) -> f64 {
    let (found, expected): (Vec<&str>, Vec<&str>) = (found.split(' ').collect(), expected.split(' ').collect());
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in &expected {
        *left.entry(word).or_default() += 1;
    }
    let shared = found.iter().filter(|word| left.get_mut(**word).is_some_and(take)).count();
    ratio(2 * shared, found.len() + expected.len())
}

fn take(count: &mut usize) -> bool {
    let there = *count > 0;
    *count -= usize::from(there);
    there
}

/// 0 of nothing.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub(super) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_blanks_and_signs_around_words_do_not_count() {
        assert_eq!(normalised("  Paris,\n the  CAPITAL. "), "paris the capital");
        assert_eq!(normalised(" 3.5 "), "3.5");
        assert_eq!(normalised(" ?! "), "?!");
    }

    #[test]
    fn words_that_are_shared_count_as_often_as_both_have_them() {
        assert!((f1("a a b", "a b c") - 2.0 / 3.0).abs() < 1e-12);
        assert!((f1("x", "x") - 1.0).abs() < 1e-12);
        assert!(f1("x", "y").abs() < 1e-12);
    }
}
