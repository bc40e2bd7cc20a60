use std::fmt::Write;

use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_of_the_command_line_holds_together() {
    Cli::command().debug_assert();
}

/// The help of every command, as it is read on a terminal of 100 columns.
#[test]
fn help_says_what_it_said() {
    let mut root = Cli::command().term_width(100);
    root.build();
    let mut text = String::new();
    add_help(&mut root, &mut text);
    insta::assert_snapshot!(text);
}

fn add_help(command: &mut clap::Command, text: &mut String) {
    if command.get_name() == "help" {
        return;
    }
    let name = command.get_bin_name().unwrap_or("arriero").to_owned();
    let _ = writeln!(text, "$ {name} --help\n{}", command.render_help());
    for sub in command.get_subcommands_mut() {
        add_help(sub, text);
    }
}

#[test]
fn flags_of_serve_become_the_top_layer() {
    let Ok(Cli { command: Command::Serve(serve) }) =
        parse("arriero serve --listen 127.0.0.1:1 --ollama http://a --ollama http://b --data-dir /d --insecure-public-bind")
    else {
        panic!("serve is a command");
    };
    let overrides = serve.settings.overrides();
    let keys: Vec<(&str, String)> = overrides.iter().map(|given| (given.key, given.texts.join(","))).collect();
    assert_eq!(
        keys,
        [
            ("server.listen", "127.0.0.1:1".to_owned()),
            ("data_dir", "/d".to_owned()),
            ("server.insecure_public_bind", "true".to_owned()),
            ("ollama", "http://a,http://b".to_owned()),
        ]
    );
    let loaded = crate::config::load(None, &[("HOME", "/home/x")].into_iter().collect(), &overrides).expect("holds");
    assert_eq!(loaded.config.ollama.len(), 2);
    assert!(loaded.config.server.insecure_public_bind);
}

#[test]
fn no_flag_sets_nothing() {
    let Ok(Cli { command: Command::Serve(serve) }) = parse("arriero serve") else { panic!("serve is a command") };
    assert!(serve.settings.overrides().is_empty());
}

#[cfg(feature = "embedded")]
#[test]
fn model_files_are_named_by_flags() {
    let Ok(Cli { command: Command::Serve(serve) }) = parse("arriero serve --model a.gguf --demo-model b.gguf") else {
        panic!("serve is a command");
    };
    let keys: Vec<&str> = serve.settings.overrides().iter().map(|given| given.key).collect();
    assert_eq!(keys, ["embedded.models", "demo_model"]);
}

#[test]
fn what_is_typed_wrongly_is_refused() {
    for (line, kind) in [
        ("arriero", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("arriero srve", ErrorKind::InvalidSubcommand),
        ("arriero serve --lsten x", ErrorKind::UnknownArgument),
        ("arriero generate --option temperature x", ErrorKind::ValueValidation),
        ("arriero generate --think maybe x", ErrorKind::InvalidValue),
        ("arriero generate --deadline soon x", ErrorKind::ValueValidation),
        ("arriero generate --priority highest x", ErrorKind::InvalidValue),
        ("arriero generate --cache always x", ErrorKind::InvalidValue),
        ("arriero cache purge", ErrorKind::MissingRequiredArgument),
        ("arriero cache purge --all --model x", ErrorKind::ArgumentConflict),
        ("arriero cache warm add name text", ErrorKind::MissingRequiredArgument),
        ("arriero config", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
    ] {
        assert_eq!(parse(line).expect_err(line).kind(), kind, "{line}");
    }
}
