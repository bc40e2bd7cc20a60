//! Secrets and personal data, found by rules and replaced by what they were.
//!
//! Rules find what is written as such things are written, and check what can be checked (Luhn, IBAN's remainder, ranges of addresses). They
//! are no promise that nothing is left: a name or a postal address is found by none of them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};

use crate::jobs::dataset::example::Body;

/// What is masked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Masks {
    /// API keys of well-known makes, JSON web tokens, and private keys.
    pub keys: bool,
    pub emails: bool,
    pub phones: bool,
    pub ibans: bool,
    /// Numbers of payment cards.
    pub cards: bool,
    /// IPv4 and IPv6, but for those that every machine has.
    pub addresses: bool,
}

impl Default for Masks {
    fn default() -> Self {
        Self { keys: true, emails: true, phones: true, ibans: true, cards: true, addresses: true }
    }
}

impl Masks {
    #[must_use]
    pub fn none() -> Self {
        Self { keys: false, emails: false, phones: false, ibans: false, cards: false, addresses: false }
    }
}

/// One rule: how it is written, whether that is one, and what is written instead.
struct Rule {
    name: &'static str,
    mask: &'static str,
    pattern: Regex,
    is_one: fn(&str) -> bool,
}

/// The rules that are switched on, in the order in which they are asked: the more particular ones first.
pub struct Masker(Vec<Rule>);

const PRIVATE_KEY: &str =
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\z)";
const TOKEN: &str = r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}";
const KEYS: &str = concat!(
    r"\b(?:sk-(?:[a-z]{2,10}[0-9]{0,2}-)*[A-Za-z0-9_-]{20,}",
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}",
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}",
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,})"
);
const EMAIL: &str = r"(?i)\b[a-z0-9._%+-]{1,64}@(?:[a-z0-9](?:[a-z0-9-]{0,62})\.)+[a-z]{2,24}\b";
const IBAN: &str = r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b";
const CARD: &str = r"\b[0-9](?:[ -]?[0-9]){12,18}\b";
const PHONE: &str = concat!(
    r"(?:(?:\+|\b00)[1-9][0-9 ().\-/]{6,20}[0-9]\b",
    r"|\(?\b0[0-9]{1,4}\)?(?: ?[\-/] ?| )[0-9][0-9 \-/]{4,12}[0-9]\b",
    r"|(?:\([2-9][0-9]{2}\) ?|\b[2-9][0-9]{2}[.\- ])[2-9][0-9]{2}[.\- ][0-9]{4}\b)"
);
const IPV4: &str = r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b";
const IPV6: &str = r"(?i)\b[0-9a-f]{1,4}:(?:[0-9a-f]{0,4}:){1,6}[0-9a-f]{1,4}\b";

impl Masker {
    #[must_use]
    pub fn new(masks: &Masks) -> Self {
        let any: fn(&str) -> bool = |_| true;
        let all = [
            (masks.keys, "private key", "[PRIVATE KEY]", PRIVATE_KEY, any),
            (masks.keys, "web token", "[TOKEN]", TOKEN, any),
            (masks.keys, "API key", "[API KEY]", KEYS, any),
            (masks.emails, "e-mail address", "[EMAIL]", EMAIL, any),
            (masks.ibans, "IBAN", "[IBAN]", IBAN, is_iban),
            (masks.cards, "card number", "[CARD]", CARD, is_card),
            (masks.phones, "phone number", "[PHONE]", PHONE, is_phone),
            (masks.addresses, "IP address", "[IP]", IPV4, is_ipv4),
            (masks.addresses, "IP address", "[IP]", IPV6, is_ipv6),
        ];
        // The patterns are constants that a test compiles.
        let rule = |(on, name, mask, pattern, is_one): (bool, _, _, &str, _)| {
            on.then(|| Regex::new(pattern).ok()).flatten().map(|pattern| Rule { name, mask, pattern, is_one })
        };
        Self(all.into_iter().filter_map(rule).collect())
    }

    /// Masks all texts of a row; says what was found.
    pub fn apply(&self, body: &mut Body) -> BTreeSet<&'static str> {
        let mut found = BTreeSet::new();
        for text in body.texts_mut() {
            for rule in &self.0 {
                if let Some(masked) = rule.masked(text) {
                    *text = masked;
                    found.insert(rule.name);
                }
            }
        }
        found
    }
}

impl Rule {
    /// The text without what the rule finds; `None`: it finds nothing.
    fn masked(&self, text: &str) -> Option<String> {
        if !self.pattern.is_match(text) {
            return None;
        }
        let mut any = false;
        let masked = self.pattern.replace_all(text, |found: &Captures<'_>| {
            let found = &found[0];
            let is_one = (self.is_one)(found);
            any |= is_one;
            if is_one { self.mask.to_owned() } else { found.to_owned() }
        });
        any.then(|| masked.into_owned())
    }
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> {
    text.chars().filter_map(|c| c.to_digit(10))
}

/// The remainder of 97 that every IBAN has (ISO 13616).
fn is_iban(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| *c != ' ').collect();
    if !(15..=34).contains(&plain.len()) {
        return false;
    }
    let (head, rest) = plain.split_at(4);
    let step = |remainder: u32, c: char| {
        let value = c.to_digit(36).unwrap_or(0);
        (remainder * if value > 9 { 100 } else { 10 } + value) % 97
    };
    rest.chars().chain(head.chars()).fold(0, step) == 1
}

/// Luhn's check digit, and a first digit with as many digits as its networks have.
fn is_card(text: &str) -> bool {
    let double = |(index, digit): (usize, u32)| if index % 2 == 0 { digit } else { digit * 2 - if digit > 4 { 9 } else { 0 } };
    let sum: u32 = digits(text).rev().enumerate().map(double).sum();
    let known = matches!(
        (digits(text).next(), digits(text).count()),
        (Some(3), 14..=16) | (Some(4), 13 | 16 | 19) | (Some(2 | 5), 16) | (Some(6), 16..=19)
    );
    known && sum.is_multiple_of(10)
}

/// International numbers have up to 15 digits (E.164). Dates look like national ones, with fewer digits.
fn is_phone(text: &str) -> bool {
    let count = digits(text).count();
    if text.starts_with('+') || text.starts_with("00") {
        return (8..=17).contains(&count);
    }
    (10..=13).contains(&count)
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<Ipv4Addr>()
        .is_ok_and(|address| !(address.is_loopback() || address.is_unspecified() || address.is_broadcast() || is_mask(address)))
}

/// 255.255.255.0 and the like.
fn is_mask(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    bits.leading_ones() + bits.trailing_zeros() >= 32
}

/// Paths of program code (`a::b`) look like addresses.
fn is_ipv6(text: &str) -> bool {
    let groups = text.split(':').filter(|group| !group.is_empty()).count();
    groups >= 3 && text.contains(|c: char| c.is_ascii_digit()) && text.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_loopback())
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
