//! Pointwise functions and gated units over slices, forward and backward, each one pass over memory; and [`float`],
//! what they and the other kernels are written in.

pub mod float;

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

pub use float::{Float, Isa, Kernel, dispatch};

/// A function of one number and its derivative.
pub trait Pointwise: Copy + Send + Sync + 'static {
    /// f(x).
    fn value<I: Isa, T: Float>(x: T) -> T;
    /// (f(x), f'(x)).
    fn both<I: Isa, T: Float>(x: T) -> (T, T);
    /// f'(x).
    #[inline(always)]
    fn slope<I: Isa, T: Float>(x: T) -> T {
        Self::both::<I, T>(x).1
    }
}

/// x.
#[derive(Clone, Copy)]
pub struct Identity;
/// x · sigmoid(x) (Elfwing et al. 2017).
#[derive(Clone, Copy)]
pub struct Silu;
/// x · Phi(x), Phi the normal distribution function (Hendrycks & Gimpel 2016), exact.
#[derive(Clone, Copy)]
pub struct Gelu;
/// x · sigmoid(1.702 x): what OpenAI's CLIP was trained with in place of [`Gelu`].
#[derive(Clone, Copy)]
pub struct QuickGelu;

/// x · (1 + tanh(sqrt(2/pi) (x + 0.044715 x³))) / 2: the approximation of [`Gelu`] that T5 v1.1 and the diffusion transformers
/// were trained with (Hendrycks & Gimpel 2016, section 2).
#[derive(Clone, Copy)]
pub struct GeluTanh;

impl Pointwise for Identity {
    #[inline(always)]
    fn value<I: Isa, T: Float>(x: T) -> T {
        x
    }
    #[inline(always)]
    fn both<I: Isa, T: Float>(x: T) -> (T, T) {
        (x, T::ONE)
    }
}

#[inline(always)]
fn sigmoid<I: Isa, T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp::<I>())
}

impl Pointwise for Silu {
    #[inline(always)]
    fn value<I: Isa, T: Float>(x: T) -> T {
        x * sigmoid::<I, T>(x)
    }
    #[inline(always)]
    fn both<I: Isa, T: Float>(x: T) -> (T, T) {
        let s = sigmoid::<I, T>(x);
        (x * s, s * (T::ONE - s).fma::<I>(x, T::ONE))
    }
}

impl Pointwise for Gelu {
    #[inline(always)]
    fn value<I: Isa, T: Float>(x: T) -> T {
        x * x.normal::<I>().1
    }
    #[inline(always)]
    fn both<I: Isa, T: Float>(x: T) -> (T, T) {
        let (density, below) = x.normal::<I>();
        (x * below, x.fma::<I>(density, below))
    }
}

impl Pointwise for QuickGelu {
    #[inline(always)]
    fn value<I: Isa, T: Float>(x: T) -> T {
        x * sigmoid::<I, T>(x * T::of(1.702))
    }
    #[inline(always)]
    fn both<I: Isa, T: Float>(x: T) -> (T, T) {
        let z = x * T::of(1.702);
        let s = sigmoid::<I, T>(z);
        (x * s, s * (T::ONE - s).fma::<I>(z, T::ONE))
    }
}

/// 2 sqrt(2/pi), and that times 0.044715: (1 + tanh z)/2 is sigmoid(2 z).
pub(crate) const TANH_LINEAR: f64 = 2.0 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
pub(crate) const TANH_CUBIC: f64 = 0.044715 * TANH_LINEAR;

impl Pointwise for GeluTanh {
    #[inline(always)]
    fn value<I: Isa, T: Float>(x: T) -> T {
        x * sigmoid::<I, T>(x * (x * x).fma::<I>(T::of(TANH_CUBIC), T::of(TANH_LINEAR)))
    }
    #[inline(always)]
    fn both<I: Isa, T: Float>(x: T) -> (T, T) {
        let square = x * x;
        let s = sigmoid::<I, T>(x * square.fma::<I>(T::of(TANH_CUBIC), T::of(TANH_LINEAR)));
        let inner = x * square.fma::<I>(T::of(3.0 * TANH_CUBIC), T::of(TANH_LINEAR));
        (x * s, s * (T::ONE - s).fma::<I>(inner, T::ONE))
    }
}

/// A vector of `len` numbers that `write` fills. Zeroing it first would cost as much as many kernels do.
///
/// # Safety
/// `write` initialises every number.
pub unsafe fn filled<T: Float>(len: usize, write: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut data = Vec::with_capacity(len);
    write(&mut data.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is there, and the caller vouches for the content.
    unsafe { data.set_len(len) };
    data
}

/// Elements that one task takes: large enough to hide the hand-over, small enough to stay in the second-level cache.
const BLOCK: usize = 1 << 14;

/// `out[i] = f(x[i])`.
pub fn map<F: Pointwise, T: Float>(x: &[T]) -> Vec<T> {
    let write = |out: &mut [MaybeUninit<T>]| {
        (out.par_chunks_mut(BLOCK), x.par_chunks(BLOCK))
            .into_par_iter()
            .for_each(|(out, x)| dispatch(Map { out, x, f: PhantomData::<F> }));
    };
    // SAFETY: the blocks of `out` are those of x, and `Map` writes all of each.
    unsafe { filled(x.len(), write) }
}

struct Map<'a, F, T> {
    out: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    f: PhantomData<F>,
}

impl<F: Pointwise, T: Float> Kernel for Map<'_, F, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for (out, &x) in self.out.iter_mut().zip(self.x) {
            out.write(F::value::<I, T>(x));
        }
    }
}

/// The gradient of [`map`]: `dx[i] = dy[i] f'(x[i])`.
pub fn map_grad<F: Pointwise, T: Float>(x: &[T], dy: &[T]) -> Vec<T> {
    assert_eq!(x.len(), dy.len());
    let write = |dx: &mut [MaybeUninit<T>]| {
        (dx.par_chunks_mut(BLOCK), x.par_chunks(BLOCK), dy.par_chunks(BLOCK))
            .into_par_iter()
            .for_each(|(dx, x, dy)| dispatch(MapGrad { dx, x, dy, f: PhantomData::<F> }));
    };
    // SAFETY: the blocks of `dx` are those of x and dy, and `MapGrad` writes all of each.
    unsafe { filled(x.len(), write) }
}

struct MapGrad<'a, F, T> {
    dx: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    dy: &'a [T],
    f: PhantomData<F>,
}

impl<F: Pointwise, T: Float> Kernel for MapGrad<'_, F, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        for ((dx, &x), &dy) in self.dx.iter_mut().zip(self.x).zip(self.dy) {
            dx.write(dy * F::slope::<I, T>(x));
        }
    }
}

/// Gated linear unit: rows of `x` are [value, gate], `width` numbers each; `out = value · f(gate)`.
pub fn gated<F: Pointwise, T: Float>(x: &[T], width: usize) -> Vec<T> {
    assert_eq!(x.len() % (2 * width), 0);
    let rows = (BLOCK / width).max(1);
    let write = |out: &mut [MaybeUninit<T>]| {
        (out.par_chunks_mut(rows * width), x.par_chunks(rows * 2 * width))
            .into_par_iter()
            .for_each(|(out, x)| dispatch(Gated { out, x, width, f: PhantomData::<F> }));
    };
    // SAFETY: both are whole rows, as many of them, and `Gated` writes all of each.
    unsafe { filled(x.len() / 2, write) }
}

struct Gated<'a, F, T> {
    out: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    width: usize,
    f: PhantomData<F>,
}

impl<F: Pointwise, T: Float> Kernel for Gated<'_, F, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let width = self.width;
        for (out, x) in self.out.chunks_exact_mut(width).zip(self.x.chunks_exact(2 * width)) {
            let (value, gate) = x.split_at(width);
            for ((out, &value), &gate) in out.iter_mut().zip(value).zip(gate) {
                out.write(value * F::value::<I, T>(gate));
            }
        }
    }
}

/// The gradient of [`gated`]: rows of [dy f(gate), dy value f'(gate)].
pub fn gated_grad<F: Pointwise, T: Float>(x: &[T], dy: &[T], width: usize) -> Vec<T> {
    assert!(x.len() % (2 * width) == 0 && dy.len() == x.len() / 2);
    let rows = (BLOCK / width).max(1);
    let write = |dx: &mut [MaybeUninit<T>]| {
        (dx.par_chunks_mut(rows * 2 * width), x.par_chunks(rows * 2 * width), dy.par_chunks(rows * width))
            .into_par_iter()
            .for_each(|(dx, x, dy)| dispatch(GatedGrad { dx, x, dy, width, f: PhantomData::<F> }));
    };
    // SAFETY: all three are whole rows, as many of them, and `GatedGrad` writes all of each.
    unsafe { filled(x.len(), write) }
}

struct GatedGrad<'a, F, T> {
    dx: &'a mut [MaybeUninit<T>],
    x: &'a [T],
    dy: &'a [T],
    width: usize,
    f: PhantomData<F>,
}

impl<F: Pointwise, T: Float> Kernel for GatedGrad<'_, F, T> {
    type Out = ();
    #[inline(always)]
    fn run<I: Isa>(self) {
        let width = self.width;
        let rows = self.dx.chunks_exact_mut(2 * width).zip(self.x.chunks_exact(2 * width));
        for ((dx, x), dy) in rows.zip(self.dy.chunks_exact(width)) {
            let (dvalue, dgate) = dx.split_at_mut(width);
            let (value, gate) = x.split_at(width);
            let (dvalue, dgate, gate) = (&mut dvalue[..width], &mut dgate[..width], &gate[..width]);
            let value = &value[..width];
            for i in 0..width {
                let (f, slope) = F::both::<I, T>(gate[i]);
                dvalue[i].write(dy[i] * f);
                dgate[i].write(dy[i] * value[i] * slope);
            }
        }
    }
}
