//! Group, layer and root-mean-square normalisation. Statistics are taken in `f32` (`f64` for `f64`) whatever the type of
//! the input; the backward pass keeps the input and two numbers a slab, not the normalised values.

use candle_core::{Result, Tensor, bail};

use super::device;
use super::widen::{narrow, numbers, widen, widen_like, with_float};
use crate::cpu::elementwise::{Identity, Pointwise, Silu};
use crate::cpu::norm::{self, Affine, Groups, Params, RowNorm};
use crate::function::{function, trains};
use crate::kernels::{self, Act};

/// Group normalisation over `B C ..` with scale and shift `C` (Wu & He 2018).
pub fn group_norm(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    grouped::<Identity>("group_norm", x, groups, weight, bias, eps)
}

/// SiLU of [`group_norm`] in the same pass: neither the values between them nor their gradient exist.
pub fn group_norm_silu(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    grouped::<Silu>("group_norm_silu", x, groups, weight, bias, eps)
}

/// Layer normalisation over the last dimension of `.. D` with scale and shift `D` (Ba et al. 2016).
pub fn layer_norm(x: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    rows("layer_norm", RowNorm::Layer, x, weight, bias, eps)
}

/// Root-mean-square normalisation over the last dimension of `.. D` with scale `D` (Zhang & Sennrich 2019).
pub fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    rows("rms_norm", RowNorm::Rms, x, weight, None, eps)
}

/// The scale and the shift as the backward pass needs them.
#[derive(Clone)]
struct Weights {
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Weights {
    fn new(name: &str, size: usize, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Self> {
        for t in [weight, bias].into_iter().flatten() {
            if t.dims() != [size] {
                bail!("{name}: the weights have shape {:?}, the input has {size} channels", t.shape());
            }
        }
        Ok(Self { weight: weight.map(Tensor::detach), bias: bias.map(Tensor::detach) })
    }

    fn like(&self, x: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((widen_like(self.weight.as_ref(), x)?, widen_like(self.bias.as_ref(), x)?))
    }

    /// The gradients of input, weight and bias in the order of [`inputs`] and each in its own type.
    fn order(
        &self,
        x: &Tensor,
        dx: Tensor,
        dweight: Option<Tensor>,
        dbias: Option<Tensor>,
    ) -> Result<Vec<Option<Tensor>>> {
        let mut grads = vec![Some(dx.to_dtype(x.dtype())?)];
        for (param, grad) in [(&self.weight, dweight), (&self.bias, dbias)] {
            if let Some(param) = param {
                grads.push(grad.map(|g| g.to_dtype(param.dtype())).transpose()?);
            }
        }
        Ok(grads)
    }
}

fn inputs<'a>(x: &'a Tensor, weight: Option<&'a Tensor>, bias: Option<&'a Tensor>) -> Vec<&'a Tensor> {
    std::iter::once(x).chain(weight).chain(bias).collect()
}

fn vector<T: candle_core::WithDType>(data: Vec<T>) -> Result<Tensor> {
    let size = data.len();
    crate::function::cpu_tensor(data, size)
}

fn grouped<F: Pointwise + device::Pointwise>(
    name: &'static str,
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    if x.rank() < 2 || groups == 0 || x.dim(1)? % groups != 0 || x.elem_count() == 0 {
        bail!("{name}: {groups} groups do not divide the channels of {:?} (B C ..)", x.shape());
    }
    let (batch, channels) = (x.dim(0)?, x.dim(1)?);
    let weights = Weights::new(name, channels, weight, bias)?;
    let kept = x.detach();
    let inputs = inputs(x, weight, bias);
    let span = x.elem_count() / batch / channels;
    let by = kernels::Norm {
        size: channels / groups * span,
        spatial: span,
        slabs: groups,
        eps,
        centred: true,
        silu: F::ACT == Some(Act::Silu),
    };
    if let Some(out) = by_kernel(name, &inputs, &kept, &weights, by, params(weight, bias))? {
        return Ok(out);
    }
    let wide = widen(&kept)?;
    let (w, b) = weights.like(&wide)?;
    if !x.device().is_cpu() {
        let by_channel = (batch, channels, x.elem_count() / batch / channels);
        let by_group = (batch, groups, x.elem_count() / batch / groups);
        let affine = move |n: &Tensor, w: &Option<Tensor>, b: &Option<Tensor>| {
            device::affine(&n.reshape(by_channel)?, w, b, (1, channels, 1))
        };
        let (n, _) = device::normalise(&wide.reshape(by_group)?, eps, true)?;
        let out = F::on_device(&affine(&n, &w, &b)?)?.to_dtype(x.dtype())?.reshape(x.shape())?;
        return function(name, &inputs, out, move |dy| {
            let wide = widen(&kept)?;
            let (w, b) = weights.like(&wide)?;
            let (n, rstd) = device::normalise(&wide.reshape(by_group)?, eps, true)?;
            let dz = (widen(dy)?.reshape(by_channel)? * F::slope_on_device(&affine(&n, &w, &b)?)?)?; // B C S
            let dweight = (&dz * n.reshape(by_channel)?)?.sum((0, 2))?;
            let g = device::affine(&dz, &w, &None, (1, channels, 1))?.reshape(by_group)?;
            let dx = device::normalise_grad(&n, &rstd, &g, true)?.reshape(kept.shape())?;
            weights.order(&kept, dx, Some(dweight), Some(dz.sum((0, 2))?))
        });
    }
    let layout = Groups { groups, channels: channels / groups, span: x.elem_count() / batch / channels };
    with_float!(wide, T => {
        let (out, stats) = {
            let (w, b) = (w.as_ref().map(numbers::<T>).transpose()?, b.as_ref().map(numbers::<T>).transpose()?);
            norm::group_norm::<F, T>(&numbers(&wide)?, layout, Affine { weight: w.as_deref(), bias: b.as_deref() }, eps)
        };
        drop(wide);
        function(name, &inputs, narrow(out, x.dims(), x.dtype())?, move |dy| {
            let (x, dy) = (widen(&kept)?, widen(dy)?);
            let (w, b) = weights.like(&x)?;
            let (w, b) = (w.as_ref().map(numbers::<T>).transpose()?, b.as_ref().map(numbers::<T>).transpose()?);
            let affine = Affine { weight: w.as_deref(), bias: b.as_deref() };
            let (dx, dweight, dbias) =
                norm::group_norm_grad::<F, T>(&numbers(&x)?, &numbers(&dy)?, &stats, layout, affine);
            let dx = crate::function::cpu_tensor(dx, kept.shape())?;
            weights.order(&kept, dx, Some(vector(dweight)?), Some(vector(dbias)?))
        })
    })
}

/// Whether the weights need gradients.
fn params(weight: Option<&Tensor>, bias: Option<&Tensor>) -> Params {
    if [weight, bias].into_iter().flatten().any(trains) { Params::Train } else { Params::Frozen }
}

/// The norm by a kernel of the GPU; `None` where there is none.
fn by_kernel(
    name: &'static str,
    inputs: &[&Tensor],
    kept: &Tensor,
    weights: &Weights,
    by: kernels::Norm,
    params: Params,
) -> Result<Option<Tensor>> {
    let Some((out, stats)) = kernels::norm(kept, by, weights.weight.as_ref(), weights.bias.as_ref())? else {
        return Ok(None);
    };
    let (kept, weights) = (kept.clone(), weights.clone());
    let out = function(name, inputs, out, move |dy| {
        let (w, b) = (weights.weight.as_ref(), weights.bias.as_ref());
        let dx = kernels::norm_grad(&kept, dy, &stats, by, w, b)?;
        let dx = dx.expect("what went forward by a kernel goes back by one");
        let (dw, db) = match params {
            Params::Train => kernels::norm_params_grad(&kept, dy, &stats, by, w, b)?.unzip(),
            Params::Frozen => (None, None),
        };
        weights.order(&kept, dx, dw, db)
    })?;
    Ok(Some(out))
}

fn rows(
    name: &'static str,
    norm: RowNorm,
    x: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    if x.rank() == 0 || x.elem_count() == 0 {
        bail!("{name}: nothing to normalise in shape {:?}", x.shape());
    }
    let width = x.dim(candle_core::D::Minus1)?;
    let weights = Weights::new(name, width, weight, bias)?;
    let params = params(weight, bias);
    let kept = x.detach();
    let inputs = inputs(x, weight, bias);
    let centred = norm == RowNorm::Layer;
    let by = kernels::Norm { size: width, spatial: 1, slabs: 1, eps, centred, silu: false };
    if let Some(out) = by_kernel(name, &inputs, &kept, &weights, by, params)? {
        return Ok(out);
    }
    let wide = widen(&kept)?;
    let (w, b) = weights.like(&wide)?;
    if !x.device().is_cpu() {
        let flat = (x.elem_count() / width, width);
        let (n, _) = device::normalise(&wide.reshape(flat)?, eps, centred)?;
        let out = device::affine(&n, &w, &b, (1, width))?.to_dtype(x.dtype())?.reshape(x.shape())?;
        return function(name, &inputs, out, move |dy| {
            let (wide, dy) = (widen(&kept)?, widen(dy)?.reshape(flat)?);
            let (w, _) = weights.like(&wide)?;
            let (n, rstd) = device::normalise(&wide.reshape(flat)?, eps, centred)?;
            let g = device::affine(&dy, &w, &None, (1, width))?;
            let dx = device::normalise_grad(&n, &rstd, &g, centred)?.reshape(kept.shape())?;
            let (dweight, dbias) = match params {
                Params::Train => (Some((&dy * n)?.sum(0)?), Some(dy.sum(0)?)),
                Params::Frozen => (None, None),
            };
            weights.order(&kept, dx, dweight, dbias)
        });
    }
    with_float!(wide, T => {
        let (out, stats) = {
            let (w, b) = (w.as_ref().map(numbers::<T>).transpose()?, b.as_ref().map(numbers::<T>).transpose()?);
            let affine = Affine { weight: w.as_deref(), bias: b.as_deref() };
            norm::row_norm::<T>(&numbers(&wide)?, width, norm, affine, eps)
        };
        drop(wide);
        function(name, &inputs, narrow(out, x.dims(), x.dtype())?, move |dy| {
            let (x, dy) = (widen(&kept)?, widen(dy)?);
            let (w, _) = weights.like(&x)?;
            let w = w.as_ref().map(numbers::<T>).transpose()?;
            let (dx, dparams) =
                norm::row_norm_grad::<T>(&numbers(&x)?, &numbers(&dy)?, &stats, norm, w.as_deref(), params);
            let (dweight, dbias) = match dparams {
                Some((dweight, dbias)) => (Some(vector(dweight)?), Some(vector(dbias)?)),
                None => (None, None),
            };
            weights.order(&kept, crate::function::cpu_tensor(dx, kept.shape())?, dweight, dbias)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_random};
    use candle_core::{D, DType, Var};

    const EPS: f64 = 1e-5;

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// (x - mean) / sqrt(variance + eps) over the last dimension.
    fn plain(x: &Tensor) -> Tensor {
        let centre = x.broadcast_sub(&x.mean_keepdim(D::Minus1).unwrap()).unwrap();
        let variance = centre.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
        centre.broadcast_div(&(variance + EPS).unwrap().sqrt().unwrap()).unwrap()
    }

    #[test]
    fn values_are_those_of_the_definition() {
        let x = (pseudo_random(&[2, 6, 5, 3], 1).unwrap() * 3.0).unwrap();
        let (w, b) = (pseudo_random(&[6], 2).unwrap(), pseudo_random(&[6], 3).unwrap());
        let by_channel = |t: &Tensor| t.reshape((1, 6, 1, 1)).unwrap();
        let want = plain(&x.reshape((2, 3, 30)).unwrap()).reshape((2, 6, 5, 3)).unwrap();
        assert!(distance(&group_norm(&x, 3, None, None, EPS).unwrap(), &want) < 1e-12);
        let want = want.broadcast_mul(&by_channel(&w)).unwrap().broadcast_add(&by_channel(&b)).unwrap();
        assert!(distance(&group_norm(&x, 3, Some(&w), Some(&b), EPS).unwrap(), &want) < 1e-12);
        let want = want.silu().unwrap();
        assert!(distance(&group_norm_silu(&x, 3, Some(&w), Some(&b), EPS).unwrap(), &want) < 1e-12);

        let x = (pseudo_random(&[4, 7, 6], 4).unwrap() + 2.0).unwrap();
        let want = plain(&x).broadcast_mul(&w).unwrap().broadcast_add(&b).unwrap();
        assert!(distance(&layer_norm(&x, Some(&w), Some(&b), EPS).unwrap(), &want) < 1e-12);
        let square = (x.sqr().unwrap().mean_keepdim(D::Minus1).unwrap() + EPS).unwrap().sqrt().unwrap();
        let want = x.broadcast_div(&square).unwrap().broadcast_mul(&w).unwrap();
        assert!(distance(&rms_norm(&x, Some(&w), EPS).unwrap(), &want) < 1e-12);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let x = pseudo_random(&[2, 6, 3, 2], 1).unwrap();
        let (w, b) = (pseudo_random(&[6], 2).unwrap(), pseudo_random(&[6], 3).unwrap());
        let all = [x.clone(), w.clone(), b.clone()];
        let small = |error: Result<f64>, name: &str| {
            let error = error.unwrap();
            assert!(error < 1e-6, "{name}: {error}");
        };
        small(check(|x| group_norm(&x[0], 3, Some(&x[1]), Some(&x[2]), EPS), &all), "group");
        small(check(|x| group_norm_silu(&x[0], 2, Some(&x[1]), Some(&x[2]), EPS), &all), "group silu");
        small(check(|x| group_norm_silu(&x[0], 6, None, None, EPS), &all[..1]), "without weights");
        small(check(|t| group_norm(&x, 3, Some(&t[0]), None, EPS), &all[1..2]), "weight of a frozen input");
        let row = pseudo_random(&[3, 7, 6], 4).unwrap();
        let all = [row.clone(), w, b];
        small(check(|x| layer_norm(&x[0], Some(&x[1]), Some(&x[2]), EPS), &all), "layer");
        small(check(|x| layer_norm(&x[0], None, None, EPS), &all[..1]), "layer without weights");
        small(check(|x| layer_norm(&x[0], Some(&all[1]), Some(&all[2]), EPS), &all[..1]), "layer, frozen weights");
        small(check(|x| rms_norm(&x[0], Some(&x[1]), EPS), &all[..2]), "rms");
    }

    #[test]
    fn single_and_half_precision_are_near_the_exact_values() {
        // A mean far above the deviation, slabs that do not fill their last vector, more rows than tasks.
        let x = (pseudo_random(&[2, 64, 19, 7], 1).unwrap() + 30.0).unwrap();
        let (w, b) = (pseudo_random(&[64], 2).unwrap(), pseudo_random(&[64], 3).unwrap());
        let dy = pseudo_random(&[2, 64, 19, 7], 5).unwrap();
        type Op = fn(&[Tensor; 3]) -> Result<Tensor>;
        let ops: [Op; 3] = [
            |[x, w, b]| group_norm_silu(x, 32, Some(w), Some(b), EPS),
            |[x, w, b]| layer_norm(&x.reshape((2 * 19 * 7, 64))?, Some(w), Some(b), EPS)?.reshape(x.shape()),
            |[x, w, _]| rms_norm(&x.reshape((2 * 19 * 7, 64))?, Some(w), EPS)?.reshape(x.shape()),
        ];
        for op in ops {
            let run = |dtype, params| {
                let t = [(&x, dtype), (&w, params), (&b, params)]
                    .map(|(t, d)| Var::from_tensor(&t.to_dtype(d).unwrap()).unwrap());
                let y = op(&t.clone().map(|var| var.into_inner())).unwrap();
                let mut grads = (&y * dy.to_dtype(dtype).unwrap()).unwrap().sum_all().unwrap().backward().unwrap();
                let mut all = vec![y];
                all.extend(t.iter().filter_map(|var| grads.remove(var)));
                all
            };
            let exact = run(DType::F64, DType::F64);
            for (dtype, params, most) in [(DType::F32, DType::F32, 2e-5), (DType::BF16, DType::F32, 0.3)] {
                for (exact, got) in exact.iter().zip(run(dtype, params)) {
                    let scale = exact.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                    assert!(distance(exact, &got) < most * scale, "{dtype:?}: {} of {scale}", distance(exact, &got));
                }
            }
        }
    }

    #[test]
    fn frozen_weights_get_no_gradient_and_views_are_right() {
        let x = Var::from_tensor(&pseudo_random(&[5, 6, 4], 1).unwrap()).unwrap();
        let w = pseudo_random(&[6], 2).unwrap();
        let view = x.transpose(1, 2).unwrap();
        let out = layer_norm(&view, Some(&w), None, EPS).unwrap();
        assert_eq!(distance(&out, &layer_norm(&view.contiguous().unwrap(), Some(&w), None, EPS).unwrap()), 0.0);
        let grads = out.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some() && grads.get(&w).is_none());
        assert!(group_norm(&x, 4, None, None, EPS).unwrap_err().to_string().contains("4 groups"));
        assert!(layer_norm(&x, Some(&w), None, EPS).unwrap_err().to_string().contains("weights have shape"));
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let x = Var::from_tensor(&pseudo_random(&[300, 40], 1).unwrap().to_dtype(DType::F32).unwrap()).unwrap();
        let w = Var::ones(40, DType::F32, x.device()).unwrap();
        let run = || {
            let y = layer_norm(&x, Some(&w), None, EPS).unwrap();
            y.sqr().unwrap().sum_all().unwrap().backward().unwrap().remove(&w).unwrap().to_vec1::<f32>().unwrap()
        };
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let many = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
        assert_eq!(alone.install(run), many.install(run));
    }
}
