//! Stochastic rounding to bf16: up or down with odds that make the expectation exact, so that updates far below half a
//! unit in the last place still move a weight on average (Gupta et al. 2015, "Deep learning with limited numerical
//! precision", equation 1; Zamirai et al. 2020, "Revisiting bfloat16 training").

use candle_core::{DType, Device, Result, Tensor};
use half::bf16;
use rayon::prelude::*;

use crate::rng::Stream;

/// `x` as bf16, with 16 random bits of `stream` for each element. The result is the same on every device: on a GPU the
/// tensor passes through the host's memory.
pub fn to_bf16(x: &Tensor, stream: &Stream) -> Result<Tensor> {
    let values = x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let random = stream.words(values.len().div_ceil(4));
    let mut rounded = vec![bf16::ZERO; values.len()];
    (rounded.par_chunks_mut(4), values.par_chunks(4), random).into_par_iter().for_each(|(rounded, values, word)| {
        for (i, (rounded, &value)) in rounded.iter_mut().zip(values).enumerate() {
            *rounded = round(value, (word >> (16 * i)) as u16);
        }
    });
    Tensor::from_vec(rounded, x.shape(), &Device::Cpu)?.to_device(x.device())
}

/// Adds 16 random bits below the last one that is kept, and cuts.
fn round(value: f32, random: u16) -> bf16 {
    match value.is_finite() {
        true => bf16::from_bits(((value.to_bits() + u32::from(random)) >> 16) as u16),
        false => bf16::from_f32(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expectation_is_the_value() -> Result<()> {
        const N: usize = 200_000;
        for (value, share) in [(1.0f32 + 0.25 / 128.0, 0.25), (-3.0 - 0.9 / 64.0, 0.9), (1e-20, f64::NAN)] {
            let x = Tensor::full(value, N, &Device::Cpu)?;
            let y = to_bf16(&x, &Stream::new(1, "rounding"))?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            let mean = y.iter().map(|&y| f64::from(y)).sum::<f64>() / N as f64;
            let step = f64::from(f32::from_bits((value.abs().to_bits() | 0xffff) + 1))
                - f64::from(f32::from_bits(value.abs().to_bits() & 0xffff_0000));
            assert!((mean - f64::from(value)).abs() < 4.0 * 0.5 * step / (N as f64).sqrt(), "{value}: {mean}");
            let up = y.iter().filter(|y| y.abs() > value.abs()).count() as f64 / N as f64;
            assert!(share.is_nan() || (up - share).abs() < 0.01, "{value}: {up} of them up");
        }
        Ok(())
    }

    #[test]
    fn what_bf16_holds_stays_and_what_is_not_finite_stays_so() -> Result<()> {
        let values = [0.0f32, -0.0, 1.5, -256.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let y = to_bf16(&Tensor::new(&values, &Device::Cpu)?, &Stream::new(7, "rounding"))?;
        for (y, value) in y.to_dtype(DType::F32)?.to_vec1::<f32>()?.into_iter().zip(values) {
            assert!(y.to_bits() == value.to_bits() || (y.is_nan() && value.is_nan()), "{value} became {y}");
        }
        Ok(())
    }
}
