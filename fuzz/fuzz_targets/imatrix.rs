//! An importance matrix of either format. What is read are numbers.
#![no_main]

use std::io::Cursor;

use arriero_fuzz::gguf::imatrix::Imatrix;
use arriero_fuzz::memory::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(imatrix) = bounded(input.len(), || Imatrix::read(Cursor::new(input))) else { return };
    assert!(!imatrix.is_empty() && imatrix.info("x").entries > 0);
    drop(imatrix.for_tensor("blk.0.ffn_down.weight", &[32, 1]));
});
