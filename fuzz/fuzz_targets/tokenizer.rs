//! `tokenizer.json`, `tokenizer_config.json` and `merges.txt`, parted by zeros.
#![no_main]

use std::sync::LazyLock;

use arriero_fuzz::ground::{Ground, parts};
use arriero_fuzz::jobs::convert::Source;
use libfuzzer_sys::fuzz_target;

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::of("tiny-qwen2"));

fuzz_target!(|input: &[u8]| {
    let [json, config, merges] = parts(input);
    GROUND.put("tokenizer.json", json);
    GROUND.put("tokenizer_config.json", config);
    GROUND.put("merges.txt", merges);
    GROUND.plan(Source::Folder(GROUND.path()), GROUND.size_bytes() + input.len());
});
