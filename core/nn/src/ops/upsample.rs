//! Nearest-neighbour resizing to any size. A UNet upsamples to the size of its skip connection, which is not always
//! twice the input's.

use candle_core::{DType, Result, Tensor, bail};
use rayon::prelude::*;

use super::widen::{narrow, numbers, widen, with_float};
use crate::function::function;

/// `B C H W` to `B C height width`: pixel i of the output is pixel floor(i H / height) of the input, computed in f32 as
/// PyTorch's `nearest` does.
///
/// # Errors
/// If x is not `B C H W`, or a side is 0.
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if h * w * height * width == 0 {
        bail!("upsample_nearest: from {h} x {w} to {height} x {width}: a side is 0")
    }
    let (ys, xs) = (sources(h, height), sources(w, width));
    let dims = [b, c, height, width];
    if !x.device().is_cpu() {
        let index = |list: &[usize]| Tensor::from_iter(list.iter().map(|&i| i as u32), x.device());
        let (ys, xs) = (index(&ys)?, index(&xs)?);
        let out = x.detach().contiguous()?.index_select(&ys, 2)?.index_select(&xs, 3)?;
        return function("upsample_nearest", &[x], out, move |dy| {
            let columns = Tensor::zeros((b, c, height, w), DType::F32, dy.device())?;
            let columns = columns.index_add(&xs, &dy.to_dtype(DType::F32)?, 3)?;
            let dx = Tensor::zeros((b, c, h, w), DType::F32, dy.device())?.index_add(&ys, &columns, 2)?;
            Ok(vec![Some(dx.to_dtype(dy.dtype())?)])
        });
    }
    let wide = widen(x)?;
    let out = with_float!(wide, T => {
        let mut out = vec![T::default(); dims.iter().product()];
        out.par_chunks_mut(height * width).zip(numbers::<T>(&wide)?.par_chunks(h * w)).for_each(|(out, x)| {
            for (out, &y) in out.chunks_exact_mut(width).zip(&ys) {
                let row = &x[y * w..][..w];
                out.iter_mut().zip(&xs).for_each(|(out, &x)| *out = row[x]);
            }
        });
        narrow(out, &dims, x.dtype())?
    });
    function("upsample_nearest", &[x], out, move |dy| {
        let wide = widen(dy)?;
        let dx = with_float!(wide, T => {
            let mut dx = vec![T::default(); b * c * h * w];
            dx.par_chunks_mut(h * w).zip(numbers::<T>(&wide)?.par_chunks(height * width)).for_each(|(dx, dy)| {
                for (dy, &y) in dy.chunks_exact(width).zip(&ys) {
                    let row = &mut dx[y * w..][..w];
                    dy.iter().zip(&xs).for_each(|(&dy, &x)| row[x] += dy);
                }
            });
            narrow(dx, &[b, c, h, w], dy.dtype())?
        });
        Ok(vec![Some(dx.tensor()?)])
    })
}

/// The source of each of `to` pixels among `from`.
fn sources(from: usize, to: usize) -> Vec<usize> {
    let scale = from as f32 / to as f32;
    (0..to).map(|i| ((i as f32 * scale) as usize).min(from - 1)).collect()
}
