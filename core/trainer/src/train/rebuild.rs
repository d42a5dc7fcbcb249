//! Averages rebuilt after a run. Each tensor is summed over the snapshots by itself, in f64, and put in the place of the
//! model's own: what is in memory is the model and a tensor or two, however many snapshots there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{DType, Device, Error, Result, Tensor, bail};
use sconce_nn::weights::WeightFiles;
use sconce_sdk::Profile;

use super::autoencoder::AutoencoderTask;
use super::averages::{Part, key};
use super::checkpoint::Checkpoints;
use super::denoiser::DenoiserTask;
use super::event::{Failed, Observer, Options};
use super::mix::{Basis, Mix};
use super::output;
use super::run::{Job, LOCK, Task, load, open_set};
use super::snapshots::{Folder, Snapshot};
use super::weights::Weights;
use crate::adapter::{Averaged, Saved};
use crate::recipe::{Convert, Resolved, Task as What};

/// The snapshots of a run.
pub struct History {
    snapshots: Vec<Snapshot>,
    /// The averages that are used: snapshot and track.
    members: Vec<(usize, usize)>,
}

/// An average that a history holds, or comes near to.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// Its profile.
    pub profile: Profile,
    /// How much each average of the history counts.
    pub mix: Mix,
}

impl History {
    /// Of the run in a folder.
    pub fn open(run: &Path) -> Result<Self> {
        let snapshots = Folder::new(run).read()?;
        if snapshots.is_empty() {
            bail!("{}: there are no snapshots of averages in this run", run.display());
        }
        let tracks = |(i, s): (usize, &Snapshot)| {
            let known = s.profiles.iter().enumerate().filter(|(_, p)| p.is_some());
            known.map(|(track, _)| (i, track)).collect::<Vec<_>>()
        };
        let members = snapshots.iter().enumerate().flat_map(tracks).collect();
        Ok(Self { snapshots, members })
    }

    /// Without the snapshots after one.
    pub fn until(mut self, images: u64) -> Result<Self> {
        if self.snapshots.iter().all(|s| s.images != images) {
            let times: Vec<String> = self.snapshots.iter().map(|s| s.images.to_string()).collect();
            bail!("there is no snapshot at {images} images; there are: {}", times.join(", "));
        }
        self.members.retain(|(i, _)| self.snapshots[*i].images <= images);
        Ok(self)
    }

    /// Of the averages of these widths alone.
    pub fn only(mut self, widths: &[f64]) -> Result<Self> {
        let near = |p: &Profile, width: f64| (p.width() / width - 1.0).abs() < 1e-6;
        let tracked = self.profiles();
        if let Some(width) = widths.iter().find(|w| !tracked.iter().any(|p| near(p, **w))) {
            let widths: Vec<String> = tracked.iter().map(|p| format!("{:.4}", p.width())).collect();
            bail!("the run tracked no average of width {width}; it tracked: {}", widths.join(", "));
        }
        self.members.retain(|&(i, track)| {
            self.snapshots[i].profiles[track].is_some_and(|p| widths.iter().any(|w| near(&p, *w)))
        });
        Ok(self)
    }

    /// The run's name.
    pub fn run(&self) -> &str {
        &self.snapshots[0].run
    }

    /// The time of the newest snapshot in use, in images seen.
    pub fn images(&self) -> u64 {
        self.members.iter().map(|&(i, _)| self.snapshots[i].images).max().unwrap_or_default()
    }

    /// The averages in use, and the snapshots that hold them.
    pub fn counts(&self) -> (usize, usize) {
        let mut files: Vec<usize> = self.members.iter().map(|m| m.0).collect();
        files.dedup();
        (self.members.len(), files.len())
    }

    /// The profiles tracked.
    pub fn profiles(&self) -> Vec<Profile> {
        self.snapshots[0].profiles.iter().flatten().copied().collect()
    }

    /// The averages nearest to these profiles, at the time of the newest snapshot in use.
    pub fn nearest(&self, profiles: &[Profile]) -> Vec<Rebuilt> {
        let member = |&(i, track): &(usize, usize)| {
            let snapshot: &Snapshot = &self.snapshots[i];
            Some((snapshot.profiles[track]?, snapshot.images as f64))
        };
        let precision = self.snapshots.iter().map(|s| s.precision).fold(0.0, f64::max);
        let basis = Basis::new(self.members.iter().filter_map(member).collect(), precision);
        let at = self.images() as f64;
        profiles.iter().map(|&profile| Rebuilt { profile, mix: basis.nearest(profile, at) }).collect()
    }

    /// Sums the averages of one part, in f64.
    fn sum(&self, files: &[WeightFiles], rebuilt: &Rebuilt, part: &Part) -> Result<Vec<Tensor>> {
        let sum = |(name, like): (String, Tensor)| {
            let mut sum = vec![0f64; like.elem_count()];
            for (&(snapshot, track), weight) in self.members.iter().zip(&rebuilt.mix.weights) {
                let key = key(track, &name);
                let value = files[snapshot].tensor(&key, DType::F32, &Device::Cpu)?;
                if value.dims() != like.dims() {
                    let path = self.snapshots[snapshot].path.display();
                    bail!("{path}: `{key}` has shape {:?}, the run's model needs {:?}", value.dims(), like.dims());
                }
                let values = value.flatten_all()?.to_vec1::<f32>()?;
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * f64::from(value));
                files[snapshot].release();
            }
            let sum = sum.into_iter().map(|s| s as f32).collect();
            Tensor::from_vec(sum, like.shape(), &Device::Cpu)?.to_device(like.device())
        };
        part.views()?.into_iter().map(sum).collect()
    }

    /// Puts an average in the weights' place. With a rank, gives the adapters at that rank instead.
    fn put(&self, rebuilt: &Rebuilt, weights: &Weights, rank: Option<usize>) -> Result<Put> {
        let open = |s: &Snapshot| WeightFiles::open(&[&s.path]);
        let files = self.snapshots.iter().map(open).collect::<Result<Vec<_>>>()?;
        let mut put = Put { adapters: Vec::new(), left_out: 0.0, whole: 0.0 };
        for part in weights.parts() {
            let means = self.sum(&files, rebuilt, &part)?;
            let Part::Adapter(adapter, mean) = part else {
                part.set(&means)?;
                continue;
            };
            let Averaged { tensors, constants, left_out, whole } = mean.tensors(&means, rank)?;
            put.left_out += left_out;
            put.whole += whole;
            if rank.is_none() {
                tensors.iter().try_for_each(|(short, value)| adapter.params[short].set(value))?;
            }
            put.adapters.push(adapter.saved(tensors, constants)?);
        }
        if rank.is_some() && put.adapters.len() < weights.adapters.len().max(1) {
            bail!("what this run trained has no rank to choose");
        }
        if rank.is_none() {
            put.adapters = weights.saved_adapters()?;
        }
        Ok(put)
    }
}

/// What an average became.
struct Put {
    adapters: Vec<Saved>,
    left_out: f64,
    whole: f64,
}

/// An average that was written.
pub struct Written {
    /// The files.
    pub files: Vec<PathBuf>,
    /// For adapters of low rank: the norm of what the rank leaves out, as a share of the average's.
    pub left_out: Option<f64>,
}

/// Writes into `out` what the run would have written, had its average been this one; adapters at another rank, where one
/// is given. `options.out` is the run's folder.
pub fn rebuild(
    resolved: &Resolved,
    options: &Options,
    history: &History,
    rebuilt: &Rebuilt,
    rank: Option<usize>,
    out: &Path,
) -> std::result::Result<Written, Failed> {
    if let Convert::Fading(fading) = resolved.recipe.model.convert
        && history.images() < fading.over_images
    {
        let (now, over) = (history.images(), fading.over_images);
        let why = format!(
            "after {now} images the network was on its way to another output (model.convert.over_images = \
                           {over}), and no program could read it: take an average from then on, --at {over} or later"
        );
        return Err(Error::Msg(why).into());
    }
    let model = load(resolved, &options.device)?;
    let average = serde_json::json!({ "sigma_rel": rebuilt.profile.width(), "images": history.images() });
    let mut notes = BTreeMap::from([("sconce.ema".to_owned(), average.to_string())]);
    let data = Checkpoints::new(&options.out, resolved.recipe.train.keep).data()?;
    notes.extend(data.map(|data| ("sconce.data".to_owned(), data)));
    let lock = OnceLock::new();
    if let Ok(text) = std::fs::read_to_string(options.out.join(LOCK)) {
        lock.get_or_init(|| text); // runs of before there were locks have none
    }
    let job = Job { resolved, recipe: &resolved.recipe, options, model: &*model, notes, lock };
    let weights = Weights::prepare(&resolved.recipe, &*model)?;
    let put = history.put(rebuilt, &weights, rank)?;
    let files = match resolved.recipe.train.task {
        What::Denoiser => output::write(&job, &weights, &put.adapters, &BTreeMap::new(), out)?,
        What::Autoencoder => {
            AutoencoderTask::new(&job, &open_set(&job).map_err(Failed::Files)?).write(&weights, out)?
        }
    };
    let left_out = (put.whole > 0.0).then(|| (put.left_out / put.whole).sqrt());
    Ok(Written { files, left_out })
}

/// The run's own validation of each average, in order, and then of the weights themselves, where the run kept a checkpoint
/// of that time: the first value is the one to watch. `done` hears of each.
pub fn validate(
    resolved: &Resolved,
    options: &Options,
    history: &History,
    all: &[Rebuilt],
    observer: &mut dyn Observer,
    done: &mut dyn FnMut(usize, &[(String, f64)]),
) -> std::result::Result<(), Failed> {
    if resolved.recipe.train.task == What::Autoencoder {
        let why = "an autoencoder's run has no validation loss to rank by: write averages and compare what they decode";
        return Err(Error::Msg(why.into()).into());
    }
    if resolved.recipe.validation.is_none() {
        let why = "the run's recipe has no [validation] table: no picture was held out, so there is nothing to rank by";
        return Err(Error::Msg(why.into()).into());
    }
    let model = load(resolved, &options.device)?;
    let job = Job {
        resolved,
        recipe: &resolved.recipe,
        options,
        model: &*model,
        notes: BTreeMap::new(),
        lock: OnceLock::new(),
    };
    let weights = Weights::prepare(&resolved.recipe, &*model)?;
    let set = open_set(&job).map_err(Failed::Files)?;
    let mut task = DenoiserTask::new(&job, &set, &weights, std::iter::empty(), observer)?;
    for (i, rebuilt) in all.iter().enumerate() {
        history.put(rebuilt, &weights, None)?;
        done(i, &task.validate(history.images())?);
    }
    let checkpoints = Checkpoints::new(&options.out, resolved.recipe.train.keep);
    if let Some(at) = checkpoints.at(history.images())? {
        checkpoints.restore_weights(&at, &weights)?;
        done(all.len(), &task.validate(history.images())?);
    }
    Ok(())
}
