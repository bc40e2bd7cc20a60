//! `config.json`, and what a zero parts from it, `generation_config.json`.
#![no_main]

use std::sync::LazyLock;

use arriero_fuzz::ground::{Ground, parts};
use arriero_fuzz::jobs::convert::Source;
use libfuzzer_sys::fuzz_target;

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::of("Tiny-Llama-3-1M-Instruct"));

fuzz_target!(|input: &[u8]| {
    let [config, generation] = parts(input);
    GROUND.put("config.json", config);
    GROUND.put("generation_config.json", generation);
    GROUND.plan(Source::Folder(GROUND.path()), GROUND.size_bytes() + input.len());
});
