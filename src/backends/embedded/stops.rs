//! Ending an answer at a stop string, also one that comes in several pieces. Pure.

/// Watches a text for strings that end it. Holds back only what could be the beginning of one.
#[derive(Debug, Clone, Default)]
pub(super) struct Stops {
    strings: Vec<String>,
    held: String,
}

/// What became of one more piece of text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// Safe to hand out.
    pub(super) text: String,
    /// A stop string came; it and what follows are gone.
    pub(super) stopped: bool,
}

impl Stops {
    pub(super) fn new(strings: impl IntoIterator<Item = String>) -> Self {
        Self { strings: strings.into_iter().filter(|string| !string.is_empty()).collect(), held: String::new() }
    }

    pub(super) fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        if let Some(at) = self.strings.iter().filter_map(|string| self.held.find(string.as_str())).min() {
            self.held.truncate(at);
            return Passed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let rest = self.held.split_off(self.held.len() - self.possible());
        Passed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// What was held back, when the answer ends by itself.
    pub(super) fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end that could be the beginning of a stop string.
    fn possible(&self) -> usize {
        let longest = |string: &String| {
            let most = self.held.len().min(string.len() - 1);
            (1..=most).rev().find(|length| self.held.as_bytes().ends_with(&string.as_bytes()[..*length]))
        };
        // Both are text: what matches from a character's first byte on is whole characters or ends with the held text itself.
        let bytes = self.strings.iter().filter_map(longest).max().unwrap_or(0);
        self.held.len() - self.held.floor_char_boundary(self.held.len() - bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut watch = Stops::new(stops.iter().map(ToString::to_string));
        let mut out = Vec::new();
        for piece in pieces {
            let passed = watch.push(piece);
            out.push(passed.text);
            if passed.stopped {
                return (out, true);
            }
        }
        out.push(watch.flush());
        (out, false)
    }

    #[test]
    fn a_stop_in_pieces_is_found_and_what_only_began_like_one_comes_out() {
        assert_eq!(run(&["User:"], &["Hi\nUs", "er", ": no"]), (vec!["Hi\n".into(), String::new(), String::new()], true));
        assert_eq!(run(&["User:"], &["Us", "ually"]), (vec![String::new(), "Usually".into(), String::new()], false));
        assert_eq!(run(&["User:"], &["The Us"]), (vec!["The ".into(), "Us".into()], false));
        assert_eq!(run(&["b", "abc"], &["xab"]), (vec!["xa".into()], true));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]).0.concat(), "a");
        assert_eq!(run(&[], &["any", "thing"]), (vec!["any".into(), "thing".into(), String::new()], false));
        assert_eq!(run(&["ü!"], &["größe ü", "ber"]), (vec!["größe ".into(), "über".into(), String::new()], false));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_ends_before_the_first_stop(
            pieces in proptest::collection::vec("[abü]{0,4}", 0..12), stops in proptest::collection::vec("[abü]{1,4}", 0..4),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let (out, stopped) = run(&stops, &pieces.iter().map(String::as_str).collect::<Vec<_>>());
            let text = pieces.concat();
            let out = out.concat();
            prop_assert!(text.starts_with(&out));
            // The first to be complete ends the text; it may not be the one that begins first.
            let first = stops.iter().filter_map(|stop| text.find(stop).map(|at| at + stop.len())).min();
            prop_assert_eq!(stopped, first.is_some());
            match first {
                None => prop_assert_eq!(out, text),
                Some(end) => prop_assert!(out.len() < end && stops.iter().all(|stop| !out.contains(stop))),
            }
        }
    }
}
