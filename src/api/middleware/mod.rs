//! What needs only a request's headers.

pub mod auth;
pub mod count;
mod front;
pub mod rate_limit;
pub mod request_id;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};

use super::state::State;

/// Puts all layers around the routes. A request passes them from the last to the first.
pub fn around(routes: Router<State>, state: State) -> Router<State> {
    routes
        .layer(from_fn_with_state(state.clone(), auth::admit))
        .layer(from_fn(front::check))
        .layer(from_fn_with_state(state.limits.clone(), rate_limit::hold_back))
        .layer(from_fn(request_id::sign))
        .layer(from_fn_with_state(state, count::count))
        .layer(from_fn(request_id::assign))
}
