//! `POST /feedback`.

use axum::Json;
use axum::body::Body;
use axum::extract::State as From;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::body;
use crate::api::fields::{FieldProblem, Fields, object};
use crate::api::middleware::auth::Who;
use crate::api::problem::Problem;
use crate::api::state::State;
use crate::collection::{Feedback, Owner, Rating, Refused};
use crate::domain::id::{MAX_REQUEST_ID_BYTES, RequestId};
use crate::domain::principal::{Principal, Role};

const MAX_COMMENT_BYTES: usize = 4 << 10;

/// What somebody says of an answer.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schema(examples(json!({"request_id": "01a2b3c4", "rating": "bad", "correction": "It is blue because air scatters short waves more."})))]
pub struct NewFeedback {
    /// What the answer's `x-request-id` header and `arriero.request_id` say.
    pub request_id: String,
    /// `good` or `bad`.
    pub rating: String,
    /// The answer that would have been right.
    pub correction: Option<String>,
    /// Up to 4096 bytes.
    pub comment: Option<String>,
    /// For operators: public id of the key whose request it is (`anonymous`: no key), where several have used the same id.
    pub key: Option<String>,
}

/// What is now known of an answer.
#[derive(Serialize, ToSchema)]
pub struct FeedbackView {
    pub request_id: String,
    /// `good` or `bad`.
    pub rating: &'static str,
    pub corrected: bool,
}

/// Say what an answer was worth
///
/// Of the caller's own requests; operators may do so for all. What was said before of the same answer is replaced. Only exchanges that were
/// collected can be judged: that takes `collection.enabled`, the consent of the key, and an answer that came to its end.
#[utoipa::path(post, path = "/feedback", tag = "collection", request_body = NewFeedback, responses(
    (status = 200, description = "It is noted", body = FeedbackView),
    (status = 404, description = "No such exchange of the caller was collected", body = Problem, content_type = "application/problem+json"),
    (status = 409, description = "Several keys have used this id; for operators", body = Problem, content_type = "application/problem+json"),
    (status = 422, description = "A field has a value it does not take", body = Problem, content_type = "application/problem+json"),
    (status = 507, description = "The database cannot be written", body = Problem, content_type = "application/problem+json"),
))]
pub async fn feedback(From(state): From<State>, Who(who): Who, body: Body) -> Result<Json<FeedbackView>, Problem> {
    let body = body::read(body, &state.config.body).await?;
    let said = read(&body, &who, state.collection.max_correction_bytes(), state.clock.unix_ms())?;
    let Said { request_id, owner, feedback } = said;
    match state.collection.rate(request_id.as_str(), owner.as_ref(), &feedback).await {
        Ok(()) => Ok(Json(FeedbackView {
            request_id: request_id.to_string(),
            rating: feedback.rating.as_str(),
            corrected: feedback.correction.is_some(),
        })),
        Err(refused) => Err(refusal(&state, &who, refused)),
    }
}

fn refusal(state: &State, who: &Principal, refused: Refused) -> Problem {
    let what = refused.to_string();
    match refused {
        Refused::Unknown(_) => Problem::new("exchange_not_collected", format!("{what}{}", why(state, who))),
        Refused::Ambiguous(_) => Problem::new("feedback_ambiguous", what),
        Refused::Storage(error) => {
            tracing::error!(%error, "feedback could not be written");
            Problem::new("not_stored", "the feedback could not be written; nothing was changed, as far as is known")
        }
    }
}

/// Why an exchange of the caller is probably not there.
fn why(state: &State, who: &Principal) -> &'static str {
    if !state.collection.is_enabled() {
        ": this gateway collects nothing (`collection.enabled` is false)"
    } else if state.collection.consents(who) || who.role >= Role::Operator {
        " for this caller: it was never made, not answered in full, answered from a cache, withheld by its `x-arriero-collect` header, or is forgotten"
    } else if who.key_id.is_some() {
        " for this caller: the key has not agreed that its exchanges are collected"
    } else {
        " for this caller: those who need no key have not agreed that their exchanges are collected"
    }
}

#[derive(Debug)]
struct Said {
    request_id: RequestId,
    /// Whose request it must be; `None`: anyone's.
    owner: Option<Owner>,
    feedback: Feedback,
}

fn read(body: &[u8], who: &Principal, max_correction_bytes: usize, at_ms: i64) -> Result<Said, Problem> {
    let mut fields = Fields::new(object(body)?);
    let id = format!("the `x-request-id` of an answer: up to {MAX_REQUEST_ID_BYTES} letters, digits and -_.:/+=");
    let request_id = fields.read("request_id", &id, |value| RequestId::from_client(value.as_str()?));
    let rating: Option<Rating> = fields.typed("rating", "\"good\" or \"bad\"");
    for (name, takes, is_there) in [("request_id", id.as_str(), request_id.is_some()), ("rating", "\"good\" or \"bad\"", rating.is_some())]
    {
        if !is_there && !fields.has_problem_with(name) {
            fields.problem(name, takes, "nothing");
        }
    }
    let correction = bounded(&mut fields, "correction", max_correction_bytes);
    let comment = bounded(&mut fields, "comment", MAX_COMMENT_BYTES);
    let key = fields.text("key");
    let is_operator = who.role >= Role::Operator;
    if key.is_some() && !is_operator {
        fields.problem("key", "nothing: only operators speak for other keys", "a string");
    }
    fields.done().map_err(Problem::fields)?;
    let (Some(request_id), Some(rating)) = (request_id, rating) else { return Err(Problem::fields(Vec::<FieldProblem>::new())) };
    let own = || who.key_id.as_deref().map_or(Owner::Nobody, |id| Owner::Key(id.to_owned()));
    let owner = if is_operator { key.as_deref().map(Owner::named) } else { Some(own()) };
    Ok(Said { request_id, owner, feedback: Feedback { rating, correction, comment, at_ms } })
}

/// A text that says something. One that is too long is not repeated.
fn bounded(fields: &mut Fields, name: &str, max_bytes: usize) -> Option<String> {
    let text = fields.text(name)?;
    let (bytes, empty) = (text.len(), text.trim().is_empty());
    if bytes > max_bytes || empty {
        fields.problem(name, format!("a text of 1 to {max_bytes} bytes, not only white space"), format!("{bytes} bytes"));
        return None;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn said(body: &Value, who: &Principal) -> Result<Said, Vec<String>> {
        read(body.to_string().as_bytes(), who, 10, 7).map_err(|problem| problem.errors.into_iter().map(|error| error.field).collect())
    }

    #[test]
    fn users_speak_of_their_own_and_operators_of_all() {
        let user = Principal { key_id: Some("k".into()), ..Principal::anonymous(Role::User) };
        let body = json!({"request_id": "r", "rating": "bad", "correction": "right", "comment": "c"});
        let own = said(&body, &user).expect("taken");
        assert_eq!((own.owner, own.feedback.rating, own.feedback.at_ms), (Some(Owner::Key("k".into())), Rating::Bad, 7));
        assert_eq!(said(&body, &Principal::anonymous(Role::User)).expect("taken").owner, Some(Owner::Nobody));
        let operator = Principal { role: Role::Operator, ..user.clone() };
        assert_eq!(said(&body, &operator).expect("taken").owner, None);
        let named = json!({"request_id": "r", "rating": "good", "key": "anonymous"});
        assert_eq!(said(&named, &operator).expect("taken").owner, Some(Owner::Nobody));
        assert_eq!(said(&named, &user).expect_err("not theirs"), ["key"]);
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let who = Principal::anonymous(Role::User);
        assert_eq!(said(&json!({}), &who).expect_err("wrong"), ["request_id", "rating"]);
        let body = json!({"request_id": "a b", "rating": "fine", "correction": "x".repeat(11), "comment": " "});
        assert_eq!(said(&body, &who).expect_err("wrong"), ["request_id", "rating", "correction", "comment"]);
        assert_eq!(said(&json!({"request_id": "r", "rating": "good", "stars": 5}), &who).expect_err("wrong"), ["stars"]);
        let long = read(json!({"request_id": "r", "rating": "bad", "correction": "geheim ".repeat(9)}).to_string().as_bytes(), &who, 10, 0);
        assert!(!long.expect_err("too long").detail.contains("geheim"));
    }
}
