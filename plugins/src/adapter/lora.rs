//! LoRA: y = W x + (alpha / rank) B A x with A, B of low rank (Hu et al. 2021, section 4.1). On a convolution A is a
//! convolution of the same kernel to `rank` channels and B a 1x1 convolution.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_core::adapter::{Adapter, Attached, Saved};
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::ops::{Conv, conv2d, linear, linear_onto, matmul};
use sconce_nn::rng::Stream;
use sconce_nn::small::{halves, largest, of_product};
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::prelude::*;

use super::parts::{ALPHA, Ranked, Scaling, attentions, fits, full, given, patterns, size};
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
    /// What alpha is divided by.
    #[serde(skip_serializing_if = "is_default")]
    pub scaling: Scaling,
    /// What A and B start from.
    #[serde(skip_serializing_if = "is_default")]
    pub init: Init,
    /// The learning rate of B is this times that of A, which keeps the recipe's rate (LoRA+, Hayou et al. 2024: about 16;
    /// lower the recipe's rate when raising it). 1: LoRA as it was.
    pub lora_plus_ratio: f64,
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
    /// Other ranks for some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Ranked>,
}

/// What a LoRA's factors start from. The file of a run holds what training changed, whatever they started from: where that is
/// not nothing, the file's rank is twice the trained one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// A at random and B at zero: nothing is added (Hu et al. 2021).
    #[default]
    Zero,
    /// The largest singular vectors of the weight, which is left the rest: what trains is what matters most in it (PiSSA, Meng
    /// et al. 2024, arXiv 2404.02948). Nothing is added at the start.
    Pissa,
    /// What a weight kept in few bits lost of the file's, as near as the rank allows: training starts from the model as it was
    /// published (LoftQ, Li et al. 2023, arXiv 2310.08659, its first round).
    Loftq,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: None,
            scaling: Scaling::Rank,
            init: Init::Zero,
            lora_plus_ratio: 1.0,
            targets: attentions(),
            layers: Vec::new(),
        }
    }
}

impl Adapter for Lora {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn patterns(&self) -> Vec<&String> {
        patterns(&self.targets, &self.layers)
    }

    fn lr_factor(&self, short: &str) -> f64 {
        if short == UP { self.lora_plus_ratio } else { 1.0 }
    }

    fn tensors(&self) -> Vec<&'static str> {
        vec![DOWN, UP]
    }

    fn elements(&self, place: &str, layer: Shape) -> usize {
        let Ok((rank, _)) = self.size(place) else { return 0 };
        let (down, up, _) = shapes(layer, rank);
        [down, up].iter().map(|dims| dims.iter().product::<usize>()).sum()
    }

    fn build(&self, store: &Store, layer: &Adapted, init: &Stream) -> Result<Attached> {
        if !(self.lora_plus_ratio > 0.0 && self.lora_plus_ratio.is_finite()) {
            bail!(
                "adapter.lora_plus_ratio = {}: the rate of B is this times that of A, so it must be above 0",
                self.lora_plus_ratio
            );
        }
        let component = store.component();
        let place = format!("{component}.{}", layer.path());
        let (rank, alpha) = self.size(&place)?;
        let scale = alpha / rank as f64;
        match self.init {
            Init::Zero => {
                let (down, up) = fresh(layer, rank, init)?;
                Ok(attached(component, layer, [down, up], alpha, Start::Nothing, 1.0))
            }
            Init::Pissa => {
                let factors = nearest(&store.exact(layer.weight())?, layer, rank, scale, &place)?;
                Ok(attached(component, layer, factors.clone(), alpha, Start::TakenOut(factors), 1.0))
            }
            Init::Loftq => {
                let kept = layer.weight().tensor()?.to_dtype(DType::F32)?;
                let lost = (store.exact(layer.weight())? - kept)?;
                if lost.abs()?.max_all()?.to_scalar::<f32>()? == 0.0 {
                    bail!(
                        "adapter.init = \"loftq\": {place} is kept as its file has it, so that nothing is lost: set \
                         model.quantise, or leave init out"
                    );
                }
                let factors = nearest(&lost, layer, rank, scale, &place)?;
                Ok(attached(component, layer, factors.clone(), alpha, Start::LeftIn(factors), 1.0))
            }
        }
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
        let (down, up) = (given(tensors, DOWN, &place)?, given(tensors, UP, &place)?);
        let rank = down.dim(0)?;
        let (want_down, want_up, _) = shapes(layer.shape(), rank);
        fits(&place, &[down.dims(), up.dims()].concat(), &[want_down, want_up].concat())?;
        let alpha = constants.get(ALPHA).copied().unwrap_or(rank as f64);
        Ok(attached(component, layer, [down, up], alpha, Start::Nothing, strength))
    }

    /// At this adapter's own rank: a lower one keeps the nearest product, a higher one has new rows beside it that add nothing.
    fn start(&self, store: &Store, layer: &Adapted, init: &Stream, from: &Saved) -> Result<Attached> {
        let place = from.place();
        if self.init != Init::Zero {
            bail!("{place}: adapter.init and an adapter to start from are two starts: leave one of them out");
        }
        let was = self.restore(&from.component, layer, &from.tensors, &from.constants, 1.0)?;
        let (rank, alpha) = self.size(&place)?;
        let product = |short: &str| was.params[short].tensor()?.to_device(&Device::Cpu);
        let (down, up, old) = (product(DOWN)?, product(UP)?, was.params[DOWN].shape().dims()[0]);
        let scale = was.constants[ALPHA] / old as f64 / (alpha / rank as f64);
        let device = layer.weight().device();
        let (want_down, want_up, _) = shapes(layer.shape(), rank);
        let [down, up] = if old > rank {
            let (left, values, right) = of_product(&(up.flatten_from(1)? * scale)?, &down.flatten_from(1)?)?;
            let (down, up) = halves(&left, &values, &right, rank)?;
            [down.reshape(want_down)?, up.reshape(want_up)?]
        } else {
            let (fresh_down, fresh_up) = fresh(layer, rank, init)?;
            let more = |fresh: Tensor, axis| fresh.to_device(&Device::Cpu)?.narrow(axis, old, rank - old);
            let up = (up * scale)?;
            match rank - old {
                0 => [down, up],
                _ => [Tensor::cat(&[down, more(fresh_down, 0)?], 0)?, Tensor::cat(&[up, more(fresh_up, 1)?], 1)?],
            }
        };
        let factors = [down.to_device(&device)?, up.to_device(&device)?];
        Ok(attached(store.component(), layer, factors, alpha, Start::Nothing, 1.0))
    }
}

impl Lora {
    fn size(&self, place: &str) -> Result<(usize, f64)> {
        size(place, self.rank, self.alpha, &self.layers, self.scaling)
    }
}

pub(super) const DOWN: &str = "lora_A.weight";
pub(super) const UP: &str = "lora_B.weight";

/// The shapes of A and B, and A's fan-in.
fn shapes(shape: Shape, rank: usize) -> (Vec<usize>, Vec<usize>, usize) {
    match shape {
        Shape::Linear { input, output } => (vec![rank, input], vec![output, rank], input),
        Shape::Conv { input, output, kernel, .. } => {
            (vec![rank, input, kernel, kernel], vec![output, rank, 1, 1], input * kernel * kernel)
        }
    }
}

/// A of Kaiming's uniform values with a = sqrt(5), as the reference implementation has: up to 1 / sqrt(fan in). B of zeros.
fn fresh(layer: &Adapted, rank: usize, init: &Stream) -> Result<(Tensor, Tensor)> {
    let device = layer.weight().device();
    let (down, up, fan_in) = shapes(layer.shape(), rank);
    let bound = 1.0 / (fan_in as f64).sqrt();
    let values: Vec<f32> =
        init.uniform(down.iter().product()).into_iter().map(|u| ((2.0 * u - 1.0) * bound) as f32).collect();
    Ok((Tensor::from_vec(values, down, &device)?, Tensor::zeros(up, DType::F32, &device)?))
}

/// A and B whose product at this scale is nearest to a weight (Eckart & Young 1936).
fn nearest(weight: &Tensor, layer: &Adapted, rank: usize, scale: f64, place: &str) -> Result<[Tensor; 2]> {
    let matrix = (weight.to_device(&Device::Cpu)?.flatten_from(1)? / scale)?;
    let (o, i) = matrix.dims2()?;
    if rank > o.min(i) {
        bail!("adapter.rank = {rank}: {place} is {o} by {i} and has no more than {} singular vectors", o.min(i));
    }
    let (left, values, right) = largest(&matrix, rank, place)?;
    let (down, up) = halves(&left, &values, &right, rank)?;
    let (want_down, want_up, _) = shapes(layer.shape(), rank);
    let device = layer.weight().device();
    Ok([down.reshape(want_down)?.to_device(&device)?, up.reshape(want_up)?.to_device(&device)?])
}

/// What the factors are at the start, beside what is nothing.
enum Start {
    Nothing,
    /// These, which are taken out of the output, so that it is the layer's own.
    TakenOut([Tensor; 2]),
    /// These, which stay in: they are the weight's.
    LeftIn([Tensor; 2]),
}

fn attached(
    component: &str,
    layer: &Adapted,
    [down, up]: [Tensor; 2],
    alpha: f64,
    start: Start,
    strength: f64,
) -> Attached {
    let own = alpha / down.dims()[0] as f64;
    let name = |short: &str| format!("{}.{short}", layer.path());
    let (down, up) = (Param::new(name(DOWN), down), Param::new(name(UP), up));
    let (taken_out, started) = match start {
        Start::Nothing => (None, None),
        Start::TakenOut(factors) => (Some(factors.clone()), Some(factors)),
        Start::LeftIn(factors) => (None, Some(factors)),
    };
    Attached {
        component: component.to_owned(),
        path: layer.path().to_owned(),
        layer: Arc::new(LowRank { down: down.clone(), up: up.clone(), scale: own * strength, taken_out }),
        mean: Some(Arc::new(Sketch {
            down: down.clone(),
            up: up.clone(),
            scale: own,
            place: format!("{component}.{}", layer.path()),
            random: OnceLock::new(),
        })),
        params: BTreeMap::from([(DOWN.to_owned(), down), (UP.to_owned(), up)]),
        constants: BTreeMap::from([(ALPHA.to_owned(), alpha)]),
        file: started.map(|[down, up]| Arc::new(move |saved| since([&down, &up], own, saved)) as Arc<_>),
    }
}

/// What training changed: the product now less the one at the start, whose rank is the sum of theirs.
fn since([down, up]: [&Tensor; 2], scale: f64, mut saved: Saved) -> Result<Saved> {
    let rank = saved.tensors[DOWN].dim(0)?;
    let own = saved.constants[ALPHA] / rank as f64;
    let beside = |short: &str, with: Tensor, axis: usize| {
        let now = &saved.tensors[short];
        Tensor::cat(&[now, &with.to_dtype(now.dtype())?.to_device(now.device())?], axis)
    };
    let (down, up) = (beside(DOWN, down.clone(), 0)?, beside(UP, (up * (-scale / own))?, 1)?);
    saved.constants.insert(ALPHA.to_owned(), own * down.dim(0)? as f64);
    saved.tensors.extend([(DOWN.to_owned(), down), (UP.to_owned(), up)]);
    Ok(saved)
}

/// The addition on one layer.
struct LowRank {
    down: Param,
    up: Param,
    scale: f64,
    /// A and B that are subtracted.
    taken_out: Option<[Tensor; 2]>,
}

impl LowRank {
    /// Scaled where it is of low rank, and added by the product itself: nothing of the output's size is made beside it.
    fn onto(&self, y: Tensor, x: &Tensor, layer: &Adapted, [down, up]: [&Tensor; 2], scale: f64) -> Result<Tensor> {
        let scaled = |low: Tensor| if scale == 1.0 { Ok(low) } else { low * scale };
        match layer.shape() {
            Shape::Linear { .. } => linear_onto(&y, &scaled(linear(x, down, None)?)?, up),
            Shape::Conv { conv, .. } => {
                let low = scaled(conv2d(x, down, None, conv)?)?;
                y + conv2d(&low, up, None, Conv::default())?
            }
        }
    }
}

impl LayerAdapter for LowRank {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let y = self.onto(base(x)?, x, layer, [&self.down.tensor()?, &self.up.tensor()?], self.scale)?;
        match &self.taken_out {
            Some([down, up]) => self.onto(y, x, layer, [down, up], -self.scale),
            None => Ok(y),
        }
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let product = |down: &Tensor, up: &Tensor| matmul(&(up.flatten_from(1)? * self.scale)?, &down.flatten_from(1)?);
        let mut added = product(&full(&self.down)?, &full(&self.up)?)?;
        if let Some([down, up]) = &self.taken_out {
            added = (added - product(down, up)?)?;
        }
        Ok(((weight + added.reshape(weight.shape())?)?, bias.cloned()))
    }
}

register!(Adapter, "lora", Lora);
