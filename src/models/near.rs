//! Names that resemble a name nobody has.

/// Most names that are proposed.
const MOST: usize = 5;

/// Those of `known` a person may have meant by `asked`, best first.
pub fn near<'a>(asked: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = key(asked);
    let mut ranked: Vec<(usize, &str)> = known.filter_map(|name| Some((resemblance(&wanted, &key(name))?, name))).collect();
    ranked.sort_unstable();
    ranked.dedup();
    ranked.into_iter().take(MOST).map(|(_, name)| name.to_owned()).collect()
}

/// Letters and digits only: `Gemma-3:270m` and `gemma3:270m` are one.
fn key(name: &str) -> Vec<char> {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).take(128).collect()
}

/// 0 for equal keys; `None` when the names have nothing to do with one another.
fn resemblance(wanted: &[char], known: &[char]) -> Option<usize> {
    let distance = edit_distance(wanted, known);
    let longest = wanted.len().max(known.len());
    let contained = contains(known, wanted) || contains(wanted, known);
    let shared_start = wanted.iter().zip(known).take_while(|(a, b)| a == b).count();
    (contained || distance * 3 <= longest || shared_start >= 4).then_some(if contained { distance / 2 } else { distance })
}

fn contains(long: &[char], short: &[char]) -> bool {
    short.len() >= 3 && long.windows(short.len()).any(|window| window == short)
}

/// Levenshtein distance, in characters.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["gemma3:270m", "llama3.2:latest", "qwen2.5-coder:7b", "all-minilm:latest"];

    #[test]
    fn finds_what_was_meant() {
        for (asked, meant) in [
            ("gemma-3:270m", "gemma3:270m"),
            ("lama3.2", "llama3.2:latest"),
            ("qwen2.5", "qwen2.5-coder:7b"),
            ("minilm", "all-minilm:latest"),
        ] {
            assert_eq!(near(asked, KNOWN.into_iter()).first().map(String::as_str), Some(meant), "{asked}");
        }
    }

    #[test]
    fn proposes_nothing_for_a_stranger() {
        assert!(near("zephyr", KNOWN.into_iter()).is_empty());
        assert!(near(&"x".repeat(100_000), KNOWN.into_iter()).is_empty());
    }
}
