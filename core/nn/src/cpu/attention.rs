//! Scaled dot-product attention that never holds the matrix of scores (Dao et al. 2022, "FlashAttention"): a tile of
//! queries meets the keys tile by tile, with a running maximum and sum for the softmax, and keeps one number a row for
//! the backward pass, the logarithm of its sum, from which each tile of probabilities is made again.

mod grad;
mod layout;
mod tile;

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::{Float, Isa, Kernel, dispatch};
use layout::{Head, Shared};
use tile::{Left, Panels, Part, ROWS, STEP, pad, product};

pub use grad::{Saved, attention_grad};
pub use layout::{Rows, Strides};
pub use tile::Tile;

/// Queries and keys of a tile of scores.
const QUERIES: usize = 64;
const KEYS: usize = 128;

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Samples, B.
    pub batch: usize,
    /// Heads, H.
    pub heads: usize,
    /// Queries, Lq.
    pub queries: usize,
    /// Keys and values, Lk.
    pub keys: usize,
    /// Numbers of a head, D.
    pub width: usize,
    /// What each query sees.
    pub mask: Mask,
    /// What scores are multiplied by.
    pub scale: f64,
}

/// What each query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mask {
    /// Every key.
    #[default]
    None,
    /// The keys up to its own position.
    Causal,
}

impl Sizes {
    /// How many of the keys query `i` sees.
    #[inline(always)]
    fn seen(&self, i: usize) -> usize {
        match self.mask {
            Mask::None => self.keys,
            Mask::Causal => self.keys.min(i + 1),
        }
    }
}

/// softmax(scale q kᵀ) v, in rows that lie as `out` says, and the logarithm of each row's sum, `B H Lq`.
pub fn attention<T: Float + Tile>(sizes: Sizes, q: Rows<T>, k: Rows<T>, v: Rows<T>, out: Strides) -> (Vec<T>, Vec<T>) {
    let Sizes { batch, heads, queries, width, .. } = sizes;
    let mut values = vec![T::ZERO; batch * heads * queries * width];
    let mut logs = vec![T::ZERO; batch * heads * queries];
    // Each part packs the keys again, so heads are cut only where they are too few. A row does not depend on the cut.
    let tiles = queries.div_ceil(QUERIES);
    let wanted = (2 * rayon::current_num_threads()).div_ceil(batch * heads);
    let part = tiles.div_ceil(wanted.min(tiles.div_ceil(2)).max(1)) * QUERIES;
    let parts = queries.div_ceil(part);
    let out = Shared::new(&mut values, out);
    let sums = Shared::new(&mut logs, Strides { batch: heads * queries, head: queries, row: 1 });
    (0..batch * heads * parts).into_par_iter().for_each(|task| {
        let (b, h) = (task / parts / heads, task / parts % heads);
        let rows = task % parts * part..queries.min((task % parts + 1) * part);
        let [q, k, v] = [q, k, v].map(|x| x.head(b, h, width));
        let write = |i: usize, row: &[T], log: T| {
            // SAFETY: this task owns rows `rows` of this head.
            let (out, sum) = unsafe { (out.row(b, h, i, width), sums.row(b, h, i, 1)) };
            for (out, &x) in out.iter_mut().zip(row) {
                *out = x;
            }
            sum[0] = log;
        };
        dispatch(Forward { sizes, q, k, v, rows, write });
    });
    (values, logs)
}

/// Some rows of `x` times `scale`, packed and padded with zeros to a multiple of [`ROWS`].
#[inline(always)]
fn pack_rows<T: Float>(x: Head<T>, rows: Range<usize>, scale: T, to: &mut Vec<T>) {
    to.clear();
    to.resize(pad(rows.len(), ROWS) * x.width, T::ZERO);
    for (to, i) in to.chunks_exact_mut(x.width).zip(rows) {
        for (to, &x) in to.iter_mut().zip(x.row(i)) {
            *to = x * scale;
        }
    }
}

/// The rows of `x` as the columns of a matrix.
#[inline(always)]
fn transposed<T: Float>(x: Head<T>, rows: Range<usize>) -> Panels<T> {
    let mut panels = Panels::new(x.width, rows.len());
    for (to, from) in rows.enumerate() {
        panels.set_col(to, x.row(from));
    }
    panels
}

/// The rows of `x` as the rows of a matrix.
#[inline(always)]
fn panels<T: Float>(x: Head<T>, rows: Range<usize>) -> Panels<T> {
    let mut panels = Panels::new(rows.len(), x.width);
    for (to, from) in rows.enumerate() {
        panels.set_row(to, x.row(from));
    }
    panels
}

/// A tile of scores: of the queries `rows`, and of the keys `keys` among those packed.
#[inline(always)]
fn scores<I: Isa, T: Float + Tile>(
    q: &[T],
    kt: &Panels<T>,
    width: usize,
    rows: usize,
    keys: Range<usize>,
    to: &mut [T],
) {
    let a = Left { data: q, row: width, step: 1 };
    let part = Part { from: 0, depth: width, first: keys.start, cols: pad(keys.len(), STEP) };
    product::<I, T>(a, kt, part, pad(rows, ROWS), to, KEYS, false);
}

/// The largest of a row whose length is a multiple of [`STEP`].
#[inline(always)]
fn largest<T: Float>(row: &[T]) -> T {
    let mut most = [T::NEG_INFINITY; STEP];
    for x in row.chunks_exact(STEP) {
        for i in 0..STEP {
            most[i] = x[i].max_of(most[i]);
        }
    }
    most.into_iter().fold(T::NEG_INFINITY, |most, x| x.max_of(most))
}

/// Replaces each x by exp(x - shift), and adds them up; the length is a multiple of [`STEP`].
#[inline(always)]
fn exponentials<I: Isa, T: Float>(row: &mut [T], shift: T) -> T {
    let mut sum = [T::ZERO; STEP];
    for x in row.chunks_exact_mut(STEP) {
        for i in 0..STEP {
            x[i] = (x[i] - shift).exp::<I>();
            sum[i] += x[i];
        }
    }
    sum.into_iter().sum()
}

/// Hides the scores of a row from number `seen` on.
#[inline(always)]
fn hide<T: Float>(row: &mut [T], seen: usize) {
    if seen < row.len() {
        row[seen..].fill(T::NEG_INFINITY);
    }
}

/// Some queries of a head against all its keys; `write` takes query, value and logarithm of the sum.
struct Forward<'a, T, W> {
    sizes: Sizes,
    q: Head<'a, T>,
    k: Head<'a, T>,
    v: Head<'a, T>,
    rows: Range<usize>,
    write: W,
}

impl<T: Float + Tile, W: FnMut(usize, &[T], T)> Kernel for Forward<'_, T, W> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let Sizes { keys, width, .. } = self.sizes;
        let reach = self.sizes.seen(self.rows.end - 1);
        let (kt, v) = (transposed(self.k, 0..reach), panels(self.v, 0..reach));
        let wide = pad(width, STEP);
        let (mut q, mut p, mut o) = (Vec::new(), vec![T::ZERO; QUERIES * KEYS], vec![T::ZERO; QUERIES * wide]);
        for first in self.rows.clone().step_by(QUERIES) {
            let rows = first..self.rows.end.min(first + QUERIES);
            let height = rows.len();
            pack_rows(self.q, rows.clone(), T::of(self.sizes.scale), &mut q);
            let mut most = [T::NEG_INFINITY; QUERIES];
            let mut total = [T::ZERO; QUERIES];
            for from in (0..self.sizes.seen(rows.end - 1)).step_by(KEYS) {
                let to = keys.min(from + KEYS).min(reach);
                scores::<I, T>(&q, &kt, width, height, from..to, &mut p);
                let padded = pad(to - from, STEP);
                for (r, p) in p.chunks_exact_mut(KEYS).take(height).enumerate() {
                    let p = &mut p[..padded];
                    hide(p, self.sizes.seen(first + r).min(to).saturating_sub(from));
                    let shift = largest(p).max_of(most[r]);
                    let sum = exponentials::<I, T>(p, shift);
                    if from > 0 && shift > most[r] {
                        let shrink = (most[r] - shift).exp::<I>();
                        total[r] *= shrink;
                        for o in &mut o[r * wide..(r + 1) * wide] {
                            *o *= shrink;
                        }
                    }
                    most[r] = shift;
                    total[r] += sum;
                }
                let a = Left { data: &p, row: KEYS, step: 1 };
                let part = Part { from, depth: to - from, first: 0, cols: wide };
                product::<I, T>(a, &v, part, pad(height, ROWS), &mut o, wide, from > 0);
            }
            for (r, o) in o.chunks_exact_mut(wide).take(height).enumerate() {
                let share = T::ONE / total[r];
                for o in o.iter_mut() {
                    *o *= share;
                }
                (self.write)(first + r, &o[..width], most[r] + total[r].log());
            }
        }
    }
}
