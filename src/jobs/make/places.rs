//! Where the files of a wish lie, and what can be compared with them.

use std::path::PathBuf;

use serde_json::Value;

use super::installed;
use super::kind::wrong;
use super::wish::{Named, Places, Wish, source_at};
use crate::gguf::file_type::FileType;
use crate::jobs::convert::Source;
use crate::jobs::kind::{Fault, Ground};

/// Longest `config.json` that is looked at.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Finds the files of a wish; `resolve` finds a path that a client names.
pub(super) fn find(
    wish: &Wish,
    ground: &Ground,
    fetched: Option<PathBuf>,
    resolve: impl Fn(&str) -> Result<PathBuf, Fault>,
) -> Result<Places, Fault> {
    let source = match (fetched, Named::of(&wish.source)) {
        (Some(fetched), _) => fetched,
        (None, Named::Ollama(tag)) => installed::weights(&ground.installed, tag).map_err(|error| Fault::Input(error.to_string()))?,
        (None, Named::Path(path) | Named::Hub(path)) => resolve(path)?,
    };
    let optional = |path: &Option<String>| path.as_deref().map(&resolve).transpose();
    let source = source_at(source, optional(&wish.base)?).map_err(|error| wrong(&error))?;
    Ok(Places { source, adapter: optional(&wish.adapter)?, imatrix: optional(&wish.imatrix)? })
}
/// What a conversion can be compared with is a GGUF file of the very model: neither a folder nor what an adapter is merged into.
pub(super) fn needs_reference(places: &Places) -> bool {
    places.adapter.is_some() || matches!(places.source, Source::Folder(_))
}

/// The type that keeps what the source has: half precision as it is, and everything else as bfloat16, as models are trained.
#[must_use]
pub fn reference_type(places: &Places) -> FileType {
    let Source::Folder(folder) = &places.source else { return FileType::BF16 };
    let text = std::fs::File::open(folder.join("config.json")).and_then(|file| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut std::io::Read::take(file, MAX_CONFIG_BYTES), &mut text).map(|_| text)
    });
    let config: Value = text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    match config["dtype"].as_str().or_else(|| config["torch_dtype"].as_str()) {
        Some("float16") => FileType::F16,
        Some("float32") => FileType::F32,
        _ => FileType::BF16,
    }
}
