//! The levels of the UNet: on the way down each leaves what the level's counterpart on the way up joins to its own.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use sconce_core::model::Recompute;
use sconce_nn::Scope;

use super::config::{Common, Level};
use super::resnet::{Downsample, Resnet, Upsample};
use super::transformer::{Transformer, Widths};

/// What every block reads beside the feature map.
pub struct Inputs<'a> {
    /// B T, after its SiLU.
    pub time: &'a Tensor,
    /// B L D.
    pub context: &'a Tensor,
    /// What is kept for the backward pass.
    pub recompute: Recompute,
}

/// A resnet and the transformer after it, where there is one.
struct Stage {
    resnet: Arc<Resnet>,
    transformer: Option<Transformer>,
}

impl Stage {
    /// The `i`th of a block, from `input` channels, with `depth` transformer layers.
    fn new(scope: &Scope, i: usize, input: usize, depth: usize, level: &Level, shared: &Shared) -> Result<Self> {
        let resnet = scope.at("resnets").at(i);
        let resnet = Resnet::new(&resnet, input, level.channels, shared.time_width, shared.common)?;
        let transformer = || transformer(scope, i, depth, level, shared);
        Ok(Self { resnet: Arc::new(resnet), transformer: (depth > 0).then(transformer).transpose()? })
    }

    /// `parts`: feature maps B Ci H W, joined along the channels.
    fn forward(&self, parts: &[&Tensor], inputs: &Inputs) -> Result<Tensor> {
        let (resnet, count) = (self.resnet.clone(), parts.len());
        let all: Vec<&Tensor> = parts.iter().copied().chain([inputs.time]).collect();
        let h = inputs.recompute.run(&all, move |t| match count {
            1 => resnet.forward(&t[0], &t[1]),
            _ => resnet.forward(&Tensor::cat(&t[..count], 1)?, &t[count]),
        })?;
        match &self.transformer {
            Some(transformer) => transformer.forward(&h, inputs.context, inputs.recompute),
            None => Ok(h),
        }
    }
}

fn transformer(scope: &Scope, i: usize, depth: usize, level: &Level, shared: &Shared) -> Result<Transformer> {
    let widths = Widths { channels: level.channels, heads: level.heads, context: level.context };
    Transformer::new(&scope.at("attentions").at(i), widths, depth, shared.common)
}

/// What all blocks are built with.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// Width of the time embedding.
    pub time_width: usize,
    /// Norms and conventions.
    pub common: &'a Common,
}

/// A level on the way down.
pub struct Down {
    stages: Vec<Stage>,
    downsample: Option<Downsample>,
}

impl Down {
    /// From `input` channels.
    pub fn new(scope: &Scope, input: usize, level: &Level, shared: &Shared) -> Result<Self> {
        let stage = |(i, &depth)| {
            let input = if i == 0 { input } else { level.channels };
            Stage::new(scope, i, input, depth, level, shared)
        };
        let sampler = scope.at("downsamplers").at(0);
        let downsample = || Downsample::new(&sampler, level.channels, shared.common.downsample_padding);
        Ok(Self {
            stages: level.down.iter().enumerate().map(stage).collect::<Result<_>>()?,
            downsample: level.halves.then(downsample).transpose()?,
        })
    }

    /// `x`: B C H W. Adds what the way up needs to `skips`.
    pub fn forward(&self, x: &Tensor, inputs: &Inputs, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut x = x.clone();
        for stage in &self.stages {
            x = stage.forward(&[&x], inputs)?;
            skips.push(x.clone());
        }
        if let Some(downsample) = &self.downsample {
            x = downsample.forward(&x)?;
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// The middle, at the coarsest resolution.
pub struct Middle {
    first: Stage,
    last: Stage,
}

impl Middle {
    /// As wide as the coarsest level.
    pub fn new(scope: &Scope, level: &Level, shared: &Shared) -> Result<Self> {
        if level.middle == 0 {
            bail!("`transformer_layers_per_block` = 0 at the coarsest level is not supported: the middle attends");
        }
        Ok(Self {
            first: Stage::new(scope, 0, level.channels, level.middle, level, shared)?,
            last: Stage::new(scope, 1, level.channels, 0, level, shared)?,
        })
    }

    /// `x`: B C H W.
    pub fn forward(&self, x: &Tensor, inputs: &Inputs) -> Result<Tensor> {
        self.last.forward(&[&self.first.forward(&[x], inputs)?], inputs)
    }
}

/// A level on the way up.
pub struct Up {
    stages: Vec<Stage>,
    upsample: Option<Upsample>,
}

impl Up {
    /// From `input` channels, joined at each stage with the channels of `skips` (the last first).
    pub fn new(scope: &Scope, input: usize, skips: &mut Vec<usize>, level: &Level, shared: &Shared) -> Result<Self> {
        let stage = |(i, &depth)| {
            let input = if i == 0 { input } else { level.channels };
            let skip = skips.pop().expect("a level goes up by one stage more than down, and conv_in leaves one");
            Stage::new(scope, i, input + skip, depth, level, shared)
        };
        let upsample = || Upsample::new(&scope.at("upsamplers").at(0), level.channels);
        Ok(Self {
            stages: level.up.iter().enumerate().map(stage).collect::<Result<_>>()?,
            upsample: level.doubles.then(upsample).transpose()?,
        })
    }

    /// `x`: B C H W. Takes its skip connections off the end of `skips`.
    pub fn forward(&self, x: &Tensor, inputs: &Inputs, skips: &mut Vec<Tensor>) -> Result<Tensor> {
        let mut x = x.clone();
        for stage in &self.stages {
            let skip = skips.pop().expect("as many are left as are taken");
            x = stage.forward(&[&x, &skip], inputs)?;
        }
        match (&self.upsample, skips.last()) {
            (Some(upsample), Some(next)) => {
                let (_, _, height, width) = next.dims4()?;
                upsample.forward(&x, height, width)
            }
            _ => Ok(x),
        }
    }
}
