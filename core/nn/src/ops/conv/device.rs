//! Convolution composed of candle's device operations, for devices that have no kernel of ours: candle's forward, and
//! gradients that use no more than its forward and its matrix product, because its own are naive kernels there. They
//! work on detached tensors, and on the CPU too, where the tests hold them against our kernels.

use candle_core::{Result, Tensor};

use crate::cpu::conv::Geometry;

/// B O H' W' from B C H W and O C K K.
pub(super) fn forward(g: &Geometry, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let [top, bottom, left, right] = g.padding;
    if [top, bottom, left, right] == [top; 4] {
        return x.contiguous()?.conv2d(&weight.contiguous()?, top, g.stride, 1, 1);
    }
    pad(x, g.padding)?.conv2d(&weight.contiguous()?, 0, g.stride, 1, 1)
}

/// B C H W from B O H' W' and O C K K: dy spread to the stride with zeros, convolved with the flipped kernel.
pub(super) fn input_grad(g: &Geometry, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, o, oh, ow) = dy.dims4()?;
    let s = g.stride;
    let spread = match s {
        1 => dy.clone(),
        _ => dy.reshape((b, o, oh, 1, ow, 1))?.pad_with_zeros(3, 0, s - 1)?.pad_with_zeros(5, 0, s - 1)?.reshape((
            b,
            o,
            oh * s,
            ow * s,
        ))?,
    };
    // Of the full correlation, start at the first row and column of x, and give it as many as x has.
    let axis = |x: &Tensor, dim: usize, kernel: usize, before: usize, size: usize| -> Result<Tensor> {
        let have = x.dim(dim)?;
        let (front, want) = (kernel - 1, size + before + kernel - 1);
        let x = x.pad_with_zeros(dim, front, want.saturating_sub(front + have))?;
        x.narrow(dim, before, size + kernel - 1)
    };
    let spread = axis(&spread, 2, g.kernel[0], g.padding[0], g.input[0])?;
    let spread = axis(&spread, 3, g.kernel[1], g.padding[2], g.input[1])?;
    let flipped = weight.contiguous()?.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?; // C O K K
    spread.contiguous()?.conv2d(&flipped, 0, 1, 1, 1)
}

/// O C K K from B C H W and B O H' W': one product a tap, of dy with the pixels under that tap.
pub(super) fn weight_grad(g: &Geometry, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let (b, o, oh, ow) = dy.dims4()?;
    let (c, s) = (g.channels_in, g.stride);
    let x = pad(x, g.padding)?;
    let dy = dy.transpose(0, 1)?.reshape((o, b * oh * ow))?; // O BP
    let mut taps = Vec::with_capacity(g.kernel[0] * g.kernel[1]);
    for ky in 0..g.kernel[0] {
        for kx in 0..g.kernel[1] {
            let x = every(&every(&x, 2, ky, s, oh)?, 3, kx, s, ow)?;
            let x = x.permute((0, 2, 3, 1))?.reshape((b * oh * ow, c))?; // BP C
            taps.push(dy.matmul(&x)?);
        }
    }
    Tensor::stack(&taps, 2)?.reshape((o, c, g.kernel[0], g.kernel[1]))
}

/// `count` slices along `dim`, from `start` on at `stride`.
fn every(x: &Tensor, dim: usize, start: usize, stride: usize, count: usize) -> Result<Tensor> {
    if stride == 1 {
        return x.narrow(dim, start, count);
    }
    let missing = (start + count * stride).saturating_sub(x.dim(dim)?);
    let x = x.pad_with_zeros(dim, 0, missing)?.narrow(dim, start, count * stride)?.contiguous()?;
    let mut dims = x.dims().to_vec();
    dims.splice(dim..=dim, [count, stride]);
    x.reshape(dims)?.narrow(dim + 1, 0, 1)?.squeeze(dim + 1)
}

fn pad(x: &Tensor, [top, bottom, left, right]: [usize; 4]) -> Result<Tensor> {
    x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?.contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::conv as kernel;
    use crate::gradcheck::pseudo_random;

    fn worst(tensor: &Tensor, kernel: Vec<f64>) -> f64 {
        let tensor = tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(tensor.len(), kernel.len());
        tensor.iter().zip(kernel).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn the_compositions_agree_with_the_kernels() -> Result<()> {
        for input in [[6, 7], [5, 8]] {
            for kernel in [[1, 1], [3, 3], [4, 2]] {
                for stride in [1, 2, 3] {
                    for padding in [[0; 4], [1; 4], [0, 1, 0, 1], [2, 0, 1, 3]] {
                        let g = Geometry { batch: 2, channels_in: 3, channels_out: 4, input, kernel, stride, padding };
                        let [oh, ow] = g.output().unwrap();
                        let x = pseudo_random(&[2, 3, input[0], input[1]], 1)?;
                        let weight = pseudo_random(&[4, 3, kernel[0], kernel[1]], 2)?;
                        let dy = pseudo_random(&[2, 4, oh, ow], 3)?;
                        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                        let (vx, vw, vy) = (values(&x), values(&weight), values(&dy));
                        let image = kernel::Image::new(&vx, 3, input);
                        let y = kernel::forward::<f64>(&g, image, (&vw).into(), None);
                        assert!(worst(&forward(&g, &x, &weight)?, y) < 1e-12, "{g:?}");
                        let dx = kernel::input_grad::<f64>(&g, (&vy).into(), (&vw).into());
                        assert!(worst(&input_grad(&g, &dy, &weight)?, dx) < 1e-12, "{g:?}");
                        let dw = kernel::weight_grad::<f64>(&g, image, (&vy).into());
                        assert!(worst(&weight_grad(&g, &x, &dy)?, dw) < 1e-12, "{g:?}");
                    }
                }
            }
        }
        Ok(())
    }
}
