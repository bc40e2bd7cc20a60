//! Where a command has a teacher's answers from.

use std::path::PathBuf;

use super::args::Operating;
use super::client::DEFAULT_URL;
use super::convert;
use super::exit::Failure;
use crate::config::{self, KEY_VARIABLE, URL_VARIABLE, Variables};
use crate::jobs::dataset::teacher::{Config, Teacher};

/// The gateway that is asked: the one that is named for the teacher, or else as for every command; a flag, a variable, or the configuration.
pub fn gateway(configured: &Config, url: Option<&str>, operating: &Operating, variables: &Variables) -> Config {
    let named = url.or(operating.url.as_deref()).or_else(|| variables.get(URL_VARIABLE)).map(str::trim);
    let set = Some(configured.url.as_str()).filter(|url| !url.is_empty());
    let url = named.or(set).unwrap_or(DEFAULT_URL);
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let key = operating.key.as_deref().or_else(|| variables.get(KEY_VARIABLE)).unwrap_or(&configured.key).to_owned();
    Config { url, key, ..configured.clone() }
}

/// Where it lies, if it is a file.
///
/// # Errors
/// A tag that the Ollama of this machine does not have.
pub fn file(teacher: Option<&Teacher>, settings: &config::Config) -> Result<Option<PathBuf>, Failure> {
    teacher.filter(|teacher| teacher.is_file()).map(|teacher| convert::located(&teacher.model, settings)).transpose()
}
