//! Scaled dot-product attention, in the two layouts that models have it: heads split into a dimension, or side by side
//! in the rows that the projections gave. No matrix of scores is kept for the backward pass.

use std::ops::Deref;

use candle_core::{DType, Result, Tensor, WithDType, bail};

use super::device;
use super::widen::{narrow, numbers, numbers_from, widen};
use crate::cpu::attention::{self as kernel, Rows, Saved, Sizes, Strides, Tile};
use crate::cpu::elementwise::Float;
use crate::function::{cpu_tensor, function_of_output};
use crate::kernels;

pub use crate::cpu::attention::Mask;

/// softmax(q kᵀ / sqrt(D)) v: q `B H Lq D`, k and v `B H Lk D`, to `B H Lq D`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Mask) -> Result<Tensor> {
    let (batch, heads, queries, width) = q.dims4()?;
    let keys = k.dim(2)?;
    for (name, t) in [("k", k), ("v", v)] {
        if t.dims() != [batch, heads, keys, width] {
            bail!("attention: q is {:?} (B H Lq D), so {name} cannot be {:?} (B H Lk D)", q.shape(), t.shape());
        }
    }
    Attention { batch, heads, queries, keys, width, mask: *mask, layout: Layout::Split }.apply(q, k, v)
}

/// The same on heads that lie side by side: q `B Lq H*D`, k and v `B Lk H*D`, to `B Lq H*D`.
pub fn attention_heads(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: &Mask) -> Result<Tensor> {
    let (batch, queries, all) = q.dims3()?;
    if heads == 0 || all % heads != 0 {
        bail!("attention: {heads} heads do not divide the last dimension of {:?} (B Lq H*D)", q.shape());
    }
    let keys = k.dim(1)?;
    for (name, t) in [("k", k), ("v", v)] {
        if t.dims() != [batch, keys, all] {
            bail!("attention: q is {:?} (B Lq H*D), so {name} cannot be {:?} (B Lk H*D)", q.shape(), t.shape());
        }
    }
    Attention { batch, heads, queries, keys, width: all / heads, mask: *mask, layout: Layout::Packed }.apply(q, k, v)
}

#[derive(Clone, Copy)]
enum Layout {
    /// `B H L D`.
    Split,
    /// `B L H*D`.
    Packed,
}

#[derive(Clone, Copy)]
struct Attention {
    batch: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
    mask: Mask,
    layout: Layout,
}

impl Attention {
    fn sizes(&self) -> Sizes {
        let Attention { batch, heads, queries, keys, width, mask, .. } = *self;
        Sizes { batch, heads, queries, keys, width, mask, scale: 1.0 / (width as f64).sqrt() }
    }

    fn strides(&self, length: usize) -> Strides {
        match self.layout {
            Layout::Split => Strides::split(length, self.heads, self.width),
            Layout::Packed => Strides::packed(length, self.heads, self.width),
        }
    }

    fn shape(&self, length: usize) -> Vec<usize> {
        match self.layout {
            Layout::Split => vec![self.batch, self.heads, length, self.width],
            Layout::Packed => vec![self.batch, length, self.heads * self.width],
        }
    }

    fn apply(self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        if self.batch * self.heads * self.queries * self.keys * self.width == 0 {
            bail!("attention: no numbers in q {:?} or k {:?}", q.shape(), k.shape());
        }
        if q.dtype() != k.dtype() || q.dtype() != v.dtype() {
            bail!("attention: q, k and v are {:?}, {:?} and {:?}", q.dtype(), k.dtype(), v.dtype());
        }
        let inputs = [q, k, v];
        let [q, k, v] = inputs.map(Tensor::detach);
        if !q.device().is_cpu() {
            return self.on_device(inputs, [q, k, v]);
        }
        match q.dtype() {
            DType::F64 => self.on_cpu::<f64>(inputs, [q, k, v]),
            _ => self.on_cpu::<f32>(inputs, [q, k, v]),
        }
    }

    fn on_cpu<T: Float + Tile>(self, inputs: [&Tensor; 3], kept: [Tensor; 3]) -> Result<Tensor> {
        let (sizes, dtype) = (self.sizes(), inputs[0].dtype());
        let (out, logs) = {
            let wide = self.wide(&kept)?;
            let [q, k, v] = self.views::<T>(&wide)?;
            kernel::attention(sizes, q.rows(), k.rows(), v.rows(), self.strides(self.queries))
        };
        let out = narrow(out, &self.shape(self.queries), dtype)?;
        function_of_output("attention", &inputs, out, move |out, dy| {
            let wide = self.wide(&kept)?;
            let [q, k, v] = self.views::<T>(&wide)?;
            let (out, dy) = (widen(out)?, widen(dy)?);
            let (out, dy) = (numbers::<T>(&out)?, numbers::<T>(&dy)?);
            let [of_queries, of_keys] = [self.strides(self.queries), self.strides(self.keys)];
            let saved = Saved {
                out: Rows { data: &out, strides: of_queries },
                logs: &logs,
                grad: Rows { data: &dy, strides: of_queries },
            };
            let strides = [of_queries, of_keys, of_keys];
            let grads = kernel::attention_grad(sizes, q.rows(), k.rows(), v.rows(), saved, strides);
            let lengths = [self.queries, self.keys, self.keys];
            let tensor = |(grad, length)| cpu_tensor(grad, self.shape(length))?.to_dtype(dtype).map(Some);
            grads.into_iter().zip(lengths).map(tensor).collect()
        })
    }

    /// `B*H L D`, contiguous.
    fn batched(&self, t: &Tensor) -> Result<Tensor> {
        let length = t.dim(t.rank() - 2)?;
        let split = match self.layout {
            Layout::Split => t.clone(),
            Layout::Packed => {
                let side_by_side = t.reshape((self.batch, length, self.heads, self.width))?;
                match kernels::swapped(&side_by_side)? {
                    Some(split) => split,
                    None => side_by_side.transpose(1, 2)?,
                }
            }
        };
        split.contiguous()?.reshape((self.batch * self.heads, length, self.width))
    }

    /// The layout of the inputs, from `B*H L D`.
    fn unbatched(&self, t: &Tensor) -> Result<Tensor> {
        let length = t.dim(1)?;
        let split = t.reshape((self.batch, self.heads, length, self.width))?;
        match self.layout {
            Layout::Split => Ok(split),
            Layout::Packed => match kernels::swapped(&split)? {
                Some(side_by_side) => side_by_side.reshape(self.shape(length)),
                None => split.transpose(1, 2)?.contiguous()?.reshape(self.shape(length)),
            },
        }
    }

    fn on_device(self, inputs: [&Tensor; 3], kept: [Tensor; 3]) -> Result<Tensor> {
        let Sizes { mask, scale, .. } = self.sizes();
        let batched = move |kept: &[Tensor; 3]| -> Result<device::Attention> {
            let [q, k, v] = kept;
            let [q, k, v] = [self.batched(q)?, self.batched(k)?, self.batched(v)?];
            Ok(device::Attention { q, k, v, mask, scale, scores: device::SCORES })
        };
        let out = self.unbatched(&batched(&kept)?.forward()?)?;
        function_of_output("attention", &inputs, out, move |out, dy| {
            let grads = batched(&kept)?.backward(&self.batched(out)?, &self.batched(dy)?)?;
            grads.iter().map(|grad| self.unbatched(grad).map(Some)).collect()
        })
    }

    /// The inputs in the compute type; views whose rows are whole stay views.
    fn wide(&self, kept: &[Tensor; 3]) -> Result<[Tensor; 3]> {
        let [q, k, v] = kept;
        let wide = |t: &Tensor| match t.stride().last() == Some(&1) && matches!(t.dtype(), DType::F32 | DType::F64) {
            true => Ok(t.clone()),
            false => widen(t),
        };
        Ok([wide(q)?, wide(k)?, wide(v)?])
    }

    fn views<'a, T: WithDType>(&self, wide: &'a [Tensor; 3]) -> Result<[View<impl Deref<Target = [T]> + 'a>; 3]> {
        let [q, k, v] = wide;
        let view = |t: &'a Tensor| {
            let strides = match (self.layout, t.stride()) {
                (Layout::Split, &[batch, head, row, _]) => Strides { batch, head, row },
                (Layout::Packed, &[batch, row, _]) => Strides { batch, head: self.width, row },
                (_, strides) => bail!("attention: unexpected strides {strides:?}"),
            };
            Ok(View { numbers: numbers_from(t)?, strides })
        };
        Ok([view(q)?, view(k)?, view(v)?])
    }
}

struct View<N> {
    numbers: N,
    strides: Strides,
}

impl<T, N: Deref<Target = [T]>> View<N> {
    fn rows(&self) -> Rows<'_, T> {
        Rows { data: &self.numbers, strides: self.strides }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_random};
    use candle_core::{D, Device, Var};

    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
    }

    /// q, k, v with scores of some size.
    fn inputs(batch: usize, heads: usize, queries: usize, keys: usize, width: usize) -> [Tensor; 3] {
        let tensor = |length, seed| (pseudo_random(&[batch, heads, length, width], seed).unwrap() * 2.0).unwrap();
        [tensor(queries, 1), tensor(keys, 2), tensor(keys, 3)]
    }

    /// The definition, with candle's own operations and graph.
    fn plain(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) -> Result<Tensor> {
        let (queries, keys) = (q.dim(2)?, k.dim(2)?);
        let mut scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? / (q.dim(3)? as f64).sqrt())?;
        if mask == Mask::Causal {
            let bias = |i: usize| if i % keys > i / keys { f64::NEG_INFINITY } else { 0.0 };
            let bias = Tensor::from_vec((0..queries * keys).map(bias).collect(), (queries, keys), &Device::Cpu)?;
            scores = scores.broadcast_add(&bias)?;
        }
        let p = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        p.broadcast_div(&p.sum_keepdim(D::Minus1)?)?.matmul(&v.contiguous()?)
    }

    /// The value and the gradients of q, k, v under a fixed gradient of the output.
    fn run(x: &[Tensor; 3], f: impl Fn(&[Tensor; 3]) -> Result<Tensor>) -> Vec<Tensor> {
        let vars = x.clone().map(|x| Var::from_tensor(&x).unwrap());
        let y = f(&vars.clone().map(|var| var.into_inner())).unwrap();
        let dy = pseudo_random(y.dims(), 4).unwrap().to_dtype(y.dtype()).unwrap();
        let mut grads = (&y * dy).unwrap().sum_all().unwrap().backward().unwrap();
        let mut all = vec![y];
        all.extend(vars.iter().map(|var| grads.remove(var).unwrap()));
        all
    }

    fn agree(got: &[Tensor], want: &[Tensor], most: f64, about: &str) {
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let scale =
                want.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap();
            let error = distance(got, want) / scale.max(0.1); // with one key, the gradient of q is zero
            assert!(error < most, "{about}: result {i} is off by {error}");
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        for mask in [Mask::None, Mask::Causal] {
            for (queries, keys, width) in [(5, 5, 8), (3, 7, 5), (4, 1, 3), (1, 4, 8)] {
                let x = inputs(2, 2, queries, keys, width);
                let error = check(|x| attention(&x[0], &x[1], &x[2], &mask), &x).unwrap();
                assert!(error < 1e-6, "{mask:?} {queries} {keys} {width}: {error}");
            }
        }
    }

    #[test]
    fn every_shape_agrees_with_the_definition() {
        let shapes = [
            (1, 2, 64, 64, 64),
            (2, 3, 65, 65, 40),
            (1, 1, 300, 300, 8),
            (1, 2, 130, 77, 80),
            (1, 1, 40, 2, 160),
            (2, 1, 1, 129, 32),
            (1, 1, 20, 700, 33),
            (1, 20, 16, 77, 64),
        ];
        for (batch, heads, queries, keys, width) in shapes {
            let x = inputs(batch, heads, queries, keys, width);
            for mask in [Mask::None, Mask::Causal] {
                let about = format!("{mask:?} {:?}", (batch, heads, queries, keys, width));
                let want = run(&x, |[q, k, v]| plain(q, k, v, mask));
                agree(&run(&x, |[q, k, v]| attention(q, k, v, &mask)), &want, 1e-12, &about);
                let single = x.clone().map(|x| x.to_dtype(DType::F32).unwrap());
                agree(&run(&single, |[q, k, v]| attention(q, k, v, &mask)), &want, 3e-6, &about);
                let half = x.clone().map(|x| x.to_dtype(DType::BF16).unwrap());
                let rounded = half.clone().map(|x| x.to_dtype(DType::F64).unwrap());
                let want = run(&rounded, |[q, k, v]| plain(q, k, v, mask));
                agree(&run(&half, |[q, k, v]| attention(q, k, v, &mask)), &want, 0.03, &about);
            }
        }
    }

    #[test]
    fn heads_side_by_side_and_views_need_no_copy_to_be_right() {
        let (batch, heads, queries, keys, width) = (2, 3, 70, 90, 24);
        let split = |t: &Tensor| t.reshape((batch, t.dim(1)?, heads, width))?.transpose(1, 2);
        let all = pseudo_random(&[batch, keys, 3 * heads * width], 7).unwrap();
        let part = |i, length| all.narrow(2, i * heads * width, heads * width).unwrap().narrow(1, 5, length).unwrap();
        let x = [part(0, queries), part(1, keys - 5), part(2, keys - 5)];
        assert!(!x[0].is_contiguous());
        let want = run(&x, |[q, k, v]| {
            plain(&split(q)?, &split(k)?, &split(v)?, Mask::None)?.transpose(1, 2)?.reshape((
                batch,
                queries,
                heads * width,
            ))
        });
        let views = run(&x, |[q, k, v]| {
            let out = attention(&split(q)?, &split(k)?, &split(v)?, &Mask::None)?;
            out.transpose(1, 2)?.reshape((batch, queries, heads * width))
        });
        agree(&views, &want, 1e-12, "views");
        agree(&run(&x, |[q, k, v]| attention_heads(q, k, v, heads, &Mask::None)), &want, 1e-12, "side by side");
        let out = attention_heads(&x[0], &x[1], &x[2], heads, &Mask::None).unwrap();
        assert_eq!(distance(&out, &want[0]).max(1e-12), 1e-12, "without a graph, on strided inputs");
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let x = inputs(1, 1, 40, 300, 16).map(|x| (x * 100.0).unwrap().to_dtype(DType::F32).unwrap());
        for result in run(&x, |[q, k, v]| attention(q, k, v, &Mask::None)) {
            assert!(result.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let [q, k, v] = inputs(1, 1, 3, 20, 8).map(|x| x.to_dtype(DType::F32).unwrap());
        let q = (&q
            + Tensor::new(&[[f32::NAN], [0.0], [0.0]], &Device::Cpu).unwrap().broadcast_as((1, 1, 3, 8)).unwrap())
        .unwrap();
        let out = attention(&q, &k, &v, &Mask::None).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(out[..8].iter().all(|x| x.is_nan()) && out[8..].iter().all(|x| x.is_finite()));
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let x = inputs(1, 2, 150, 700, 32).map(|x| x.to_dtype(DType::F32).unwrap());
        let results = [1, 5].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(&x, |[q, k, v]| attention(q, k, v, &Mask::None)))
        });
        for (a, b) in results[0].iter().zip(&results[1]) {
            assert_eq!(distance(a, b), 0.0);
        }
    }

    #[test]
    fn the_device_composition_agrees_with_the_kernel() {
        for mask in [Mask::None, Mask::Causal] {
            let x = inputs(2, 2, 33, 40, 16);
            let want = run(&x, |[q, k, v]| attention(q, k, v, &mask));
            let shape = Attention { batch: 2, heads: 2, queries: 33, keys: 40, width: 16, mask, layout: Layout::Split };
            let got = run(&x, |[q, k, v]| shape.on_device([q, k, v], [q.detach(), k.detach(), v.detach()]));
            agree(&got, &want, 1e-12, "device");
        }
    }

    #[test]
    fn the_device_composition_goes_by_heads_and_by_queries() {
        let [q, k, v] = inputs(1, 6, 33, 40, 16).map(|x| x.squeeze(0).unwrap());
        let dy = pseudo_random(&[6, 33, 16], 4).unwrap();
        let run = |mask, scores| {
            let a = device::Attention { q: q.clone(), k: k.clone(), v: v.clone(), mask, scale: 0.25, scores };
            let out = a.forward().unwrap();
            let grads = a.backward(&out, &dy).unwrap();
            [vec![out], grads.to_vec()].concat()
        };
        for mask in [Mask::None, Mask::Causal] {
            let whole = run(mask, 1 << 20);
            for scores in [4 * 33 * 40, 33 * 40, 20 * 40, 1] {
                agree(&run(mask, scores), &whole, 1e-12, &format!("{mask:?} {scores}"));
            }
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let [q, k, v] = inputs(1, 2, 4, 6, 8);
        let error = attention(&q, &k, &v.narrow(2, 0, 5).unwrap(), &Mask::None).unwrap_err().to_string();
        assert!(error.contains("v cannot be [1, 2, 5, 8]"), "{error}");
        let error = attention(&q, &k.to_dtype(DType::F32).unwrap(), &v, &Mask::None).unwrap_err().to_string();
        assert!(error.contains("F64, F32"), "{error}");
    }
}
