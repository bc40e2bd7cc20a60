//! What the documents list is what the code has. `make generated` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use arriero::api::PROBLEMS;
use arriero::config::DEFAULTS;
use arriero::telemetry::metrics::ALL;

fn check(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("ARRIERO_TEST_UPDATE").is_some() {
        std::fs::write(&path, expected).expect("written");
    }
    let committed = std::fs::read_to_string(&path).expect("a file");
    assert!(committed == expected, "{file} is not current: `make generated` writes it anew");
}

#[test]
fn openapi() {
    check("openapi/openapi.json", &arriero::api::document());
}

#[test]
fn errors() {
    let mut text = "# Errors\n\nEvery answer that is no success is `application/problem+json`: `type`, `title`, `status`, a stable `code`, `detail` \
        (what failed and why, this time), `hint` (what to do), `request_id`, and by code more: `errors` (the wrong fields), `near` (names of models), \
        `retry_after_seconds`, …\n\n| code | status | what it means | what to do |\n|---|---|---|---|\n"
        .to_owned();
    for row in PROBLEMS {
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", row.code, row.status.as_u16(), row.title, row.hint);
    }
    check("docs/errors.md", &text);
}

#[test]
fn metrics() {
    let mut text =
        "# Metrics\n\n`GET /metrics` gives them in Prometheus' text format. Labels come from closed sets, or from the configuration; \
        names of models beyond a bound become `other`.\n\n| metric | kind | unit | labels | what it tells |\n|---|---|---|---|---|\n"
            .to_owned();
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ =
            writeln!(text, "| `{}` | {} | {} | {} | {} |", metric.name, metric.kind.as_str(), metric.unit, labels.join(", "), metric.help);
    }
    check("docs/metrics.md", &text);
}

#[test]
fn configuration() {
    let text = format!(
        "# Configuration\n\nDefaults < file (`--config FILE`, or `~/.config/arriero/arriero.toml` when it exists) < environment < flags. `arriero config check` \
        tells everything that is wrong at once, `arriero config show` what holds and where each value comes from.\n\nThis is every setting with its default:\n\n```toml\n{DEFAULTS}```\n"
    );
    check("docs/configuration.md", &text);
}
