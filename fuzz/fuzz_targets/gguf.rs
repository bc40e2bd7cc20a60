//! The header of a GGUF file. What is read lies within the file.
#![no_main]

use arriero_fuzz::gguf::Header;
use arriero_fuzz::memory::bounded;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(header) = bounded(input.len(), || Header::parse(input)) else { return };
    for tensor in &header.tensors {
        let end = tensor.offset.checked_add(tensor.size_bytes).expect("an end");
        assert!(tensor.offset >= header.data_offset && end <= input.len() as u64, "{tensor:?}");
        assert!(header.tensor(&tensor.name).is_some());
    }
    for (key, _) in header.metadata.iter() {
        assert!(header.metadata.get(key).is_some());
    }
});
