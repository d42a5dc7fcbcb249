//! Layers: operations with named weights. Linear and convolution have a place for adapters.

mod adapted;
mod conv;
mod embedding;
mod linear;
mod norm;

pub use adapted::{Adapted, LayerAdapter, Shape};
pub use conv::Conv2d;
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
