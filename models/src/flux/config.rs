//! What the `config.json` of a `FluxTransformer2DModel` says.

use std::path::Path;

use candle_core::{Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::diffusers;
use crate::dit::{Attends, Guided, QkNorm};

/// Side of the latents' square that is one token: the pipeline's, not in the file.
pub const PATCH: usize = 2;

/// The fields as they stand in the file, with the values that the format gives those left out.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    patch_size: usize,
    in_channels: usize,
    out_channels: Option<usize>,
    num_layers: usize,
    num_single_layers: usize,
    attention_head_dim: usize,
    num_attention_heads: usize,
    joint_attention_dim: usize,
    pooled_projection_dim: usize,
    guidance_embeds: bool,
    axes_dims_rope: [usize; 3],
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            patch_size: 1,
            in_channels: 64,
            out_channels: None,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: false,
            axes_dims_rope: [16, 56, 56],
        }
    }
}

/// What a transformer is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Latent channels.
    pub channels: usize,
    /// Blocks with two streams.
    pub doubles: usize,
    /// Blocks with one.
    pub singles: usize,
    /// Heads and their width.
    pub attends: Attends,
    /// Width of the text's context.
    pub context: usize,
    /// Width of the pooled text.
    pub pooled: usize,
    /// Whether it was distilled to know its guidance.
    pub guided: Guided,
    /// How many of a head's numbers each axis turns.
    pub axes: [usize; 3],
}

impl Config {
    /// Reads `config.json` in a transformer's folder.
    pub fn read(dir: &Path) -> Result<Self> {
        diffusers::described(dir, Self::from_json)
    }

    /// Reads what is in such a file.
    pub fn from_json(json: Map<String, Value>) -> Result<Self> {
        diffusers::fields::<Fields>(json)?.check()
    }
}

impl Fields {
    fn check(self) -> Result<Config> {
        let attends = Attends { heads: self.num_attention_heads, head: self.attention_head_dim, qk_norm: QkNorm::Rms };
        let turned: usize = self.axes_dims_rope.iter().sum();
        if turned != attends.head || self.axes_dims_rope.iter().any(|axis| axis % 2 != 0) {
            let axes = self.axes_dims_rope;
            bail!("`axes_dims_rope` = {axes:?}: they must be even and make up a head's {} numbers", attends.head);
        }
        let square = PATCH * PATCH;
        if self.patch_size != 1 || self.in_channels % square != 0 || attends.width() == 0 {
            bail!("`patch_size` = {} with `in_channels` = {}: not supported", self.patch_size, self.in_channels);
        }
        if self.out_channels.is_some_and(|out| out != self.in_channels) {
            bail!(
                "`out_channels` is {:?} and `in_channels` {}: models that see another picture beside the noise are not supported",
                self.out_channels,
                self.in_channels
            );
        }
        Ok(Config {
            channels: self.in_channels / square,
            doubles: self.num_layers,
            singles: self.num_single_layers,
            attends,
            context: self.joint_attention_dim,
            pooled: self.pooled_projection_dim,
            guided: if self.guidance_embeds { Guided::ByNumber } else { Guided::No },
            axes: self.axes_dims_rope,
        })
    }
}
