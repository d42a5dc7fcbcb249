//! The softmax of whole rows, for scores that must exist as a matrix because something is added to them.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::elementwise::{Float, Isa, Kernel, dispatch, filled};

/// e^(x - max) over its sum, by rows of `width`.
pub fn softmax<T: Float>(x: &[T], width: usize) -> Vec<T> {
    assert_eq!(x.len() % width, 0);
    let write = |out: &mut [MaybeUninit<T>]| {
        out.par_chunks_mut(width).zip(x.par_chunks(width)).for_each(|(out, x)| dispatch(Row { out, x }));
    };
    // SAFETY: the rows of `out` are those of x, and `Row` writes all of each.
    unsafe { filled(x.len(), write) }
}

struct Row<'a, T> {
    out: &'a mut [MaybeUninit<T>],
    x: &'a [T],
}

impl<T: Float> Kernel for Row<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let most = self.x.iter().fold(T::NEG_INFINITY, |most, &x| if x > most { x } else { most });
        let mut sum = T::ZERO;
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            sum += *out.write((x - most).exp::<I>());
        }
        let over = T::ONE / sum;
        for out in self.out {
            // SAFETY: the loop above wrote it.
            let value = unsafe { out.assume_init() };
            out.write(value * over);
        }
    }
}

/// The gradient of [`softmax`] from its output p: `p (dy - Σ p dy)`.
pub fn softmax_grad<T: Float>(p: &[T], dy: &[T], width: usize) -> Vec<T> {
    assert!(p.len() == dy.len() && p.len() % width == 0);
    let write = |dx: &mut [MaybeUninit<T>]| {
        let rows = dx.par_chunks_mut(width).zip(p.par_chunks(width)).zip(dy.par_chunks(width));
        rows.for_each(|((dx, p), dy)| dispatch(RowGrad { dx, p, dy }));
    };
    // SAFETY: the rows of `dx` are those of p and dy, and `RowGrad` writes all of each.
    unsafe { filled(p.len(), write) }
}

struct RowGrad<'a, T> {
    dx: &'a mut [MaybeUninit<T>],
    p: &'a [T],
    dy: &'a [T],
}

impl<T: Float> Kernel for RowGrad<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let along = self.p.iter().zip(self.dy).fold(T::ZERO, |sum, (&p, &dy)| p.fma::<I>(dy, sum));
        for ((dx, &p), &dy) in self.dx.iter_mut().zip(self.p).zip(self.dy) {
            dx.write(p * (dy - along));
        }
    }
}
