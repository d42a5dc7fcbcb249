//! The attentive half of the UNet: the picture's pixels as a sequence that attends to itself and to the text
//! (Rombach et al. 2022, section 3.3).

use std::sync::Arc;

use candle_core::{Result, Tensor};
use sconce_core::model::Recompute;
use sconce_nn::ops::attention::attention_heads;
use sconce_nn::ops::{self, Conv, Mask};
use sconce_nn::{Conv2d, GroupNorm, LayerNorm, Linear, Scope};

use super::config::Common;

/// Epsilon of the norm before the blocks, and of those in them: fixed in the format.
const GROUP_EPS: f64 = 1e-6;
const LAYER_EPS: f64 = 1e-5;

/// The widths of a transformer.
#[derive(Clone, Copy)]
pub struct Widths {
    /// Channels.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the text's context.
    pub context: usize,
}

/// Some blocks over the pixels of a feature map, around a skip connection.
pub struct Transformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<Arc<Block>>,
    proj_out: Projection,
}

impl Transformer {
    /// With `depth` blocks.
    pub fn new(scope: &Scope, widths: Widths, depth: usize, common: &Common) -> Result<Self> {
        let channels = widths.channels;
        let projection = |name| Projection::new(&scope.at(name), channels, common.linear_projection);
        let blocks = scope.at("transformer_blocks");
        Ok(Self {
            norm: GroupNorm::new(&scope.at("norm"), common.groups, channels, GROUP_EPS)?,
            proj_in: projection("proj_in")?,
            blocks: (0..depth)
                .map(|i| Block::new(&blocks.at(i).block(), widths).map(Arc::new))
                .collect::<Result<_>>()?,
            proj_out: projection("proj_out")?,
        })
    }

    /// `x`: B C H W; `context`: B L D.
    pub fn forward(&self, x: &Tensor, context: &Tensor, recompute: Recompute) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let mut h = self.proj_in.to_sequence(&self.norm.forward(x)?)?; // B HW C
        for block in &self.blocks {
            let block = block.clone();
            h = recompute.run(&[&h, context], move |t| block.forward(&t[0], &t[1]))?;
        }
        x + self.proj_out.to_map(&h, height, width)?
    }
}

/// Between feature maps and sequences: a linear layer on the sequence, or a 1 x 1 convolution on the map.
enum Projection {
    Linear(Linear),
    Conv(Conv2d),
}

impl Projection {
    fn new(scope: &Scope, channels: usize, linear: bool) -> Result<Self> {
        Ok(match linear {
            true => Self::Linear(Linear::new(scope, channels, channels)?),
            false => Self::Conv(Conv2d::new(scope, channels, channels, 1, Conv::default())?),
        })
    }

    /// B C H W to B HW C.
    fn to_sequence(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Linear(linear) => linear.forward(&sequence(x)?),
            Self::Conv(conv) => sequence(&conv.forward(x)?),
        }
    }

    /// B HW C to B C H W.
    fn to_map(&self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        match self {
            Self::Linear(linear) => map(&linear.forward(x)?, height, width),
            Self::Conv(conv) => conv.forward(&map(x, height, width)?),
        }
    }
}

fn sequence(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.transpose(1, 2)?.contiguous()
}

fn map(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (batch, _, channels) = x.dims3()?;
    x.transpose(1, 2)?.contiguous()?.reshape((batch, channels, height, width))
}

/// Self-attention, cross-attention and a gated feed-forward, each after a norm and around a skip connection.
struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl Block {
    fn new(scope: &Scope, Widths { channels, heads, context }: Widths) -> Result<Self> {
        let norm = |name| LayerNorm::new(&scope.at(name), channels, LAYER_EPS);
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::new(&scope.at("attn1"), channels, channels, heads)?,
            norm2: norm("norm2")?,
            attn2: Attention::new(&scope.at("attn2"), channels, context, heads)?,
            norm3: norm("norm3")?,
            ff: FeedForward::new(&scope.at("ff").at("net"), channels)?,
        })
    }

    /// `x`: B N C; `context`: B L D.
    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let x = (x + self.attn1.forward(&h, &h)?)?;
        let x = (&x + self.attn2.forward(&self.norm2.forward(&x)?, context)?)?;
        &x + self.ff.forward(&self.norm3.forward(&x)?)?
    }
}

struct Attention {
    heads: usize,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(scope: &Scope, channels: usize, context: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            heads,
            to_q: Linear::no_bias(&scope.at("to_q"), channels, channels)?,
            to_k: Linear::no_bias(&scope.at("to_k"), context, channels)?,
            to_v: Linear::no_bias(&scope.at("to_v"), context, channels)?,
            to_out: Linear::new(&scope.at("to_out").at(0), channels, channels)?,
        })
    }

    /// `x`: B N C asks; `context`: B L D answers.
    fn forward(&self, x: &Tensor, context: &Tensor) -> Result<Tensor> {
        let (q, k, v) = (self.to_q.forward(x)?, self.to_k.forward(context)?, self.to_v.forward(context)?);
        self.to_out.forward(&attention_heads(&q, &k, &v, self.heads, &Mask::None)?)
    }
}

/// To four times the width and back, through a GEGLU (Shazeer 2020).
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(scope: &Scope, channels: usize) -> Result<Self> {
        Ok(Self {
            proj: Linear::new(&scope.at(0).at("proj"), channels, 8 * channels)?,
            out: Linear::new(&scope.at(2), 4 * channels, channels)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&ops::geglu(&self.proj.forward(x)?)?)
    }
}
