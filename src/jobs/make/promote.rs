//! The kind of job `promote`: a version that a name has had before gets it back, at once or as the next of a pipeline.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::errand;
use super::server::Server;
use super::steps::Shipment;
use super::wish::{Publishing, Wrong};
use crate::domain::id::ModelName;
use crate::domain::principal::Role;
use crate::jobs::kind::{Fault, Ground, Kind, Plan};
use crate::jobs::publish::versions::{Version, Versions};
use crate::jobs::publish::{self, library};
use crate::jobs::worker::Context;
use crate::storage::jobs::Needs;

const MEMORY_BYTES: u64 = 64 << 20;

/// What is to have the name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promotion {
    pub name: ModelName,
    /// `None`: the one that had the name before the one that has it.
    #[serde(default)]
    pub version: Option<u32>,
    /// Names of configured servers, `*` for all; empty: where it was published before.
    #[serde(default)]
    pub to: Vec<String>,
    /// `None`: as it was published before.
    #[serde(default)]
    pub library: Option<bool>,
}

/// A version, and where it goes.
#[derive(Debug)]
pub struct Promoted<'a> {
    pub version: Version,
    pub versions: Versions,
    pub servers: Vec<&'a Server>,
    pub library: bool,
}

/// Why nothing can be promoted.
#[derive(Debug, thiserror::Error)]
pub enum Impossible {
    #[error("nothing was published under `{0}` from here: `arriero versions` lists what was")]
    Unknown(ModelName),
    #[error("`{name}` has no version {number}; there are {}", known.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))]
    Number { name: ModelName, number: u32, known: Vec<u32> },
    #[error("`{0}` has had no other version that is still kept: there is nothing to go back to")]
    NoPrevious(ModelName),
    #[error(transparent)]
    Servers(#[from] Wrong),
    #[error("the versions cannot be read: {0}")]
    Folder(#[from] library::Error),
}

impl Promotion {
    /// Finds the version among those kept in `folder`.
    ///
    /// # Errors
    /// When there is no such version or server.
    pub fn find<'a>(&self, folder: &Path, servers: &'a [Server]) -> Result<Promoted<'a>, Impossible> {
        let versions = Versions::of(folder, &self.name);
        let history = versions.history()?.ok_or_else(|| Impossible::Unknown(self.name.clone()))?;
        let number = self.version.or(history.previous).ok_or_else(|| Impossible::NoPrevious(self.name.clone()))?;
        let known = history.versions.iter().map(|version| version.number).collect();
        let found = history.versions.into_iter().find(|version| version.number == number);
        let version = found.ok_or_else(|| Impossible::Number { name: self.name.clone(), number, known })?;
        let library = self.library.unwrap_or(version.library);
        let to = if self.to.is_empty() { version.to.clone() } else { self.to.clone() };
        let servers = Publishing { to, library, ..Publishing::under(self.name.clone()) }.choose(servers)?;
        Ok(Promoted { version, versions, servers, library })
    }
}

pub struct Promote;

impl Kind for Promote {
    fn name(&self) -> &'static str {
        "promote"
    }

    fn about(&self) -> &'static str {
        "Gives a name to a version of a model that was published under it before: to the one that is numbered, or back to the one that had the name \
         before."
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["name"],
            "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "description": "A name that models were published under."},
                "version": {"type": ["integer", "null"], "minimum": 1, "description": "Number of a version, as `GET /versions` lists them. Default: the one that had the name before."},
                "to": {"type": "array", "items": {"type": "string"}, "description": "Names of configured servers, `*` for all. Default: where it was published before."},
                "library": {"type": ["boolean", "null"], "description": "Whether it goes into the embedded engine's library. Default: as it was published before."}
            }
        })
    }

    fn role(&self, _: &Value) -> Role {
        Role::Operator
    }

    fn plan(&self, input: &Value, ground: &Ground) -> Result<Plan, Fault> {
        read(input)?.find(&ground.versions, &ground.servers).map_err(|error| fault(&error))?;
        let needs = Needs { cpu_threads: 1, gpus: 0, memory_bytes: MEMORY_BYTES, disk_bytes: 0 };
        Ok(Plan { steps: vec!["publish".to_owned()], needs })
    }

    fn run(&self, context: &mut Context, input: &Value) -> Result<Value, Fault> {
        let (promotion, reporter) = (read(input)?, context.reporter());
        let published: Vec<Value> = context.step(0, input, |context| {
            let ground = context.ground();
            let found = promotion.find(&ground.versions, &ground.servers).map_err(|error| fault(&error))?;
            errand::ship(&found.shipment(&ground.library, &ground.versions, &ground.publish), &reporter)
        })?;
        Ok(json!({"name": promotion.name, "published": published}))
    }
}

impl Promoted<'_> {
    /// What is to be published. `library` and `versions`: the folders of those names.
    #[must_use]
    pub fn shipment<'a>(&'a self, library: &'a Path, versions: &'a Path, config: &'a publish::Config) -> Shipment<'a> {
        Shipment {
            path: self.versions.file(self.version.number).into(),
            sha256: &self.version.sha256,
            manifest: &self.version.manifest,
            servers: &self.servers,
            library: self.library.then_some(library),
            config,
            versions,
            lineage: &self.version.lineage,
        }
    }
}

fn read(input: &Value) -> Result<Promotion, Fault> {
    serde_json::from_value(input.clone()).map_err(|error| Fault::Input(error.to_string()))
}

fn fault(error: &Impossible) -> Fault {
    match error {
        Impossible::Folder(_) => Fault::Passing(error.to_string()),
        _ => Fault::Input(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::backends::ollama;
    use crate::domain::digest::Digest;
    use crate::jobs::publish::versions::Candidate;
    use crate::jobs::publish::{Artifact, Manifest};

    #[test]
    fn a_version_is_found_by_number_or_as_the_one_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = ModelName::parse("me/m").expect("a name");
        let servers = [Server(ollama::Config { name: Some("box".into()), ..ollama::Config::default() })];
        let find = |wanted: Value| {
            let promotion: Promotion = serde_json::from_value(wanted).expect("a promotion");
            let found = promotion.find(folder.path(), &servers).map_err(|error| error.to_string())?;
            Ok::<_, String>((found.version.number, found.servers.len(), found.library))
        };
        assert!(find(json!({"name": "me/m"})).expect_err("nothing there").contains("arriero versions"));
        for bytes in [b"one", b"two"] {
            let path = folder.path().join("m.gguf");
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).expect("written");
            let artifact = Artifact { path, digest: Digest::new(Sha256::digest(bytes).into()) };
            let (manifest, to) = (Manifest::new(name.clone()), vec!["box".to_owned()]);
            let candidate = Candidate { artifact: &artifact, manifest: &manifest, to, library: true, lineage: &Value::Null };
            Versions::of(folder.path(), &name).record(&candidate, 3, 1).expect("recorded");
            if bytes == b"one" {
                assert!(find(json!({"name": "me/m"})).expect_err("the first").contains("nothing to go back to"));
            }
        }
        assert_eq!(find(json!({"name": "me/m"})), Ok((1, 1, true)));
        assert_eq!(find(json!({"name": "Me/M:latest", "version": 2, "library": false})), Ok((2, 1, false)));
        assert!(find(json!({"name": "me/m", "version": 9})).expect_err("no such").contains("there are 1, 2"));
        assert!(find(json!({"name": "me/m", "to": ["nobody"]})).expect_err("no such").contains("nobody"));
    }
}
