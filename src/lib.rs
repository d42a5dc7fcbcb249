//! The facade: the layers under one name, the built-in plugins, families and recipes linked in, and the command line.

#![warn(missing_docs)]

mod builtin;
pub mod cli;
pub mod memory;
pub mod plot;
mod quickstart;

pub use sconce_core as core;
pub use sconce_nn as nn;
pub use sconce_sdk as sdk;

// A crate that is only in Cargo.toml registers nothing.
use sconce_expr as _;
use sconce_models as _;
use sconce_plugins as _;
