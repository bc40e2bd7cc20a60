//! What of a configuration must not be shown: values of keys named like secrets, and credentials inside addresses.

use super::tree::Path;

/// What stands in the place of a secret.
pub const MASK: &str = "***";

/// Whether a key's name says that its value is a secret.
#[must_use]
pub fn is_secret(path: &Path) -> bool {
    const NAMES: [&str; 6] = ["key", "token", "password", "passphrase", "secret", "credentials"];
    path.last_key().and_then(|key| key.rsplit('_').next()).is_some_and(|word| NAMES.contains(&word))
}

/// The text with the user name and password of every address in it masked.
#[must_use]
pub fn without_credentials(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // Up to the end of the word: a password that was not encoded may hold a slash.
        let end = after.find([' ', '"', ',']).unwrap_or(after.len());
        match after[..end].rfind('@') {
            Some(at) => {
                shown.push_str(MASK);
                rest = &after[at..];
            }
            None => rest = after,
        }
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_addresses_are_masked_and_the_rest_stays() {
        for (text, shown) in [
            ("http://user:pa@ss@host:1/x", "http://***@host:1/x"),
            ("http://user:p/w@host", "http://***@host"),
            ("a http://u:p@h, https://k@h2/", "a http://***@h, https://***@h2/"),
            ("mail@example.org", "mail@example.org"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }

    #[test]
    fn secrets_are_known_by_their_last_word() {
        for (key, secret) in [("auth.api_key", true), ("x.password", true), ("x.first_token_timeout", false), ("x.max_tokens", false)] {
            assert_eq!(is_secret(&Path::dotted(key)), secret, "{key}");
        }
    }
}
