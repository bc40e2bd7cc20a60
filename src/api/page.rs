//! How much of a list is given at once.

/// Where no number is given, and at most.
const USUAL: u32 = 50;
const MOST: u32 = 500;

/// What a page has, by the `limit` of the query.
pub fn size(limit: Option<u32>) -> u32 {
    limit.unwrap_or(USUAL).clamp(1, MOST)
}
