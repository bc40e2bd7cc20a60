//! Counts what is allocated while a reader works.
//!
//! The targets run on one thread, and so do the readers: what is counted between two moments is the reader's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// What buffers of a fixed size, errors and the like may take.
const FIXED_BYTES: usize = 64 * 1024;
/// The largest piece of memory that may be asked for, in sizes of the input: a vector of what has been read that grows by doubling.
const PIECE: usize = 8;
/// All memory that may be held at once, in sizes of the input. The smallest entry of a list that can be read takes some 25 bytes of a
/// file, and some 300 when it has been checked: its name twice, where it lies, its places in two growing tables.
const HELD: usize = 24;

/// The system's allocator, counted.
pub struct Counting;

static HELD_NOW: AtomicIsize = AtomicIsize::new(0);
static MOST_HELD: AtomicIsize = AtomicIsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

fn note(taken: usize, given_back: usize) {
    let change = taken.cast_signed() - given_back.cast_signed();
    let now = HELD_NOW.fetch_add(change, Relaxed) + change;
    MOST_HELD.fetch_max(now, Relaxed);
    LARGEST.fetch_max(taken, Relaxed);
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is handed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size(), 0);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size, layout.size());
        unsafe { System.realloc(place, layout, size) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        note(0, layout.size());
        unsafe { System.dealloc(place, layout) }
    }
}

/// Does a reader's work, and panics when it took more memory than an input of so many bytes justifies.
///
/// # Panics
/// That is what it is for.
pub fn bounded<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD_NOW.load(Relaxed);
    MOST_HELD.store(before, Relaxed);
    LARGEST.store(0, Relaxed);
    let answer = work();
    let (held, largest) = (MOST_HELD.load(Relaxed) - before, LARGEST.load(Relaxed));
    let bound = |factor: usize| FIXED_BYTES + factor * input_bytes;
    assert!(largest <= bound(PIECE), "{largest} bytes were asked for at once, for an input of {input_bytes}");
    assert!(held <= bound(HELD).cast_signed(), "{held} bytes were held at once, for an input of {input_bytes}");
    answer
}
