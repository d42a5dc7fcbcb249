//! Kernels on slices: no tensor, no graph. Each is written for `f32` and `f64` alike (the second for gradient checks)
//! and splits its work over the rayon pool. Half-precision operands are widened while they are packed.

pub mod attention;
pub mod conv;
pub mod elementwise;
pub mod gemm;
pub mod modulate;
pub mod norm;
pub mod rotary;
pub mod softmax;
