//! Averages of the weights.

mod constant;
mod none;

pub use constant::Constant;
pub use none::None;
