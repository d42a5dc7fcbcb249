//! Training the denoiser, and text encoders beside it: the batches of the step, the validation loss, the previews.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_nn::rng::Stream;
use sconce_sdk::{Choice, Schedule};

use super::event::{Event, Observer};
use super::output;
use super::preview;
use super::remembering::Remembering;
use super::run::{Job, PartLoss, Task, Update};
use super::weights::Weights;
use crate::cond::Cond;
use crate::data::{Cache, Dropped, Encoded, Mirrored, Set, Use};
use crate::distance::Measure;
use crate::learning::Learning;
use crate::model::{Conditioner, PromptUse};
use crate::network::{Conversion, Network};
use crate::noise::{Batch, Drawn};
use crate::recipe::Normalise;
use crate::step::Row;
use crate::stratified::stratified;

/// Encoded pictures and captions kept in memory, at most; the rest is read from the cache each time.
const MEMORY_BYTES: usize = 1 << 30;

/// Log-SNR bins of the reported error: name and upper end.
const BINS: [(&str, f64); 5] = [
    ("error_lambda_below_-4", -4.0),
    ("error_lambda_-4_to_-1", -1.0),
    ("error_lambda_-1_to_1", 1.0),
    ("error_lambda_1_to_4", 4.0),
    ("error_lambda_above_4", f64::INFINITY),
];

pub(super) struct DenoiserTask<'a> {
    job: &'a Job<'a>,
    set: &'a Set,
    cache: Cache,
    device: Device,
    /// Whether captions are encoded in the graph, because an encoder trains.
    encoders_train: bool,
    learning: Learning,
    /// What stands between the network and the run, as it begins.
    conversion: Option<Conversion>,
    memory: Memory,
    /// The encoders with a memory of the previews' prompts.
    remembering: Arc<Remembering>,
}

/// What was read, by key.
#[derive(Default)]
struct Memory {
    pictures: HashMap<(usize, Mirrored), Encoded>,
    captions: HashMap<String, Cond>,
    bytes: usize,
}

impl<'a> DenoiserTask<'a> {
    /// Encodes what is trained on in `order`, and what is held out, where it is not in the cache yet.
    pub fn new(
        job: &'a Job,
        set: &'a Set,
        weights: &Weights,
        order: impl Iterator<Item = Vec<Use>>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let model = job.model;
        let folder =
            job.recipe.data.cache.as_ref().map_or(job.options.out.join("cache"), |c| job.resolved.base_dir.join(c));
        let encoders: BTreeSet<String> =
            model.conditioner().stores().iter().map(|s| s.component().to_owned()).collect();
        let encoders_train =
            weights.params.iter().any(|p| p.name.split_once('/').is_some_and(|(c, _)| encoders.contains(c)));
        let remembering = Arc::new(Remembering::new(model.conditioner().clone()));
        let cache = Cache::new(&folder, &**model.autoencoder())?;
        let device = job.options.device.clone();
        let learning = Learning::start(&*job.recipe.timesteps, &*job.recipe.weighting);
        let conversion = job.recipe.model.conversion(model.native(), 0)?;
        let memory = Memory::default();
        let mut task = Self { job, set, cache, device, encoders_train, learning, conversion, memory, remembering };
        task.encode(order, observer)?;
        task.let_go();
        Ok(task)
    }

    /// Lets go of what has encoded everything: text encoders that do not train, and the autoencoder. They come back by
    /// themselves where they are asked again, for previews.
    fn let_go(&self) {
        self.job.model.autoencoder().store().release();
        self.encoders_go();
    }

    fn encoders_go(&self) {
        if !self.encoders_train {
            self.job.model.conditioner().stores().iter().for_each(|store| store.release());
        }
    }

    /// Fills the cache: the pictures and captions of the whole run, in the order in which they are needed.
    fn encode(&mut self, order: impl Iterator<Item = Vec<Use>>, observer: &mut dyn Observer) -> Result<()> {
        let (mut uses, mut seen, mut images) = (Vec::new(), BTreeSet::new(), 0);
        for batch in order {
            images += batch.len() as u64;
            uses.extend(batch.into_iter().filter(|u| seen.insert((u.item, u.mirrored))));
            if images >= self.job.recipe.train.images || seen.len() >= 2 * self.set.items.len() {
                break;
            }
        }
        uses.extend(self.set.held_out.iter().map(|&item| plain(item)));
        let captions: Vec<&str> = if self.encoders_train { vec![] } else { self.set.captions().into_iter().collect() };
        let total = uses.len() + captions.len();
        for (done, used) in uses.iter().enumerate() {
            self.stop_if_asked()?;
            self.picture(used)?;
            observer.see(&Event::Encoding(done + 1, total))?;
        }
        if !self.encoders_train && self.job.recipe.data.caption_dropout > 0.0 {
            self.caption("", PromptUse::Unconditional)?;
        }
        for (done, caption) in captions.iter().enumerate() {
            self.stop_if_asked()?;
            self.caption(caption, PromptUse::Caption)?;
            observer.see(&Event::Encoding(uses.len() + done + 1, total))?;
        }
        Ok(())
    }

    fn stop_if_asked(&self) -> Result<()> {
        if self.job.options.stop.load(Ordering::Relaxed) {
            candle_core::bail!("stopped while pictures and captions were encoded; what is done is in the cache");
        }
        Ok(())
    }

    fn picture(&mut self, used: &Use) -> Result<Encoded> {
        let key = (used.item, used.mirrored);
        if let Some(found) = self.memory.pictures.get(&key) {
            return Ok(found.clone());
        }
        let mut encoded = self.cache.picture(self.set, used, &**self.job.model.autoencoder())?;
        encoded.mask = encoded.mask.map(|mask| self.places(used.item, mask)).transpose()?;
        let bytes = 8 * encoded.mean.elem_count();
        if self.memory.bytes + bytes < MEMORY_BYTES {
            self.memory.bytes += bytes;
            self.memory.pictures.insert(key, encoded.clone());
        }
        Ok(encoded)
    }

    /// How much each place of a picture counts, from its mask, 1 h w.
    fn places(&self, item: usize, mask: Tensor) -> Result<Tensor> {
        let table = self.job.recipe.train.mask.unwrap_or_default();
        let places = mask.affine(1.0 - table.outside, table.outside)?;
        let mean = f64::from(places.mean_all()?.to_scalar::<f32>()?);
        if mean == 0.0 {
            bail!(
                "{}: its mask is black wherever the crop leaves something of the picture, so there is nothing to train on: \
                 remove the picture or the mask, or set train.mask.outside above 0",
                self.set.path(item).display()
            );
        }
        match table.normalise {
            Normalise::Never => Ok(places),
            Normalise::ByArea => places / mean,
        }
    }

    /// How much each place of a batch counts, B 1 h w; `None` if none of its pictures has a mask.
    fn masks(&mut self, batch: &[Use]) -> Result<Option<Tensor>> {
        let encoded: Vec<Encoded> = batch.iter().map(|u| self.picture(u)).collect::<Result<_>>()?;
        if encoded.iter().all(|e| e.mask.is_none()) {
            return Ok(None);
        }
        let whole = |e: &Encoded| e.mean.narrow(0, 0, 1)?.ones_like();
        let masks: Vec<Tensor> =
            encoded.iter().map(|e| e.mask.clone().map_or_else(|| whole(e), Ok)).collect::<Result<_>>()?;
        Tensor::stack(&masks, 0)?.to_device(&self.device).map(Some)
    }

    fn caption(&mut self, prompt: &str, what: PromptUse) -> Result<Cond> {
        let key = format!("{what:?} {prompt}");
        if let Some(found) = self.memory.captions.get(&key) {
            return Ok(found.clone());
        }
        let cond = self.cache.caption(prompt, what, &**self.job.model.conditioner())?;
        let bytes: usize = cond.0.values().map(|t| 4 * t.elem_count()).sum();
        if self.memory.bytes + bytes < MEMORY_BYTES {
            self.memory.bytes += bytes;
            self.memory.captions.insert(key, cond.clone());
        }
        Ok(cond)
    }

    /// Latents drawn from the encoder's Gaussian, B C h w, as the denoiser sees them.
    fn latents(&mut self, batch: &[Use], posterior: Option<&Stream>) -> Result<Tensor> {
        let encoded: Vec<Encoded> = batch.iter().map(|u| self.picture(u)).collect::<Result<_>>()?;
        let stack = |f: &dyn Fn(&Encoded) -> Option<Tensor>| {
            encoded.iter().map(f).collect::<Option<Vec<_>>>().map(|t| Tensor::stack(&t, 0)).transpose()
        };
        let mut z = Tensor::stack(&encoded.iter().map(|e| e.mean.clone()).collect::<Vec<_>>(), 0)?;
        if let (Some(stream), Some(log_variance)) = (posterior, stack(&|e| e.log_variance.clone())?) {
            let noise = stream.normal(z.shape(), &Device::Cpu)?;
            z = (z + (log_variance * 0.5)?.exp()?.mul(&noise)?)?;
        }
        self.job.model.autoencoder().scaling().scale(&z.to_device(&self.device)?)
    }

    /// The conditions of a batch, on the device, in the denoiser's type.
    fn conditions(&mut self, batch: &[Use]) -> Result<Cond> {
        let prompts: Vec<(String, PromptUse)> = batch
            .iter()
            .map(|u| match u.dropped {
                Dropped::No => (self.set.items[u.item].caption.clone(), PromptUse::Caption),
                Dropped::Yes => (String::new(), PromptUse::Unconditional),
            })
            .collect();
        let conditioner = self.job.model.conditioner().clone();
        let text = if self.encoders_train {
            conditioner.encode(&prompts.iter().map(|(p, u)| (p.as_str(), *u)).collect::<Vec<_>>())?
        } else {
            let parts = prompts.iter().map(|(p, u)| Ok((self.caption(p, *u)?, *u))).collect::<Result<Vec<_>>>()?;
            Cond::cat(&self.of_one_length(parts)?)?
        };
        let geometry: Vec<_> = batch.iter().map(|u| self.set.items[u.item].framing.geometry(u.mirrored)).collect();
        let text = text.merge(conditioner.geometry(&geometry)?);
        let told = self.job.recipe.train.guidance.map(|scale| conditioner.guidance(scale, batch.len())).transpose()?;
        text.merge(told.unwrap_or_default()).to(&self.device)
    }

    /// Token sequences of one length: a shorter one goes on with the empty prompt's for its use, as the encoder itself
    /// would do.
    fn of_one_length(&mut self, parts: Vec<(Cond, PromptUse)>) -> Result<Vec<Cond>> {
        let length = |c: &Cond| c.0.values().filter(|t| t.rank() == 3).map(|t| t.dims()[1]).max().unwrap_or(0);
        let longest = parts.iter().map(|(c, _)| length(c)).max().unwrap_or(0);
        let mut out = Vec::with_capacity(parts.len());
        for (part, what) in parts {
            if length(&part) == longest {
                out.push(part);
                continue;
            }
            let empty = self.caption("", what)?;
            let grow = |(name, t): (&String, &Tensor)| {
                let mut t = t.clone();
                while t.rank() == 3 && t.dims()[1] < longest {
                    t = Tensor::cat(&[&t, empty.get(name)?], 1)?;
                }
                Ok((name.clone(), t))
            };
            out.push(Cond(part.0.iter().map(grow).collect::<Result<_>>()?));
        }
        Ok(out)
    }

    /// The schedule for latents B C h w.
    fn schedule(&self, latents: &Tensor) -> Result<Choice<dyn Schedule>> {
        let (_, _, height, width) = latents.dims4()?;
        Ok(self.job.recipe.schedule.sized(height, width))
    }

    /// What stands between the network and the run, after so many images, for latents B C h w.
    fn conversion(&self, latents: &Tensor, images: u64) -> Result<Option<Conversion>> {
        let (_, _, height, width) = latents.dims4()?;
        let now = self.conversion.as_ref().and_then(|conversion| conversion.after(images));
        Ok(now.map(|conversion| conversion.sized(height, width)))
    }

    fn network<'b>(&'b self, conversion: Option<&'b Conversion>) -> Network<'b> {
        Network { backbone: &**self.job.model.backbone(), conversion }
    }

    /// What encodes the previews' prompts: the encoders, or what they said before, where they do not train.
    fn asked(&self) -> Arc<dyn Conditioner> {
        match self.encoders_train {
            true => self.job.model.conditioner().clone(),
            false => self.remembering.clone(),
        }
    }

    fn stream(&self, purpose: &str) -> Stream {
        Stream::new(self.job.recipe.train.seed, purpose)
    }
}

impl Task for DenoiserTask<'_> {
    fn loss(&mut self, update: &Update, part: usize) -> Result<PartLoss> {
        let batch = &update.batches[part];
        let (offset, seen) = (update.offset(part), update.images_seen);
        let at = seen + offset as u64;
        let quantiles = stratified(&self.stream("timesteps").at(seen, 0), update.images());
        let x0 = self.latents(batch, Some(&self.stream("posterior").at(at, 0)))?;
        let schedule = self.schedule(&x0)?;
        let process = self.job.recipe.process(&*schedule);
        let rows: Vec<Row> =
            quantiles[offset..offset + batch.len()].iter().map(|&u| process.drawn(u, &self.learning)).collect();
        let levels: Vec<_> = rows.iter().map(|r| r.noise).collect();
        let seed = self.job.recipe.train.seed;
        let eps = self.job.recipe.noise.draw(&Batch { x0: &x0, levels: &levels, seed, images_seen: at })?;
        let (cond, mask) = (self.conditions(batch)?, self.masks(batch)?);
        let measure = Measure { distance: &*self.job.recipe.distance, mask: mask.as_ref() };
        let conversion = self.conversion(&x0, seen)?;
        let network = self.network(conversion.as_ref());
        let losses = process.loss(&network, &x0, &eps, &cond, &measure, &rows)?;
        self.learning.see(&rows, &losses)?;
        Ok(PartLoss { sum: losses.weighted.sum_all()?, parts: by_log_snr(&rows, &losses.error)? })
    }

    fn learn(&mut self) {
        self.learning.learn();
    }

    fn learned(&self) -> Result<BTreeMap<String, Tensor>> {
        self.learning.save()
    }

    fn restore(&mut self, learned: &BTreeMap<String, Tensor>) -> Result<()> {
        self.learning.restore(learned)
    }

    /// The weighted loss, and the error at each quantile, on held-out pictures (at most 96) with fixed Gaussian noise, and
    /// with nothing learned in it: the same measure all along, whatever the run's noise.
    fn validate(&mut self, images: u64) -> Result<Vec<(String, f64)>> {
        let table = self.job.recipe.validation.as_ref().expect("called where there is the table");
        let (quantiles, size) = (table.quantiles.max(1), self.job.recipe.data.batch);
        let stride = self.set.held_out.len().div_ceil(96);
        let mut by_size: BTreeMap<(u32, u32), Vec<usize>> = BTreeMap::new();
        for &item in self.set.held_out.iter().step_by(stride) {
            by_size.entry(self.set.items[item].framing.target).or_default().push(item);
        }
        let (mut weighted, mut errors, mut count) = (0.0, vec![0.0; quantiles], 0usize);
        for items in by_size.values().flat_map(|items| items.chunks(size)) {
            let batch: Vec<Use> = items.iter().map(|&item| plain(item)).collect();
            let (x0, cond) = (self.latents(&batch, None)?, self.conditions(&batch)?);
            let (cond, mask) = (cond.map(|t| Ok(t.detach()))?, self.masks(&batch)?);
            let measure = Measure { distance: &*self.job.recipe.distance, mask: mask.as_ref() };
            let schedule = self.schedule(&x0)?;
            let process = self.job.recipe.process(&*schedule);
            let conversion = self.conversion(&x0, images)?;
            let network = self.network(conversion.as_ref());
            for (q, error) in errors.iter_mut().enumerate() {
                let rows = vec![process.row((q as f64 + 0.5) / quantiles as f64); batch.len()];
                let noise = |&item: &usize| {
                    let stream = self.stream("validation noise").at(item as u64, q as u64);
                    stream.normal(&x0.dims()[1..], &self.device)
                };
                let eps = Tensor::stack(&items.iter().map(noise).collect::<Result<Vec<_>>>()?, 0)?;
                let eps = Drawn::plain(eps);
                let losses = process.loss(&network, &x0, &eps, &cond, &measure, &rows)?;
                weighted += sum(&losses.weighted)?;
                *error += sum(&losses.error)?;
            }
            count += batch.len();
        }
        let mut values = vec![("loss".to_owned(), weighted / (count * quantiles) as f64)];
        for (q, error) in errors.iter().enumerate() {
            values.push((format!("error_q{:.3}", (q as f64 + 0.5) / quantiles as f64), error / count as f64));
        }
        Ok(values)
    }

    fn draw(&mut self, images: u64, to: &Path) -> Result<()> {
        preview::draw(self.job, &*self.asked(), &|| self.encoders_go(), images, to)?;
        self.let_go();
        Ok(())
    }

    fn measure(&mut self, images: u64) -> Result<Vec<preview::GroundLuminance>> {
        let grounds = preview::measure(self.job, &*self.asked(), &|| self.encoders_go(), images)?;
        self.let_go();
        Ok(grounds)
    }

    fn write(&mut self, weights: &Weights, out: &Path) -> Result<Vec<PathBuf>> {
        output::write(self.job, weights, &weights.saved_adapters()?, &BTreeMap::new(), out)
    }
}

/// An item as it is.
fn plain(item: usize) -> Use {
    Use { item, mirrored: Mirrored::No, dropped: Dropped::No }
}

fn sum(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.detach().to_dtype(DType::F32)?.sum_all()?.to_scalar::<f32>()?))
}

/// The error's sum and count by log-SNR.
fn by_log_snr(rows: &[Row], error: &Tensor) -> Result<Vec<(&'static str, f64, usize)>> {
    let errors = error.detach().to_vec1::<f32>()?;
    let mut bins: Vec<(&'static str, f64, usize)> = BINS.iter().map(|(name, _)| (*name, 0.0, 0)).collect();
    for (row, error) in rows.iter().zip(errors) {
        let lambda = row.noise.log_snr();
        let bin = BINS.iter().position(|(_, end)| lambda <= *end).unwrap_or(BINS.len() - 1);
        bins[bin].1 += f64::from(error);
        bins[bin].2 += 1;
    }
    bins.retain(|b| b.2 > 0);
    Ok(bins)
}
