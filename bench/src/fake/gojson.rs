//! JSON as Go's `encoding/json` reads and writes it, as far as a client can tell the difference.
//!
//! Reading: only the first value counts, invalid UTF-8 and lone surrogates become U+FFFD, and a mistake is told in Go's
//! words. Writing: `<`, `>` and `&` are escaped.

use serde_json::Value;

const MAX_DEPTH: usize = 10_000;

/// The first value of a body.
pub(super) fn first_value(body: &[u8]) -> Result<Value, String> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(if body.is_empty() { "missing request body" } else { "EOF" }.to_owned());
    }
    let text = without_lone_surrogates(&String::from_utf8_lossy(body));
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => Ok(value),
        _ => Err(Scanner { bytes: text.as_bytes(), at: 0 }.complaint()),
    }
}

/// Replaces `\ud800`-like escapes that have no partner by `\ufffd`.
fn without_lone_surrogates(text: &str) -> String {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(escape, 16).ok()
    };
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(offset) = text[at..].find('\\') {
        let here = at + offset;
        out.push_str(&text[at..here]);
        let length = match (unit(here), unit(here + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                out.push_str("\\ufffd");
                at = here + 6;
                continue;
            }
            _ => 1 + text[here + 1..].chars().next().map_or(0, char::len_utf8),
        };
        out.push_str(&text[here..here + length]);
        at = here + length;
    }
    out.push_str(&text[at..]);
    out
}

/// Walks a broken body to the place where Go's scanner stops, to say what Go says.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What the scanner expects next.
#[derive(Clone, Copy, PartialEq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    AfterElement,
    AfterPair,
}

impl Scanner<'_> {
    fn complaint(&mut self) -> String {
        self.walk().err().unwrap_or_else(|| "unexpected EOF".to_owned())
    }

    fn wrong(byte: u8, context: &str) -> String {
        let shown = if byte == b'\'' { "\\'".to_owned() } else { char::from(byte).to_string() };
        format!("invalid character '{shown}' {context}")
    }

    fn next(&mut self) -> Result<u8, String> {
        let byte = *self.bytes.get(self.at).ok_or("unexpected EOF")?;
        self.at += 1;
        Ok(byte)
    }

    fn walk(&mut self) -> Result<(), String> {
        let mut open: Vec<u8> = Vec::new();
        let mut expect = Expect::Value;
        loop {
            let byte = self.next()?;
            if byte.is_ascii_whitespace() {
                continue;
            }
            expect = match (expect, byte) {
                (Expect::ValueOrEnd | Expect::AfterElement, b']') | (Expect::KeyOrEnd | Expect::AfterPair, b'}') => {
                    open.pop();
                    Self::after_value(&open)
                }
                (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => {
                    open.push(byte);
                    if open.len() > MAX_DEPTH {
                        return Err(Self::wrong(byte, "exceeded max depth"));
                    }
                    if byte == b'{' { Expect::KeyOrEnd } else { Expect::ValueOrEnd }
                }
                (Expect::Value | Expect::ValueOrEnd, _) => {
                    self.scalar(byte)?;
                    Self::after_value(&open)
                }
                (Expect::Key | Expect::KeyOrEnd, b'"') => {
                    self.string()?;
                    Expect::Colon
                }
                (Expect::Key | Expect::KeyOrEnd, _) => return Err(Self::wrong(byte, "looking for beginning of object key string")),
                (Expect::Colon, b':') | (Expect::AfterElement, b',') => Expect::Value,
                (Expect::Colon, _) => return Err(Self::wrong(byte, "after object key")),
                (Expect::AfterElement, _) => return Err(Self::wrong(byte, "after array element")),
                (Expect::AfterPair, b',') => Expect::Key,
                (Expect::AfterPair, _) => return Err(Self::wrong(byte, "after object key:value pair")),
            };
        }
    }

    fn after_value(open: &[u8]) -> Expect {
        match open.last() {
            Some(b'{') => Expect::AfterPair,
            Some(_) => Expect::AfterElement,
            None => Expect::Value,
        }
    }

    fn scalar(&mut self, first: u8) -> Result<(), String> {
        match first {
            b'"' => self.string(),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' => {
                while self.bytes.get(self.at).is_some_and(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-')) {
                    self.at += 1;
                }
                Ok(())
            }
            other => Err(Self::wrong(other, "looking for beginning of value")),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes().skip(1) {
            let byte = self.next()?;
            if byte != expected {
                return Err(Self::wrong(byte, &format!("in literal {word} (expecting '{}')", char::from(expected))));
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => {
                    let byte = self.next()?;
                    if !b"\"\\/bfnrtu".contains(&byte) {
                        return Err(Self::wrong(byte, "in string escape code"));
                    }
                }
                byte if byte < 0x20 => return Err(Self::wrong(byte, "in string literal")),
                _ => {}
            }
        }
    }
}

/// Escapes what Go escapes beyond the standard. Safe on whole documents: outside of strings these bytes never occur.
pub(super) fn escape(json: &str) -> String {
    if !json.contains(['<', '>', '&']) {
        return json.to_owned();
    }
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A JSON string literal.
pub(super) fn quote(text: &str) -> String {
    escape(&Value::from(text).to_string())
}

/// Go's name for the type of a value.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_told_in_the_words_of_go() {
        for (body, words) in [
            ("", "missing request body"),
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
            ("{\"model\":\"x\"", "unexpected EOF"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ] {
            assert_eq!(first_value(body.as_bytes()).expect_err(body), words, "{body}");
        }
        let deep = "[".repeat(20_000);
        assert_eq!(first_value(deep.as_bytes()).expect_err("deep"), "invalid character '[' exceeded max depth");
    }

    #[test]
    fn what_go_forgives_is_forgiven() {
        assert_eq!(first_value(br#"{"a":1} rest"#), Ok(serde_json::json!({"a": 1})));
        assert_eq!(first_value(br#"["\ud800 x","\ud83d\ude00","\\ud800"]"#), Ok(serde_json::json!(["\u{fffd} x", "😀", "\\ud800"])));
        assert_eq!(first_value(b"[\"\xff\"]"), Ok(serde_json::json!(["\u{fffd}"])));
    }
}
