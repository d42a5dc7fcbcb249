//! Scaled dot-product attention that never holds the matrix of scores (Dao et al. 2022, "FlashAttention"): a tile of
//! queries meets the keys tile by tile, with a running maximum and sum for the softmax, and keeps one number a row for
//! the backward pass, the logarithm of its sum, from which each tile of probabilities is made again.

mod tile;

use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::{Float, Isa, Kernel, dispatch};
use tile::{Left, Panels, Part, ROWS, STEP, pad, product};

pub use tile::Tile;

/// Queries and keys of a tile of scores.
const QUERIES: usize = 64;
const KEYS: usize = 128;
/// Tasks that the backward pass is cut into at least, where the heads alone are fewer and the keys are many.
const TASKS: usize = 16;

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

/// Where the row of D numbers (sample, head, position) starts: a sum of multiples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// From a sample to the next.
    pub batch: usize,
    /// From a head to the next.
    pub head: usize,
    /// From a position to the next.
    pub row: usize,
}

impl Strides {
    /// `B L H*D`.
    pub fn packed(length: usize, heads: usize, width: usize) -> Self {
        Self { batch: length * heads * width, head: width, row: heads * width }
    }

    /// `B H L D`.
    pub fn split(length: usize, heads: usize, width: usize) -> Self {
        Self { batch: length * heads * width, head: length * width, row: width }
    }

    #[inline(always)]
    fn at(&self, batch: usize, head: usize, row: usize) -> usize {
        batch * self.batch + head * self.head + row * self.row
    }
}

/// Queries, keys, values, or a gradient of them.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    /// The numbers.
    pub data: &'a [T],
    /// Where each row starts.
    pub strides: Strides,
}

/// The rows of one head of one sample.
#[derive(Clone, Copy)]
struct Head<'a, T> {
    data: &'a [T],
    row: usize,
    width: usize,
}

impl<'a, T> Rows<'a, T> {
    fn head(&self, batch: usize, head: usize, width: usize) -> Head<'a, T> {
        Head { data: &self.data[self.strides.at(batch, head, 0)..], row: self.strides.row, width }
    }
}

impl<'a, T> Head<'a, T> {
    #[inline(always)]
    fn row(&self, i: usize) -> &'a [T] {
        &self.data[i * self.row..i * self.row + self.width]
    }
}

/// Memory that several tasks write to, each its own rows.
#[derive(Clone, Copy)]
struct Shared<T> {
    data: *mut T,
    len: usize,
    strides: Strides,
}

// SAFETY: each row is written by the one task that it belongs to, which every user of this type sees to.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn new(data: &mut [T], strides: Strides) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), strides }
    }

    /// # Safety
    /// No other task reads or writes this row meanwhile.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, batch: usize, head: usize, row: usize, width: usize) -> &mut [T] {
        let at = self.strides.at(batch, head, row);
        assert!(at + width <= self.len);
        // SAFETY: in bounds, and the caller's own.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(at), width) }
    }
}

/// softmax(scale q kᵀ) v, in rows that lie as `out` says, and the logarithm of each row's sum, `B H Lq`.
pub fn attention<T: Float + Tile>(
    sizes: Sizes,
    q: Rows<T>,
    k: Rows<T>,
    v: Rows<T>,
    out: Strides,
) -> (Vec<T>, Vec<T>) {
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

/// A tile of scores: of the queries `rows`, and of the keys `keys` of those that were packed from key `base` on.
#[inline(always)]
fn scores<I: Isa, T: Float + Tile>(q: &[T], kt: &Panels<T>, width: usize, rows: usize, keys: Range<usize>, to: &mut [T]) {
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

/// What the backward pass starts from, beside the inputs.
#[derive(Clone, Copy)]
pub struct Saved<'a, T> {
    /// The output.
    pub out: Rows<'a, T>,
    /// The logarithms of the sums, `B H Lq`.
    pub logs: &'a [T],
    /// The gradient of the output.
    pub grad: Rows<'a, T>,
}

/// The gradients of q, k and v, in rows that lie as `dq`, `dk` and `dv` say.
pub fn attention_grad<T: Float + Tile>(
    sizes: Sizes,
    q: Rows<T>,
    k: Rows<T>,
    v: Rows<T>,
    saved: Saved<T>,
    [dq, dk, dv]: [Strides; 3],
) -> [Vec<T>; 3] {
    let Sizes { batch, heads, queries, keys, width, .. } = sizes;
    // Heads are cut by keys where they are few; the parts depend on the sizes alone, and so do the sums over them.
    let tiles = keys.div_ceil(KEYS);
    let wanted = TASKS.div_ceil(batch * heads).min(tiles.div_ceil(2)).max(1);
    let part = tiles.div_ceil(wanted) * KEYS;
    let parts = keys.div_ceil(part);
    let mut grads = [parts * queries, keys, keys].map(|rows| vec![T::ZERO; batch * heads * rows * width]);
    let [gq, gk, gv] = &mut grads;
    let whole = gq.len() / parts;
    let mut slices: Vec<_> = gq.chunks_mut(whole).map(|gq| Shared::new(gq, dq)).collect();
    let (gk, gv) = (Shared::new(gk, dk), Shared::new(gv, dv));
    let gq = std::mem::take(&mut slices);
    (0..batch * heads * parts).into_par_iter().for_each(|task| {
        let (b, h, part_index) = (task / parts / heads, task / parts % heads, task % parts);
        let range = part_index * part..keys.min((part_index + 1) * part);
        let [q, k, v, out, grad] = [q, k, v, saved.out, saved.grad].map(|x| x.head(b, h, width));
        let copy = |to: &mut [T], from: &[T], scale: T| {
            for (to, &from) in to.iter_mut().zip(from) {
                *to = from * scale;
            }
        };
        // SAFETY: this task owns part `part_index` of the gradient of this head's queries, and rows `range` of those of
        // its keys and values.
        let write = |which: Grad, i: usize, row: &[T]| unsafe {
            match which {
                Grad::Query => copy(gq[part_index].row(b, h, i, width), row, T::of(sizes.scale)),
                Grad::Key => copy(gk.row(b, h, i, width), row, T::ONE),
                Grad::Value => copy(gv.row(b, h, i, width), row, T::ONE),
            }
        };
        let logs = &saved.logs[(b * heads + h) * queries..][..queries];
        dispatch(Backward { sizes, q, k, v, out, grad, logs, keys: range, write });
    });
    let [gq, _, _] = &mut grads;
    let (sum, rest) = gq.split_at_mut(whole);
    for more in rest.chunks(whole) {
        sum.iter_mut().zip(more).for_each(|(sum, &more)| *sum += more);
    }
    gq.truncate(whole);
    grads
}

#[derive(Clone, Copy)]
enum Grad {
    Query,
    Key,
    Value,
}

/// All queries of a head against some of its keys; `write` takes a row of a gradient (the query's still to be scaled).
struct Backward<'a, T, W> {
    sizes: Sizes,
    q: Head<'a, T>,
    k: Head<'a, T>,
    v: Head<'a, T>,
    out: Head<'a, T>,
    grad: Head<'a, T>,
    logs: &'a [T],
    keys: Range<usize>,
    write: W,
}

impl<T: Float + Tile, W: FnMut(Grad, usize, &[T])> Kernel for Backward<'_, T, W> {
    type Out = ();
    /// With P the probabilities: dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - rowsum(dO O)), dQ = scale dS K, dK = dSᵀ (scale Q).
    #[inline(always)]
    fn run<I: Isa>(mut self) {
        let Sizes { queries, width, .. } = self.sizes;
        let base = self.keys.start;
        let count = self.keys.len();
        let wide = pad(width, STEP);
        let (kt, vt) = (transposed(self.k, self.keys.clone()), transposed(self.v, self.keys.clone()));
        let k = panels(self.k, self.keys.clone());
        let (mut p, mut ds) = (vec![T::ZERO; QUERIES * KEYS], vec![T::ZERO; QUERIES * KEYS]);
        let (mut q, mut grad) = (Vec::new(), Vec::new());
        let mut dq = vec![T::ZERO; QUERIES * wide];
        let mut dk = vec![T::ZERO; pad(count, STEP) * wide];
        let mut dv = vec![T::ZERO; pad(count, STEP) * wide];
        let (mut q_rows, mut grad_rows) = (Panels::new(QUERIES, width), Panels::new(QUERIES, width));
        for first in (0..queries).step_by(QUERIES) {
            let rows = first..queries.min(first + QUERIES);
            let height = rows.len();
            let reach = self.sizes.seen(rows.end - 1).saturating_sub(base).min(count);
            dq.fill(T::ZERO);
            pack_rows(self.q, rows.clone(), T::of(self.sizes.scale), &mut q);
            pack_rows(self.grad, rows.clone(), T::ONE, &mut grad);
            let mut delta = [T::ZERO; QUERIES];
            for r in 0..height {
                let own = r * width..(r + 1) * width;
                q_rows.set_row(r, &q[own.clone()]);
                grad_rows.set_row(r, &grad[own.clone()]);
                delta[r] = dot::<I, T>(&grad[own], self.out.row(first + r));
            }
            for from in (0..reach).step_by(KEYS) {
                let to = reach.min(from + KEYS);
                let padded = pad(to - from, STEP);
                scores::<I, T>(&q, &kt, width, height, from..to, &mut p);
                scores::<I, T>(&grad, &vt, width, height, from..to, &mut ds);
                for r in 0..height {
                    let p = &mut p[r * KEYS..][..padded];
                    let ds = &mut ds[r * KEYS..][..padded];
                    hide(p, self.sizes.seen(first + r).saturating_sub(base).min(to).saturating_sub(from));
                    let (log, delta) = (self.logs[first + r], delta[r]);
                    for (p, ds) in p.iter_mut().zip(ds) {
                        *p = (*p - log).exp::<I>();
                        *ds = *p * (*ds - delta);
                    }
                }
                // Down a column of P and dS: one step of the depth is one query.
                let (rows, cols) = (padded, wide);
                let part = Part { from: 0, depth: height, first: 0, cols };
                let down = |data| Left { data, row: 1, step: KEYS };
                product::<I, T>(down(&p), &grad_rows, part, rows, &mut dv[from * wide..], wide, true);
                product::<I, T>(down(&ds), &q_rows, part, rows, &mut dk[from * wide..], wide, true);
                let along = Left { data: &ds, row: KEYS, step: 1 };
                let part = Part { from, depth: to - from, first: 0, cols };
                product::<I, T>(along, &k, part, pad(height, ROWS), &mut dq, wide, true);
            }
            for (r, dq) in dq.chunks_exact(wide).take(height).enumerate() {
                (self.write)(Grad::Query, first + r, &dq[..width]);
            }
        }
        for (i, (dk, dv)) in dk.chunks_exact(wide).zip(dv.chunks_exact(wide)).take(count).enumerate() {
            (self.write)(Grad::Key, base + i, &dk[..width]);
            (self.write)(Grad::Value, base + i, &dv[..width]);
        }
    }
}

#[inline(always)]
fn dot<I: Isa, T: Float>(a: &[T], b: &[T]) -> T {
    let mut sum = [T::ZERO; STEP];
    let (x, y) = (a.chunks_exact(STEP), b.chunks_exact(STEP));
    let tail = x.remainder().iter().zip(y.remainder()).map(|(&a, &b)| a * b).sum::<T>();
    for (x, y) in x.zip(y) {
        for i in 0..STEP {
            sum[i] = x[i].fma::<I>(y[i], sum[i]);
        }
    }
    sum.into_iter().sum::<T>() + tail
}
