//! The `options` object of a generation: every option that Ollama documents, typed and range-checked; the others travel as they came.

use serde_json::{Map, Number, Value};

/// Documented options. `None`: not given, the model's or the backend's default holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// Tokens of the prompt that survive a context shift (−1: all).
    pub num_keep: Option<i64>,
    /// −1: not reproducible.
    pub seed: Option<i64>,
    /// Most tokens to generate. Below 1: until the context is full.
    pub num_predict: Option<i64>,
    /// Candidates considered. Below 1: all.
    pub top_k: Option<i64>,
    pub top_p: Option<f64>,
    pub min_p: Option<f64>,
    pub typical_p: Option<f64>,
    /// Tokens looked back on for penalties. 0: none, −1: the whole context.
    pub repeat_last_n: Option<i64>,
    pub temperature: Option<f64>,
    pub repeat_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub penalize_newline: Option<bool>,
    pub stop: Option<Vec<String>>,
    /// Context length in tokens, prompt and answer together.
    pub num_ctx: Option<u32>,
    pub num_batch: Option<u32>,
    /// Layers on the accelerator (−1: as many as fit).
    pub num_gpu: Option<i64>,
    pub main_gpu: Option<i64>,
    pub use_mmap: Option<bool>,
    pub num_thread: Option<u32>,
    pub draft_num_predict: Option<i64>,
    /// Options this version does not know.
    pub extra: Map<String, Value>,
}

/// An option that cannot be what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option `{name}` takes {takes}, not {got}")]
pub struct OptionError {
    pub name: String,
    /// What the option accepts, in words.
    pub takes: &'static str,
    /// What was given, shortened.
    pub got: String,
}

/// Options that are settings of the process that runs a model: a request with other values than it was loaded with has the model
/// loaded anew, for everyone.
pub const RUNNER: [&str; 7] = ["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict"];

/// Longest stop string, in bytes, and the most of them.
const MAX_STOP_BYTES: usize = 1024;
const MAX_STOPS: usize = 64;

const INTEGER: &str = "a whole number";
const POSITIVE: &str = "a whole number of at least 1";
const NOT_BELOW_MINUS_ONE: &str = "a whole number of at least -1";
const SHARE: &str = "a number from 0 to 1";
const NOT_NEGATIVE: &str = "a number of at least 0";
const PENALTY: &str = "a number from -2 to 2";
const REPEAT_PENALTY: &str = "a number above 0";
const SWITCH: &str = "true or false";
const STOPS: &str = "a list of at most 64 non-empty strings of at most 1024 bytes";

impl Options {
    /// Reads the `options` object of a request. `null` means not given.
    ///
    /// # Errors
    /// The first option of a wrong type or out of its range.
    pub fn parse(raw: Map<String, Value>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for (name, value) in raw {
            if !value.is_null() {
                options.set(name, value)?;
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: String, value: Value) -> Result<(), OptionError> {
        let field = Field { name: &name, value: &value };
        match name.as_str() {
            "num_keep" => self.num_keep = Some(field.integer(-1, NOT_BELOW_MINUS_ONE)?),
            "seed" => self.seed = Some(field.integer(i64::MIN, INTEGER)?),
            "num_predict" => self.num_predict = Some(field.integer(-2, "a whole number of at least -2")?),
            "top_k" => self.top_k = Some(field.integer(0, "a whole number of at least 0")?),
            "top_p" => self.top_p = Some(field.number(0.0..=1.0, SHARE)?),
            "min_p" => self.min_p = Some(field.number(0.0..=1.0, SHARE)?),
            "typical_p" => self.typical_p = Some(field.number(0.0..=1.0, SHARE)?),
            "repeat_last_n" => self.repeat_last_n = Some(field.integer(-1, NOT_BELOW_MINUS_ONE)?),
            "temperature" => self.temperature = Some(field.number(0.0..=f64::from(f32::MAX), NOT_NEGATIVE)?),
            "repeat_penalty" => {
                self.repeat_penalty = Some(field.number(f64::from(f32::MIN_POSITIVE)..=f64::from(f32::MAX), REPEAT_PENALTY)?);
            }
            "presence_penalty" => self.presence_penalty = Some(field.number(-2.0..=2.0, PENALTY)?),
            "frequency_penalty" => self.frequency_penalty = Some(field.number(-2.0..=2.0, PENALTY)?),
            "penalize_newline" => self.penalize_newline = Some(field.switch()?),
            "stop" => self.stop = Some(field.stops()?),
            "num_ctx" => self.num_ctx = Some(field.count()?),
            "num_batch" => self.num_batch = Some(field.count()?),
            "num_gpu" => self.num_gpu = Some(field.integer(-1, NOT_BELOW_MINUS_ONE)?),
            "main_gpu" => self.main_gpu = Some(field.integer(-1, NOT_BELOW_MINUS_ONE)?),
            "use_mmap" => self.use_mmap = Some(field.switch()?),
            "num_thread" => self.num_thread = Some(field.count()?),
            "draft_num_predict" => self.draft_num_predict = Some(field.integer(0, "a whole number of at least 0")?),
            _ => {
                self.extra.insert(name, value);
            }
        }
        Ok(())
    }

    /// The options as a backend reads them: only what was given, unknown ones included.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                map.insert(name.to_owned(), value);
            }
        };
        put("num_keep", self.num_keep.map(Value::from));
        put("seed", self.seed.map(Value::from));
        put("num_predict", self.num_predict.map(Value::from));
        put("top_k", self.top_k.map(Value::from));
        put("top_p", self.top_p.map(Value::from));
        put("min_p", self.min_p.map(Value::from));
        put("typical_p", self.typical_p.map(Value::from));
        put("repeat_last_n", self.repeat_last_n.map(Value::from));
        put("temperature", self.temperature.map(Value::from));
        put("repeat_penalty", self.repeat_penalty.map(Value::from));
        put("presence_penalty", self.presence_penalty.map(Value::from));
        put("frequency_penalty", self.frequency_penalty.map(Value::from));
        put("penalize_newline", self.penalize_newline.map(Value::from));
        put("stop", self.stop.clone().map(Value::from));
        put("num_ctx", self.num_ctx.map(Value::from));
        put("num_batch", self.num_batch.map(Value::from));
        put("num_gpu", self.num_gpu.map(Value::from));
        put("main_gpu", self.main_gpu.map(Value::from));
        put("use_mmap", self.use_mmap.map(Value::from));
        put("num_thread", self.num_thread.map(Value::from));
        put("draft_num_predict", self.draft_num_predict.map(Value::from));
        map.extend(self.extra.clone());
        map
    }
}

/// One option on its way in.
struct Field<'a> {
    name: &'a str,
    value: &'a Value,
}

impl Field<'_> {
    fn refused(&self, takes: &'static str) -> OptionError {
        let mut got = self.value.to_string();
        if got.len() > 64 {
            got.truncate(got.floor_char_boundary(61));
            got.push('…');
        }
        OptionError { name: self.name.to_owned(), takes, got }
    }

    fn integer(&self, least: i64, takes: &'static str) -> Result<i64, OptionError> {
        let number = self.value.as_number().and_then(whole);
        number.filter(|n| *n >= least).ok_or_else(|| self.refused(takes))
    }

    fn count(&self) -> Result<u32, OptionError> {
        let count = self.integer(1, POSITIVE)?;
        u32::try_from(count).map_err(|_| self.refused("a whole number from 1 to 4294967295"))
    }

    fn number(&self, range: std::ops::RangeInclusive<f64>, takes: &'static str) -> Result<f64, OptionError> {
        self.value.as_f64().filter(|n| range.contains(n)).ok_or_else(|| self.refused(takes))
    }

    fn switch(&self) -> Result<bool, OptionError> {
        self.value.as_bool().ok_or_else(|| self.refused(SWITCH))
    }

    fn stops(&self) -> Result<Vec<String>, OptionError> {
        let list = self.value.as_array().filter(|list| list.len() <= MAX_STOPS).ok_or_else(|| self.refused(STOPS))?;
        list.iter()
            .map(|stop| stop.as_str().filter(|s| !s.is_empty() && s.len() <= MAX_STOP_BYTES).map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| self.refused(STOPS))
    }
}

/// Whole numbers, also when written `5.0` or `5e0` as some clients do.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the range is checked before the conversion")]
fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        (float.fract() == 0.0 && float.abs() < (1_i64 << 53) as f64).then_some(float as i64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Options, OptionError> {
        let Value::Object(map) = value else { panic!("the test gives an object") };
        Options::parse(map)
    }

    #[test]
    fn what_was_given_comes_out_again_and_nothing_else() {
        let given = json!({"temperature": 0.5, "stop": ["a", "b"], "num_ctx": 4096, "seed": -1, "future_option": {"x": [1]}});
        let options = parse(given.clone()).expect("valid");
        assert_eq!(
            Value::Object(options.to_map()),
            json!({"seed": -1, "temperature": 0.5, "stop": ["a", "b"], "num_ctx": 4096, "future_option": {"x": [1]}})
        );
        assert_eq!(parse(Value::Object(options.to_map())).expect("valid"), options);
    }

    #[test]
    fn null_is_not_given_and_whole_floats_are_whole() {
        assert_eq!(parse(json!({"top_k": null})).expect("valid"), Options::default());
        assert_eq!(parse(json!({"top_k": 40.0})).expect("valid").top_k, Some(40));
    }

    #[test]
    fn each_wrong_option_is_named_with_what_it_takes() {
        for (bad, name) in [
            (json!({"temperature": -0.1}), "temperature"),
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"temperature": 1e300}), "temperature"),
            (json!({"top_p": 1.5}), "top_p"),
            (json!({"top_k": 1.5}), "top_k"),
            (json!({"num_ctx": 0}), "num_ctx"),
            (json!({"num_ctx": 4_294_967_296_u64}), "num_ctx"),
            (json!({"num_predict": -3}), "num_predict"),
            (json!({"seed": 1e30}), "seed"),
            (json!({"stop": "text"}), "stop"),
            (json!({"stop": [""]}), "stop"),
            (json!({"stop": ["x".repeat(2000)]}), "stop"),
            (json!({"use_mmap": 1}), "use_mmap"),
        ] {
            let error = parse(bad).expect_err("must be refused");
            assert_eq!(error.name, name);
            assert!(error.got.len() <= 70, "{error}");
        }
    }
}
