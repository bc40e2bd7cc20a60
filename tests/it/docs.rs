//! What the documents list is what the code has. `make generated` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use arriero::api::{AUTHORISATION, PROBLEMS};
use arriero::config::DEFAULTS;
use arriero::routing::fallback::{ErrorKind, TABLE};
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
fn fallback() {
    let mut text = "# Fallback\n\nA model name may stand for an ordered chain of models: `[[routing.alias]]` in the configuration. A request says itself what it \
        wants of it: `fallback: true` (as configured), `false` (nothing but the first step; refuse instead), or a list of models to try in turn.\n\n\
        ## How a step is found\n\n\
        1. A request begins at the first step. Each later step whose `when` holds already is entered instead of the one before it. What is known of \
        the first step alone (its context, the wait there, its expected first token) is not held against the later ones.\n\
        2. A step is served by the backend with the least cost; failed attempts are retried within the budget, before the first byte only.\n\
        3. When all attempts failed, or a bound of a later step on waiting has passed, the first later step whose `when` holds is entered. There is \
        no way back. When none holds, the failure is the answer.\n\
        4. A step with `simplify` gets a smaller request: `num_ctx` and `num_predict` are lowered, `trim_history` cuts the oldest of the prompt; the \
        system prompt stays. The answer says what served it, why, and what was changed.\n\n\
        ## When a step's `when` holds\n\n\
        One of its triggers holds, and all of its filters do. Without triggers the filters alone decide. Without any condition it is entered after a \
        failure that may pass elsewhere (reason `any_trouble`): any but a refusal of the request itself. What is not known holds for no condition.\n\n\
        | condition | set to | kind | it holds when | it is looked at |\n|---|---|---|---|---|\n"
        .to_owned();
    for row in TABLE {
        let _ = writeln!(text, "| `{}` | {} | {} | {} | {} |", row.name, row.takes, row.part.as_str(), row.meaning, row.looked_at);
    }
    let kinds: Vec<String> = ErrorKind::ALL.iter().map(|kind| format!("`{}`", kind.as_str())).collect();
    let _ = writeln!(text, "\nError codes for `errors`: {}.", kinds.join(", "));
    check("docs/fallback.md", &text);
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
