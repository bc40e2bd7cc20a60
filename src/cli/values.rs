//! Values of the admin API's answers as people read them in a table. What is not there is a dash.

use serde_json::Value;

/// Text, number or truth value of a field.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.replace(['\n', '\t'], " "),
        other => other.to_string(),
    }
}

/// A list; none where there is nothing.
#[must_use]
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A span that is given in milliseconds.
#[must_use]
pub fn span(milliseconds: &Value) -> String {
    milliseconds.as_f64().map_or_else(|| "-".to_owned(), short)
}

/// About as long, in words.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "rounded to seconds")]
pub fn seconds(milliseconds: u64) -> String {
    short(milliseconds as f64)
}

fn short(milliseconds: f64) -> String {
    match milliseconds {
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms if ms < 9_950.0 => format!("{:.1} s", ms / 1e3),
        ms if ms < 120_000.0 => format!("{:.0} s", ms / 1e3),
        ms => format!("{:.0} min", ms / 60e3),
    }
}

/// A number of bytes.
#[must_use]
pub fn bytes(value: &Value) -> String {
    match value.as_f64() {
        None => "-".to_owned(),
        Some(bytes) if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        Some(bytes) if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        Some(bytes) if bytes >= 1e3 => format!("{:.1} kB", bytes / 1e3),
        Some(bytes) => format!("{bytes:.0} B"),
    }
}

/// Milliseconds since 1970 as a time in UTC.
#[must_use]
pub fn time(unix_ms: &Value) -> String {
    let time = unix_ms.as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A heading and its rows.
#[must_use]
pub fn rows<const N: usize>(heading: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Vec<Vec<String>> {
    std::iter::once(heading.map(str::to_owned)).chain(rows).map(|row| row.to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        let spans = [json!(0), json!(12.4), json!(1_500), json!(12_300), json!(600_000), Value::Null];
        assert_eq!(spans.map(|ms| span(&ms)), ["0 ms", "12 ms", "1.5 s", "12 s", "10 min", "-"]);
        let sizes = [json!(12), json!(1_500), json!(2_000_000), json!(3_100_000_000_u64), Value::Null];
        assert_eq!(sizes.map(|size| bytes(&size)), ["12 B", "1.5 kB", "2.0 MB", "3.1 GB", "-"]);
        assert_eq!([json!(true), json!("a\nb"), json!(3), Value::Null].map(|value| text(&value)), ["yes", "a b", "3", "-"]);
    }
}
