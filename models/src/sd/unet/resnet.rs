//! The convolutional half of the UNet: the residual block that the time enters by, and the change of resolution between
//! levels.

use candle_core::{D, Result, Tensor, bail};
use sconce_nn::ops::{Conv, upsample_nearest};
use sconce_nn::{Conv2d, GroupNorm, Linear, Scope};

use super::config::Common;

/// norm, SiLU, convolution, twice, with the time added between, around a skip connection (He et al. 2016; Ho et al.
/// 2020, appendix B).
#[derive(Clone)]
pub struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl Resnet {
    /// From `input` channels to `output`.
    pub fn new(scope: &Scope, input: usize, output: usize, time_width: usize, common: &Common) -> Result<Self> {
        let Common { groups, eps, .. } = *common;
        if input % groups != 0 {
            bail!("{}: {input} channels do not divide into {groups} groups", scope.path());
        }
        let same = Conv::padded(1);
        let shortcut = || Conv2d::new(&scope.at("conv_shortcut"), input, output, 1, Conv::default());
        Ok(Self {
            norm1: GroupNorm::new(&scope.at("norm1"), groups, input, eps)?,
            conv1: Conv2d::new(&scope.at("conv1"), input, output, 3, same)?,
            time_emb_proj: Linear::new(&scope.at("time_emb_proj"), time_width, output)?,
            norm2: GroupNorm::new(&scope.at("norm2"), groups, output, eps)?,
            conv2: Conv2d::new(&scope.at("conv2"), output, output, 3, same)?,
            conv_shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// `x`: B C H W; `time`: B T, after its SiLU.
    pub fn forward(&self, x: &Tensor, time: &Tensor) -> Result<Tensor> {
        let time = self.time_emb_proj.forward(time)?.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?; // B C 1 1
        let h = self.conv1.forward(&self.norm1.forward_silu(x)?)?.broadcast_add(&time)?;
        let h = self.conv2.forward(&self.norm2.forward_silu(&h)?)?;
        match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x)? + h,
            None => x + h,
        }
    }
}

/// Half the resolution, by a convolution of stride 2.
#[derive(Clone)]
pub struct Downsample {
    conv: Conv2d,
}

impl Downsample {
    /// Keeps `channels`; `padding` 0 stands for zeros below and to the right alone.
    pub fn new(scope: &Scope, channels: usize, padding: usize) -> Result<Self> {
        let around = if padding == 0 { Conv::padded_after(1) } else { Conv::padded(padding) };
        Ok(Self { conv: Conv2d::new(&scope.at("conv"), channels, channels, 3, around.strided(2))? })
    }

    /// B C H W to B C H/2 W/2, rounded up (with padding 0: down).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(x)
    }
}

/// The resolution of the level above, by repeating pixels and a convolution.
#[derive(Clone)]
pub struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    /// Keeps `channels`.
    pub fn new(scope: &Scope, channels: usize) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(&scope.at("conv"), channels, channels, 3, Conv::padded(1))? })
    }

    /// B C H W to B C `height` `width`: those of the skip connection that comes next, odd or even.
    pub fn forward(&self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        self.conv.forward(&upsample_nearest(x, height, width)?)
    }
}
