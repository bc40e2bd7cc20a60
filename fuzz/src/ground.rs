//! Folders of tiny models, of which a target replaces one file or another by its input.

use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::gguf::file_type::FileType;
use crate::jobs::convert::{self, Options, Source, Target};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::memory;

/// A folder that stays for the whole run; in memory where that is possible.
pub struct Ground {
    place: TempDir,
}

impl Ground {
    /// A copy of a model of `tests/golden/convert`, with weights that are all zero.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn of(model: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder");
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/convert").join(model);
        for entry in fs::read_dir(&golden).expect("the committed model") {
            let entry = entry.expect("listed");
            // The weights are in one file here, whose list of weights is enough.
            if !matches!(entry.file_name().to_str(), Some("tensors.json" | "model.safetensors.index.json")) {
                fs::copy(entry.path(), place.path().join(entry.file_name())).expect("copied");
            }
        }
        let ground = Self { place };
        ground.put_weights(&fs::read_to_string(golden.join("tensors.json")).expect("the list of weights"));
        ground
    }

    fn put_weights(&self, list: &str) {
        let list: Vec<(String, String, String, Vec<u64>)> = serde_json::from_str(list).expect("a list");
        let (mut header, mut end) = (Map::new(), 0);
        for (_, name, dtype, shape) in list {
            let size = shape.iter().product::<u64>() * if dtype == "F32" { 4 } else { 2 };
            header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}));
            end += size;
        }
        self.put_tensors("model.safetensors", Value::Object(header).to_string().as_bytes(), end);
    }

    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.place.path().to_owned()
    }

    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.place.path().join(name), bytes).expect("written");
    }

    /// A safetensors file of this header, with its right length before it and so many bytes of data, which take no room.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put_tensors(&self, name: &str, header: &[u8], data_bytes: u64) {
        let mut file = File::create(self.place.path().join(name)).expect("made");
        file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
        file.write_all(header).expect("written");
        file.set_len(8 + header.len() as u64 + data_bytes).expect("long enough");
    }

    /// How much is in the folder, without the data of its weights.
    ///
    /// # Panics
    /// When it cannot be listed.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let sizes = fs::read_dir(self.place.path()).expect("listed").map(|entry| {
            let entry = entry.expect("listed");
            let size = usize::try_from(entry.metadata().expect("there").len()).expect("small");
            if entry.file_name().to_string_lossy().ends_with(".safetensors") { size.min(8 * 1024) } else { size }
        });
        sizes.sum()
    }

    /// Reads all that a conversion of this source needs to know, within the bound on memory for so many bytes of input.
    pub fn plan(&self, source: Source, input_bytes: usize) {
        let mut options = Options::new(source, FileType::Q8_0, Target::File(self.place.path().join("out.gguf")));
        options.threads = NonZeroUsize::MIN;
        // What is refused is refused in words that can be shown.
        let refused = memory::bounded(input_bytes, || convert::plan(&options).err());
        drop(refused.map(|error| error.to_string()));
    }
}

/// The parts of an input of several files, which are parted by zeros: no JSON has one.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut parts = input.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}
