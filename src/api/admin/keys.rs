//! `/admin/keys`: making, changing and ending API keys.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State as From;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::api::body;
use crate::api::fields::{FieldProblem, Fields, object};
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::auth::{self, Change, Key};
use crate::domain::allowance::Allowance;
use crate::domain::secret::Secret;
use crate::domain::span;

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    pub id: String,
    pub name: String,
    pub tenant: String,
    /// `metrics`, `user`, `operator` or `admin`.
    pub role: &'static str,
    /// Whether it can be used: `active`, `expired` or `revoked`.
    pub state: &'static str,
    /// Patterns of the models that may be asked for. Empty: all.
    pub models: Vec<String>,
    /// Of requests that ask for none.
    pub default_priority: &'static str,
    /// A higher one is lowered to it.
    pub priority_ceiling: &'static str,
    /// Share of the machine in relation to other tenants.
    pub weight: u32,
    /// Bounds on what may be used; those that are absent do not bound.
    #[schema(value_type = AllowanceView)]
    pub allowance: Map<String, Value>,
    pub labels: BTreeMap<String, String>,
    /// Whether its holder agreed that its exchanges are collected.
    pub collect: bool,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    pub rotated_at: Option<String>,
    /// May be some seconds behind after a restart.
    pub last_used_at: Option<String>,
}

impl KeyView {
    #[must_use]
    pub fn of(key: Key, now_ms: i64) -> Self {
        let terms = key.terms;
        Self {
            state: match (key.revoked_at_ms, terms.expires_at_ms) {
                (Some(_), _) => "revoked",
                (None, Some(end)) if end <= now_ms => "expired",
                _ => "active",
            },
            id: key.id,
            name: terms.name,
            tenant: terms.tenant,
            role: terms.role.as_str(),
            models: terms.models,
            default_priority: terms.default_priority.as_str(),
            priority_ceiling: terms.priority_ceiling.as_str(),
            weight: terms.weight,
            allowance: bounds(&terms.allowance),
            labels: terms.labels,
            collect: terms.collect,
            created_at: rfc3339(key.created_at_ms),
            expires_at: terms.expires_at_ms.map(rfc3339),
            revoked_at: key.revoked_at_ms.map(rfc3339),
            rotated_at: key.rotated_at_ms.map(rfc3339),
            last_used_at: key.last_used_at_ms.map(rfc3339),
        }
    }
}

/// The bounds that are set.
fn bounds(allowance: &Allowance) -> Map<String, Value> {
    let all = serde_json::to_value(allowance).unwrap_or_default();
    let Value::Object(all) = all else { return Map::new() };
    all.into_iter().filter(|(_, bound)| !bound.is_null()).collect()
}

fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::MAX).to_string()
}

/// Bounds on what a key may use.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct AllowanceView {
    pub requests_per_second: Option<u32>,
    pub requests_per_minute: Option<u32>,
    /// Requests that may come at once before the two rates hold them back.
    pub burst: Option<u32>,
    pub concurrent_requests: Option<u32>,
    pub prompt_tokens_per_minute: Option<u64>,
    pub generated_tokens_per_minute: Option<u64>,
    /// Of prompts and generated, in a day (UTC).
    pub tokens_per_day: Option<u64>,
    /// Of prompts and generated, in a calendar month (UTC).
    pub tokens_per_month: Option<u64>,
    pub max_prompt_tokens: Option<u64>,
    /// Largest `num_predict`; also what a request without one gets.
    pub max_num_predict: Option<u64>,
    pub max_num_ctx: Option<u32>,
}

/// What can be set about a key. A new one needs a `name`; in a change, fields that are left out or null stay as they are,
/// but for `expires_at`, of which null is `never`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schema(examples(json!({"name": "notebook", "role": "user", "models": ["gemma3:*"]})))]
pub struct KeyTerms {
    pub name: Option<String>,
    /// Default: the name.
    pub tenant: Option<String>,
    /// `metrics`, `user` (the default), `operator` or `admin`.
    pub role: Option<String>,
    pub models: Option<Vec<String>>,
    /// `batch`, `low`, `normal` (the default), `high` or `urgent`.
    pub default_priority: Option<String>,
    /// As above; default `high`.
    pub priority_ceiling: Option<String>,
    /// 1 to 1000.
    pub weight: Option<u32>,
    /// Replaces all bounds.
    pub allowance: Option<AllowanceView>,
    /// Replaces all labels.
    pub labels: Option<BTreeMap<String, String>>,
    /// A time such as `2030-01-31T00:00:00Z`, or `never`.
    pub expires_at: Option<String>,
    /// Whether its holder agrees that its exchanges are collected, where this gateway does so (`collection.enabled`); default false.
    pub collect: Option<bool>,
}

/// How a secret is replaced.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct Rotation {
    /// How long the old secret is still taken, e.g. `1h`; default `0s`.
    pub grace: Option<String>,
}

/// A key with its secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub struct NewKey {
    /// What the holder sends, as `Authorization: Bearer` or `x-api-key`.
    pub secret: String,
    pub key: KeyView,
}

/// All keys, oldest first, revoked ones included.
#[derive(Serialize, ToSchema)]
pub struct KeyList {
    pub keys: Vec<KeyView>,
}

/// List keys
#[utoipa::path(get, path = "/admin/keys", tag = "admin", responses((status = 200, description = "The keys", body = KeyList)))]
pub async fn list(From(state): From<State>) -> Json<KeyList> {
    let now = state.clock.unix_ms();
    Json(KeyList { keys: state.keys.list().into_iter().map(|key| KeyView::of(key, now)).collect() })
}

/// Make a key
///
/// The secret is in this answer and nowhere else.
#[utoipa::path(post, path = "/admin/keys", tag = "admin", request_body = KeyTerms, responses(
    (status = 201, description = "The key and its secret", body = NewKey),
    (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A field has a value it does not take", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "There are too many keys", body = Problem, content_type = "application/problem+json"),
))]
pub async fn create(From(state): From<State>, body: Body) -> Result<(StatusCode, Json<NewKey>), Problem> {
    let mut fields = fields(&state, body).await?;
    let change = change(&mut fields);
    if !fields.has_problem_with("name") && change.name.is_none() {
        fields.problem("name", "the name of the key", "nothing");
    }
    fields.done().map_err(Problem::fields)?;
    let made = state.keys.create(change.into_terms()).await?;
    Ok((StatusCode::CREATED, Json(shown(&state, made))))
}

/// Show a key
#[utoipa::path(get, path = "/admin/keys/{id}", tag = "admin", params(("id" = String, Path, description = "Public id of the key")), responses(
    (status = 200, description = "The key", body = KeyView),
    (status = 404, description = "There is no such key", body = Problem, content_type = "application/problem+json"),
))]
pub async fn show(From(state): From<State>, Path(id): Path<String>) -> Result<Json<KeyView>, Problem> {
    Ok(Json(KeyView::of(state.keys.show(&id)?, state.clock.unix_ms())))
}

/// Change a key
///
/// For requests from now on; those that run go on as they began.
#[utoipa::path(patch, path = "/admin/keys/{id}", tag = "admin", request_body = KeyTerms, params(("id" = String, Path, description = "Public id of the key")), responses(
    (status = 200, description = "The key as it is now", body = KeyView),
    (status = 404, description = "There is no such key", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The name is taken, or the key was revoked", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A field has a value it does not take", body = Problem, content_type = "application/problem+json"),
))]
pub async fn update(From(state): From<State>, Path(id): Path<String>, body: Body) -> Result<Json<KeyView>, Problem> {
    let mut fields = fields(&state, body).await?;
    let change = change(&mut fields);
    fields.done().map_err(Problem::fields)?;
    Ok(Json(KeyView::of(state.keys.update(&id, change).await?, state.clock.unix_ms())))
}

/// Revoke a key
///
/// At once and for good. What was started with it ends within a second.
#[utoipa::path(delete, path = "/admin/keys/{id}", tag = "admin", params(("id" = String, Path, description = "Public id of the key")), responses(
    (status = 200, description = "The key, revoked", body = KeyView),
    (status = 404, description = "There is no such key", body = Problem, content_type = "application/problem+json"),
))]
pub async fn revoke(From(state): From<State>, Path(id): Path<String>) -> Result<Json<KeyView>, Problem> {
    Ok(Json(KeyView::of(state.keys.revoke(&id).await?, state.clock.unix_ms())))
}

/// Give a key a new secret
///
/// What was started with the old one ends when that does: at once, or after `grace`.
#[utoipa::path(post, path = "/admin/keys/{id}/rotate", tag = "admin", request_body = Option<Rotation>, params(("id" = String, Path, description = "Public id of the key")), responses(
    (status = 200, description = "The key and its new secret", body = NewKey),
    (status = 404, description = "There is no such key", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "The key was revoked", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A field has a value it does not take", body = Problem, content_type = "application/problem+json"),
))]
pub async fn rotate(From(state): From<State>, Path(id): Path<String>, body: Body) -> Result<Json<NewKey>, Problem> {
    let mut fields = fields(&state, body).await?;
    let grace = fields.read("grace", "a span of time such as \"1h\"", |value| span::parse(value.as_str()?).ok());
    fields.done().map_err(Problem::fields)?;
    let made = state.keys.rotate(&id, grace.unwrap_or(Duration::ZERO)).await?;
    Ok(Json(shown(&state, made)))
}

fn shown(state: &State, (key, secret): (Key, Secret)) -> NewKey {
    NewKey { secret: secret.reveal().to_owned(), key: KeyView::of(key, state.clock.unix_ms()) }
}

/// The fields of a body; none where there is no body.
async fn fields(state: &State, body: Body) -> Result<Fields, Problem> {
    let body = body::read(body, &state.config.body).await?;
    if body.is_empty() {
        return Ok(Fields::new(Map::new()));
    }
    Ok(Fields::new(object(&body)?))
}

const PRIORITIES: &str = "\"batch\", \"low\", \"normal\", \"high\" or \"urgent\"";

fn change(fields: &mut Fields) -> Change {
    // So is a key shown that has no end. Nothing else of a key can be null.
    fields.take_null_for("expires_at", "never");
    Change {
        name: fields.text("name"),
        tenant: fields.text("tenant"),
        role: fields.typed("role", "\"metrics\", \"user\", \"operator\" or \"admin\""),
        models: fields.typed("models", "a list of patterns"),
        default_priority: fields.typed("default_priority", PRIORITIES),
        priority_ceiling: fields.typed("priority_ceiling", PRIORITIES),
        weight: fields.typed("weight", "a whole number"),
        allowance: allowance(fields),
        labels: fields.typed("labels", "an object of texts"),
        expires_at: fields.typed("expires_at", "a time such as \"2030-01-31T00:00:00Z\", or \"never\""),
        collect: fields.switch("collect"),
    }
}

/// Each wrong bound by its own name.
fn allowance(fields: &mut Fields) -> Option<Allowance> {
    let bounds = fields.object("allowance")?;
    let mut whole = Map::new();
    for (name, bound) in bounds {
        let alone = Value::Object(Map::from_iter([(name.clone(), bound.clone())]));
        match serde_json::from_value::<Allowance>(alone) {
            Ok(_) => {
                whole.insert(name, bound);
            }
            Err(_) if bound.is_u64() => fields.problem(format!("allowance.{name}"), "nothing: there is no such bound", bound.to_string()),
            Err(_) => fields.problem(format!("allowance.{name}"), "a whole number", bound.to_string()),
        }
    }
    serde_json::from_value(Value::Object(whole)).ok()
}

impl std::convert::From<auth::Error> for Problem {
    fn from(error: auth::Error) -> Self {
        use auth::Error::{Invalid, NameTaken, NotFound, Pepper, Random, Revoked, Storage, TooMany};
        let code = match error {
            Invalid(wrong) => {
                let field = |wrong: auth::Wrong| FieldProblem { field: wrong.field, takes: wrong.takes, got: wrong.got };
                return Self::fields(wrong.into_iter().map(field).collect());
            }
            NotFound { .. } => "key_not_found",
            NameTaken { .. } => "key_name_taken",
            Revoked { .. } => "key_revoked",
            TooMany { .. } => "too_many_keys",
            Storage(_) | Pepper { .. } | Random => {
                tracing::error!(%error, "a key could not be written");
                return Self::new("not_stored", "the keys could not be written; nothing was changed, as far as is known");
            }
        };
        Self::new(code, error.to_string())
    }
}
