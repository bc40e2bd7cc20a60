//! Activations on the CPU, and how threads share them.

#![expect(unsafe_code, reason = "threads write different places of one piece of memory; see `Places`")]

use std::marker::PhantomData;
use std::ops::Range;

/// A matrix of activations, one row for each token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    pub values: Vec<f32>,
    pub width: usize,
}

impl Rows {
    pub fn new(count: usize, width: usize) -> Self {
        Self { values: vec![0.0; count * width], width }
    }

    pub fn count(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or_default()
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    pub fn iter(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.width)
    }

    pub fn iter_mut(&mut self) -> std::slice::ChunksExactMut<'_, f32> {
        self.values.chunks_exact_mut(self.width)
    }
}

/// Memory in which the tasks of a region write, each its own places.
#[derive(Debug)]
pub struct Places<'a, T> {
    at: *mut T,
    length: usize,
    lent: PhantomData<&'a mut [T]>,
}

// SAFETY: what is reached through it is reached through `slice` and `pointer`, whose callers keep apart.
unsafe impl<T: Send> Sync for Places<'_, T> {}

impl<'a, T> Places<'a, T> {
    pub fn new(all: &'a mut [T]) -> Self {
        Self { at: all.as_mut_ptr(), length: all.len(), lent: PhantomData }
    }

    /// Some of the places.
    ///
    /// # Safety
    /// Nobody else uses any of them as long as the slice lives.
    #[expect(clippy::mut_from_ref, reason = "that is its purpose; the caller keeps the ranges apart")]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "{range:?} of {} places", self.length);
        // SAFETY: within the memory that was lent, checked above; the caller vouches that nobody else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(range.start), range.len()) }
    }

    /// The place at `index`, for writing at a stride.
    pub fn pointer(&self, index: usize) -> *mut T {
        assert!(index < self.length, "place {index} of {}", self.length);
        self.at.wrapping_add(index)
    }
}
