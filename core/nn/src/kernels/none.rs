//! A build without CUDA has no kernels.

use candle_core::{DType, Device, Result, Shape, Tensor};

use super::{Act, AdamW, Norm, Plus, Sees};

type Maybe<T> = Result<Option<T>>;

pub(crate) fn keep_memory(_: &Device) -> Result<()> {
    Ok(())
}
pub(crate) fn act(_: Act, _: &Tensor) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn act_grad(_: Act, _: &Tensor, _: &Tensor) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn geglu(_: &Tensor) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn geglu_grad(_: &Tensor, _: &Tensor) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn softmax(_: &Tensor, _: Sees) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn softmax_grad(_: &Tensor, _: &Tensor, _: f64) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn norm(_: &Tensor, _: Norm, _: Option<&Tensor>, _: Option<&Tensor>) -> Maybe<(Tensor, Tensor)> {
    Ok(None)
}
pub(crate) fn norm_grad(
    _: &Tensor,
    _: &Tensor,
    _: &Tensor,
    _: Norm,
    _: Option<&Tensor>,
    _: Option<&Tensor>,
) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn norm_params_grad(
    _: &Tensor,
    _: &Tensor,
    _: &Tensor,
    _: Norm,
    _: Option<&Tensor>,
    _: Option<&Tensor>,
) -> Maybe<(Tensor, Tensor)> {
    Ok(None)
}
pub(crate) fn scaled(_: &Tensor, _: &Tensor, _: f64, _: Plus) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn summed(_: &Tensor, _: Option<&Tensor>) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn add_bias(_: &Tensor, _: &Tensor, _: usize) -> Result<bool> {
    Ok(false)
}
pub(crate) fn add_onto(_: &Tensor, _: &Tensor) -> Result<bool> {
    Ok(false)
}
pub(crate) fn swapped(_: &Tensor) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn square_sum(_: &Tensor) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn rotary(_: &Tensor, _: &Tensor, _: &Tensor, _: f64) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn unpack(_: &Tensor, _: &Tensor, _: &Tensor, _: f32, _: &Shape, _: DType) -> Maybe<Tensor> {
    Ok(None)
}
pub(crate) fn update_adamw(_: &Tensor, _: &Tensor, _: &Tensor, _: &Tensor, _: &AdamW) -> Result<bool> {
    Ok(false)
}
