//! The order in which llama-quantize writes tensors.

use std::cmp::Ordering;

/// The positions of the names in the order of writing: those of no block by name, then block by block, by name.
#[must_use]
pub fn order<N: AsRef<str>>(names: &[N]) -> Vec<usize> {
    let mut positions: Vec<_> = (0..names.len()).collect();
    positions.sort_by(|a, b| compare(names[*a].as_ref(), names[*b].as_ref()));
    positions
}

fn compare(a: &str, b: &str) -> Ordering {
    block(a).unwrap_or(-1).cmp(&block(b).unwrap_or(-1)).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

/// The number of the block that a tensor belongs to.
pub(super) fn block(name: &str) -> Option<i64> {
    let rest = name.strip_prefix("blk.")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}
