//! The settings of an encoder, from the `config.json` beside its weights.

use std::path::Path;

use serde::Deserialize;

use crate::lm::{Error, Result};

/// What the encoder is built by. Names and meanings are those of `transformers`' `BertConfig`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    pub model_type: String,
    pub vocab_size: usize,
    /// Numbers in a vector.
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    /// Most tokens of a text, the marks at both ends included.
    pub max_position_embeddings: usize,
    pub layer_norm_eps: f64,
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

impl Config {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let unusable = |why: String| Error::Header { key: path.display().to_string(), why };
        let config: Self = serde_json::from_str(&text).map_err(|error| unusable(format!("is no configuration of an encoder: {error}")))?;
        config.check().map_err(unusable)?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let relative = self.position_embedding_type.as_deref().is_some_and(|kind| kind != "absolute");
        if self.model_type != "bert" || self.hidden_act != "gelu" || relative {
            let Self { model_type, hidden_act, .. } = self;
            return Err(format!("describes a `{model_type}` with `{hidden_act}`; BERT with gelu and absolute positions is supported"));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) || self.max_position_embeddings < 3 {
            return Err("contradicts itself: the heads must share the hidden size, and positions are needed for three tokens".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINILM: &str = r#"{"model_type": "bert", "vocab_size": 30522, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
        "intermediate_size": 1536, "max_position_embeddings": 512, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "use_cache": true}"#;

    fn read(text: &str) -> Result<Config> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).expect("written");
        Config::read(&path)
    }

    #[test]
    fn what_cannot_be_built_is_refused() {
        assert_eq!(read(MINILM).expect("supported").hidden_size, 384);
        for (from, to) in [("\"bert\"", "\"roberta\""), ("\"gelu\"", "\"relu\""), ("12,", "7,"), ("12,", "0,"), ("{", "["), ("512", "2")] {
            assert!(read(&MINILM.replacen(from, to, 1)).is_err(), "{from} → {to}");
        }
        assert!(matches!(Config::read(Path::new("/nowhere/config.json")), Err(Error::Io(_))));
    }
}
