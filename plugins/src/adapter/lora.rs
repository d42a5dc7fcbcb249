//! LoRA: y = W x + (alpha / rank) B A x with A, B of low rank (Hu et al. 2021, section 4.1). On a convolution A is a
//! convolution of the same kernel to `rank` channels and B a 1x1 convolution.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::adapter::{Adapter, Attached};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::ops::{Conv, conv2d, linear, linear_onto};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param};
use sconce_sdk::prelude::*;

use super::sketch::Sketch;

/// Low-rank additions to linear and convolution layers (Hu et al. 2021).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank of the additions: how much they can say.
    pub rank: usize,
    /// The additions are scaled by alpha / rank. Default: the rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// The learning rate of B is this times that of A, which keeps the recipe's rate (LoRA+, Hayou et al. 2024: about 16;
    /// lower the recipe's rate when raising it). 1: LoRA as it was.
    pub lora_plus_ratio: f64,
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
}

impl Default for Lora {
    fn default() -> Self {
        let targets = ["to_q", "to_k", "to_v", "to_out.0"].map(|l| format!("*.attn*.{l}")).to_vec();
        Self { rank: 16, alpha: None, lora_plus_ratio: 1.0, targets }
    }
}

impl Adapter for Lora {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn lr_factor(&self, short: &str) -> f64 {
        if short == UP { self.lora_plus_ratio } else { 1.0 }
    }

    fn elements(&self, layer: Shape) -> usize {
        let (down, up, _) = shapes(layer, self.rank);
        [down, up].iter().map(|dims| dims.iter().product::<usize>()).sum()
    }

    fn build(&self, component: &str, layer: &Adapted, init: &Stream) -> Result<Attached> {
        if self.rank == 0 {
            bail!("a LoRA of rank 0 adapts nothing: set adapter.rank to 1 or more");
        }
        if !(self.lora_plus_ratio > 0.0 && self.lora_plus_ratio.is_finite()) {
            bail!(
                "adapter.lora_plus_ratio = {}: the rate of B is this times that of A, so it must be above 0",
                self.lora_plus_ratio
            );
        }
        let device = layer.weight().device();
        let (down, up, fan_in) = shapes(layer.shape(), self.rank);
        // Kaiming uniform with a = sqrt(5), as the reference implementation: ±1/sqrt(fan_in).
        let bound = 1.0 / (fan_in as f64).sqrt();
        let count = down.iter().product();
        let values: Vec<f32> = init.uniform(count).into_iter().map(|u| ((2.0 * u - 1.0) * bound) as f32).collect();
        let down = Tensor::from_vec(values, down, &device)?;
        let up = Tensor::zeros(up, DType::F32, &device)?;
        attached(component, layer, down, up, self.alpha.unwrap_or(self.rank as f64))
    }

    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        constants: &BTreeMap<String, f64>,
    ) -> Result<Attached> {
        let get = |name: &str| match tensors.get(name) {
            Some(t) => Ok(t.clone()),
            None => bail!("the LoRA file has no `{name}` for {component}.{}", layer.path()),
        };
        let (down, up) = (get(DOWN)?, get(UP)?);
        let rank = down.dim(0)?;
        let (want_down, want_up, _) = shapes(layer.shape(), rank);
        if down.dims() != want_down || up.dims() != want_up {
            bail!(
                "the LoRA does not fit {component}.{}: down {:?} and up {:?}, the layer needs {want_down:?} and \
                 {want_up:?}: it was made for another model",
                layer.path(),
                down.dims(),
                up.dims(),
            );
        }
        let alpha = constants.get(ALPHA).copied().unwrap_or(rank as f64);
        attached(component, layer, down, up, alpha)
    }
}

pub(super) const DOWN: &str = "lora_A.weight";
pub(super) const UP: &str = "lora_B.weight";
pub(super) const ALPHA: &str = "alpha";

/// The shapes of A and B, and A's fan-in.
fn shapes(shape: Shape, rank: usize) -> (Vec<usize>, Vec<usize>, usize) {
    match shape {
        Shape::Linear { input, output } => (vec![rank, input], vec![output, rank], input),
        Shape::Conv { input, output, kernel, .. } => {
            (vec![rank, input, kernel, kernel], vec![output, rank, 1, 1], input * kernel * kernel)
        }
    }
}

fn attached(component: &str, layer: &Adapted, down: Tensor, up: Tensor, alpha: f64) -> Result<Attached> {
    let scale = alpha / down.dim(0)? as f64;
    let name = |short: &str| format!("{}.{short}", layer.path());
    let (down, up) = (Param::new(name(DOWN), down), Param::new(name(UP), up));
    Ok(Attached {
        component: component.to_owned(),
        path: layer.path().to_owned(),
        layer: Arc::new(LowRank { down: down.clone(), up: up.clone(), scale }),
        mean: Some(Arc::new(Sketch {
            down: down.clone(),
            up: up.clone(),
            scale,
            place: format!("{component}.{}", layer.path()),
            random: OnceLock::new(),
        })),
        params: BTreeMap::from([(DOWN.to_owned(), down), (UP.to_owned(), up)]),
        constants: BTreeMap::from([(ALPHA.to_owned(), alpha)]),
    })
}

/// The addition on one layer.
struct LowRank {
    down: Param,
    up: Param,
    scale: f64,
}

impl LayerAdapter for LowRank {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (down, up) = (self.down.tensor()?, self.up.tensor()?);
        // Scaled where it is of low rank, and added by the product itself: nothing of the output's size is made beside it.
        let scaled = |low: Tensor| if self.scale == 1.0 { Ok(low) } else { low * self.scale };
        match layer.shape() {
            Shape::Linear { .. } => linear_onto(&base(x)?, &scaled(linear(x, &down, None)?)?, &up),
            Shape::Conv { conv, .. } => {
                let low = scaled(conv2d(x, &down, None, conv)?)?;
                base(x)? + conv2d(&low, &up, None, Conv::default())?
            }
        }
    }
}

register!(Adapter, "lora", Lora);
