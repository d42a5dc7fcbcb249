//! The loop. It counts in images, draws a batch, takes a step, and tells the observer; saving, validating and drawing
//! come when their images have been seen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::Instant;

use candle_core::{Device, Error, Result, Tensor, bail};
use sconce_nn::checkpoint::backward;
use sconce_sdk::health;

use super::autoencoder::AutoencoderTask;
use super::averages::Averages;
use super::checkpoint::{Checkpoints, MadeOf, Progress};
use super::denoiser::DenoiserTask;
use super::event::{Ended, Event, Failed, Observer, Options, Start, StepReport};
use super::gradients::Gradients;
use super::log::Logs;
use super::preview::GroundLuminance;
use super::release::{self, Shared};
use super::snapshots;
use super::tokens;
use super::weights::Weights;
use crate::data::{Order, Use};
use crate::hub::{self, Needs};
use crate::lock::Locking;
use crate::model::Model;
use crate::optimizer::At;
use crate::recipe::{Float, Gradients as Keep, Recipe, Resolved, Task as What};

/// The file of a run's lock in its folder.
pub(super) const LOCK: &str = "run.lock";

/// What is trained, as the loop sees it.
pub(super) trait Task {
    /// The summed loss of one batch of an update, in the graph.
    fn loss(&mut self, update: &Update, part: usize) -> Result<PartLoss>;
    /// Named values on held-out pictures, after so many images.
    fn validate(&mut self, images: u64) -> Result<Vec<(String, f64)>>;
    /// Learns from an update that was made, beside the weights.
    fn learn(&mut self) {}
    /// What was learned beside the weights, for a checkpoint.
    fn learned(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(BTreeMap::new())
    }
    /// Takes it back.
    fn restore(&mut self, _learned: &BTreeMap<String, Tensor>) -> Result<()> {
        Ok(())
    }
    /// Draws pictures to show how far the run is.
    fn draw(&mut self, images: u64, to: &Path) -> Result<()>;
    /// Measures the grounds of drawn pictures; empty where the recipe asks for none.
    fn measure(&mut self, images: u64) -> Result<Vec<GroundLuminance>>;
    /// Writes the result.
    fn write(&mut self, weights: &Weights, out: &Path) -> Result<Vec<PathBuf>>;
}

/// The batches of one update.
pub(super) struct Update {
    /// Pictures seen before it.
    pub images_seen: u64,
    /// Its batches.
    pub batches: Vec<Vec<Use>>,
}

impl Update {
    /// Its pictures.
    pub fn images(&self) -> usize {
        self.batches.iter().map(Vec::len).sum()
    }

    /// Pictures in the batches before `part`.
    pub fn offset(&self, part: usize) -> usize {
        self.batches[..part].iter().map(Vec::len).sum()
    }
}

/// The loss of one batch.
pub(super) struct PartLoss {
    /// Sum over its pictures, a scalar in the graph.
    pub sum: Tensor,
    /// Parts: name, sum, count.
    pub parts: Vec<(&'static str, f64, usize)>,
}

/// Everything that a task needs to be set up.
pub(super) struct Job<'a> {
    pub resolved: &'a Resolved,
    pub recipe: &'a Recipe,
    pub options: &'a Options,
    pub model: &'a dyn Model,
    /// Further header fields of the weight files that are written.
    pub notes: BTreeMap<String, String>,
    /// The run's lock, once it is known.
    pub lock: OnceLock<String>,
}

/// Runs a resolved recipe.
pub fn run(resolved: &Resolved, options: &Options, observer: &mut dyn Observer) -> std::result::Result<Ended, Failed> {
    let recipe = &resolved.recipe;
    let checkpoints = Checkpoints::new(&options.out, recipe.train.keep);
    let newest = checkpoints.newest()?;
    let snapshots = snapshots::Folder::new(&options.out);
    if let (Start::Fresh, Some(found)) = (options.start, newest.clone().or(snapshots.newest())) {
        let found = found.display();
        let why =
            format!("{found}: there is a run in this folder already. Go on with --resume, or start another with --out");
        return Err(Error::Msg(why).into());
    }
    let model = load(resolved, &options.device)?;
    let stores = model.stores();
    let mut job = Job { resolved, recipe, options, model: &*model, notes: BTreeMap::new(), lock: OnceLock::new() };
    let weights = Weights::prepare(recipe, &*model).map_err(Failed::Files)?;
    let elements: usize = stores.iter().map(|s| s.elements()).sum();
    observer.see(&Event::Loaded(model.native(), weights.elements(), elements))?;
    if let Some(remark) = model.backbone().remark() {
        observer.see(&Event::Remark(remark))?;
    }

    let set = open_set(&job).map_err(Failed::Files)?;
    observer.see(&Event::Data(&set.report))?;
    tokens::said_by(&weights.words, set.captions()).map_err(Failed::Files)?;
    let of = MadeOf { recipe: resolved.to_toml(), data: set.identity() };
    job.notes.insert("sconce.data".to_owned(), of.data.clone());
    let mut locking = Some(Locking::start(resolved, &of.data, &options.device));
    if let Some((wanted, locking)) = options.lock.as_ref().zip(locking.take_if(|_| options.lock.is_some())) {
        let lock = locking.end()?;
        lock.held_to(wanted).map_err(Failed::Files)?;
        job.lock.get_or_init(|| lock.to_toml());
    }
    let order = || {
        let d = &recipe.data;
        Order::new(&set.items, set.train.clone(), d.batch, d.caption_dropout, recipe.train.seed)
    };
    let optimizer: Shared = Rc::new(RefCell::new(recipe.optimizer.start(weights.params.clone())?));
    let averages = Averages::start(&weights, &*recipe.ema)?;
    let mut at = Progress::default();
    let resumed = newest.is_some();
    if let Some(from) = &newest {
        let changed;
        let optimizer = &mut **optimizer.borrow_mut();
        (at, changed) = checkpoints.restore(from, &of, options.start, &weights, &averages, optimizer)?;
        observer.see(&Event::Resumed(at.images, &changed))?;
    }
    snapshots.cut(at.images)?;
    sconce_nn::weights::write_atomic(&options.out.join("recipe.toml"), |out| out.write_all(of.recipe.as_bytes()))?;
    let mut order_now = order();
    order_now.skip_to(at.images);
    let mut logs = Logs::open(&options.out, at.images)?;
    let mut task: Box<dyn Task + '_> = match recipe.train.task {
        What::Denoiser => Box::new(DenoiserTask::new(&job, &set, &weights, order(), observer)?),
        What::Autoencoder => Box::new(AutoencoderTask::new(&job, &set)),
    };
    if let Some(from) = &newest {
        task.restore(&checkpoints.learned(from)?)?;
    }
    let total = recipe.train.images;
    let drawn = |at: u64| options.out.join("previews").join(format!("{at:09}.png"));
    let look = |task: &mut Box<dyn Task + '_>, logs: &mut Logs, from: u64, to: u64, observer: &mut dyn Observer| {
        let validates = recipe.validation.as_ref().is_some_and(|v| due(v.every_images, from, to, total));
        let asked = recipe.preview.as_ref().is_some_and(|p| due(p.every_images, from, to, total));
        // A resumed run keeps what it drew before it stopped.
        let draws = asked && !(resumed && drawn(to).is_file());
        let measures = recipe.preview.is_some() && (to == 0 || to >= total);
        if !(validates || draws || measures) {
            return Ok(()); // swapping the average in and out costs a copy of the weights
        }
        averages.swapped(&weights, &**optimizer.borrow(), || {
            if validates {
                let values = task.validate(to)?;
                let named: Vec<(&str, f64)> = values.iter().map(|(n, v)| (n.as_str(), *v)).collect();
                logs.write("validation", to, &named)?;
                observer.see(&Event::Validated(to, &values))?;
            }
            if draws {
                task.draw(to, &drawn(to))?;
                observer.see(&Event::Drawn(to, &drawn(to)))?;
            }
            let grounds = if measures { task.measure(to)? } else { Vec::new() };
            if !grounds.is_empty() {
                let named: Vec<(&str, f64)> = grounds.iter().map(|g| (g.ground.as_str(), g.drawn)).collect();
                logs.write("luminance", to, &named)?;
                observer.see(&Event::Measured(to, &grounds))?;
            }
            Ok(())
        })
    };
    if at.images == 0 {
        look(&mut task, &mut logs, 0, 0, observer)?;
    }
    let mut clock = Instant::now();
    while at.images < total {
        let batches = order_now.by_ref().take(recipe.train.accumulate.max(1)).collect();
        let update = Update { images_seen: at.images, batches };
        let step = step(&mut *task, recipe, &weights, &optimizer, &update, &checkpoints)?;
        task.learn();
        let before = at.images;
        at.images += update.images() as u64;
        at.updates += 1;
        averages.follow(&weights, &*recipe.ema, at.images, update.images() as u64)?;
        let images_per_sec = update.images() as f64 / clock.elapsed().as_secs_f64();
        clock = Instant::now();
        let report = StepReport { images: at.images, images_total: total, images_per_sec, ..step };
        log_step(&mut logs, &report)?;
        observer.see(&Event::Step(&report))?;
        look(&mut task, &mut logs, before, at.images, observer)?;
        if let Some(when) = recipe.ema.snapshots(total)
            && due(when.every_images, before, at.images, total)
        {
            let dtype = Float::from(when.dtype).into();
            let path = snapshots.save(at.images, &resolved.name, &averages, &*recipe.ema, dtype)?;
            observer.see(&Event::Snapshot(at.images, &path))?;
        }
        let stop = options.stop.load(Ordering::Relaxed);
        let save = recipe.train.save_every_images;
        if stop || due(save, before, at.images, total) {
            let learned = task.learned()?;
            health::check().map_err(Error::wrap)?;
            let path = checkpoints.save(at, &of, &weights, &averages, &**optimizer.borrow(), &learned)?;
            observer.see(&Event::Saved(at.images, &path))?;
            if stop && at.images < total {
                return Ok(Ended::Stopped(path));
            }
        }
    }
    if let Some(locking) = locking {
        let lock = locking.end()?;
        job.lock.get_or_init(|| lock.to_toml());
    }
    if let Some(lock) = job.lock.get() {
        sconce_nn::weights::write_atomic(&options.out.join(LOCK), |out| out.write_all(lock.as_bytes()))?;
    }
    let mut written = averages.swapped(&weights, &**optimizer.borrow(), || task.write(&weights, &options.out))?;
    let sheet = options.out.join("before-after.png");
    written.extend(super::preview::before_and_after(&drawn(0), &drawn(at.images), &sheet)?);
    written.push(super::card::write(&job, &written, &options.out)?);
    Ok(Ended::Whole(written))
}

/// The recipe's model, as a run begins with it.
pub(super) fn load(resolved: &Resolved, device: &Device) -> std::result::Result<Box<dyn Model>, Failed> {
    let recipe = &resolved.recipe;
    if hub::leads(&recipe.model.path) {
        // The recipe was resolved by the configs alone; the weights come into the same folder.
        hub::fetched(&recipe.model.path, Needs::Model(&resolved.left_out())).map_err(Failed::Files)?;
    }
    let load = recipe.model.load_options(device);
    let model = resolved.family.load(&resolved.model_dir, &load).map_err(Failed::Files)?;
    load.held_by(&model.stores())?;
    model.backbone().recompute(recipe.train.recompute);
    if let Some(value) = recipe.train.autoencoder.as_ref().and_then(|a| a.first_log_variance) {
        model.autoencoder().start_log_variance(value)?;
    }
    Ok(model)
}

/// True if `every` images came to an end between `from` and `to`, and at both ends of the run.
fn due(every: u64, from: u64, to: u64, total: u64) -> bool {
    to == 0 || to >= total || (every > 0 && to / every > from / every)
}

/// Forward, backward, clip, update. Stops before the update if anything is not finite; where gradients are released, some
/// weights have moved by then, and the checkpoint is what there is to go on from.
fn step(
    task: &mut dyn Task,
    recipe: &Recipe,
    weights: &Weights,
    optimizer: &Shared,
    update: &Update,
    checkpoints: &Checkpoints,
) -> Result<StepReport> {
    let images = update.images() as f64;
    let lr = recipe.optimizer.lr() * recipe.lr.factor(update.images_seen, recipe.train.images);
    let at = At { lr, seed: recipe.train.seed, images_seen: update.images_seen };
    let mut gradients = Gradients::none(weights.params.len());
    let mut released = None;
    let mut loss = 0.0;
    let mut parts: Vec<(&'static str, f64, usize)> = Vec::new();
    for part in 0..update.batches.len() {
        let batch = task.loss(update, part)?;
        // A plugin of a library that failed has answered with no number, and says why here, before anything moves.
        health::check().map_err(Error::wrap)?;
        let mean = (batch.sum / images)?;
        loss += f64::from(mean.to_scalar::<f32>()?);
        match recipe.train.gradients {
            Keep::All => gradients.add(backward(&mean)?, &weights.params)?,
            Keep::Released => released = Some(release::update(&mean, &weights.params, optimizer, &at)?),
        }
        for (name, sum, count) in batch.parts {
            match parts.iter_mut().find(|p| p.0 == name) {
                Some(p) => (p.1, p.2) = (p.1 + sum, p.2 + count),
                None => parts.push((name, sum, count)),
            }
        }
    }
    let grad_norm = released.map_or_else(|| gradients.norm(), Ok)?;
    if !loss.is_finite() || !grad_norm.is_finite() {
        let advice = no_number(recipe, &at, checkpoints)?;
        bail!(
            "after {} images the loss is {loss} and the gradient's norm {grad_norm}: the run stops before this update. {advice}",
            update.images_seen
        );
    }
    if released.is_none() {
        gradients.clip(grad_norm, recipe.train.clip_norm)?;
        optimizer.borrow_mut().step(&gradients.0, &at)?;
    }
    let parts = parts.into_iter().map(|(name, sum, count)| (name, sum / count as f64)).collect();
    Ok(StepReport { images: 0, images_total: 0, loss, parts, grad_norm, lr, images_per_sec: 0.0 })
}

/// What to do where the loss is no number. A checkpoint of these very weights is put aside.
fn no_number(recipe: &Recipe, at: &At, checkpoints: &Checkpoints) -> Result<String> {
    if at.images_seen == 0 {
        return Ok(format!(
            "Nothing has trained yet, so the model in {} gives it by itself: it may be damaged, or model.dtype too narrow \
             for it",
            recipe.model.path
        ));
    }
    let clip = match recipe.train.clip_norm {
        0.0 => "train.clip_norm = 1.0 (it is 0, no limit)".to_owned(),
        limit => format!("train.clip_norm below {limit}"),
    };
    let again = match checkpoints.set_aside(at.images_seen)? {
        Some(good) => format!("Go on from {} by --resume --changed, or start again,", good.display()),
        None => "There is no checkpoint from before: start again".to_owned(),
    };
    Ok(format!("{again} with a lower optimizer.lr (the rate is {:.1e} here) or with {clip}", at.lr))
}

fn log_step(logs: &mut Logs, r: &StepReport) -> Result<()> {
    let mut values = vec![("loss", r.loss), ("grad_norm", r.grad_norm), ("lr", r.lr)];
    values.extend(&r.parts);
    logs.write("step", r.images, &values)
}

/// The recipe's pictures, at the sizes that the model takes.
pub(super) fn open_set(job: &Job) -> Result<crate::data::Set> {
    let set = job.resolved.pictures()?;
    let share = job.recipe.validation.as_ref().map_or(0.0, |v| v.share);
    if share > 0.0 && set.held_out.is_empty() {
        bail!(
            "validation.share = {share} holds out none of {} pictures: raise it, or leave the table out",
            set.report.found - set.report.skipped.len()
        );
    }
    Ok(set)
}
