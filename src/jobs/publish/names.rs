//! The names a publication uses while it is not finished. Pure.

use sha2::{Digest as _, Sha256};

use super::Publication;
use crate::backends::ollama::shelf::UNFINISHED;
use crate::domain::id::ModelName;

/// Under which name what a publication replaces is kept until it is done.
const PREVIOUS: &str = "previous";
/// Hexadecimal digits that tell one publication from another.
const DIGITS: usize = 16;

/// The three names of a publication. The same publication has the same names every time, so that what a killed one left is found.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// What is asked for.
    pub wanted: ModelName,
    /// What is built until it has been tried.
    pub unfinished: ModelName,
    /// What had the name before.
    pub previous: ModelName,
}

impl Names {
    pub fn new(publication: &Publication) -> Self {
        let wanted = publication.manifest.name.clone();
        let place = short_hash(wanted.canonical().as_bytes());
        let content = short_hash(&serde_json::to_vec(&content(publication)).unwrap_or_default());
        let unfinished = name(&place, &content).unwrap_or_else(|| wanted.clone());
        let previous = name(&place, PREVIOUS).unwrap_or_else(|| wanted.clone());
        Self { wanted, unfinished, previous }
    }
}

/// Everything but where the files lie.
fn content(publication: &Publication) -> impl serde::Serialize {
    let adapter = publication.adapter.as_ref().map(|adapter| adapter.digest);
    (publication.model.digest, adapter, publication.manifest.clone())
}

fn name(place: &str, tag: &str) -> Option<ModelName> {
    ModelName::parse(&format!("{UNFINISHED}{place}:{tag}")).ok()
}

fn short_hash(bytes: &[u8]) -> String {
    let digest = crate::domain::digest::Digest::new(Sha256::digest(bytes).into());
    digest.hex()[..DIGITS].to_owned()
}

/// Whether a name of a server's list is that of something unfinished, whoever began it.
pub(super) fn is_unfinished(listed: &str) -> bool {
    ModelName::parse(listed).is_ok_and(|name| name.canonical().starts_with(UNFINISHED) && !name.canonical().ends_with(PREVIOUS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::publish::{Artifact, Manifest};

    fn publication(name: &str) -> Publication {
        let model = Artifact { path: "a.gguf".into(), digest: [1; 32].into() };
        Publication { model, adapter: None, manifest: Manifest::new(ModelName::parse(name).expect("a name")) }
    }

    #[test]
    fn the_same_publication_has_the_same_names_and_another_one_others() {
        let (first, again) = (Names::new(&publication("M")), Names::new(&publication("M")));
        assert_eq!(first.unfinished, again.unfinished);
        assert_eq!(Names::new(&publication("m:latest")).previous, first.previous);
        let mut other = publication("M");
        other.model.path = "b.gguf".into();
        assert_eq!(Names::new(&other).unfinished, first.unfinished, "where the file lies does not matter");
        other.manifest.system = Some("x".into());
        assert_ne!(Names::new(&other).unfinished, first.unfinished);
        assert_ne!(Names::new(&publication("n")).previous, first.previous);
    }

    #[test]
    fn what_is_kept_aside_is_not_unfinished() {
        let names = Names::new(&publication("m"));
        assert!(is_unfinished(names.unfinished.as_str()));
        assert!(!is_unfinished(names.previous.as_str()) && !is_unfinished("gemma3:270m") && !is_unfinished("a b"));
    }
}
