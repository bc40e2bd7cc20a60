//! What the name of a model says: `Qwen2.5-0.5B-Instruct` is a base name, a size and a fine-tune.
//!
//! The rules are those of gguf-py's `metadata.py`, so that `general.*` comes out alike.

/// The parts of a name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) full: Option<String>,
    pub(super) organization: Option<String>,
    pub(super) base: Option<String>,
    pub(super) finetune: Option<String>,
    pub(super) version: Option<String>,
    pub(super) size: Option<String>,
}

/// How many weights a thing has, which says whether `8B` in its name is its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::jobs::convert) enum Size {
    Model(u64),
    /// Those that an adapter changes, perhaps not all of the model's.
    Adapter(u64),
}

/// What a piece between hyphens may be; more than one at once.
#[derive(Debug, Clone, Copy, Default)]
struct Roles {
    base: bool,
    size: bool,
    finetune: bool,
    version: bool,
    kind: bool,
}

impl Roles {
    fn none(self) -> bool {
        !(self.base || self.size || self.finetune || self.version || self.kind)
    }

    fn more_than_base(self) -> bool {
        self.base && (self.size || self.finetune || self.version || self.kind)
    }
}

/// Takes a model's id apart.
pub(super) fn parts(id: &str, size: Size) -> Parts {
    if id.contains(' ') {
        return Parts { full: Some(id.to_owned()), ..Parts::default() };
    }
    let (organization, full) = id.split_once('/').map_or((None, id), |(organization, full)| (Some(organization), full));
    let mut pieces: Vec<(String, Roles)> =
        full.split('-').filter(|piece| !piece.is_empty()).enumerate().map(|(at, piece)| role(at, piece, size)).collect();
    drop_words_beside_sizes(&mut pieces);
    find_base(&mut pieces);
    let joined = |wanted: fn(Roles) -> bool| {
        let found: Vec<&str> = pieces.iter().filter(|(_, roles)| wanted(*roles)).map(|(piece, _)| piece.as_str()).collect();
        (!found.is_empty()).then(|| found.join("-"))
    };
    let (finetune, version) = (joined(|roles| roles.finetune), joined(|roles| roles.version && !roles.base));
    let size = sizes(&pieces);
    let telling = size.is_some() || finetune.is_some() || version.is_some();
    Parts {
        full: Some(full.to_owned()),
        organization: organization.filter(|name| !name.starts_with('.')).map(str::to_owned),
        base: joined(|roles| roles.base).filter(|_| telling),
        finetune,
        version,
        size,
    }
}

fn role(at: usize, piece: &str, size: Size) -> (String, Roles) {
    let lower = piece.to_ascii_lowercase();
    let mut roles = Roles::default();
    if is_version(&lower) {
        roles.version = true;
    } else if is_kind(&lower) {
        roles.kind = true;
        return (piece.to_uppercase(), roles);
    } else if at > 0 && is_size(&lower) {
        return sized(piece, size);
    } else if at > 0 && matches!(lower.as_str(), "chat" | "instruct" | "vision" | "lora") {
        // That an adapter is one need not be said.
        roles.kind = lower == "lora" && matches!(size, Size::Adapter(1..));
        roles.finetune = !roles.kind;
    }
    (piece.to_owned(), roles)
}

/// A piece that looks like a size. One far from the model's own is a length of context, which belongs to the fine-tune.
fn sized(piece: &str, size: Size) -> (String, Roles) {
    let mut piece = piece.replace('_', ".");
    if piece.ends_with(|c: char| c.is_ascii_digit()) {
        // `7b1` is 7.1b.
        let digit = piece.pop().unwrap_or_default();
        let unit = piece.pop().unwrap_or_default();
        piece.extend(['.', digit, unit]);
    }
    let (head, unit) = piece.split_at(piece.len() - 1);
    if head.ends_with(|c: char| c.is_ascii_digit()) && "kmbt".contains(unit) {
        piece = format!("{head}{}", unit.to_ascii_uppercase());
    }
    let (head, unit) = piece.split_at(piece.len() - 1);
    if head.parse::<f64>().is_ok_and(|number| is_far(number, unit, size)) {
        return (format!("{head}{}", unit.to_ascii_lowercase()), Roles { finetune: true, ..Roles::default() });
    }
    (piece, Roles { size: true, ..Roles::default() })
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a comparison of magnitudes")]
fn is_far(number: f64, unit: &str, size: Size) -> bool {
    let power = " KMBT".find(unit).map_or(-1, |at| at as i32);
    let said = number * 1000_f64.powi(power);
    match size {
        Size::Model(0) | Size::Adapter(0) => false,
        Size::Model(weights) => (said - weights as f64).abs() > (7 * u128::from(weights) / 8) as f64,
        Size::Adapter(weights) => said < (weights / 8) as f64,
    }
}

/// `(v|iter)?\d+([.]\d+)*`
fn is_version(lower: &str) -> bool {
    let numbers = lower.strip_prefix("iter").or_else(|| lower.strip_prefix('v')).unwrap_or(lower);
    numbers.split('.').all(is_digits)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `i?q\d(_\w)*|b?fp?(16|32)`
fn is_kind(lower: &str) -> bool {
    let float = lower.strip_prefix('b').unwrap_or(lower).strip_prefix('f');
    if float.is_some_and(|rest| matches!(rest.strip_prefix('p').unwrap_or(rest), "16" | "32")) {
        return true;
    }
    let Some(rest) = lower.strip_prefix('i').unwrap_or(lower).strip_prefix('q') else { return false };
    let mut rest = rest.chars();
    if !rest.next().is_some_and(|c| c.is_ascii_digit()) {
        return false;
    }
    let rest: Vec<char> = rest.collect();
    rest.chunks(2).all(|pair| matches!(pair, ['_', c] if c.is_alphanumeric() || *c == '_'))
}

/// `(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)`
fn is_size(lower: &str) -> bool {
    if matches!(lower, "small" | "mini" | "medium" | "large" | "xl" | "xxl") {
        return true;
    }
    let end = if lower.ends_with(|c: char| c.is_ascii_digit()) { &lower[..lower.len() - 1] } else { lower };
    let Some(number) = end.strip_suffix(['k', 'm', 'b', 't']) else { return false };
    let number = match number.split_once('x') {
        Some((experts, number)) if is_digits(experts) => number,
        Some(_) => return false,
        None => number.strip_prefix('a').unwrap_or(number),
    };
    match number.split_once(['.', '_']) {
        Some((whole, part)) => is_digits(whole) && is_digits(part),
        None => is_digits(number),
    }
}

/// `mini` says nothing where `4B` is said too.
fn drop_words_beside_sizes(pieces: &mut [(String, Roles)]) {
    if pieces.iter().any(|(piece, roles)| roles.size && piece.contains(|c: char| c.is_ascii_digit())) {
        for (piece, roles) in pieces {
            roles.size &= !piece.chars().all(char::is_alphabetic);
        }
    }
}

/// The base name is what comes first; what follows without a role of its own is the fine-tune.
fn find_base(pieces: &mut [(String, Roles)]) {
    let mut at_start = true;
    for (piece, roles) in pieces.iter_mut() {
        if at_start && ((roles.none() && piece.starts_with(char::is_alphabetic)) || roles.version) {
            roles.base = true;
        } else {
            at_start = false;
            roles.finetune |= roles.none();
        }
    }
    for (_, roles) in pieces.iter_mut().rev() {
        if !roles.more_than_base() {
            break;
        }
        roles.base = false;
    }
}

fn sizes(pieces: &[(String, Roles)]) -> Option<String> {
    let mut found: Vec<&str> = Vec::new();
    for (piece, roles) in pieces {
        if roles.size && !found.contains(&piece.as_str()) {
            found.push(piece);
        }
    }
    (!found.is_empty()).then(|| found.join("-"))
}

/// A name as people would write it: words begin with a capital, unless they are acronyms or versions.
pub(super) fn title(id: &str) -> String {
    let words = id.trim().replace('-', " ");
    words.split_whitespace().map(|word| if keeps_case(word) { word.to_owned() } else { capitalized(word) }).collect::<Vec<_>>().join(" ")
}

fn keeps_case(word: &str) -> bool {
    let is_lower = word.chars().any(char::is_lowercase) && !word.chars().any(char::is_uppercase);
    let version = word.strip_prefix('v').is_some_and(|numbers| numbers.split('.').all(is_digits));
    !is_lower || version || word.starts_with(|c: char| c.is_ascii_digit())
}

/// Each run of letters begins with a capital.
fn capitalized(word: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for c in word.chars() {
        if inside {
            text.extend(c.to_lowercase());
        } else {
            text.extend(c.to_uppercase());
        }
        inside = c.is_alphabetic();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Answers of gguf-py's `Metadata.get_model_id_components`.
    #[test]
    fn names_are_taken_apart_as_gguf_py_does() {
        for (id, parameters, [full, organization, base, finetune, version, size]) in [
            ("Qwen2.5-0.5B-Instruct", 494_032_768, ["Qwen2.5-0.5B-Instruct", "", "Qwen2.5", "Instruct", "", "0.5B"]),
            ("meta-llama/Llama-2-7b-hf", 0, ["Llama-2-7b-hf", "meta-llama", "Llama-2", "hf", "", "7B"]),
            ("Mistral-7B-Instruct-v0.2", 7_241_732_096, ["Mistral-7B-Instruct-v0.2", "", "Mistral", "Instruct", "v0.2", "7B"]),
            ("Phi-3-mini-128k-instruct", 3_821_079_552, ["Phi-3-mini-128k-instruct", "", "Phi-3", "128k-instruct", "", "mini"]),
            ("bloom-7b1", 0, ["bloom-7b1", "", "bloom", "", "", "7.1B"]),
            ("gemma-3-270m-it", 268_098_176, ["gemma-3-270m-it", "", "gemma-3", "it", "", "270M"]),
            ("Mixtral-8x7B-v0.1", 0, ["Mixtral-8x7B-v0.1", "", "Mixtral", "", "v0.1", "8x7B"]),
            ("model-q4_K_M", 0, ["model-q4_K_M", "", "", "", "", ""]),
            ("tiny", 0, ["tiny", "", "", "", "", ""]),
            ("./x", 0, ["x", "", "", "", "", ""]),
            ("A fine model", 0, ["A fine model", "", "", "", "", ""]),
        ] {
            let expected = Parts {
                full: some(full),
                organization: some(organization),
                base: some(base),
                finetune: some(finetune),
                version: some(version),
                size: some(size),
            };
            assert_eq!(parts(id, Size::Model(parameters)), expected, "{id}");
        }
    }

    #[test]
    fn titles_are_written_as_gguf_py_does() {
        for (id, expected) in [
            ("gemma-3-270m-it", "Gemma 3 270m It"),
            ("Qwen2.5-0.5B-Instruct", "Qwen2.5 0.5B Instruct"),
            ("llama3b-v0.2", "Llama3B v0.2"),
            (" a--b ", "A B"),
        ] {
            assert_eq!(title(id), expected);
        }
    }
}
