//! The backward pass of attention: each tile of probabilities is made again from the kept logarithm of its rows' sums,
//! and used for all three gradients while it is in the cache.

use std::ops::Range;

use rayon::prelude::*;

use super::layout::{Head, Rows, Shared, Strides};
use super::tile::{Left, Panels, Part, ROWS, STEP, Tile, pad, product};
use super::{KEYS, QUERIES, Sizes, hide, pack_rows, panels, scores, transposed};
use crate::cpu::elementwise::{Float, Isa, Kernel, dispatch};

/// Tasks that the work is cut into at least, where the heads alone are fewer and the keys are many.
const TASKS: usize = 16;

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
