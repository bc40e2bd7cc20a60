//! What a merged file says of itself: what it is called, what it was made from and how, and how it is stored.

use std::collections::BTreeMap;

use super::base::Base;
use crate::gguf::choose::quantized_metadata;
use crate::gguf::file_type::FileType;
use crate::gguf::{Metadata, TensorInfo, TensorKind, Value};

/// Where a model came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    /// What the model is called; `None`: as the base, with `fine-tuned` behind it.
    pub name: Option<String>,
    pub description: Option<String>,
    /// Where the base is to be had, for example its page on the Hub.
    pub base_url: Option<String>,
    /// What else is to be kept with the model, by plain words: the hash of the data, the digest of the base, options, figures. Written
    /// as `arriero.finetune.…`.
    pub notes: BTreeMap<String, String>,
}

/// Keys that say of the base what is not true of the result.
const NOT_INHERITED: [&str; 12] = [
    "general.name",
    "general.description",
    "general.finetune",
    "general.version",
    "general.url",
    "general.doi",
    "general.uuid",
    "general.repo_url",
    "general.source.url",
    "general.source.doi",
    "general.source.uuid",
    "general.source.repo_url",
];

/// The metadata of the base with the new name, the base as where it came from, and the type of most weights now.
pub(super) fn metadata(base: &Base, file_type: FileType, lineage: &Lineage) -> Metadata {
    let old = &base.header.metadata;
    let text = |key: &str| old.str(key).filter(|text| !text.is_empty());
    let base_name = text("general.name").or(text("general.basename")).unwrap_or("a model without a name");
    let mut source = Metadata::default();
    for (key, value) in old.iter().filter(|(key, _)| is_inherited(key, old, file_type)) {
        source.push(key, value.clone());
    }
    let name = lineage.name.clone().unwrap_or_else(|| format!("{base_name} fine-tuned"));
    let mut set = |key: &str, text: Option<&str>| {
        if let Some(text) = text {
            source.set(key, Value::String(text.to_owned()));
        }
    };
    set("general.name", Some(&name));
    set("general.finetune", Some("fine-tuned"));
    set("general.description", lineage.description.as_deref());
    set("general.base_model.0.name", Some(base_name));
    set("general.base_model.0.version", text("general.version"));
    set("general.base_model.0.organization", text("general.organization"));
    let url = lineage.base_url.as_deref().or(text("general.repo_url")).or(text("general.source.repo_url"));
    set("general.base_model.0.repo_url", url);
    for (key, note) in &lineage.notes {
        set(&format!("arriero.finetune.{key}"), Some(note));
    }
    source.set("general.base_model.count", Value::U32(1));
    quantized_metadata(&source, file_type, None)
}

fn is_inherited(key: &str, old: &Metadata, file_type: FileType) -> bool {
    // What the base was made with says little of a file that is mostly stored otherwise.
    let same = old.u32("general.file_type") == Some(file_type.code());
    !NOT_INHERITED.contains(&key) && !key.starts_with("general.base_model.") && (same || !key.starts_with("quantize.imatrix."))
}

/// The base's own type while most weights of matrices are as there; else that of the format that most weights have now.
pub(super) fn file_type(base: &Base, kinds: &[TensorKind]) -> FileType {
    let own = base.header.metadata.u32("general.file_type").and_then(FileType::from_code);
    let (mut kept, mut all, mut by_kind) = (0, 0, Vec::<(TensorKind, u64)>::new());
    let is_matrix = |tensor: &TensorInfo| tensor.dimensions.len() > 1;
    for (tensor, kind) in base.header.tensors.iter().zip(kinds).filter(|(tensor, _)| is_matrix(tensor)) {
        let weights = tensor.elements();
        all += weights;
        kept += if tensor.kind == *kind { weights } else { 0 };
        match by_kind.iter_mut().find(|(known, _)| known == kind) {
            Some((_, sum)) => *sum += weights,
            None => by_kind.push((*kind, weights)),
        }
    }
    let most = by_kind.iter().max_by_key(|(_, weights)| *weights).map_or(TensorKind::F32, |(kind, _)| *kind);
    let of_most = FileType::ALL.iter().copied().find(|file_type| file_type.base() == most);
    own.filter(|_| 2 * kept > all).or(of_most).or(own).unwrap_or(FileType::F32)
}
