//! DoRA: the weight as a magnitude for each output and a direction, of which the magnitude trains by itself and the direction
//! by an addition: W' = m (W + D) / |W + D| (Liu et al. 2024, arXiv 2402.09353, equation 5). The norm counts as constant in the
//! gradient (section 4.3).

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::adapter::{Adapter, Attached, Saved, of_tensors};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::Choice;
use sconce_sdk::prelude::*;

use super::parts::{along_channels, along_columns, along_rows, at_strength, biased, fits, full, unbiased};

/// A magnitude for each output beside what another adapter adds (Liu et al. 2024).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Dora {
    /// What is added to the directions: `lora`, `loha` or `lokr`, which also says on which layers.
    pub of: Choice<dyn Adapter>,
}

impl Default for Dora {
    fn default() -> Self {
        Self { of: Choice::named("lora").expect("LoRA is built in, and so are its defaults") }
    }
}

/// The magnitudes' short name.
const MAGNITUDE: &str = "lora_magnitude_vector";

impl Adapter for Dora {
    fn targets(&self) -> &[String] {
        self.of.targets()
    }

    fn patterns(&self) -> Vec<&String> {
        self.of.patterns()
    }

    fn lr_factor(&self, short: &str) -> f64 {
        self.of.lr_factor(short)
    }

    fn tensors(&self) -> Vec<&'static str> {
        [self.of.tensors(), vec![MAGNITUDE]].concat()
    }

    fn knows(&self, tensors: &BTreeMap<String, Tensor>) -> bool {
        tensors.contains_key(MAGNITUDE)
    }

    fn elements(&self, place: &str, layer: Shape) -> usize {
        self.of.elements(place, layer) + super::parts::sides(layer).0
    }

    fn build(&self, store: &Store, layer: &Adapted, init: &Stream) -> Result<Attached> {
        let inner = self.of.build(store, layer, init)?;
        if inner.file.is_some() {
            bail!("adapter.of: a magnitude goes on additions that start from nothing: leave its init at `zero`");
        }
        let weight = store.exact(layer.weight())?;
        let magnitude = norms(&weight, Axis::Outputs)?;
        attached(inner, layer, magnitude, 1.0)
    }

    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        constants: &BTreeMap<String, f64>,
        strength: f64,
    ) -> Result<Attached> {
        let place = format!("{component}.{}", layer.path());
        let mut rest = tensors.clone();
        let Some(magnitude) = rest.remove(MAGNITUDE) else { bail!("the file has no `{MAGNITUDE}` for {place}") };
        let path = layer.path().to_owned();
        let saved = Saved { component: component.to_owned(), path, tensors: rest, constants: constants.clone() };
        let inner = of_tensors(&saved)?.restore(component, layer, &saved.tensors, constants, 1.0)?;
        attached(inner, layer, magnitude.to_dtype(DType::F32)?, strength)
    }
}

/// Along which channels the magnitudes are.
#[derive(Clone, Copy, PartialEq)]
enum Axis {
    /// One an output, `O`.
    Outputs,
    /// One an input, `1 I`, as some files have: such a layer works, and none is made.
    Inputs,
}

/// The norm of each row or column of a weight.
fn norms(weight: &Tensor, axis: Axis) -> Result<Tensor> {
    let squares = weight.sqr()?;
    match axis {
        Axis::Outputs => squares.flatten_from(1)?.sum(1)?.sqrt(),
        Axis::Inputs => squares.transpose(0, 1)?.contiguous()?.flatten_from(1)?.sum(1)?.sqrt()?.unsqueeze(0),
    }
}

fn attached(inner: Attached, layer: &Adapted, magnitude: Tensor, strength: f64) -> Result<Attached> {
    let place = format!("{}.{}", inner.component, layer.path());
    let weight = layer.weight().shape();
    let (axis, needed) = match magnitude.rank() {
        1 => (Axis::Outputs, vec![weight.dims()[0]]),
        _ => (Axis::Inputs, vec![1, weight.dims()[1]]),
    };
    fits(&place, magnitude.dims(), &needed)?;
    let magnitude = Param::new(format!("{}.{MAGNITUDE}", layer.path()), magnitude.contiguous()?);
    let acts = Magnitude { of: inner.layer.clone(), magnitude: magnitude.clone(), axis };
    let mut all = inner;
    all.layer = at_strength(Arc::new(acts), strength);
    all.params.insert(MAGNITUDE.to_owned(), magnitude);
    all.mean = None;
    Ok(all)
}

struct Magnitude {
    of: Arc<dyn LayerAdapter>,
    magnitude: Param,
    axis: Axis,
}

impl Magnitude {
    /// m / |W + D|, the norm as a constant.
    fn factor(&self, directions: &Tensor) -> Result<Tensor> {
        full(&self.magnitude)? / norms(&directions.detach(), self.axis)?
    }
}

impl LayerAdapter for Magnitude {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let weight = layer.weight().tensor()?.detach().to_dtype(DType::F32)?;
        let (directions, _) = self.of.merged(&weight, None)?;
        let factor = along_channels(&self.factor(&directions)?, layer)?;
        drop(directions);
        if self.axis == Axis::Inputs {
            return self.of.forward(&x.broadcast_mul(&factor.to_dtype(x.dtype())?)?, layer, base);
        }
        let y = unbiased(self.of.forward(x, layer, base)?, layer)?;
        biased(y.broadcast_mul(&factor.to_dtype(y.dtype())?)?, layer)
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let (directions, bias) = self.of.merged(weight, bias)?;
        let factor = self.factor(&directions)?;
        let factor = match self.axis {
            Axis::Outputs => along_rows(&factor, weight.rank())?,
            Axis::Inputs => along_columns(&factor, weight.rank())?,
        };
        Ok((directions.broadcast_mul(&factor)?, bias))
    }
}

register!(Adapter, "dora", Dora);
