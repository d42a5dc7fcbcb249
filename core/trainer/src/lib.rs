//! The trainer. It knows no model and no plugin: it resolves a recipe into plugins, and runs the step.

pub mod adapter;
pub mod architecture;
pub mod check;
pub mod compare;
pub mod cond;
pub mod curves;
pub mod data;
pub mod digest;
pub mod distance;
pub mod embedded;
mod engine;
pub mod hub;
pub mod learning;
pub mod lock;
pub mod model;
pub mod network;
pub mod noise;
pub mod optimizer;
pub mod recipe;
pub mod sample;
pub mod solver;
pub mod step;
pub mod stratified;
pub mod testkit;
pub mod train;
pub mod words;

pub use cond::Cond;

/// An error as a user reads it: without the backtrace that candle writes behind its messages where one is captured.
pub fn message(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.split("\n   0: ").next().unwrap_or_default().trim_end().to_owned()
}
