//! IA3: a factor for each channel of a layer's output, or of its input, and nothing else: the fewest numbers of all (Liu et al.
//! 2022, arXiv 2205.05638, section 3.3). Named as in PEFT, where a factor of 1 changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::adapter::{Adapter, Attached};
use sconce_core::train::matches;
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::prelude::*;

use super::parts::{
    Params, along_channels, along_columns, along_rows, at_strength, biased, full, given, unbiased, weight_dims,
};

/// Factors on the channels of layers (Liu et al. 2022).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ia3 {
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
    /// Those of them whose inputs are scaled instead of their outputs.
    pub inputs: Vec<String>,
}

impl Default for Ia3 {
    fn default() -> Self {
        let targets = ["*.attn*.to_k", "*.attn*.to_v", "*.ff.net.2"].map(String::from).to_vec();
        Self { targets, inputs: vec!["*.ff.net.2".into()] }
    }
}

const FACTORS: &str = "ia3_l";
/// The constant that tells of a file's factors that they are on the weight and leave the bias (LyCORIS).
const WEIGHT_ALONE: &str = "weight_alone";
/// The constant that tells of factors that they are on the inputs, which the shape does not tell of a square convolution.
const ON_INPUTS: &str = "on_inputs";

impl Adapter for Ia3 {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn patterns(&self) -> Vec<&String> {
        self.targets.iter().chain(&self.inputs).collect()
    }

    fn tensors(&self) -> Vec<&'static str> {
        vec![FACTORS]
    }

    fn elements(&self, place: &str, layer: Shape) -> usize {
        weight_dims(layer)[usize::from(self.on_inputs(place))]
    }

    fn build(&self, store: &Store, layer: &Adapted, _: &Stream) -> Result<Attached> {
        let on_inputs = self.on_inputs(&format!("{}.{}", store.component(), layer.path()));
        let dims = dims(layer.shape(), on_inputs);
        let ones = Tensor::ones(dims, DType::F32, &layer.weight().device())?;
        let on = if on_inputs { On::Inputs } else { On::Outputs };
        Ok(attached(store.component(), layer, ones, on, 1.0))
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
        let factors = given(tensors, FACTORS, &place)?;
        // `O 1` or `1 I`, of convolutions `1 O 1 1` or `1 I 1 1`: where both are alike and nothing is said, the pattern tells.
        let fits = |on_inputs| factors.dims() == dims(layer.shape(), on_inputs);
        let on_inputs = match (fits(false), fits(true)) {
            (true, true) => constants.contains_key(ON_INPUTS) || self.on_inputs(&place),
            (false, true) => true,
            (true, false) => false,
            (false, false) => bail!(
                "the adapter does not fit {place}: its factors are {:?}, the layer is {:?}: it was made for another model",
                factors.dims(),
                weight_dims(layer.shape())
            ),
        };
        let on = match (on_inputs, constants.contains_key(WEIGHT_ALONE)) {
            (true, _) => On::Inputs,
            (false, true) => On::Weight,
            (false, false) => On::Outputs,
        };
        Ok(attached(component, layer, factors, on, strength))
    }
}

impl Ia3 {
    fn on_inputs(&self, place: &str) -> bool {
        self.inputs.iter().any(|pattern| matches(pattern, place))
    }
}

/// The shape of the factors.
fn dims(shape: Shape, on_inputs: bool) -> Vec<usize> {
    match (shape, on_inputs) {
        (Shape::Linear { output, .. }, false) => vec![output, 1],
        (Shape::Linear { input, .. }, true) => vec![1, input],
        (Shape::Conv { output, .. }, false) => vec![1, output, 1, 1],
        (Shape::Conv { input, .. }, true) => vec![1, input, 1, 1],
    }
}

/// What the factors are on.
#[derive(Clone, Copy, PartialEq)]
enum On {
    Inputs,
    Outputs,
    /// The outputs without the bias.
    Weight,
}

fn attached(component: &str, layer: &Adapted, factors: Tensor, on: On, strength: f64) -> Attached {
    let params = Params::of(layer, [(FACTORS, factors)]);
    let acts = Factors { factors: params.get(FACTORS), on };
    let mut attached = params.attached(component, layer, at_strength(Arc::new(acts), strength), None);
    let said = match on {
        On::Inputs => Some(ON_INPUTS),
        On::Outputs => None,
        On::Weight => Some(WEIGHT_ALONE),
    };
    attached.constants.extend(said.map(|said| (said.to_owned(), 1.0)));
    attached
}

struct Factors {
    factors: Param,
    on: On,
}

impl LayerAdapter for Factors {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let factors = along_channels(&full(&self.factors)?, layer)?;
        let times = |t: Tensor| t.broadcast_mul(&factors.to_dtype(t.dtype())?);
        match self.on {
            On::Inputs => base(&times(x.clone())?),
            On::Outputs => times(base(x)?),
            On::Weight => biased(times(unbiased(base(x)?, layer)?)?, layer),
        }
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let factors = full(&self.factors)?.flatten_all()?;
        let along = match self.on {
            On::Inputs => along_columns(&factors, weight.rank())?,
            On::Outputs | On::Weight => along_rows(&factors, weight.rank())?,
        };
        let bias = match (bias, self.on) {
            (Some(bias), On::Outputs) => Some((bias * &factors)?),
            (bias, _) => bias.cloned(),
        };
        Ok((weight.broadcast_mul(&along)?, bias))
    }
}

register!(Adapter, "ia3", Ia3);
