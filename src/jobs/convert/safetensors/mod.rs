//! Weights in safetensors files, one or many, as a list of tensors that can be read in pieces.
//!
//! The order is the one in which llama.cpp's converter meets them: file by file, by name within each. An index and the files it
//! names must agree. Nothing is kept in memory but where each tensor lies.

mod header;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use serde_json::Value;

pub(in crate::jobs) use header::{Dtype, Entry};

use super::error::{Error, Result, shown};
use super::folder::Folder;
use crate::jobs::positioned::read_exact_at;

const INDEX: &str = "model.safetensors.index.json";

/// Tensors and the files they lie in.
#[derive(Debug)]
pub(in crate::jobs) struct Weights {
    files: Vec<(PathBuf, File)>,
    /// With the file each is in.
    tensors: Vec<(usize, Entry)>,
}

impl Weights {
    /// Reads the headers of all files whose names begin with `model`, or of those that the index names.
    pub(in crate::jobs) fn open(folder: &Folder) -> Result<Self> {
        let index = index(folder)?;
        let names = match &index {
            Some(index) => index.values().cloned().collect::<BTreeSet<_>>().into_iter().collect(),
            None => folder.names("model", ".safetensors")?,
        };
        if names.is_empty() {
            return Err(folder.lacks("model*.safetensors", "the weights have to be there, in safetensors format"));
        }
        let weights = Self::open_files(folder, &names)?;
        match index {
            Some(index) => weights.agreeing_with(&index),
            None => Ok(weights),
        }
    }

    /// Reads the headers of these files.
    pub(in crate::jobs) fn open_files(folder: &Folder, names: &[String]) -> Result<Self> {
        let mut weights = Self { files: Vec::new(), tensors: Vec::new() };
        let mut seen = BTreeSet::new();
        for (index, name) in names.iter().enumerate() {
            let path = folder.path_of(name)?;
            let file = folder.file(name)?;
            let size = file.metadata().map_err(Error::io("read", &path))?.len();
            for entry in header::read(BufReader::new(&file), size).map_err(|what| Error::malformed(name, what))? {
                if !seen.insert(entry.name.clone()) {
                    return Err(Error::malformed(name, format!("{} is in another file too", entry.name)));
                }
                weights.tensors.push((index, entry));
            }
            weights.files.push((path, file));
        }
        Ok(weights)
    }

    fn agreeing_with(self, index: &BTreeMap<String, String>) -> Result<Self> {
        let there: BTreeSet<&str> = self.tensors.iter().map(|(_, entry)| entry.name.as_str()).collect();
        let missing = index.keys().find(|name| !there.contains(name.as_str()));
        let extra = there.iter().find(|name| !index.contains_key(**name));
        match (missing, extra) {
            (None, None) => Ok(self),
            (Some(name), _) => Err(Error::malformed(INDEX, format!("{} is in none of the files: is one incomplete?", shown(name)))),
            (None, Some(name)) => Err(Error::malformed(INDEX, format!("{} is in a file, but not in the index", shown(name)))),
        }
    }

    /// Every tensor with the number of its file.
    pub(in crate::jobs) fn tensors(&self) -> &[(usize, Entry)] {
        &self.tensors
    }

    /// Fills `bytes` from a place in a file.
    pub(in crate::jobs) fn read(&self, file: usize, at: u64, bytes: &mut [u8]) -> Result<()> {
        let (path, file) = &self.files[file];
        read_exact_at(file, bytes, at).map_err(Error::io("read", path))
    }
}

/// From names of tensors to names of files.
fn index(folder: &Folder) -> Result<Option<BTreeMap<String, String>>> {
    let Some(index) = folder.json(INDEX)? else { return Ok(None) };
    let Some(Value::Object(map)) = index.get("weight_map") else { return Err(Error::malformed(INDEX, "there is no `weight_map`")) };
    let name = |(tensor, file): (&String, &Value)| match file {
        Value::String(file) => Ok((tensor.clone(), file.clone())),
        _ => Err(Error::malformed(INDEX, format!("{} has no file's name", shown(tensor)))),
    };
    map.iter().map(name).collect::<Result<_>>().map(Some)
}
