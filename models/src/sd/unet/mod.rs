//! The denoiser of Stable Diffusion 1, 2 and XL: a UNet over latents with attention to text, as its `config.json`
//! describes it. Every parameter is called as in the weight file.

mod block;
pub mod config;
mod resnet;
mod transformer;

use std::path::Path;
use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor, bail};
use sconce_core::Cond;
use sconce_core::model::{Backbone, LoadOptions, Recompute, RecomputeCell};
use sconce_nn::ops::{self, Conv};
use sconce_nn::{Conv2d, GroupNorm, Store};
use sconce_sdk::Noise;

use self::block::{Down, Inputs, Middle, Shared, Up};
pub use self::config::Config;
use crate::diffusers;
use crate::embed::Mlp;

/// The UNet. Its conditions: `context` (B L D) and, in SDXL, `pooled` (B P) and `time_ids` (B 6).
pub struct UNet {
    store: Arc<Store>,
    config: Config,
    /// Steps of the discrete schedule that it was trained on.
    steps: usize,
    conv_in: Conv2d,
    time_embedding: Mlp,
    add_embedding: Option<Mlp>,
    down: Vec<Down>,
    middle: Middle,
    up: Vec<Up>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    recompute: RecomputeCell,
}

impl UNet {
    /// Loads a UNet's folder. `steps`: those of the schedule that it was trained on.
    pub fn load(dir: &Path, steps: usize, options: &LoadOptions) -> Result<Self> {
        let unet = Self::new(diffusers::denoiser(dir, options)?, Config::read(dir)?, steps)?;
        unet.store.finish()?;
        Ok(unet)
    }

    /// Builds the network that `config` describes on the parameters of `store`.
    pub fn new(store: Arc<Store>, config: Config, steps: usize) -> Result<Self> {
        let scope = store.root();
        let (levels, time_width) = (&config.levels, config.time_width);
        let shared = Shared { time_width, common: &config.common };
        let [finest, .., coarsest] = &levels[..] else { bail!("a UNet needs two levels or more") };
        let same = |kernel| Conv::padded(kernel / 2);
        let (kernel_in, kernel_out) = (config.conv_in_kernel, config.conv_out_kernel);

        let conv_in =
            Conv2d::new(&scope.at("conv_in"), config.in_channels, finest.channels, kernel_in, same(kernel_in))?;
        let time_embedding = Mlp::new(&scope.at("time_embedding"), finest.channels, time_width)?;
        let add_embedding =
            config.added.map(|a| Mlp::new(&scope.at("add_embedding"), a.input, time_width)).transpose()?;

        let (mut width, mut skips) = (finest.channels, vec![finest.channels]);
        let mut down = Vec::with_capacity(levels.len());
        for (i, level) in levels.iter().enumerate() {
            down.push(Down::new(&scope.at("down_blocks").at(i), width, level, &shared)?);
            skips.extend(vec![level.channels; level.down.len() + usize::from(level.halves)]);
            width = level.channels;
        }
        let middle = Middle::new(&scope.at("mid_block"), coarsest, &shared)?;
        let mut up = Vec::with_capacity(levels.len());
        for (i, level) in levels.iter().rev().enumerate() {
            up.push(Up::new(&scope.at("up_blocks").at(i), width, &mut skips, level, &shared)?);
            width = level.channels;
        }

        let conv_norm_out = GroupNorm::new(&scope.at("conv_norm_out"), config.common.groups, width, config.common.eps)?;
        let conv_out = Conv2d::new(&scope.at("conv_out"), width, config.out_channels, kernel_out, same(kernel_out))?;
        Ok(Self {
            store,
            config,
            steps,
            conv_in,
            time_embedding,
            add_embedding,
            down,
            middle,
            up,
            conv_norm_out,
            conv_out,
            recompute: RecomputeCell::default(),
        })
    }

    /// What it is made of.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The embedding of times and, in SDXL, of pooled text and geometry: B T, after the SiLU that every resnet begins
    /// with.
    fn embed(&self, time: &Tensor, cond: &Cond) -> Result<Tensor> {
        let (dtype, waves) = (self.dtype(), self.config.waves);
        let time = waves.of(time, self.config.levels[0].channels)?.to_dtype(dtype)?; // B C
        let mut embedded = self.time_embedding.forward(&time)?; // B T
        if let (Some(added), Some(mlp)) = (&self.config.added, &self.add_embedding) {
            let (pooled, ids) = (cond.get("pooled")?, cond.get("time_ids")?);
            let (batch, count) = ids.dims2()?;
            let ids = waves.of(&ids.flatten_all()?, added.wave_width)?.reshape((batch, count * added.wave_width))?;
            let all = Tensor::cat(&[&pooled.to_dtype(dtype)?, &ids.to_dtype(dtype)?], D::Minus1)?; // B P+6W
            if all.dim(1)? != added.input {
                bail!(
                    "the UNet takes {} added values (`projection_class_embeddings_input_dim`); the pooled text has {} \
                     and the {count} time ids {}",
                    added.input,
                    pooled.dim(1)?,
                    count * added.wave_width
                );
            }
            embedded = (embedded + mlp.forward(&all)?)?;
        }
        ops::silu(&embedded)
    }
}

impl Backbone for UNet {
    fn forward(&self, x: &Tensor, time: &Tensor, cond: &Cond) -> Result<Tensor> {
        self.store.recall()?;
        let context = cond.get("context")?.to_dtype(self.dtype())?; // B L D
        let time = self.embed(time, cond)?; // B T
        let inputs = Inputs { time: &time, context: &context, recompute: self.recompute.get() };

        let mut x = self.conv_in.forward(&x.to_dtype(self.dtype())?)?; // B C H W
        let mut skips = vec![x.clone()];
        for down in &self.down {
            x = down.forward(&x, &inputs, &mut skips)?;
        }
        x = self.middle.forward(&x, &inputs)?;
        for up in &self.up {
            x = up.forward(&x, &inputs, &mut skips)?;
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)
    }

    /// The index in the discrete schedule, of which t = (index + 1) / steps.
    fn time(&self, t: f64, _: &Noise) -> f64 {
        t * self.steps as f64 - 1.0
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn recompute(&self, what: Recompute) {
        self.recompute.set(what);
    }

    fn channels(&self) -> usize {
        self.config.in_channels
    }

    fn side_multiple(&self) -> usize {
        1
    }

    fn dtype(&self) -> DType {
        self.store.dtype()
    }
}
