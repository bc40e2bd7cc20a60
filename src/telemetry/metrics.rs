//! Every metric there is: the only file that names them.
//!
//! Names and attributes follow OpenTelemetry's semantic conventions for generative AI where those have one (dots become
//! underscores, the unit becomes a suffix, as in its Prometheus mapping), Prometheus' own for the process, and `arriero_`
//! otherwise. Labels come from closed sets, or from the names in the configuration; model names beyond a bound become `other`.
//! [`ALL`] is the same list for documents and tests. Nothing here reads a clock or the machine: callers bring their figures.

pub mod answers;
mod auth;
mod collection;
mod guard;
mod jobs;
mod limits;
mod queue;
mod routing;
mod semantic;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use collection::{Forgotten, Uncollected};
pub use guard::Truncation;
pub use routing::BreakerState;

use super::exposition::{MetricSpec, Registry};
use super::labels::{BoundedSet, Dropped, Operation, Outcome, Route};

pub use auth::Authentication;

/// Bounds on what is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many model names get series of their own; the rest share `other`.
    pub max_model_labels: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_model_labels: 50 }
    }
}

/// Seconds, from a cached answer to a long one (the conventions' own buckets).
const REQUEST_SECONDS: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84];
/// The conventions' buckets, and two more for a model that is loaded first.
const FIRST_TOKEN_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0];
/// The conventions' buckets, and two more for small models.
const TOKEN_SECONDS: &[f64] = &[0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const TOKENS: &[f64] =
    &[1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];
const QUEUE_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Declares the metrics and, from the same lines, the list of them all.
macro_rules! declare {
    ($($name:ident = $spec:expr;)*) => {
        $(static $name: MetricSpec = $spec;)*
        /// Every metric, in the order in which they are written out.
        pub static ALL: &[&MetricSpec] = &[$(&$name),*];
    };
}

declare! {
    GEN_AI_REQUEST_DURATION = MetricSpec::histogram("gen_ai_server_request_duration_seconds", "seconds",
        "Time from asking a backend to the end of its answer.", REQUEST_SECONDS)
        .by(&["backend", "gen_ai_operation_name", "gen_ai_request_model", "outcome"]);
    GEN_AI_FIRST_TOKEN = MetricSpec::histogram("gen_ai_server_time_to_first_token_seconds", "seconds",
        "Time from asking a backend to its first token.", FIRST_TOKEN_SECONDS)
        .by(&["backend", "gen_ai_request_model"]);
    GEN_AI_PER_TOKEN = MetricSpec::histogram("gen_ai_server_time_per_output_token_seconds", "seconds",
        "Mean time per token after the first, one observation a successful answer.", TOKEN_SECONDS)
        .by(&["backend", "gen_ai_request_model"]);
    GEN_AI_TOKEN_USAGE = MetricSpec::histogram("gen_ai_client_token_usage", "tokens",
        "Tokens read (input) and written (output) per answer.", TOKENS)
        .by(&["backend", "gen_ai_request_model", "gen_ai_token_type"]);
    REQUESTS = MetricSpec::counter("arriero_requests_total", "requests",
        "Requests that ended, by where they came in and how they ended.")
        .by(&["route", "outcome"]);
    REQUESTS_IN_FLIGHT = MetricSpec::gauge("arriero_requests_in_flight", "requests",
        "Requests that have started and not ended.")
        .by(&["route"]);
    QUEUE_DURATION = MetricSpec::histogram("arriero_queue_duration_seconds", "seconds",
        "Time a request waited for its turn before a backend was asked.", QUEUE_SECONDS)
        .by(&["backend"]);
    UPSTREAM_ERRORS = MetricSpec::counter("arriero_upstream_errors_total", "errors",
        "Attempts that a backend failed, by kind of failure.")
        .by(&["backend", "kind"]);
    BACKEND_UP = MetricSpec::gauge("arriero_backend_up", "boolean",
        "Whether the last check of a backend succeeded (1) or not (0).")
        .by(&["backend"]);
    CONNECTIONS = MetricSpec::gauge("arriero_connections", "connections",
        "Open client connections.");
    CONNECTIONS_REFUSED = MetricSpec::counter("arriero_connections_refused_total", "connections",
        "Client connections closed at once because the bound on open connections was reached.");
    USAGE_ROWS_WRITTEN = MetricSpec::counter("arriero_usage_rows_written_total", "rows",
        "Rows of the request log that reached the database.");
    USAGE_ROWS_DROPPED = MetricSpec::counter("arriero_usage_rows_dropped_total", "rows",
        "Rows of the request log that were given up.")
        .by(&["reason"]);
    BUILD_INFO = MetricSpec::gauge("arriero_build_info", "boolean",
        "Always 1; the label tells the version that runs.")
        .by(&["version"]);
    PROCESS_RESIDENT = MetricSpec::gauge("process_resident_memory_bytes", "bytes",
        "Memory of the process that is in RAM.");
    PROCESS_FDS = MetricSpec::gauge("process_open_fds", "files",
        "Open file descriptors.");
    PROCESS_MAX_FDS = MetricSpec::gauge("process_max_fds", "files",
        "How many file descriptors the process may open.");
    PROCESS_CPU = MetricSpec::counter("process_cpu_seconds_total", "seconds",
        "Processor time used by the process, user and system.");
    PROCESS_START = MetricSpec::gauge("process_start_time_seconds", "seconds",
        "When the process started, in seconds since 1970.");
    ANSWER_LOOKUPS = MetricSpec::counter("arriero_answer_cache_lookups_total", "requests",
        "Requests by what the cache of answers did for them, and why.")
        .by(&["status", "why"]);
    ANSWER_BYTES = MetricSpec::gauge("arriero_answer_cache_bytes", "bytes",
        "Size of the kept answers.")
        .by(&["tier"]);
    ANSWER_ENTRIES = MetricSpec::gauge("arriero_answer_cache_entries", "answers",
        "Kept answers.")
        .by(&["tier"]);
    ANSWERS_REMOVED = MetricSpec::counter("arriero_answer_cache_removed_total", "answers",
        "Answers that are no longer kept, by why: room for others, age, a purge, damage.")
        .by(&["tier", "reason"]);
    ANSWERS_DROPPED = MetricSpec::counter("arriero_answer_cache_dropped_total", "answers",
        "Answers that did not reach the database.")
        .by(&["reason"]);
    FLIGHTS_JOINED = MetricSpec::counter("arriero_flights_joined_total", "requests",
        "Requests that read along with an equal one that was running already.");
    FLIGHTS_REFUSED = MetricSpec::counter("arriero_flights_refused_total", "requests",
        "Requests that had to go alone because as many as allowed could be joined already.");
    RECORDINGS_OVER_BOUND = MetricSpec::counter("arriero_recordings_over_bound_total", "recordings",
        "Answers that outgrew what is kept of one while it is made, and can neither be joined nor kept.");
    LIMIT_REFUSALS = MetricSpec::counter("arriero_limit_refusals_total", "requests",
        "Requests that a limit held back, by what was in the way and whose bound it was.")
        .by(&["kind", "scope"]);
    LIMIT_RESERVATIONS = MetricSpec::gauge("arriero_limit_reservations", "requests",
        "Requests that limits have let in and that have not ended.");
    LIMIT_TOKENS_RESERVED = MetricSpec::counter("arriero_limit_tokens_reserved_total", "tokens",
        "Tokens that requests were expected to use (input, output) when limits let them in.")
        .by(&["token_type"]);
    LIMIT_TOKENS_SETTLED = MetricSpec::counter("arriero_limit_tokens_settled_total", "tokens",
        "Tokens that requests used (input, output) and were charged with.")
        .by(&["token_type"]);
    LIMIT_DEBT = MetricSpec::gauge("arriero_limit_debt_tokens", "tokens",
        "Tokens used beyond the rates of keys, tenants and all together, which time has to make good first.");
    LIMIT_ACCOUNTS_SHARED = MetricSpec::counter("arriero_limit_accounts_shared_total", "requests",
        "Requests counted on a shared account because as many keys and tenants as allowed were remembered.");
    LIMIT_ADDRESSES_FORGOTTEN = MetricSpec::counter("arriero_limit_addresses_forgotten_total", "addresses",
        "Addresses forgotten because as many as allowed were remembered.");
    LIMIT_BUDGET_WRITE_FAILURES = MetricSpec::counter("arriero_limit_budget_write_failures_total", "attempts",
        "Attempts to write budgets to the database that failed; they are repeated.");
    AUTHENTICATIONS = MetricSpec::counter("arriero_authentications_total", "requests",
        "Requests to routes that are not open to everyone, by what became of their credentials.")
        .by(&["outcome"]);
    KEYS_ACTIVE = MetricSpec::gauge("arriero_keys_active", "keys",
        "API keys that are neither revoked nor expired.");
    BREAKER_STATE = MetricSpec::gauge("arriero_breaker_state", "state",
        "Where the circuit breaker of a model on a backend stands: closed (0), one request tries (1), open (2) until one has tried.")
        .by(&["backend", "gen_ai_request_model"]);
    BREAKER_OPENED = MetricSpec::counter("arriero_breaker_opened_total", "openings",
        "Times that a circuit breaker opened, failed tries included.")
        .by(&["backend", "gen_ai_request_model"]);
    BACKEND_EJECTED = MetricSpec::gauge("arriero_backend_ejected", "boolean",
        "Whether a backend is sent away with all its models (1) or not (0).")
        .by(&["backend"]);
    BACKEND_EJECTIONS = MetricSpec::counter("arriero_backend_ejections_total", "ejections",
        "Times that a backend was sent away, failed returns included.")
        .by(&["backend"]);
    RETRIES = MetricSpec::counter("arriero_retries_total", "retries",
        "Further attempts that were wanted before the first byte, by whether the budget allowed them.")
        .by(&["outcome"]);
    HEDGES = MetricSpec::counter("arriero_hedges_total", "hedges",
        "Second backends that were wanted for a slow request, by whether the budget allowed them.")
        .by(&["outcome"]);
    FALLBACKS = MetricSpec::counter("arriero_fallbacks_total", "fallbacks",
        "Steps of fallback chains that were entered, by the condition that held.")
        .by(&["reason"]);
    ROUTING_FORGOTTEN = MetricSpec::counter("arriero_routing_forgotten_total", "models",
        "Models of which what was learnt was given up, because the bound on remembered models was reached.");
    MODEL_LOADS = MetricSpec::counter("arriero_model_loads_total", "loads",
        "Answers that waited for their model to be loaded; unplanned: it was believed to be in memory with the very same settings.")
        .by(&["backend", "cause"]);
    WEDGES = MetricSpec::counter("arriero_wedges_total", "wedges",
        "Times a backend was found stuck on a model, by how.")
        .by(&["backend", "kind"]);
    CURES = MetricSpec::counter("arriero_cures_total", "cures",
        "Cures tried on a backend that was stuck, by what it was stuck on and whether that helped.")
        .by(&["backend", "kind", "outcome"]);
    TRUNCATIONS = MetricSpec::counter("arriero_truncations_total", "prompts",
        "Prompts longer than their context: refused, cut because that was allowed, or found to have been cut unasked.")
        .by(&["backend", "how"]);
    OPTIONS_CHANGED = MetricSpec::counter("arriero_options_changed_total", "changes",
        "Fields of requests that were changed to keep to the policy of their model.")
        .by(&["field"]);
    QUEUE_WAITING = MetricSpec::gauge("arriero_queue_waiting", "requests",
        "Requests that wait for a slot.")
        .by(&["class"]);
    QUEUE_DISPATCHED = MetricSpec::counter("arriero_queue_dispatched_total", "requests",
        "Requests that were given a slot.")
        .by(&["class"]);
    QUEUE_REFUSED = MetricSpec::counter("arriero_queue_refused_total", "requests",
        "Requests that were given none, by why.")
        .by(&["class", "reason"]);
    QUEUE_LIFTED = MetricSpec::counter("arriero_queue_lifted_total", "requests",
        "Requests that went before those of a higher class because they had waited long.")
        .by(&["class"]);
    QUEUE_DISPLACED = MetricSpec::counter("arriero_queue_displaced_total", "requests",
        "Running requests that were stopped for an urgent one.");
    QUEUE_LOADS = MetricSpec::counter("arriero_queue_loads_total", "loads",
        "Requests sent for a model that was not loaded, each of which makes the backend load it.")
        .by(&["backend"]);
    BACKEND_SLOTS = MetricSpec::gauge("arriero_backend_slots", "slots",
        "Requests that the loaded models of a backend serve at a time.")
        .by(&["backend"]);
    BACKEND_IN_FLIGHT = MetricSpec::gauge("arriero_backend_in_flight", "requests",
        "Slots of a backend that are in use or kept.")
        .by(&["backend"]);
    PREFIX_PREDICTIONS = MetricSpec::counter("arriero_prefix_predictions_total", "answers",
        "Answers, by whether the backend held the beginning of the prompt as was predicted.")
        .by(&["backend", "result"]);
    PREFIX_CACHED_TOKENS = MetricSpec::counter("arriero_prefix_cached_tokens_total", "tokens",
        "Prompt tokens that a backend did not have to read again, as it says or as its speed shows.")
        .by(&["backend"]);
    PREFIX_SAVED = MetricSpec::counter("arriero_prefix_saved_milliseconds_total", "milliseconds",
        "Time that these tokens saved, at the measured speed of the backend.")
        .by(&["backend"]);
    PREFIX_BLOCKS = MetricSpec::gauge("arriero_prefix_blocks", "blocks",
        "Blocks of prompts that are remembered as warm somewhere.");
    PREFIX_EVICTED = MetricSpec::counter("arriero_prefix_blocks_evicted_total", "blocks",
        "Blocks of prompts that were forgotten because a bound was reached.");
    WARM_SENT = MetricSpec::counter("arriero_warm_prompts_sent_total", "prompts",
        "Prompts sent to keep them warm, by cause and by whether that worked.")
        .by(&["cause", "result"]);
    SEMANTIC_LOOKUPS = MetricSpec::counter("arriero_semantic_lookups_total", "lookups",
        "Lookups in the semantic cache, by what came of them: a hit, or why not.")
        .by(&["result"]);
    SEMANTIC_ENTRIES = MetricSpec::gauge("arriero_semantic_entries", "entries",
        "Answers in the semantic cache.");
    SEMANTIC_BYTES = MetricSpec::gauge("arriero_semantic_bytes", "bytes",
        "Size of the semantic cache.");
    SEMANTIC_EVICTED = MetricSpec::counter("arriero_semantic_evictions_total", "entries",
        "Answers that left the semantic cache, by reason.")
        .by(&["reason"]);
    SEMANTIC_CHECKS = MetricSpec::counter("arriero_semantic_checks_total", "checks",
        "Hits of the semantic cache that were checked against a real generation, by what was found.")
        .by(&["result"]);
    SEMANTIC_THRESHOLD = MetricSpec::gauge("arriero_semantic_threshold_ratio", "ratio",
        "Similarity that a hit of the semantic cache needs now.");
    SEMANTIC_FALSE_HITS = MetricSpec::gauge("arriero_semantic_false_hit_ratio", "ratio",
        "Share of false hits among the checked ones at the present threshold: what was measured, and the bounds of its confidence.")
        .by(&["bound"]);
    JOBS_SUBMITTED = MetricSpec::counter("arriero_jobs_submitted_total", "jobs",
        "Background jobs that were accepted by this process.");
    JOBS = MetricSpec::gauge("arriero_jobs", "jobs",
        "Background jobs in the database, by where they stand.")
        .by(&["state"]);
    JOB_ATTEMPTS = MetricSpec::counter("arriero_job_attempts_total", "attempts",
        "Attempts at background jobs that ended, by kind and by how.")
        .by(&["kind", "outcome"]);
    JOB_ARTIFACT_BYTES = MetricSpec::gauge("arriero_job_artifact_bytes", "bytes",
        "Size of what background jobs have made and is kept.");
    COLLECTED = MetricSpec::counter("arriero_collection_kept_total", "exchanges",
        "Exchanges that were collected to learn from and reached the database.");
    UNCOLLECTED = MetricSpec::counter("arriero_collection_dropped_total", "exchanges",
        "Whole answers that were not collected although all agreed, by why.")
        .by(&["reason"]);
    COLLECTED_REMOVED = MetricSpec::counter("arriero_collection_removed_total", "exchanges",
        "Collected exchanges that were forgotten, by why: room for others, age, or because somebody wanted it.")
        .by(&["reason"]);
    COLLECTED_EXCHANGES = MetricSpec::gauge("arriero_collection_exchanges", "exchanges",
        "Collected exchanges.");
    COLLECTED_BYTES = MetricSpec::gauge("arriero_collection_bytes", "bytes",
        "Size of the collected exchanges and of what was said of them.");
}

/// The figures of one service. Cheap to clone; clones share the figures, separate `new`s do not.
#[derive(Debug, Clone)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    models: BoundedSet,
}

/// One attempt at one backend that has ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation<'a> {
    pub backend: &'a str,
    /// A model that exists: a name that a client made up must not use up the bound.
    pub model: &'a str,
    pub operation: Operation,
    pub outcome: Outcome,
    /// From asking the backend to the end of its answer.
    pub duration: Duration,
    /// From asking the backend to its first token, if one came.
    pub first_token: Option<Duration>,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
}

/// Figures of the process itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    pub resident_bytes: u64,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    pub cpu: Duration,
    /// Seconds since 1970.
    pub started_unix_s: u64,
}

impl Metrics {
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let metrics = Self(Arc::new(Inner { registry: Registry::new(ALL), models: BoundedSet::new(config.max_model_labels) }));
        metrics.start_at_zero();
        metrics
    }

    /// Makes the series whose labels are known now, so that the first event is a rise from zero and not a beginning.
    fn start_at_zero(&self) {
        let registry = &self.0.registry;
        for route in Route::ALL {
            registry.gauge(&REQUESTS_IN_FLIGHT, &[route.as_str()]).set(0.0);
            for outcome in Outcome::ALL {
                registry.counter(&REQUESTS, &[route.as_str(), outcome.as_str()]).absolute(0);
            }
        }
        for reason in Dropped::ALL {
            registry.counter(&USAGE_ROWS_DROPPED, &[reason.as_str()]).absolute(0);
        }
        for counter in [&CONNECTIONS_REFUSED, &USAGE_ROWS_WRITTEN] {
            registry.counter(counter, &[]).absolute(0);
        }
        self.start_limits_at_zero();
        self.start_routing_at_zero();
        self.queue_at_zero();
        registry.gauge(&CONNECTIONS, &[]).set(0.0);
        self.start_answers_at_zero();
        registry.gauge(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")]).set(1.0);
        self.start_auth_at_zero();
        self.start_jobs_at_zero();
        self.start_collection_at_zero();
    }

    /// Counts a request as being worked on until the returned value is finished or dropped.
    #[must_use = "the request counts as ended when this is dropped"]
    pub fn request_started(&self, route: Route) -> RequestInFlight {
        self.0.registry.gauge(&REQUESTS_IN_FLIGHT, &[route.as_str()]).increment(1.0);
        RequestInFlight { metrics: self.clone(), route, outcome: Outcome::Cancelled }
    }

    /// The time from asking a backend to its first token.
    pub fn first_token(&self, backend: &str, model: &str, after: Duration) {
        self.observe(&GEN_AI_FIRST_TOKEN, &[backend, &self.model(model)], after);
    }

    /// The end of an attempt; records all about it but the first token, which was recorded when it came.
    pub fn generation_finished(&self, generation: &Generation<'_>) {
        let model = self.model(generation.model);
        let backend = generation.backend;
        let labels = [backend, generation.operation.as_str(), &model, generation.outcome.as_str()];
        self.observe(&GEN_AI_REQUEST_DURATION, &labels, generation.duration);
        for (kind, tokens) in [("input", generation.prompt_tokens), ("output", generation.completion_tokens)] {
            if let Some(tokens) = tokens {
                self.0.registry.histogram(&GEN_AI_TOKEN_USAGE, &[backend, &model, kind]).record(number(tokens));
            }
        }
        if let Some(per_token) = generation.time_per_token() {
            self.observe(&GEN_AI_PER_TOKEN, &[backend, &model], per_token);
        }
    }

    /// The time a request waited for its turn.
    pub fn queued(&self, backend: &str, waited: Duration) {
        self.observe(&QUEUE_DURATION, &[backend], waited);
    }

    /// An attempt that a backend failed; `kind` is a word from a closed set, such as `backends::Error::kind` gives.
    pub fn upstream_error(&self, backend: &str, kind: &'static str) {
        self.0.registry.counter(&UPSTREAM_ERRORS, &[backend, kind]).increment(1);
    }

    /// The result of a check.
    pub fn backend_up(&self, backend: &str, up: bool) {
        self.0.registry.gauge(&BACKEND_UP, &[backend]).set(if up { 1.0 } else { 0.0 });
    }

    /// Counts a connection as open until the returned value is dropped.
    #[must_use = "the connection counts as closed when this is dropped"]
    pub fn connection_opened(&self) -> Connection {
        let gauge = self.0.registry.gauge(&CONNECTIONS, &[]);
        gauge.increment(1.0);
        Connection(gauge)
    }

    pub fn connection_refused(&self) {
        self.0.registry.counter(&CONNECTIONS_REFUSED, &[]).increment(1);
    }

    pub fn usage_rows_written(&self, rows: u64) {
        self.0.registry.counter(&USAGE_ROWS_WRITTEN, &[]).increment(rows);
    }

    pub fn usage_rows_dropped(&self, reason: Dropped, rows: u64) {
        self.0.registry.counter(&USAGE_ROWS_DROPPED, &[reason.as_str()]).increment(rows);
    }

    /// Replaces the figures of the process; called before each [`Metrics::render`].
    pub fn process(&self, process: &Process) {
        let set = |spec, value: f64| self.0.registry.gauge(spec, &[]).set(value);
        set(&PROCESS_RESIDENT, number(process.resident_bytes));
        // Kept as a gauge because counters here hold whole numbers only.
        set(&PROCESS_CPU, process.cpu.as_secs_f64());
        set(&PROCESS_START, number(process.started_unix_s));
        if let Some(open) = process.open_fds {
            set(&PROCESS_FDS, number(open));
        }
        if let Some(most) = process.max_fds {
            set(&PROCESS_MAX_FDS, number(most));
        }
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.registry.render()
    }

    /// To be called every few seconds: observations wait in memory for this, or for someone to read them.
    pub fn run_upkeep(&self) {
        self.0.registry.run_upkeep();
    }

    fn observe(&self, spec: &MetricSpec, labels: &[&str], span: Duration) {
        self.0.registry.histogram(spec, labels).record(span.as_secs_f64());
    }

    fn model(&self, name: &str) -> String {
        self.0.models.label(name)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Config::default())
    }
}

impl Generation<'_> {
    /// The mean over the tokens after the first; none for failures and for answers of one token.
    fn time_per_token(&self) -> Option<Duration> {
        let later_tokens = u32::try_from(self.completion_tokens?.checked_sub(1)?).ok()?;
        if self.outcome != Outcome::Ok {
            return None;
        }
        self.duration.checked_sub(self.first_token?)?.checked_div(later_tokens)
    }
}

/// A request that is being worked on. Counted as cancelled when dropped without [`RequestInFlight::finish`].
#[derive(Debug)]
pub struct RequestInFlight {
    metrics: Metrics,
    route: Route,
    outcome: Outcome,
}

impl RequestInFlight {
    /// Ends it with this outcome.
    pub fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        let registry = &self.metrics.0.registry;
        registry.gauge(&REQUESTS_IN_FLIGHT, &[self.route.as_str()]).decrement(1.0);
        registry.counter(&REQUESTS, &[self.route.as_str(), self.outcome.as_str()]).increment(1);
    }
}

/// An open connection; dropping it counts it as closed.
pub struct Connection(metrics::Gauge);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has nothing but f64; 2^53 bytes is far off")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
