//! An adapter in PEFT's format: its settings, a zero, the header of its weights.
#![no_main]

use std::sync::LazyLock;

use arriero_fuzz::ground::{Ground, parts};
use arriero_fuzz::jobs::convert::Source;
use libfuzzer_sys::fuzz_target;

const DATA_BYTES: u64 = 1 << 20;

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::of("tiny-qwen2"));

fuzz_target!(|input: &[u8]| {
    let [settings, header] = parts(input);
    GROUND.put("adapter_config.json", settings);
    GROUND.put_tensors("adapter_model.safetensors", header, DATA_BYTES);
    let source = Source::Adapter { adapter: GROUND.path(), base: GROUND.path() };
    GROUND.plan(source, GROUND.size_bytes() + input.len());
});
