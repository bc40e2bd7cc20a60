//! Models that an Ollama on this machine has: where the weights of a tag lie.
//!
//! Ollama keeps a manifest for each tag (`manifests/HOST/NAMESPACE/MODEL/TAG`, JSON) and files by their digest (`blobs/sha256-HEX`). Only read.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::domain::digest::Digest;

const HOST: &str = "registry.ollama.ai";
const NAMESPACE: &str = "library";
const TAG: &str = "latest";

/// The layer that is a model's weights.
const WEIGHTS: &str = "application/vnd.ollama.image.model";

/// Far above any manifest's size.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// Why a tag leads to no file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{tag}` is no name of an Ollama model: write it as [host/][namespace/]model[:tag]")]
    Name { tag: String },
    #[error("Ollama has no model `{tag}` in {}; `ollama list` names those it has, and `jobs.ollama_models` says where they lie", folder.display())]
    Missing { tag: String, folder: PathBuf },
    #[error("what Ollama keeps of `{tag}` cannot be read ({why}); `ollama pull {tag}` brings it anew")]
    Broken { tag: String, why: String },
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: Digest,
}

/// The file with the weights of a tag; `folder` is where Ollama keeps its models.
///
/// # Errors
/// A name that is none, one that Ollama does not have, or files that are not as they should be.
pub fn weights(folder: &Path, tag: &str) -> Result<PathBuf, Error> {
    let place = place(tag).ok_or_else(|| Error::Name { tag: shown(tag) })?;
    let broken = |why: String| Error::Broken { tag: shown(tag), why };
    let file = match File::open(folder.join("manifests").join(place)) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Missing { tag: shown(tag), folder: folder.to_owned() });
        }
        Err(error) => return Err(broken(error.to_string())),
    };
    let manifest: Manifest = serde_json::from_reader(file.take(MAX_MANIFEST_BYTES)).map_err(|error| broken(error.to_string()))?;
    let mut weights = manifest.layers.iter().filter(|layer| layer.media_type == WEIGHTS);
    let blob = |layer: &Layer| folder.join("blobs").join(format!("sha256-{}", layer.digest.hex()));
    match (weights.next().map(blob), weights.next()) {
        (Some(path), None) if path.is_file() => Ok(path),
        (Some(path), None) => Err(broken(format!("{} is missing", path.display()))),
        (Some(_), Some(_)) => Err(broken("its weights lie in several files, which is not supported".to_owned())),
        (None, _) => Err(broken("it has no weights of its own".to_owned())),
    }
}

/// Where the manifest of a tag lies below `manifests`. Parts that could lead elsewhere are refused.
fn place(tag: &str) -> Option<PathBuf> {
    let (path, tag) = match tag.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (tag, TAG),
    };
    let parts: Vec<&str> = path.split('/').collect();
    let [host, namespace, model] = match parts[..] {
        [model] => [HOST, NAMESPACE, model],
        [namespace, model] => [HOST, namespace, model],
        [host, namespace, model] => [host, namespace, model],
        _ => return None,
    };
    let all = [host, namespace, model, tag];
    let plain = |part: &str, also: &[u8]| {
        part.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
    };
    // A host may have a port.
    let right = plain(host, b"-_.:") && all[1..].iter().all(|part| plain(part, b"-_."));
    right.then(|| all.iter().collect())
}

fn shown(text: &str) -> String {
    text.chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ollama(manifest: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let tags = folder.path().join("manifests/registry.ollama.ai/library/gemma3");
        std::fs::create_dir_all(&tags).expect("made");
        std::fs::create_dir_all(folder.path().join("blobs")).expect("made");
        std::fs::write(tags.join("270m"), manifest).expect("written");
        folder
    }

    #[test]
    fn a_tag_leads_to_its_weights() {
        let hex = "ab".repeat(32);
        let layer = |kind: &str| format!(r#"{{"mediaType":"application/vnd.ollama.image.{kind}","digest":"sha256:{hex}","size":4}}"#);
        let folder = ollama(&format!(r#"{{"schemaVersion":2,"layers":[{},{}]}}"#, layer("model"), layer("params")));
        assert!(matches!(weights(folder.path(), "gemma3:270m"), Err(Error::Broken { .. })), "the file is not there yet");
        let blob = folder.path().join("blobs").join(format!("sha256-{hex}"));
        std::fs::write(&blob, "GGUF").expect("written");
        for tag in ["gemma3:270m", "library/gemma3:270m", "registry.ollama.ai/library/gemma3:270m"] {
            assert_eq!(weights(folder.path(), tag).expect(tag), blob);
        }
        assert!(matches!(weights(folder.path(), "gemma3"), Err(Error::Missing { .. })));
    }

    #[test]
    fn what_is_no_name_or_no_manifest_is_refused() {
        let folder = ollama("{");
        for name in ["", "..", "../x", "a/../b", "a/b/c/d", "gemma3:../x", "/etc/passwd", "a\0b", "ä", "gemma3:", "-x"] {
            assert!(matches!(weights(folder.path(), name), Err(Error::Name { .. })), "{name}");
        }
        assert!(matches!(weights(folder.path(), "gemma3:270m"), Err(Error::Broken { .. })));
        let other = ollama(r#"{"layers":[]}"#);
        assert!(matches!(weights(other.path(), "gemma3:270m"), Err(Error::Broken { .. })));
        let wrong = ollama(r#"{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:../../x"}]}"#);
        assert!(matches!(weights(wrong.path(), "gemma3:270m"), Err(Error::Broken { .. })));
    }
}
