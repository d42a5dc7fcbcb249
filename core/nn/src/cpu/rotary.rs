//! Rotation of neighbouring pairs in rows of heads, by an angle for each place and pair.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::elementwise::{Float, Isa, Kernel, dispatch, filled};

/// Turns each pair (x0, x1) of x `B L H*D` into (x0 cos - x1 sin, x0 sin + x1 cos); `cos` and `sin` are `L D/2`. A `turn` of
/// -1 turns the other way.
pub fn rotary<T: Float>(x: &[T], cos: &[T], sin: &[T], turn: T, length: usize, row: usize) -> Vec<T> {
    let half = cos.len() / length;
    assert!(cos.len() == sin.len() && row % (2 * half) == 0 && x.len() % (length * row) == 0);
    let write = |out: &mut [MaybeUninit<T>]| {
        out.par_chunks_mut(row).zip(x.par_chunks(row)).enumerate().for_each(|(i, (out, x))| {
            let at = i % length * half;
            dispatch(Row { out, x, cos: &cos[at..][..half], sin: &sin[at..][..half], turn });
        });
    };
    // SAFETY: the rows of `out` are those of x, and `Row` writes all of each: it is whole pairs.
    unsafe { filled(x.len(), write) }
}

struct Row<'a, T> {
    out: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    cos: &'a [T],
    sin: &'a [T],
    turn: T,
}

impl<T: Float> Kernel for Row<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let width = 2 * self.cos.len();
        for (out, x) in self.out.chunks_exact_mut(width).zip(self.x.chunks_exact(width)) {
            let pairs = out.chunks_exact_mut(2).zip(x.chunks_exact(2)).zip(self.cos).zip(self.sin);
            for (((out, x), &cos), &sin) in pairs {
                let sin = sin * self.turn;
                out[0].write(x[0].fma::<I>(cos, -(x[1] * sin)));
                out[1].write(x[0].fma::<I>(sin, x[1] * cos));
            }
        }
    }
}
