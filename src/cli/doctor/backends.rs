//! What could answer: the Ollama servers and the model files.

use std::path::Path;

use super::{Finding, processes, size};
use crate::backends::Backend;
use crate::backends::ollama::Ollama;
use crate::config::{Config, without_credentials};

/// Settings of an Ollama server that matter behind a gateway.
const SETTINGS: [&str; 8] = [
    "OLLAMA_HOST",
    "OLLAMA_NUM_PARALLEL",
    "OLLAMA_MAX_LOADED_MODELS",
    "OLLAMA_MAX_QUEUE",
    "OLLAMA_KEEP_ALIVE",
    "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_KV_CACHE_TYPE",
];

pub async fn look(config: &Config) -> Vec<Finding> {
    let files: Vec<Finding> = files(config).iter().map(|path| model_file("model file", path)).collect();
    let demo = demo(config);
    let engine = demo.is_some() || !files.is_empty();
    let mut findings = Vec::new();
    for server in &config.ollama {
        findings.extend(ollama(server, engine).await);
    }
    if config.ollama.iter().any(|server| is_local(&server.url)) {
        findings.extend(settings());
    }
    findings.extend(files);
    findings.extend(demo);
    findings
}

/// What one server says, or why it says nothing. It is missed only where no model file could stand in for it.
async fn ollama(server: &crate::backends::ollama::Config, engine: bool) -> Vec<Finding> {
    let shown = without_credentials(&server.url);
    let ollama = match Ollama::new(server.clone()) {
        Ok(ollama) => ollama,
        Err(error) => return vec![Finding::fail("ollama", error.to_string(), "correct the url in the configuration")],
    };
    let version = match ollama.version().await {
        Ok(version) => version,
        Err(error) => {
            let what = format!("{shown} does not answer: {error}");
            let mend = "start it (`ollama serve`), name the right address with --ollama URL, or serve a file with --model FILE.gguf";
            return vec![if engine { Finding::warn("ollama", what, mend) } else { Finding::fail("ollama", what, mend) }];
        }
    };
    vec![Finding::ok("ollama", format!("{shown} is Ollama {version}")), models(&ollama, &shown).await]
}

async fn models(ollama: &Ollama, shown: &str) -> Finding {
    match ollama.models().await {
        Ok(models) if models.is_empty() => Finding::warn("ollama", format!("{shown} has no models"), "ollama pull gemma3:270m"),
        Ok(models) => {
            let name = |loaded: bool| if loaded { " (loaded)" } else { "" };
            let names: Vec<String> = models.iter().map(|model| format!("{}{}", model.name, name(model.loaded))).collect();
            Finding::ok("ollama", format!("{shown} has {}", names.join(", ")))
        }
        Err(error) => Finding::fail("ollama", format!("{shown} does not list its models: {error}"), "look at Ollama's log"),
    }
}

/// The settings a server on this machine was started with, where they can be seen.
fn settings() -> Vec<Finding> {
    let Some(variables) = processes::variables_of("ollama") else { return Vec::new() };
    let set: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(name, _)| SETTINGS.contains(name)).collect();
    judge(&set)
}

fn judge(set: &[(&str, &str)]) -> Vec<Finding> {
    let listed: Vec<String> = set.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut findings = vec![Finding::ok("ollama settings", if listed.is_empty() { "all default".to_owned() } else { listed.join(" ") })];
    if let Some((_, host)) = set.iter().find(|(name, host)| *name == "OLLAMA_HOST" && is_public(host)) {
        let what = format!("Ollama listens on {host}: others can go around this gateway");
        findings.push(Finding::warn("ollama settings", what, "start Ollama with OLLAMA_HOST=127.0.0.1"));
    }
    findings
}

fn is_public(host: &str) -> bool {
    ["0.0.0.0", "[::]", "::"].iter().any(|all| host.split("://").last().is_some_and(|host| host.starts_with(all)))
}

fn is_local(url: &str) -> bool {
    ["127.", "localhost", "[::1]"].iter().any(|local| url.split("://").last().is_some_and(|host| host.starts_with(local)))
}

#[cfg(feature = "embedded")]
fn files(config: &Config) -> &[std::path::PathBuf] {
    &config.embedded.models
}

#[cfg(not(feature = "embedded"))]
fn files(_: &Config) -> &[std::path::PathBuf] {
    &[]
}

/// The demo model, when it is there and this build could serve it.
fn demo(config: &Config) -> Option<Finding> {
    (cfg!(feature = "embedded") && config.demo_model.exists()).then(|| model_file("demo model", &config.demo_model))
}

fn model_file(check: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    match crate::gguf::Header::read_file(path) {
        Ok(header) => {
            let kind = header.file_type().unwrap_or("of unknown quantisation");
            let about = format!("{shown}: {kind}, {} million weights, {}", header.parameters() / 1_000_000, size(header.file_size_bytes));
            Finding::ok(check, about)
        }
        Err(error) => Finding::fail(check, format!("{shown}: {error}"), "fetch the file again, or name another with --model"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Level;

    #[test]
    fn an_ollama_that_others_reach_is_pointed_out() {
        let levels = |set: &[(&str, &str)]| judge(set).iter().map(|finding| finding.level).max();
        assert_eq!(levels(&[]), Some(Level::Ok));
        assert_eq!(levels(&[("OLLAMA_HOST", "127.0.0.1:11434")]), Some(Level::Ok));
        for host in ["0.0.0.0", "http://0.0.0.0:11434", "[::]:11434"] {
            assert_eq!(levels(&[("OLLAMA_HOST", host)]), Some(Level::Warn), "{host}");
        }
    }

    #[test]
    fn a_file_that_is_no_model_is_a_failure() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert_eq!(model_file("model file", file.path()).level, Level::Fail);
        assert_eq!(model_file("model file", Path::new("/nowhere.gguf")).level, Level::Fail);
    }

    #[tokio::test]
    async fn an_ollama_that_is_away_is_missed_only_without_a_model_file() {
        let away = crate::backends::ollama::Config { url: "http://127.0.0.1:1".to_owned(), ..Default::default() };
        assert_eq!(ollama(&away, true).await[0].level, Level::Warn);
        assert_eq!(ollama(&away, false).await[0].level, Level::Fail);
    }
}
