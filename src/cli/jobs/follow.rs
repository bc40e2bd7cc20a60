//! Following a job: a bar on a terminal, plain lines elsewhere.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::show::{fault, measure, share};
use super::{checked, job, plain};
use crate::cli::client::Client;
use crate::cli::exit::{Exit, Failure};
use crate::cli::sse::Event;
use crate::cli::terminal::{self, Status};
use crate::cli::values::text;

/// Pauses before a stream that broke off is taken up again; after the last one it is given up.
const AGAIN: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Characters of a bar.
const BAR: u64 = 30;

/// Shows what happens to a job to its end. Ctrl-C ends the watching, not the job.
///
/// # Errors
/// When the gateway cannot be reached, or the job does not succeed.
pub async fn watch(client: &Client, id: &str, as_json: bool) -> Result<Exit, Failure> {
    let mut view = View { as_json, status: Status::standard(), last: Value::Null, only_logs: false };
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        followed = follow(client, id, true, &mut view) => {
            followed?;
            view.status.clear();
            end(&view.last)
        }
    }
}

/// Prints the log of a job.
///
/// # Errors
/// When the gateway cannot be reached.
pub async fn logs(client: &Client, id: &str, as_json: bool, to_the_end: bool) -> Result<Exit, Failure> {
    let mut view = View { as_json, status: Status::standard(), last: Value::Null, only_logs: true };
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        followed = follow(client, id, to_the_end, &mut view) => followed.map(|()| Exit::Ok),
    }
}

/// Downloads an artifact into a file, or to standard output.
///
/// # Errors
/// When the gateway cannot be reached, there is none, or it cannot be written.
pub async fn download(client: &Client, id: &str, name: &str, out: Option<&Path>) -> Result<Exit, Failure> {
    if name.contains(['/', '?', '#', '%']) {
        return Err(Failure::new(Exit::Usage, format!("`{name}` is no name of an artifact"), "`arriero jobs artifacts ID` lists them"));
    }
    let mut pieces = client.fetch(&format!("{}/artifacts/{name}", job(id)?)).await?;
    let mut file: Box<dyn Write> = match out {
        Some(path) => Box::new(std::fs::File::create(path)?),
        None => Box::new(std::io::stdout().lock()),
    };
    while let Some(piece) = pieces.piece().await? {
        file.write_all(&piece)?;
    }
    file.flush()?;
    Ok(Exit::Ok)
}

/// The exit code that says how a job ended.
fn end(last: &Value) -> Result<Exit, Failure> {
    match last["state"].as_str() {
        Some("succeeded") => Ok(Exit::Ok),
        Some(state @ ("failed" | "cancelled")) => {
            let why = if last["error"].is_null() { String::new() } else { format!(": {}", fault(&last["error"])) };
            Err(Failure::new(Exit::Failure, format!("the job {state}{why}"), ""))
        }
        _ => Err(Failure::new(Exit::Refused, "the job's events ended before the job", "`arriero jobs watch ID` goes on")),
    }
}

/// Reads events until the job has ended, or those that there are have come. A stream that breaks off is taken up where it was.
async fn follow(client: &Client, id: &str, to_the_end: bool, view: &mut View) -> Result<(), Failure> {
    let path = format!("jobs/{}/events", checked(id)?);
    let live = if to_the_end { None } else { Some(is_live(client, id).await?) };
    let (mut last_id, mut broken): (Option<String>, usize) = (None, 0);
    loop {
        let before = last_id.clone();
        let ended = read(client, &path, live, &mut last_id, view).await;
        if last_id != before {
            broken = 0;
        }
        let failure = match ended {
            Ok(true) => return Ok(()),
            Ok(false) => Failure::new(Exit::Gateway, "the events of the job broke off", "`arriero jobs watch ID` goes on"),
            Err(failure) => failure,
        };
        // What the gateway refuses it would refuse again; but one that has just started may not be ready.
        let Some(pause) = AGAIN.get(broken).filter(|_| failure.exit == Exit::Gateway) else { return Err(failure) };
        broken += 1;
        tokio::time::sleep(*pause).await;
    }
}

/// Whether more may happen to a job.
async fn is_live(client: &Client, id: &str) -> Result<bool, Failure> {
    plain(client, http::Method::GET, &job(id)?).await.map(|job| job["finished_at_ms"].is_null())
}

/// Whether it ended as it should.
async fn read(client: &Client, path: &str, live: Option<bool>, last_id: &mut Option<String>, view: &mut View) -> Result<bool, Failure> {
    let mut events = client.events(path, last_id.as_deref()).await?;
    loop {
        // A job that still runs has no end of its log: what does not come soon is not there yet.
        let next = match live {
            Some(true) => match tokio::time::timeout(Duration::from_secs(1), events.event()).await {
                Ok(next) => next,
                Err(_) => return Ok(true),
            },
            _ => events.event().await,
        };
        let Some(event) = next? else { return Ok(view.ended() || live.is_some()) };
        if let Some(id) = &event.id {
            *last_id = Some(id.clone());
        }
        if event.name == "error" {
            return Ok(false);
        }
        view.show(&event)?;
    }
}

struct View {
    as_json: bool,
    only_logs: bool,
    status: Status,
    /// The state that came last.
    last: Value,
}

impl View {
    fn ended(&self) -> bool {
        matches!(self.last["state"].as_str(), Some("succeeded" | "failed" | "cancelled"))
    }

    fn show(&mut self, event: &Event) -> Result<(), Failure> {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if event.name == "state" {
            self.last.clone_from(&data);
        }
        if self.as_json {
            let line = serde_json::json!({"event": event.name, "id": event.id, "data": data});
            if !self.only_logs || event.name == "log" {
                terminal::print(&line.to_string())?;
            }
        } else if event.name == "progress" && !self.only_logs && self.status.is_shown() {
            self.status.show(&bar(&data));
        } else if let Some(line) = line(event, &data).filter(|_| !self.only_logs || event.name == "log") {
            self.status.clear();
            terminal::print(&terminal::harmless(&line))?;
        }
        Ok(())
    }
}

/// `[######    ]  62 % of 1.2 GB, 3 min left`.
#[must_use]
pub fn bar(progress: &Value) -> String {
    let full = share(progress) * BAR / 100;
    let filled = (0..BAR).map(|n| if n < full { '#' } else { ' ' }).collect::<String>();
    format!("[{filled}] {}", measure(progress))
}

/// An event in words. States that the next one follows at once are left out.
fn line(event: &Event, data: &Value) -> Option<String> {
    match event.name.as_str() {
        "state" if data["state"] == "leased" => None,
        "state" => {
            let attempt = data["attempt"].as_u64().filter(|attempt| *attempt > 1).map_or(String::new(), |n| format!(" (attempt {n})"));
            let why = if data["error"].is_null() { String::new() } else { format!(": {}", fault(&data["error"])) };
            Some(format!("{}{attempt}{why}", text(&data["state"])))
        }
        "step" => {
            let number = data["step"].as_u64().unwrap_or_default() + 1;
            Some(format!("step {number}/{}: {}", text(&data["of"]), text(&data["name"])))
        }
        "progress" => Some(measure(data)),
        "log" => Some(text(&data["line"])),
        "metric" => Some(format!("{} = {}", text(&data["name"]), text(&data["value"]))),
        "artifact" => Some(format!(
            "made {} ({}), SHA-256 {}",
            text(&data["name"]),
            crate::cli::values::bytes(&data["size_bytes"]),
            text(&data["sha256"])
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(name: &str, data: &Value) -> Option<String> {
        line(&Event { id: None, name: name.to_owned(), data: String::new() }, data)
    }

    #[test]
    fn events_are_lines() {
        assert_eq!(said("state", &json!({"state": "leased"})), None);
        assert_eq!(said("state", &json!({"state": "running", "attempt": 2})).as_deref(), Some("running (attempt 2)"));
        let failed = json!({"state": "queued", "error": {"kind": "hung", "message": "m"}});
        assert_eq!(said("state", &failed).as_deref(), Some("queued: hung: m"));
        assert_eq!(said("step", &json!({"step": 0, "of": 3, "name": "list"})).as_deref(), Some("step 1/3: list"));
        assert_eq!(said("future", &json!({})), None);
    }

    #[test]
    fn a_bar_is_as_full_as_the_step() {
        let half = bar(&json!({"done": 5, "total": 10, "unit": "files"}));
        assert_eq!(half, "[###############               ] 50 % of 10 files");
    }

    #[test]
    fn the_end_of_a_job_is_the_commands() {
        assert_eq!(end(&json!({"state": "succeeded"})), Ok(Exit::Ok));
        let failure =
            end(&json!({"state": "failed", "error": {"kind": "crashed", "message": "it crashed (signal 11)"}})).expect_err("failed");
        assert_eq!((failure.exit, failure.to_string().as_str()), (Exit::Failure, "the job failed: crashed: it crashed (signal 11)"));
    }
}
