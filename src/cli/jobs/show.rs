//! Jobs as people read them.

use std::fmt::Write;

use serde_json::Value;

use crate::cli::args::JobsCommand;
use crate::cli::exit::Failure;
use crate::cli::terminal;
use crate::cli::values::{bytes, list, rows, seconds, text, time};

pub fn answer(command: &JobsCommand, answer: &Value) -> Result<(), Failure> {
    match command {
        JobsCommand::List { .. } if list(&answer["jobs"]).is_empty() => terminal::note("There is no such job."),
        JobsCommand::Schedules { command: None } if list(&answer["schedules"]).is_empty() => terminal::note("There is no schedule."),
        JobsCommand::Artifacts { .. } if list(&answer["artifacts"]).is_empty() => terminal::note("The job has made nothing yet."),
        JobsCommand::Schedules { command: Some(_) } => terminal::note("The schedule is removed; jobs that it has made stay."),
        JobsCommand::DeleteUpload { file } => terminal::note(&format!("The file {file} is deleted.")),
        JobsCommand::Cancel { id } if answer["state"] == "cancelled" => terminal::note(&format!("Job {id} is cancelled.")),
        JobsCommand::Cancel { id } => terminal::note(&format!("Job {id} is asked to stop.")),
        JobsCommand::Retry { id } => terminal::note(&format!("Job {id} waits again.")),
        _ => terminal::print(&terminal::harmless(&page(command, answer)))?,
    }
    Ok(())
}

fn page(command: &JobsCommand, answer: &Value) -> String {
    match command {
        JobsCommand::List { .. } => terminal::table(&jobs(answer)),
        JobsCommand::Schedules { .. } => terminal::table(&schedules(answer)),
        JobsCommand::Artifacts { .. } => terminal::table(&artifacts(answer)),
        JobsCommand::Kinds => kinds(answer),
        JobsCommand::Show { .. } => job(answer),
        _ => pool(answer),
    }
}

fn jobs(answer: &Value) -> Vec<Vec<String>> {
    let row = |job: &Value| {
        let [id, kind, name, state, priority] = ["id", "kind", "name", "state", "priority"].map(|field| text(&job[field]));
        [id, kind, name, state, progress(job), priority, time(&job["created_at_ms"])]
    };
    rows(["ID", "KIND", "NAME", "STATE", "PROGRESS", "PRIORITY", "SUBMITTED"], list(&answer["jobs"]).iter().map(row))
}

fn schedules(answer: &Value) -> Vec<Vec<String>> {
    let row = |one: &Value| {
        [
            text(&one["id"]),
            text(&one["name"]),
            text(&one["job"]["kind"]),
            text(&one["cron"]),
            text(&one["missed"]),
            time(&one["next_at_ms"]),
        ]
    };
    rows(["ID", "NAME", "KIND", "CRON (UTC)", "MISSED", "NEXT"], list(&answer["schedules"]).iter().map(row))
}

fn artifacts(answer: &Value) -> Vec<Vec<String>> {
    let row = |one: &Value| [text(&one["name"]), bytes(&one["size_bytes"]), text(&one["sha256"])];
    rows(["NAME", "SIZE", "SHA-256"], list(&answer["artifacts"]).iter().map(row))
}

fn kinds(answer: &Value) -> String {
    let mut page = String::new();
    for kind in list(&answer["kinds"]) {
        let _ = writeln!(page, "{}\n  {}", text(&kind["kind"]), text(&kind["about"]));
        let required = list(&kind["input"]["required"]);
        for (name, field) in kind["input"]["properties"].as_object().into_iter().flatten() {
            let needed = if required.contains(&Value::from(name.as_str())) { ", required" } else { "" };
            let _ = writeln!(page, "  {name} ({}{needed}): {}", text(&field["type"]), text(&field["description"]));
        }
    }
    page
}

fn job(job: &Value) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: String| {
        if value != "-" {
            let _ = writeln!(page, "{name:<12}{value}");
        }
    };
    line("id", text(&job["id"]));
    line("kind", text(&job["kind"]));
    line("name", text(&job["name"]));
    line("state", text(&job["state"]));
    line("attempt", format!("{} of {}", text(&job["attempts"]), text(&job["max_attempts"])));
    line("steps", format!("{} of {} ended", text(&job["steps_ended"]), list(&job["steps"]).len()));
    line("progress", progress(job));
    line("input", job["input"].to_string());
    line("error", job["error"].as_object().map_or("-".to_owned(), |_| fault(&job["error"])));
    line("result", if job["result"].is_null() { "-".to_owned() } else { job["result"].to_string() });
    for attempt in list(&job["history"]) {
        let outcome = if attempt["outcome"].is_null() { "runs".to_owned() } else { text(&attempt["outcome"]) };
        line("worked on", format!("{} by {}: {outcome}", time(&attempt["started_at_ms"]), text(&attempt["owner"])));
    }
    line("submitted", time(&job["created_at_ms"]));
    line("started", time(&job["started_at_ms"]));
    line("ended", time(&job["finished_at_ms"]));
    page
}

fn pool(answer: &Value) -> String {
    let mut page = match answer["order"].as_str() {
        Some("pause") => "No new job starts; those that run go on.\n".to_owned(),
        Some("drain") => "No new job starts; those that run stop at their next good place.\n".to_owned(),
        _ => "Jobs start as there is room for them.\n".to_owned(),
    };
    for (state, count) in answer["jobs"].as_object().into_iter().flatten() {
        let _ = writeln!(page, "{state:<10} {count}");
    }
    page
}

/// Why something failed: `hung: it made no progress`.
pub fn fault(fault: &Value) -> String {
    format!("{}: {}", text(&fault["kind"]), text(&fault["message"]))
}

/// How far a job is: `step 2/3, 45 % of 1.2 GB, 3 min left`.
pub fn progress(job: &Value) -> String {
    let progress = &job["progress"];
    if progress.is_null() || job["state"] == "succeeded" {
        return "-".to_owned();
    }
    let step = progress["step"].as_u64().unwrap_or_default() + 1;
    format!("step {step}/{}, {}", list(&job["steps"]).len(), measure(progress))
}

/// `45 % of 1.2 GB, 3 min left`.
pub fn measure(progress: &Value) -> String {
    let total = &progress["total"];
    let whole = if progress["unit"] == "bytes" { bytes(total) } else { format!("{} {}", text(total), text(&progress["unit"])) };
    let mut line = format!("{} % of {whole}", share(progress));
    if let Some(eta) = progress["eta_ms"].as_u64() {
        let _ = write!(line, ", {} left", seconds(eta));
    }
    line
}

/// In hundredths.
pub fn share(progress: &Value) -> u64 {
    let number = |name: &str| u128::from(progress[name].as_u64().unwrap_or_default());
    u64::try_from(number("done") * 100 / number("total").max(1)).unwrap_or(100).min(100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_a_page_and_a_row() {
        let one = json!({"id": "j", "kind": "checksum", "name": "n", "state": "running", "priority": "low", "attempts": 1, "max_attempts": 3,
            "steps": ["a", "b"], "steps_ended": 1, "input": {"path": "files/x"}, "error": {"kind": "hung", "message": "m"}, "created_at_ms": 0,
            "history": [{"owner": "7-a", "started_at_ms": 0, "outcome": "hung"}],
            "progress": {"step": 1, "done": 450, "total": 1000, "unit": "bytes", "eta_ms": 200_000}});
        assert_eq!(progress(&one), "step 2/2, 45 % of 1.0 kB, 3 min left");
        let page = job(&one);
        for line in [
            "state       running",
            "attempt     1 of 3",
            "error       hung: m",
            "worked on   1970-01-01 00:00:00Z by 7-a: hung",
            "submitted   1970-01-01 00:00:00Z",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line}\n{page}");
        }
        assert!(!page.contains("ended  "), "what is not there is left out: {page}");
        assert_eq!(jobs(&json!({"jobs": [one]}))[1][3], "running");
    }

    #[test]
    fn kinds_tell_their_fields() {
        let answer = json!({"kinds": [{"kind": "k", "about": "does.", "input": {"required": ["a"], "properties": {"a": {"type": "string", "description": "d"}}}}]});
        assert_eq!(kinds(&answer), "k\n  does.\n  a (string, required): d\n");
    }

    #[test]
    fn shares_stay_between_nothing_and_all() {
        let share = |done: u64, total: u64| share(&json!({"done": done, "total": total}));
        assert_eq!([share(0, 0), share(1, 3), share(9, 3), share(u64::MAX, u64::MAX)], [0, 33, 100, 100]);
    }
}
