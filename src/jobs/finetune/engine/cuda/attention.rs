//! Causal attention within the rows of a batch, forwards and backwards, without ever keeping scores.

use super::error::Result;
use super::gpu::{Argument, Buffer, Gpu, Launch, Rows};
use super::source::Source;
use super::table::{Table, Tiles};

/// Heads of one layer.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub heads: usize,
    pub kv_heads: usize,
    pub head_size: usize,
    /// Products of queries and keys are multiplied with this.
    pub scale: f32,
    /// Scores are kept within this by tanh; 0: they are not.
    pub cap: f32,
    /// Tokens seen, the current one included; 0: all.
    pub window: usize,
}

/// Queries, keys and values.
#[derive(Clone, Copy)]
pub struct Projected<'a> {
    pub q: Rows<'a>,
    pub k: Rows<'a>,
    pub v: Rows<'a>,
}

/// Queries that a block of the forward kernel reads.
pub fn forward_tile(head_size: usize) -> usize {
    if head_size > 128 { 64 } else { 128 }
}

impl Attention {
    /// Bytes of a row of a tile in shared memory.
    fn pitch(&self) -> usize {
        (self.head_size + 8) * 2
    }

    fn launch(&self, backward: bool, name: &'static str, heads: usize, tiles: &Tiles, shared_bytes: usize) -> Launch {
        let head_size = self.head_size;
        let source = if backward { Source::AttentionBackward { head_size } } else { Source::AttentionForward { head_size } };
        Launch { source, name, grid: (heads, tiles.count), threads: 128, shared_bytes }
    }

    fn settings(&self) -> [Argument; 4] {
        [(self.heads / self.kv_heads).into(), self.scale.into(), self.cap.into(), self.window.into()]
    }

    /// `out`, and ln Σ exp of every query and head (`sums`: heads × tokens).
    pub fn forward(&self, gpu: &Gpu, from: Projected<'_>, out: Rows<'_>, sums: &Buffer<f32>, table: &Table) -> Result<()> {
        let shared = (forward_tile(self.head_size) + 128) * self.pitch();
        let launch = self.launch(false, "attention_forward", self.heads, &table.forward, shared);
        let first = [from.q, from.k, from.v, out].map(Argument::from);
        let strides = [table.tokens_count, from.q.stride, from.k.stride, from.v.stride, out.stride].map(Argument::from);
        let tables = [sums.into(), (&table.forward.tiles).into()];
        gpu.launch(launch, &[&first[..], &tables, &strides, &self.settings()].concat())
    }

    /// Gradients of queries, keys and values (`into`) from that of `out`, which must lie as `out` does. `deltas`: heads × tokens.
    pub fn backward(
        &self,
        gpu: &Gpu,
        from: Projected<'_>,
        (out, grad): (Rows<'_>, Rows<'_>),
        (sums, deltas): (&Buffer<f32>, &Buffer<f32>),
        into: Projected<'_>,
        table: &Table,
    ) -> Result<()> {
        let tokens = table.tokens_count;
        let source = Source::AttentionBackward { head_size: self.head_size };
        let grid = ((tokens * self.heads).div_ceil(8), 1);
        let launch = Launch { source, name: "attention_delta", grid, threads: 256, shared_bytes: 0 };
        gpu.launch(launch, &[out.into(), grad.into(), deltas.into(), tokens.into(), self.heads.into(), out.stride.into()])?;

        let read = [from.q.into(), from.k.into(), from.v.into(), grad.into(), sums.into(), deltas.into()];
        let strides = [tokens, from.q.stride, from.k.stride, from.v.stride, grad.stride].map(Argument::from);
        self.backward_keys(gpu, &read, &strides, into, table)?;
        let shared = 192 * self.pitch();
        let launch = self.launch(true, "attention_backward_queries", self.heads, &table.queries, shared);
        let written = [into.q.into(), (&table.queries.tiles).into()];
        gpu.launch(launch, &[&read[..], &written, &strides, &[into.q.stride.into()], &self.settings()].concat())
    }

    /// Large heads' keys and values are two launches: the sums of both would not fit into registers.
    fn backward_keys(&self, gpu: &Gpu, read: &[Argument], strides: &[Argument], into: Projected<'_>, table: &Table) -> Result<()> {
        let (names, queries): (&[&'static str], usize) = if self.head_size > 128 {
            (&["attention_backward_keys", "attention_backward_values"], 16)
        } else {
            (&["attention_backward_keys_values"], 64)
        };
        let shared = (128 + 3 * queries) * self.pitch() + 16 * queries;
        let written = [into.k.into(), into.v.into(), (&table.keys.tiles).into()];
        let more = [into.k.stride.into(), into.v.stride.into()];
        for name in names {
            let launch = self.launch(true, name, self.kv_heads, &table.keys, shared);
            gpu.launch(launch, &[read, &written, strides, &more, &self.settings()].concat())?;
        }
        Ok(())
    }
}
