//! What similarity does not see: two questions may be close as vectors and far apart as questions.
//!
//! From each text its [`Features`] are taken; two texts pass when all of them agree: numbers (dates, versions and units among them) in
//! their order, negations, words that exclude one another, names, code, and the words themselves, where a small difference is
//! the dangerous one: texts that differ in one word only (or in a few of the same places) ask for different things unless the
//! words are known to mean the same, and so do texts of the same words in another order. Pure; knows English, German, French and
//! Spanish, and of other languages what does not depend on a list. Prefers a miss: that costs time, a wrong hit costs trust.

use super::tokens::{Token, tokens};
use super::words::{self, Opposite};

/// What two texts did not agree in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    Numbers,
    Negation,
    Opposites,
    Names,
    Code,
    Words,
}

impl Guard {
    pub const ALL: [Self; 6] = [Self::Numbers, Self::Negation, Self::Opposites, Self::Names, Self::Code, Self::Words];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Numbers => "numbers",
            Self::Negation => "negation",
            Self::Opposites => "opposites",
            Self::Names => "names",
            Self::Code => "code",
            Self::Words => "words",
        }
    }
}

/// What a text holds of the things that have to agree.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// Numbers and units, in order.
    numbers: Vec<String>,
    negations: usize,
    opposites: Vec<Opposite>,
    /// Names and quotations, in lower case.
    names: Vec<String>,
    code: Vec<String>,
    /// Words that carry meaning, each as the one that stands for all forms and synonyms, in order.
    words: Vec<String>,
    /// `from X to Y`: the pairs (X, Y).
    links: Vec<(String, String)>,
}

/// Prefixes that turn a word into its contrary.
const CONTRARY: [&str; 14] = ["un", "dis", "non", "in", "im", "il", "ir", "de", "mis", "anti", "sub", "pre", "re", "over"];
/// Words before `one` that make it a pronoun.
const PRONOUN_BEFORE_ONE: [&str; 12] = ["which", "this", "that", "the", "another", "any", "every", "each", "no", "some", "good", "best"];
/// Two words that are one.
const PHRASES: [&str; 13] = [
    "turn on",
    "turn off",
    "switch on",
    "switch off",
    "log in",
    "log out",
    "sign in",
    "sign out",
    "at least",
    "at most",
    "turn into",
    "set up",
    "shut down",
];

impl Features {
    #[must_use]
    pub fn of(text: &str) -> Self {
        let tokens = joined(tokens(text));
        let mut reader = Reader::default();
        for token in &tokens {
            reader.token(token);
        }
        reader.finish()
    }

    /// What they do not agree in; `None`: they may mean the same.
    #[must_use]
    pub fn disagree(&self, other: &Self) -> Option<Guard> {
        let checks: [(Guard, bool); 6] = [
            (Guard::Numbers, self.numbers == other.numbers),
            (Guard::Negation, self.negations == other.negations),
            (Guard::Opposites, no_contraries(&self.opposites, &other.opposites) && no_contraries(&other.opposites, &self.opposites)),
            (Guard::Code, self.code == other.code),
            (Guard::Names, self.names_agree(other)),
            (Guard::Words, self.words_agree(other)),
        ];
        checks.into_iter().find(|(_, agree)| !agree).map(|(guard, _)| guard)
    }

    /// About how much memory they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let texts = self.numbers.iter().chain(&self.names).chain(&self.code).chain(&self.words);
        let links = self.links.iter().map(|(a, b)| a.len() + b.len() + 48);
        texts.map(|text| text.len() + 24).chain(links).sum::<usize>() + self.opposites.len() * 6 + size_of::<Self>()
    }

    /// Whether nothing can be told apart by them.
    pub(super) fn is_empty(&self) -> bool {
        self.words.is_empty() && self.numbers.is_empty() && self.names.is_empty() && self.code.is_empty()
    }

    pub(super) fn numbers(&self) -> &[String] {
        &self.numbers
    }

    pub(super) fn negations(&self) -> usize {
        self.negations
    }

    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Names may be written without capitals, but have to be there, and in the same order.
    fn names_agree(&self, other: &Self) -> bool {
        let is_name = |word: &&String| self.names.contains(word) || other.names.contains(word);
        let ours: Vec<&String> = self.words.iter().filter(is_name).collect();
        let theirs: Vec<&String> = other.words.iter().filter(is_name).collect();
        ours == theirs
    }

    fn words_agree(&self, other: &Self) -> bool {
        let ours = only_in(&self.words, &other.words);
        let theirs = only_in(&other.words, &self.words);
        let turned = self.links.iter().any(|(from, to)| from != to && other.links.contains(&(to.clone(), from.clone())));
        if turned || contrary(&ours, &theirs) {
            return false;
        }
        match (ours.len(), theirs.len()) {
            (0, 0) => self.words == other.words || !same_bag(&self.words, &other.words),
            (0 | 1, 0 | 1) => false,
            _ => !replaced_in_place(&self.words, &other.words),
        }
    }
}

/// Whether everything that `ours` says is not contradicted by `theirs`, and what is not common is said there too.
fn no_contraries(ours: &[Opposite], theirs: &[Opposite]) -> bool {
    ours.iter().all(|our| {
        let same = theirs.iter().any(|their| (their.group, their.side) == (our.group, our.side));
        let contrary = theirs.iter().any(|their| their.group == our.group && their.side != our.side);
        same || (our.common && !contrary)
    })
}

fn only_in<'a>(these: &'a [String], those: &[String]) -> Vec<&'a str> {
    let mut only: Vec<&str> = these.iter().filter(|word| !those.contains(word)).map(String::as_str).collect();
    only.sort_unstable();
    only.dedup();
    only
}

fn same_bag(a: &[String], b: &[String]) -> bool {
    let sorted = |words: &[String]| {
        let mut words = words.to_vec();
        words.sort_unstable();
        words
    };
    sorted(a) == sorted(b)
}

/// `supported` and `unsupported`.
fn contrary(a: &[&str], b: &[&str]) -> bool {
    let turns = |long: &str, short: &str| short.len() > 2 && CONTRARY.iter().any(|prefix| long.strip_prefix(prefix) == Some(short));
    a.iter().any(|x| b.iter().any(|y| turns(x, y) || turns(y, x)))
}

/// Whether the texts have the same frame, with other words in up to half of its places.
fn replaced_in_place(a: &[String], b: &[String]) -> bool {
    let differing = a.iter().zip(b).filter(|(x, y)| x != y).count();
    a.len() == b.len() && differing * 2 <= a.len()
}

/// Puts the two words of a phrase together.
fn joined(tokens: Vec<Token>) -> Vec<Token> {
    let mut joined: Vec<Token> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let (Some(Token::Word { text: before, .. }), Token::Word { text, .. }) = (joined.last_mut(), &token) {
            let verb = words::stem(before);
            let phrase = PHRASES
                .iter()
                .find(|phrase| phrase.split_once(' ').is_some_and(|(a, b)| (words::stem(a) == verb || a == before) && b == text));
            if let Some(phrase) = phrase {
                *before = phrase.replace(' ', "-");
                continue;
            }
        }
        joined.push(token);
    }
    joined
}

/// Goes through the pieces of one text.
#[derive(Default)]
struct Reader {
    features: Features,
    /// A number in words that is not complete.
    spoken: Option<u64>,
    behind_number: bool,
    before: String,
    /// The link word that waits for its second side, and its first side.
    link: Option<(bool, String)>,
}

impl Reader {
    fn token(&mut self, token: &Token) {
        match token {
            Token::Word { text, capital } => return self.word(text, *capital),
            Token::Number(number) => {
                self.end_spoken();
                self.features.numbers.push(number.clone());
            }
            Token::Code(code) => {
                self.end_spoken();
                self.features.code.push(code.clone());
            }
            Token::Quoted(text) => {
                self.end_spoken();
                self.features.names.push(text.clone());
                self.content(text.clone());
            }
        }
        self.behind_number = matches!(token, Token::Number(_));
        self.before.clear();
    }

    fn word(&mut self, text: &str, capital: bool) {
        let behind_number = self.behind_number || self.spoken.is_some();
        let pronoun = text == "one" && PRONOUN_BEFORE_ONE.contains(&self.before.as_str());
        if let Some(unit) = words::unit(text, behind_number) {
            self.end_spoken();
            self.features.numbers.push(unit.to_owned());
            self.behind_number = false;
        } else if let Some(value) = words::number(text).filter(|_| !pronoun) {
            self.speak(value);
        } else if !(text == "and" && self.spoken.is_some()) {
            self.end_spoken();
            self.behind_number = false;
            self.plain(text, capital);
        }
        text.clone_into(&mut self.before);
    }

    fn plain(&mut self, text: &str, capital: bool) {
        if words::is_negation(text) {
            self.features.negations += 1;
            return;
        }
        self.features.opposites.extend(words::opposites(text));
        match text {
            "to" | "into" | "than" | "over" | "before" | "after" | "à" | "nach" | "zu" | "hasta" | "vers" => self.begin_link(false),
            "from" | "von" | "de" | "desde" => self.begin_link(true),
            _ => {}
        }
        let is_name = capital && !words::is_empty(text);
        if is_name || !words::is_empty(text) {
            let word = words::canonical(text);
            if is_name {
                self.features.names.push(word.clone());
            }
            self.content(word);
        }
    }

    fn content(&mut self, word: String) {
        if let Some((reversed, first)) = self.link.take() {
            let pair = if reversed { (word.clone(), first) } else { (first, word.clone()) };
            self.features.links.push(pair);
        }
        self.features.words.push(word);
    }

    fn begin_link(&mut self, reversed: bool) {
        self.link = self.features.words.last().map(|last| (reversed, last.clone()));
    }

    /// `twenty one` is 21, `two hundred` 200, `one two` 1 and 2.
    fn speak(&mut self, value: u64) {
        self.spoken = match self.spoken {
            None => Some(value),
            Some(so_far) if value >= 100 => Some(so_far.max(1).saturating_mul(value)),
            Some(so_far) if so_far >= 20 && so_far % 10 == 0 && value < 10 || so_far >= 100 && so_far % 100 == 0 => Some(so_far + value),
            Some(_) => {
                self.end_spoken();
                Some(value)
            }
        };
    }

    fn end_spoken(&mut self) {
        if let Some(number) = self.spoken.take() {
            self.features.numbers.push(number.to_string());
        }
    }

    fn finish(mut self) -> Features {
        self.end_spoken();
        let opposites = &mut self.features.opposites;
        opposites.sort_unstable();
        opposites.dedup();
        self.features
    }
}

#[cfg(test)]
#[path = "guards_tests.rs"]
mod tests;
