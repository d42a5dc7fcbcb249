//! What every kernel of ours is written in: a float type, and an instruction set that is chosen when the program runs.
//! The binary is built for any x86-64 or ARM machine; [`dispatch`] picks the widest vectors of the one it runs on.

use std::ops::Neg;

use candle_core::WithDType;

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
pub trait Float: WithDType + Default + Neg<Output = Self> + std::iter::Sum {
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
        let density =
            f64::exp(-0.5 * self * self) * (0.5 * std::f64::consts::FRAC_2_SQRT_PI / std::f64::consts::SQRT_2);
        (density, 0.5 * candle_core::cpu::erf::erfc_f64(-self / std::f64::consts::SQRT_2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(reach: f64, exact: impl Fn(f64) -> f64, near: impl Fn(f32) -> f32) -> f64 {
        let points = (-20_000..=20_000).map(|i| (f64::from(i) / 20_000.0 * reach) as f32);
        points.map(|x| (f64::from(near(x)) / exact(f64::from(x)) - 1.0).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn the_exponential_is_right_to_the_last_bits_on_every_instruction_set() {
        assert!(worst(86.0, f64::exp, Float::exp::<Baseline>) < 1.3e-7);
        assert!(worst(86.0, f64::exp, Float::exp::<Avx2>) < 1.3e-7);
        let e = |x: f32| Float::exp::<Avx512>(x);
        assert_eq!([e(0.0), e(f32::NEG_INFINITY), e(-90.0), e(f32::INFINITY)], [1.0, 0.0, 0.0, f32::INFINITY]);
        assert!(e(f32::NAN).is_nan() && e(f32::from_bits(0x7fc0_0001)).is_nan());
    }

    #[test]
    fn the_tail_of_the_normal_distribution_keeps_its_relative_precision() {
        let exact = |x: f64| x.normal::<Baseline>().1;
        assert!(worst(4.0, exact, |x| x.normal::<Baseline>().1) < 1.5e-6);
        assert!(worst(4.0, exact, |x| x.normal::<Avx2>().1) < 1.5e-6);
        let off = |x: f32| (f64::from(x.normal::<Avx512>().1) - exact(f64::from(x))).abs();
        assert!((-2000..2000).map(|i| off(i as f32 / 200.0)).fold(0.0, f64::max) < 1.2e-7);
    }
}
