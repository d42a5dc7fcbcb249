//! What a plugin author depends on: the scalar traits of a training run, the registry, and the testkit with the laws.
//!
//! A plugin is a documented parameter struct, an `impl` of one trait, one [`register!`] line, and one test:
//!
//! ```
//! use sconce_sdk::prelude::*;
//!
//! /// Clamp the x0 weight at gamma (Hang et al. 2023).
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields, default)]
//! pub struct Clamp {
//!     /// Upper bound on the SNR.
//!     pub gamma: f64,
//! }
//!
//! impl Default for Clamp {
//!     fn default() -> Self {
//!         Self { gamma: 5.0 }
//!     }
//! }
//!
//! impl Weighting for Clamp {
//!     fn on_x0(&self, log_snr: f64) -> f64 {
//!         log_snr.exp().min(self.gamma)
//!     }
//! }
//!
//! register!(Weighting, "clamp", Clamp);
//! ```
//!
//! Linked into a program, the crate needs no more (`use my_plugin as _;`). With `crate-type = ["rlib", "cdylib"]` and one more
//! line, [`export!`], it is also a library that a program loads: the same file, the same numbers to the bit.
//!
//! Everything here is `f64 -> f64` and knows no tensor library, so that it compiles in seconds, is tested without one,
//! and has a stable C ABI. Time runs from data to noise: t = 0 is data and t = 1 is noise, for every family.

pub mod abi;
pub mod average;
pub mod choice;
pub mod cuda;
pub mod discrete;
pub mod health;
pub mod kinds;
pub mod laws;
pub mod learned;
pub mod names;
pub mod network;
pub mod noise;
pub mod registry;
pub mod special;
pub mod testkit;

pub use average::{Profile, Snapshots, Stored, Track};
pub use choice::{Choice, Folded};
pub use cuda::{Cuda, CudaBuffer, CudaGradients, CudaNetwork, CudaTape};
pub use discrete::Discrete;
pub use kinds::{Distance, EmaStrategy, LrSchedule, Objective, Schedule, Spacing, TimestepSampler, Weighting};
pub use learned::{Learned, Observation, SamplerState, WeightingState};
pub use network::{Buffer, Gradients, Network, Parameter, Tape};
pub use noise::{Level, Noise};
pub use registry::{Kind, Origin, ParamError, Plugin};

#[doc(hidden)]
pub use inventory;
pub use {schemars, serde, serde_json};

/// What a plugin file imports.
pub mod prelude {
    pub use crate::{
        Choice, Distance, EmaStrategy, Learned, Level, LrSchedule, Noise, Objective, Observation, Profile,
        SamplerState, Schedule, Snapshots, Spacing, Stored, TimestepSampler, Track, Weighting, WeightingState, export,
        register,
    };
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
}
