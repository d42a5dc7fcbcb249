//! Holds a gradient against finite differences: the one test that every operation and layer must pass. It lives in the
//! library, not in the tests, because backbones and adapters of other crates are checked with it too.

use candle_core::{DType, Device, Result, Tensor, Var, bail};

/// The worst relative error of the gradients of `f` at `inputs`, over every element of every input.
///
/// The output of `f` is projected on fixed pseudo-random weights, so that each of its elements counts differently. The
/// error of an input is `max |analytic - numeric| / max(max |numeric|, 1e-3)`; central differences in f64 leave about
/// 1e-8 for a right gradient. An input that gets no gradient at all counts as a gradient of zeros.
///
/// # Errors
/// If `f` fails, or an input is not f64: narrower types cannot resolve the differences.
pub fn check(f: impl Fn(&[Tensor]) -> Result<Tensor>, inputs: &[Tensor]) -> Result<f64> {
    const STEP: f64 = 1e-5;
    if let Some(bad) = inputs.iter().find(|x| x.dtype() != DType::F64) {
        bail!("gradcheck: every input must be f64, one is {:?}", bad.dtype())
    }
    let vars = inputs.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let out = f(&tracked)?;
    let weights = pseudo_random(out.shape().dims(), 77)?;
    let grads = (&out * &weights)?.sum_all()?.backward()?;

    let mut worst = 0f64;
    for (which, var) in vars.iter().enumerate() {
        let analytic = match grads.get(var) {
            Some(grad) if grad.dims() != var.dims() => {
                bail!("gradcheck: input {which} is {:?}, its gradient {:?}", var.dims(), grad.dims())
            }
            Some(grad) => grad.flatten_all()?.to_vec1::<f64>()?,
            None => vec![0.0; var.elem_count()],
        };
        let at = inputs[which].flatten_all()?.to_vec1::<f64>()?;
        let mut moved: Vec<Tensor> = inputs.iter().map(Tensor::detach).collect();
        let mut value = |i: usize, step: f64| -> Result<f64> {
            let mut x = at.clone();
            x[i] += step;
            moved[which] = Tensor::from_vec(x, inputs[which].shape(), inputs[which].device())?;
            (f(&moved)?.detach() * &weights)?.sum_all()?.to_scalar::<f64>()
        };
        let numeric = (0..at.len())
            .map(|i| Ok((value(i, STEP)? - value(i, -STEP)?) / (2.0 * STEP)))
            .collect::<Result<Vec<_>>>()?;
        let scale = numeric.iter().fold(1e-3, |most: f64, x| most.max(x.abs()));
        let error = analytic.iter().zip(&numeric).fold(0f64, |most, (a, n)| {
            let error = (a - n).abs() / scale;
            if error.is_nan() { f64::INFINITY } else { most.max(error) }
        });
        worst = worst.max(error);
    }
    Ok(worst)
}

/// A CPU f64 tensor of values spread over (-1, 1), the same for the same `seed`: inputs for checks.
pub fn pseudo_random(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let values: Vec<f64> = (0..shape.iter().product::<usize>())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}
