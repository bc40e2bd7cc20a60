//! What reports of jobs are written with: parts of pages of HTML, Markdown and plots as SVG. Every text of a model is escaped.

pub(in crate::jobs) mod markdown;
pub(in crate::jobs) mod svg;

/// Of a page that needs nothing else, in the colours that the reader likes.
pub(in crate::jobs) const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2024;--paper:#fff;--soft:#5b6570;--line:#d8dde2;--bar:#2f6f9f;--good:#1d7a3e;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--paper:#15181b;--soft:#9aa4ae;--line:#343a40;--bar:#6fb1de;--good:#5fce86;--bad:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:13px/1.45 ui-monospace,monospace}p.soft,.soft{color:var(--soft)}
svg{width:100%;max-width:44rem;height:auto;font:12px system-ui,sans-serif;fill:var(--soft)}.bar{fill:var(--bar)}
.curve{fill:none;stroke-width:1.5}.c0{stroke:var(--bar)}.c1{stroke:var(--bad)}.grid{stroke:var(--line)}
.good{color:var(--good)}.bad{color:var(--bad)}.wide{overflow-x:auto}";

/// A text as it stands between tags and in attributes. Control characters, which no page may hold, become blanks.
pub(in crate::jobs) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(in crate::jobs) fn size(bytes: u64) -> String {
    match bytes {
        0..=999_999 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Of parameters.
#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(in crate::jobs) fn count(parameters: u64) -> String {
    if parameters < 1_000_000_000 { format!("{:.1} M", parameters as f64 / 1e6) } else { format!("{:.2} B", parameters as f64 / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_for_people() {
        assert_eq!((size(5), size(253_113_180), size(4_700_000_000)), ("0.0 kB".into(), "253.1 MB".into(), "4.70 GB".into()));
        assert_eq!((count(268_098_176), count(8_030_000_000)), ("268.1 M".into(), "8.03 B".into()));
        assert_eq!(escape("a <b> & 'c'\u{1}\n"), "a &lt;b&gt; &amp; &#39;c&#39; \n");
    }
}
