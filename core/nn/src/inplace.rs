//! Updates of a tensor's own memory, for optimizers and averages: candle's tensors are values, and writing a new one for
//! each update would cost a model's worth of memory and its traffic.

use std::cell::Cell;
use std::marker::PhantomData;

use candle_core::{CpuStorage, CudaStorage, InplaceOp1, InplaceOp2, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

/// Elements that one task works on.
const CHUNK: usize = 1 << 14;

/// Runs `f` over chunks of the memory of `dst` (f32, contiguous, on the CPU) and the same chunks of `src`.
pub fn zip(dst: &Tensor, src: &Tensor, f: impl Fn(&mut [f32], &[f32]) + Sync) -> Result<()> {
    if dst.shape() != src.shape() {
        bail!("in-place update: {:?} against {:?}", dst.shape(), src.shape());
    }
    let src = src.to_dtype(candle_core::DType::F32)?.contiguous()?;
    dst.inplace_op2(&src, &Zip(f))
}

/// Runs `f` over chunks of the memory of all `dst` (f32, contiguous, on the CPU, different tensors of one shape) and the
/// same chunks of `src`: an optimizer's update of a weight and its state, in one pass. Gives what `f` returns, in the
/// order of the chunks, which do not depend on the number of threads.
pub fn chunks<const N: usize, R: Send>(
    dst: [&Tensor; N],
    src: &Tensor,
    f: impl Fn([&mut [f32]; N], &[f32]) -> R + Sync,
) -> Result<Vec<R>> {
    if let Some(dst) = dst.iter().find(|dst| dst.shape() != src.shape()) {
        bail!("in-place update: {:?} against {:?}", dst.shape(), src.shape());
    }
    whole(dst, src, |dst, src| {
        let mut dst = dst.map(|memory| memory.chunks_mut(CHUNK));
        let next = |src| (dst.each_mut().map(|chunks| chunks.next().expect("of the length of src")), src);
        let parts: Vec<_> = src.chunks(CHUNK).map(next).collect();
        parts.into_par_iter().map(|(dst, src)| f(dst, src)).collect()
    })
}

/// Runs `f` on the whole memory of all `dst` (f32, contiguous, on the CPU, different tensors) and of `src`, whatever
/// their shapes.
pub fn whole<const N: usize, R>(
    dst: [&Tensor; N],
    src: &Tensor,
    f: impl FnOnce([&mut [f32]; N], &[f32]) -> R,
) -> Result<R> {
    let src = src.to_dtype(candle_core::DType::F32)?.contiguous()?;
    let (storage, layout) = src.storage_and_layout();
    let Storage::Cpu(cpu) = &*storage else { bail!("updates of memory run on the CPU alone") };
    let src = slice(cpu, layout)?;
    nested(&dst, Vec::with_capacity(N), |memory| f(memory.try_into().expect("as many as there are tensors"), src))
}

/// Opens the memory of `rest`, one inside the other, beside what is open already.
fn nested<R>(rest: &[&Tensor], open: Vec<&mut [f32]>, f: impl FnOnce(Vec<&mut [f32]>) -> R) -> Result<R> {
    fn go(rest: &[&Tensor], open: Vec<&mut [f32]>, f: &mut dyn FnMut(Vec<&mut [f32]>)) -> Result<()> {
        match rest {
            [] => Ok(f(open)),
            [first, rest @ ..] => memory(first, |slice: &mut [f32]| {
                let mut open = open;
                open.push(slice);
                go(rest, open, f)
            })?,
        }
    }
    let (mut f, mut result) = (Some(f), None);
    go(rest, open, &mut |open| result = f.take().map(|f| f(open)))?;
    Ok(result.expect("the innermost call ran"))
}

/// What tensors hold whose memory can be written in place.
pub trait Element: Sized {
    /// The memory, if it holds this type.
    fn of(storage: &mut CpuStorage) -> Option<&mut [Self]>;
}

impl Element for f32 {
    fn of(storage: &mut CpuStorage) -> Option<&mut [f32]> {
        if let CpuStorage::F32(memory) = storage { Some(memory) } else { None }
    }
}

impl Element for u8 {
    fn of(storage: &mut CpuStorage) -> Option<&mut [u8]> {
        if let CpuStorage::U8(memory) = storage { Some(memory) } else { None }
    }
}

/// Runs `f` on the memory of `tensor`, contiguous and on the CPU. `f` must not touch the tensor itself.
pub fn memory<T: Element, R>(tensor: &Tensor, f: impl FnOnce(&mut [T]) -> R) -> Result<R> {
    let result = Cell::new(None);
    let run = |memory: &mut [T]| result.set(Some(f(memory)));
    tensor.inplace_op1(&Whole(Cell::new(Some(run)), PhantomData::<T>))?;
    Ok(result.into_inner().expect("candle runs an operation"))
}

/// `dst <- dst + weight (src - dst)`, on any device.
pub fn lerp(dst: &candle_core::Var, src: &Tensor, weight: f64) -> Result<()> {
    if dst.device().is_cpu() {
        let w = weight as f32;
        return zip(dst, src, |d, s| d.iter_mut().zip(s).for_each(|(d, s)| *d += w * (s - *d)));
    }
    dst.set(&(dst.as_tensor().detach() + ((src.detach() - dst.as_tensor().detach())? * weight)?)?)
}

fn slice<'a>(s: &'a CpuStorage, l: &Layout) -> Result<&'a [f32]> {
    match (s, l.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((a, b))) => Ok(&v[a..b]),
        _ => bail!("in-place updates need contiguous f32"),
    }
}

fn slice_mut<'a>(s: &'a mut CpuStorage, l: &Layout) -> Result<&'a mut [f32]> {
    match (s, l.contiguous_offsets()) {
        (CpuStorage::F32(v), Some((a, b))) => Ok(&mut v[a..b]),
        _ => bail!("in-place updates need contiguous f32"),
    }
}

struct Zip<F>(F);

impl<F: Fn(&mut [f32], &[f32]) + Sync> InplaceOp2 for Zip<F> {
    fn name(&self) -> &'static str {
        "in-place zip"
    }
    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        let (dst, src) = (slice_mut(s1, l1)?, slice(s2, l2)?);
        dst.par_chunks_mut(CHUNK).zip(src.par_chunks(CHUNK)).for_each(|(d, s)| (self.0)(d, s));
        Ok(())
    }
    fn cuda_fwd(&self, _: &mut CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<()> {
        bail!("in-place zip runs on the CPU alone")
    }
}

struct Whole<F, T>(Cell<Option<F>>, PhantomData<T>);

impl<T: Element, F: FnOnce(&mut [T])> InplaceOp1 for Whole<F, T> {
    fn name(&self) -> &'static str {
        "in-place whole"
    }
    fn cpu_fwd(&self, s: &mut CpuStorage, l: &Layout) -> Result<()> {
        let f = self.0.take().expect("candle runs an operation once");
        match (T::of(s), l.contiguous_offsets()) {
            (Some(memory), Some((start, end))) => Ok(f(&mut memory[start..end])),
            _ => bail!("in-place updates need contiguous memory of their type"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    #[test]
    fn lerp_moves_by_its_weight_and_in_place() -> Result<()> {
        let average = Var::zeros((3, 5), DType::F32, &Device::Cpu)?;
        let seen_before = average.as_tensor().clone();
        lerp(&average, &Tensor::full(4f32, (3, 5), &Device::Cpu)?, 0.25)?;
        assert_eq!(seen_before.to_vec2::<f32>()?, vec![vec![1.0; 5]; 3]);
        Ok(())
    }

    #[test]
    fn shapes_must_agree() -> Result<()> {
        let a = Tensor::zeros(3, DType::F32, &Device::Cpu)?;
        assert!(zip(&a, &Tensor::zeros(4, DType::F32, &Device::Cpu)?, |_, _| ()).is_err());
        assert!(chunks([&a], &Tensor::zeros(4, DType::F32, &Device::Cpu)?, |_, _| ()).is_err());
        Ok(())
    }

    #[test]
    fn several_tensors_are_written_in_one_pass_and_chunks_keep_their_order() -> Result<()> {
        let count = 2 * CHUNK + 5;
        let zeros = || Tensor::zeros(count, DType::F32, &Device::Cpu);
        let (a, b, src) = (zeros()?, zeros()?, Tensor::arange(0f32, count as f32, &Device::Cpu)?);
        let firsts = chunks([&a, &b], &src, |[a, b], src| {
            a.copy_from_slice(src);
            b.fill(src[0]);
            src[0]
        })?;
        assert_eq!(firsts, [0.0, CHUNK as f32, 2.0 * CHUNK as f32]);
        assert_eq!(a.to_vec1::<f32>()?, src.to_vec1::<f32>()?);
        assert_eq!(b.to_vec1::<f32>()?[count - 1], 2.0 * CHUNK as f32);
        Ok(())
    }

    #[test]
    fn memory_is_of_one_type() -> Result<()> {
        let bytes = Tensor::zeros(3, DType::U8, &Device::Cpu)?;
        memory(&bytes, |m: &mut [u8]| m[1] = 7)?;
        assert_eq!(bytes.to_vec1::<u8>()?, [0, 7, 0]);
        assert!(memory(&bytes, |_: &mut [f32]| ()).is_err());
        Ok(())
    }
}
