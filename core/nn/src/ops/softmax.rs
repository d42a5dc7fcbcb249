//! The softmax over the last dimension. Attention has one of its own that never holds its scores; this is for scores that
//! something is added to, such as T5's table of distances.

use candle_core::{D, Result, Tensor, bail};

use super::widen::{narrow, numbers, widen, with_float};
use crate::cpu::softmax as kernel;
use crate::function::function_of_output;
use crate::kernels::{self, Sees};

/// e^x over its sum along the last dimension, in x's type; computed in f32 (f64 for f64) whatever that is.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if x.elem_count() == 0 {
        bail!("softmax: no numbers in {:?}", x.shape());
    }
    if let Some(out) = kernels::softmax(&x.detach(), Sees::All)? {
        return function_of_output("softmax", &[x], out, move |p, dy| Ok(vec![kernels::softmax_grad(p, dy, 1.0)?]));
    }
    let (dims, dtype, wide) = (x.dims().to_vec(), x.dtype(), widen(x)?);
    if !x.device().is_cpu() {
        let shifted = wide.broadcast_sub(&wide.max_keepdim(D::Minus1)?)?.exp()?;
        let out = shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?.to_dtype(dtype)?;
        return function_of_output("softmax", &[x], out, move |p, dy| {
            let (p, dy) = (widen(p)?, widen(dy)?);
            let along = (&p * &dy)?.sum_keepdim(D::Minus1)?;
            Ok(vec![Some((p * dy.broadcast_sub(&along)?)?.to_dtype(dtype)?)])
        });
    }
    let out = with_float!(wide, T => narrow(kernel::softmax::<T>(&numbers(&wide)?, width), &dims, dtype)?);
    drop(wide);
    function_of_output("softmax", &[x], out, move |p, dy| {
        let (p, dy) = (widen(p)?, widen(dy)?);
        let dx = with_float!(p, T => {
            narrow(kernel::softmax_grad::<T>(&numbers(&p)?, &numbers(&dy)?, width), &dims, dtype)?
        });
        Ok(vec![Some(dx.tensor()?)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_random};
    use candle_core::DType;

    #[test]
    fn gradients_match_finite_differences() {
        let x = (pseudo_random(&[2, 3, 7], 1).unwrap() * 4.0).unwrap();
        let error = check(|x| softmax(&x[0]), &[x]).unwrap();
        assert!(error < 1e-7, "{error}");
    }

    #[test]
    fn rows_sum_to_one_however_large_their_numbers() {
        let x = (pseudo_random(&[5, 33], 2).unwrap() * 3e4).unwrap();
        for dtype in [DType::F64, DType::F32, DType::BF16] {
            let p = softmax(&x.to_dtype(dtype).unwrap()).unwrap();
            assert_eq!(p.dtype(), dtype);
            for sum in p.to_dtype(DType::F32).unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap() {
                assert!((sum - 1.0).abs() < 1e-2, "{dtype:?}: {sum}");
            }
        }
        let p = softmax(&Tensor::new(&[0.0, 3f64.ln()], x.device()).unwrap()).unwrap().to_vec1::<f64>().unwrap();
        assert!((p[0] - 0.25).abs() < 1e-15 && (p[1] - 0.75).abs() < 1e-15);
    }
}
