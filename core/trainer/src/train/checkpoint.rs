//! Checkpoints: everything that a run needs to go on as if it had not stopped. A checkpoint is a folder that appears
//! whole, by a rename, or not at all. Random numbers and the order of the data are functions of the images seen, so
//! the weights, the optimizer's state, the averages, what was learned beside them and a few counters are all there is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Error, Result, Tensor, bail};
use sconce_nn::weights::{WeightFiles, save, write_atomic};
use serde::{Deserialize, Serialize};

use super::averages::Averages;
use super::event::Start;
use super::weights::Weights;
use crate::optimizer::OptimizerState;

/// The counters of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Pictures trained on.
    pub images: u64,
    /// Updates made.
    pub updates: u64,
}

/// What a run is made of: two runs of the same are the same run.
pub struct MadeOf {
    /// The resolved recipe.
    pub recipe: String,
    /// The identity of its pictures and captions.
    pub data: String,
}

/// The folder of a run's checkpoints.
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// A folder that is removed in the end, unless it was renamed: a full disk is not filled with what cannot be used.
struct Unfinished<'a>(&'a Path);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

const PROGRESS: &str = "progress.json";
const RECIPE: &str = "recipe.toml";
const DATA: &str = "data.sha256";
const WEIGHTS: &str = "weights.safetensors";
const AVERAGES: &str = "averages.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const LEARNED: &str = "learned.safetensors";

impl Checkpoints {
    /// In `run`'s folder, keeping the newest `keep`.
    pub fn new(run: &Path, keep: usize) -> Self {
        Self { folder: run.join("checkpoints"), keep: keep.max(1) }
    }

    /// Writes one, and removes those beyond the number kept.
    pub fn save(
        &self,
        at: Progress,
        of: &MadeOf,
        weights: &Weights,
        averages: &Averages,
        optimizer: &dyn OptimizerState,
        learned: &BTreeMap<String, Tensor>,
    ) -> Result<PathBuf> {
        let to = self.folder.join(format!("{:012}", at.images));
        let tmp = self.folder.join(format!("{:012}.tmp", at.images));
        let _ = std::fs::remove_dir_all(&tmp);
        let _unfinished = Unfinished(&tmp);
        let none = BTreeMap::new();
        let named = weights.params.iter().map(|p| (p.name.clone(), p.var.as_tensor().clone())).collect();
        save(&tmp.join(WEIGHTS), &named, &none)?;
        if !averages.is_empty() {
            save(&tmp.join(AVERAGES), &averages.named(), &none)?;
        }
        save(&tmp.join(OPTIMIZER), &optimizer.save()?, &none)?;
        if !learned.is_empty() {
            save(&tmp.join(LEARNED), learned, &none)?;
        }
        let progress = serde_json::to_vec_pretty(&at).map_err(|e| Error::Msg(e.to_string()))?;
        write_atomic(&tmp.join(RECIPE), |out| out.write_all(of.recipe.as_bytes()))?;
        write_atomic(&tmp.join(DATA), |out| out.write_all(of.data.as_bytes()))?;
        write_atomic(&tmp.join(PROGRESS), |out| out.write_all(&progress))?;
        let _ = std::fs::remove_dir_all(&to);
        std::fs::rename(&tmp, &to).map_err(|e| Error::Msg(format!("{}: {e}", to.display())))?;
        for old in self.all()?.into_iter().rev().skip(self.keep) {
            let _ = std::fs::remove_dir_all(old);
        }
        Ok(to)
    }

    /// The identity of the data that the newest checkpoint was made of.
    pub fn data(&self) -> Result<Option<String>> {
        let Some(newest) = self.newest()? else { return Ok(None) };
        let file = newest.join(DATA);
        std::fs::read_to_string(&file).map(Some).map_err(|e| Error::Msg(format!("{}: {e}", file.display())))
    }

    /// The newest whole checkpoint.
    pub fn newest(&self) -> Result<Option<PathBuf>> {
        Ok(self.all()?.pop())
    }

    /// Puts the checkpoint of so many images aside, if there is one, since its weights give no number; answers the newest
    /// of the rest.
    pub fn set_aside(&self, images: u64) -> Result<Option<PathBuf>> {
        let bad = self.folder.join(format!("{images:012}"));
        if bad.is_dir() {
            let to = bad.with_extension("not-finite");
            let _ = std::fs::remove_dir_all(&to);
            std::fs::rename(&bad, &to).map_err(|e| Error::Msg(format!("{}: {e}", to.display())))?;
        }
        self.newest()
    }

    /// Puts a checkpoint back, after making sure that it is of this recipe and these pictures; with [`Start::Changed`] what
    /// has changed is answered instead.
    pub fn restore(
        &self,
        from: &Path,
        of: &MadeOf,
        start: Start,
        weights: &Weights,
        averages: &Averages,
        optimizer: &mut dyn OptimizerState,
    ) -> Result<(Progress, Vec<String>)> {
        let read = |name: &str| {
            let path = from.join(name);
            std::fs::read_to_string(&path).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))
        };
        let mut changed = Vec::new();
        changed
            .extend(first_difference(&read(RECIPE)?, &of.recipe).map(|what| format!("the recipe has changed: {what}")));
        if read(DATA)? != of.data {
            changed.push("the pictures, their captions or what is held out have changed".to_owned());
        }
        if start != Start::Changed && !changed.is_empty() {
            bail!(
                "{}: since the checkpoint was made, {}. Going on would be another run: put that back, start a new run with \
                 another --out, or go on nevertheless with --resume --changed",
                from.display(),
                changed.join("; ")
            );
        }
        let progress: Progress = serde_json::from_str(&read(PROGRESS)?)
            .map_err(|e| Error::Msg(format!("{}: {e}", from.join(PROGRESS).display())))?;
        self.restore_weights(from, weights)?;
        if !averages.is_empty() {
            let whole = averages.restore(&read_tensors(&from.join(AVERAGES))?);
            whole.map_err(|e| Error::Msg(format!("{}: {e}", from.display())))?;
        }
        optimizer.restore(&read_tensors(&from.join(OPTIMIZER))?)?;
        Ok((progress, changed))
    }

    /// Puts a checkpoint's weights back, and nothing else.
    pub fn restore_weights(&self, from: &Path, weights: &Weights) -> Result<()> {
        let values = read_tensors(&from.join(WEIGHTS))?;
        for p in &weights.params {
            let Some(value) = values.get(&p.name) else {
                bail!("{}: the checkpoint has no `{}`", from.display(), p.name);
            };
            p.var.set(&value.to_dtype(p.var.dtype())?.to_device(p.var.device())?)?;
        }
        Ok(())
    }

    /// The checkpoint of so many images, if it was kept.
    pub fn at(&self, images: u64) -> Result<Option<PathBuf>> {
        let wanted = self.folder.join(format!("{images:012}"));
        Ok(self.all()?.into_iter().find(|path| *path == wanted))
    }

    /// What the run learned beside the weights, to the bit; nothing where it learns nothing.
    pub fn learned(&self, from: &Path) -> Result<BTreeMap<String, Tensor>> {
        let path = from.join(LEARNED);
        if path.is_file() { read_tensors(&path) } else { Ok(BTreeMap::new()) }
    }

    /// The whole checkpoints, oldest first. Leftovers of a crash end in `.tmp`, what was put aside in `.not-finite`; neither
    /// counts.
    fn all(&self) -> Result<Vec<PathBuf>> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Ok(Vec::new()) };
        let mut all: Vec<PathBuf> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_none() && p.join(PROGRESS).is_file())
            .collect();
        all.sort();
        Ok(all)
    }
}

/// Each in its stored type.
fn read_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let files = WeightFiles::open(&[path]).map_err(|e| {
        let what = crate::message(&e);
        Error::Msg(format!("{what}: the checkpoint is damaged; remove its folder to go on from the one before"))
    })?;
    files.keys().map(|k| Ok((k.to_owned(), files.stored(k, &Device::Cpu)?))).collect()
}

/// The first line in which two resolved recipes differ, for the error.
fn first_difference(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let (mut table, mut olds) = ("", old.lines());
    for line in new.lines() {
        if line.starts_with('[') {
            table = line;
        }
        let before = olds.next().unwrap_or("(nothing)");
        if before != line {
            return Some(format!("in {table} it had `{before}`, now `{line}`"));
        }
    }
    olds.next().map(|before| format!("in {table} it had `{before}`, now nothing"))
}
