//! The pointwise nonlinearities and the gated unit of the transformer blocks, each one pass over memory forward and
//! one backward. Only the input is kept for the backward pass, and in its own type.

use candle_core::{D, Result, Tensor, bail};

use super::device;
use super::widen::{narrow, numbers, widen, with_float};
use crate::cpu::elementwise::{self, Pointwise};
use crate::function::function;
use crate::kernels;

/// x · sigmoid(x), over any shape.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    pointwise::<elementwise::Silu>("silu", x)
}

/// x · Phi(x) with the exact normal distribution function, over any shape.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    pointwise::<elementwise::Gelu>("gelu", x)
}

/// [`gelu`] by its approximation with tanh, over any shape.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    pointwise::<elementwise::GeluTanh>("gelu_tanh", x)
}

/// x · sigmoid(1.702 x), over any shape.
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    pointwise::<elementwise::QuickGelu>("quick_gelu", x)
}

/// `.. 2D` to `.. D`: the first half of each row times the [`gelu`] of the second (Shazeer 2020; the order is
/// diffusers').
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if width == 0 || width % 2 != 0 {
        bail!("geglu: the last dimension of {:?} holds two halves, so it must be even", x.shape());
    }
    let kept = x.detach();
    if !x.device().is_cpu() {
        let out = match kernels::geglu(&kept)? {
            Some(out) => out,
            None => device::geglu(&widen(&kept)?)?.to_dtype(x.dtype())?,
        };
        return function("geglu", &[x], out, move |dy| {
            Ok(vec![Some(match kernels::geglu_grad(&kept, dy)? {
                Some(dx) => dx,
                None => device::geglu_grad(&widen(&kept)?, &widen(dy)?)?.to_dtype(kept.dtype())?,
            })])
        });
    }
    let wide = widen(&kept)?;
    let mut shape = x.dims().to_vec();
    shape[x.rank() - 1] = width / 2;
    let out = with_float!(wide, T => {
        narrow(elementwise::gated::<elementwise::Gelu, T>(&numbers(&wide)?, width / 2), &shape, x.dtype())?
    });
    drop(wide);
    function("geglu", &[x], out, move |dy| {
        let (x, dy) = (widen(&kept)?, widen(dy)?);
        let dx = with_float!(x, T => {
            let dx = elementwise::gated_grad::<elementwise::Gelu, T>(&numbers(&x)?, &numbers(&dy)?, width / 2);
            narrow(dx, kept.dims(), kept.dtype())?
        });
        Ok(vec![Some(dx.tensor()?)])
    })
}

fn pointwise<F: Pointwise + device::Pointwise>(name: &'static str, x: &Tensor) -> Result<Tensor> {
    let kept = x.detach();
    if !x.device().is_cpu() {
        let out = match F::ACT.map(|act| kernels::act(act, &kept)).transpose()?.flatten() {
            Some(out) => out,
            None => F::on_device(&widen(&kept)?)?.to_dtype(x.dtype())?,
        };
        return function(name, &[x], out, move |dy| {
            let dx = F::ACT.map(|act| kernels::act_grad(act, &kept, dy)).transpose()?.flatten();
            Ok(vec![Some(match dx {
                Some(dx) => dx,
                None => (widen(dy)? * F::slope_on_device(&widen(&kept)?)?)?.to_dtype(kept.dtype())?,
            })])
        });
    }
    let wide = widen(&kept)?;
    let out = with_float!(wide, T => narrow(elementwise::map::<F, T>(&numbers(&wide)?), x.dims(), x.dtype())?);
    drop(wide);
    function(name, &[x], out, move |dy| {
        let (x, dy) = (widen(&kept)?, widen(dy)?);
        let dx = with_float!(x, T => {
            narrow(elementwise::map_grad::<F, T>(&numbers(&x)?, &numbers(&dy)?), kept.dims(), kept.dtype())?
        });
        Ok(vec![Some(dx.tensor()?)])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_random};
    use candle_core::{DType, Device, Var};

    type Op = fn(&Tensor) -> Result<Tensor>;
    const OPS: [(&str, Op); 5] =
        [("silu", silu), ("gelu", gelu), ("gelu_tanh", gelu_tanh), ("quick_gelu", quick_gelu), ("geglu", geglu)];

    fn wave(shape: &[usize], reach: f64) -> Tensor {
        (pseudo_random(shape, 5).unwrap() * reach).unwrap()
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn gradients_match_finite_differences() {
        for (name, op) in OPS {
            let error = check(|x| op(&x[0]), &[wave(&[3, 4, 6], 4.0)]).unwrap();
            assert!(error < 1e-7, "{name}: {error}");
        }
    }

    #[test]
    fn single_precision_is_near_the_exact_values_and_slopes() {
        // 40,000 numbers cross the border of a task and end in a part of a vector.
        let exact = wave(&[2, 20_006], 12.0);
        for (name, op) in OPS {
            let run = |dtype| {
                let x = Var::from_tensor(&exact.to_dtype(dtype).unwrap()).unwrap();
                let y = op(&x).unwrap();
                let grad = y.sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
                (y, grad)
            };
            let ((y64, g64), (y32, g32)) = (run(DType::F64), run(DType::F32));
            let scale = if name == "geglu" { 150.0 } else { 12.0 };
            assert!(distance(&y64, &y32) < 1.5e-7 * scale, "{name}: {}", distance(&y64, &y32));
            assert!(distance(&g64, &g32) < 4e-7 * scale, "{name}: {}", distance(&g64, &g32));
        }
    }

    #[test]
    fn gelu_has_the_values_of_the_error_function() {
        // x Phi(x) from a table of the normal distribution.
        let x = Tensor::new(&[-3.0f32, -1.0, 0.0, 0.5, 2.0], &Device::Cpu).unwrap();
        let want =
            Tensor::new(&[-0.004_049_69_f64, -0.158_655_25, 0.0, 0.345_731_23, 1.954_499_74], &Device::Cpu).unwrap();
        assert!(distance(&gelu(&x).unwrap(), &want) < 1e-7);
    }

    #[test]
    fn the_approximation_with_tanh_has_its_own_values() {
        let x = Tensor::new(&[-3.0, -1.0, 0.0, 0.5, 2.0], &Device::Cpu).unwrap();
        let inner =
            ((&x + (x.powf(3.0).unwrap() * 0.044715).unwrap()).unwrap() * (2.0 / std::f64::consts::PI).sqrt()).unwrap();
        let want = ((&x * 0.5).unwrap() * (inner.tanh().unwrap() + 1.0).unwrap()).unwrap();
        assert!(distance(&gelu_tanh(&x).unwrap(), &want) < 1e-14);
        assert!(distance(&gelu_tanh(&x).unwrap(), &gelu(&x).unwrap()) > 1e-4, "it is another function");
    }

    #[test]
    fn the_ends_of_the_number_line_are_kept() {
        let x = Tensor::new(&[f32::NEG_INFINITY, -1e30, -120.0, 120.0, 1e30, f32::NAN], &Device::Cpu).unwrap();
        for op in [silu, quick_gelu, gelu, gelu_tanh] {
            let y = op(&x).unwrap().to_vec1::<f32>().unwrap();
            assert!(y[1].abs() < 1e-30 && y[2].abs() < 1e-30, "{y:?}");
            assert_eq!(y[3..5], [120.0, 1e30]);
            assert!(y[5].is_nan());
        }
    }

    #[test]
    fn half_precision_and_views_are_taken_as_they_are() {
        let x = wave(&[6, 8], 3.0).to_dtype(DType::F32).unwrap();
        for (name, op) in OPS {
            let half = op(&x.to_dtype(DType::BF16).unwrap()).unwrap();
            assert_eq!(half.dtype(), DType::BF16);
            assert!(distance(&half, &op(&x).unwrap()) < 0.1, "{name}");
            let view = x.t().unwrap();
            assert_eq!(distance(&op(&view).unwrap(), &op(&view.contiguous().unwrap()).unwrap()), 0.0, "{name}");
        }
    }

    #[test]
    fn the_device_compositions_agree_with_the_kernels() {
        use device::Pointwise as P;
        type Pair = (fn(&Tensor) -> Result<Tensor>, fn(&Tensor) -> Result<Tensor>);
        let x = wave(&[4, 6], 4.0);
        let cases: [(Op, Pair); 4] = [
            (silu, (elementwise::Silu::on_device, elementwise::Silu::slope_on_device)),
            (gelu, (elementwise::Gelu::on_device, elementwise::Gelu::slope_on_device)),
            (gelu_tanh, (elementwise::GeluTanh::on_device, elementwise::GeluTanh::slope_on_device)),
            (quick_gelu, (elementwise::QuickGelu::on_device, elementwise::QuickGelu::slope_on_device)),
        ];
        for (op, (value, slope)) in cases {
            let var = Var::from_tensor(&x).unwrap();
            let y = op(&var).unwrap();
            assert!(distance(&y, &value(&x).unwrap()) < 1e-12);
            let grad = y.sum_all().unwrap().backward().unwrap().remove(&var).unwrap();
            assert!(distance(&grad, &slope(&x).unwrap()) < 1e-12);
        }
        let var = Var::from_tensor(&x).unwrap();
        let y = geglu(&var).unwrap();
        assert!(distance(&y, &device::geglu(&x).unwrap()) < 1e-12);
        let grad = y.sum_all().unwrap().backward().unwrap().remove(&var).unwrap();
        let ones = y.ones_like().unwrap();
        assert!(distance(&grad, &device::geglu_grad(&x, &ones).unwrap()) < 1e-12);
    }
}
