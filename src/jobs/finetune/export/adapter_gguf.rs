//! An adapter as a GGUF file of its own, for programs that apply it while they run the model (llama-server, older Ollama).
//!
//! It is `convert`'s export of a PEFT adapter, which is written on the way and removed again. Such files know neither magnitudes nor
//! whole modules.

use std::fs;
use std::path::PathBuf;

use super::base::Base;
use super::change::MAGNITUDE;
use super::error::{Error, Result};
use super::hub_config;
use super::{PeftOptions, Trained, write_peft};
use crate::gguf::file_type::FileType;
use crate::jobs::convert::{self, Options, Outcome, Progress, Source, Target};

/// How an adapter is to be written as GGUF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterGguf {
    pub path: PathBuf,
    /// F32, F16 or BF16.
    pub file_type: FileType,
    /// What the adapter is called.
    pub name: Option<String>,
    pub overwrite: bool,
}

/// Writes an adapter as GGUF.
///
/// # Errors
/// When such a file cannot hold what was trained, and those of [`write_peft`] and [`convert::convert`].
pub fn write_adapter_gguf(trained: &Trained<'_>, wanted: &AdapterGguf, progress: &dyn Progress) -> Result<Outcome> {
    expect_expressible(trained)?;
    let config = hub_config::reconstructed(&Base::open(trained.base)?)?;
    let work = Work::beside(&wanted.path)?;
    let base = work.0.join("base");
    fs::create_dir(&base)
        .and_then(|()| fs::write(base.join("config.json"), config.to_string()))
        .map_err(convert::Error::io("write", &base))?;
    // The last part of the path is what the adapter is called where nothing else says so.
    let adapter = work.0.join("adapter");
    write_peft(trained, &PeftOptions { path: adapter.clone(), ..PeftOptions::default() })?;
    let source = Source::Adapter { adapter, base };
    let mut options = Options::new(source, wanted.file_type, Target::File(wanted.path.clone()));
    options.name = wanted.name.clone().or_else(|| wanted.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    options.overwrite = wanted.overwrite;
    let made = convert::convert(&options, progress)?;
    made.into_iter().next().ok_or_else(|| Error::impossible("no adapter was written"))
}

fn expect_expressible(trained: &Trained<'_>) -> Result<()> {
    let ends_with =
        |wanted: &[&str]| trained.parameters.keys().find(|name| name.rsplit('.').next().is_some_and(|part| wanted.contains(&part)));
    let what = if ends_with(&[MAGNITUDE]).is_some() {
        "an adapter with magnitudes (DoRA)".to_owned()
    } else if let Some(name) = ends_with(&["weight", "bias"]) {
        format!("{name}, which is trained as a whole,")
    } else {
        return Ok(());
    };
    Err(Error::Form { what, form: "a GGUF adapter", instead: "write a merged GGUF file" })
}

/// A folder that is gone when it is not needed any more.
struct Work(PathBuf);

impl Work {
    fn beside(path: &std::path::Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::impossible(format!("{} names no file", path.display())))?;
        let folder = path.with_file_name(format!(".{}.{}-adapter.part", name.to_string_lossy(), std::process::id()));
        fs::create_dir(&folder).map_err(convert::Error::io("create", &folder))?;
        Ok(Self(folder))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed is named so that it is known for what it is.
        let _ = fs::remove_dir_all(&self.0);
    }
}
