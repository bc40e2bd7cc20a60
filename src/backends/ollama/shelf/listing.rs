//! Which models are there, and which of them are the same.

use http::Method;
use serde::{Deserialize, Deserializer};

use super::{Error, Shelf};
use crate::domain::id::ModelName;

/// A model of the server's list. Two names with one digest are one model.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    pub name: String,
    /// Of everything that makes the model, parameters and texts included.
    #[serde(default)]
    pub digest: String,
    /// As the server writes it.
    #[serde(default)]
    pub modified_at: String,
}

impl Listed {
    /// Whether this is the model of that name.
    #[must_use]
    pub fn is(&self, name: &ModelName) -> bool {
        ModelName::parse(&self.name).is_ok_and(|own| own == *name)
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(deserialize_with = "no_null")]
    models: Vec<Listed>,
}

/// Go writes an empty list as `null`.
fn no_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Listed>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Shelf {
    /// All models.
    pub async fn list(&self) -> Result<Vec<Listed>, Error> {
        let list = self.client.json::<List>(Method::GET, "/api/tags", None, self.patience.answer).await?;
        Ok(list.models)
    }
}
