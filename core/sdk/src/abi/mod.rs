//! The C ABI of plugins: what crosses between the program and a library that it loads, in either direction.
//!
//! Nothing of Rust crosses: no trait object, no allocation, no panic, no tensor of candle's. What crosses is
//!
//! - **tables**: `#[repr(C)]` structs of function pointers whose first field is their own size. A reader looks at no field
//!   beyond the size that the writer gave, and takes an absent one, or a null function, for the default in its
//!   documentation. So tables grow at their ends, and an older library and a newer program understand each other;
//! - **arrays** of `f64` with their length, so that one call serves a batch; for backbones, views of `f32` memory with a
//!   shape ([`SconceTensor`]), which may be a GPU's;
//! - **text** as a pointer and a length, valid until the call returns. Who has text or numbers of unknown length to give
//!   puts them into a sink of the one who asked ([`SconceText`], [`SconceNumbers`], [`SconceError`]): each side frees what
//!   it made, and nothing else;
//! - **objects**: a table and a handle, freed by the table's `drop`.
//!
//! The tables are the same both ways. A sampler in a library asks the program's schedule through a [`SconceSchedule`], and
//! the program asks a schedule of the library through one too; a plugin that wraps another has it made by the program
//! ([`SconceHost::make`]), wherever that one is from.
//!
//! A library has one symbol, [`ENTRY`], which this crate itself defines: a plugin crate that says
//! [`export!`](crate::export) names what the symbol lists. So any number of such crates may be linked into one program,
//! where the symbol is there once and does nothing. `core/sdk/include/sconce_plugin.h` is generated from the declarations
//! here and is what a plugin in another language is written against.
//!
//! A call that fails says so by its status and puts the reason into the caller's [`SconceError`]; a panic is such a failure.
//! Traits like `Schedule` have no room for one, so it becomes NaN and a report in [`crate::health`], which whoever runs the
//! plugins asks.

mod declare;

mod backbone;
mod basic;
mod crossing;
mod cuda;
mod distance;
mod ema;
mod foreign;
mod foreign_cuda;
mod foreign_network;
mod guard;
mod guest;
pub mod header;
mod host;
mod learned;
mod library;
mod lr;
mod objective;
mod passes;
mod schedule;
mod sink;
mod spacing;
mod table;
mod tensor;
mod timesteps;
mod weighting;

pub use backbone::SconceBackbone;
pub use basic::{SconceLevel, SconceNoise, SconceObject, SconceObservation, SconceStatus, SconceStr};
pub use crossing::{CROSSING, Crossing, crossing};
pub use cuda::{SconceCuda, SconceCudaBackbone};
pub use declare::{Described, Description, Field};
pub use distance::SconceDistance;
pub use ema::SconceEma;
pub use foreign::Who;
pub use guest::{Exported, sconce_plugin};
pub use host::host_table;
pub use learned::{SconceSamplerState, SconceWeightingState};
pub use library::{SconceHost, SconceLibrary, SconcePlugin};
pub use lr::SconceLr;
pub use objective::SconceObjective;
pub use schedule::SconceSchedule;
pub use sink::{Report, SconceError, SconceNumbers, SconceText, TextBuffer};
pub use spacing::SconceSpacing;
pub use table::{Table, TableError, read};
pub use tensor::{SCONCE_F32, SCONCE_MEMORY_CUDA, SCONCE_MEMORY_HOST, SconceTensor, SconceTensors};
pub use timesteps::SconceTimesteps;
pub use weighting::SconceWeighting;

pub(crate) use guest::made_by_host;

/// Libraries and programs of one major version understand each other. It changes when a table's fields do, other than by
/// new ones at the end.
pub const ABI_MAJOR: u32 = 1;
/// Counts the fields added at the ends of tables: what a side lacks, it does without.
pub const ABI_MINOR: u32 = 1;
/// The symbol of a library.
pub const ENTRY: &str = "sconce_plugin";

/// A call did what it should.
pub const SCONCE_OK: SconceStatus = 0;
/// A call did not; the reason is in the [`SconceError`] that it was given. Any status but 0 is taken so.
pub const SCONCE_FAILED: SconceStatus = 1;
/// It failed by a panic, so that what it was called on may be broken.
pub const SCONCE_PANICKED: SconceStatus = 2;
