//! Where files belong on this machine, from the variables that say so (XDG base directories; Apple's folders on macOS).

use std::path::{Path, PathBuf};

use super::tree::Origin;
use super::variables::Variables;

const NAME: &str = "arriero";

/// The configuration file that is read when none is named.
pub fn config_file(variables: &Variables) -> Option<PathBuf> {
    let folder = absolute(variables, "XDG_CONFIG_HOME").or_else(|| home(variables).map(|home| home.join(".config")))?;
    Some(folder.join(NAME).join("arriero.toml"))
}

/// The data folder: the one configured, with `~` standing for the home folder, or the platform's own (then with its origin).
///
/// # Errors
/// When the home folder is needed and no variable says where it is.
pub fn data_dir(configured: &Path, variables: &Variables) -> Result<(PathBuf, Option<Origin>), String> {
    if let Ok(inside_home) = configured.strip_prefix("~") {
        let home = home(variables).ok_or("begins with ~, but $HOME is not set: write the whole path")?;
        return Ok((home.join(inside_home), None));
    }
    if !configured.as_os_str().is_empty() {
        return Ok((configured.to_owned(), None));
    }
    if let Some(folder) = absolute(variables, "XDG_DATA_HOME") {
        return Ok((folder.join(NAME), Some(Origin::Machine("$XDG_DATA_HOME"))));
    }
    let home = home(variables).ok_or("has no default because $HOME is not set: set --data-dir or $ARRIERO_DATA_DIR")?;
    let inside_home = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Ok((home.join(inside_home).join(NAME), Some(Origin::Machine("$HOME"))))
}

/// Where an Ollama on this machine keeps its models: where its own variable says, or else in the user's home, or in that of the user whom
/// its installer on Linux makes.
pub fn ollama_models(variables: &Variables) -> PathBuf {
    if let Some(folder) = variables.get("OLLAMA_MODELS").filter(|folder| !folder.is_empty()) {
        return PathBuf::from(folder);
    }
    let own = home(variables).map(|home| home.join(".ollama/models"));
    own.filter(|folder| folder.is_dir()).unwrap_or_else(|| PathBuf::from("/usr/share/ollama/.ollama/models"))
}

fn home(variables: &Variables) -> Option<PathBuf> {
    absolute(variables, "HOME")
}

/// The XDG specification says that paths that are not absolute are to be ignored.
fn absolute(variables: &Variables, name: &str) -> Option<PathBuf> {
    variables.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(configured: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let found = data_dir(Path::new(configured), &variables.iter().copied().collect());
        found.map(|(path, _)| path.to_string_lossy().into_owned())
    }

    #[test]
    fn ollamas_models_are_where_it_says_or_where_they_usually_are() {
        let of = |variables: &[(&str, &str)]| ollama_models(&variables.iter().copied().collect());
        assert_eq!(of(&[("OLLAMA_MODELS", "/m"), ("HOME", "/nowhere")]), Path::new("/m"));
        assert_eq!(of(&[("OLLAMA_MODELS", "")]), Path::new("/usr/share/ollama/.ollama/models"));
        let home = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(home.path().join(".ollama/models")).expect("made");
        assert_eq!(of(&[("HOME", home.path().to_str().expect("text"))]), home.path().join(".ollama/models"));
    }

    #[test]
    fn the_data_folder_is_the_one_configured_or_the_platforms() {
        let home = ("HOME", "/home/x");
        assert_eq!(folder("/srv/a", &[]), Ok("/srv/a".into()));
        assert_eq!(folder("~/a", &[home]), Ok("/home/x/a".into()));
        assert_eq!(folder("", &[home, ("XDG_DATA_HOME", "/data")]), Ok("/data/arriero".into()));
        assert!(folder("", &[home, ("XDG_DATA_HOME", "relative")]).expect("falls back").starts_with("/home/x/"));
        assert!(folder("", &[]).expect_err("no home").contains("ARRIERO_DATA_DIR"));
        assert!(folder("~/a", &[]).is_err());
    }
}
