//! A difference of the weight's own size, W' = W + D, and of the bias: a full fine-tune of chosen layers that leaves the model
//! as it is and is one file beside it. Named as in LyCORIS (`full`), which ComfyUI loads.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use sconce_core::adapter::{Adapter, Attached};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::prelude::*;

use super::parts::{Params, along_channels, fits, full, given, weight_dims};

/// Differences of the layers' own size, and of their biases.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FullDifference {
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
}

impl Default for FullDifference {
    fn default() -> Self {
        Self { targets: super::parts::attentions() }
    }
}

const WEIGHT: &str = "diff";
const BIAS: &str = "diff_b";

impl Adapter for FullDifference {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn tensors(&self) -> Vec<&'static str> {
        vec![WEIGHT, BIAS]
    }

    fn elements(&self, _: &str, layer: Shape) -> usize {
        weight_dims(layer).iter().product()
    }

    fn build(&self, store: &Store, layer: &Adapted, _: &Stream) -> Result<Attached> {
        let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &layer.weight().device());
        let mut tensors = vec![(WEIGHT, zeros(&weight_dims(layer.shape()))?)];
        if let Some(bias) = layer.bias() {
            tensors.push((BIAS, zeros(bias.shape().dims())?));
        }
        Ok(attached(store.component(), layer, tensors, 1.0))
    }

    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        _: &BTreeMap<String, f64>,
        strength: f64,
    ) -> Result<Attached> {
        let place = format!("{component}.{}", layer.path());
        let dims = weight_dims(layer.shape());
        let mut all = Vec::new();
        for (short, dims) in [(WEIGHT, dims.as_slice()), (BIAS, &dims[..1])] {
            if tensors.contains_key(short) {
                let value = given(tensors, short, &place)?;
                fits(&place, value.dims(), dims)?;
                all.push((short, value));
            }
        }
        Ok(attached(component, layer, all, strength))
    }
}

fn attached(component: &str, layer: &Adapted, tensors: Vec<(&'static str, Tensor)>, strength: f64) -> Attached {
    let there: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
    let params = Params::of(layer, tensors.iter().cloned());
    let [weight, bias] = [WEIGHT, BIAS].map(|name| there.contains(&name).then(|| params.get(name)));
    params.attached(component, layer, Arc::new(Difference { weight, bias, strength }), None)
}

struct Difference {
    weight: Option<Param>,
    bias: Option<Param>,
    strength: f64,
}

impl LayerAdapter for Difference {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let mut y = base(x)?;
        if let Some(weight) = &self.weight {
            let added = layer.apply(x, &weight.tensor()?, None)?;
            y = (y + if self.strength == 1.0 { added } else { (added * self.strength)? })?;
        }
        if let Some(bias) = &self.bias {
            let bias = along_channels(&(full(bias)? * self.strength)?, layer)?;
            y = y.broadcast_add(&bias.to_dtype(y.dtype())?)?;
        }
        Ok(y)
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let with = |was: Option<&Tensor>, more: &Option<Param>| match (was, more) {
            (was, None) => Ok(was.cloned()),
            (None, Some(more)) => Ok(Some((full(more)? * self.strength)?)),
            (Some(was), Some(more)) => Ok::<_, candle_core::Error>(Some((was + (full(more)? * self.strength)?)?)),
        };
        let whole = with(Some(weight), &self.weight)?.unwrap_or_else(|| weight.clone());
        Ok((whole, with(bias, &self.bias)?))
    }
}

register!(Adapter, "full-difference", FullDifference);
