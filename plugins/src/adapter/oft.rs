//! Diagonal OFT: groups of a layer's outputs are rotated, W' = R W with R of orthogonal blocks on its diagonal, which keeps the
//! angles between the neurons of a group (Qiu et al. 2023, arXiv 2306.07280, section 3). The blocks come from free matrices by
//! Cayley's transform, R = (1 + Q)(1 - Q)⁻¹ of Q = G - Gᵀ. Named, and turned, as in LyCORIS, which ComfyUI loads.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor, bail};
use sconce_core::adapter::{Adapter, Attached, Saved};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::ops::{inverse, matmul};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::prelude::*;

use super::inputs;
use super::parts::{
    ALPHA, Params, along_channels, along_rows, at_strength, biased, fits, full, given, unbiased, weight_dims,
};

/// Rotations of groups of outputs (Qiu et al. 2023).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Oft {
    /// Outputs in a group: the largest divisor of the layer's outputs that is no larger than this, nor than the number of groups.
    pub block: usize,
    /// Bounds how far the rotations go: Q's norm is cut to this times the outputs. Zero: not at all.
    pub constraint: f64,
    /// Whether a factor for each output trains beside the rotations, which alone change no neuron's size.
    pub rescale: bool,
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
}

impl Default for Oft {
    fn default() -> Self {
        Self { block: 32, constraint: 0.0, rescale: false, targets: super::parts::attentions() }
    }
}

pub(super) const BLOCKS: &str = "oft_blocks";
pub(super) const RESCALE: &str = "rescale";

impl Adapter for Oft {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn tensors(&self) -> Vec<&'static str> {
        vec![BLOCKS, RESCALE]
    }

    fn knows(&self, tensors: &BTreeMap<String, Tensor>) -> bool {
        tensors.get(BLOCKS).is_some_and(|blocks| blocks.rank() == 3) || tensors.contains_key(inputs::SKEW)
    }

    fn elements(&self, _: &str, layer: Shape) -> usize {
        let outputs = weight_dims(layer)[0];
        outputs * divisor(outputs, self.block) + if self.rescale { outputs } else { 0 }
    }

    fn build(&self, store: &Store, layer: &Adapted, _: &Stream) -> Result<Attached> {
        let outputs = weight_dims(layer.shape())[0];
        let side = divisor(outputs, self.block);
        let blocks = Tensor::zeros((outputs / side, side, side), DType::F32, &layer.weight().device())?;
        let rescale = self.rescale.then(|| ones(layer)).transpose()?;
        Ok(attached(store.component(), layer, blocks, rescale, self.constraint, 1.0, diagonal))
    }

    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        constants: &BTreeMap<String, f64>,
        strength: f64,
    ) -> Result<Attached> {
        if tensors.contains_key(inputs::SKEW) {
            return inputs::oft(component, layer, tensors, constants, strength);
        }
        let place = format!("{component}.{}", layer.path());
        let (blocks, rescale) = (given(tensors, BLOCKS, &place)?, rescale(tensors, layer, &place)?);
        let (count, side, _) = blocks.dims3()?;
        fits(&place, &[count * side, blocks.dim(2)?], &[weight_dims(layer.shape())[0], side])?;
        let constraint = constants.get(ALPHA).copied().unwrap_or(0.0);
        Ok(attached(component, layer, blocks, rescale, constraint, strength, diagonal))
    }

    fn start(&self, store: &Store, layer: &Adapted, init: &Stream, from: &Saved) -> Result<Attached> {
        go_on(self.build(store, layer, init)?, from)
    }
}

/// A fresh rotation with a file's values. The bound is the recipe's: a file may have it in its matrices.
pub(super) fn go_on(fresh: Attached, from: &Saved) -> Result<Attached> {
    if !from.tensors.keys().eq(fresh.params.keys()) {
        let [theirs, ours] = [from.tensors.keys().cloned().collect(), fresh.params.keys().cloned().collect()]
            .map(|names: Vec<String>| names.join(", "));
        bail!("{}: the file's adapter has {theirs}; the recipe's {ours}", from.place());
    }
    for (short, param) in &fresh.params {
        let value = from.tensors[short].to_dtype(DType::F32)?;
        if value.dims() != param.shape().dims() {
            let (theirs, ours) = (value.dims().to_vec(), param.shape());
            bail!("{}: the file's `{short}` is {theirs:?}, the recipe's {:?}", from.place(), ours.dims());
        }
        param.set(&value)?;
    }
    Ok(fresh)
}

/// The largest divisor of a side that is no larger than `most`, nor than the number of blocks: LyCORIS reads no others.
fn divisor(side: usize, most: usize) -> usize {
    (1..=most.clamp(1, side)).rev().find(|d| side.is_multiple_of(*d) && d * d <= side).unwrap_or(1)
}

/// A factor of 1 for each output.
pub(super) fn ones(layer: &Adapted) -> Result<Tensor> {
    let dims = weight_dims(layer.shape());
    Tensor::ones([&dims[..1], vec![1; dims.len() - 1].as_slice()].concat(), DType::F32, &layer.weight().device())
}

/// A file's factors for the outputs, where it has them.
pub(super) fn rescale(tensors: &BTreeMap<String, Tensor>, layer: &Adapted, place: &str) -> Result<Option<Tensor>> {
    let Some(found) = tensors.get(RESCALE) else { return Ok(None) };
    fits(place, found.dims(), ones(layer)?.dims())?;
    Ok(Some(found.to_dtype(DType::F32)?))
}

/// The orthogonal matrices of free ones, `.. B B`, whose norm as a whole is cut to `bound` (zero: not at all).
fn cayley(free: &Tensor, bound: f64) -> Result<Tensor> {
    let mut q = (free - free.transpose(D::Minus1, D::Minus2)?)?;
    if bound > 0.0 {
        let norm = q.sqr()?.sum_all()?.sqrt()?;
        if f64::from(norm.to_scalar::<f32>()?) > bound {
            q = q.broadcast_div(&((norm + 1e-8)? / bound)?)?;
        }
    }
    let side = q.dim(D::Minus1)?;
    let one = Tensor::eye(side, DType::F32, q.device())?.broadcast_as(q.shape())?;
    // (1 + Q)(1 - Q)⁻¹ = 2 (1 - Q)⁻¹ - 1.
    (inverse(&(&one - q)?)? * 2.0)? - one
}

/// How orthogonal matrices R turn `T O`, outputs last.
type Turn = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// A rotation of a layer's outputs by these free matrices.
pub(super) fn attached(
    component: &str,
    layer: &Adapted,
    blocks: Tensor,
    rescale: Option<Tensor>,
    constraint: f64,
    strength: f64,
    turn: Turn,
) -> Attached {
    let there = rescale.is_some();
    let params = Params::of(layer, [(BLOCKS, blocks)].into_iter().chain(rescale.map(|r| (RESCALE, r))));
    let bound = constraint * weight_dims(layer.shape())[0] as f64;
    let acts = Rotation { blocks: params.get(BLOCKS), rescale: there.then(|| params.get(RESCALE)), bound, turn };
    params.attached(component, layer, at_strength(Arc::new(acts), strength), Some(constraint))
}

struct Rotation {
    blocks: Param,
    rescale: Option<Param>,
    bound: f64,
    turn: Turn,
}

impl Rotation {
    /// `.. O` with the outputs last, rotated.
    fn rotated(&self, y: &Tensor) -> Result<Tensor> {
        let r = cayley(&full(&self.blocks)?, self.bound)?.to_dtype(y.dtype())?;
        (self.turn)(&y.contiguous()?.flatten_to(y.rank() - 2)?, &r)?.reshape(y.shape())
    }
}

/// By blocks on the diagonal, `N B B`: in LyCORIS's files the rows of the weight are multiplied by Rᵀ.
fn diagonal(y: &Tensor, r: &Tensor) -> Result<Tensor> {
    let (count, side, _) = r.dims3()?;
    let groups = y.reshape(((), count, side))?.transpose(0, 1)?.contiguous()?; // N T B
    matmul(&groups, r)?.transpose(0, 1)?.contiguous()
}

impl LayerAdapter for Rotation {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let y = unbiased(base(x)?, layer)?;
        let mut y = match layer.shape() {
            Shape::Linear { .. } => self.rotated(&y)?,
            Shape::Conv { .. } => self.rotated(&y.permute((0, 2, 3, 1))?)?.permute((0, 3, 1, 2))?.contiguous()?,
        };
        if let Some(rescale) = &self.rescale {
            y = y.broadcast_mul(&along_channels(&full(rescale)?, layer)?.to_dtype(y.dtype())?)?;
        }
        biased(y, layer)
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let turned = weight.flatten_from(1)?.t()?; // I O
        let mut whole = self.rotated(&turned)?.t()?.contiguous()?.reshape(weight.shape())?;
        if let Some(rescale) = &self.rescale {
            whole = whole.broadcast_mul(&along_rows(&full(rescale)?, weight.rank())?)?;
        }
        Ok((whole, bias.cloned()))
    }
}

register!(Adapter, "oft", Oft);
