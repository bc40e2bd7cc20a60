//! What is counted about models being loaded, servers being stuck and prompts being cut.

use super::{CURES, MODEL_LOADS, Metrics, OPTIONS_CHANGED, TRUNCATIONS, WEDGES};

/// What became of a prompt that was longer than its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    Refused,
    Allowed,
    /// The server cut it although it was told not to.
    Found,
}

impl Truncation {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Allowed => "allowed",
            Self::Found => "found",
        }
    }
}

/// The fields that a policy may change.
const FIELDS: [&str; 10] = [
    "keep_alive",
    "options.draft_num_predict",
    "options.main_gpu",
    "options.num_batch",
    "options.num_ctx",
    "options.num_gpu",
    "options.num_predict",
    "options.num_thread",
    "options.use_mmap",
    "shift",
];

impl Metrics {
    /// An answer that waited for its model to be loaded. `planned`: it had to be expected.
    pub fn model_loaded(&self, backend: &str, planned: bool) {
        let cause = if planned { "planned" } else { "unplanned" };
        self.0.registry.counter(&MODEL_LOADS, &[backend, cause]).increment(1);
    }

    /// A backend was found stuck; `kind` is a word from a closed set, such as `backends::TroubleKind::as_str` gives.
    pub fn wedged(&self, backend: &str, kind: &'static str) {
        self.0.registry.counter(&WEDGES, &[backend, kind]).increment(1);
    }

    /// A cure was tried; `kind` as for [`Metrics::wedged`].
    pub fn cure_tried(&self, backend: &str, kind: &'static str, healed: bool) {
        let outcome = if healed { "healed" } else { "failed" };
        self.0.registry.counter(&CURES, &[backend, kind, outcome]).increment(1);
    }

    /// A prompt that was longer than its context.
    pub fn truncation(&self, backend: &str, how: Truncation) {
        self.0.registry.counter(&TRUNCATIONS, &[backend, how.as_str()]).increment(1);
    }

    /// A field of a request was changed, by the name that the answer gives it.
    pub fn option_changed(&self, field: &str) {
        let field = FIELDS.into_iter().find(|known| *known == field).unwrap_or(crate::telemetry::labels::OTHER);
        self.0.registry.counter(&OPTIONS_CHANGED, &[field]).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_count_has_its_series() {
        let metrics = Metrics::default();
        metrics.model_loaded("a", true);
        metrics.model_loaded("a", false);
        metrics.wedged("a", "hung_runner");
        metrics.cure_tried("a", "hung_runner", false);
        metrics.truncation("a", Truncation::Found);
        metrics.option_changed("options.num_ctx");
        metrics.option_changed("made up");
        let text = metrics.render();
        for series in [
            "arriero_model_loads_total{backend=\"a\",cause=\"planned\"} 1",
            "arriero_model_loads_total{backend=\"a\",cause=\"unplanned\"} 1",
            "arriero_wedges_total{backend=\"a\",kind=\"hung_runner\"} 1",
            "arriero_cures_total{backend=\"a\",kind=\"hung_runner\",outcome=\"failed\"} 1",
            "arriero_truncations_total{backend=\"a\",how=\"found\"} 1",
            "arriero_options_changed_total{field=\"options.num_ctx\"} 1",
            "arriero_options_changed_total{field=\"other\"} 1",
        ] {
            assert!(text.contains(series), "{series} is not in\n{text}");
        }
    }
}
