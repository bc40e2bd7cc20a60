//! `config.json` of a model of which only the GGUF file is there, from its metadata and tensors.
//!
//! Written as transformers 4 has it, which 5 reads, too. What a GGUF file does not say in so many words is found out where it can be:
//! how rope is scaled, by trying what gives the file's factors. Where something is not known, the error says what to do: give the folder
//! that the file was made from.

use serde_json::{Map, Value, json};

use super::base::{Base, Rows, rows};
use super::error::{Error, Result};
use crate::jobs::convert::config::{Config, Family};
use crate::jobs::convert::metadata::rope_tensors;

/// The configuration of a model.
///
/// # Errors
/// When the file does not say all that is needed.
pub(super) fn reconstructed(base: &Base) -> Result<Value> {
    let mut fields = Fields { base, json: Map::new() };
    let (family, sliding) = (base.family()?, fields.number("attention.sliding_window").is_some());
    let (class, model_type) = class(family, sliding);
    fields.put("architectures", json!([class]));
    fields.put("model_type", json!(model_type));
    fields.sizes()?;
    fields.activation(family);
    fields.attention(family)?;
    fields.rope(family)?;
    fields.tokens();
    Ok(Value::Object(fields.json))
}

fn class(family: Family, sliding: bool) -> (&'static str, &'static str) {
    match family {
        // Nothing else tells a Mistral from a Llama.
        Family::Llama | Family::Mistral if sliding => ("MistralForCausalLM", "mistral"),
        Family::Llama | Family::Mistral => ("LlamaForCausalLM", "llama"),
        Family::Phi3 => ("Phi3ForCausalLM", "phi3"),
        Family::Gemma => ("GemmaForCausalLM", "gemma"),
        Family::Gemma2 => ("Gemma2ForCausalLM", "gemma2"),
        Family::Gemma3 => ("Gemma3ForCausalLM", "gemma3_text"),
        Family::Qwen2 => ("Qwen2ForCausalLM", "qwen2"),
        Family::Qwen3 => ("Qwen3ForCausalLM", "qwen3"),
    }
}

struct Fields<'a> {
    base: &'a Base,
    json: Map<String, Value>,
}

impl Fields<'_> {
    fn put(&mut self, key: &str, value: Value) {
        self.json.insert(key.to_owned(), value);
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.base.count(key)
    }

    fn needed(&self, key: &str) -> Result<u64> {
        self.number(key).ok_or_else(|| unknown(self.base, &format!("its {key}")))
    }

    /// As short as it can be written without being another f32.
    fn decimal(&self, key: &str) -> Option<Value> {
        let number = self.base.header.metadata.f32(&format!("{}.{key}", self.base.architecture()))?;
        number.to_string().parse::<f64>().ok().map(|number| json!(number))
    }

    fn has(&self, tensor: &str) -> bool {
        self.base.header.tensor(tensor).is_some()
    }

    fn head_size(&self) -> Result<u64> {
        let (width, heads) = (self.needed("embedding_length")?, self.needed("attention.head_count")?);
        Ok(self.number("attention.key_length").unwrap_or(width / heads))
    }

    fn sizes(&mut self) -> Result<()> {
        let embedding = self.base.header.tensor("token_embd.weight").ok_or_else(|| unknown(self.base, "its token_embd.weight"))?;
        self.put("vocab_size", json!(rows(embedding)));
        for (theirs, own) in [
            ("hidden_size", "embedding_length"),
            ("intermediate_size", "feed_forward_length"),
            ("num_hidden_layers", "block_count"),
            ("num_attention_heads", "attention.head_count"),
            ("max_position_embeddings", "context_length"),
        ] {
            let number = self.needed(own)?;
            self.put(theirs, json!(number));
        }
        let kv_heads = self.number("attention.head_count_kv").map_or_else(|| self.needed("attention.head_count"), Ok)?;
        self.put("num_key_value_heads", json!(kv_heads));
        self.put("tie_word_embeddings", json!(!self.has("output.weight")));
        let epsilon = self.decimal("attention.layer_norm_rms_epsilon").ok_or_else(|| unknown(self.base, "its norms' epsilon"))?;
        self.put("rms_norm_eps", epsilon);
        Ok(())
    }

    fn activation(&mut self, family: Family) {
        let gelu = "gelu_pytorch_tanh";
        match family {
            Family::Gemma => {
                self.put("hidden_act", json!(gelu));
                self.put("hidden_activation", json!(gelu));
            }
            Family::Gemma2 | Family::Gemma3 => self.put("hidden_activation", json!(gelu)),
            _ => self.put("hidden_act", json!("silu")),
        }
    }

    fn attention(&mut self, family: Family) -> Result<()> {
        let head_size = self.head_size()?;
        if !matches!(family, Family::Phi3 | Family::Qwen2) {
            self.put("head_dim", json!(head_size));
        }
        if !matches!(family, Family::Phi3 | Family::Qwen2 | Family::Mistral) {
            self.put("attention_bias", json!(self.has("blk.0.attn_q.bias")));
        }
        if matches!(family, Family::Gemma2 | Family::Gemma3) {
            let scalar = self.query_scalar(family, head_size)?;
            self.put("query_pre_attn_scalar", json!(scalar));
        }
        if family == Family::Gemma2 {
            for (theirs, own) in
                [("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping")]
            {
                let cap = self.decimal(own).ok_or_else(|| unknown(self.base, own))?;
                self.put(theirs, cap);
            }
        }
        match (family, self.number("attention.sliding_window")) {
            (Family::Gemma2 | Family::Gemma3, None) => return Err(unknown(self.base, "its attention.sliding_window")),
            // What llama.cpp's converter writes for Phi-3 without a window is larger than the context.
            (Family::Qwen2 | Family::Qwen3 | Family::Gemma, _) | (_, None) => {}
            (_, Some(window)) => self.put("sliding_window", json!(window)),
        }
        if family == Family::Gemma3 {
            self.put("sliding_window_pattern", json!(6));
            if let Some(cap) = self.decimal("final_logit_softcapping") {
                self.put("final_logit_softcapping", cap);
            }
        }
        Ok(())
    }

    /// By the root of which products of queries and keys are divided. GGUF files do not say it; llama.cpp, too, knows the exceptions by
    /// the number of their layers.
    fn query_scalar(&self, family: Family, head_size: u64) -> Result<u64> {
        let exception = if family == Family::Gemma2 { 46 } else { 62 };
        let share = self.needed("embedding_length")? / self.needed("attention.head_count")?;
        Ok(if self.needed("block_count")? == exception { share } else { head_size })
    }

    fn rope(&mut self, family: Family) -> Result<()> {
        let base = self.decimal("rope.freq_base").unwrap_or_else(|| json!(10_000.0));
        self.put("rope_theta", base);
        if family == Family::Gemma3 {
            let local = self.decimal("rope.freq_base_swa").unwrap_or_else(|| json!(10_000.0));
            self.put("rope_local_base_freq", local);
        }
        if family == Family::Phi3 {
            return self.long_rope();
        }
        if self.has("rope_freqs.weight") {
            return self.llama3();
        }
        let factor = self.decimal("rope.scaling.factor");
        let metadata = &self.base.header.metadata;
        match (metadata.str(&format!("{}.rope.scaling.type", self.base.architecture())), factor) {
            (None | Some("none"), _) => Ok(()),
            (Some("linear"), Some(factor)) => {
                self.put("rope_scaling", json!({"rope_type": "linear", "factor": factor}));
                Ok(())
            }
            (Some("yarn"), Some(factor)) => self.yarn(&factor),
            (kind, _) => Err(unknown(self.base, &format!("how its rope is scaled ({:.40?})", kind.unwrap_or_default()))),
        }
    }

    fn yarn(&mut self, factor: &Value) -> Result<()> {
        let mut scaling = Map::new();
        scaling.insert("rope_type".to_owned(), json!("yarn"));
        scaling.insert("factor".to_owned(), factor.clone());
        let original = self.needed("rope.scaling.original_context_length")?;
        scaling.insert("original_max_position_embeddings".to_owned(), json!(original));
        for (theirs, own) in [
            ("extrapolation_factor", "rope.scaling.yarn_ext_factor"),
            ("attention_factor", "rope.scaling.yarn_attn_factor"),
            ("beta_fast", "rope.scaling.yarn_beta_fast"),
            ("beta_slow", "rope.scaling.yarn_beta_slow"),
        ] {
            if let Some(number) = self.decimal(own) {
                scaling.insert(theirs.to_owned(), number);
            }
        }
        self.put("rope_scaling", Value::Object(scaling));
        Ok(())
    }

    fn long_rope(&mut self) -> Result<()> {
        let rotated = self.number("rope.dimension_count").map_or_else(|| self.head_size(), Ok)?;
        let head_size = self.head_size()?;
        if rotated != head_size {
            #[expect(clippy::cast_precision_loss, reason = "heads are small")]
            self.put("partial_rotary_factor", json!(rotated as f64 / head_size as f64));
        }
        if let Some(original) = self.number("rope.scaling.original_context_length") {
            self.put("original_max_position_embeddings", json!(original));
        }
        let (Some(long), Some(short)) = (factors(self.base, "rope_factors_long.weight")?, factors(self.base, "rope_factors_short.weight")?)
        else {
            return Ok(());
        };
        self.put("rope_scaling", json!({"type": "longrope", "long_factor": decimals(&long), "short_factor": decimals(&short)}));
        Ok(())
    }

    /// The file has the factor of each frequency; the settings that give them are found by trying.
    fn llama3(&mut self) -> Result<()> {
        let wanted = factors(self.base, "rope_freqs.weight")?.unwrap_or_default();
        let factor = wanted.iter().copied().fold(1.0, f32::max);
        for original in (4..=20).map(|power| 1_u64 << power) {
            let scaling = json!({
                "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            });
            self.put("rope_scaling", scaling);
            let tried = rope_tensors(&Config::parse(Value::Object(self.json.clone()))?)?.0;
            let close = |a: &f32, b: &f32| (a - b).abs() <= 1e-5 * b.abs();
            if tried.first().is_some_and(|(_, tried)| tried.len() == wanted.len() && tried.iter().zip(&wanted).all(|(a, b)| close(a, b))) {
                return Ok(());
            }
        }
        Err(unknown(self.base, "how its rope is scaled"))
    }

    fn tokens(&mut self) {
        for (theirs, own) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
            if let Some(id) = self.base.header.metadata.u32(&format!("tokenizer.ggml.{own}_token_id")) {
                self.put(theirs, json!(id));
            }
        }
    }
}

fn unknown(base: &Base, what: &str) -> Error {
    Error::impossible(format!(
        "{} does not say {what}, without which there can be no config.json; give the folder that the file was made from",
        base.path.display()
    ))
}

/// All numbers of a small tensor.
fn factors(base: &Base, name: &str) -> Result<Option<Vec<f32>>> {
    let Some(tensor) = base.header.tensor(name) else { return Ok(None) };
    let mut numbers = Vec::new();
    base.numbers(tensor, Rows { first: 0, count: rows(tensor) }, &mut Vec::new(), &mut numbers)?;
    Ok(Some(numbers))
}

fn decimals(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().filter_map(|number| number.to_string().parse().ok()).collect()
}
