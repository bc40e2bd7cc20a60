//! HTTP, and only HTTP: from bytes to the waist and back.
//!
//! Handlers are short: read, call the gateway, write. What needs only headers is a layer in [`middleware`]; what fails is a
//! [`problem::Problem`]. Nothing here chooses, retries, counts tokens or touches a database.

mod admin;
mod authorisation;
pub mod body;
mod collection;
mod fields;
mod jobs;
pub mod listener;
mod middleware;
mod native;
mod openapi;
mod ops;
mod page;
mod path;
mod problem;
pub mod reload;
mod sse;
mod state;

use std::time::Duration;

use axum::extract::Request;
use axum::response::IntoResponse;
use axum::{Extension, Router};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::domain::span;

pub use admin::keys::KeyView;
pub use authorisation::{Needs, Rule, TABLE as AUTHORISATION};
pub use openapi::document;
pub use problem::{Problem, TABLE as PROBLEMS};
pub use state::{Parts, Readiness, State};

/// How answers are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Pause in a stream after which a comment keeps the connection open.
    #[serde(with = "span")]
    pub heartbeat: Duration,
    pub body: body::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(15), body: body::Config::default() }
    }
}

/// All routes, behind all layers.
pub fn router(state: State) -> Router {
    let (routes, _) = documented().split_for_parts();
    let routes = routes.merge(openapi::pages()).fallback(nothing_here).method_not_allowed_fallback(wrong_method);
    middleware::around(routes, state.clone()).with_state(state)
}

/// The same routes for an address that stands for the key of this name.
pub fn as_identity(routes: Router, key_name: &str) -> Router {
    routes.layer(Extension(middleware::auth::Identity(key_name.into())))
}

/// The routes that the OpenAPI document describes.
fn documented() -> OpenApiRouter<State> {
    OpenApiRouter::with_openapi(openapi::frame())
        .routes(routes!(native::handlers::generate))
        .routes(routes!(native::handlers::read_again, native::handlers::stop))
        .routes(routes!(native::handlers::models))
        .routes(routes!(collection::feedback::feedback))
        .routes(routes!(collection::look::list, collection::look::forget))
        .routes(routes!(ops::live))
        .routes(routes!(ops::ready))
        .routes(routes!(ops::version))
        .routes(routes!(ops::metrics))
        .routes(routes!(jobs::submit::submit, jobs::look::list))
        .routes(routes!(jobs::look::kinds))
        .routes(routes!(jobs::steer::pool, jobs::steer::order_pool))
        .routes(routes!(jobs::schedules::list))
        .routes(routes!(jobs::schedules::remove))
        .routes(routes!(jobs::look::show, jobs::steer::cancel))
        .routes(routes!(jobs::steer::retry))
        .routes(routes!(jobs::versions::list))
        .routes(routes!(jobs::events::follow))
        .routes(routes!(jobs::files::upload, jobs::files::delete))
        .routes(routes!(jobs::artifacts::list))
        .routes(routes!(jobs::artifacts::download))
        .routes(routes!(admin::limits::list))
        .routes(routes!(admin::queue::queue))
        .routes(routes!(admin::queue::backends))
        .routes(routes!(admin::cache::report, admin::cache::purge))
        .routes(routes!(admin::cache::warm_list, admin::cache::warm))
        .routes(routes!(admin::cache::cool))
        .routes(routes!(admin::config::reload))
        .routes(routes!(admin::keys::list, admin::keys::create))
        .routes(routes!(admin::keys::show, admin::keys::update, admin::keys::revoke))
        .routes(routes!(admin::keys::rotate))
}

async fn nothing_here(request: Request) -> impl IntoResponse {
    Problem::new("not_found", format!("there is nothing at {}", request.uri().path()))
}

async fn wrong_method(request: Request) -> impl IntoResponse {
    Problem::new("method_not_allowed", format!("{} does not take {}", request.uri().path(), request.method()))
}
