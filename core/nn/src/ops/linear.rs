//! Products with a weight matrix and of two activations. The operands are read where they lie: a frozen bf16 weight is
//! widened while it is packed, a transposed view is not copied, and only gradients that something trains are computed.

use candle_core::{D, DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::memory::{Memory, offsets, same_device};
use super::widen::{narrow, numbers, widen, with_float};
use crate::cpu::gemm::{Index, Init, Operand, Out, Real, gemm};
use crate::function::{Output, function, trains};
use crate::held::Held;
use crate::kernels;

/// y = x W^T + b: `x` is `.. I`, `weight` `O I`, `bias` `O`; gives `.. O` in x's type.
///
/// # Errors
/// If the shapes do not fit, a type is not a float, or the tensors are on different devices.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    affine(x, weight, &Held::Dense(weight.detach()), bias)
}

/// [`linear`] with a weight that does not train, in whichever form it is held. The matrix is made for the time of the
/// product, and once more in the backward pass: between them the graph keeps its form.
pub fn linear_held(x: &Tensor, weight: &Held, bias: Option<&Tensor>) -> Result<Tensor> {
    affine(x, &weight.tensor()?, weight, bias)
}

/// base + x W^T: `base` is `.. O`, `x` `.. I`, `weight` `O I`; gives `.. O` in base's type. What an addition of low rank to a
/// layer's output is: the sum costs no pass of its own, forward or backward.
///
/// # Errors
/// If the shapes do not fit, a type is not a float, or the tensors are on different devices.
pub fn linear_onto(base: &Tensor, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (o, i) = weight.dims2()?;
    let mut dims = x.dims().to_vec();
    let last = dims.pop();
    dims.push(o);
    if last != Some(i) || base.dims() != dims {
        let (x, weight) = (x.dims(), weight.dims());
        bail!("linear_onto: base {:?}, x {x:?} and weight {weight:?} do not fit .. O, .. I and O I", base.dims())
    }
    let device = same_device("linear_onto", base, &[x, weight])?;
    let out: Output = match device.is_cpu() {
        true => with_float!(base, T => {
            let (m, wide) = (base.elem_count() / o.max(1), widen(base)?);
            let mut y = numbers::<T>(&wide)?.to_vec();
            let (memory, weights, mut table) = (Memory::of(x)?, Memory::of(weight)?, Vec::new());
            let left = Operand { data: memory.data(), lane: row_index(x, &mut table), depth: Index::Stride(x.stride()[x.rank() - 1]) };
            let right = Operand::right(weights.data(), weight.stride()[1], weight.stride()[0]);
            gemm([m, o, i], T::ONE, left, right, Init::Keep, Out::new(&mut y, o));
            narrow(y, &dims, base.dtype())?
        }),
        false => {
            let product = device_forward(&x.detach().to_dtype(base.dtype())?, weight, None)?;
            match kernels::add_onto(&product, &base.detach())? {
                true => product.into(),
                false => (base.detach() + product)?.into(),
            }
        }
    };
    let (kept_x, kept_weight) = (trains(weight).then(|| x.detach()), trains(x).then(|| weight.detach()));
    let (x_dims, types) = (x.dims().to_vec(), [base.dtype(), x.dtype(), weight.dtype()]);
    function("linear_onto", &[base, x, weight], out, move |dy| {
        let held = kept_weight.as_ref().map(|weight| Held::Dense(weight.clone()));
        let dx = held.map(|held| x_gradient(dy, &held, &x_dims, types[1])).transpose()?;
        let dw = kept_x.as_ref().map(|x| w_gradient(dy, x, [o, i], types[2])).transpose()?;
        Ok(vec![Some(dy.to_dtype(types[0])?), dx, dw])
    })
}

/// The gradient of x, from the form in which the weight is held.
fn x_gradient(dy: &Tensor, held: &Held, dims: &[usize], dtype: DType) -> Result<Tensor> {
    let weight = held.tensor()?;
    if dy.device().is_cpu() {
        return with_float!(dy, T => narrow(input_grad::<T>(dy, &weight)?, dims, dtype)?.tensor());
    }
    rows(dy)?.matmul(&weight.to_dtype(dy.dtype())?.contiguous()?)?.reshape(dims)?.to_dtype(dtype)
}

/// The gradient of the weight.
fn w_gradient(dy: &Tensor, x: &Tensor, size: [usize; 2], dtype: DType) -> Result<Tensor> {
    if dy.device().is_cpu() {
        return with_float!(dy, T => narrow(weight_grad::<T>(x, dy)?, &size, dtype)?.tensor());
    }
    rows(dy)?.t()?.matmul(&rows(x)?.to_dtype(dy.dtype())?)?.to_dtype(dtype)
}

/// x W^T + b, whose backward pass takes the weight from `held`.
fn affine(x: &Tensor, weight: &Tensor, held: &Held, bias: Option<&Tensor>) -> Result<Tensor> {
    let (o, i) = weight.dims2()?;
    if x.rank() == 0 || x.dim(D::Minus1)? != i || bias.is_some_and(|b| b.dims() != [o]) {
        let bias = bias.map(|b| b.dims());
        bail!("linear: x {:?}, weight {:?} and bias {bias:?} do not fit .. I, O I and O", x.dims(), weight.dims())
    }
    let others: Vec<&Tensor> = std::iter::once(weight).chain(bias).collect();
    let device = same_device("linear", x, &others)?;
    let out = match device.is_cpu() {
        true => with_float!(x, T => forward::<T>(x, weight, bias)?),
        false => device_forward(x, weight, bias)?.into(),
    };
    let inputs: Vec<&Tensor> = std::iter::once(x).chain(others).collect();
    let needs = [trains(x), trains(weight), bias.is_some_and(trains)];
    // x is needed for the weight's gradient only, the weight for x's.
    let (kept_x, kept_weight) = (needs[1].then(|| x.detach()), needs[0].then(|| held.clone()));
    let (x_dims, weight_type) = (x.dims().to_vec(), weight.dtype());
    let (x_type, bias_type) = (x.dtype(), bias.map(Tensor::dtype));
    function("linear", &inputs, out, move |dy| {
        let dx = kept_weight.as_ref().map(|held| x_gradient(dy, held, &x_dims, x_type)).transpose()?;
        let dw = kept_x.as_ref().map(|x| w_gradient(dy, x, [o, i], weight_type)).transpose()?;
        let db = match bias_type {
            Some(dtype) if needs[2] => Some(sum_rows(dy, dtype)?),
            _ => None,
        };
        Ok(vec![dx, dw, db])
    })
}

/// The batched product: `a` is `.. M K`, `b` `.. K N`; leading dimensions that are missing or 1 are repeated.
///
/// # Errors
/// If the shapes do not fit, the types differ or are not floats, or the tensors are on different devices.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (ra, rb) = (a.rank(), b.rank());
    if ra < 2 || rb < 2 || a.dim(D::Minus1)? != b.dim(D::Minus2)? || a.dtype() != b.dtype() {
        bail!("matmul: {:?} {:?} and {:?} {:?} do not fit .. M K and .. K N", a.dtype(), a.dims(), b.dtype(), b.dims())
    }
    if rb == 2 {
        return linear(a, &b.t()?, None);
    }
    let lead = ra.max(rb) - 2;
    let side = |x: &Tensor, i: usize| (i + x.rank()).checked_sub(lead + 2).map_or(1, |i| x.dims()[i]);
    let batch: Vec<usize> = (0..lead).map(|i| if side(a, i) == 1 { side(b, i) } else { side(a, i) }).collect();
    let spread = |x: &Tensor| {
        let dims: Vec<usize> = batch.iter().chain(&x.dims()[x.rank() - 2..]).copied().collect();
        if x.dims() == dims { Ok(x.clone()) } else { x.broadcast_as(dims) }
    };
    let (a, b) = (spread(a)?, spread(b)?);
    same_device("matmul", &a, &[&b])?;
    let out = product(&a, &b)?;
    let (kept_a, kept_b) = (trains(&b).then(|| a.detach()), trains(&a).then(|| b.detach()));
    function("matmul", &[&a, &b], out, move |dy| {
        let transposed = |x: &Tensor| x.transpose(D::Minus2, D::Minus1);
        let da = kept_b.as_ref().map(|b| product(dy, &transposed(b)?)?.tensor()).transpose()?;
        let db = kept_a.as_ref().map(|a| product(&transposed(a)?, dy)?.tensor()).transpose()?;
        Ok(vec![da, db])
    })
}

/// The product of detached tensors with equal leading dimensions.
fn product(a: &Tensor, b: &Tensor) -> Result<Output> {
    if !a.device().is_cpu() {
        return Ok(a.detach().contiguous()?.matmul(&b.detach().contiguous()?)?.into());
    }
    let lead = a.rank() - 2;
    let (m, k, n) = (a.dims()[lead], a.dims()[lead + 1], b.dims()[lead + 1]);
    let dims: Vec<usize> = a.dims()[..lead].iter().copied().chain([m, n]).collect();
    let starts = |x: &Tensor| offsets(&x.dims()[..lead], &x.stride()[..lead]);
    let (at_a, at_b) = (starts(a), starts(b));
    let (sa, sb) = (&a.stride()[lead..], &b.stride()[lead..]);
    with_float!(a, T => {
        let mut out = vec![T::default(); at_a.len() * m * n];
        let (ma, mb) = (Memory::of(a)?, Memory::of(b)?);
        let (da, db) = (ma.data(), mb.data());
        if !out.is_empty() && k > 0 {
            out.par_chunks_mut(m * n).enumerate().for_each(|(i, out)| {
                let (a, b) = (Operand::left(da.from(at_a[i]), sa[0], sa[1]), Operand::right(db.from(at_b[i]), sb[0], sb[1]));
                gemm([m, n, k], T::ONE, a, b, Init::Zero, Out::new(out, n));
            });
        }
        narrow(out, &dims, a.dtype())
    })
}

/// All dimensions but the last as one, on a device.
fn rows(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.reshape(((), x.dim(D::Minus1)?))
}

fn device_forward(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (x, weight) = (x.detach(), weight.detach().to_dtype(x.dtype())?);
    let y = rows(&x)?.matmul(&weight.t()?)?;
    let y = match bias {
        Some(bias) if kernels::add_bias(&y, bias, 1)? => y,
        Some(bias) => y.broadcast_add(&bias.detach().to_dtype(x.dtype())?)?,
        None => y,
    };
    let dims: Vec<usize> = x.dims()[..x.rank() - 1].iter().copied().chain([weight.dim(0)?]).collect();
    y.reshape(dims)
}

/// Where the rows of `.. I` lie: at one stride where they can, else in `table`.
fn row_index<'a>(x: &Tensor, table: &'a mut Vec<usize>) -> Index<'a> {
    let lead = x.rank() - 1;
    if x.is_contiguous() {
        return Index::Stride(x.dims()[lead]);
    }
    *table = offsets(&x.dims()[..lead], &x.stride()[..lead]);
    Index::Table(table)
}

fn forward<T: Real>(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Output> {
    let (o, i) = weight.dims2()?;
    let m = x.elem_count() / i.max(1);
    let mut dims = x.dims().to_vec();
    dims[x.rank() - 1] = o;
    let bias = bias.map(Memory::vector::<T>).transpose()?;
    let (memory, weights, mut table) = (Memory::of(x)?, Memory::of(weight)?, Vec::new());
    let mut y = vec![T::default(); m * o];
    gemm(
        [m, o, i],
        T::ONE,
        Operand { data: memory.data(), lane: row_index(x, &mut table), depth: Index::Stride(x.stride()[x.rank() - 1]) },
        Operand::right(weights.data(), weight.stride()[1], weight.stride()[0]),
        bias.as_deref().map_or(Init::Zero, Init::Col),
        Out::new(&mut y, o),
    );
    narrow(y, &dims, x.dtype())
}

fn input_grad<T: Real>(dy: &Tensor, weight: &Tensor) -> Result<Vec<T>> {
    let (o, i) = weight.dims2()?;
    let m = dy.elem_count() / o.max(1);
    let (memory, weights) = (Memory::of(dy)?, Memory::of(weight)?);
    let mut dx = vec![T::default(); m * i];
    gemm(
        [m, i, o],
        T::ONE,
        Operand::left(memory.data(), o, 1),
        Operand::right(weights.data(), weight.stride()[0], weight.stride()[1]),
        Init::Zero,
        Out::new(&mut dx, i),
    );
    Ok(dx)
}

fn weight_grad<T: Real>(x: &Tensor, dy: &Tensor) -> Result<Vec<T>> {
    let (i, o) = (x.dim(D::Minus1)?, dy.dim(D::Minus1)?);
    let m = dy.elem_count() / o.max(1);
    let (memory, grads, mut table) = (Memory::of(x)?, Memory::of(dy)?, Vec::new());
    let mut dw = vec![T::default(); o * i];
    gemm(
        [o, i, m],
        T::ONE,
        Operand::left(grads.data(), 1, o),
        Operand { data: memory.data(), lane: Index::Stride(x.stride()[x.rank() - 1]), depth: row_index(x, &mut table) },
        Init::Zero,
        Out::new(&mut dw, i),
    );
    Ok(dw)
}

/// The gradient of a bias: the sum of `.. O` over all but the last, summed in the compute type.
fn sum_rows(dy: &Tensor, dtype: candle_core::DType) -> Result<Tensor> {
    if !dy.device().is_cpu() {
        return rows(dy)?.to_dtype(candle_core::DType::F32)?.sum(0)?.to_dtype(dtype);
    }
    let o = dy.dim(D::Minus1)?;
    with_float!(dy, T => {
        let memory = Memory::of(dy)?;
        let mut sum = vec![T::default(); o];
        // A product with a row of ones, so that it runs, and widens, like every other.
        let one = [T::ONE];
        let ones = Operand::left(T::data(&one), 0, 0);
        let size = [1, o, dy.elem_count() / o.max(1)];
        gemm(size, T::ONE, ones, Operand::right(memory.data(), o, 1), Init::Zero, Out::new(&mut sum, o));
        narrow(sum, &[o], dtype)?.tensor()
    })
}
