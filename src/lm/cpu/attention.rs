//! Keys and values of one layer, and attention over them.
//!
//! They are kept head by head, token `p` in slot `p % slots`. One token looks at them where they are;
//! many tokens go in blocks of queries against blocks of keys, with the softmax kept running (Milakov and Gimelshein 2018; Dao
//! et al. 2022), so that memory does not grow with the square of the context.

#![expect(unsafe_code, reason = "tasks write different places of one output, and `gemm` takes pointers")]

use std::cell::RefCell;
use std::ops::Range;

use gemm::Parallelism;

use crate::lm::ops::{Attention, Room};

use super::Precision;
use super::kernels::{self, Cell, Isa};
use super::pool::Pool;
use super::rows::{Places, Rows};

/// From so many tokens on they are taken in blocks.
const MANY: usize = 5;

/// Tokens whose queries form one block.
const QUERIES: usize = 32;

/// Keys that one block of queries looks at together.
const KEYS: usize = 128;

/// Keys and values of one layer.
#[derive(Debug)]
pub enum Store {
    Half(Cells<u16>),
    Single(Cells<f32>),
}

impl Store {
    pub fn new(room: Room, precision: Precision) -> Self {
        match precision {
            Precision::Half => Self::Half(Cells::new(room)),
            Precision::Single => Self::Single(Cells::new(room)),
        }
    }
}

/// Head after head, slot after slot.
#[derive(Debug)]
pub struct Cells<C> {
    room: Room,
    keys: Vec<C>,
    values: Vec<C>,
}

impl<C: Cell> Cells<C> {
    fn new(room: Room) -> Self {
        let length = room.head_count_kv * room.slots * room.head_length;
        Self { room, keys: vec![C::default(); length], values: vec![C::default(); length] }
    }

    /// Where the slots of a head begin.
    fn head(&self, head: usize) -> usize {
        head * self.room.slots * self.room.head_length
    }

    fn write(&mut self, isa: Isa, start: usize, keys: &Rows, values: &Rows) {
        let width = self.room.head_length;
        for (token, (keys, values)) in keys.iter().zip(values.iter()).enumerate() {
            let slot = (start + token) % self.room.slots;
            for (head, (key, value)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
                let at = self.head(head) + slot * width;
                kernels::narrow_all(isa, key, &mut self.keys[at..at + width]);
                kernels::narrow_all(isa, value, &mut self.values[at..at + width]);
            }
        }
    }

    /// The one or two runs of slots in which some positions lie, as ranges of numbers of a head.
    fn runs(&self, head: usize, positions: &Range<usize>) -> [Range<usize>; 2] {
        let Room { slots, head_length: width, .. } = self.room;
        let (first, count) = (positions.start % slots, positions.len());
        let before = count.min(slots - first);
        let at = self.head(head);
        [at + first * width..at + (first + before) * width, at..at + (count - before) * width]
    }
}

#[derive(Debug, Default)]
struct Scratch {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Stores the keys and values of some tokens and lets their queries attend.
pub fn attend(isa: Isa, pool: &Pool, qkv: [&Rows; 3], store: &mut Store, how: &Attention) -> Rows {
    match store {
        Store::Half(cells) => attend_over(isa, pool, qkv, cells, how),
        Store::Single(cells) => attend_over(isa, pool, qkv, cells, how),
    }
}

fn attend_over<C: Cell>(isa: Isa, pool: &Pool, [query, key, value]: [&Rows; 3], store: &mut Cells<C>, how: &Attention) -> Rows {
    store.write(isa, how.start, key, value);
    let layer = Layer { isa, store, how, query };
    let mut out = Rows::new(query.count(), query.width);
    let places = Places::new(&mut out.values);
    if query.count() < MANY {
        pool.run(query.count() * how.head_count, |task| {
            // SAFETY: each task is one head of one token.
            unsafe { layer.one(task / how.head_count, task % how.head_count, &places) };
        });
    } else {
        let blocks = query.count().div_ceil(QUERIES);
        pool.run(blocks * how.head_count_kv, |task| {
            let (block, head) = (task / how.head_count_kv, task % how.head_count_kv);
            let tokens = block * QUERIES..query.count().min((block + 1) * QUERIES);
            // SAFETY: each task has the query heads of one key head, of tokens of its own.
            SCRATCH.with_borrow_mut(|scratch| unsafe { layer.block(tokens, head, scratch, &places) });
        });
    }
    out
}

struct Layer<'a, C> {
    isa: Isa,
    store: &'a Cells<C>,
    how: &'a Attention,
    query: &'a Rows,
}

impl<C: Cell> Layer<'_, C> {
    /// # Safety
    /// Nobody else uses the places of this head of this token.
    unsafe fn one(&self, token: usize, head: usize, out: &Places<'_, f32>) {
        let (isa, how, width) = (self.isa, self.how, self.how.head_length);
        let position = how.start + token;
        let seen = how.first_seen(position)..position + 1;
        let runs = self.store.runs(head * how.head_count_kv / how.head_count, &seen);
        let at = token * self.query.width + head * width;
        // SAFETY: the caller keeps these places for us.
        let out = unsafe { out.slice(at..at + width) };
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.scores.resize(seen.len(), 0.0);
            let scores = &mut scratch.scores[..seen.len()];
            let (first, second) = scores.split_at_mut(runs[0].len() / width);
            let query = &self.query.values[at..at + width];
            kernels::scores(isa, query, &self.store.keys[runs[0].clone()], how.scale, first);
            kernels::scores(isa, query, &self.store.keys[runs[1].clone()], how.scale, second);
            if let Some(limit) = how.softcap {
                kernels::soft_cap(isa, scores, limit);
            }
            let (_, sum) = kernels::exponentials(isa, scores, f32::NEG_INFINITY);
            let (first, second) = scores.split_at(runs[0].len() / width);
            kernels::weighted(isa, first, &self.store.values[runs[0].clone()], out);
            kernels::weighted(isa, second, &self.store.values[runs[1].clone()], out);
            kernels::scale(isa, out, 1.0 / sum);
        });
    }

    /// # Safety
    /// Nobody else uses the places of these tokens in the query heads of this key head.
    unsafe fn block(&self, tokens: Range<usize>, head: usize, scratch: &mut Scratch, out: &Places<'_, f32>) {
        let (how, width) = (self.how, self.how.head_length);
        let per_key = how.head_count / how.head_count_kv;
        let rows = tokens.len() * per_key;
        scratch.resize(rows, width);
        self.gather(&tokens, head * per_key, per_key, &mut scratch.queries);
        scratch.out[..rows * width].fill(0.0);
        let mut running = vec![(f32::NEG_INFINITY, 0.0_f32); rows];
        let end = how.start + tokens.end;
        let mut from = how.first_seen(how.start + tokens.start);
        while from < end {
            let keys = from..end.min(from + KEYS);
            self.against(&tokens, head, keys.clone(), &mut running, scratch);
            from = keys.end;
        }
        for (row, (result, (_, sum))) in scratch.out.chunks_exact(width).zip(running).enumerate() {
            let (token, query_head) = (tokens.start + row / per_key, head * per_key + row % per_key);
            let at = token * self.query.width + query_head * width;
            // SAFETY: the caller keeps these places for us.
            let out = unsafe { out.slice(at..at + width) };
            out.copy_from_slice(result);
            kernels::scale(self.isa, out, 1.0 / sum);
        }
    }

    /// Puts the queries of a block one behind the other, head after head of token after token, scaled.
    fn gather(&self, tokens: &Range<usize>, first_head: usize, heads: usize, queries: &mut [f32]) {
        let width = self.how.head_length;
        for (token, to) in tokens.clone().zip(queries.chunks_exact_mut(heads * width)) {
            to.copy_from_slice(&self.query.row(token)[first_head * width..(first_head + heads) * width]);
            kernels::scale(self.isa, to, self.how.scale);
        }
    }

    /// One block of queries against one block of keys.
    fn against(&self, tokens: &Range<usize>, head: usize, keys: Range<usize>, running: &mut [(f32, f32)], scratch: &mut Scratch) {
        let (isa, how, width) = (self.isa, self.how, self.how.head_length);
        let mut at = 0;
        for run in self.store.runs(head, &keys) {
            let to = at..at + run.len();
            kernels::widen_all(isa, &self.store.keys[run.clone()], &mut scratch.keys[to.clone()]);
            kernels::widen_all(isa, &self.store.values[run], &mut scratch.values[to.clone()]);
            at = to.end;
        }
        let (rows, per_key) = (running.len(), running.len() / tokens.len());
        product([rows, keys.len(), width], &scratch.queries, (&scratch.keys, [width, 1]), (&mut scratch.scores, KEYS), false);
        for (row, running) in running.iter_mut().enumerate() {
            let position = how.start + tokens.start + row / per_key;
            let seen = how.first_seen(position).max(keys.start)..(position + 1).clamp(keys.start, keys.end);
            let scores = &mut scratch.scores[row * KEYS..row * KEYS + keys.len()];
            let seen = seen.start.min(seen.end) - keys.start..seen.end - keys.start;
            let shrink = self.probabilities(scores, seen, running);
            if shrink < 1.0 {
                kernels::scale(isa, &mut scratch.out[row * width..(row + 1) * width], shrink);
            }
        }
        scratch.weigh([rows, width, keys.len()]);
    }

    /// Makes `scores` weights relative to the largest score of the row so far. Returns what earlier results shrink by.
    fn probabilities(&self, scores: &mut [f32], seen: Range<usize>, (most, sum): &mut (f32, f32)) -> f32 {
        scores[..seen.start].fill(0.0);
        scores[seen.end..].fill(0.0);
        let scores = &mut scores[seen];
        if scores.is_empty() {
            return 1.0;
        }
        if let Some(limit) = self.how.softcap {
            kernels::soft_cap(self.isa, scores, limit);
        }
        let (new_most, new_sum) = kernels::exponentials(self.isa, scores, *most);
        let shrink = (*most - new_most).exp();
        *sum = *sum * shrink + new_sum;
        *most = new_most;
        shrink
    }
}

impl Scratch {
    fn resize(&mut self, rows: usize, width: usize) {
        self.queries.resize(rows * width, 0.0);
        self.keys.resize(KEYS * width, 0.0);
        self.values.resize(KEYS * width, 0.0);
        self.scores.resize(rows * KEYS, 0.0);
        self.out.resize(rows * width, 0.0);
    }

    /// Adds the weighted values to the results.
    fn weigh(&mut self, [rows, width, keys]: [usize; 3]) {
        let Self { scores, values, out, .. } = self;
        weigh([rows, width, keys], scores, values, out);
    }
}

/// `out = a · b`, where `a` is rows × depth one behind the other, and `b` has the given strides of columns and depth.
#[expect(clippy::cast_possible_wrap, reason = "strides of matrices that fit into memory")]
fn product(
    [rows, columns, depth]: [usize; 3],
    a: &[f32],
    (b, strides): (&[f32], [usize; 2]),
    (out, stride): (&mut [f32], usize),
    add: bool,
) {
    assert!(a.len() >= rows * depth && b.len() >= columns * depth && out.len() >= rows * stride && stride >= columns);
    let lhs = (a.as_ptr(), depth);
    // SAFETY: all three lie within their slices, checked above.
    unsafe {
        multiply([rows, columns, depth], lhs, (b.as_ptr(), strides[0] as isize, strides[1] as isize), (out.as_mut_ptr(), stride), add);
    }
}

fn weigh([rows, width, keys]: [usize; 3], scores: &[f32], values: &[f32], out: &mut [f32]) {
    assert!(scores.len() >= rows * KEYS && values.len() >= keys * width && out.len() >= rows * width);
    #[expect(clippy::cast_possible_wrap, reason = "a head's width")]
    // SAFETY: all three lie within their slices, checked above.
    unsafe {
        multiply([rows, width, keys], (scores.as_ptr(), KEYS), (values.as_ptr(), 1, width as isize), (out.as_mut_ptr(), width), true);
    };
}

/// # Safety
/// The matrices lie where the pointers and strides say.
#[expect(clippy::cast_possible_wrap, reason = "strides of matrices that fit into memory")]
unsafe fn multiply(
    [rows, columns, depth]: [usize; 3],
    (a, a_stride): (*const f32, usize),
    (b, b_column, b_depth): (*const f32, isize, isize),
    (out, out_stride): (*mut f32, usize),
    add: bool,
) {
    let keep = if add { 1.0 } else { 0.0 };
    let (a_stride, out_stride) = (a_stride as isize, out_stride as isize);
    // SAFETY: as the caller vouches.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            out,
            1,
            out_stride,
            add,
            a,
            1,
            a_stride,
            b,
            b_column,
            b_depth,
            keep,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
