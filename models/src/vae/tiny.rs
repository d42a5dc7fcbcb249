//! The tiny distilled autoencoder (TAESD): a plain stack of convolutions that decodes a preview in a hundredth of the
//! time. Read from a diffusers folder, or from the two bare files that its author publishes, whose layout is told by
//! their keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_core::model::{Autoencoder, LoadOptions, Moments, Scaling};
use sconce_nn::ops::{Conv, upsample_nearest};
use sconce_nn::store::Source;
use sconce_nn::weights::WeightFiles;
use sconce_nn::{Conv2d, GroupNorm, Scope, Store};
use serde::Deserialize;

use crate::diffusers;

const ENCODER: &str = "_encoder.safetensors";
const DECODER: &str = "_decoder.safetensors";

/// What `config.json` says.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    in_channels: usize,
    out_channels: usize,
    latent_channels: usize,
    encoder_block_out_channels: Vec<usize>,
    decoder_block_out_channels: Vec<usize>,
    num_encoder_blocks: Vec<usize>,
    num_decoder_blocks: Vec<usize>,
    act_fn: String,
    upsample_fn: String,
    upsampling_scaling_factor: usize,
    scaling_factor: f64,
    shift_factor: f64,
    force_upcast: bool,
    /// These two map latents to bytes for storage, which nothing here does.
    #[allow(dead_code)]
    latent_magnitude: f64,
    #[allow(dead_code)]
    latent_shift: f64,
    /// The decoder's, once more.
    #[allow(dead_code)]
    block_out_channels: Vec<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            act_fn: "relu".into(),
            upsample_fn: "nearest".into(),
            upsampling_scaling_factor: 2,
            scaling_factor: 1.0,
            shift_factor: 0.0,
            force_upcast: false,
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            block_out_channels: Vec::new(),
        }
    }
}

/// Channels and stages of both halves.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    picture: [usize; 2],
    latent: usize,
    encoder: Vec<Stage>,
    decoder: Vec<Stage>,
}

/// The blocks between two changes of size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    channels: usize,
    blocks: usize,
    pool: Pool,
}

/// Whether a stage's blocks normalise over the picture first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Without,
    With,
}

impl Config {
    fn layout(self, file: &Path) -> Result<Layout> {
        let what = file.display();
        if self.act_fn != "relu" || self.upsample_fn != "nearest" || self.upsampling_scaling_factor != 2 {
            bail!("{what}: only `act_fn` relu, `upsample_fn` nearest and `upsampling_scaling_factor` 2 are supported");
        }
        let stages = |channels: &[usize], blocks: &[usize]| -> Result<Vec<Stage>> {
            if channels.is_empty() || channels.len() != blocks.len() {
                bail!("{what}: {} stages with channels, {} with blocks", channels.len(), blocks.len());
            }
            let stage = |(&channels, &blocks)| Stage { channels, blocks, pool: Pool::Without };
            Ok(channels.iter().zip(blocks).map(stage).collect())
        };
        let layout = Layout {
            picture: [self.in_channels, self.out_channels],
            latent: self.latent_channels,
            encoder: stages(&self.encoder_block_out_channels, &self.num_encoder_blocks)?,
            decoder: stages(&self.decoder_block_out_channels, &self.num_decoder_blocks)?,
        };
        if layout.encoder.len() != layout.decoder.len() {
            bail!("{what}: encoder and decoder have {} and {} stages", layout.encoder.len(), layout.decoder.len());
        }
        Ok(layout)
    }
}

/// The autoencoder. Its encoder is deterministic.
pub struct AutoencoderTiny {
    encoder: Vec<Layer>,
    decoder: Vec<Layer>,
    layout: Layout,
    scaling: Scaling,
    store: Arc<Store>,
}

impl AutoencoderTiny {
    /// Loads a diffusers folder.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let config: Config = super::config(dir)?;
        let scaling = Scaling { factor: config.scaling_factor, shift: config.shift_factor };
        let dtype = super::compute_type(options.dtype, config.force_upcast);
        let layout = config.layout(&dir.join("config.json"))?;
        Self::new(&diffusers::store(dir, options, dtype, |files| files)?, layout, scaling)
    }

    /// The parameters of a diffusers folder without their values.
    pub fn shapes(dir: &Path) -> Result<Arc<Store>> {
        let config: Config = super::config(dir)?;
        let layout = config.layout(&dir.join("config.json"))?;
        let store = Store::new(diffusers::component(dir)?, Source::Shapes, DType::F32, &Device::Cpu);
        Self::new(&store, layout, Scaling { factor: 1.0, shift: 0.0 })?;
        Ok(store)
    }

    /// Loads two bare files, whose keys are the positions in each half.
    pub fn load_bare(encoder: &Path, decoder: &Path, options: &LoadOptions) -> Result<Self> {
        if options.random.is_some() {
            bail!("{}: bare weight files state no layout to initialise", encoder.display());
        }
        let named = |half: &'static str, shift: usize| {
            move |key: &str| {
                let (index, rest) = key.split_once('.')?;
                Some(format!("{half}.layers.{}.{rest}", index.parse::<usize>().ok()?.checked_sub(shift)?))
            }
        };
        // The bare decoder begins with the clamp, which diffusers does not count.
        let files = WeightFiles::open(&[encoder])?.rename(named("encoder", 0));
        let files = files.merge(WeightFiles::open(&[decoder])?.rename(named("decoder", 1)))?;
        let layout = Layout::of_keys(&files)?;
        let store = Store::new("vae", Source::Files(files), options.dtype, &options.device);
        Self::new(&store, layout, Scaling { factor: 1.0, shift: 0.0 })
    }

    fn new(store: &Arc<Store>, layout: Layout, scaling: Scaling) -> Result<Self> {
        let root = store.root();
        let this = Self {
            encoder: encoder(&root.at("encoder").at("layers"), &layout)?,
            decoder: decoder(&root.at("decoder").at("layers"), &layout)?,
            layout,
            scaling,
            store: store.clone(),
        };
        store.finish()?;
        Ok(this)
    }
}

/// The two bare files in a folder.
pub(super) fn bare_files(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let names = diffusers::file_names(dir)?;
    let mut stems = names.iter().filter_map(|name| name.strip_suffix(ENCODER));
    match (stems.next(), stems.next()) {
        (Some(stem), None) if names.contains(&format!("{stem}{DECODER}")) => {
            Ok((dir.join(format!("{stem}{ENCODER}")), dir.join(format!("{stem}{DECODER}"))))
        }
        _ => bail!("{}: no autoencoder: expected config.json, or one *{ENCODER} and one *{DECODER}", dir.display()),
    }
}

impl Layout {
    fn of_keys(files: &WeightFiles) -> Result<Self> {
        let (encoder, decoder) = (Half::of_keys(files, "encoder")?, Half::of_keys(files, "decoder")?);
        if encoder.stages.len() != decoder.stages.len() || encoder.output != decoder.input {
            bail!("{:?} are not the two halves of one autoencoder", files.paths());
        }
        Ok(Self {
            picture: [encoder.input, decoder.output],
            latent: encoder.output,
            encoder: encoder.stages,
            decoder: decoder.stages,
        })
    }
}

struct Half {
    input: usize,
    output: usize,
    stages: Vec<Stage>,
}

impl Half {
    /// A convolution opens a stage, and the last one closes the stack.
    fn of_keys(files: &WeightFiles, half: &str) -> Result<Self> {
        let shape = |i: usize, rest: &str| files.info(&format!("{half}.layers.{i}.{rest}")).map(|(shape, _)| shape);
        let (mut stages, mut ends) = (Vec::<Stage>::new(), Vec::new());
        let index = |key: &str| key.strip_prefix(half)?.strip_prefix(".layers.")?.split('.').next()?.parse().ok();
        let last: usize = files.keys().filter_map(index).max().unwrap_or(0);
        for i in 0..=last {
            if let (Some(&[output, input, ..]), _) | (None, Some(&[output, input, ..])) =
                (shape(i, "weight"), shape(i, "conv.0.weight"))
            {
                if shape(i, "conv.0.weight").is_none() {
                    ends.push((input, output));
                    stages.push(Stage { channels: output, blocks: 0, pool: Pool::Without });
                } else if let Some(stage) = stages.last_mut() {
                    stage.blocks += 1;
                    stage.pool = if shape(i, "pool.0.weight").is_some() { Pool::With } else { Pool::Without };
                }
            }
        }
        stages.pop(); // opened by the last convolution
        match (ends.first(), ends.last()) {
            (Some(&(input, _)), Some(&(_, output))) if !stages.is_empty() => Ok(Self { input, output, stages }),
            _ => bail!("{:?}: no layers of a tiny autoencoder", files.paths()),
        }
    }
}

enum Layer {
    Conv(Conv2d),
    Block(Block),
    Relu,
    Double,
}

fn encoder(scope: &Scope, layout: &Layout) -> Result<Vec<Layer>> {
    let mut layers = Vec::new();
    for (i, stage) in layout.encoder.iter().enumerate() {
        let (at, channels) = (scope.at(layers.len()), stage.channels);
        layers.push(Layer::Conv(match i {
            0 => Conv2d::new(&at, layout.picture[0], channels, 3, Conv::padded(1))?,
            _ => Conv2d::no_bias(&at, channels, channels, 3, Conv::padded(1).strided(2))?,
        }));
        stage.blocks(scope, &mut layers)?;
    }
    let channels = layout.encoder.last().map_or(0, |stage| stage.channels);
    layers.push(Layer::Conv(Conv2d::new(&scope.at(layers.len()), channels, layout.latent, 3, Conv::padded(1))?));
    Ok(layers)
}

fn decoder(scope: &Scope, layout: &Layout) -> Result<Vec<Layer>> {
    let first = layout.decoder.first().map_or(0, |stage| stage.channels);
    let conv_in = Conv2d::new(&scope.at(0), layout.latent, first, 3, Conv::padded(1))?;
    let mut layers = vec![Layer::Conv(conv_in), Layer::Relu];
    for (i, stage) in layout.decoder.iter().enumerate() {
        let channels = stage.channels;
        stage.blocks(scope, &mut layers)?;
        if i + 1 == layout.decoder.len() {
            let at = scope.at(layers.len());
            layers.push(Layer::Conv(Conv2d::new(&at, channels, layout.picture[1], 3, Conv::padded(1))?));
        } else {
            layers.push(Layer::Double);
            let at = scope.at(layers.len());
            layers.push(Layer::Conv(Conv2d::no_bias(&at, channels, channels, 3, Conv::padded(1))?));
        }
    }
    Ok(layers)
}

impl Stage {
    fn blocks(&self, scope: &Scope, layers: &mut Vec<Layer>) -> Result<()> {
        for _ in 0..self.blocks {
            layers.push(Layer::Block(Block::new(&scope.at(layers.len()), self.channels, self.pool)?));
        }
        Ok(())
    }
}

/// Three convolutions around a skip.
struct Block {
    convs: [Conv2d; 3],
    pool: Option<(Conv2d, GroupNorm, Conv2d)>,
}

impl Block {
    fn new(scope: &Scope, channels: usize, pool: Pool) -> Result<Self> {
        let conv = |i: usize| Conv2d::new(&scope.at("conv").at(i), channels, channels, 3, Conv::padded(1));
        let (at, wide) = (scope.at("pool"), 4 * channels);
        let pool = match pool {
            Pool::Without => None,
            Pool::With => Some((
                Conv2d::no_bias(&at.at(0), channels, wide, 1, Conv::default())?,
                GroupNorm::new(&at.at(1), 4, wide, 1e-5)?,
                Conv2d::no_bias(&at.at(3), wide, channels, 1, Conv::default())?,
            )),
        };
        Ok(Self { convs: [conv(0)?, conv(2)?, conv(4)?], pool })
    }

    /// B C H W to the same.
    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = match &self.pool {
            Some((widen, norm, narrow)) => {
                let pooled = narrow.forward(&norm.forward(&widen.forward(&x)?)?.relu()?)?;
                (x + pooled)?
            }
            None => x,
        };
        let [a, b, c] = &self.convs;
        (c.forward(&b.forward(&a.forward(&x)?.relu()?)?.relu()?)? + x)?.relu()
    }
}

fn run(layers: &[Layer], x: Tensor) -> Result<Tensor> {
    layers.iter().try_fold(x, |x, layer| match layer {
        Layer::Conv(conv) => conv.forward(&x),
        Layer::Block(block) => block.forward(x),
        Layer::Relu => x.relu(),
        Layer::Double => {
            let (_, _, height, width) = x.dims4()?;
            upsample_nearest(&x, 2 * height, 2 * width)
        }
    })
}

impl Autoencoder for AutoencoderTiny {
    fn encode(&self, pictures: &Tensor) -> Result<Moments> {
        self.store.recall()?;
        let x = pictures.to_dtype(self.store.dtype())?.affine(0.5, 0.5)?; // [0, 1]
        Ok(Moments { mean: run(&self.encoder, x)?.to_dtype(pictures.dtype())?, log_variance: None })
    }

    fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.store.recall()?;
        // Latents beyond three are squeezed: the decoder never saw them.
        let z = ((latents.to_dtype(self.store.dtype())? / 3.0)?.tanh()? * 3.0)?;
        run(&self.decoder, z)?.affine(2.0, -1.0)?.to_dtype(latents.dtype())
    }

    fn scaling(&self) -> Scaling {
        self.scaling
    }

    fn definition(&self) -> String {
        format!("{:?}", self.layout)
    }

    fn factor(&self) -> usize {
        1 << (self.layout.encoder.len() - 1)
    }

    fn channels(&self) -> usize {
        self.layout.latent
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }
}
