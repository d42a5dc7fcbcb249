//! Rows that are scaled and shifted by one vector a sample: what the blocks of a diffusion transformer do between their
//! norms, attentions and residual sums, each one pass over memory.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::elementwise::{Float, Isa, Kernel, dispatch, filled};

/// What is added to the scaled rows.
#[derive(Clone, Copy)]
pub enum Add<'a, T> {
    /// Nothing.
    Nothing,
    /// A vector a sample, B D.
    Vector(&'a [T]),
    /// Rows of their own, B L D.
    Rows(&'a [T]),
}

/// `x (offset + factor) + add` for x `B L D` and factor `B D`; `sizes` is L and D.
pub fn scaled<T: Float>(x: &[T], factor: &[T], offset: T, add: Add<T>, [length, width]: [usize; 2]) -> Vec<T> {
    assert!(x.len() == factor.len() * length && factor.len() % width == 0);
    let write = |out: &mut [MaybeUninit<T>]| {
        out.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate().for_each(|(row, (out, x))| {
            let sample = row / length * width;
            let add = match add {
                Add::Nothing => None,
                Add::Vector(all) => Some(&all[sample..][..width]),
                Add::Rows(all) => Some(&all[row * width..][..width]),
            };
            dispatch(Row { out, x, factor: &factor[sample..][..width], offset, add });
        });
    };
    // SAFETY: the rows of `out` are those of x, and `Row` writes all of each.
    unsafe { filled(x.len(), write) }
}

struct Row<'a, T> {
    out: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    factor: &'a [T],
    offset: T,
    add: Option<&'a [T]>,
}

impl<T: Float> Kernel for Row<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let all = self.out.iter_mut().zip(self.x).zip(self.factor);
        match self.add {
            None => all.for_each(|((out, &x), &f)| _ = out.write(x * (self.offset + f))),
            Some(add) => {
                all.zip(add).for_each(|(((out, &x), &f), &add)| _ = out.write(x.fma::<I>(self.offset + f, add)))
            }
        }
    }
}

/// The sum over L of `a b`, or of `a` alone, both `B L D`: `B D`. The order of the sum does not depend on the threads.
pub fn summed<T: Float>(a: &[T], b: Option<&[T]>, [length, width]: [usize; 2]) -> Vec<T> {
    /// Columns that one task takes.
    const COLUMNS: usize = 64;
    let sample = length * width;
    let mut out = vec![T::ZERO; a.len() / length.max(1)];
    out.par_chunks_mut(width).enumerate().for_each(|(i, out)| {
        out.par_chunks_mut(COLUMNS).enumerate().for_each(|(j, out)| {
            let first = i * sample + j * COLUMNS;
            dispatch(Columns { out, a: &a[first..], b: b.map(|b| &b[first..]), length, width });
        });
    });
    out
}

struct Columns<'a, T> {
    out: &'a mut [T],
    a: &'a [T],
    b: Option<&'a [T]>,
    length: usize,
    width: usize,
}

impl<T: Float> Kernel for Columns<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let count = self.out.len();
        for row in 0..self.length {
            let a = &self.a[row * self.width..][..count];
            match self.b {
                None => self.out.iter_mut().zip(a).for_each(|(out, &a)| *out += a),
                Some(b) => {
                    let b = &b[row * self.width..][..count];
                    self.out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = a.fma::<I>(b, *out));
                }
            }
        }
    }
}
