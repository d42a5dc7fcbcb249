//! The crates that `sconce new plugin` begins for kinds that work on tensors: each compiles as it stands, and keeps the laws of
//! its kind, by its own test. Those that see the SDK alone are built as crates in tests/plugins.rs.

use sconce_plugins as _;

#[path = "../src/cli/new/adapter.rs.txt"]
mod adapter;
#[path = "../src/cli/new/backbone.rs.txt"]
mod backbone;
#[path = "../src/cli/new/noise.rs.txt"]
mod noise;
#[path = "../src/cli/new/optimizer.rs.txt"]
mod optimizer;
#[path = "../src/cli/new/solver.rs.txt"]
mod solver;
