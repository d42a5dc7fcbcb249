//! Convolution of images. On the CPU all three products run at the rate of the matrix product; see [`crate::cpu::conv`].

mod device;

use candle_core::{Result, Tensor, bail};

use super::memory::{Memory, same_device};
use super::widen::{narrow, with_float};
use crate::cpu::conv::{self as kernel, Geometry, Image};
use crate::function::{function, trains};
use crate::kernels;

/// How a kernel moves over an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Step in pixels, in both directions.
    pub stride: usize,
    /// Zeros around the image: top, bottom, left, right.
    pub padding: [usize; 4],
}

impl Conv {
    /// Stride 1 and the same padding on all sides.
    pub const fn padded(padding: usize) -> Self {
        Self { stride: 1, padding: [padding; 4] }
    }

    /// This convolution at another stride.
    pub const fn strided(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Zeros below and to the right only, as the encoder of the latent-diffusion VAE pads before it halves an image.
    pub const fn padded_after(padding: usize) -> Self {
        Self { stride: 1, padding: [0, padding, 0, padding] }
    }
}

impl Default for Conv {
    /// Stride 1, no padding: the projection by a 1 x 1 kernel.
    fn default() -> Self {
        Self::padded(0)
    }
}

/// `x` is `B C H W`, `weight` `O C K K`, `bias` `O`; gives `B O H' W'` in x's type.
///
/// # Errors
/// If the shapes do not fit (groups are not supported: the weight must have all channels of x), the kernel is larger
/// than the padded image, a type is not a float, or the tensors are on different devices.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, conv: Conv) -> Result<Tensor> {
    let (batch, channels_in, height, width) = x.dims4()?;
    let (channels_out, weight_in, kh, kw) = weight.dims4()?;
    if channels_in != weight_in || bias.is_some_and(|b| b.dims() != [channels_out]) {
        let bias = bias.map(|b| b.dims());
        bail!(
            "conv2d: x {:?}, weight {:?} and bias {bias:?} do not fit B C H W, O C K K and O",
            x.dims(),
            weight.dims()
        )
    }
    let Conv { stride, padding } = conv;
    let g = Geometry { batch, channels_in, channels_out, input: [height, width], kernel: [kh, kw], stride, padding };
    let Some([oh, ow]) = g.output().filter(|_| kh > 0 && kw > 0) else {
        bail!("conv2d: a {kh} x {kw} kernel with {conv:?} does not fit an image of {height} x {width}")
    };
    let others: Vec<&Tensor> = std::iter::once(weight).chain(bias).collect();
    let on_cpu = same_device("conv2d", x, &others)?.is_cpu();

    let out = if on_cpu {
        let (flat, x) = (weight.detach().contiguous()?, x.detach());
        with_float!(x, T => {
            let bias = bias.map(Memory::vector::<T>).transpose()?;
            let y = kernel::forward::<T>(&g, image(&x, &Memory::of(&x)?)?, Memory::of(&flat)?.data(), bias.as_deref());
            narrow(y, &[batch, channels_out, oh, ow], x.dtype())?
        })
    } else {
        let y = device::forward(&g, &x.detach(), &weight.detach().to_dtype(x.dtype())?)?;
        match bias {
            None => y.into(),
            Some(bias) if kernels::add_bias(&y, bias, oh * ow)? => y.into(),
            Some(bias) => y.broadcast_add(&bias.detach().to_dtype(x.dtype())?.reshape((1, (), 1, 1))?)?.into(),
        }
    };
    let inputs: Vec<&Tensor> = std::iter::once(x).chain(others).collect();
    let bias_type = bias.filter(|b| trains(b)).map(Tensor::dtype);
    // x is needed for the weight's gradient only, the weight for x's.
    let kept_x = trains(weight).then(|| x.detach());
    let kept_weight = if trains(x) { Some(weight.detach().contiguous()?) } else { None };
    let (x_type, weight_type) = (x.dtype(), weight.dtype());
    function("conv2d", &inputs, out, move |dy| {
        let mut grads = [None, None, None];
        if on_cpu {
            let memory = Memory::of(dy)?;
            with_float!(dy, T => {
                if let Some(weight) = &kept_weight {
                    let dx = kernel::input_grad::<T>(&g, memory.data(), Memory::of(weight)?.data());
                    grads[0] = Some(narrow(dx, &[batch, channels_in, height, width], x_type)?.tensor()?);
                }
                if let Some(x) = &kept_x {
                    let dw = kernel::weight_grad::<T>(&g, image(x, &Memory::of(x)?)?, memory.data());
                    grads[1] = Some(narrow(dw, &[channels_out, channels_in, kh, kw], weight_type)?.tensor()?);
                }
                if let Some(dtype) = bias_type {
                    grads[2] = Some(narrow(kernel::bias_grad::<T>(&g, memory.data()), &[channels_out], dtype)?.tensor()?);
                }
            });
        } else {
            if let Some(weight) = &kept_weight {
                grads[0] = Some(device::input_grad(&g, dy, &weight.to_dtype(dy.dtype())?)?);
            }
            if let Some(x) = &kept_x {
                grads[1] = Some(device::weight_grad(&g, x, dy)?.to_dtype(weight_type)?);
            }
            if let Some(dtype) = bias_type {
                grads[2] = Some(dy.to_dtype(candle_core::DType::F32)?.sum((0, 2, 3))?.to_dtype(dtype)?);
            }
        }
        Ok(grads.into())
    })
}

fn image<'a>(x: &Tensor, memory: &'a Memory) -> Result<Image<'a>> {
    let &[b, c, h, w] = x.stride() else { bail!("an image has four dimensions, not {:?}", x.dims()) };
    Ok(Image { data: memory.data(), strides: [b, c, h, w] })
}
