//! Scale, shift and gate by one vector a sample: how a diffusion transformer is told the time and the text (Peebles & Xie
//! 2023, section 3.2, adaLN). Only the rows and the scaling vector are kept for the backward pass.

use candle_core::{DType, Result, Tensor, bail};

use super::widen::{narrow, numbers, widen, widen_like, with_float};
use crate::cpu::modulate::{Add, scaled, summed};
use crate::function::{function, trains};
use crate::kernels::{self, Plus};

/// x (1 + scale) + shift: x `B L D`, scale and shift `B D`.
pub fn modulate(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let sizes = sizes("modulate", x, &[scale, shift])?;
    let (kept_x, kept_scale) = (x.detach(), scale.detach());
    let needs = [trains(x), trains(scale), trains(shift)];
    let types = [x.dtype(), scale.dtype(), shift.dtype()];
    let out = affine(&kept_x, &kept_scale, 1.0, Plus::Vector(&shift.detach()), sizes, types[0])?;
    function("modulate", &[x, scale, shift], out, move |dy| {
        let dx = || affine(dy, &kept_scale, 1.0, Plus::Nothing, sizes, types[0]);
        let dscale = || along(dy, Some(&kept_x), sizes, types[1]);
        let dshift = || along(dy, None, sizes, types[2]);
        Ok(vec![needs[0].then(dx).transpose()?, needs[1].then(dscale).transpose()?, needs[2].then(dshift).transpose()?])
    })
}

/// x + gate y: x and y `B L D`, gate `B D`.
pub fn gated_sum(x: &Tensor, gate: &Tensor, y: &Tensor) -> Result<Tensor> {
    let sizes = sizes("gated_sum", y, &[gate])?;
    if x.dims() != y.dims() {
        bail!("gated_sum: {:?} cannot be added to {:?}", y.shape(), x.shape());
    }
    let (kept_y, kept_gate) = (y.detach(), gate.detach());
    let needs = [trains(x), trains(gate), trains(y)];
    let types = [x.dtype(), gate.dtype(), y.dtype()];
    let out = affine(&kept_y, &kept_gate, 0.0, Plus::Rows(&x.detach()), sizes, types[0])?;
    function("gated_sum", &[x, gate, y], out, move |dy| {
        let dgate = || along(dy, Some(&kept_y), sizes, types[1]);
        let branch = || affine(dy, &kept_gate, 0.0, Plus::Nothing, sizes, types[2]);
        Ok(vec![
            needs[0].then(|| dy.to_dtype(types[0])).transpose()?,
            needs[1].then(dgate).transpose()?,
            needs[2].then(branch).transpose()?,
        ])
    })
}

/// L and D.
fn sizes(name: &str, rows: &Tensor, vectors: &[&Tensor]) -> Result<[usize; 2]> {
    let (batch, length, width) = rows.dims3()?;
    if let Some(bad) = vectors.iter().find(|v| v.dims() != [batch, width]) {
        bail!("{name}: the rows are {:?} (B L D), so a vector a sample is B D, not {:?}", rows.shape(), bad.shape());
    }
    if length * width == 0 {
        bail!("{name}: no numbers in {:?}", rows.shape());
    }
    Ok([length, width])
}

/// x (offset + factor) + what is added, as `dtype`, detached.
fn affine(x: &Tensor, factor: &Tensor, offset: f64, plus: Plus, sizes: [usize; 2], dtype: DType) -> Result<Tensor> {
    if let Some(y) = kernels::scaled(&x.detach(), factor, offset, plus)? {
        return y.to_dtype(dtype);
    }
    let wide = widen(x)?;
    let like = |t: &Tensor| -> Result<Tensor> { Ok(widen_like(Some(t), &wide)?.expect("given")) };
    let factor = like(factor)?;
    if !x.device().is_cpu() {
        let y = wide.broadcast_mul(&(factor + offset)?.unsqueeze(1)?)?;
        let y = match plus {
            Plus::Nothing => y,
            Plus::Vector(shift) => y.broadcast_add(&like(shift)?.unsqueeze(1)?)?,
            Plus::Rows(rows) => (y + like(rows)?)?,
        };
        return y.to_dtype(dtype);
    }
    let added = match plus {
        Plus::Nothing => None,
        Plus::Vector(t) | Plus::Rows(t) => Some(like(t)?),
    };
    with_float!(wide, T => {
        let added = added.as_ref().map(numbers::<T>).transpose()?;
        let add = match (&plus, &added) {
            (Plus::Vector(_), Some(all)) => Add::Vector(all),
            (Plus::Rows(_), Some(all)) => Add::Rows(all),
            _ => Add::Nothing,
        };
        let out = scaled::<T>(&numbers(&wide)?, &numbers(&factor)?, offset as T, add, sizes);
        narrow(out, x.dims(), dtype)?.tensor()
    })
}

/// The sum over L of a b, or of a alone: `B D` as `dtype`.
fn along(a: &Tensor, b: Option<&Tensor>, sizes: [usize; 2], dtype: DType) -> Result<Tensor> {
    if let Some(sum) = kernels::summed(&a.detach(), b)? {
        return sum.to_dtype(dtype);
    }
    let wide = widen(a)?;
    let b = widen_like(b, &wide)?;
    if !a.device().is_cpu() {
        let product = b.map_or(Ok(wide.clone()), |b| &wide * b)?;
        return product.sum(1)?.to_dtype(dtype);
    }
    with_float!(wide, T => {
        let b = b.as_ref().map(numbers::<T>).transpose()?;
        let out = summed::<T>(&numbers(&wide)?, b.as_deref(), sizes);
        narrow(out, &[a.dim(0)?, sizes[1]], dtype)?.tensor()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_random};
    use candle_core::Var;

    fn inputs() -> [Tensor; 4] {
        let make = |shape: &[usize], seed| pseudo_random(shape, seed).unwrap();
        [make(&[2, 5, 70], 1), make(&[2, 70], 2), make(&[2, 70], 3), make(&[2, 5, 70], 4)]
    }

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    #[test]
    fn values_are_those_of_the_definition() {
        let [x, scale, shift, y] = inputs();
        let over = |t: &Tensor| t.unsqueeze(1).unwrap();
        let want = x.broadcast_mul(&(over(&scale) + 1.0).unwrap()).unwrap().broadcast_add(&over(&shift)).unwrap();
        assert!(distance(&modulate(&x, &scale, &shift).unwrap(), &want) < 1e-14);
        let want = (&x + y.broadcast_mul(&over(&scale)).unwrap()).unwrap();
        assert!(distance(&gated_sum(&x, &scale, &y).unwrap(), &want) < 1e-14);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let [x, scale, shift, y] = inputs();
        let error = check(|t| modulate(&t[0], &t[1], &t[2]), &[x.clone(), scale.clone(), shift]).unwrap();
        assert!(error < 1e-7, "modulate: {error}");
        let error = check(|t| gated_sum(&t[0], &t[1], &t[2]), &[x, scale, y]).unwrap();
        assert!(error < 1e-7, "gated_sum: {error}");
    }

    #[test]
    fn half_precision_stays_near_and_keeps_its_type() {
        let [x, scale, shift, y] = inputs();
        type Op = fn(&[Tensor; 3]) -> Result<Tensor>;
        let ops: [(Op, [Tensor; 3]); 2] = [
            (|[x, scale, shift]| modulate(x, scale, shift), [x.clone(), scale.clone(), shift]),
            (|[x, gate, y]| gated_sum(x, gate, y), [x, scale, y]),
        ];
        for (op, inputs) in ops {
            let run = |dtype| {
                let vars = inputs.clone().map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap());
                let out = op(&vars.clone().map(|v| v.into_inner())).unwrap();
                let mut grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
                let mut all = vec![out];
                all.extend(vars.iter().map(|v| grads.remove(v).unwrap()));
                all
            };
            for (dtype, most) in [(DType::F32, 1e-6), (DType::BF16, 0.03)] {
                for (got, want) in run(dtype).iter().zip(run(DType::F64)) {
                    assert_eq!(got.dtype(), dtype);
                    let scale = want.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                    assert!(distance(got, &want) < most * scale, "{dtype:?}: {} of {scale}", distance(got, &want));
                }
            }
        }
    }

    #[test]
    fn wrong_shapes_are_named() {
        let [x, scale, shift, _] = inputs();
        let short = scale.narrow(1, 0, 3).unwrap();
        assert!(modulate(&x, &short, &shift).unwrap_err().to_string().contains("B D"));
        assert!(gated_sum(&x.narrow(1, 0, 2).unwrap(), &scale, &x).unwrap_err().to_string().contains("added"));
    }
}
