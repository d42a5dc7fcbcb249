//! What the `config.json` of an `SD3Transformer2DModel` says.

use std::collections::BTreeSet;
use std::path::Path;

use candle_core::{Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::diffusers;
use crate::dit::{Attends, QkNorm};

/// The fields as they stand in the file, with the values that the format gives those left out.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    sample_size: usize,
    patch_size: usize,
    in_channels: usize,
    num_layers: usize,
    attention_head_dim: usize,
    num_attention_heads: usize,
    joint_attention_dim: usize,
    caption_projection_dim: usize,
    pooled_projection_dim: usize,
    out_channels: Option<usize>,
    pos_embed_max_size: usize,
    dual_attention_layers: Vec<usize>,
    qk_norm: Option<String>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            out_channels: Some(16),
            pos_embed_max_size: 96,
            dual_attention_layers: Vec::new(),
            qk_norm: None,
        }
    }
}

/// What a transformer is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Latent channels.
    pub channels: usize,
    /// Side of the latents' square that is one token.
    pub patch: usize,
    /// Blocks.
    pub layers: usize,
    /// Heads, their width, and whether queries and keys are normed.
    pub attends: Attends,
    /// Width of the text's context.
    pub context: usize,
    /// Width of the pooled text.
    pub pooled: usize,
    /// Side of the table of places, in tokens.
    pub places: usize,
    /// Side of the pictures that the table was made for, in tokens.
    pub trained_places: usize,
    /// Blocks in which the picture also attends to itself alone.
    pub alone: BTreeSet<usize>,
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
        let qk_norm = match self.qk_norm.as_deref() {
            None => QkNorm::None,
            Some("rms_norm") => QkNorm::Rms,
            Some(other) => bail!("`qk_norm` = {other:?} is not supported, only \"rms_norm\" and null"),
        };
        let attends = Attends { heads: self.num_attention_heads, head: self.attention_head_dim, qk_norm };
        let width = attends.width();
        if width == 0 || width % 4 != 0 {
            bail!("{} heads of {} numbers: their width must be a multiple of 4", attends.heads, attends.head);
        }
        if self.caption_projection_dim != width {
            bail!("`caption_projection_dim` is {}, the text's stream is {width} wide", self.caption_projection_dim);
        }
        if self.out_channels.is_some_and(|out| out != self.in_channels) {
            bail!(
                "`out_channels` is {:?} and `in_channels` {}: they must be equal",
                self.out_channels,
                self.in_channels
            );
        }
        if self.patch_size == 0 || self.num_layers == 0 || self.pos_embed_max_size == 0 {
            bail!("`patch_size`, `num_layers` and `pos_embed_max_size` must be 1 or more");
        }
        if let Some(stray) = self.dual_attention_layers.iter().find(|&&i| i >= self.num_layers) {
            bail!("`dual_attention_layers` names block {stray}, there are {}", self.num_layers);
        }
        Ok(Config {
            channels: self.in_channels,
            patch: self.patch_size,
            layers: self.num_layers,
            attends,
            context: self.joint_attention_dim,
            pooled: self.pooled_projection_dim,
            places: self.pos_embed_max_size,
            trained_places: self.sample_size / self.patch_size,
            alone: self.dual_attention_layers.into_iter().collect(),
        })
    }
}
