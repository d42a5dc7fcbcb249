//! A run as who starts it sees it: how to run, what happens on the way, and how it ends.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{Device, Error, Result};

use super::preview::GroundLuminance;
use crate::data::Report;
use crate::lock::Lock;
use crate::model::Native;

/// How to run: what a command line says and a recipe does not.
pub struct Options {
    /// The run's folder.
    pub out: PathBuf,
    /// Where tensors live.
    pub device: Device,
    /// From the beginning or from the newest checkpoint.
    pub start: Start,
    /// Set to stop after the current step, with a checkpoint.
    pub stop: Arc<AtomicBool>,
    /// What the run is to depend on: where anything else is found, it does not start.
    pub lock: Option<Lock>,
}

/// Where a run starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At zero; a folder that holds checkpoints is refused.
    Fresh,
    /// At the newest checkpoint of the run's folder, or at zero if it has none.
    Resume,
    /// The same although the recipe or the pictures have changed: from there on it is another run.
    Changed,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// All images were seen; these files were written.
    Whole(Vec<PathBuf>),
    /// It was stopped; `--resume` goes on from this checkpoint.
    Stopped(PathBuf),
}

/// How a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The model or the pictures: bad or missing files.
    #[error(transparent)]
    Files(Error),
    /// Anything else.
    #[error(transparent)]
    Run(#[from] Error),
}

/// What happened.
pub enum Event<'a> {
    /// The model is loaded: what it says about itself, scalars that train, and all of them.
    Loaded(&'a Native, usize, usize),
    /// What is to be known of how the model works here.
    Remark(&'a str),
    /// The data is read.
    Data(&'a Report),
    /// Pictures and captions are being encoded: done, of how many.
    Encoding(usize, usize),
    /// The run goes on from a checkpoint, at so many images; what has changed since.
    Resumed(u64, &'a [String]),
    /// An update was made.
    Step(&'a StepReport),
    /// The loss on held-out pictures: named values, the first of which is the one to watch.
    Validated(u64, &'a [(String, f64)]),
    /// Pictures were drawn.
    Drawn(u64, &'a Path),
    /// Grounds were measured in drawn pictures.
    Measured(u64, &'a [GroundLuminance]),
    /// The averages were written down.
    Snapshot(u64, &'a Path),
    /// A checkpoint was written.
    Saved(u64, &'a Path),
}

/// One update.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Pictures seen after it, and in the whole run.
    pub images: u64,
    /// Pictures in the whole run.
    pub images_total: u64,
    /// The weighted loss, mean over the update's pictures.
    pub loss: f64,
    /// Named parts of it: the error by log-SNR.
    pub parts: Vec<(&'static str, f64)>,
    /// Norm of the gradient before the clip.
    pub grad_norm: f64,
    /// The base learning rate times the schedule's factor.
    pub lr: f64,
    /// Since the last update.
    pub images_per_sec: f64,
}

/// Sees what happens. An error stops the run.
pub trait Observer {
    /// Called for each event, in order.
    fn see(&mut self, event: &Event) -> Result<()>;
}
