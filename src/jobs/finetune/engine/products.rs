//! Products of matrices that lie in slices, on all threads.
//!
//! Promise: how a product is cut into pieces depends on its size alone, and every piece is summed by one thread in one order, so that the
//! result is the same to the bit on any number of threads.

#![expect(unsafe_code, reason = "tasks write different pieces of one result, and `gemm` takes pointers")]

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

use crate::lm::cpu::rows::Places;

/// Columns, or rows if there are few columns, of a piece.
pub const PIECE: usize = 256;

/// Has products read the factor with fewer numbers where it lies, if its rows are whole there: `gemm` would copy it for every piece of the
/// other, which takes 5 to 7 % of the time of 64 to 1,024 tokens. For the whole process, and without a change to any result.
pub fn read_in_place() {
    /// As many of the kernel's own rows as `gemm` lets be said: more than a piece has.
    const ROWS: usize = 256;
    gemm::set_rhs_packing_threshold(ROWS);
}

/// A matrix in a slice, at any strides.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    pub rows: usize,
    pub columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row.
    pub fn new(values: &'a [f32], columns: usize) -> Self {
        Self::strided(values, values.len().checked_div(columns).unwrap_or_default(), columns, columns)
    }

    /// Rows of `columns` numbers that begin `stride` apart.
    ///
    /// # Panics
    /// When they do not lie within the slice.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + columns <= values.len(), "{rows} rows of {columns} each {stride} in {}", values.len());
        Self { values, rows, columns, row_stride: stride, column_stride: 1 }
    }

    pub fn transposed(self) -> Self {
        let Self { values, rows, columns, row_stride, column_stride } = self;
        Self { values, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }

    pub fn rows(self, rows: Range<usize>) -> Self {
        assert!(rows.end <= self.rows && rows.start <= rows.end, "rows {rows:?} of {}", self.rows);
        let values = self.values.get(rows.start * self.row_stride..).unwrap_or_default();
        Self { values, rows: rows.len(), ..self }
    }

    pub fn columns(self, columns: Range<usize>) -> Self {
        self.transposed().rows(columns).transposed()
    }
}

/// What becomes of what is in the place of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Onto {
    Nothing,
    /// The product is added.
    Sum,
}

/// `out = scale · a · b` (or `+=`), on this thread. Rows of `out` begin `stride` apart.
pub fn multiply(out: &mut [f32], stride: usize, onto: Onto, scale: f32, a: Matrix<'_>, b: Matrix<'_>) {
    assert!(a.rows == 0 || (a.rows - 1) * stride + b.columns <= out.len());
    // SAFETY: `out` has the room, checked above, and is ours alone.
    unsafe { multiply_at(out.as_mut_ptr(), stride, onto, scale, a, b) }
}

/// As [`multiply`].
///
/// # Safety
/// From `out` on there are `a.rows` rows of `b.columns` numbers, `stride` apart, that nobody else uses; with [`Onto::Sum`] they are filled.
#[expect(clippy::cast_possible_wrap, reason = "strides of matrices that fit into memory")]
pub unsafe fn multiply_at(out: *mut f32, stride: usize, onto: Onto, scale: f32, a: Matrix<'_>, b: Matrix<'_>) {
    assert_eq!(a.columns, b.rows, "the inner sides of a product differ");
    let (sum, keep) = (onto == Onto::Sum, if onto == Onto::Sum { 1.0 } else { 0.0 });
    // SAFETY: `a` and `b` lie in their slices, which `Matrix` has checked; the caller vouches for `out`.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out,
            1,
            stride as isize,
            sum,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            keep,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// As [`multiply`], on all threads; rows of `out` lie one behind the other.
pub fn product(out: &mut [f32], onto: Onto, scale: f32, a: Matrix<'_>, b: Matrix<'_>) {
    let (rows, columns) = (a.rows, b.columns);
    assert_eq!(out.len(), rows * columns);
    if columns >= PIECE {
        in_columns(out, columns, |range, at| {
            // SAFETY: `in_columns` gives each task columns of its own.
            unsafe { multiply_at(at, columns, onto, scale, a, b.columns(range)) }
        });
    } else {
        let rows_each = PIECE * 64 / columns.max(1);
        out.par_chunks_mut(rows_each * columns).enumerate().for_each(|(index, out)| {
            let first = index * rows_each;
            multiply(out, columns, onto, scale, a.rows(first..rows.min(first + rows_each)), b);
        });
    }
}

/// Calls a task for each piece of the columns of a result, with the place of the piece's first number. Tasks may write these columns.
pub fn in_columns(out: &mut [f32], columns: usize, task: impl Fn(Range<usize>, *mut f32) + Sync) {
    let places = Places::new(out);
    (0..columns.div_ceil(PIECE)).into_par_iter().for_each(|index| {
        let range = index * PIECE..columns.min((index + 1) * PIECE);
        let at = places.pointer(range.start);
        task(range, at);
    });
}

/// Calls a task for every so many rows of `width` numbers, with the first of them.
pub fn in_rows(out: &mut [f32], width: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    /// About so many numbers make it worth waking a thread.
    const NUMBERS: usize = 16_384;
    let rows = (NUMBERS / width.max(1)).max(1);
    out.par_chunks_mut(rows * width.max(1)).enumerate().for_each(|(index, out)| task(index * rows, out));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn numbers(count: usize, factor: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * factor) % 17) as f32 / 8.0 - 1.0).collect()
    }

    fn plain(a: Matrix<'_>, b: Matrix<'_>) -> Vec<f32> {
        let at = |m: Matrix<'_>, row: usize, column: usize| f64::from(m.values[row * m.row_stride + column * m.column_stride]);
        let cell = |row: usize, column: usize| (0..a.columns).map(|k| at(a, row, k) * at(b, k, column)).sum::<f64>();
        #[expect(clippy::cast_possible_truncation, reason = "to compare in single precision")]
        (0..a.rows).flat_map(|row| (0..b.columns).map(move |column| cell(row, column) as f32)).collect()
    }

    #[test]
    fn products_of_all_shapes_and_strides_are_those_of_the_definition() {
        for (rows, inner, columns) in [(1, 3, 5), (7, 64, 300), (300, 2, 8), (2_100, 40, 3), (33, 1, 700)] {
            let (a, b) = (numbers(rows * inner, 7), numbers(inner * columns, 5));
            let (a_across, b_across) = (Matrix::new(&a, rows).transposed(), Matrix::new(&b, inner).transposed());
            for (a, b) in [(Matrix::new(&a, inner), b_across), (a_across, Matrix::new(&b, columns))] {
                let mut out = vec![1.0; rows * columns];
                product(&mut out, Onto::Sum, 2.0, a, b);
                for (found, wanted) in out.iter().zip(plain(a, b)) {
                    assert!((found - 1.0 - 2.0 * wanted).abs() < 1e-3, "{found} {wanted}");
                }
            }
        }
    }
}
