//! A batch as the kernels read it.

use super::attention::forward_tile;
use super::error::Result;
use super::gpu::{Buffer, Gpu};

/// Rows of tokens one behind the other, and what is to be foretold from which of them.
pub struct Input<'a> {
    pub tokens: &'a [u32],
    /// Of each token in its own row.
    pub positions: &'a [u32],
    /// Where rows begin, and the end of the last.
    pub starts: &'a [usize],
    /// Places in ascending order, with the token to be foretold there and its weight.
    pub labels: &'a [(usize, u32, f32)],
}

/// Stretches of rows, each the work of one block, those with most to read first.
pub struct Tiles {
    /// First, begin and end of its row, unused.
    pub tiles: Buffer<i32>,
    pub count: usize,
}

/// A batch on the device.
pub struct Table {
    pub tokens: Buffer<u32>,
    pub tokens_count: usize,
    pub positions: Buffer<i32>,
    pub forward: Tiles,
    pub queries: Tiles,
    pub keys: Tiles,
    pub places: Buffer<u32>,
    pub labels: Buffer<u32>,
    pub weights: Buffer<f32>,
    pub labels_count: usize,
}

impl Table {
    pub fn new(gpu: &Gpu, input: &Input<'_>, head_size: usize) -> Result<Self> {
        let places: Vec<u32> = input.labels.iter().map(|label| narrow(label.0).cast_unsigned()).collect();
        let labels: Vec<u32> = input.labels.iter().map(|label| label.1).collect();
        let weights: Vec<f32> = input.labels.iter().map(|label| label.2).collect();
        let positions: Vec<i32> = input.positions.iter().map(|position| position.cast_signed()).collect();
        let tiles = |size, most_first: fn(&[i32; 4]) -> i32| -> Result<Tiles> {
            let cut = cut(input.starts, size, most_first);
            Ok(Tiles { tiles: gpu.upload(cut.as_flattened())?, count: cut.len() })
        };
        Ok(Self {
            tokens: gpu.upload(input.tokens)?,
            tokens_count: input.tokens.len(),
            positions: gpu.upload(&positions)?,
            forward: tiles(forward_tile(head_size), seen_before)?,
            queries: tiles(64, seen_before)?,
            keys: tiles(64, seen_after)?,
            places: gpu.upload(&places)?,
            labels: gpu.upload(&labels)?,
            weights: gpu.upload(&weights)?,
            labels_count: input.labels.len(),
        })
    }
}

fn seen_before(tile: &[i32; 4]) -> i32 {
    tile[0] - tile[1]
}

fn seen_after(tile: &[i32; 4]) -> i32 {
    tile[2] - tile[0]
}

/// Places in a batch, which holds far fewer tokens than an int counts.
fn narrow(place: usize) -> i32 {
    i32::try_from(place).unwrap_or(i32::MAX)
}

fn cut(starts: &[usize], size: usize, work: fn(&[i32; 4]) -> i32) -> Vec<[i32; 4]> {
    let rows = starts.windows(2).map(|ends| (ends[0], ends[1]));
    let mut tiles: Vec<[i32; 4]> =
        rows.flat_map(|(begin, end)| (begin..end).step_by(size).map(move |first| [narrow(first), narrow(begin), narrow(end), 0])).collect();
    tiles.sort_by_key(|tile| std::cmp::Reverse(work(tile)));
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_begin_with_rows_and_those_with_most_to_read_come_first() {
        let tiles = cut(&[0, 3, 133], 64, seen_before);
        assert_eq!(tiles, [[131, 3, 133, 0], [67, 3, 133, 0], [0, 0, 3, 0], [3, 3, 133, 0]]);
        assert_eq!(cut(&[0, 3, 133], 64, seen_after)[0], [3, 3, 133, 0]);
    }
}
