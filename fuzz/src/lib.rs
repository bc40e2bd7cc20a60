//! What the fuzz targets share: a bound on memory, and folders of models around the file that is fuzzed.
//!
//! A target promises two things of its reader: no input makes it panic, and none makes it allocate on the word of a number that has
//! not been checked. The second is measured by [`memory`], the global allocator of every target.

pub mod ground;
pub mod memory;

// The readers themselves, without the server around them: with instrumentation that would take many minutes to build.
#[path = "../../src/domain"]
pub mod domain {
    pub mod digest;
}
#[path = "../../src/gguf/mod.rs"]
pub mod gguf;
#[path = "../../src/jobs"]
pub mod jobs {
    pub mod convert;
    pub mod files;
}

#[global_allocator]
static COUNTING: memory::Counting = memory::Counting;
