//! Training the autoencoder: pictures in, pictures out. The loss is half the mean absolute and half the mean squared
//! error per pixel value, and a small Kullback-Leibler term that keeps the latents near a unit Gaussian (Kingma &
//! Welling 2014; Rombach et al. 2022, section 3.1). At the end the scaling factor is set to one over the latents'
//! deviation, which is what a denoiser expects.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{Result, Tensor};
use sconce_nn::rng::Stream;

use super::output;
use super::preview;
use super::run::{Job, PartLoss, Task, Update};
use super::weights::Weights;
use crate::data::{Mirrored, Set};
use crate::recipe::AutoencoderTable;

/// Decoded pictures kept in memory, at most.
const MEMORY_BYTES: usize = 1 << 30;

pub(super) struct AutoencoderTask<'a> {
    job: &'a Job<'a>,
    set: &'a Set,
    table: AutoencoderTable,
    memory: HashMap<(usize, Mirrored), Tensor>,
}

impl<'a> AutoencoderTask<'a> {
    pub fn new(job: &'a Job, set: &'a Set) -> Self {
        Self { job, set, table: job.recipe.train.autoencoder.clone().unwrap_or_default(), memory: HashMap::new() }
    }

    /// A whole picture, 3 H W in [-1, 1].
    fn picture(&mut self, item: usize, mirrored: Mirrored) -> Result<Tensor> {
        if let Some(found) = self.memory.get(&(item, mirrored)) {
            return Ok(found.clone());
        }
        let picture = self.set.pixels(item, mirrored)?.to_device(&self.job.options.device)?;
        if (self.memory.len() + 1) * picture.elem_count() * 4 < MEMORY_BYTES {
            self.memory.insert((item, mirrored), picture.clone());
        }
        Ok(picture)
    }

    /// Pictures through the mean latents and back, one at a time: weights that train keep a graph.
    fn back(&self, x: &Tensor) -> Result<Tensor> {
        let vae = self.job.model.autoencoder();
        let one = |i| Ok(vae.decode(&vae.encode(&x.narrow(0, i, 1)?)?.mean.detach())?.detach());
        Tensor::cat(&(0..x.dim(0)?).map(one).collect::<Result<Vec<_>>>()?, 0)
    }

    /// Up to 64 held-out pictures of one size, or of the training set where none is held out.
    fn shown(&mut self, limit: usize) -> Result<Tensor> {
        let from = if self.set.held_out.is_empty() { &self.set.train } else { &self.set.held_out };
        let size = self.set.items[from[0]].framing.target;
        let of_size: Vec<usize> = from.iter().copied().filter(|&i| self.set.items[i].framing.target == size).collect();
        let stride = of_size.len().div_ceil(limit).max(1);
        let chosen: Vec<usize> = of_size.into_iter().step_by(stride).collect();
        let pictures = chosen.iter().map(|&i| self.picture(i, Mirrored::No)).collect::<Result<Vec<_>>>()?;
        Tensor::stack(&pictures, 0)
    }
}

impl Task for AutoencoderTask<'_> {
    fn loss(&mut self, update: &Update, part: usize) -> Result<PartLoss> {
        let batch = &update.batches[part];
        let at = update.images_seen + update.offset(part) as u64;
        let seed = self.job.recipe.train.seed;
        let pictures = batch.iter().map(|u| self.picture(u.item, u.mirrored)).collect::<Result<Vec<_>>>()?;
        let x = Tensor::stack(&pictures, 0)?; // B 3 H W
        let step = self.job.model.autoencoder().factor();
        let x = match self.table.crop_px {
            Some(side) => cropped(&x, side as usize, step, &Stream::new(seed, "crop").at(at, 0))?,
            None => x,
        };
        let vae = self.job.model.autoencoder();
        let moments = vae.encode(&x)?;
        let mut z = moments.mean.clone();
        let mut divergence = None;
        if let Some(log_variance) = &moments.log_variance {
            let eps = Stream::new(seed, "posterior").at(at, 0).normal(z.shape(), z.device())?;
            z = (z + (log_variance * 0.5)?.exp()?.mul(&eps)?)?;
            let kl = (((moments.mean.sqr()? + log_variance.exp()?)? - log_variance)? - 1.0)?;
            divergence = Some((kl * 0.5)?.flatten_from(1)?.mean(1)?.sum_all()?);
        }
        let difference = (vae.decode(&z)? - &x)?.flatten_from(1)?;
        let squared = difference.sqr()?.mean(1)?.sum_all()?;
        let absolute = difference.abs()?.mean(1)?.sum_all()?;
        let value = |t: &Tensor| Ok::<f64, candle_core::Error>(f64::from(t.detach().to_scalar::<f32>()?));
        let mut parts =
            vec![("squared_error", value(&squared)?, batch.len()), ("absolute_error", value(&absolute)?, batch.len())];
        let mut sum = ((squared + absolute)? * 0.5)?;
        if let Some(kl) = divergence {
            parts.push(("kl", value(&kl)?, batch.len()));
            sum = (sum + (kl * self.table.kl_weight)?)?;
        }
        Ok(PartLoss { sum, parts })
    }

    /// Peak signal-to-noise ratio in dB, of pictures through the mean latents and back.
    fn validate(&mut self, _: u64) -> Result<Vec<(String, f64)>> {
        let x = self.shown(64)?;
        let back = self.back(&x)?.clamp(-1f32, 1f32)?;
        let errors = ((back - x)? * 0.5)?.sqr()?.flatten_from(1)?.mean(1)?.to_vec1::<f32>()?;
        let psnr = errors.iter().map(|&e| -10.0 * f64::from(e).log10()).sum::<f64>() / errors.len() as f64;
        Ok(vec![("psnr_db".to_owned(), psnr)])
    }

    /// Pictures above, what comes back below.
    fn draw(&mut self, _: u64, to: &Path) -> Result<()> {
        let x = self.shown(12)?;
        let back = self.back(&x)?;
        preview::sheet(&[x, back], to)
    }

    fn measure(&mut self, _: u64) -> Result<Vec<preview::GroundLuminance>> {
        Ok(Vec::new())
    }

    fn write(&mut self, weights: &Weights, out: &Path) -> Result<Vec<PathBuf>> {
        let mut values = Vec::new();
        for item in self.set.train.clone().into_iter().step_by(self.set.train.len().div_ceil(256)) {
            let x = self.picture(item, Mirrored::No)?.unsqueeze(0)?;
            values.extend(self.job.model.autoencoder().encode(&x)?.mean.detach().flatten_all()?.to_vec1::<f32>()?);
        }
        let count = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
        let mut config = serde_json::Map::new();
        config.insert("scaling_factor".into(), (1.0 / variance.sqrt()).into());
        output::write(self.job, weights, &weights.saved_adapters()?, &BTreeMap::from([("vae".to_owned(), config)]), out)
    }
}

/// Squares of `side` pixels at random places that are multiples of `step`, one for each picture.
fn cropped(x: &Tensor, side: usize, step: usize, random: &Stream) -> Result<Tensor> {
    let (b, _, h, w) = x.dims4()?;
    let (height, width) = (side.min(h), side.min(w));
    let u = random.uniform(2 * b);
    let place = |u: f64, room: usize| (u * (room / step + 1) as f64) as usize * step;
    let crop = |i: usize| {
        x.get(i)?.narrow(1, place(u[2 * i], h - height), height)?.narrow(2, place(u[2 * i + 1], w - width), width)
    };
    Tensor::stack(&(0..b).map(crop).collect::<Result<Vec<_>>>()?, 0)
}
