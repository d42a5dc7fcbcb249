//! How an operation reaches the memory of a tensor on the CPU as it lies, in its own float type and with its own
//! strides: what a packing kernel can read needs neither a widened nor a contiguous copy.

use candle_core::{CpuStorage, DType, Device, Result, Storage, StorageRef, Tensor, bail};

use crate::cpu::gemm::{Data, Real};

/// A lock on the memory of a float tensor on the CPU.
pub(super) struct Memory<'a> {
    storage: StorageRef<'a>,
    start: usize,
}

impl<'a> Memory<'a> {
    pub(super) fn of(tensor: &'a Tensor) -> Result<Self> {
        if !matches!(tensor.dtype(), DType::F32 | DType::F64 | DType::BF16 | DType::F16) {
            bail!("an operation on floats was given a tensor of {:?}", tensor.dtype())
        }
        let (storage, layout) = tensor.storage_and_layout();
        match &*storage {
            Storage::Cpu(_) => Ok(Self { start: layout.start_offset(), storage }),
            _ => bail!("a CPU operation was given a tensor on {:?}", tensor.device().location()),
        }
    }

    /// The memory from the tensor's first element on.
    pub(super) fn data(&self) -> Data<'_> {
        let Storage::Cpu(cpu) = &*self.storage else { unreachable!("checked when the lock was taken") };
        let data: Data = match cpu {
            CpuStorage::F32(data) => data.into(),
            CpuStorage::F64(data) => data.into(),
            CpuStorage::BF16(data) => data.into(),
            CpuStorage::F16(data) => data.into(),
            _ => unreachable!("checked when the lock was taken"),
        };
        data.from(self.start)
    }

    /// All elements of a vector, in the compute type.
    pub(super) fn vector<T: Real>(tensor: &Tensor) -> Result<Vec<T>> {
        let mut out = vec![T::default(); tensor.dim(0)?];
        Memory::of(tensor)?.data().copy_to(0, tensor.stride()[0], &mut out);
        Ok(out)
    }
}

/// The offsets of the elements of a tensor of these dimensions and strides, row-major.
pub(super) fn offsets(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    dims.iter().zip(strides).fold(vec![0], |offsets, (&dim, &stride)| {
        offsets.iter().flat_map(|at| (0..dim).map(move |i| at + i * stride)).collect()
    })
}

/// Fails unless all `others` are where `x` is.
pub(super) fn same_device(name: &str, x: &Tensor, others: &[&Tensor]) -> Result<Device> {
    for other in others {
        if !x.device().same_device(other.device()) {
            bail!("{name}: the input is on {:?}, a weight on {:?}", x.device().location(), other.device().location())
        }
    }
    Ok(x.device().clone())
}
