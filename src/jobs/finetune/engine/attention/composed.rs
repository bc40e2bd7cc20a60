//! Attention by candle's operations.

use std::ops::Range;

use candle_core::{D, Result, Tensor};

use super::super::compute::{Compute, wide};
use super::{How, rows};

/// Queries whose scores are made together.
pub const QUERIES: usize = 256;

/// Some queries of a row with what they see, by key head: keys × (queries of all heads that share them) × numbers.
struct Tile {
    tokens: usize,
    /// Places in the batch.
    queries: Range<usize>,
    seen: Range<usize>,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    /// What every query makes of every key.
    weights: Tensor,
    /// What the gradient of scores is multiplied with, on the way back through tanh.
    slope: Option<Tensor>,
}

fn tiles<'a>(how: &'a How, starts: &'a [usize]) -> impl Iterator<Item = [Range<usize>; 2]> + 'a {
    rows(starts).flat_map(move |row| {
        (0..row.len()).step_by(QUERIES).map(move |first| {
            let tokens = first..row.len().min(first + QUERIES);
            let seen = how.seen_by(&tokens);
            [tokens, seen].map(|range| row.start + range.start..row.start + range.end)
        })
    })
}

impl How {
    /// By key head: the numbers of each query head that shares it, one head behind the other.
    fn by_head(&self, x: &Tensor, places: &Range<usize>, heads: usize) -> Result<Tensor> {
        let (each, count) = (heads / self.kv_heads, places.len());
        let x = wide(&x.narrow(0, places.start, count)?)?.reshape((count, self.kv_heads, each, self.head_length))?;
        x.permute((1, 2, 0, 3))?.contiguous()?.reshape((self.kv_heads, each * count, self.head_length))
    }

    /// The opposite of [`How::by_head`].
    fn by_token(&self, x: &Tensor, count: usize, heads: usize) -> Result<Tensor> {
        let x = x.reshape((self.kv_heads, heads / self.kv_heads, count, self.head_length))?;
        x.permute((2, 0, 1, 3))?.contiguous()?.reshape((count, heads * self.head_length))
    }

    /// 0 where a query sees, −∞ where it does not.
    fn mask(&self, compute: &Compute, queries: &Range<usize>, seen: &Range<usize>) -> Result<Tensor> {
        let sees = |query: usize, key: usize| key <= query && self.window.is_none_or(|window| query < key + window);
        let row = |query: usize| seen.clone().map(move |key| if sees(query, key) { 0.0 } else { f32::NEG_INFINITY });
        compute.tensor(queries.clone().flat_map(row).collect(), (1, 1, queries.len(), seen.len()))
    }
}

impl Tile {
    fn new(compute: &Compute, how: &How, [queries, seen]: [Range<usize>; 2], [q, k, v]: [&Tensor; 3]) -> Result<Self> {
        let [q, k, v] = [how.by_head(q, &queries, how.heads)?, how.by_head(k, &seen, how.kv_heads)?, how.by_head(v, &seen, how.kv_heads)?];
        let scores = (q.matmul(&k.transpose(1, 2)?)? * f64::from(how.scale))?;
        let (scores, slope) = match how.softcap.map(f64::from) {
            None => (scores, None),
            Some(limit) => {
                let bent = (scores / limit)?.tanh()?;
                ((&bent * limit)?, Some(bent.sqr()?.affine(-1.0, 1.0)?))
            }
        };
        let shape = scores.shape().clone();
        let scores = scores.reshape((how.kv_heads, (), queries.len(), seen.len()))?;
        let scores = scores.broadcast_add(&how.mask(compute, &queries, &seen)?)?.reshape(shape)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        Ok(Self { tokens: queries.len(), queries, seen, q, k, v, weights, slope })
    }

    fn backward(&self, how: &How, dy: &Tensor) -> Result<[Tensor; 3]> {
        let dy = how.by_head(dy, &self.queries, how.heads)?;
        let dv = self.weights.transpose(1, 2)?.matmul(&dy)?;
        let dp = dy.matmul(&self.v.transpose(1, 2)?)?;
        let mean = (&self.weights * &dp)?.sum_keepdim(D::Minus1)?;
        let ds = (&self.weights * dp.broadcast_sub(&mean)?)?;
        let ds = if let Some(slope) = &self.slope { (ds * slope)? } else { ds };
        let ds = (ds * f64::from(how.scale))?;
        let (dq, dk) = (ds.matmul(&self.k)?, ds.transpose(1, 2)?.matmul(&self.q)?);
        let seen = self.seen.len();
        Ok([how.by_token(&dq, self.tokens, how.heads)?, how.by_token(&dk, seen, how.kv_heads)?, how.by_token(&dv, seen, how.kv_heads)?])
    }
}

pub fn forward(compute: &Compute, how: &How, starts: &[usize], qkv: [&Tensor; 3]) -> Result<Tensor> {
    let tile = |ranges| {
        let tile = Tile::new(compute, how, ranges, qkv)?;
        how.by_token(&tile.weights.matmul(&tile.v)?, tile.tokens, how.heads)
    };
    compute.narrow(&Tensor::cat(&tiles(how, starts).map(tile).collect::<Result<Vec<_>>>()?, 0)?)
}

pub fn backward(compute: &Compute, how: &How, starts: &[usize], qkv: [&Tensor; 3], dy: &Tensor) -> Result<[Tensor; 3]> {
    let (mut dqs, total) = (Vec::new(), dy.dim(0)?);
    let [mut dk, mut dv] = [wide(qkv[1])?.zeros_like()?, wide(qkv[2])?.zeros_like()?];
    for ranges in tiles(how, starts) {
        let tile = Tile::new(compute, how, ranges, qkv)?;
        let [dq, dk_part, dv_part] = tile.backward(how, dy)?;
        let whole = |part: Tensor| part.pad_with_zeros(0, tile.seen.start, total - tile.seen.end);
        (dk, dv) = ((dk + whole(dk_part)?)?, (dv + whole(dv_part)?)?);
        dqs.push(dq);
    }
    Ok([compute.narrow(&Tensor::cat(&dqs, 0)?)?, compute.narrow(&dk)?, compute.narrow(&dv)?])
}
