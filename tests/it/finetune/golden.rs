//! A run of `tests/golden/finetune.py`, in the names and the order of the GGUF file that it began with.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use arriero::gguf::Header;
use arriero::jobs::finetune::batch::Row;
use arriero::jobs::finetune::learner::Tensors;
use candle_core::{Device, Tensor};
use serde_json::Value;

/// Parts of a layer, as Hugging Face calls them and as llama.cpp does.
const PARTS: [(&str, &str); 11] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

/// What a parameter is to its part, as peft calls it and as it is called here.
const KINDS: [(&str, &str); 4] =
    [("lora_A.weight", "lora_a"), ("lora_B.weight", "lora_b"), ("lora_magnitude_vector", "magnitude"), ("weight", "weight")];

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub fn json(name: &str) -> Value {
    let path = folder().join("finetune").join(format!("{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

pub fn whole(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or_else(|| panic!("{value} is no whole number"))
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

pub fn tokens(value: &Value) -> Vec<u32> {
    list(value).iter().map(|token| u32::try_from(whole(token)).expect("a token")).collect()
}

/// Rows with labels on what follows their prompts.
pub fn rows_of(value: &Value) -> Vec<Row> {
    let row = |row: &Value| {
        let (tokens, prompt) = (tokens(&row["tokens"]), whole(&row["prompt"]));
        let weights = (0..tokens.len()).map(|at| if at < prompt { 0.0 } else { 1.0 }).collect();
        Row { tokens, weights }
    };
    list(value).iter().map(row).collect()
}

pub struct Golden {
    pub json: Value,
    /// The GGUF file of the model.
    pub path: PathBuf,
    pub header: Header,
    tensors: HashMap<String, Tensor>,
}

impl Golden {
    pub fn load(name: &str) -> Self {
        let json = json(name);
        let model = json["settings"]["model"].as_str().expect("a name");
        let path = folder().join(format!("lm_{model}.gguf"));
        let header = Header::read_file(&path).expect("a header");
        let tensors = folder().join("finetune").join(format!("{name}.safetensors"));
        let tensors = candle_core::safetensors::load(tensors, &Device::Cpu).expect("tensors");
        Self { json, path, header, tensors }
    }

    pub fn setting(&self, name: &str) -> &Value {
        &self.json["settings"][name]
    }

    /// What the file has under `part`: `start`, `gradient` or `end`.
    pub fn tensors(&self, part: &str) -> Tensors {
        let ours = |(name, tensor): (&String, &Tensor)| {
            let theirs = name.strip_prefix(part)?.strip_prefix('.')?;
            let name = name_of(theirs);
            let tensor = self.in_order_of_file(&name, tensor);
            Some((name, tensor))
        };
        self.tensors.iter().filter_map(ours).collect()
    }

    pub fn logits(&self) -> Vec<Vec<f32>> {
        self.tensors["logits"].to_vec2().expect("a matrix")
    }

    /// llama.cpp's converter lays the rows of Llama's queries and keys so that the two of a pair are neighbours.
    fn in_order_of_file(&self, name: &str, tensor: &Tensor) -> Tensor {
        let heads = match name.split('.').nth(2) {
            Some("attn_q") => "llama.attention.head_count",
            Some("attn_k") => "llama.attention.head_count_kv",
            _ => return tensor.clone(),
        };
        let Some(heads) = self.header.metadata.u32(heads).filter(|_| !name.ends_with("lora_a")) else { return tensor.clone() };
        let rows = u32::try_from(tensor.dims()[0]).expect("small");
        let half = rows / heads / 2;
        let theirs: Vec<u32> = (0..rows).map(|row| row / (2 * half) * 2 * half + row % 2 * half + row % (2 * half) / 2).collect();
        tensor.index_select(&Tensor::new(theirs, &Device::Cpu).expect("indices"), 0).expect("rows")
    }
}

/// What a parameter of Hugging Face is called here.
pub fn name_of(theirs: &str) -> String {
    let name = theirs.strip_prefix("base_model.model.").unwrap_or(theirs).trim_start_matches("model.");
    match name {
        "embed_tokens.weight" => "token_embd.weight".to_owned(),
        "norm.weight" => "output_norm.weight".to_owned(),
        _ => name_in_layer(name).unwrap_or_else(|| panic!("{theirs} has no name here")),
    }
}

fn name_in_layer(name: &str) -> Option<String> {
    let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
    let (part, kind) = PARTS.iter().find_map(|(theirs, ours)| Some((ours, rest.strip_prefix(theirs)?.strip_prefix('.')?)))?;
    let (_, kind) = KINDS.iter().find(|(theirs, _)| *theirs == kind)?;
    Some(format!("blk.{layer}.{part}.{kind}"))
}
