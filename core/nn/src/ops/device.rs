//! The same operations composed of candle's own tensor operations, for devices that have no kernel of ours. They work
//! on detached tensors that are widened to the compute type, so they build no graph; they run on the CPU too, where the
//! tests hold them against the kernels.

use candle_core::{D, DType, Device, Result, Shape, Tensor};

use crate::cpu::attention::Mask;
use crate::cpu::elementwise::{Gelu, GeluTanh, Identity, QuickGelu, Silu, TANH_CUBIC, TANH_LINEAR};
use crate::kernels::{self, Act, Sees};

/// A function of one number and its derivative, on whole tensors.
pub(super) trait Pointwise {
    /// The same as a kernel counts it.
    const ACT: Option<Act>;
    fn on_device(x: &Tensor) -> Result<Tensor>;
    fn slope_on_device(x: &Tensor) -> Result<Tensor>;
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

/// The derivative of z · sigmoid(k z) / k at z = k x.
fn swish_slope(z: &Tensor) -> Result<Tensor> {
    let s = sigmoid(z)?;
    let inner = (z * s.affine(-1.0, 1.0)?)?;
    s * (inner + 1.0)?
}

impl Pointwise for Identity {
    const ACT: Option<Act> = None;
    fn on_device(x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }
    fn slope_on_device(x: &Tensor) -> Result<Tensor> {
        x.ones_like()
    }
}

impl Pointwise for Silu {
    const ACT: Option<Act> = Some(Act::Silu);
    fn on_device(x: &Tensor) -> Result<Tensor> {
        x.silu()
    }
    fn slope_on_device(x: &Tensor) -> Result<Tensor> {
        swish_slope(x)
    }
}

impl Pointwise for QuickGelu {
    const ACT: Option<Act> = Some(Act::QuickGelu);
    fn on_device(x: &Tensor) -> Result<Tensor> {
        x * sigmoid(&(x * 1.702)?)?
    }
    fn slope_on_device(x: &Tensor) -> Result<Tensor> {
        swish_slope(&(x * 1.702)?)
    }
}

impl Pointwise for Gelu {
    const ACT: Option<Act> = Some(Act::Gelu);
    fn on_device(x: &Tensor) -> Result<Tensor> {
        x.gelu_erf()
    }
    fn slope_on_device(x: &Tensor) -> Result<Tensor> {
        let below = (x * std::f64::consts::FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?;
        let density =
            ((x.sqr()? * -0.5)?.exp()? * (0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2))?;
        below + (x * density)?
    }
}

impl Pointwise for GeluTanh {
    const ACT: Option<Act> = Some(Act::GeluTanh);
    fn on_device(x: &Tensor) -> Result<Tensor> {
        x * sigmoid(&(x * x.sqr()?.affine(TANH_CUBIC, TANH_LINEAR)?)?)
    }
    fn slope_on_device(x: &Tensor) -> Result<Tensor> {
        let square = x.sqr()?;
        let s = sigmoid(&(x * square.affine(TANH_CUBIC, TANH_LINEAR)?)?)?;
        let inner = (x * square.affine(3.0 * TANH_CUBIC, TANH_LINEAR)?)?;
        let rest = s.affine(-1.0, 1.0)?;
        s * ((inner * rest)? + 1.0)?
    }
}

/// `.. 2D` to `.. D`.
pub(super) fn geglu(x: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    &halves[0] * halves[1].contiguous()?.gelu_erf()?
}

/// The gradient of [`geglu`], `.. 2D`.
pub(super) fn geglu_grad(x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let halves = x.chunk(2, D::Minus1)?;
    let gate = halves[1].contiguous()?;
    let dvalue = (dy * gate.gelu_erf()?)?;
    let dgate = ((dy * &halves[0])? * Gelu::slope_on_device(&gate)?)?;
    Tensor::cat(&[dvalue, dgate], D::Minus1)
}

/// `n · weight + bias`, each reshaped to `shape` and absent where it is `None`.
pub(super) fn affine(
    n: &Tensor,
    weight: &Option<Tensor>,
    bias: &Option<Tensor>,
    shape: impl Into<Shape>,
) -> Result<Tensor> {
    let shape = shape.into();
    let mut out = n.clone();
    if let Some(weight) = weight {
        out = out.broadcast_mul(&weight.reshape(&shape)?)?;
    }
    if let Some(bias) = bias {
        out = out.broadcast_add(&bias.reshape(&shape)?)?;
    }
    Ok(out)
}

/// Normalises the last dimension of `B G N`: (normalised, reciprocal deviation `B G 1`).
pub(super) fn normalise(x: &Tensor, eps: f64, centred: bool) -> Result<(Tensor, Tensor)> {
    let centre = if centred { x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)? } else { x.clone() };
    let rstd = (centre.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
    Ok((centre.broadcast_mul(&rstd)?, rstd))
}

/// The gradient of [`normalise`] from the normalised values n and the gradient g of them.
pub(super) fn normalise_grad(n: &Tensor, rstd: &Tensor, g: &Tensor, centred: bool) -> Result<Tensor> {
    let along = (g * n)?.mean_keepdim(D::Minus1)?;
    let mut dx = (g - n.broadcast_mul(&along)?)?;
    if centred {
        dx = dx.broadcast_sub(&g.mean_keepdim(D::Minus1)?)?;
    }
    dx.broadcast_mul(rstd)
}

/// Attention over `N L D`, some heads at a time, or some queries of one, so that no matrix of all scores exists; the
/// backward pass makes the probabilities again in the same chunks. Products are in the model's type.
pub(super) struct Attention {
    pub q: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    pub mask: Mask,
    pub scale: f64,
    /// Scores that exist at once.
    pub scores: usize,
}

/// Scores that exist at once, where a card is large enough to train at all.
pub(super) const SCORES: usize = 1 << 26;

impl Attention {
    /// Groups of heads: each its own attention.
    fn groups(&self) -> Result<Vec<Self>> {
        let (heads, queries, _) = self.q.dims3()?;
        let step = (self.scores / (queries * self.k.dim(1)?)).clamp(1, heads);
        let group = |first| -> Result<Self> {
            let some = |t: &Tensor| t.narrow(0, first, step.min(heads - first));
            let Self { mask, scale, scores, .. } = *self;
            Ok(Self { q: some(&self.q)?, k: some(&self.k)?, v: some(&self.v)?, mask, scale, scores })
        };
        (0..heads).step_by(step).map(group).collect()
    }

    /// The chunks of queries: (first, length).
    fn chunks(&self) -> Result<Vec<(usize, usize)>> {
        let (heads, queries, _) = self.q.dims3()?;
        let step = (self.scores / (heads * self.k.dim(1)?)).clamp(16, queries.max(16));
        Ok((0..queries).step_by(step).map(|first| (first, step.min(queries - first))).collect())
    }

    fn wide(&self) -> DType {
        if self.q.dtype() == DType::F64 { DType::F64 } else { DType::F32 }
    }

    /// The probabilities of a chunk, `N chunk Lk`.
    fn probabilities(&self, first: usize, length: usize) -> Result<Tensor> {
        let q = (self.q.narrow(1, first, length)?.contiguous()? * self.scale)?;
        let scores = q.matmul(&self.k.t()?)?;
        let sees = match self.mask {
            Mask::None => Sees::All,
            Mask::Causal => Sees::UpTo { rows: length, first },
        };
        if let Some(p) = kernels::softmax(&scores, sees)? {
            return Ok(p);
        }
        let mut scores = scores.to_dtype(self.wide())?;
        if self.mask == Mask::Causal {
            scores = scores
                .broadcast_add(&hidden(first, length, self.k.dim(1)?, scores.device())?.to_dtype(self.wide())?)?;
        }
        let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)
    }

    pub fn forward(&self) -> Result<Tensor> {
        joined(&self.groups()?.iter().map(Self::group_forward).collect::<Result<Vec<_>>>()?, 0)
    }

    fn group_forward(&self) -> Result<Tensor> {
        let out = self
            .chunks()?
            .into_iter()
            .map(|(first, length)| self.probabilities(first, length)?.to_dtype(self.v.dtype())?.matmul(&self.v));
        joined(&out.collect::<Result<Vec<_>>>()?, 1)
    }

    /// The gradients of q, k and v.
    pub fn backward(&self, out: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        let (mut all, mut first) = ([const { Vec::new() }; 3], 0);
        for group in self.groups()? {
            let heads = group.q.dim(0)?;
            let grads = group.group_backward(&out.narrow(0, first, heads)?, &grad.narrow(0, first, heads)?)?;
            all.iter_mut().zip(grads).for_each(|(all, grad)| all.push(grad));
            first += heads;
        }
        let [dq, dk, dv] = all;
        Ok([joined(&dq, 0)?, joined(&dk, 0)?, joined(&dv, 0)?])
    }

    fn group_backward(&self, out: &Tensor, grad: &Tensor) -> Result<[Tensor; 3]> {
        let (wide, dtype) = (self.wide(), self.q.dtype());
        let mut dq = Vec::new();
        let (mut dk, mut dv) = (None, None);
        for (first, length) in self.chunks()? {
            let p = self.probabilities(first, length)?;
            let part = grad.narrow(1, first, length)?.contiguous()?;
            let dp = part.matmul(&self.v.t()?)?;
            let ds = match kernels::softmax_grad(&p, &dp, self.scale)? {
                Some(ds) => ds,
                None => {
                    let out = out.narrow(1, first, length)?.to_dtype(wide)?;
                    let delta = (part.to_dtype(wide)? * out)?.sum_keepdim(D::Minus1)?; // N chunk 1
                    let p = p.to_dtype(wide)?;
                    ((&p * dp.to_dtype(wide)?.broadcast_sub(&delta)?)? * self.scale)?.to_dtype(dtype)?
                }
            };
            add(&mut dv, p.to_dtype(dtype)?.t()?.matmul(&part)?, wide)?;
            add(&mut dk, ds.t()?.matmul(&self.q.narrow(1, first, length)?.contiguous()?)?, wide)?;
            dq.push(ds.matmul(&self.k)?);
        }
        let whole = |sum: Option<Tensor>| sum.expect("there is a chunk, since there are queries").to_dtype(dtype);
        Ok([joined(&dq, 1)?, whole(dk)?, whole(dv)?])
    }
}

/// Parts one after the other, in a dimension.
fn joined(parts: &[Tensor], dim: usize) -> Result<Tensor> {
    match parts {
        [one] => Ok(one.clone()),
        all => Tensor::cat(all, dim),
    }
}

/// Adds a chunk's part to a sum; a sum of several is in the compute type.
fn add(sum: &mut Option<Tensor>, part: Tensor, wide: DType) -> Result<()> {
    *sum = Some(match sum.take() {
        Some(sum) => (sum.to_dtype(wide)? + part.to_dtype(wide)?)?,
        None => part,
    });
    Ok(())
}

/// Zero where query `first + i` sees key j, else minus infinity: `length keys`.
fn hidden(first: usize, length: usize, keys: usize, device: &Device) -> Result<Tensor> {
    let bias = |i: usize| if i % keys > first + i / keys { f32::NEG_INFINITY } else { 0.0 };
    Tensor::from_vec((0..length * keys).map(bias).collect(), (length, keys), device)
}
