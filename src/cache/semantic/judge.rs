//! Whether two answers say the same. Pure.

use super::guards::Features;

/// Two answers at least this similar, which agree in what the guards see, say the same.
const SIMILAR: f32 = 0.85;
/// So similar that a number more or less in a long answer does not matter.
const VERY_SIMILAR: f32 = 0.95;
/// Answers of up to so many words have to be the same, but for how they are written.
const SHORT_WORDS: usize = 4;
/// Share of the words that two answers have to have in common.
const SHARED: f64 = 0.3;

/// `similarity_of_answers`: the cosine of their vectors. In doubt no: a false alarm raises the threshold, a missed one lets false
/// hits pass.
#[must_use]
pub fn judge(a: &str, b: &str, similarity_of_answers: f32) -> bool {
    if plain(a) == plain(b) {
        return true;
    }
    let (ours, theirs) = (Features::of(a), Features::of(b));
    if verdict(a) != verdict(b) || !similarity_of_answers.is_finite() || similarity_of_answers < SIMILAR {
        return false;
    }
    let numbers = same_set(ours.numbers(), theirs.numbers());
    let negations = ours.negations() == theirs.negations();
    if ours.words().len().min(theirs.words().len()) <= SHORT_WORDS {
        return numbers && negations && same_set(ours.words(), theirs.words());
    }
    let agree = if similarity_of_answers >= VERY_SIMILAR { numbers || negations } else { numbers && negations };
    agree && shared(ours.words(), theirs.words()) >= SHARED
}

/// Letters and digits only.
fn plain(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// What an answer to a yes-or-no question begins with.
fn verdict(text: &str) -> Option<bool> {
    let first: String = text.trim_start().chars().take_while(|c| c.is_alphabetic()).flat_map(char::to_lowercase).collect();
    match first.as_str() {
        "yes" | "ja" | "oui" | "sí" | "true" | "correct" => Some(true),
        "no" | "nein" | "non" | "false" | "incorrect" => Some(false),
        _ => None,
    }
}

fn same_set(a: &[String], b: &[String]) -> bool {
    a.iter().all(|x| b.contains(x)) && b.iter().all(|x| a.contains(x))
}

/// Words in common, as a share of all (Jaccard).
#[expect(clippy::cast_precision_loss, reason = "a count of words")]
fn shared(a: &[String], b: &[String]) -> f64 {
    let (a, b): (std::collections::HashSet<_>, std::collections::HashSet<_>) = (a.iter().collect(), b.iter().collect());
    a.intersection(&b).count() as f64 / a.union(&b).count().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_in_other_words_is_the_same() {
        for (a, b, similarity) in [
            ("Paris.", "paris", 0.1),
            ("The capital of France is Paris.", "Paris is the capital of France.", 0.97),
            (
                "The sky looks blue because air scatters blue light from the sun more than red light.",
                "It looks blue since the air scatters blue light of the sun far more than it scatters red light.",
                0.93,
            ),
        ] {
            assert!(judge(a, b, similarity), "{a} / {b}");
        }
    }

    #[test]
    fn what_differs_in_a_point_does_not() {
        for (a, b, similarity) in [
            ("Paris.", "Rome.", 0.9),
            ("Yes, it is.", "No, it is not.", 0.95),
            (
                "Yes, that is allowed in all of the member states since 2004.",
                "No, that is allowed in all of the member states since 2004.",
                0.99,
            ),
            ("It is 42.", "It is 43.", 0.99),
            (
                "The war ended in the year 1945 after long and bitter fighting.",
                "The war ended in the year 1918 after long and bitter fighting.",
                0.94,
            ),
            ("You can open the file with an editor of your choice.", "Cook the rice in salted water until it is soft.", 0.2),
            ("one two three four five", "six seven eight nine ten", f32::NAN),
        ] {
            assert!(!judge(a, b, similarity), "{a} / {b}");
        }
    }
}
