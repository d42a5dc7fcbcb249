//! Rotary position embedding (Su et al. 2021, section 3.2.2): queries and keys are turned by angles that grow with their
//! place, so that their products know distances. The angles are no part of the graph; nothing is kept but them.

use candle_core::{DType, Result, Tensor, bail};

use super::widen::{narrow, numbers, widen, widen_like, with_float};
use crate::cpu::rotary as kernel;
use crate::function::function;
use crate::kernels;

/// Turns neighbouring pairs of every head: x `B L H*D` with heads of width D, `cos` and `sin` `L D/2` (f32 or f64), to x's
/// type. Computed in f32 (f64 for f64) whatever that is.
///
/// # Errors
/// If the tables do not fit x, or are of a half type: angles of far places need f32.
pub fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let (_, length, row) = x.dims3()?;
    let (places, half) = cos.dims2()?;
    if sin.dims() != cos.dims() || places != length || half == 0 || row % (2 * half) != 0 {
        let (cos, sin) = (cos.shape(), sin.shape());
        bail!("rotary: x {:?}, cos {cos:?} and sin {sin:?} do not fit B L H*D, L D/2 and L D/2", x.shape());
    }
    if !matches!(cos.dtype(), DType::F32 | DType::F64) {
        bail!("rotary: the tables are {:?}, which does not resolve angles: make them f32", cos.dtype());
    }
    let (cos, sin, dtype) = (cos.detach(), sin.detach(), x.dtype());
    let out = turned(x, &cos, &sin, 1.0, dtype)?;
    function("rotary", &[x], out, move |dy| Ok(vec![Some(turned(dy, &cos, &sin, -1.0, dtype)?)]))
}

fn turned(x: &Tensor, cos: &Tensor, sin: &Tensor, turn: f64, dtype: DType) -> Result<Tensor> {
    if let Some(y) = kernels::rotary(&x.detach(), cos, sin, turn)? {
        return y.to_dtype(dtype);
    }
    let wide = widen(x)?;
    let like = |t: &Tensor| -> Result<Tensor> { Ok(widen_like(Some(t), &wide)?.expect("given")) };
    let (cos, sin) = (like(cos)?, like(sin)?);
    let (batch, length, row) = x.dims3()?;
    let half = cos.dim(1)?;
    if !x.device().is_cpu() {
        let pairs = wide.reshape((batch, length, row / (2 * half), half, 2))?;
        let side = |i| pairs.narrow(4, i, 1)?.squeeze(4)?.contiguous();
        let (first, second) = (side(0)?, side(1)?); // B L H D/2
        let (cos, sin) = (cos.reshape((length, 1, half))?, (sin * turn)?.reshape((length, 1, half))?);
        let a = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let b = (first.broadcast_mul(&sin)? + second.broadcast_mul(&cos)?)?;
        return Tensor::stack(&[a, b], 4)?.reshape((batch, length, row))?.to_dtype(dtype);
    }
    with_float!(wide, T => {
        let (cos, sin) = (numbers::<T>(&cos)?, numbers::<T>(&sin)?);
        narrow(kernel::rotary::<T>(&numbers(&wide)?, &cos, &sin, turn as T, length, row), x.dims(), dtype)?.tensor()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_random};
    use candle_core::D;

    fn tables(length: usize, half: usize) -> [Tensor; 2] {
        let angles = (pseudo_random(&[length, half], 9).unwrap() * 3.0).unwrap();
        [angles.cos().unwrap(), angles.sin().unwrap()]
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn gradients_match_finite_differences() {
        let [cos, sin] = tables(5, 3);
        let error = check(|x| rotary(&x[0], &cos, &sin), &[pseudo_random(&[2, 5, 12], 1).unwrap()]).unwrap();
        assert!(error < 1e-7, "{error}");
    }

    #[test]
    fn pairs_are_turned_as_complex_numbers_and_keep_their_length() {
        let [cos, sin] = tables(2, 1);
        let x = Tensor::new(&[[[1.0, 0.0], [0.0, 2.0]]], &candle_core::Device::Cpu).unwrap();
        let y = rotary(&x, &cos, &sin).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (c, s) = (
            cos.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
            sin.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
        );
        assert_eq!(y, [c[0], s[0], -2.0 * s[1], 2.0 * c[1]]);
        let [cos, sin] = tables(7, 4);
        let x = pseudo_random(&[2, 7, 24], 3).unwrap();
        let norm = |t: &Tensor| t.sqr().unwrap().sum_keepdim(D::Minus1).unwrap();
        assert!(distance(&norm(&x), &norm(&rotary(&x, &cos, &sin).unwrap())) < 1e-13);
    }

    #[test]
    fn half_precision_is_turned_in_single() {
        let [cos, sin] = tables(7, 4);
        let x = pseudo_random(&[2, 7, 24], 3).unwrap().to_dtype(DType::BF16).unwrap();
        let want = rotary(&x.to_dtype(DType::F64).unwrap(), &cos, &sin).unwrap();
        let got = rotary(&x, &cos.to_dtype(DType::F32).unwrap(), &sin.to_dtype(DType::F32).unwrap()).unwrap();
        assert_eq!(got.dtype(), DType::BF16);
        assert!(distance(&got, &want) < 8e-3);
        let error = rotary(&x, &cos.to_dtype(DType::BF16).unwrap(), &sin).unwrap_err().to_string();
        assert!(error.contains("f32"), "{error}");
        assert!(rotary(&x, &tables(6, 4)[0], &tables(6, 4)[1]).is_err());
    }
}
