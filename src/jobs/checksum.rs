//! The kind `checksum`: SHA-256 of a file, or of every file in a folder, in a manifest that `sha256sum --check` reads.
//!
//! One step for the listing, one for every gibibyte or so of files, one for the manifest: an attempt that goes on after another one
//! reads only what that had not read.

use cap_std::fs::{Dir, File};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Digest as _;

use super::hash;
use super::kind::{Fault, Ground, Kind, Plan, reference};
use super::roots::Found;
use super::worker::Context;
use crate::domain::digest::Digest;
use crate::storage::jobs::Needs;

const MANIFEST: &str = "SHA256SUMS";

/// Files that are taken at most; with more the folder is hardly the one that was meant.
const MAX_FILES: usize = 20_000;
const MAX_DEPTH: usize = 64;

/// Bytes read in one step, but for single files that are larger.
const STEP_BYTES: u64 = 1 << 30;

/// What the process takes besides the list of files.
const MEMORY_BYTES: u64 = 64 << 20;

pub struct Checksum;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    path: String,
    /// What the manifest must be.
    #[serde(default)]
    expected: Option<String>,
}

/// A file below the folder, or the file itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Item {
    name: String,
    size_bytes: u64,
}

impl Kind for Checksum {
    fn name(&self) -> &'static str {
        "checksum"
    }

    fn about(&self) -> &'static str {
        "Reads a file, or every file in a folder, and writes their SHA-256 into an artifact `SHA256SUMS`, which `sha256sum --check` reads. \
         With `expected` it fails where the file's hash (or the manifest's) is another one."
    }

    fn version(&self) -> u32 {
        1
    }

    fn schema(&self) -> Value {
        json!({
            "type": "object",
            "required": ["path"],
            "additionalProperties": false,
            "properties": {
                "path": {"type": "string", "description": "A file or folder that jobs may read (`files/…`, `models/…`), or `artifact:JOB/NAME`."},
                "expected": {"type": "string", "description": "SHA-256 in hexadecimal that the file must have; for a folder, that its manifest must have."}
            }
        })
    }

    fn plan(&self, input: &Value, ground: &Ground) -> Result<Plan, Fault> {
        let input = read(input)?;
        let files = if reference(&input.path).is_some() { Vec::new() } else { list(ground.roots.open(&input.path)?)? };
        let manifest_bytes = files.iter().map(|item| item.name.len() as u64 + 67).sum::<u64>().max(4_096);
        let batches = batches(&files).len().max(1);
        let steps = std::iter::once("list".to_owned())
            .chain((1..=batches).map(|n| if batches == 1 { "hash".to_owned() } else { format!("hash {n} of {batches}") }))
            .chain(["manifest".to_owned()])
            .collect();
        let memory_bytes = MEMORY_BYTES + 4 * manifest_bytes;
        Ok(Plan { steps, needs: Needs { cpu_threads: 1, gpus: 0, memory_bytes, disk_bytes: 2 * manifest_bytes } })
    }

    fn run(&self, context: &mut Context, input: &Value) -> Result<Value, Fault> {
        let input = read(input)?;
        let files: Vec<Item> = context.step(0, &json!(input.path), |context| list(context.open(&input.path)?))?;
        let whole_bytes: u64 = files.iter().map(|item| item.size_bytes).sum();
        let (mut sums, mut done_bytes) = (Vec::new(), 0);
        let batches = batches(&files);
        for (number, batch) in (1..).zip(&batches) {
            let hashed: Vec<(String, String)> =
                context.step(number, &json!(batch), |context| hash_all(context, &input.path, batch, (done_bytes, whole_bytes)))?;
            done_bytes += batch.iter().map(|item| item.size_bytes).sum::<u64>();
            sums.extend(hashed);
        }
        let last = u32::try_from(batches.len().max(1)).unwrap_or(u32::MAX).saturating_add(1);
        context
            .step(last, &json!(sums), |context| {
                let text: String = sums.iter().map(|(name, sum)| [sum, "  ", name, "\n"].concat()).collect();
                let manifest = context.artifact(MANIFEST, &json!({"path": input.path, "files": files.len()}), |out| {
                    out.write_all(text.as_bytes())?;
                    Ok(())
                })?;
                let sum = if let [(_, only)] = sums.as_slice() { only.clone() } else { manifest };
                Ok(json!({"files": files.len(), "bytes": whole_bytes, "sha256": sum}))
            })
            .and_then(|result: Value| check(&input, result))
    }
}

fn read(input: &Value) -> Result<Input, Fault> {
    let input: Input = serde_json::from_value(input.clone()).map_err(|error| Fault::Input(error.to_string()))?;
    match &input.expected {
        Some(sum) if sum.len() != 64 || !sum.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Err(Fault::Input("`expected` takes 64 hexadecimal digits".to_owned()))
        }
        _ => Ok(input),
    }
}

fn check(input: &Input, result: Value) -> Result<Value, Fault> {
    match (&input.expected, result["sha256"].as_str()) {
        (Some(expected), Some(found)) if !expected.eq_ignore_ascii_case(found) => {
            Err(Fault::Final(format!("the SHA-256 is {found}, and {expected} was expected")))
        }
        _ => Ok(result),
    }
}

/// The files, sorted by name. Links are followed as long as they stay inside, but for those to folders, which could lead in circles.
fn list(found: Found) -> Result<Vec<Item>, Fault> {
    let mut files = Vec::new();
    match found {
        Found::File(file) => files.push(Item { name: String::new(), size_bytes: file.metadata()?.len() }),
        Found::Folder(dir) => walk(&dir, "", 0, &mut files)?,
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

fn walk(dir: &Dir, above: &str, depth: usize, files: &mut Vec<Item>) -> Result<(), Fault> {
    if depth > MAX_DEPTH || files.len() > MAX_FILES {
        return Err(Fault::Input(format!("the folder has more than {MAX_FILES} files or {MAX_DEPTH} levels")));
    }
    for entry in dir.entries()? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| Fault::Input(format!("{} is no UTF-8", name.display())))?;
        if name.contains(['\n', '\r', '\\']) {
            return Err(Fault::Input("a file name holds a line break or a backslash, which a manifest cannot say".to_owned()));
        }
        let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(&entry.open_dir()?, &path, depth + 1, files)?;
        } else if let Some(file) = dir.metadata(&name).ok().filter(cap_std::fs::Metadata::is_file) {
            files.push(Item { name: path, size_bytes: file.len() });
        }
    }
    Ok(())
}

/// Files by steps.
fn batches(files: &[Item]) -> Vec<Vec<Item>> {
    let mut batches: Vec<Vec<Item>> = Vec::new();
    let mut bytes = u64::MAX;
    for item in files {
        if bytes.saturating_add(item.size_bytes) > STEP_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes = bytes.saturating_add(item.size_bytes);
        if let Some(batch) = batches.last_mut() {
            batch.push(item.clone());
        }
    }
    batches
}

/// Names with their hashes; `progress`: how many bytes of how many were read before.
fn hash_all(context: &mut Context, path: &str, items: &[Item], progress: (u64, u64)) -> Result<Vec<(String, String)>, Fault> {
    let (mut done_bytes, whole_bytes) = progress;
    let mut sums = Vec::new();
    for item in items {
        let file = open(context, path, item)?;
        let (hasher, _) = hash::read(file, |bytes| {
            done_bytes += bytes;
            context.progress(done_bytes, whole_bytes, "bytes")
        })?;
        let sum = Digest::new(hasher.finalize().into()).hex();
        let name = if item.name.is_empty() { path.rsplit('/').next().unwrap_or(path) } else { &item.name };
        sums.push((name.to_owned(), sum));
    }
    Ok(sums)
}

fn open(context: &Context, path: &str, item: &Item) -> Result<File, Fault> {
    match context.open(path)? {
        Found::File(file) if item.name.is_empty() => Ok(file),
        Found::Folder(dir) if !item.name.is_empty() => Ok(dir.open(&item.name)?),
        _ => Err(Fault::Passing(format!("`{path}` has changed meanwhile"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::roots::Roots;

    fn item(name: &str, size_bytes: u64) -> Item {
        Item { name: name.to_owned(), size_bytes }
    }

    #[test]
    fn steps_are_about_as_large() {
        assert!(batches(&[]).is_empty());
        let sizes = [1, STEP_BYTES - 1, 1, 3 * STEP_BYTES, 0];
        let files: Vec<Item> = sizes.iter().map(|size| item("x", *size)).collect();
        let lengths: Vec<usize> = batches(&files).iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 1, 1, 1]);
    }

    #[test]
    fn a_plan_says_steps_and_needs_and_refuses_what_is_wrong() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("files");
        std::fs::create_dir_all(root.join("b")).expect("made");
        for (name, text) in [("c", "1"), ("a", "22"), ("b/x", "333")] {
            std::fs::write(root.join(name), text).expect("written");
        }
        let ground = Ground::beneath(Roots::new(vec![root]));
        let plan = |input: Value| Checksum.plan(&input, &ground);
        assert_eq!(plan(json!({"path": "files"})).expect("taken").steps, ["list", "hash", "manifest"]);
        assert!(plan(json!({"path": "artifact:j/x"})).is_ok());
        let listed = list(ground.roots.open("files").expect("there")).expect("read");
        assert_eq!(listed, [item("a", 2), item("b/x", 3), item("c", 1)]);
        for wrong in [json!({}), json!({"path": 1}), json!({"path": "files", "x": 1}), json!({"path": "files", "expected": "12"})] {
            assert!(matches!(plan(wrong.clone()), Err(Fault::Input(_))), "{wrong}");
        }
        assert!(matches!(plan(json!({"path": "../x"})), Err(Fault::Path(_))));
    }
}
