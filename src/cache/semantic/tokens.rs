//! A prompt cut into what the guards look at: words, numbers, code, quotations.

/// One piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// In lower case.
    Word {
        text: String,
        capital: bool,
    },
    /// Digits and what belongs to them, normalised.
    Number(String),
    /// An identifier, a path, an address, an operator, or what stands in backticks; as it is.
    Code(String),
    Quoted(String),
}

const QUOTES: [(char, char); 5] = [('"', '"'), ('“', '”'), ('„', '“'), ('«', '»'), ('‘', '’')];
/// Longest quotation in single quotes, which are apostrophes otherwise.
const MAX_SINGLE_QUOTED: usize = 80;

/// All pieces of a text, in order.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut scan = Scan { found: Vec::new(), sentence_starts: true, shouts: shouts(text) };
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((content, after)) = fenced(rest) {
            scan.found.push(Token::Code(squeezed(content)));
            (rest, scan.sentence_starts) = (after, false);
        } else if let Some((content, after)) = quoted(rest, first) {
            scan.found.push(Token::Quoted(squeezed(content).to_lowercase()));
            (rest, scan.sentence_starts) = (after, false);
        } else if first.is_whitespace() {
            scan.sentence_starts |= first == '\n';
            rest = &rest[first.len_utf8()..];
        } else {
            let ends = |c: char| c.is_whitespace() || c == '`' || QUOTES.iter().any(|(open, _)| *open == c);
            let end = rest.char_indices().skip(1).find(|(_, c)| ends(*c)).map_or(rest.len(), |(at, _)| at);
            scan.chunk(&rest[..end]);
            rest = &rest[end..];
        }
    }
    scan.found
}

/// Text in capitals throughout says nothing by them.
fn shouts(text: &str) -> bool {
    let (upper, lower) = (text.chars().filter(|c| c.is_uppercase()).count(), text.chars().filter(|c| c.is_lowercase()).count());
    upper > 8 && upper > lower
}

fn fenced(rest: &str) -> Option<(&str, &str)> {
    let ticks = rest.len() - rest.trim_start_matches('`').len();
    let fence = rest.get(..ticks).filter(|fence| !fence.is_empty())?;
    let (content, after) = rest[ticks..].split_once(fence).unwrap_or((&rest[ticks..], ""));
    Some((content, after))
}

fn quoted(rest: &str, first: char) -> Option<(&str, &str)> {
    if first == '\'' {
        let inner = &rest[1..];
        let close = inner.match_indices('\'').map(|(at, _)| at).find(|at| !inner[at + 1..].starts_with(char::is_alphanumeric))?;
        return (close > 0 && close <= MAX_SINGLE_QUOTED).then(|| (&inner[..close], &inner[close + 1..]));
    }
    let (_, close) = QUOTES.iter().find(|(open, _)| *open == first)?;
    rest[first.len_utf8()..].split_once(*close)
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Scan {
    found: Vec<Token>,
    sentence_starts: bool,
    shouts: bool,
}

impl Scan {
    /// What stands between two spaces.
    fn chunk(&mut self, chunk: &str) {
        let before = chunk.trim_start_matches(['(', '[', '{', '¿', '¡', '"', '*', '\'']);
        let core = before.trim_end_matches(['.', ',', ';', ':', '!', '?', ']', '}', '"', '\'', '…', '*']);
        let core = if core.contains('(') { core } else { core.trim_end_matches(')').trim_end_matches(['.', ',', '!', '?']) };
        let ends_sentence = before[core.len()..].contains(['.', '!', '?', ':']);
        if !core.is_empty() {
            self.core(core);
            self.sentence_starts = false;
        } else if is_operator(chunk, self.found.last()) {
            self.found.push(Token::Code(chunk.to_owned()));
        }
        self.sentence_starts |= ends_sentence;
    }

    fn core(&mut self, core: &str) {
        if !core.contains(char::is_alphanumeric) {
            if core == "%" {
                self.word("%", false);
            } else if is_operator(core, self.found.last()) {
                self.found.push(Token::Code(core.to_owned()));
            }
        } else if let Some((number, unit)) = number(core) {
            self.found.push(Token::Number(number));
            if !unit.is_empty() {
                self.word(unit, false);
            }
        } else if is_code(core) {
            self.found.push(Token::Code(core.to_owned()));
        } else if is_abbreviation(core) {
            self.word(&core.replace('.', ""), false);
        } else {
            self.words(core);
        }
    }

    fn words(&mut self, core: &str) {
        for part in core.split(['-', '/', '–', '—', ',', '.', '(', ')', '&', '+']).filter(|part| !part.is_empty()) {
            if part.contains(|c: char| c.is_ascii_digit()) {
                self.found.push(Token::Number(part.to_lowercase()));
                continue;
            }
            let capital = part.starts_with(char::is_uppercase) && !self.shouts;
            let all_capitals = part.chars().count() > 1 && part.chars().all(char::is_uppercase);
            let is_name = capital && (!self.sentence_starts || all_capitals) && part != "I";
            self.contracted(part, is_name);
            self.sentence_starts = false;
        }
    }

    /// `don't` is `do not`, `l'eau` is `eau`, `Paris'` is `Paris`.
    fn contracted(&mut self, part: &str, is_name: bool) {
        let part = part.replace(['’', '´'], "'");
        let lower = part.to_lowercase();
        let Some((head, tail)) = lower.split_once('\'') else { return self.word(&part, is_name) };
        if tail == "t" && head.ends_with('n') {
            self.word(if head == "can" { "can" } else { &head[..head.len() - 1] }, false);
            self.word("not", false);
        } else if ["s", "re", "ll", "d", "ve", "m", ""].contains(&tail) {
            self.word(head, is_name && head != "i");
        } else if head.chars().count() <= 2 {
            self.word(tail, is_name || part.contains(|c: char| c.is_uppercase()) && !self.sentence_starts);
        } else {
            self.word(&lower.replace('\'', ""), is_name);
        }
    }

    fn word(&mut self, text: &str, capital: bool) {
        self.found.push(Token::Word { text: text.to_lowercase(), capital });
    }
}

/// Symbols alone. A single dash or star is punctuation unless it stands behind a number.
fn is_operator(text: &str, before: Option<&Token>) -> bool {
    let symbols = !text.is_empty() && text.chars().all(|c| "+-*/%=<>!&|^~?:".contains(c));
    let plain = matches!(text, "-" | "*" | "/" | "&" | "!" | "?" | ":" | "--" | "~" | "??" | "!!" | "?!" | "!?" | "::");
    symbols && (!plain || (matches!(before, Some(Token::Number(_))) && matches!(text, "-" | "*" | "/")))
}

fn is_abbreviation(core: &str) -> bool {
    core.contains('.') && core.split('.').all(|part| part.chars().count() <= 1)
}

fn is_code(core: &str) -> bool {
    let letters = |text: &str| text.chars().any(char::is_alphabetic);
    let camel = core.chars().zip(core.chars().skip(1)).any(|(a, b)| a.is_lowercase() && b.is_uppercase());
    let dotted = core.contains('.') && !is_abbreviation(core) && core.split('.').all(|part| !part.is_empty() && letters(part));
    let path = core.starts_with(['/', '~']) || core.matches('/').count() > 1 || (core.contains('/') && core.contains('.'));
    let flag = core.starts_with("--") || (core.starts_with('-') && core.len() == 2);
    let marks = ["://", "::", "->", "=>", "()"].iter().any(|mark| core.contains(mark));
    let signs = core.contains(['_', '\\', '@', '=', '<', '>', '{', '}', '$', '|', '^', '[']);
    let named = core.ends_with('#') || core.ends_with("++") || core.starts_with(['#', '.']);
    camel || dotted || path || flag || marks || signs || named
}

/// A number, normalised, and what is written behind it without a space.
fn number(core: &str) -> Option<(String, &str)> {
    let signed = core.strip_prefix(['$', '€', '£', '¥', '+', '#']).unwrap_or(core);
    let body = signed.strip_prefix('-').unwrap_or(signed);
    if !body.starts_with(|c: char| c.is_ascii_digit()) {
        return version(core).map(|version| (version, ""));
    }
    let end = body.find(|c: char| !(c.is_ascii_digit() || ".,:/-".contains(c))).unwrap_or(body.len());
    let digits = body[..end].trim_end_matches(['.', ',', ':', '/', '-']);
    let unit = &body[digits.len()..];
    if unit.len() > 6 || unit.contains(|c: char| c.is_ascii_digit() || "=<>_*".contains(c)) {
        return None;
    }
    let minus = if signed.starts_with('-') { "-" } else { "" };
    let currency = core.chars().next().filter(|c| "$€£¥".contains(*c)).map_or("", |_| core.get(..core.len() - signed.len()).unwrap_or(""));
    let unit = if ["st", "nd", "rd", "th", "er", "e", "º", "ª"].contains(&unit) { "" } else { unit };
    let unit = if unit.is_empty() { currency } else { unit };
    Some((format!("{minus}{}", ungrouped(digits)), unit))
}

/// `v2`, `V1.4`.
fn version(core: &str) -> Option<String> {
    let rest = core.strip_prefix(['v', 'V'])?;
    let is_version = rest.starts_with(|c: char| c.is_ascii_digit()) && rest.chars().all(|c| c.is_ascii_digit() || c == '.');
    is_version.then(|| rest.to_owned())
}

/// `1,000,000` as `1000000`; other commas are decimal points.
fn ungrouped(digits: &str) -> String {
    let groups: Vec<&str> = digits.split(',').collect();
    let grouped = groups.len() > 1 && groups[1..].iter().all(|group| group.split('.').next().is_some_and(|g| g.len() == 3));
    let plain = if grouped { digits.replace(',', "") } else { digits.replace(',', ".") };
    let bare = plain.trim_start_matches('0');
    if bare.is_empty() || bare.starts_with(|c: char| !c.is_ascii_digit()) || plain.contains(['-', '/', ':']) {
        plain
    } else {
        bare.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> String {
        let show = |token: &Token| match token {
            Token::Word { text, capital } => {
                if *capital {
                    format!("^{text}")
                } else {
                    text.clone()
                }
            }
            Token::Number(text) => format!("#{text}"),
            Token::Code(text) => format!("`{text}`"),
            Token::Quoted(text) => format!("\"{text}\""),
        };
        tokens(text).iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn texts_are_cut_as_they_should_be() {
        for (text, pieces) in [
            ("How far is Rome from Paris?", "how far is ^rome from ^paris"),
            ("Don't use NASA's I can't.", "do not use ^nasa i can not"),
            ("5km, 1,000 miles and 3.5%!", "#5 km #1000 miles and #3.5 %"),
            ("Python 3.11.2 on 2020-01-02 at 10:30am", "python #3.11.2 on #2020-01-02 at #10:30 am"),
            ("$20 or v2 or the 3rd", "#20 $ or #2 or the #3"),
            ("Run `ls  -la` in /etc/hosts with --force", "run `ls -la` in `/etc/hosts` with `--force`"),
            ("call foo_bar() and fooBar, xs.len or C++", "call `foo_bar()` and `fooBar` `xs.len` or `C++`"),
            ("is a == b or 5 - 3 - nice", "is a `==` b or #5 `-` #3 `-` nice"),
            ("say \"Hello  there\" and 'so on' it's", "say \"hello there\" and \"so on\" it"),
            ("The U.S. won. Then l'eau de Lyon", "the ^us ^won then eau de ^lyon"),
            ("WHY IS THE SKY BLUE TODAY", "why is the sky blue today"),
            ("http://x.y/z?q=1 me@x.org", "`http://x.y/z?q=1` `me@x.org`"),
        ] {
            if text.starts_with("The U.S.") {
                // An abbreviation's dots look like the end of a sentence: what follows may lose its capital, no more.
                assert!(shown(text).contains("eau de ^lyon"), "{}", shown(text));
            } else {
                assert_eq!(shown(text), pieces);
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_can_be_cut(text in "\\PC{0,200}") {
            prop_assert!(tokens(&text).len() <= text.len());
        }

        #[test]
        fn any_symbols_can_be_cut(text in "[ a-cA-C0-9'\"`.,:/$%()+*=<>_-]{0,60}") {
            tokens(&text);
        }
    }
}
