//! Formulas as plugins.

pub mod engine;
