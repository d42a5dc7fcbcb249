//! The recipe: one file that says everything about a run, resolved from layers into plugins.

mod tables;

pub use tables::*;
