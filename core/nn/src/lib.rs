//! Tensor operations and layers on candle that train correctly.
//!
//! Candle's own fused operations cut the autograd graph without an error, compute gradients for frozen weights, and
//! run convolutions far below the matmul rate. Everything that a model of sconce computes with goes through [`ops`]
//! instead: each operation has one entry point, a gradient that is checked against finite differences and PyTorch, and
//! no cost for what does not train. [`layers`] gives those operations weights, names and a place for adapters.
//!
//! The pieces, bottom up: [`cpu`] (kernels on slices), [`function`] (how a kernel enters candle's graph), [`ops`],
//! [`store`] (named parameters), [`layers`], [`checkpoint`] (recompute instead of keep), [`rng`] (random numbers as a
//! pure function of their purpose).

pub mod checkpoint;
pub mod cpu;
pub mod function;
pub mod gradcheck;
pub mod held;
pub mod inplace;
pub mod kernels;
pub mod layers;
pub mod ops;
pub mod param;
pub mod quant;
pub mod rng;
pub mod rounding;
pub mod small;
pub mod store;
mod uses;
pub mod weights;

pub use candle_core::{self as candle, DType, Device, Result, Tensor, Var};
pub use held::Held;
pub use layers::{Adapted, Conv2d, Embedding, GroupNorm, LayerNorm, Linear, RmsNorm};
pub use param::Param;
pub use store::{Scope, Store};
