//! The OpenAPI document, generated from the handlers, and a page that shows it without a network.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{Method, StatusCode, header};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::Config;

use super::authorisation::{self, Needs};
use super::path::Path;
use super::problem::Problem;
use super::state::State;
use crate::jobs::Registry;

#[derive(OpenApi)]
#[openapi(
    info(title = "Arriero", description = "A gateway for Ollama: fair, observable and self-contained."),
    tags(
        (name = "native", description = "Arriero's own API"),
        (name = "collection", description = "Exchanges that are kept to learn from"),
        (name = "jobs", description = "Work in the background"),
        (name = "operations", description = "How the process is doing"),
        (name = "admin", description = "For those who run it"),
    ),
    security(("bearer" = []), ("x-api-key" = [])),
    modifiers(&Schemes, &Inputs),
    components(schemas(super::native::types::Start<'static>, super::native::types::Token<'static>, super::native::types::Queued))
)]
struct Frame;

/// How a key is sent.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        components.add_security_scheme("x-api-key", SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::new("x-api-key"))));
    }
}

/// What each kind of job takes.
struct Inputs;

impl Modify for Inputs {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        for kind in Registry::standard(false).iter() {
            let mut name = kind.name().to_owned();
            name[..1].make_ascii_uppercase();
            if let Ok(schema) = serde_json::from_value::<RefOr<Schema>>(kind.schema()) {
                components.schemas.insert(format!("{name}JobInput"), schema);
            }
        }
    }
}

/// The document without its paths.
pub fn frame() -> Document {
    Frame::openapi()
}

/// The whole document, as it lies in `openapi/openapi.json`.
///
/// # Panics
/// When the document cannot be written as JSON, which a test rules out.
pub fn document() -> String {
    let (_, mut document) = super::documented().split_for_parts();
    guard(&mut document);
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Writes into each operation what the table of authorisation says of it.
fn guard(document: &mut Document) {
    for (path, item) in &mut document.paths.paths {
        let methods = [("GET", &mut item.get), ("POST", &mut item.post), ("PATCH", &mut item.patch), ("DELETE", &mut item.delete)];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
            match authorisation::needs(&method, Some(path)) {
                Needs::Nothing => operation.security = Some(Vec::new()),
                needs => {
                    let roles = format!("The role is not one of {}", needs.in_words());
                    for (status, why) in [("401", "No key, or one that is not taken"), ("403", roles.as_str())] {
                        operation.responses.responses.insert(status.to_owned(), RefOr::T(refusal(why)));
                    }
                }
            }
        }
    }
}

fn refusal(why: &str) -> utoipa::openapi::Response {
    let problem = Content::builder().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description(why).content("application/problem+json", problem).build()
}

static TEXT: LazyLock<String> = LazyLock::new(document);

/// The routes of [`pages`].
#[cfg(test)]
pub const PAGES: [&str; 4] = ["/openapi.json", "/docs", "/docs/", "/docs/{*file}"];

/// The document and the page.
pub fn pages() -> Router<State> {
    Router::new()
        .route("/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str())))
        .route("/docs", get(async || Redirect::permanent("/docs/")))
        .route("/docs/", get(async || asset("")))
        .route("/docs/{*file}", get(async |Path(file): Path<String>| asset(&file)))
}

fn asset(file: &str) -> Response {
    let config = Arc::new(Config::from("/openapi.json"));
    match utoipa_swagger_ui::serve(file, config) {
        Ok(Some(file)) => ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response(),
        Ok(None) => Problem::new("not_found", "there is no such page").into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be made");
            (StatusCode::INTERNAL_SERVER_ERROR, Problem::new("internal", "the page could not be made")).into_response()
        }
    }
}
