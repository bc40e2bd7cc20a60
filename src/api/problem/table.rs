//! The table of problems: from a code to its status, its title and what to do.

use http::StatusCode;

/// A row of the table: code, status, title, what to do.
pub struct Row {
    pub code: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub hint: &'static str,
}

const fn row(code: &'static str, status: StatusCode, title: &'static str, hint: &'static str) -> Row {
    Row { code, status, title, hint }
}

/// Every problem there is. `docs/errors.md` shows the same table.
pub const TABLE: &[Row] = &[
    row(
        "malformed_request",
        StatusCode::BAD_REQUEST,
        "The request is not well-formed HTTP",
        "Send one Host header, one framing of the body and a plain path.",
    ),
    row(
        "malformed_body",
        StatusCode::BAD_REQUEST,
        "The body is not a JSON object",
        "Send a JSON object, in UTF-8, nested at most 127 levels deep.",
    ),
    row("invalid_field", StatusCode::UNPROCESSABLE_ENTITY, "A field has a value it does not take", "Correct the fields named in `errors`."),
    row(
        "model_missing",
        StatusCode::UNPROCESSABLE_ENTITY,
        "No model is named and there is no default",
        "Name a `model` (GET /models lists them), or set `generation.default_model`.",
    ),
    row(
        "model_not_found",
        StatusCode::NOT_FOUND,
        "No backend has the model",
        "GET /models lists what can be asked for; on Ollama, `ollama pull` brings a new model.",
    ),
    row(
        "credentials_missing",
        StatusCode::UNAUTHORIZED,
        "An API key is required",
        "Send a key as `Authorization: Bearer KEY` or `x-api-key: KEY`; whoever runs this gateway makes one with `arriero keys create`.",
    ),
    row(
        "credentials_invalid",
        StatusCode::UNAUTHORIZED,
        "The API key is not taken",
        "Check the key; whoever runs this gateway makes a new one with `arriero keys create` or `arriero keys rotate`.",
    ),
    row(
        "credentials_conflict",
        StatusCode::BAD_REQUEST,
        "The request bears two different credentials",
        "Send one key, in `Authorization: Bearer` or in `x-api-key`.",
    ),
    row(
        "forbidden",
        StatusCode::FORBIDDEN,
        "The role is not enough",
        "Use a key of a role that the detail names; where no key is needed, `auth.anonymous.role` is the role. A first key is made with \
         `arriero keys create --role admin` while the gateway is stopped.",
    ),
    row("key_not_found", StatusCode::NOT_FOUND, "There is no such key", "GET /admin/keys lists all keys."),
    row("key_name_taken", StatusCode::CONFLICT, "Another key has this name", "Choose another name, or revoke the other key."),
    row("key_revoked", StatusCode::CONFLICT, "The key was revoked", "Make a new key: a revoked one stays so."),
    row(
        "too_many_keys",
        StatusCode::INSUFFICIENT_STORAGE,
        "There are as many keys as allowed",
        "Revoke a key that is not needed, or raise `auth.max_keys`.",
    ),
    row(
        "not_stored",
        StatusCode::INSUFFICIENT_STORAGE,
        "The database cannot be written",
        "Make room on the disk; Arriero's log says more.",
    ),
    row("not_found", StatusCode::NOT_FOUND, "There is nothing at this path", "GET /openapi.json lists all paths."),
    row(
        "method_not_allowed",
        StatusCode::METHOD_NOT_ALLOWED,
        "The path does not take this method",
        "The `allow` header lists the methods it takes.",
    ),
    row("body_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", "Send less, or raise `api.body.max_bytes`."),
    row("body_too_slow", StatusCode::REQUEST_TIMEOUT, "The body came too slowly", "Send the body without long pauses."),
    row("refused", StatusCode::BAD_REQUEST, "The backend refused the request", "Change what the detail names."),
    row(
        "unsupported",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The backend cannot honour a field",
        "Leave the field out, or ask a backend that can.",
    ),
    row(
        "context_too_long",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The prompt does not fit the context",
        "Shorten the prompt, raise `options.num_ctx` where the model allows, or set `truncate` to true.",
    ),
    row(
        "out_of_memory",
        StatusCode::SERVICE_UNAVAILABLE,
        "The model does not fit into memory",
        "Free memory, ask for a smaller `num_ctx`, or use a smaller model.",
    ),
    row(
        "unreachable",
        StatusCode::BAD_GATEWAY,
        "The backend cannot be reached",
        "Check that Ollama runs and that its URL is right: `arriero doctor`.",
    ),
    row(
        "rate_limited",
        StatusCode::TOO_MANY_REQUESTS,
        "A rate is used up",
        "Send the same request again after `retry-after` seconds; `ratelimit` says what is left. GET /admin/limits shows all.",
    ),
    row(
        "concurrency_limited",
        StatusCode::TOO_MANY_REQUESTS,
        "As many requests run as may at the same time",
        "Wait until one of the running requests has ended.",
    ),
    row(
        "budget_exhausted",
        StatusCode::TOO_MANY_REQUESTS,
        "What is left of a budget of tokens is too little",
        "Ask for less with `options.num_predict`, wait for the next day or month (UTC), or have the budget raised.",
    ),
    row(
        "above_maximum",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The request asks for more than it may at once",
        "Stay within `limit`, or have the bound raised.",
    ),
    row("overloaded", StatusCode::SERVICE_UNAVAILABLE, "The backend is overloaded", "Try again after `retry-after` seconds."),
    row("failed", StatusCode::BAD_GATEWAY, "The backend failed", "Try again; if it lasts, look at the backend's log."),
    row(
        "protocol",
        StatusCode::BAD_GATEWAY,
        "The backend's answer is broken or incomplete",
        "Try again; check that the URL is an Ollama's and that it has not crashed.",
    ),
    row("stalled", StatusCode::GATEWAY_TIMEOUT, "The backend fell silent", "Try again; if it lasts, restart the backend."),
    row(
        "wedged",
        StatusCode::SERVICE_UNAVAILABLE,
        "The backend is stuck on this model",
        "Try again after `retry-after` seconds, or name another model; a cure is being tried. If it lasts, restart the backend.",
    ),
    row("deadline", StatusCode::GATEWAY_TIMEOUT, "The deadline passed", "Ask for less, or allow more time in `deadline_ms`."),
    row("deadline_too_long", StatusCode::UNPROCESSABLE_ENTITY, "The deadline is longer than allowed", "Ask for a shorter `deadline_ms`."),
    row(
        "answer_too_large",
        StatusCode::INSUFFICIENT_STORAGE,
        "The answer outgrew what is collected for one",
        "Set `stream` to true, or bound the answer with `options.num_predict`.",
    ),
    row(
        "queue_full",
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many requests wait",
        "Try again after `retry-after` seconds; `queue.max_waiting` and `queue.max_waiting_bytes` are the bounds.",
    ),
    row(
        "queue_too_long",
        StatusCode::SERVICE_UNAVAILABLE,
        "The wait would be too long",
        "Try again after `retry-after` seconds, or allow more time in `deadline_ms`.",
    ),
    row(
        "queue_expired",
        StatusCode::SERVICE_UNAVAILABLE,
        "No slot fell free in time",
        "Try again later, allow more time in `deadline_ms`, or raise `queue.patience`.",
    ),
    row("displaced", StatusCode::SERVICE_UNAVAILABLE, "An urgent request took the place", "Try again after `retry-after` seconds."),
    row(
        "no_backend",
        StatusCode::SERVICE_UNAVAILABLE,
        "No backend is there to serve the request",
        "Configure a backend that has the model: `arriero doctor` shows those there are.",
    ),
    row(
        "model_forbidden",
        StatusCode::FORBIDDEN,
        "The key may not use the model",
        "Ask for a model of the key's own, or have an administrator allow it.",
    ),
    row(
        "unload_forbidden",
        StatusCode::FORBIDDEN,
        "Only an operator unloads a model for all its users",
        "Leave `keep_alive: 0` out, or use an operator's key.",
    ),
    row("warm_prompt_not_found", StatusCode::NOT_FOUND, "No such prompt is kept warm", "GET /admin/cache/warm lists those that are."),
    row("stopped", StatusCode::GONE, "The generation was stopped", "Someone stopped it by its id; ask again if it is still wanted."),
    row(
        "event_id_invalid",
        StatusCode::BAD_REQUEST,
        "Last-Event-ID is not the id of an event of this answer",
        "Send the `id` of the last event that came, as it came: the request's id, a slash and a number.",
    ),
    row("key_ended", StatusCode::UNAUTHORIZED, "The key was revoked or has expired", "Ask an administrator for a new key."),
    row("too_slow", StatusCode::GATEWAY_TIMEOUT, "The backend took too long", "Try again, ask for less, or raise `routing.timeouts`."),
    row(
        "generation_not_found",
        StatusCode::NOT_FOUND,
        "No such generation is kept",
        "Only generations with `detach`, or within `generation.kept.resume_window`, are kept, for a while.",
    ),
    row("resume_gone", StatusCode::GONE, "What would be sent again is no longer kept", "Ask anew."),
    row("id_in_use", StatusCode::CONFLICT, "The request id is in use", "Send another `x-request-id`, or none."),
    row(
        "too_many_kept",
        StatusCode::SERVICE_UNAVAILABLE,
        "Too many generations are kept",
        "Read or stop those that are kept, or try again after `retry-after` seconds.",
    ),
    row(
        "not_cached",
        StatusCode::GATEWAY_TIMEOUT,
        "The answer is not in the cache",
        "Leave `cache` out, or set it to \"default\", to have the answer computed.",
    ),
    row(
        "invalid_configuration",
        StatusCode::UNPROCESSABLE_ENTITY,
        "The new configuration is wrong",
        "Correct what `problems` lists (`arriero config check` tells the same); the old configuration stays in force.",
    ),
    row(
        "too_many_warm",
        StatusCode::INSUFFICIENT_STORAGE,
        "Too many prompts are kept warm",
        "Take one off, or raise `cache.warm.max_prompts`.",
    ),
    row("closed", StatusCode::SERVICE_UNAVAILABLE, "Arriero is shutting down", "Try again after `retry-after` seconds."),
    row("internal", StatusCode::INTERNAL_SERVER_ERROR, "Arriero failed", "This is a defect: please report it with the request id."),
];
