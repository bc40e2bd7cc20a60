//! What is known of a model that can be asked for.

use serde::{Deserialize, Serialize};

use super::id::ModelName;

/// One model on one backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    pub name: ModelName,
    /// Content digest (64 hexadecimal digits), where the backend knows one.
    pub digest: Option<String>,
    /// Family of architectures, e.g. `gemma3`.
    pub family: Option<String>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Quantisation of most weights, e.g. `Q4_K_M`.
    pub quantization: Option<String>,
    /// Longest context the model was trained for, in tokens.
    pub context_length: Option<u32>,
    /// Size of the weights' file, in bytes.
    pub size_bytes: Option<u64>,
    /// Whether the weights are in memory now.
    pub loaded: bool,
}

/// Families whose models only turn texts into vectors.
const ENCODERS: [&str; 4] = ["bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2"];

impl ModelInfo {
    /// Whether it can be asked to generate. Of a model whose family is not known that is believed.
    #[must_use]
    pub fn generates(&self) -> bool {
        self.family.as_deref().is_none_or(|family| !ENCODERS.contains(&family))
    }

    /// A model of which nothing but the name is known.
    #[must_use]
    pub fn named(name: ModelName) -> Self {
        Self {
            name,
            digest: None,
            family: None,
            parameters: None,
            quantization: None,
            context_length: None,
            size_bytes: None,
            loaded: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoders_do_not_generate() {
        let info = |family: Option<&str>| ModelInfo {
            family: family.map(str::to_owned),
            ..ModelInfo::named(ModelName::parse("m").expect("a name"))
        };
        assert!(info(None).generates() && info(Some("gemma3")).generates() && !info(Some("bert")).generates());
    }
}
