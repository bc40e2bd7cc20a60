//! `arriero doctor`: looks at this machine and says what is wrong and how to mend it.
//!
//! Changes nothing. It needs no running gateway and can be run beside one.

mod address;
mod backends;
mod machine;
mod processes;

use std::fmt::Write;

use serde::Serialize;

use super::args::Doctor;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::config::{self, Config, Variables};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// Works, but not as well as it could.
    Warn,
    /// Keeps the gateway from starting or answering.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: &'static str,
    pub level: Level,
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, what: what.into(), mend: None }
    }

    fn warn(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, what: what.into(), mend: Some(mend.into()) }
    }

    fn fail(check: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, what: what.into(), mend: Some(mend.into()) }
    }
}

/// Ends with [`Exit::Failure`] when something keeps the gateway from working.
///
/// # Errors
/// When the findings cannot be written.
pub async fn run(args: &Doctor, variables: &Variables) -> Result<Exit, Failure> {
    let mut findings = Vec::new();
    if let Some(config) = configuration(args, variables, &mut findings) {
        findings.extend(machine::look(&config).await);
        findings.push(address::look(&config, variables).await);
        findings.extend(backends::look(&config).await);
    }
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
    terminal::print(&if args.json { json(&findings, worst) } else { text(&findings) })?;
    Ok(if worst == Level::Fail { Exit::Failure } else { Exit::Ok })
}

/// The configuration to go on with: the defaults when the real one does not hold.
fn configuration(args: &Doctor, variables: &Variables, findings: &mut Vec<Finding>) -> Option<Config> {
    let settings = &args.settings;
    match config::read(settings.config.as_deref(), variables, &settings.overrides()) {
        Ok(loaded) => {
            findings.push(Finding::ok("configuration", "holds (`arriero config show` prints it)"));
            Some(loaded.config)
        }
        Err(problems) => {
            findings.extend(problems.iter().map(|problem| Finding::fail("configuration", problem.to_string(), "correct it")));
            config::load(None, &variables.machine_only(), &[]).ok().map(|loaded| loaded.config)
        }
    }
}

fn json(findings: &[Finding], worst: Level) -> String {
    format!("{:#}", serde_json::json!({ "level": worst, "findings": findings }))
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let level = match finding.level {
            Level::Ok => "ok  ",
            Level::Warn => "WARN",
            Level::Fail => "FAIL",
        };
        let _ = writeln!(text, "{level}  {:width$}  {}", finding.check, terminal::harmless(&finding.what));
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "      {:width$}  -> {mend}", "");
        }
    }
    text
}

/// A size for people, e.g. `1.5 GiB`.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    if bytes >= GIB { format!("{:.1} GiB", bytes as f64 / GIB as f64) } else { format!("{} MiB", bytes >> 20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_told_with_its_remedy() {
        let findings = [Finding::ok("disk", "1 GiB"), Finding::fail("address", "in use", "stop it")];
        assert_eq!(text(&findings), "ok    disk     1 GiB\nFAIL  address  in use\n               -> stop it\n");
        let told: serde_json::Value = serde_json::from_str(&json(&findings, Level::Fail)).expect("JSON");
        assert_eq!(told["level"], "fail");
        assert_eq!(told["findings"][1]["mend"], "stop it");
        assert!(told["findings"][0].get("mend").is_none());
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(500 << 20), "500 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
    }
}
