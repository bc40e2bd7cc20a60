//! What the documents list is what the code has. `make generated` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use arriero::api::{AUTHORISATION, PROBLEMS};
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
fn authorisation() {
    let mut text = "# Who may do what\n\nA request bears an API key as `Authorization: Bearer KEY` or as `x-api-key: KEY`, or it comes in by an address that \
        stands for one (`server.identity`). Two different keys in one request are refused with 400, a missing or wrong one with 401, a role that is not enough with 403. \
        A path that does not exist is told (404) only to those who are let in. Where no key is required (`auth.required`), a request without one has the role \
        `auth.anonymous.role`, and a text that cannot be one of Arriero's keys is passed over.\n\nRoles, from the least to the most: `user`, `operator`, `admin`. \
        `metrics` is beside them: it reads `/metrics` and nothing else. HEAD is GET.\n\n| method | path | who |\n|---|---|---|\n"
        .to_owned();
    for rule in AUTHORISATION {
        let _ = writeln!(text, "| {} | `{}` | {} |", rule.method, rule.path, rule.needs.in_words());
    }
    check("docs/authorisation.md", &text);
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
