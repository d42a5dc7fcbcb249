//! The blocks of the KL autoencoder. Each takes its input by value, so that a large decode holds no tensor longer than
//! the next operation needs it.

use candle_core::{Result, Tensor};
use sconce_nn::ops::attention::attention_heads;
use sconce_nn::ops::{Conv, Mask, upsample_nearest};
use sconce_nn::{Conv2d, GroupNorm, Linear, Scope};

use super::{Config, EPS};

/// `f(x)`, after which `x` is gone.
fn consumed(x: Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    f(&x)
}

/// Two convolutions with norms before them, around a skip.
pub struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl Resnet {
    fn new(scope: &Scope, config: &Config, input: usize, output: usize) -> Result<Self> {
        let norm = |name: &str, channels| GroupNorm::new(&scope.at(name), config.norm_num_groups, channels, EPS);
        let conv = |name: &str, channels| Conv2d::new(&scope.at(name), channels, output, 3, Conv::padded(1));
        let shortcut = || Conv2d::new(&scope.at("conv_shortcut"), input, output, 1, Conv::default());
        Ok(Self {
            norm1: norm("norm1", input)?,
            conv1: conv("conv1", input)?,
            norm2: norm("norm2", output)?,
            conv2: conv("conv2", output)?,
            shortcut: (input != output).then(shortcut).transpose()?,
        })
    }

    /// B C H W to B C' H W.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let h = self.conv1.forward(&self.norm1.forward_silu(&x)?)?;
        let x = match &self.shortcut {
            Some(shortcut) => consumed(x, |x| shortcut.forward(x))?,
            None => x,
        };
        let h = self.conv2.forward(&self.norm2.forward_silu(&h)?)?;
        x + h
    }

    fn run(resnets: &[Self], x: Tensor) -> Result<Tensor> {
        resnets.iter().try_fold(x, |x, resnet| resnet.forward(x))
    }

    /// `count` of them, named by number in `scope`, the first from `input` channels.
    fn chain(scope: &Scope, config: &Config, count: usize, input: usize, output: usize) -> Result<Vec<Self>> {
        (0..count).map(|i| Self::new(&scope.at(i), config, if i == 0 { input } else { output }, output)).collect()
    }
}

/// A level on the way down; all but the coarsest halve the picture.
pub struct Down {
    resnets: Vec<Resnet>,
    downsample: Option<Conv2d>,
}

impl Down {
    /// The level in `scope`.
    pub fn new(scope: &Scope, config: &Config, input: usize, output: usize, halves: bool) -> Result<Self> {
        let conv = Conv::padded_after(1).strided(2);
        let downsample = || Conv2d::new(&scope.at("downsamplers.0.conv"), output, output, 3, conv);
        Ok(Self {
            resnets: Resnet::chain(&scope.at("resnets"), config, config.layers_per_block, input, output)?,
            downsample: halves.then(downsample).transpose()?,
        })
    }

    /// B C H W to B C' H/2 W/2.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = Resnet::run(&self.resnets, x)?;
        match &self.downsample {
            Some(downsample) => downsample.forward(&x),
            None => Ok(x),
        }
    }
}

/// A level on the way up; all but the finest double the picture.
pub struct Up {
    resnets: Vec<Resnet>,
    upsample: Option<Conv2d>,
}

impl Up {
    /// The level in `scope`.
    pub fn new(scope: &Scope, config: &Config, input: usize, output: usize, doubles: bool) -> Result<Self> {
        let upsample = || Conv2d::new(&scope.at("upsamplers.0.conv"), output, output, 3, Conv::padded(1));
        Ok(Self {
            resnets: Resnet::chain(&scope.at("resnets"), config, config.layers_per_block + 1, input, output)?,
            upsample: doubles.then(upsample).transpose()?,
        })
    }

    /// B C H W to B C' 2H 2W.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = Resnet::run(&self.resnets, x)?;
        let Some(upsample) = &self.upsample else { return Ok(x) };
        let (_, _, height, width) = x.dims4()?;
        upsample.forward(&consumed(x, |x| upsample_nearest(x, 2 * height, 2 * width))?)
    }
}

/// The coarsest level's middle: two residual blocks, attention over all positions between them.
pub struct Middle {
    first: Resnet,
    attention: Option<Attention>,
    second: Resnet,
}

impl Middle {
    /// The middle in `scope`.
    pub fn new(scope: &Scope, config: &Config, channels: usize) -> Result<Self> {
        let resnet = |i: usize| Resnet::new(&scope.at("resnets").at(i), config, channels, channels);
        let attention = || Attention::new(&scope.at("attentions.0"), config, channels);
        Ok(Self {
            first: resnet(0)?,
            attention: config.mid_block_add_attention.then(attention).transpose()?,
            second: resnet(1)?,
        })
    }

    /// B C H W to the same.
    pub fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.first.forward(x)?;
        let x = match &self.attention {
            Some(attention) => attention.forward(x)?,
            None => x,
        };
        self.second.forward(x)
    }
}

/// Attention of one head over all positions, around a skip.
struct Attention {
    norm: GroupNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
}

impl Attention {
    fn new(scope: &Scope, config: &Config, channels: usize) -> Result<Self> {
        let linear = |name: &str| Linear::new(&scope.at(name), channels, channels);
        Ok(Self {
            norm: GroupNorm::new(&scope.at("group_norm"), config.norm_num_groups, channels, EPS)?,
            q: linear("to_q")?,
            k: linear("to_k")?,
            v: linear("to_v")?,
            out: linear("to_out.0")?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let h = self.norm.forward(&x)?.reshape((batch, channels, height * width))?;
        let h = h.transpose(1, 2)?.contiguous()?; // B HW C
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        let h = self.out.forward(&attention_heads(&q, &k, &v, 1, &Mask::None)?)?;
        x + h.transpose(1, 2)?.contiguous()?.reshape((batch, channels, height, width))?
    }
}
