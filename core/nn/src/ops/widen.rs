//! How an operation reaches the numbers of a tensor on the CPU: half precision is widened to `f32` for the time of the
//! computation, so that kernels know two float types, and what the graph keeps stays as narrow as the model is.

use std::marker::PhantomData;
use std::ops::{Deref, Range};

use candle_core::{DType, Result, Storage, Tensor, WithDType, bail};

use crate::function::{Output, cpu_tensor};

/// The tensor in the type that kernels compute in (`f64` for `f64`, else `f32`), contiguous and outside the graph.
pub(crate) fn widen(tensor: &Tensor) -> Result<Tensor> {
    let wide = match tensor.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    tensor.detach().to_dtype(wide)?.contiguous()
}

/// [`widen`] to the compute type of another tensor, for weights beside their input.
pub(crate) fn widen_like(tensor: Option<&Tensor>, like: &Tensor) -> Result<Option<Tensor>> {
    tensor.map(|t| t.detach().to_dtype(like.dtype())?.contiguous()).transpose()
}

/// A computed value in the type `dtype` of the model.
pub(crate) fn narrow<T: WithDType>(data: Vec<T>, shape: &[usize], dtype: DType) -> Result<Output> {
    match dtype == T::DTYPE {
        true => Ok(Output::cpu(data, shape)),
        false => Ok(Output::Tensor(cpu_tensor(data, shape)?.to_dtype(dtype)?)),
    }
}

/// The numbers of a contiguous tensor on the CPU, under a lock.
pub(crate) fn numbers<T: WithDType>(tensor: &Tensor) -> Result<impl Deref<Target = [T]> + '_> {
    match tensor.layout().contiguous_offsets() {
        Some((start, end)) => numbers_in(tensor, start..end),
        None => bail!("the tensor is not contiguous: {:?}", tensor.layout()),
    }
}

/// The numbers of a tensor on the CPU from its first one on, for kernels that go by its strides.
pub(crate) fn numbers_from<T: WithDType>(tensor: &Tensor) -> Result<impl Deref<Target = [T]> + '_> {
    numbers_in(tensor, tensor.layout().start_offset()..usize::MAX)
}

fn numbers_in<T: WithDType>(tensor: &Tensor, range: Range<usize>) -> Result<impl Deref<Target = [T]> + '_> {
    let (storage, _) = tensor.storage_and_layout();
    let end = match &*storage {
        Storage::Cpu(cpu) => range.end.min(T::cpu_storage_as_slice(cpu)?.len()),
        _ => bail!("the tensor is not on the CPU"),
    };
    Ok(Numbers { storage, range: range.start..end, dtype: PhantomData })
}

struct Numbers<G, T> {
    storage: G,
    range: Range<usize>,
    dtype: PhantomData<T>,
}

impl<G: Deref<Target = Storage>, T: WithDType> Deref for Numbers<G, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &*self.storage {
            Storage::Cpu(cpu) => &T::cpu_storage_as_slice(cpu).expect("the type was checked")[self.range.clone()],
            _ => unreachable!("the device was checked"),
        }
    }
}

/// Runs `$body` with `$t` bound to the float type of a widened tensor.
macro_rules! with_float {
    ($tensor:expr, $t:ident => $body:expr) => {
        match $tensor.dtype() {
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            _ => {
                type $t = f32;
                $body
            }
        }
    };
}
pub(crate) use with_float;
