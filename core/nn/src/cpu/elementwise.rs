//! What every kernel of ours is written in: a float type, an instruction set chosen when the program runs, and the
//! pointwise functions (exponential, normal distribution) that compile to vector code without branches. The binary is
//! built for any x86-64 or ARM machine; [`dispatch`] picks the widest vectors of the one it runs on.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Neg;

use candle_core::WithDType;
use rayon::prelude::*;

/// An instruction set, as far as kernels care: whether a fused multiply-add is one instruction, and how large a block
/// of a matrix product fits its registers.
pub trait Isa: Copy + Send + Sync + 'static {
    /// A fused multiply-add is one instruction (else it would be a call).
    const FMA: bool;
    /// 32 registers of 512 bits, rather than 16 of 256 or less.
    const WIDE: bool;
}

/// AVX-512.
#[derive(Clone, Copy)]
pub struct Avx512;
/// AVX2 with FMA.
#[derive(Clone, Copy)]
pub struct Avx2;
/// Whatever the build targets.
#[derive(Clone, Copy)]
pub struct Baseline;

impl Isa for Avx512 {
    const FMA: bool = true;
    const WIDE: bool = true;
}
impl Isa for Avx2 {
    const FMA: bool = true;
    const WIDE: bool = false;
}
impl Isa for Baseline {
    const FMA: bool = cfg!(target_arch = "aarch64");
    const WIDE: bool = false;
}

/// A computation that is compiled once for each instruction set. `run` must be `#[inline(always)]`, and so must all
/// that it calls, or it is compiled for the baseline.
pub trait Kernel {
    /// What the computation returns.
    type Out;
    /// The computation.
    fn run<I: Isa>(self) -> Self::Out;
}

/// Runs `kernel` with the widest vectors of this machine.
pub fn dispatch<K: Kernel>(kernel: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        fn avx512<K: Kernel>(kernel: K) -> K::Out {
            kernel.run::<Avx512>()
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2<K: Kernel>(kernel: K) -> K::Out {
            kernel.run::<Avx2>()
        }
        let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if fma && wide {
            // SAFETY: the features that the function is compiled for were just detected.
            return unsafe { avx512(kernel) };
        }
        if fma {
            // SAFETY: as above.
            return unsafe { avx2(kernel) };
        }
    }
    kernel.run::<Baseline>()
}

/// The float type that a kernel computes in. `f32` functions are polynomials that vectorise, right to about 1e-7 of
/// the value; `f64` ones are exact, and there to check the others.
pub trait Float:
    WithDType + Default + Neg<Output = Self> + std::iter::Sum
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Minus infinity.
    const NEG_INFINITY: Self;
    /// The nearest value.
    fn of(value: f64) -> Self;
    /// `self * b + c`, fused where that is one instruction.
    fn fma<I: Isa>(self, b: Self, c: Self) -> Self;
    /// e^self.
    fn exp<I: Isa>(self) -> Self;
    /// The square root.
    fn root(self) -> Self;
    /// The natural logarithm.
    fn log(self) -> Self;
    /// The standard normal distribution at self: (density, share below).
    fn normal<I: Isa>(self) -> (Self, Self);

    /// The larger of both; `other` where `self` is not a number.
    #[inline(always)]
    fn max_of(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

/// c[0] + c[1] x + c[2] x² …
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[N - 1];
    for i in (0..N - 1).rev() {
        sum = sum.fma::<I>(x, c[i]);
    }
    sum
}

impl Float for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> f32 {
        value as f32
    }

    #[inline(always)]
    fn fma<I: Isa>(self, b: f32, c: f32) -> f32 {
        if I::FMA { self.mul_add(b, c) } else { self * b + c }
    }

    /// x = n ln 2 + r with |r| <= ln(2)/2; e^r by a polynomial, 2^n in the exponent bits. Below the smallest normal
    /// number it is 0; not-a-number passes through.
    #[inline(always)]
    #[allow(clippy::excessive_precision)]
    fn exp<I: Isa>(self) -> f32 {
        // Adding 1.5 · 2^23 rounds to an integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        const LN2_HIGH: f32 = 0.693_145_75;
        const LN2_LOW: f32 = 1.428_606_8e-6;
        let x = self;
        let shifted = x.fma::<I>(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = n.fma::<I>(-LN2_LOW, n.fma::<I>(-LN2_HIGH, x));
        let q = polynomial::<I, 5>(
            r,
            [0.5, 0.166_665_762_662_887_57, 0.041_666_463_017_463_68, 0.008_363_235_741_853_714, 0.001_393_373_357_132],
        );
        let e = (r * r).fma::<I>(q, r) + 1.0;
        let scaled = f32::from_bits(e.to_bits().wrapping_add(shifted.to_bits() << 23));
        if (-87.0..=88.7).contains(&x) {
            scaled
        } else if x < -87.0 {
            0.0
        } else {
            x + f32::INFINITY
        }
    }

    #[inline(always)]
    fn root(self) -> f32 {
        self.sqrt()
    }

    #[inline(always)]
    fn log(self) -> f32 {
        self.ln()
    }

    /// The tail below -|x| is the density times the Mills ratio, here a rational function fitted on [0, 14] (5.5e-9
    /// in exact arithmetic): the tail keeps its relative precision, and the density is at hand for the derivative.
    #[inline(always)]
    #[allow(clippy::excessive_precision)]
    fn normal<I: Isa>(self) -> (f32, f32) {
        let x = self.abs();
        let density = Float::exp::<I>(x * x * -0.5) * 0.398_942_28;
        let x = if x > 14.0 { 14.0 } else { x };
        let above = polynomial::<I, 5>(
            x,
            [
                1.253_314_137_458_801_3,
                1.096_024_036_407_470_7,
                0.457_362_771_034_240_7,
                0.101_198_539_137_840_27,
                0.010_220_973_752_439_022,
            ],
        );
        let below = polynomial::<I, 6>(
            x,
            [
                1.0,
                1.672_385_573_387_146,
                1.199_288_845_062_255_9,
                0.467_427_819_967_269_9,
                0.101_205_348_968_505_86,
                0.010_220_844_298_601_15,
            ],
        );
        let tail = density * (above / below);
        (density, if self < 0.0 { tail } else { 1.0 - tail })
    }
}

impl Float for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;

    #[inline(always)]
    fn of(value: f64) -> f64 {
        value
    }

    #[inline(always)]
    fn fma<I: Isa>(self, b: f64, c: f64) -> f64 {
        if I::FMA { self.mul_add(b, c) } else { self * b + c }
    }

    #[inline(always)]
    fn exp<I: Isa>(self) -> f64 {
        f64::exp(self)
    }

    #[inline(always)]
    fn root(self) -> f64 {
        self.sqrt()
    }

    #[inline(always)]
    fn log(self) -> f64 {
        self.ln()
    }

    #[inline(always)]
    fn normal<I: Isa>(self) -> (f64, f64) {
        let density = f64::exp(-0.5 * self * self) * (0.5 * std::f64::consts::FRAC_2_SQRT_PI / std::f64::consts::SQRT_2);
        (density, 0.5 * candle_core::cpu::erf::erfc_f64(-self / std::f64::consts::SQRT_2))
    }
}

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
