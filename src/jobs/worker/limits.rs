//! What the system holds the child process to.

use rustix::process::{Resource, Rlimit, nice, setrlimit};

/// What a process takes that has nothing to do with its job: the program's own data, stacks, what allocators keep in hand.
const BASE_BYTES: u64 = 1 << 30;

/// Makes this process nicer and bounds its memory. The worker watches what is really in memory and ends the process with a word about it;
/// the bound here is above that, for what grows faster than the worker looks.
pub fn apply(memory_bytes: u64, niceness: i32) {
    // None of these must fail the job: where the system refuses, the worker's own watch is left.
    let _ = nice(niceness);
    let bound = memory_bytes.saturating_mul(5) / 4;
    let bound = Some(bound.saturating_add(BASE_BYTES));
    let _ = setrlimit(Resource::Data, Rlimit { current: bound, maximum: bound });
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}
