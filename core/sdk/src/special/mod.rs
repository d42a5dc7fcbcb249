//! The special functions that distributions need and the standard library does not have.

pub mod beta;
pub mod normal;
