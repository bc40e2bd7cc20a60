//! Whether the lengths that a caller gives agree.

use super::{Error, TensorKind, can_encode};

pub(super) fn encode(kind: TensorKind, count: usize, row_len: usize, importance: Option<usize>, bytes: usize) -> Result<(), Error> {
    if !can_encode(kind) {
        return Err(Error::CannotEncode { kind });
    }
    if row_len == 0 || !is_whole(row_len, kind.block_size()) {
        return Err(Error::RowLength { kind, row_len });
    }
    if !count.is_multiple_of(row_len) {
        return Err(Error::NotWholeRows { count, row_len });
    }
    if let Some(found) = importance.filter(|found| *found != row_len) {
        return Err(Error::ImportanceLength { found, row_len });
    }
    size(kind, count, bytes)
}

pub(super) fn decode(kind: TensorKind, bytes: usize, count: usize) -> Result<(), Error> {
    if !is_whole(count, kind.block_size()) {
        return Err(Error::Size { kind, numbers: count, bytes });
    }
    size(kind, count, bytes)
}

fn is_whole(count: usize, block_size: u64) -> bool {
    (count as u64).is_multiple_of(block_size)
}

fn size(kind: TensorKind, count: usize, bytes: usize) -> Result<(), Error> {
    let needed = (count as u64 / kind.block_size()).checked_mul(kind.block_bytes());
    if needed == Some(bytes as u64) { Ok(()) } else { Err(Error::Size { kind, numbers: count, bytes }) }
}
