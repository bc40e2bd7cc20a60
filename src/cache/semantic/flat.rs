//! Vectors in one piece of memory, compared with all of it.
//!
//! Exact: with thousands of entries a scan takes microseconds, and an index that approximates could miss or invent neighbours.

/// Numbers summed side by side, so that the compiler can use the machine's wide registers.
const LANES: usize = 16;

/// Normalised vectors, each with what belongs to it. All of one length.
#[derive(Debug)]
pub(super) struct Flat<T> {
    length: usize,
    vectors: Vec<f32>,
    items: Vec<T>,
}

impl<T> Flat<T> {
    pub(super) fn new(length: usize) -> Self {
        Self { length, vectors: Vec::new(), items: Vec::new() }
    }

    /// Numbers in a vector.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    pub(super) fn item_mut(&mut self, index: usize) -> Option<&mut T> {
        self.items.get_mut(index)
    }

    /// # Panics
    /// When the vector has another length; the caller has looked.
    pub(super) fn push(&mut self, vector: &[f32], item: T) {
        assert_eq!(vector.len(), self.length, "vectors of one length");
        self.vectors.extend_from_slice(vector);
        self.items.push(item);
    }

    /// Takes one out; the last one takes its place.
    pub(super) fn swap_remove(&mut self, index: usize) -> T {
        let (start, last) = (index * self.length, self.vectors.len() - self.length);
        self.vectors.copy_within(last.., start);
        self.vectors.truncate(last);
        self.items.swap_remove(index)
    }

    /// Up to `most` entries with at least this similarity, the most similar first, and the highest similarity of all.
    pub(super) fn nearest(&self, vector: &[f32], least: f32, most: usize) -> (Vec<(usize, f32)>, Option<f32>) {
        let mut found: Vec<(usize, f32)> = Vec::new();
        let mut best = None;
        for (index, other) in self.vectors.chunks_exact(self.length.max(1)).enumerate() {
            let similarity = dot(vector, other);
            best = Some(best.map_or(similarity, |best: f32| best.max(similarity)));
            if similarity >= least {
                found.push((index, similarity));
            }
        }
        found.sort_by(|a, b| b.1.total_cmp(&a.1));
        found.truncate(most);
        (found, best)
    }
}

/// The vector with length 1. `None`: it has no direction, or holds what is no number.
pub(super) fn normalised(vector: &[f32]) -> Option<Vec<f32>> {
    let norm = dot(vector, vector).sqrt();
    (norm.is_normal()).then(|| vector.iter().map(|x| x / norm).collect())
}

/// The cosine of two normalised vectors.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    rest + sums.iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_most_similar_comes_first_and_those_below_do_not_come() {
        let mut flat = Flat::new(2);
        for (vector, item) in [([1.0, 0.0], 'a'), ([0.0, 1.0], 'b'), ([0.8, 0.6], 'c')] {
            flat.push(&vector, item);
        }
        let (found, best) = flat.nearest(&[1.0, 0.0], 0.7, 9);
        assert_eq!(found.iter().map(|(index, _)| flat.items()[*index]).collect::<String>(), "ac");
        assert_eq!(best, Some(1.0));
        assert_eq!(flat.swap_remove(0), 'a');
        let (found, _) = flat.nearest(&[1.0, 0.0], 0.7, 9);
        assert_eq!(found, [(0, 0.8)]);
        assert_eq!(Flat::<()>::new(2).nearest(&[1.0, 0.0], 0.0, 9), (Vec::new(), None));
    }

    #[test]
    fn vectors_without_direction_are_none() {
        assert_eq!(normalised(&[3.0, 4.0]), Some(vec![0.6, 0.8]));
        for vector in [vec![], vec![0.0, 0.0], vec![f32::NAN, 1.0], vec![f32::INFINITY], vec![1e30; 8]] {
            assert_eq!(normalised(&vector), None, "{vector:?}");
        }
    }

    proptest! {
        #[test]
        fn the_product_is_the_plain_one(a in proptest::collection::vec(-1.0f32..1.0, 0..70)) {
            let b: Vec<f32> = a.iter().map(|x| 0.5 - x).collect();
            let plain: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            prop_assert!((f64::from(dot(&a, &b)) - plain).abs() < 1e-4);
        }
    }
}
