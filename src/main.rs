//! The `arriero` program: the allocator, and the command line.

use std::process::ExitCode;

/// After thousands of streams have closed, glibc's allocator keeps their memory; this one gives it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    arriero::cli::main()
}
