//! The settings of the process that runs a model: a request with others has the model loaded anew, for everyone. Pure.

use serde_json::Value;

use super::policy::Config;
use crate::domain::generation::Ask;

/// `shift` stands beside the options in a request, and is part of what a runner is all the same.
const SHIFT: &str = "shift";

/// The settings of a runner. `None`: the model's or the server's own.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Runner {
    pub num_ctx: Option<u32>,
    pub num_batch: Option<u32>,
    pub num_gpu: Option<i64>,
    pub main_gpu: Option<i64>,
    pub use_mmap: Option<bool>,
    pub num_thread: Option<u32>,
    pub draft_num_predict: Option<i64>,
    pub shift: Option<bool>,
}

impl Runner {
    /// What a request asks for.
    pub fn asked(ask: &Ask) -> Self {
        let options = &ask.options;
        // The server reads names of fields without regard to case; of several the last one counts.
        let shift =
            ask.extra.iter().filter(|(name, _)| name.eq_ignore_ascii_case(SHIFT)).filter_map(|(_, value)| value.as_bool()).next_back();
        Self {
            num_ctx: options.num_ctx,
            num_batch: options.num_batch,
            num_gpu: options.num_gpu,
            main_gpu: options.main_gpu,
            use_mmap: options.use_mmap,
            num_thread: options.num_thread,
            draft_num_predict: options.draft_num_predict,
            shift,
        }
    }

    /// What a policy sets.
    pub fn of_policy(policy: &Config) -> Self {
        Self {
            num_ctx: policy.num_ctx,
            num_batch: policy.num_batch,
            num_gpu: policy.num_gpu,
            main_gpu: policy.main_gpu,
            use_mmap: policy.use_mmap,
            num_thread: policy.num_thread,
            draft_num_predict: policy.draft_num_predict,
            shift: policy.shift,
        }
    }

    /// Makes a request ask for exactly these.
    pub fn put(&self, ask: &mut Ask) {
        let options = &mut ask.options;
        options.num_ctx = self.num_ctx;
        options.num_batch = self.num_batch;
        options.num_gpu = self.num_gpu;
        options.main_gpu = self.main_gpu;
        options.use_mmap = self.use_mmap;
        options.num_thread = self.num_thread;
        options.draft_num_predict = self.draft_num_predict;
        if ask.extra.keys().any(|name| name.eq_ignore_ascii_case(SHIFT)) {
            ask.extra.retain(|name, _| !name.eq_ignore_ascii_case(SHIFT));
        }
        if let Some(shift) = self.shift {
            ask.extra.insert(SHIFT.to_owned(), shift.into());
        }
    }

    /// These, with the other's where these say nothing.
    pub fn or(self, other: &Self) -> Self {
        Self {
            num_ctx: self.num_ctx.or(other.num_ctx),
            num_batch: self.num_batch.or(other.num_batch),
            num_gpu: self.num_gpu.or(other.num_gpu),
            main_gpu: self.main_gpu.or(other.main_gpu),
            use_mmap: self.use_mmap.or(other.use_mmap),
            num_thread: self.num_thread.or(other.num_thread),
            draft_num_predict: self.draft_num_predict.or(other.draft_num_predict),
            shift: self.shift.or(other.shift),
        }
    }

    /// Name, as an error or a remark names the field, and value.
    pub fn fields(&self) -> [(&'static str, Option<Value>); 8] {
        [
            ("options.draft_num_predict", self.draft_num_predict.map(Value::from)),
            ("options.main_gpu", self.main_gpu.map(Value::from)),
            ("options.num_batch", self.num_batch.map(Value::from)),
            ("options.num_ctx", self.num_ctx.map(Value::from)),
            ("options.num_gpu", self.num_gpu.map(Value::from)),
            ("options.num_thread", self.num_thread.map(Value::from)),
            ("options.use_mmap", self.use_mmap.map(Value::from)),
            (SHIFT, self.shift.map(Value::from)),
        ]
    }

    /// One text for equal settings, another for other ones.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        for (name, value) in self.fields() {
            let Some(value) = value else { continue };
            if !shape.is_empty() {
                shape.push(' ');
            }
            shape.push_str(name.trim_start_matches("options."));
            shape.push('=');
            shape.push_str(&value.to_string());
        }
        if shape.is_empty() { "default".to_owned() } else { shape }
    }
}
