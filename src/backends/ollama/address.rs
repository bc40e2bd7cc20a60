//! Where a server is: the configured address, read strictly.
//!
//! Accepts `http://host[:port][/prefix]`, the same with `https`, and Ollama's own `host:port`. Without a port it is 11434 for http and 443 for
//! https. Credentials become a header at once; nothing that is shown afterwards holds them. Pure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::uri::Authority;
use http::{HeaderValue, Uri};

const DEFAULT_HTTP_PORT: u16 = 11434;
const DEFAULT_HTTPS_PORT: u16 = 443;

/// Why a text is no address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not the address of an Ollama server: {why}; write it like http://127.0.0.1:11434")]
pub struct AddressError {
    /// As configured, without credentials.
    pub shown: String,
    pub why: &'static str,
}

/// An address without credentials, and the header made of them.
#[derive(Clone)]
pub struct Address {
    tls: bool,
    authority: Authority,
    /// Empty, or `/a/b` without a slash at its end.
    prefix: String,
    authorization: Option<HeaderValue>,
}

impl Address {
    /// # Errors
    /// When the text is no address; says what is wrong and how one looks.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        read(text).map_err(|why| AddressError { shown: hide_credentials(text), why })
    }

    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Whether it is this machine's own, by its name or number.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.authority.host().trim_matches(['[', ']']);
        host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// `host:port`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The header that carries the configured credentials.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// The URI of one of the server's paths, which starts with a slash.
    ///
    /// # Errors
    /// A path that cannot stand in a URI.
    pub fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        let scheme = if self.tls { "https" } else { "http" };
        Uri::builder().scheme(scheme).authority(self.authority.clone()).path_and_query(format!("{}{path}", self.prefix)).build()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority, self.prefix)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// The text with everything between scheme and host replaced.
#[must_use]
pub fn hide_credentials(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password that was not encoded may hold a slash: what stands before the last `@` is hidden wherever that is.
    let Some(at) = rest[..end].rfind('@').or_else(|| rest.rfind('@')) else { return text.to_owned() };
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}***@{}", &rest[at + 1..])
}

fn read(text: &str) -> Result<Address, &'static str> {
    let (tls, rest) = scheme(text)?;
    if rest.contains(['?', '#']) {
        return Err("it has a query or a fragment");
    }
    let (place, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let (credentials, place) = place.rsplit_once('@').map_or((None, place), |(credentials, place)| (Some(credentials), place));
    let authority = authority(place, tls)?;
    let prefix = prefix(path)?;
    Ok(Address { tls, authority, prefix, authorization: credentials.map(basic).transpose()? })
}

fn scheme(text: &str) -> Result<(bool, &str), &'static str> {
    match text.split_once("://") {
        None => Ok((false, text)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => Ok((false, rest)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => Ok((true, rest)),
        Some(_) => Err("its scheme is neither http nor https"),
    }
}

/// Host and port, the latter always present.
fn authority(place: &str, tls: bool) -> Result<Authority, &'static str> {
    let after_host =
        if place.starts_with('[') { place.find(']').ok_or("its [ has no ]")? + 1 } else { place.find(':').unwrap_or(place.len()) };
    let (host, port) = place.split_at(after_host);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() && tls => DEFAULT_HTTPS_PORT,
        None if port.is_empty() => DEFAULT_HTTP_PORT,
        None => return Err("something else than a port follows its host"),
        Some(_) if host.bytes().any(|b| b == b':') && !host.starts_with('[') => return Err("an IPv6 address needs brackets"),
        Some(digits) => port_number(digits)?,
    };
    // What a server listens on is where it is reached on this machine.
    let host = match host {
        "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        other => other,
    };
    if host.is_empty() {
        return Err("it has no host");
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'))
        && inner.parse::<std::net::Ipv6Addr>().is_err()
    {
        return Err("what stands in brackets is no IPv6 address");
    }
    let known = host.starts_with('[') || host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if !known {
        return Err("its host holds a character that hosts do not have");
    }
    format!("{host}:{port}").parse().map_err(|_| "its host is none")
}

fn port_number(digits: &str) -> Result<u16, &'static str> {
    let port = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None };
    port.filter(|port| *port != 0).ok_or("its port is not a number from 1 to 65535")
}

fn prefix(path: &str) -> Result<String, &'static str> {
    let path = path.trim_end_matches('/');
    let segments = || path.split('/').skip(1);
    let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%+@!$&'()*,;=:".contains(&b));
    if segments().any(|s| s == "." || s == ".." || !plain(s)) {
        return Err("its path has an empty, relative or unencoded part");
    }
    if matches!(segments().last(), Some("api" | "v1")) || path.contains("/api/") {
        return Err("its path must be what stands before /api, if anything");
    }
    Ok(path.to_owned())
}

fn basic(credentials: &str) -> Result<HeaderValue, &'static str> {
    let decoded = percent_decode(credentials).ok_or("its credentials hold a % that encodes nothing")?;
    if !decoded.contains(&b':') {
        return Err("its credentials are not user:password");
    }
    let value = format!("Basic {}", STANDARD.encode(decoded));
    let mut header = HeaderValue::from_str(&value).map_err(|_| "its credentials cannot be sent")?;
    header.set_sensitive(true);
    Ok(header)
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next()?).to_digit(16).and_then(|d| u8::try_from(d).ok());
        decoded.push(if byte == b'%' { digit()? << 4 | digit()? } else { byte });
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_what_they_mean() {
        for (text, shown) in [
            ("http://127.0.0.1:11434", "http://127.0.0.1:11434"),
            ("http://127.0.0.1:11434/", "http://127.0.0.1:11434"),
            ("HTTP://box", "http://box:11434"),
            ("https://llm.example.com", "https://llm.example.com:443"),
            ("https://llm.example.com:8443/ollama/", "https://llm.example.com:8443/ollama"),
            ("box:11434", "http://box:11434"),
            ("  box  ", "http://box:11434"),
            ("0.0.0.0:11435", "http://127.0.0.1:11435"),
            ("[::]:11435", "http://[::1]:11435"),
            ("[::1]", "http://[::1]:11434"),
            ("http://user:pa%3Ass%40@box:1/x", "http://box:1/x"),
        ] {
            let address = Address::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.uri("/api/tags").expect("a uri").to_string(), format!("{shown}/api/tags"));
        }
    }

    #[test]
    fn this_machine_goes_by_several_names() {
        let is = |text| Address::parse(text).expect("an address").is_loopback();
        assert!(["127.0.0.1:11434", "0.0.0.0", "http://[::1]:1", "http://LocalHost/x", "127.9.9.9:1"].into_iter().all(is));
        assert!(!["http://box", "10.0.0.1:11434", "https://localhost.example.com", "http://[fd00::1]"].into_iter().any(is));
    }

    #[test]
    fn what_is_no_address_is_refused_with_advice() {
        for text in [
            "",
            "http://",
            "://x",
            "ftp://box",
            "unix:///run/ollama",
            "http://:11434",
            "box:",
            "box:0",
            "box:65536",
            "box:+1",
            "box:a",
            "::1:11434",
            "[::1",
            "[::1]x",
            "[box]:1",
            "a b",
            "bo\u{fc}x",
            "http://box/?q",
            "http://box/#f",
            "http://box//x",
            "http://box/../x",
            "http://box:11434/api",
            "http://box/v1",
            "http://box/api/generate",
            "http://user@box",
            "http://a%zz:b@box",
            "http://box\r\nx: y",
        ] {
            let error = Address::parse(text).expect_err(text).to_string();
            assert!(error.contains("http://127.0.0.1:11434"), "{error}");
        }
    }

    #[test]
    fn credentials_become_a_header_and_are_not_shown() {
        let address = Address::parse("https://us%65r:p%40ss:word@box").expect("an address");
        let header = address.authorization().expect("credentials");
        assert_eq!(header.to_str().expect("ascii"), "Basic dXNlcjpwQHNzOndvcmQ=");
        for shown in [address.to_string(), format!("{address:?}"), format!("{header:?}"), address.uri("/").expect("a uri").to_string()] {
            assert!(!shown.contains("word") && !shown.contains("dXNl"), "{shown}");
        }
        for wrong in ["ftp://user:s3cret@box", "user:s3cret@box:0", "http://user:s3/cret@box", "http://user:s3?cret@box/x"] {
            let error = Address::parse(wrong).expect_err(wrong);
            assert!(!error.to_string().contains("s3") && !format!("{error:?}").contains("s3"), "{error}");
        }
    }
}
