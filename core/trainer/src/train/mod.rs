//! A run, from a resolved recipe to the files that other programs load. The loop is a loop: it draws batches, takes
//! steps, and tells an [`Observer`] what happened; logs, progress and pictures are the observer's matter.

mod autoencoder;
mod checkpoint;
mod denoiser;
mod gradients;
mod log;
mod memory;
mod output;
mod preview;
mod release;
mod run;
mod weights;

pub use log::Logs;
pub use memory::{peak_bytes, resident_bytes};
pub use output::{Header, header};
pub use preview::GroundLuminance;
pub use run::{Ended, Event, Failed, Observer, Options, Start, StepReport, run};
pub use weights::matches;
