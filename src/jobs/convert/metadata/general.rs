//! `general.*`: what the model is called, who made it, from what, and under which licence.
//!
//! Sources in the order of gguf-py's `metadata.py`: the model card, `_name_or_path` of the configuration, the folder's name.

use serde_json::Value as Json;

use super::super::config::Config;
use super::super::error::Result;
use super::super::folder::Folder;
use super::Pairs;
use super::card::Card;
use super::naming::{Parts, Size, parts, title};
use crate::gguf::Value;

/// What is known besides the model's numbers.
#[derive(Debug, Default)]
pub(in crate::jobs::convert) struct General {
    texts: Vec<(&'static str, String)>,
    sampling: Option<Json>,
    base_models: Option<Vec<Origin>>,
    datasets: Option<Vec<Origin>>,
    tags: Vec<String>,
    languages: Vec<String>,
}

/// A model or data set that another came from.
#[derive(Debug, Default, PartialEq, Eq)]
struct Origin {
    parts: Parts,
    repo_url: Option<String>,
}

/// Texts of a card by the key they become, in the order in which they count: the first that is there wins.
const CARD: &[(&str, &[&str])] = &[
    ("name", &["name", "model_name"]),
    ("author", &["author", "model_author", "model_creator"]),
    ("version", &["version", "model_version"]),
    ("organization", &["organization", "model_organization"]),
    ("finetune", &["finetune", "model_finetune"]),
    ("basename", &["basename", "model_basename", "model_type"]),
    ("description", &["description", "model_description"]),
    ("size_label", &["size_label", "model_size_label"]),
    ("license", &["license"]),
    ("license.name", &["license_name"]),
    ("license.link", &["license_link"]),
    ("source.url", &["url", "model_url"]),
    ("source.doi", &["doi", "model_doi"]),
    ("source.uuid", &["uuid", "model_uuid"]),
    ("source.repo_url", &["repo_url", "model_repo_url"]),
];

/// The order in which they are written, around the size label.
const ORDER: &[&str] = &[
    "name",
    "author",
    "version",
    "organization",
    "finetune",
    "basename",
    "description",
    "size_label",
    "license",
    "license.name",
    "license.link",
    "source.url",
    "source.doi",
    "source.uuid",
    "source.repo_url",
];

impl General {
    /// `name` is what the user calls the model.
    pub(in crate::jobs::convert) fn read(folder: &Folder, config: &Config, size: Size, name: Option<&str>) -> Result<Self> {
        let card = folder.text("README.md")?.map(|readme| Card::parse(&readme)).unwrap_or_default();
        let mut general = Self::of_card(&card, size);
        // A setting that is no model's name but somebody's path says nothing.
        let path = config.raw.get("_name_or_path").and_then(Json::as_str).filter(|path| path.matches('/').count() <= 1);
        let path = path.filter(|_| matches!(size, Size::Model(_)));
        for id in path.into_iter().chain([folder.name().as_str()]) {
            general.fill(parts(id, size));
        }
        if let Some(name) = name {
            general.texts.retain(|(key, _)| *key != "name");
            general.texts.push(("name", name.to_owned()));
        }
        if let Size::Model(weights) = size {
            general.offer("size_label", Some(size_label(weights)));
        }
        general.sampling = folder.json("generation_config.json").ok().flatten();
        Ok(general)
    }

    fn of_card(card: &Card, size: Size) -> Self {
        let mut general = Self::default();
        for (key, names) in CARD {
            general.offer(key, names.iter().find_map(|name| card.text(name)).map(str::to_owned));
        }
        let first = |names: &[&str]| names.iter().find_map(|name| card.list(name));
        if general.text("license").is_none() {
            general.offer("license", card.list("license").map(|several| several.join(",")));
        }
        let origins = |ids: Vec<String>| ids.iter().map(|id| Origin::of(id, size)).collect();
        general.base_models = first(&["base_model", "base_models", "base_model_sources"]).map(origins);
        general.datasets = first(&["datasets", "dataset", "dataset_sources"]).map(origins);
        general.tags = ["tags", "pipeline_tag"].into_iter().filter_map(|key| card.list(key)).flatten().collect();
        general.languages = ["languages", "language"].into_iter().filter_map(|key| card.list(key)).flatten().collect();
        general
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.texts.iter().find(|(known, _)| *known == key).map(|(_, text)| text.as_str())
    }

    /// Takes a text unless there is one.
    fn offer(&mut self, key: &'static str, text: Option<String>) {
        if let (None, Some(text)) = (self.text(key), text) {
            self.texts.push((key, text));
        }
    }

    fn fill(&mut self, parts: Parts) {
        self.offer("name", parts.full.as_deref().map(title));
        self.offer("organization", parts.organization.as_deref().map(title));
        self.offer("basename", parts.base);
        self.offer("finetune", parts.finetune);
        self.offer("version", parts.version);
        self.offer("size_label", parts.size);
    }

    /// Writes everything from the recommended sampling to the languages.
    pub(in crate::jobs::convert) fn write(&self, pairs: &mut Pairs) {
        self.write_sampling(pairs);
        for key in ORDER {
            pairs.string(format!("general.{key}"), self.text(key).unwrap_or_default());
        }
        for (kind, origins) in [("base_model", &self.base_models), ("dataset", &self.datasets)] {
            let Some(origins) = origins else { continue };
            pairs.u32(format!("general.{kind}.count"), origins.len() as u64);
            for (index, origin) in origins.iter().enumerate() {
                origin.write(pairs, &format!("general.{kind}.{index}"));
            }
        }
        pairs.strings("general.tags", &self.tags);
        pairs.strings("general.languages", &self.languages);
    }

    fn write_sampling(&self, pairs: &mut Pairs) {
        let Some(sampling) = &self.sampling else { return };
        let given = |names: &[&str]| names.iter().find_map(|name| sampling.get(name)).filter(|value| !value.is_null());
        if let Some(Json::String(sequence)) = given(&["sequence"]) {
            pairs.string("general.sampling.sequence", sequence);
        }
        for (key, names, whole) in SAMPLING {
            let Some(value) = given(names) else { continue };
            let key = format!("general.sampling.{key}");
            match (whole, value.as_i64().and_then(|number| i32::try_from(number).ok()), value.as_f64()) {
                (true, Some(number), _) => pairs.set(key, Value::I32(number)),
                (false, _, Some(number)) => pairs.f32(key, number),
                _ => {}
            }
        }
    }
}

/// Settings of a generation configuration: the key, its names there, whether it is a whole number.
const SAMPLING: &[(&str, &[&str], bool)] = &[
    ("top_k", &["top_k"], true),
    ("top_p", &["top_p"], false),
    ("min_p", &["min_p"], false),
    ("xtc_probability", &["xtc_probability"], false),
    ("xtc_threshold", &["xtc_threshold"], false),
    ("temp", &["temperature"], false),
    ("penalty_last_n", &["penalty_last_n"], true),
    ("penalty_repeat", &["penalty_repeat", "repetition_penalty"], false),
    ("mirostat", &["mirostat"], true),
    ("mirostat_tau", &["mirostat_tau"], false),
    ("mirostat_eta", &["mirostat_eta"], false),
];

const HUB: &str = "https://huggingface.co/";

impl Origin {
    fn of(id: &str, size: Size) -> Self {
        if !["http://", "https://", "ssh://"].iter().any(|scheme| id.starts_with(scheme)) {
            let parts = parts(id, size);
            let repo_url = parts.organization.as_ref().zip(parts.full.as_ref()).map(|(owner, name)| format!("{HUB}{owner}/{name}"));
            return Self { parts, repo_url };
        }
        let named = id.replacen("http://", "https://", 1);
        let named = named.strip_prefix(HUB).filter(|rest| rest.split('/').count() == 2 && !rest.split('/').any(str::is_empty));
        Self { parts: named.map(|name| parts(name, size)).unwrap_or_default(), repo_url: Some(id.to_owned()) }
    }

    fn write(&self, pairs: &mut Pairs, prefix: &str) {
        let titled = |text: &Option<String>| text.as_deref().map(title).unwrap_or_default();
        pairs.string(format!("{prefix}.name"), &titled(&self.parts.full));
        pairs.string(format!("{prefix}.version"), self.parts.version.as_deref().unwrap_or_default());
        pairs.string(format!("{prefix}.organization"), &titled(&self.parts.organization));
        pairs.string(format!("{prefix}.repo_url"), self.repo_url.as_deref().unwrap_or_default());
    }
}

/// The number of weights as people say it, in at least two digits: `7.2B`, `494M`.
#[expect(clippy::cast_precision_loss, reason = "two digits of it are wanted")]
fn size_label(parameters: u64) -> String {
    let count = parameters as f64;
    let (scaled, unit) = match count {
        count if count > 1e12 => (count * 1e-12, 'T'),
        count if count > 1e9 => (count * 1e-9, 'B'),
        count if count > 1e6 => (count * 1e-6, 'M'),
        count => (count * 1e-3, 'K'),
    };
    let whole = scaled.round_ties_even();
    let digits = if whole == 0.0 { 0 } else { format!("{whole:.0}").len() };
    format!("{scaled:.*}{unit}", 2_usize.saturating_sub(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_two_digits() {
        for (parameters, label) in [(7_241_732_096, "7.2B"), (494_032_768, "494M"), (14_200_000, "14M"), (999, "1.0K"), (120, "0.12K")] {
            assert_eq!(size_label(parameters), label);
        }
    }

    #[test]
    fn origins_on_the_hub_are_named() {
        let origin = Origin::of("Qwen/Qwen2.5-0.5B", Size::Model(0));
        assert_eq!(origin.repo_url.as_deref(), Some("https://huggingface.co/Qwen/Qwen2.5-0.5B"));
        let url = Origin::of("https://huggingface.co/Qwen/Qwen2.5-0.5B", Size::Model(0));
        assert_eq!((url.parts, url.repo_url), (origin.parts, origin.repo_url));
        let other = Origin::of("https://example.com/a/b", Size::Model(0));
        assert_eq!((other.parts, other.repo_url.as_deref()), (Parts::default(), Some("https://example.com/a/b")));
    }
}
