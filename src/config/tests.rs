use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

const HOME: (&str, &str) = ("HOME", "/home/x");

fn load_text(text: &str, variables: &[(&str, &str)], flags: &[Override]) -> Result<Loaded, Vec<String>> {
    let file = File { path: FilePath::new("arriero.toml"), text };
    let variables = variables.iter().copied().chain([HOME]).collect();
    load(Some(file), &variables, flags).map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

#[cfg(feature = "embedded")]
#[test]
fn the_defaults_file_says_what_the_code_says() {
    let loaded = load_text("", &[], &[]).expect("the defaults hold");
    let found = (loaded.config.data_dir.clone(), loaded.config.demo_model.clone());
    let mut expected = Config { data_dir: found.0, demo_model: found.1, ..Config::default() };
    expected.jobs.ollama_models.clone_from(&loaded.config.jobs.ollama_models);
    // Line by line first: it shows what differs.
    let lines = |config: &Config| format!("{:#}", serde_json::to_value(config).expect("plain data"));
    let (found, wanted) = (lines(&loaded.config), lines(&expected));
    let different: Vec<_> = found.lines().zip(wanted.lines()).filter(|(found, wanted)| found != wanted).collect();
    assert!(different.is_empty(), "default.toml and the code differ: {different:?}");
    assert_eq!(loaded.config, expected);
}

/// The keys of a value, positions in lists left out.
fn keys(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                keys(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, found);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => items.iter().for_each(|item| keys(item, path, found)),
        _ => {
            found.insert(path.to_owned());
        }
    }
}

/// The keys a TOML text gives, or mentions as `# key = …` because they have no default.
fn mentioned(text: &str) -> BTreeSet<String> {
    let mut heading = String::new();
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line).trim();
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            heading = name.trim_start_matches('[').to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            found.insert(if heading.is_empty() { key.to_owned() } else { format!("{heading}.{key}") });
        }
    }
    found
}

#[cfg(feature = "embedded")]
#[test]
fn the_defaults_file_explains_every_key_and_no_other() {
    // There are no sections for models by default; the file shows what one may hold.
    let config = Config { model: vec![models::Config::default()], ..Config::default() };
    let mut expected = BTreeSet::new();
    keys(&serde_json::to_value(config).expect("plain data"), "", &mut expected);
    assert_eq!(mentioned(DEFAULTS), expected);
}

#[test]
fn every_key_in_the_defaults_file_is_commented() {
    let mut commented = false;
    for line in DEFAULTS.lines().map(str::trim) {
        let is_heading = line.starts_with('[');
        let is_entry = line.trim_start_matches("# ").contains(" = ") && !line.starts_with("#  ");
        assert!(!(is_entry || is_heading) || commented, "no comment above: {line}");
        commented = line.starts_with('#') || (commented && is_entry);
    }
}

#[test]
fn what_is_shown_reads_back_as_the_same_configuration() {
    let loaded = load_text("[server]\nmax_connections = 7\n", &[("ARRIERO_OLLAMA", "http://a,http://b")], &[]).expect("valid");
    let again = load_text(&toml(&loaded), &[], &[]).expect("reads back");
    assert_eq!(again.config, loaded.config);
}

#[test]
fn what_is_shown_names_origins_and_hides_credentials() {
    let flag = Override { flag: "--listen", key: "server.listen", form: Form::Plain, texts: vec!["127.0.0.1:1".into()] };
    let loaded = load_text("[[ollama]]\nurl = \"http://me:hidden@host:1\"\n", &[], &[flag]).expect("valid");
    let shown = toml(&loaded);
    for line in ["listen = \"127.0.0.1:1\"  # from --listen", "url = \"http://***@host:1\"  # from arriero.toml:2", "# from $HOME"] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let json = json(&loaded);
    assert_eq!(json["config"]["server"]["listen"], "127.0.0.1:1");
    assert_eq!(json["from"]["server.listen"], "--listen");
    assert_eq!(json["from"]["ollama[0].url"], "arriero.toml:2");
    assert!(!shown.contains("hidden") && !json.to_string().contains("hidden"));
}

#[test]
fn one_server_named_twice_is_refused() {
    let problems = load_text("", &[("ARRIERO_OLLAMA", "http://a,http://a")], &[]).expect_err("twice");
    assert_eq!(problems, ["$ARRIERO_OLLAMA: `ollama[1].url` names http://a a second time"]);
}

#[test]
fn addresses_of_identities_are_tables_with_both_keys_and_each_its_own() {
    let text = "[server]\nidentity = [{ listen = \"127.0.0.1:1\", key_name = \"a\" }]\n";
    let loaded = load_text(text, &[], &[]).expect("valid");
    assert_eq!(loaded.config.server.identity[0].key_name, "a");
    assert!(toml(&loaded).contains("key_name = \"a\""), "a name is no secret");
    load_text("[[server.identity]]\nlisten = \"127.0.0.1:1\"\n", &[], &[]).expect_err("no name");
    let same = "[server]\nlisten = \"127.0.0.1:1\"\nidentity = [{ listen = \"127.0.0.1:1\", key_name = \"a\" }]\n";
    let problems = load_text(same, &[], &[]).expect_err("twice");
    assert_eq!(problems, ["arriero.toml:3: `server.identity[0].listen` names 127.0.0.1:1 a second time"]);
}

#[test]
fn a_named_file_that_is_not_there_is_one_clear_problem() {
    let problems = read(Some(FilePath::new("/nowhere/a.toml")), &[HOME].into_iter().collect(), &[]).expect_err("missing");
    assert!(problems[0].to_string().starts_with("--config: `/nowhere/a.toml` cannot be read: "), "{}", problems[0]);
}

#[cfg(feature = "embedded")]
#[test]
fn every_short_variable_sets_a_key_that_exists() {
    let mut known = BTreeSet::new();
    keys(&serde_json::to_value(Config::default()).expect("plain data"), "", &mut known);
    for short in SHORTS {
        let key = match short.form {
            Form::Plain | Form::List => short.key.to_owned(),
            Form::Tables(key) => format!("{}.{key}", short.key),
        };
        assert!(known.contains(&key), "{} sets {key}", short.variable);
    }
}

#[test]
fn a_share_of_turns_is_a_part_of_a_hundred() {
    let problems = load_text("[queue.shares]\nhigh = 100\nlow = 101\n", &[], &[]).expect_err("too much");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("`queue.shares.low` is 101"), "{}", problems[0]);
}
