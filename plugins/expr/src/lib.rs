//! A formula as a plugin: `type = "expr"` for every scalar kind, so that a new idea travels inside a recipe, with no code
//! and no risk, on every platform.
//!
//! ```
//! use sconce_expr as _;
//! use sconce_sdk::{Choice, Weighting};
//!
//! let table = serde_json::json!({ "type": "expr", "on_x0": "min(snr, gamma)", "params": { "gamma": 5.0 } });
//! let weighting = Choice::<dyn Weighting>::from_table(&table).unwrap();
//! assert_eq!(weighting.on_x0(f64::ln(8.0)), 5.0);
//! ```
//!
//! One file a kind; [`engine`] has the language. Each kind checks its formulas on a grid of their domain when the recipe is
//! read, and says the point at which one breaks.

mod check;
mod density;
pub mod distance;
pub mod ema;
pub mod engine;
mod language;
mod levels;
pub mod lr;
pub mod objective;
mod root;
pub mod schedule;
pub mod spacing;
pub mod timesteps;
pub mod weighting;
