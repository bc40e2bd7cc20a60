//! The header of a safetensors file: with the right length before it, or, where the first byte is odd, the whole file as it is.
#![no_main]

use std::sync::LazyLock;

use arriero_fuzz::ground::Ground;
use arriero_fuzz::jobs::convert::Source;
use libfuzzer_sys::fuzz_target;

const DATA_BYTES: u64 = 8 << 20;

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::of("tiny-qwen2"));

fuzz_target!(|input: &[u8]| {
    let Some((how, input)) = input.split_first() else { return };
    if how % 2 == 0 {
        GROUND.put_tensors("model.safetensors", input, DATA_BYTES);
    } else {
        GROUND.put("model.safetensors", input);
    }
    GROUND.plan(Source::Folder(GROUND.path()), GROUND.size_bytes() + input.len());
});
