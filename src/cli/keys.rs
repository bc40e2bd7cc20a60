//! `arriero keys`: on the data folder itself, or through the gateway that runs on it.

use http::Method;
use serde_json::{Map, Value, json};

use super::args::{CreateKey, Keys, KeysCommand};
use super::client::Client;
use super::exit::{Exit, Failure};
use super::{inspect, terminal};
use crate::api::KeyView;
use crate::auth::{self, Change};
use crate::config::{Config, Form, Override, URL_VARIABLE, Variables};
use crate::domain::clock::Clock;
use crate::domain::secret::Secret;
use crate::domain::span;
use crate::storage::{self, Storage};
use crate::telemetry::Metrics;

/// Reads `bound=number`.
///
/// # Errors
/// When it is not that.
pub fn bound(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("write it as requests_per_minute=60")?;
    Ok((name.trim().to_owned(), number.trim().parse().map_err(|_| format!("`{number}` is no whole number"))?))
}

/// Reads `name=text`.
///
/// # Errors
/// When there is no `=`.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as name=text")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// # Errors
/// When the keys cannot be reached, or refuse what was asked.
pub async fn run(args: Keys, variables: &Variables) -> Result<Exit, Failure> {
    let place = find(&args, variables).await?;
    let answer = match &place {
        Place::Here(here) => here.ask(&args.command).await,
        Place::There(gateway) => through(gateway, &args.command).await,
    };
    if let Place::Here(here) = place {
        here.storage.close().await;
    }
    show(&answer?, args.json)
}

/// Where the keys are.
enum Place {
    Here(Here),
    There(Client),
}

async fn find(args: &Keys, variables: &Variables) -> Result<Place, Failure> {
    if args.url.is_some() || variables.get(URL_VARIABLE).is_some() {
        return Ok(Place::There(Client::new(args.url.as_deref(), variables)?.with_key(args.key.as_deref())));
    }
    let folder =
        args.data_dir.clone().map(|folder| Override { flag: "--data-dir", key: "data_dir", form: Form::Plain, texts: vec![folder] });
    let config = inspect::load(args.config.as_deref(), variables, folder.as_slice())?.config;
    match Storage::open(&config.data_dir, &config.storage).await {
        Ok(storage) => Here::open(&config, storage).await.map(Place::Here),
        Err(storage::Error::InUse { .. }) => {
            let client = Client::new(Some(&running_at(&config)), variables)?;
            Ok(Place::There(client.with_key(args.key.as_deref())))
        }
        Err(error) => Err(Failure::new(Exit::DataDir, error.to_string(), "")),
    }
}

/// Where the gateway listens that has the data folder, as far as the configuration says.
fn running_at(config: &Config) -> String {
    let mut address = config.server.listen;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

struct Here {
    storage: Storage,
    keys: auth::Keys,
    clock: Clock,
}

impl Here {
    async fn open(config: &Config, storage: Storage) -> Result<Self, Failure> {
        let clock = Clock::system();
        let keys = auth::Keys::open(&config.auth, &storage, clock.clone(), Metrics::new(&config.metrics), false).await?;
        Ok(Self { storage, keys, clock })
    }

    async fn ask(&self, command: &KeysCommand) -> Result<Value, Failure> {
        Ok(match command {
            KeysCommand::Create(args) => {
                let change: Change = serde_json::from_value(body(args))
                    .map_err(|error| Failure::new(Exit::Usage, error.to_string(), "see `arriero keys create --help`"))?;
                self.with_secret(self.keys.create(change.into_terms()).await?)
            }
            KeysCommand::List => json!({"keys": self.keys.list().into_iter().map(|key| self.view(key)).collect::<Vec<_>>()}),
            KeysCommand::Show { id } => self.view(self.keys.show(id)?),
            KeysCommand::Rotate { id, grace } => self.with_secret(self.keys.rotate(id, *grace).await?),
            KeysCommand::Revoke { id } => self.view(self.keys.revoke(id).await?),
        })
    }

    fn view(&self, key: auth::Key) -> Value {
        serde_json::to_value(KeyView::of(key, self.clock.unix_ms())).unwrap_or_default()
    }

    fn with_secret(&self, (key, secret): (auth::Key, Secret)) -> Value {
        json!({"secret": secret.reveal(), "key": self.view(key)})
    }
}

async fn through(gateway: &Client, command: &KeysCommand) -> Result<Value, Failure> {
    match command {
        KeysCommand::Create(args) => gateway.admin(Method::POST, "keys", Some(&body(args))).await,
        KeysCommand::List => gateway.admin(Method::GET, "keys", None).await,
        KeysCommand::Show { id } => gateway.admin(Method::GET, &path(id)?, None).await,
        KeysCommand::Rotate { id, grace } => {
            let body = json!({"grace": span::format(*grace)});
            gateway.admin(Method::POST, &format!("{}/rotate", path(id)?), Some(&body)).await
        }
        KeysCommand::Revoke { id } => gateway.admin(Method::DELETE, &path(id)?, None).await,
    }
}

/// The path of a key; an id that could lead elsewhere is none.
fn path(id: &str) -> Result<String, Failure> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(format!("keys/{id}"));
    }
    Err(Failure::new(Exit::Usage, format!("`{id}` is no id of a key"), "`arriero keys list` lists them"))
}

/// What the admin API takes for a new key.
fn body(args: &CreateKey) -> Value {
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.to_owned(), value));
    put("name", Some(args.name.clone().unwrap_or_else(|| args.role.clone()).into()));
    put("role", Some(args.role.clone().into()));
    put("tenant", args.tenant.clone().map(Value::from));
    put("models", (!args.models.is_empty()).then(|| args.models.clone().into()));
    put("default_priority", args.default_priority.clone().map(Value::from));
    put("priority_ceiling", args.priority_ceiling.clone().map(Value::from));
    put("weight", args.weight.map(Value::from));
    put("expires_at", args.expires_at.clone().map(Value::from));
    let bounds = || args.bounds.iter().map(|(name, bound)| (name.clone(), Value::from(*bound))).collect();
    put("allowance", (!args.bounds.is_empty()).then(|| Value::Object(bounds())));
    let labels = || args.labels.iter().map(|(name, text)| (name.clone(), Value::from(text.clone()))).collect();
    put("labels", (!args.labels.is_empty()).then(|| Value::Object(labels())));
    put("collect", args.collect.then_some(Value::Bool(true)));
    Value::Object(body)
}

impl From<auth::Error> for Failure {
    fn from(error: auth::Error) -> Self {
        let (exit, mend) = match error {
            auth::Error::NotFound { .. } => (Exit::Failure, "`arriero keys list` lists them"),
            auth::Error::NameTaken { .. } => (Exit::Failure, "choose another name, or revoke the other key"),
            auth::Error::TooMany { .. } => (Exit::Failure, "revoke one that is not needed"),
            auth::Error::Invalid(_) => (Exit::Usage, "see `arriero keys create --help`"),
            auth::Error::Storage(_) | auth::Error::Pepper { .. } => (Exit::DataDir, ""),
            auth::Error::Revoked { .. } | auth::Error::Random => (Exit::Failure, ""),
        };
        Self::new(exit, error.to_string(), mend)
    }
}

/// The secret alone goes to standard output, so that it can be taken from there.
fn show(answer: &Value, as_json: bool) -> Result<Exit, Failure> {
    if as_json {
        terminal::print(&format!("{answer:#}"))?;
    } else if let Some(secret) = answer["secret"].as_str() {
        let key = &answer["key"];
        let (name, id) = (text(&key["name"]), text(&key["id"]));
        terminal::note(&terminal::harmless(&format!("The secret of the key {name} (id {id}). It is not shown again.")));
        terminal::print(secret)?;
    } else if let Some(keys) = answer["keys"].as_array() {
        if keys.is_empty() {
            terminal::note("There are no keys; `arriero keys create --role admin` makes the first.");
        } else {
            terminal::print(&terminal::harmless(&terminal::table(&rows(keys))))?;
        }
    } else if let Some(key) = answer.as_object() {
        let rows: Vec<_> = key.iter().map(|(name, value)| vec![name.clone(), text(value)]).collect();
        terminal::print(&terminal::harmless(&terminal::table(&rows)))?;
    }
    Ok(Exit::Ok)
}

fn rows(keys: &[Value]) -> Vec<Vec<String>> {
    let heading = ["ID", "NAME", "TENANT", "ROLE", "STATE", "COLLECT", "EXPIRES", "LAST USED"];
    let fields = ["id", "name", "tenant", "role", "state", "collect", "expires_at", "last_used_at"];
    let row = |key: &Value| fields.map(|field| text(&key[field])).to_vec();
    std::iter::once(heading.map(str::to_owned).to_vec()).chain(keys.iter().map(row)).collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(is) => if *is { "yes" } else { "no" }.to_owned(),
        Value::String(text) => text.replace(['\n', '\t'], " "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_asked_for() {
        let args = CreateKey { role: "admin".into(), ..CreateKey::default() };
        assert_eq!(body(&args), json!({"name": "admin", "role": "admin"}));
        let args = CreateKey {
            name: Some("n".into()),
            role: "user".into(),
            models: vec!["a*".into()],
            bounds: vec![("burst".into(), 3)],
            labels: vec![("l".into(), "x=y".into())],
            expires_at: Some("never".into()),
            ..CreateKey::default()
        };
        let expected = json!({"name": "n", "role": "user", "models": ["a*"], "expires_at": "never", "allowance": {"burst": 3}, "labels": {"l": "x=y"}});
        assert_eq!(body(&args), expected);
        assert!(serde_json::from_value::<Change>(expected).is_ok(), "and it is what the data folder takes");
    }

    #[test]
    fn bounds_and_labels_are_pairs() {
        assert_eq!(bound("burst=3"), Ok(("burst".into(), 3)));
        assert!(bound("burst").is_err() && bound("burst=many").is_err() && bound("burst=-1").is_err());
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err());
    }

    #[test]
    fn an_id_leads_nowhere_else() {
        assert_eq!(path("0a1b"), Ok("keys/0a1b".into()));
        for wrong in ["", "..", "a/b", "a?b", "ä"] {
            assert_eq!(path(wrong).expect_err(wrong).exit, Exit::Usage);
        }
    }

    #[test]
    fn a_key_is_a_row() {
        let keys = [json!({"id": "1", "name": "a\nb", "role": "user", "collect": true, "expires_at": null})];
        assert_eq!(rows(&keys)[1], ["1", "a b", "-", "user", "-", "yes", "-", "-"]);
    }
}
