//! `tokenizer.model`, which is a message of protocol buffers.
#![no_main]

use std::sync::LazyLock;

use arriero_fuzz::ground::Ground;
use arriero_fuzz::jobs::convert::Source;
use libfuzzer_sys::fuzz_target;

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::of("tiny-mistral-v0.1"));

fuzz_target!(|input: &[u8]| {
    GROUND.put("tokenizer.model", input);
    GROUND.plan(Source::Folder(GROUND.path()), GROUND.size_bytes() + input.len());
});
