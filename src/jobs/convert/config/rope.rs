//! Rotary position settings, in the three ways that configurations have written them.
//!
//! transformers 4 has `rope_theta` and `rope_scaling` side by side, 5 has `rope_parameters` with both, and models with two kinds of
//! attention nest that by kind.

use serde_json::{Map, Value};

use super::Fields;

/// Gemma 3's base for the layers that look at a window.
const SLIDING_THETA: f64 = 10_000.0;

/// What is known of the rotation of positions.
#[derive(Debug, Clone, Default)]
pub(in crate::jobs::convert) struct Rope {
    /// Of the layers that look at everything: `rope_type`, `rope_theta`, `factor` and what else the type needs.
    full: Map<String, Value>,
    /// Base of the layers that look at a window, where those are told apart.
    pub(in crate::jobs::convert) sliding_theta: Option<f64>,
}

impl Rope {
    /// `sliding`: whether the family has layers that look at a window only.
    pub(super) fn read(fields: &Fields, theta: f64, sliding: bool) -> Self {
        let given = fields.object("rope_parameters").or_else(|| fields.object("rope_scaling")).cloned().unwrap_or_default();
        let nested = |kind: &str| given.get(kind).and_then(Value::as_object).cloned();
        let (full, slides) = (nested("full_attention"), nested("sliding_attention"));
        let is_nested = full.is_some() || slides.is_some();
        let sliding_theta = slides.as_ref().and_then(|slides| slides.get("rope_theta")).and_then(Value::as_f64);
        let local = fields.number("rope_local_base_freq");
        let mut full = if is_nested { full.unwrap_or_default() } else { given };
        let mut fill = |key: &str, value: Option<Value>| {
            if full.get(key).is_none_or(Value::is_null)
                && let Some(value) = value
            {
                full.insert(key.to_owned(), value);
            }
        };
        fill("rope_theta", Some(fields.value("rope_theta").cloned().unwrap_or_else(|| theta.into())));
        for key in ["partial_rotary_factor", "original_max_position_embeddings"] {
            fill(key, fields.value(key).cloned());
        }
        let named = full.get("type").cloned();
        if let (None, Some(named)) = (full.get("rope_type"), named) {
            full.insert("rope_type".to_owned(), named);
        }
        Self { full, sliding_theta: sliding_theta.or(local).or(sliding.then_some(SLIDING_THETA)) }
    }

    /// The kind of scaling in lower case; `default` is none.
    pub(in crate::jobs::convert) fn kind(&self) -> String {
        self.full.get("rope_type").and_then(Value::as_str).unwrap_or("default").to_lowercase()
    }

    pub(in crate::jobs::convert) fn theta(&self) -> Option<f64> {
        self.number("rope_theta")
    }

    pub(in crate::jobs::convert) fn number(&self, key: &str) -> Option<f64> {
        self.full.get(key)?.as_f64()
    }

    /// A list of factors, one for each frequency.
    pub(in crate::jobs::convert) fn numbers(&self, key: &str) -> Option<Vec<f64>> {
        self.full.get(key)?.as_array()?.iter().map(Value::as_f64).collect()
    }
}
