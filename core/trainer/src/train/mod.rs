//! A run, from a resolved recipe to the files that other programs load. The loop is a loop: it draws batches, takes
//! steps, and tells an [`Observer`] what happened; logs, progress and pictures are the observer's matter.

mod autoencoder;
mod averages;
mod card;
mod checkpoint;
mod denoiser;
mod event;
mod gradients;
mod log;
mod memory;
mod mix;
mod output;
mod preview;
mod rebuild;
mod release;
mod remembering;
mod run;
mod snapshots;
mod tokens;
mod weights;

pub use event::{Ended, Event, Failed, Observer, Options, Start, StepReport};
pub use log::Logs;
pub use memory::{peak_bytes, resident_bytes};
pub use mix::Mix;
pub use output::{Header, LOCK, RECIPE, header};
pub use preview::GroundLuminance;
pub use rebuild::{History, Rebuilt, Written, rebuild, validate};
pub use run::run;
pub use weights::{Part, matches, parts};
