//! The built-in plugins: one folder a kind, one file a plugin, named by its word in recipes.
//!
//! Everything but `solver`, `adapter`, `optimizer` and `noise` is `f64 -> f64`. A program that only names this package in its
//! manifest links none of it: `use sconce_plugins as _;` does.

pub mod adapter;
pub mod distance;
pub mod ema;
pub mod lr;
pub mod noise;
pub mod objective;
pub mod optimizer;
mod range;
pub mod schedule;
pub mod solver;
pub mod spacing;
pub mod timesteps;
pub mod weighting;
