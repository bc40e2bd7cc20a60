//! `GET` and `DELETE /collection`.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as From};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::api::page;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::collection::{Filter, Owner, Rated, Row};
use crate::domain::id::ModelName;
use crate::domain::principal::ANONYMOUS;

/// Which exchanges are meant, and which page of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Public id of the key they were asked with; `anonymous`: with none.
    pub key: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// `good`, `bad` or `unrated`.
    pub rating: Option<String>,
    pub request_id: Option<String>,
    /// Asked at this time or later, e.g. `2030-01-31T00:00:00Z`.
    pub since: Option<String>,
    /// Asked before this time.
    pub until: Option<String>,
    /// `next` of the page before.
    pub cursor: Option<i64>,
    /// From 1 to 500; without it 50. Fewer come where they are large.
    pub limit: Option<u32>,
}

/// Which exchanges are to be forgotten: those for which all holds that is given.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Forgotten {
    /// Public id of the key they were asked with; `anonymous`: with none.
    pub key: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    pub request_id: Option<String>,
    /// Asked before this time, e.g. `2030-01-31T00:00:00Z`.
    pub until: Option<String>,
    /// `true`: all, with nothing else beside it.
    pub all: Option<bool>,
}

/// A page of exchanges, the newest first.
#[derive(Serialize, ToSchema)]
pub struct ExchangeList {
    pub exchanges: Vec<ExchangeView>,
    /// The `cursor` of the next page; null on the last one.
    pub next: Option<i64>,
}

/// An exchange that was collected.
#[derive(Serialize, ToSchema)]
pub struct ExchangeView {
    pub request_id: String,
    /// When it was asked.
    pub at: String,
    /// Public id of the key it was asked with, or `anonymous`.
    pub key: String,
    pub tenant: String,
    pub dialect: String,
    /// The model that answered.
    pub model: String,
    /// As it was asked: `role` and `content`.
    #[schema(value_type = Vec<Object>)]
    pub messages: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub tools: Option<Value>,
    pub answer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    pub finish_reason: String,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    /// `good` or `bad`.
    pub rating: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correction: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    pub rated_at: Option<String>,
}

/// How many exchanges were forgotten.
#[derive(Serialize, ToSchema)]
pub struct ForgottenCount {
    pub forgotten: u64,
    /// Whether nothing of them is left in the database's files. False: somebody is reading, and what is in the write-ahead log goes later
    /// (`collection.prune_interval`).
    pub overwritten: bool,
}

impl std::convert::From<Row> for ExchangeView {
    fn from(row: Row) -> Self {
        let (exchange, said) = (row.exchange, row.feedback);
        // Written by this program as JSON.
        let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
        Self {
            request_id: exchange.request_id,
            at: rfc3339(exchange.at_ms),
            key: exchange.key_id.unwrap_or_else(|| ANONYMOUS.to_owned()),
            tenant: exchange.tenant,
            dialect: exchange.dialect.into_owned(),
            model: exchange.model,
            messages: json(&exchange.messages),
            tools: exchange.tools.as_deref().map(json),
            answer: exchange.answer,
            thinking: exchange.thinking,
            finish_reason: exchange.finish_reason,
            prompt_tokens: exchange.prompt_tokens,
            completion_tokens: exchange.completion_tokens,
            rating: said.as_ref().map(|said| said.rating.as_str()),
            rated_at: said.as_ref().map(|said| rfc3339(said.at_ms)),
            correction: said.as_ref().and_then(|said| said.correction.clone()),
            comment: said.and_then(|said| said.comment),
        }
    }
}

fn rfc3339(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::MAX).to_string()
}

/// What was collected
///
/// Prompts and answers of those who agreed, the newest first, with what was said of them.
#[utoipa::path(get, path = "/collection", tag = "collection", params(Which), responses(
    (status = 200, description = "A page", body = ExchangeList),
    (status = 422, description = "A parameter that is wrong", body = Problem, content_type = "application/problem+json"),
))]
pub async fn list(From(state): From<State>, query: Result<Query<Which>, QueryRejection>) -> Result<Json<ExchangeList>, Problem> {
    let Query(which) = query.map_err(|_| wrong(LOOKING, "a parameter that there is not, or not a number"))?;
    let filter = Filter {
        owner: which.key.as_deref().map(Owner::named),
        request_id: which.request_id,
        model: which.model.map(|name| model(LOOKING, &name)).transpose()?,
        rated: which.rating.map(|word| rated(&word)).transpose()?,
        since_ms: which.since.map(|text| time(LOOKING, "since", &text)).transpose()?,
        until_ms: which.until.map(|text| time(LOOKING, "until", &text)).transpose()?,
    };
    let most = page::size(which.limit);
    let (rows, more) = state.collection.page(&filter, which.cursor, most).await.map_err(|error| {
        tracing::error!(%error, "what was collected could not be read");
        Problem::new("internal", "what was collected could not be read")
    })?;
    let next = rows.last().filter(|_| more).map(|row| row.id);
    Ok(Json(ExchangeList { exchanges: rows.into_iter().map(ExchangeView::from).collect(), next }))
}

/// Forget what was collected
///
/// For good: it is overwritten in the database. Data sets and models that were made of it stay.
#[utoipa::path(delete, path = "/collection", tag = "collection", params(Forgotten), responses(
    (status = 200, description = "How many", body = ForgottenCount),
    (status = 422, description = "Nothing that says which, or a parameter that is wrong", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The database cannot be written", body = Problem, content_type = "application/problem+json"),
))]
pub async fn forget(From(state): From<State>, query: Result<Query<Forgotten>, QueryRejection>) -> Result<Json<ForgottenCount>, Problem> {
    let Query(which) = query.map_err(|_| wrong(FORGETTING, "a parameter that there is not"))?;
    let filter = forgotten(which)?;
    let gone = state.collection.forget(&filter).await.map_err(|error| {
        tracing::error!(%error, "what was collected could not be forgotten");
        Problem::new("not_stored", "not all of it could be forgotten: the database cannot be written")
    })?;
    Ok(Json(ForgottenCount { forgotten: gone.exchanges, overwritten: gone.overwritten }))
}

const LOOKING: &str = "`key`, `model`, `rating`, `request_id`, `since`, `until`, `cursor` and `limit`";
const FORGETTING: &str = "`key`, `model`, `request_id` and `until`, at least one of them, or `all=true` alone";

fn forgotten(which: Forgotten) -> Result<Filter, Problem> {
    let filter = Filter {
        owner: which.key.as_deref().map(Owner::named),
        request_id: which.request_id,
        model: which.model.map(|name| model(FORGETTING, &name)).transpose()?,
        until_ms: which.until.map(|text| time(FORGETTING, "until", &text)).transpose()?,
        ..Filter::default()
    };
    match (which.all, filter == Filter::default()) {
        (Some(true), true) | (None, false) => Ok(filter),
        (None, true) => Err(wrong(FORGETTING, "nothing")),
        (Some(true), false) => Err(wrong(FORGETTING, "all=true and more")),
        (Some(false), _) => Err(wrong(FORGETTING, "all=false")),
    }
}

fn rated(word: &str) -> Result<Rated, Problem> {
    let rated = serde_json::from_value(Value::String(word.to_owned()));
    rated.map_err(|_| wrong(LOOKING, &format!("rating={}, which is none of `good`, `bad` and `unrated`", short(word))))
}

fn model(takes: &str, name: &str) -> Result<String, Problem> {
    let parsed = ModelName::parse(name).map(|name| name.canonical().to_owned());
    parsed.map_err(|error| wrong(takes, &format!("model={}: {error}", short(name))))
}

fn time(takes: &str, name: &str, text: &str) -> Result<i64, Problem> {
    let parsed = text.parse::<Timestamp>().map(Timestamp::as_millisecond);
    parsed.map_err(|_| wrong(takes, &format!("{name}={}, which is no time such as 2030-01-31T00:00:00Z", short(text))))
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

fn wrong(takes: &str, got: &str) -> Problem {
    Problem::new("invalid_field", format!("the query takes {takes}, not {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_must_be_said() {
        let which = |key: Option<&str>, until: Option<&str>, all| Forgotten {
            key: key.map(str::to_owned),
            until: until.map(str::to_owned),
            all,
            ..Forgotten::default()
        };
        assert_eq!(forgotten(which(None, None, Some(true))).expect("all"), Filter::default());
        let one = forgotten(which(Some("0f"), Some("1970-01-01T00:00:01Z"), None)).expect("a key's");
        assert_eq!((one.owner, one.until_ms), (Some(Owner::Key("0f".into())), Some(1_000)));
        assert_eq!(forgotten(which(Some(ANONYMOUS), None, None)).expect("theirs").owner, Some(Owner::Nobody));
        for wrong in
            [which(None, None, None), which(Some("0f"), None, Some(true)), which(None, None, Some(false)), which(None, Some("soon"), None)]
        {
            let problem = forgotten(wrong).expect_err("wrong");
            assert_eq!((problem.status, problem.detail.contains("at least one")), (422, true), "{}", problem.detail);
        }
    }
}
