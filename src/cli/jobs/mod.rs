//! `arriero jobs`: submit, look at, follow, cancel and retry the background jobs of a running gateway.

mod follow;
mod show;

pub use follow::bar;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use http::Method;
use serde_json::{Map, Value, json};

use super::args::{Jobs, JobsCommand, SchedulesCommand, SubmitJob};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::terminal;
use crate::config::Variables;
use crate::jobs::dataset::Source;
use crate::jobs::{reference, references};

/// # Errors
/// When the gateway cannot be reached or refuses, or a job that was waited for did not succeed.
pub async fn run(args: Jobs, variables: &Variables) -> Result<Exit, Failure> {
    let client = Client::of(&args.operating, variables)?;
    let as_json = args.operating.json;
    match args.command {
        JobsCommand::Submit(submit) => submit_job(&client, &submit, as_json).await,
        JobsCommand::Watch { id } => follow::watch(&client, &id, as_json).await,
        JobsCommand::Logs { id, follow } => follow::logs(&client, &id, as_json, follow).await,
        JobsCommand::Upload { file, name } => {
            let made = upload(&client, &file, name.as_deref()).await?;
            terminal::print(&if as_json { format!("{made:#}") } else { path_of(&made) })?;
            Ok(Exit::Ok)
        }
        JobsCommand::Artifacts { id, download: Some(name), out } => follow::download(&client, &id, &name, out.as_deref()).await,
        command => {
            let answer = ask(&client, &command).await?;
            if as_json {
                terminal::print(&format!("{answer:#}"))?;
            } else {
                show::answer(&command, &answer)?;
            }
            Ok(Exit::Ok)
        }
    }
}

async fn ask(client: &Client, command: &JobsCommand) -> Result<Value, Failure> {
    match command {
        JobsCommand::List { state, kind, limit } => {
            let pairs = [("state", state.clone()), ("kind", kind.clone()), ("limit", limit.map(|limit| limit.to_string()))];
            let query: Vec<(&str, &str)> = pairs.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect();
            client.ask(Method::GET, "jobs", &query, &[], None).await
        }
        JobsCommand::Show { id } => plain(client, Method::GET, &job(id)?).await,
        JobsCommand::Cancel { id } => plain(client, Method::DELETE, &job(id)?).await,
        JobsCommand::Retry { id } => plain(client, Method::POST, &format!("{}/retry", job(id)?)).await,
        JobsCommand::Artifacts { id, .. } => plain(client, Method::GET, &format!("{}/artifacts", job(id)?)).await,
        JobsCommand::DeleteUpload { file } => {
            let id = reference(file).map_or_else(|| file.clone(), |(id, _)| id);
            plain(client, Method::DELETE, &format!("files/{}", checked(&id)?)).await
        }
        JobsCommand::Kinds => plain(client, Method::GET, "jobs/kinds").await,
        JobsCommand::Schedules { command: Some(SchedulesCommand::Remove { id }) } => {
            plain(client, Method::DELETE, &format!("jobs/schedules/{}", checked(id)?)).await
        }
        JobsCommand::Schedules { .. } => plain(client, Method::GET, "jobs/schedules").await,
        JobsCommand::Pool => plain(client, Method::GET, "jobs/pool").await,
        JobsCommand::Pause => order(client, "pause").await,
        JobsCommand::Drain => order(client, "drain").await,
        JobsCommand::Resume => order(client, "run").await,
        JobsCommand::Submit(_) | JobsCommand::Watch { .. } | JobsCommand::Logs { .. } | JobsCommand::Upload { .. } => Ok(Value::Null),
    }
}

async fn plain(client: &Client, method: Method, path: &str) -> Result<Value, Failure> {
    client.ask(method, path, &[], &[], None).await
}

async fn order(client: &Client, order: &str) -> Result<Value, Failure> {
    client.ask(Method::POST, "jobs/pool", &[], &[], Some(&json!({"order": order}))).await
}

/// Uploads a file; what the gateway says of it.
async fn upload(client: &Client, file: &Path, name: Option<&str>) -> Result<Value, Failure> {
    let own = file.file_name().and_then(OsStr::to_str);
    let named = name.or(own).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`{}` has no name that could be sent", file.display()), "say one with `--name`")
    })?;
    client.upload(file, named).await
}

fn path_of(made: &Value) -> String {
    made["path"].as_str().unwrap_or_default().to_owned()
}

/// Uploads the files that sources name, and has them name what jobs call these.
///
/// # Errors
/// When one cannot be read, or the gateway cannot be reached or refuses.
pub async fn upload_sources(client: &Client, sources: &mut [Source]) -> Result<(), Failure> {
    for source in sources.iter_mut().filter(|source| source.collected.is_none() && reference(&source.path).is_none()) {
        let made = upload(client, Path::new(&source.path), None).await?;
        terminal::note(&format!("{} is {}", source.path, path_of(&made)));
        source.path = path_of(&made);
    }
    Ok(())
}

/// Submits a job of a kind, after those whose artifacts it reads, and prints its id.
///
/// # Errors
/// When the gateway cannot be reached or refuses.
pub async fn submit_input(client: &Client, kind: &str, input: &Value, as_json: bool) -> Result<Exit, Failure> {
    let after: BTreeSet<String> = references(input).into_iter().map(|(job, _)| job).collect();
    let made = client.ask(Method::POST, "jobs", &[], &[], Some(&json!({"kind": kind, "input": input, "after": after}))).await?;
    terminal::print(&if as_json { format!("{made:#}") } else { made["id"].as_str().unwrap_or_default().to_owned() })?;
    Ok(Exit::Ok)
}

async fn submit_job(client: &Client, submit: &SubmitJob, as_json: bool) -> Result<Exit, Failure> {
    let body = body(submit)?;
    let key = submit.idempotency_key.as_deref().map(|key| ("idempotency-key", key));
    let made = client.ask(Method::POST, "jobs", &[], key.as_slice(), Some(&body)).await?;
    let id = made["id"].as_str().unwrap_or_default().to_owned();
    if submit.wait && submit.cron.is_none() {
        if !as_json {
            terminal::note(&format!("job {id}"));
        }
        return follow::watch(client, &id, as_json).await;
    }
    // The id alone, so that a script can take it.
    terminal::print(&if as_json { format!("{made:#}") } else { id })?;
    Ok(Exit::Ok)
}

/// The body of a submission; only what was given is sent.
fn body(submit: &SubmitJob) -> Result<Value, Failure> {
    let mut input = match &submit.input {
        None => Map::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(input)) => input,
            _ => return Err(Failure::new(Exit::Usage, "`--input` takes a JSON object", "`arriero jobs kinds` shows what each kind takes")),
        },
    };
    input.extend(submit.fields.iter().cloned());
    let mut body = Map::from_iter([("kind".to_owned(), json!(submit.kind)), ("input".to_owned(), Value::Object(input))]);
    let mut put = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.to_owned(), value));
    put("name", submit.name.as_ref().map(|name| json!(name)));
    put("priority", submit.priority.as_ref().map(|priority| json!(priority)));
    put("after", (!submit.after.is_empty()).then(|| json!(submit.after)));
    put("max_attempts", submit.max_attempts.map(|attempts| json!(attempts)));
    let labels: Map<String, Value> = submit.labels.iter().map(|(name, text)| (name.clone(), json!(text))).collect();
    put("labels", (!labels.is_empty()).then_some(Value::Object(labels)));
    put("schedule", submit.cron.as_ref().map(|cron| json!({"cron": cron, "missed": submit.missed})));
    Ok(Value::Object(body))
}

fn job(id: &str) -> Result<String, Failure> {
    Ok(format!("jobs/{}", checked(id)?))
}

/// An id; one that could lead elsewhere is none.
fn checked(id: &str) -> Result<&str, Failure> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(id);
    }
    Err(Failure::new(Exit::Usage, format!("`{id}` is no id of a job or a schedule"), "`arriero jobs list` lists them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit() -> SubmitJob {
        SubmitJob { kind: "checksum".into(), missed: "once".into(), ..SubmitJob::default() }
    }

    #[test]
    fn only_what_was_given_is_sent() {
        assert_eq!(body(&submit()).expect("one"), json!({"kind": "checksum", "input": {}}));
        let all = SubmitJob {
            fields: vec![("path".into(), json!("files/x"))],
            input: Some("{\"expected\": \"a\"}".into()),
            name: Some("n".into()),
            priority: Some("low".into()),
            after: vec!["j".into()],
            labels: vec![("a".into(), "b".into())],
            max_attempts: Some(2),
            cron: Some("0 3 * * *".into()),
            ..submit()
        };
        let expected = json!({"kind": "checksum", "input": {"expected": "a", "path": "files/x"}, "name": "n", "priority": "low", "after": ["j"],
            "max_attempts": 2, "labels": {"a": "b"}, "schedule": {"cron": "0 3 * * *", "missed": "once"}});
        assert_eq!(body(&all).expect("one"), expected);
        assert_eq!(body(&SubmitJob { input: Some("[]".into()), ..submit() }).expect_err("none").exit, Exit::Usage);
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        assert_eq!(job("0192-ab"), Ok("jobs/0192-ab".into()));
        for wrong in ["", "..", "a/b", "a?b", "ä"] {
            assert_eq!(job(wrong).expect_err(wrong).exit, Exit::Usage);
        }
    }
}
