//! `/admin/cache`: what is kept, forgetting it, and prompts that are kept warm.

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State as From};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::body;
use crate::api::fields::{Fields, object};
use crate::api::path::Path;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::cache::exact::{Filter, Size};
use crate::cache::key::Key;
use crate::cache::warm_set;
use crate::domain::id::ModelName;

/// What is kept.
#[derive(Serialize, ToSchema)]
pub struct CacheReport {
    pub memory: CacheSize,
    pub durable: CacheSize,
    /// Answers that are given to questions that mean the same.
    pub semantic: CacheSize,
    /// Generations that are kept for their clients.
    pub kept_generations: usize,
}

#[derive(Serialize, ToSchema)]
pub struct CacheSize {
    pub answers: u64,
    pub bytes: u64,
}

impl std::convert::From<Size> for CacheSize {
    fn from(size: Size) -> Self {
        Self { answers: size.rows, bytes: size.bytes }
    }
}

/// Which answers are to be forgotten: exactly one of these.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// The key of one answer, in hexadecimal.
    pub key: Option<String>,
    /// All answers of a model.
    pub model: Option<String>,
    /// All answers made for a tenant.
    pub tenant: Option<String>,
    /// `true`: all answers.
    pub all: Option<bool>,
}

/// How many answers were forgotten.
#[derive(Serialize, ToSchema)]
pub struct Purged {
    pub purged: u64,
}

/// Cache
#[utoipa::path(get, path = "/admin/cache", tag = "admin", responses((status = 200, description = "What is kept", body = CacheReport)))]
pub async fn report(From(state): From<State>) -> Json<CacheReport> {
    let stats = state.gateway.cached();
    let (answers, bytes) = state.gateway.alike();
    let semantic = CacheSize { answers: answers as u64, bytes: bytes as u64 };
    let kept_generations = state.gateway.kept_count();
    Json(CacheReport { memory: stats.memory.into(), durable: stats.durable.into(), semantic, kept_generations })
}

/// Forget answers
///
/// By key, model or tenant, or all of them, in memory and in the database.
#[utoipa::path(delete, path = "/admin/cache", tag = "admin", params(Which), responses(
    (status = 200, description = "How many", body = Purged),
    (status = 422, description = "Not exactly one of `key`, `model`, `tenant` and `all`", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The database cannot be written", body = Problem, content_type = "application/problem+json"),
))]
pub async fn purge(
    From(state): From<State>,
    query: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Purged>, Problem> {
    let Query(which) = query.map_err(|_| wrong("a parameter that there is not".to_owned()))?;
    let purged = state.gateway.purge(&filter(which)?).await.map_err(|error| Problem::new("not_stored", error.to_string()))?;
    Ok(Json(Purged { purged }))
}

fn wrong(got: String) -> Problem {
    let mut fields = Fields::new(serde_json::Map::new());
    fields.problem("query", "exactly one of `key`, `model`, `tenant` and `all=true`", got);
    Problem::fields(fields.rest().err().unwrap_or_default())
}

fn filter(which: Which) -> Result<Filter, Problem> {
    match which {
        Which { key: Some(key), model: None, tenant: None, all: None } => {
            Key::parse(&key).map(Filter::Key).ok_or_else(|| wrong(format!("key={key}, which is not 64 hexadecimal digits")))
        }
        Which { key: None, model: Some(model), tenant: None, all: None } => {
            ModelName::parse(&model).map(Filter::Model).map_err(|_| wrong(format!("model={model}")))
        }
        Which { key: None, model: None, tenant: Some(tenant), all: None } => Ok(Filter::Tenant(tenant)),
        Which { key: None, model: None, tenant: None, all: Some(true) } => Ok(Filter::All),
        Which { key: None, model: None, tenant: None, all: None } => Err(wrong("nothing".to_owned())),
        Which { all: Some(false), .. } => Err(wrong("all=false".to_owned())),
        _ => Err(wrong("several of them".to_owned())),
    }
}

/// A prompt that is kept warm.
#[derive(Serialize, ToSchema)]
pub struct WarmPrompt {
    pub name: String,
    pub model: String,
    /// Length of its system prompt, in bytes.
    pub system_bytes: usize,
    /// Length of its text, in bytes.
    pub prompt_bytes: usize,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

#[derive(Serialize, ToSchema)]
pub struct WarmList {
    pub prompts: Vec<WarmPrompt>,
}

/// A prompt to be kept warm.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub struct NewWarmPrompt {
    /// Letters, digits, `-`, `_` and `.`; one of the same name is replaced.
    pub name: String,
    pub model: String,
    /// System prompt of the requests that are to be quick.
    pub system: Option<String>,
    /// What their prompts begin with.
    pub prompt: Option<String>,
}

/// Warm prompts
#[utoipa::path(get, path = "/admin/cache/warm", tag = "admin", responses((status = 200, description = "The prompts, without their texts", body = WarmList)))]
pub async fn warm_list(From(state): From<State>) -> Json<WarmList> {
    let prompt = |row: &warm_set::Row| WarmPrompt {
        name: row.name.clone(),
        model: row.model.clone(),
        system_bytes: row.system.as_ref().map_or(0, String::len),
        prompt_bytes: row.prompt.len(),
        created_at_ms: row.created_at_ms,
    };
    Json(WarmList { prompts: state.gateway.warm().rows().iter().map(prompt).collect() })
}

/// Keep a prompt warm
///
/// It is sent to every backend that has its model, at the lowest priority: now, after the model was loaded anew, before it would be
/// unloaded, and when the backend has let go of it. It stays across restarts.
#[utoipa::path(post, path = "/admin/cache/warm", tag = "admin", request_body = NewWarmPrompt, responses(
    (status = 201, description = "It is kept warm"), (status = 200, description = "One of its name was replaced"),
    (status = 422, description = "What is wrong with it", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "As many as allowed are kept warm", body = Problem, content_type = "application/problem+json"),
))]
pub async fn warm(From(state): From<State>, body: Body) -> Result<StatusCode, Problem> {
    let body = body::read(body, &state.config.body).await?;
    let mut fields = Fields::new(object(&body)?);
    let [name, model, system, prompt] = ["name", "model", "system", "prompt"].map(|field| fields.text(field));
    for (field, given) in [("name", name.is_some()), ("model", model.is_some())] {
        if !given && !fields.has_problem_with(field) {
            fields.problem(field, "a string", "nothing");
        }
    }
    fields.done().map_err(Problem::fields)?;
    let (name, model) = (name.unwrap_or_default(), model.unwrap_or_default());
    let added = state.gateway.warm().put(&name, &model, system, prompt.unwrap_or_default()).await.map_err(|error| {
        let code = match error {
            warm_set::Error::Full { .. } => "too_many_warm",
            warm_set::Error::Storage(_) => "not_stored",
            _ => "invalid_field",
        };
        Problem::new(code, error.to_string())
    })?;
    Ok(if added { StatusCode::CREATED } else { StatusCode::OK })
}

/// Stop keeping a prompt warm
#[utoipa::path(delete, path = "/admin/cache/warm/{name}", tag = "admin", params(("name" = String, Path, description = "Its name")), responses(
    (status = 204, description = "Done"),
    (status = 404, description = "There is none of this name", body = Problem, content_type = "application/problem+json"),
))]
pub async fn cool(From(state): From<State>, Path(name): Path<String>) -> Result<StatusCode, Problem> {
    match state.gateway.warm().remove(&name).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::new("warm_prompt_not_found", format!("no prompt called `{name}` is kept warm"))),
        Err(error) => Err(Problem::new("not_stored", error.to_string())),
    }
}
