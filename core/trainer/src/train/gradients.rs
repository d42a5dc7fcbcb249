//! The gradients of one update: added up over its batches, their norm, and the clip.

use candle_core::backprop::GradStore;
use candle_core::{DType, Result, Tensor};
use rayon::prelude::*;
use sconce_nn::kernels::sum_of_squares;

use crate::optimizer::Trained;

/// One gradient for each trained tensor, in their order; `None` where the loss does not depend on it.
pub struct Gradients(pub Vec<Option<Tensor>>);

impl Gradients {
    /// None yet.
    pub fn none(count: usize) -> Self {
        Self(vec![None; count])
    }

    /// Adds those of one batch.
    pub fn add(&mut self, mut store: GradStore, params: &[Trained]) -> Result<()> {
        for (sum, p) in self.0.iter_mut().zip(params) {
            let Some(grad) = store.remove(p.var.as_tensor()) else { continue };
            *sum = Some(match sum.take() {
                // In f32: the gradients of bf16 weights are bf16, and sums of them would round.
                Some(old) => (old.to_dtype(DType::F32)? + grad.to_dtype(DType::F32)?)?.detach(),
                None => grad.detach(),
            });
        }
        Ok(())
    }

    /// The Euclidean norm over all of them, in f64.
    pub fn norm(&self) -> Result<f64> {
        // On a GPU the sums are read together: each reading waits for all that is queued.
        let (here, there): (Vec<_>, Vec<_>) = self.0.iter().flatten().partition(|grad| grad.device().is_cpu());
        let mut squares = here.into_iter().map(square_sum).collect::<Result<Vec<f64>>>()?;
        if !there.is_empty() {
            let sums = there.into_iter().map(sum_of_squares);
            let sums = Tensor::stack(&sums.collect::<Result<Vec<_>>>()?, 0)?.to_vec1::<f32>()?;
            squares.extend(sums.into_iter().map(f64::from));
        }
        Ok(squares.iter().sum::<f64>().sqrt())
    }

    /// Scales all of them so that their norm is at most `limit` (zero: no limit). `norm` is their norm.
    pub fn clip(&mut self, norm: f64, limit: f64) -> Result<()> {
        if limit > 0.0 && norm > limit {
            for grad in self.0.iter_mut().flatten() {
                *grad = (&*grad * (limit / norm))?;
            }
        }
        Ok(())
    }
}

/// The sum of squares, in chunks of fixed size so that the result does not depend on the number of threads.
pub fn square_sum(grad: &Tensor) -> Result<f64> {
    if !grad.device().is_cpu() {
        return Ok(f64::from(sum_of_squares(grad)?.to_scalar::<f32>()?));
    }
    let flat = grad.to_dtype(DType::F32)?.contiguous()?.flatten_all()?;
    let (storage, layout) = flat.storage_and_layout();
    let candle_core::Storage::Cpu(candle_core::CpuStorage::F32(values)) = &*storage else {
        candle_core::bail!("a gradient is not f32 on the CPU")
    };
    let values = &values[layout.start_offset()..][..layout.shape().elem_count()];
    let chunks: Vec<f64> =
        values.par_chunks(1 << 15).map(|c| c.iter().map(|&g| f64::from(g) * f64::from(g)).sum()).collect();
    Ok(chunks.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn clipping_keeps_the_direction() -> Result<()> {
        let mut g = Gradients(vec![
            Some(Tensor::new(&[3f32, 0.0], &Device::Cpu)?),
            None,
            Some(Tensor::new(4f32, &Device::Cpu)?),
        ]);
        let norm = g.norm()?;
        assert!((norm - 5.0).abs() < 1e-9);
        g.clip(norm, 1.0)?;
        assert!((g.norm()? - 1.0).abs() < 1e-6);
        g.clip(1.0, 0.0)?;
        assert!((g.norm()? - 1.0).abs() < 1e-6);
        Ok(())
    }
}
