//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! Each is a folder of its own with parameters, the optimiser's state and where the run stands. Promises: one that has its name is whole and
//! on the disk; a crash at any moment leaves the one before it; what was not finished is removed at the next start; the last and the best
//! are kept, and no others. One of other data, another model or other options is refused.

mod state;
mod tensors;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use candle_core::Device;

pub use state::{Best, Ending, Evaluation, Origin, Sample, State};
pub use tensors::Content;

use super::error::{Error, Result};
use super::learner::Tensors;
use crate::domain::digest::Digest;
use crate::jobs::hash;
use sha2::Digest as _;

const PREFIX: &str = "step-";
const UNFINISHED: &str = ".unfinished";
const STATE: &str = "state.json";
pub const PARAMETERS: &str = "parameters.safetensors";
pub const MOMENTS: &str = "optimizer.safetensors";

/// A folder of checkpoints of one run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Makes the folder where it is not there, and removes what was not finished in it.
    ///
    /// # Errors
    /// Of the file system.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
        let checkpoints = Self { folder: folder.to_owned() };
        for name in checkpoints.names()?.iter().filter(|name| name.starts_with(PREFIX) && name.ends_with(UNFINISHED)) {
            checkpoints.remove(name)?;
        }
        Ok(checkpoints)
    }

    /// The state of the last one, if there is any. Those that were damaged are removed.
    ///
    /// # Errors
    /// When it is of something else, or cannot be read.
    pub fn last(&self, origin: &Origin) -> Result<Option<(String, State)>> {
        let mut names = self.named()?;
        while let Some((.., name)) = names.pop() {
            if let Some(state) = self.whole(&name)? {
                return self.expect(&name, state, origin).map(|state| Some((name, state)));
            }
            self.remove(&name)?;
        }
        Ok(None)
    }

    /// What one of the files of a checkpoint holds.
    ///
    /// # Errors
    /// Of the file system, and when the device has no room for it.
    pub fn tensors(&self, checkpoint: &str, file: &str, device: &Device) -> Result<Tensors> {
        let read = candle_core::safetensors::load(self.folder.join(checkpoint).join(file), device);
        Ok(read.map_err(Error::device("reading a checkpoint"))?.into_iter().collect())
    }

    /// Writes one, and removes those that it makes superfluous; gives its name.
    ///
    /// # Errors
    /// Of the file system; the checkpoint before it is still there then.
    pub(super) fn save(&self, state: &mut State, parameters: &Tensors, moments: &[(String, Content<'_>)]) -> Result<String> {
        let name = self.free_name(state.step)?;
        let unfinished = self.folder.join(format!("{name}{UNFINISHED}"));
        if let Some(best) = state.best.as_mut().filter(|best| best.step == state.step) {
            best.checkpoint.clone_from(&name);
        }
        fs::create_dir(&unfinished).map_err(Error::io("make", &unfinished))?;
        for (file, contents) in [(PARAMETERS, tensors::contents(parameters).as_slice()), (MOMENTS, moments)] {
            let path = unfinished.join(file);
            let hash = tensors::write(&path, contents).map_err(Error::io("write", &path))?;
            state.files.insert(file.to_owned(), hash);
        }
        let path = unfinished.join(STATE);
        write_state(&path, state).map_err(Error::io("write", &path))?;
        sync(&unfinished)?;
        let path = self.folder.join(&name);
        fs::rename(&unfinished, &path).map_err(Error::io("rename to", &path))?;
        sync(&self.folder)?;
        self.retire(&name, state.best.as_ref().map(|best| best.checkpoint.as_str()))?;
        Ok(name)
    }

    fn retire(&self, last: &str, best: Option<&str>) -> Result<()> {
        let others = self.named()?.into_iter().map(|(.., name)| name).filter(|name| name != last && Some(name.as_str()) != best);
        others.into_iter().try_for_each(|name| self.remove(&name))
    }

    /// `None`: it is not what was written once.
    fn whole(&self, name: &str) -> Result<Option<State>> {
        let path = self.folder.join(name).join(STATE);
        let text = match fs::read_to_string(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => return Ok(None),
            read => read.map_err(Error::io("read", &path))?,
        };
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) else { return Ok(None) };
        let version = &value["version"];
        if *version != State::VERSION {
            return Err(self.other(name, "versions of checkpoints", version.to_string(), State::VERSION.to_string()));
        }
        let Ok(state) = serde_json::from_str::<State>(&text) else { return Ok(None) };
        for (file, hash) in &state.files {
            if self.hash(name, file)?.as_ref() != Some(hash) {
                return Ok(None);
            }
        }
        Ok([PARAMETERS, MOMENTS].iter().all(|file| state.files.contains_key(*file)).then_some(state))
    }

    /// `None`: it is not there.
    fn hash(&self, name: &str, file: &str) -> Result<Option<String>> {
        let path = self.folder.join(name).join(file);
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => {
                let (hasher, _) = opened.and_then(|file| hash::read(file, |_| Ok(()))).map_err(Error::io("read", &path))?;
                Ok(Some(Digest::new(hasher.finalize().into()).hex()))
            }
        }
    }

    fn expect(&self, name: &str, state: State, origin: &Origin) -> Result<State> {
        let Origin { data, base, options } = &state.origin;
        for (what, found, wanted) in
            [("rows", data, &origin.data), ("base models", base, &origin.base), ("options", options, &origin.options)]
        {
            if found != wanted {
                return Err(self.other(name, what, found.clone(), wanted.clone()));
            }
        }
        Ok(state)
    }

    pub(super) fn other(&self, name: &str, what: &'static str, found: String, wanted: String) -> Error {
        Error::Other { path: self.folder.join(name), what, found, wanted }
    }

    /// Step and number of each one that is finished, in their order.
    fn named(&self) -> Result<Vec<(u64, u64, String)>> {
        let mut named: Vec<_> =
            self.names()?.into_iter().filter_map(|name| numbers(&name).map(|(step, count)| (step, count, name))).collect();
        named.sort();
        Ok(named)
    }

    /// That of the step; with a number where one of that step is there, whose place could not be taken at once.
    fn free_name(&self, step: u64) -> Result<String> {
        let last = self.named()?.iter().filter(|(of, ..)| *of == step).map(|(_, count, _)| count + 1).max();
        let count = last.map(|count| format!("-{count}")).unwrap_or_default();
        Ok(format!("{PREFIX}{step:08}{count}"))
    }

    fn names(&self) -> Result<Vec<String>> {
        let listed =
            fs::read_dir(&self.folder).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(Error::io("list", &self.folder))?;
        Ok(listed.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::remove_dir_all(&path).map_err(Error::io("remove", &path))
    }
}

/// `step-00000012` is (12, 0), `step-00000012-1` is (12, 1).
fn numbers(name: &str) -> Option<(u64, u64)> {
    let rest = name.strip_prefix(PREFIX)?;
    let (step, count) = rest.split_once('-').unwrap_or((rest, "0"));
    Some((step.parse().ok()?, count.parse().ok()?))
}

fn write_state(path: &Path, state: &State) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.sync_all()
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("save", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Tensor;

    fn origin() -> Origin {
        Origin { data: "d".into(), base: "b".into(), options: "o".into() }
    }

    fn parameters(number: f32) -> Tensors {
        Tensors::from([("w".to_owned(), Tensor::new(&[number, 0.1], &Device::Cpu).expect("made"))])
    }

    fn save(checkpoints: &Checkpoints, step: u64, best: Option<u64>) -> State {
        let mut state = State { step, ..State::new(origin()) };
        state.losses = vec![0.1 + 0.2, 1.0 / 3.0];
        state.best = best.map(|step| Best { step, figure: 0.5, checkpoint: format!("step-{step:08}") });
        #[expect(clippy::cast_precision_loss, reason = "a few steps")]
        checkpoints.save(&mut state, &parameters(step as f32), &[("first/w".into(), Content::Floats(&[0.25]))]).expect("saved");
        state
    }

    #[test]
    fn the_last_and_the_best_are_kept_and_come_back_as_they_were() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints = Checkpoints::open(&folder.path().join("new")).expect("opened");
        assert_eq!(checkpoints.last(&origin()).expect("none"), None);
        for step in [1, 2, 3] {
            save(&checkpoints, step, Some(2.min(step)));
        }
        let state = save(&checkpoints, 4, Some(2));
        assert_eq!(checkpoints.names().expect("listed").len(), 2);
        assert_eq!(checkpoints.last(&origin()).expect("read"), Some(("step-00000004".to_owned(), state)));
        let read = |name, file| checkpoints.tensors(name, file, &Device::Cpu).expect("read");
        assert_eq!(read("step-00000002", PARAMETERS)["w"].to_vec1::<f32>().expect("numbers"), [2.0, 0.1]);
        assert_eq!(read("step-00000004", MOMENTS)["first/w"].to_vec1::<f32>().expect("numbers"), [0.25]);
        // A second of the same step takes the place of the first only when it is whole.
        save(&checkpoints, 4, Some(4));
        assert_eq!(checkpoints.last(&origin()).expect("read").expect("there").0, "step-00000004-1");
        assert_eq!(checkpoints.names().expect("listed"), ["step-00000004-1"]);
    }

    #[test]
    fn what_is_not_whole_is_removed_and_the_one_before_it_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints = Checkpoints::open(folder.path()).expect("opened");
        let first = save(&checkpoints, 1, Some(1));
        let damages: [fn(&Path); 4] = [
            |path| fs::write(path.join(PARAMETERS), "half").expect("written"),
            |path| fs::remove_file(path.join(MOMENTS)).expect("removed"),
            |path| fs::write(path.join(STATE), "{\"version\":1,").expect("written"),
            |path| fs::rename(path, path.with_extension("unfinished")).expect("renamed"),
        ];
        for damage in damages {
            save(&checkpoints, 2, Some(1));
            damage(&folder.path().join("step-00000002"));
            let again = Checkpoints::open(folder.path()).expect("opened");
            assert_eq!(again.last(&origin()).expect("read"), Some(("step-00000001".to_owned(), first.clone())));
            assert_eq!(again.names().expect("listed"), ["step-00000001"]);
        }
    }

    #[test]
    fn one_of_something_else_is_refused_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let checkpoints = Checkpoints::open(folder.path()).expect("opened");
        save(&checkpoints, 1, None);
        for (other, word) in [
            (Origin { data: "x".into(), ..origin() }, "other rows (d, and now x)"),
            (Origin { base: "x".into(), ..origin() }, "other base models"),
            (Origin { options: "x".into(), ..origin() }, "other options"),
        ] {
            let error = checkpoints.last(&other).expect_err("refused").to_string();
            assert!(error.contains(word), "{error}");
        }
        let path = folder.path().join("step-00000001").join(STATE);
        let text = fs::read_to_string(&path).expect("read").replace("\"version\":1", "\"version\":2");
        fs::write(&path, text).expect("written");
        assert!(checkpoints.last(&origin()).expect_err("refused").to_string().contains("versions"));
        assert!(path.exists());
    }
}
