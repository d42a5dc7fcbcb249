//! The KL-regularised convolutional autoencoder of latent diffusion (Rombach et al. 2022, section 3.1), with the layouts
//! of Stable Diffusion 1, 2 and XL and the key names of every age. It trains.

mod block;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::model::{Autoencoder, LoadOptions, Moments, Scaling};
use sconce_nn::ops::Conv;
use sconce_nn::weights::WeightFiles;
use sconce_nn::{Conv2d, GroupNorm, Scope, Store};
use serde::Deserialize;
use serde_json::Value;

use self::block::{Down, Middle, Up};
use crate::diffusers;

/// Epsilon of all norms; the format does not store it.
const EPS: f64 = 1e-6;

/// What `config.json` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Picture channels in.
    pub in_channels: usize,
    /// Picture channels out.
    pub out_channels: usize,
    /// Latent channels.
    pub latent_channels: usize,
    /// Channels of the levels, the finest first.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks of each level on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// The denoiser's latents are (z - shift) times this.
    pub scaling_factor: f64,
    /// See `scaling_factor`.
    pub shift_factor: f64,
    /// Whether f16 overflows.
    pub force_upcast: bool,
    /// Whether a 1 x 1 convolution follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a 1 x 1 convolution precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether the middle has an attention block.
    pub mid_block_add_attention: bool,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    act_fn: String,
    latents_mean: Option<Value>,
    latents_std: Option<Value>,
    sample_size: Option<Value>,
}

impl Default for Config {
    /// The values of fields left out.
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            block_out_channels: vec![64],
            layers_per_block: 1,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: 0.0,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            down_block_types: vec!["DownEncoderBlock2D".into()],
            up_block_types: vec!["UpDecoderBlock2D".into()],
            act_fn: "silu".into(),
            latents_mean: None,
            latents_std: None,
            sample_size: None,
        }
    }
}

impl Config {
    /// Reads `config.json` in an autoencoder's folder; refuses what would be another network.
    pub fn read(dir: &Path) -> Result<Self> {
        let config: Self = super::config(dir)?;
        let what = dir.join("config.json");
        let levels = config.block_out_channels.len();
        for (field, types, only) in [
            ("down_block_types", &config.down_block_types, "DownEncoderBlock2D"),
            ("up_block_types", &config.up_block_types, "UpDecoderBlock2D"),
        ] {
            if types.len() != levels || types.iter().any(|t| t != only) {
                bail!("{}: `{field}` is {types:?}, expected {levels} times {only}", what.display());
            }
        }
        if levels == 0 {
            bail!("{}: `block_out_channels` is empty", what.display());
        }
        if config.act_fn != "silu" {
            bail!("{}: `act_fn` is {:?}, only silu is supported", what.display(), config.act_fn);
        }
        if config.latents_mean.is_some() || config.latents_std.is_some() {
            bail!("{}: `latents_mean` and `latents_std` are not supported for this family", what.display());
        }
        Ok(config)
    }
}

/// The autoencoder.
pub struct AutoencoderKl {
    encoder: Encoder,
    decoder: Decoder,
    quant: Option<Conv2d>,
    post_quant: Option<Conv2d>,
    config: Config,
    scaling: Scaling,
    store: Arc<Store>,
}

impl AutoencoderKl {
    /// Loads the autoencoder in `dir`. It computes in the type that `options` asks for, but in f32 where that is f16 and
    /// the config says that f16 overflows.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let config = Config::read(dir)?;
        let dtype = super::compute_type(options.dtype, config.force_upcast);
        let store = diffusers::store(dir, options, dtype, published)?;
        let this = Self::new(&store, config)?;
        store.finish()?;
        Ok(this)
    }

    /// The autoencoder with the parameters of `store`.
    pub fn new(store: &Arc<Store>, config: Config) -> Result<Self> {
        let root = store.root();
        let project = |name: &str, channels: usize, is: bool| {
            is.then(|| Conv2d::new(&root.at(name), channels, channels, 1, Conv::default())).transpose()
        };
        Ok(Self {
            encoder: Encoder::new(&root.at("encoder"), &config)?,
            decoder: Decoder::new(&root.at("decoder"), &config)?,
            quant: project("quant_conv", 2 * config.latent_channels, config.use_quant_conv)?,
            post_quant: project("post_quant_conv", config.latent_channels, config.use_post_quant_conv)?,
            scaling: Scaling { factor: config.scaling_factor, shift: config.shift_factor },
            store: store.clone(),
            config,
        })
    }

    fn dtype(&self) -> DType {
        self.store.dtype()
    }
}

impl Autoencoder for AutoencoderKl {
    fn encode(&self, pictures: &Tensor) -> Result<Moments> {
        self.store.recall()?;
        let h = self.encoder.forward(pictures.to_dtype(self.dtype())?)?;
        let h = match &self.quant {
            Some(quant) => quant.forward(&h)?,
            None => h,
        };
        let h = h.to_dtype(pictures.dtype())?; // B 2Z h w
        let channels = self.config.latent_channels;
        let log_variance = h.narrow(1, channels, channels)?.clamp(-30.0, 20.0)?;
        Ok(Moments { mean: h.narrow(1, 0, channels)?.contiguous()?, log_variance: Some(log_variance) })
    }

    fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.store.recall()?;
        let z = latents.to_dtype(self.dtype())?;
        let z = match &self.post_quant {
            Some(post_quant) => post_quant.forward(&z)?,
            None => z,
        };
        self.decoder.forward(z)?.to_dtype(latents.dtype())
    }

    fn scaling(&self) -> Scaling {
        self.scaling
    }

    fn definition(&self) -> String {
        format!("{:?}", self.config)
    }

    fn factor(&self) -> usize {
        1 << (self.config.block_out_channels.len() - 1)
    }

    fn channels(&self) -> usize {
        self.config.latent_channels
    }

    /// The second half of the encoder's last convolution gives the log-variance: its bias becomes `value`, its weight a
    /// tenth.
    fn start_log_variance(&self, value: f64) -> Result<()> {
        let last = if self.quant.is_some() { "quant_conv" } else { "encoder.conv_out" };
        let channels = self.config.latent_channels;
        for param in self.store.params() {
            let old = param.tensor()?.detach();
            let mean = || old.narrow(0, 0, channels);
            let log_variance = match param.name().strip_prefix(last) {
                Some(".weight") => (old.narrow(0, channels, channels)? * 0.1)?,
                Some(".bias") => (mean()?.zeros_like()? + value)?,
                _ => continue,
            };
            param.set(&Tensor::cat(&[&mean()?, &log_variance], 0)?)?;
        }
        Ok(())
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// Weight files of any age: attention's projections had other names once, and were 1 x 1 convolutions before that.
pub(crate) fn published(files: WeightFiles) -> WeightFiles {
    let names = [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")];
    let files = files.rename(|key| {
        let renamed = key.rsplit_once(".attentions.0.").and_then(|(at, rest)| {
            let (name, value) = rest.split_once('.')?;
            let (_, new) = names.iter().find(|(old, _)| *old == name)?;
            Some(format!("{at}.attentions.0.{new}.{value}"))
        });
        Some(renamed.unwrap_or_else(|| key.to_owned()))
    });
    files.reshape(|key, shape| match shape {
        &[output, input, 1, 1] if key.contains(".attentions.0.to_") => Some(vec![output, input]),
        _ => None,
    })
}

struct Encoder {
    conv_in: Conv2d,
    downs: Vec<Down>,
    middle: Middle,
    norm: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn new(scope: &Scope, config: &Config) -> Result<Self> {
        let levels = &config.block_out_channels;
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let down = |i: usize| {
            let input = levels[i.saturating_sub(1)];
            Down::new(&scope.at("down_blocks").at(i), config, input, levels[i], i + 1 < levels.len())
        };
        Ok(Self {
            conv_in: Conv2d::new(&scope.at("conv_in"), config.in_channels, first, 3, Conv::padded(1))?,
            downs: (0..levels.len()).map(down).collect::<Result<_>>()?,
            middle: Middle::new(&scope.at("mid_block"), config, last)?,
            norm: GroupNorm::new(&scope.at("conv_norm_out"), config.norm_num_groups, last, EPS)?,
            conv_out: Conv2d::new(&scope.at("conv_out"), last, 2 * config.latent_channels, 3, Conv::padded(1))?,
        })
    }

    /// B 3 H W to B 2Z h w.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.downs.iter().try_fold(self.conv_in.forward(&x)?, |x, down| down.forward(x))?;
        self.conv_out.forward(&self.norm.forward_silu(&self.middle.forward(x)?)?)
    }
}

struct Decoder {
    conv_in: Conv2d,
    middle: Middle,
    ups: Vec<Up>,
    norm: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn new(scope: &Scope, config: &Config) -> Result<Self> {
        let levels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let up = |i: usize| {
            let input = levels[i.saturating_sub(1)];
            Up::new(&scope.at("up_blocks").at(i), config, input, levels[i], i + 1 < levels.len())
        };
        Ok(Self {
            conv_in: Conv2d::new(&scope.at("conv_in"), config.latent_channels, first, 3, Conv::padded(1))?,
            middle: Middle::new(&scope.at("mid_block"), config, first)?,
            ups: (0..levels.len()).map(up).collect::<Result<_>>()?,
            norm: GroupNorm::new(&scope.at("conv_norm_out"), config.norm_num_groups, last, EPS)?,
            conv_out: Conv2d::new(&scope.at("conv_out"), last, config.out_channels, 3, Conv::padded(1))?,
        })
    }

    /// B Z h w to B 3 H W.
    fn forward(&self, z: Tensor) -> Result<Tensor> {
        let x = self.middle.forward(self.conv_in.forward(&z)?)?;
        let x = self.ups.iter().try_fold(x, |x, up| up.forward(x))?;
        self.conv_out.forward(&self.norm.forward_silu(&x)?)
    }
}
