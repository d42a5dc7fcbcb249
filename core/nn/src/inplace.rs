//! Updates of a tensor's own memory, for optimizers and averages: candle's tensors are values, and writing a new one for
//! each update would cost a model's worth of memory and its traffic.

use std::cell::Cell;

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

/// Runs `f` over chunks of the memory of all `dst` (f32, contiguous, on the CPU, three different tensors) and the same
/// chunks of `src`: an optimizer's update of a weight and its state, in one pass.
pub fn zip3(dst: [&Tensor; 3], src: &Tensor, f: impl Fn([&mut [f32]; 3], &[f32]) + Sync) -> Result<()> {
    if let Some(dst) = dst.iter().find(|dst| dst.shape() != src.shape()) {
        bail!("in-place update: {:?} against {:?}", dst.shape(), src.shape());
    }
    let src = src.to_dtype(candle_core::DType::F32)?.contiguous()?;
    let (storage, layout) = src.storage_and_layout();
    let Storage::Cpu(cpu) = &*storage else { bail!("in-place updates of three run on the CPU alone") };
    let src = slice(cpu, layout)?;
    whole(dst[0], |a| {
        whole(dst[1], |b| {
            whole(dst[2], |c| {
                let dst = (a.par_chunks_mut(CHUNK), b.par_chunks_mut(CHUNK), c.par_chunks_mut(CHUNK));
                dst.into_par_iter().zip(src.par_chunks(CHUNK)).for_each(|((a, b, c), src)| f([a, b, c], src));
                Ok(())
            })
        })
    })
}

fn whole(dst: &Tensor, f: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
    dst.inplace_op1(&Whole(Cell::new(Some(f))))
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

struct Whole<F>(Cell<Option<F>>);

impl<F: FnOnce(&mut [f32]) -> Result<()>> InplaceOp1 for Whole<F> {
    fn name(&self) -> &'static str {
        "in-place whole"
    }
    fn cpu_fwd(&self, s: &mut CpuStorage, l: &Layout) -> Result<()> {
        let f = self.0.take().expect("candle runs an operation once");
        f(slice_mut(s, l)?)
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
        Ok(())
    }
}
