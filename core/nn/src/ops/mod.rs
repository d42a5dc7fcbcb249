//! The differentiable operations: each takes and gives candle tensors, has the right gradient for every input that
//! trains, and does no work for inputs that do not. On the CPU they run the kernels of [`crate::cpu`]; on a GPU they
//! are composed of candle's device operations behind the same gradient.

pub mod activation;
pub mod attention;
pub mod conv;
mod device;
pub mod inverse;
pub mod linear;
mod memory;
pub mod modulate;
pub mod norm;
pub mod rotary;
pub mod softmax;
pub mod upsample;
mod widen;

/// The tensor on the CPU, outside any graph.
pub(crate) fn on_cpu(tensor: &candle_core::Tensor) -> candle_core::Result<candle_core::Tensor> {
    tensor.detach().to_device(&candle_core::Device::Cpu)
}

pub use activation::{geglu, gelu, gelu_tanh, quick_gelu, silu};
pub use attention::{Mask, attention, attention_heads};
pub use conv::{Conv, conv2d};
pub use inverse::inverse;
pub use linear::{linear, linear_held, linear_onto, matmul};
pub use modulate::{gated_sum, modulate};
pub use norm::{group_norm, group_norm_silu, layer_norm, rms_norm};
pub use rotary::rotary;
pub use softmax::softmax;
pub use upsample::upsample_nearest;
