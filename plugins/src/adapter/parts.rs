//! What the adapters share: their tensors by short name, ranks by layer, and the two ways in which one acts on a layer.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::adapter::Attached;
use sconce_core::train::matches;
use sconce_nn::checkpoint::checkpoint;
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param};
use sconce_sdk::prelude::*;

/// The constant that scales what is added: by alpha / rank.
pub(super) const ALPHA: &str = "alpha";

/// The attentions' projections: what is adapted where nothing else is said.
pub(super) fn attentions() -> Vec<String> {
    ["to_q", "to_k", "to_v", "to_out.0"].map(|l| format!("*.attn*.{l}")).to_vec()
}

/// Another rank for some of the layers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ranked {
    /// Which of the layers, matched against `component.path`. The first entry that matches a layer counts. Their learning rate
    /// is `train.group`'s matter.
    pub targets: Vec<String>,
    /// Their rank.
    pub rank: usize,
    /// Their alpha. Default: the adapter's, or where it has none the rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
}

/// Every pattern that an adapter of ranks names.
pub(super) fn patterns<'a>(targets: &'a [String], layers: &'a [Ranked]) -> Vec<&'a String> {
    targets.iter().chain(layers.iter().flat_map(|l| &l.targets)).collect()
}

/// What alpha is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scaling {
    /// The rank (Hu et al. 2021).
    #[default]
    Rank,
    /// The root of the rank, which keeps large ranks learning (Kalajdzievski 2023, arXiv 2312.03732).
    RootRank,
}

/// The rank and alpha of the layer at a place. Alpha is told such that alpha / rank is the factor, as files have it.
pub(super) fn size(
    place: &str,
    rank: usize,
    alpha: Option<f64>,
    layers: &[Ranked],
    scaling: Scaling,
) -> Result<(usize, f64)> {
    let own = layers.iter().find(|l| l.targets.iter().any(|t| matches(t, place)));
    let rank = own.map_or(rank, |l| l.rank);
    if rank == 0 {
        bail!("adapter.rank: an addition of rank 0 to {place} adapts nothing: set it to 1 or more");
    }
    let alpha = own.and_then(|l| l.alpha).or(alpha).unwrap_or(rank as f64);
    if !alpha.is_finite() {
        bail!("adapter.alpha = {alpha}: what is added is scaled by it, so it must be a number");
    }
    Ok(match scaling {
        Scaling::Rank => (rank, alpha),
        Scaling::RootRank => (rank, alpha * (rank as f64).sqrt()),
    })
}

/// A layer's outputs, and its inputs with the kernel's places.
pub(super) fn sides(shape: Shape) -> (usize, usize) {
    match shape {
        Shape::Linear { input, output } => (output, input),
        Shape::Conv { input, output, kernel, .. } => (output, input * kernel * kernel),
    }
}

/// The shape of a layer's weight.
pub(super) fn weight_dims(shape: Shape) -> Vec<usize> {
    match shape {
        Shape::Linear { input, output } => vec![output, input],
        Shape::Conv { input, output, kernel, .. } => vec![output, input, kernel, kernel],
    }
}

/// A tensor that a file must have.
pub(super) fn given(tensors: &BTreeMap<String, Tensor>, short: &str, place: &str) -> Result<Tensor> {
    match tensors.get(short) {
        Some(t) => t.to_dtype(DType::F32),
        None => bail!("the file has no `{short}` for {place}"),
    }
}

/// That a file's tensors fit a layer.
pub(super) fn fits(place: &str, found: &[usize], needed: &[usize]) -> Result<()> {
    if found != needed {
        bail!(
            "the adapter does not fit {place}: it is for {found:?}, the layer has {needed:?}: it was made for another model"
        );
    }
    Ok(())
}

/// Values drawn from a normal distribution, for a part of an adapter.
pub(super) fn normal(init: &Stream, part: u64, dims: &[usize], std: f64, layer: &Adapted) -> Result<Tensor> {
    init.at(part, 0).normal(dims, &layer.weight().device())? * std
}

/// Parameters of these values, by short name.
pub(super) struct Params(BTreeMap<String, Param>);

impl Params {
    pub fn of(layer: &Adapted, tensors: impl IntoIterator<Item = (&'static str, Tensor)>) -> Self {
        let named =
            |(short, t): (&'static str, Tensor)| (short.to_owned(), Param::new(format!("{}.{short}", layer.path()), t));
        Self(tensors.into_iter().map(named).collect())
    }

    /// One that is there.
    pub fn get(&self, short: &str) -> Param {
        self.0[short].clone()
    }

    pub fn attached(
        self,
        component: &str,
        layer: &Adapted,
        acts: Arc<dyn LayerAdapter>,
        alpha: Option<f64>,
    ) -> Attached {
        Attached {
            component: component.to_owned(),
            path: layer.path().to_owned(),
            layer: acts,
            params: self.0,
            constants: alpha.map(|alpha| (ALPHA.to_owned(), alpha)).into_iter().collect(),
            mean: None,
            file: None,
        }
    }
}

/// A trained tensor in f32.
pub(super) fn full(param: &Param) -> Result<Tensor> {
    param.tensor()?.to_dtype(DType::F32)
}

/// What is added to a layer's weight.
pub(super) trait Addition: Send + Sync + 'static {
    /// In the weight's shape, f32.
    fn delta(&self) -> Result<Tensor>;

    /// What it adds to the output.
    fn added(self: Arc<Self>, x: &Tensor, layer: &Adapted) -> Result<Tensor> {
        self.whole(x, layer)
    }

    /// The same by the whole addition, which is made again for the gradient, so that none is kept.
    fn whole(self: Arc<Self>, x: &Tensor, layer: &Adapted) -> Result<Tensor> {
        let layer = layer.clone();
        checkpoint(&[x], move |x| layer.apply(&x[0], &self.delta()?, None))
    }
}

/// An addition at work. Nothing is summed into the frozen weight, whose few bits would swallow small changes.
pub(super) struct Adds<A>(pub Arc<A>);

impl<A: Addition> LayerAdapter for Adds<A> {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        base(x)? + self.0.clone().added(x, layer)?
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        Ok(((weight + self.0.delta()?)?, bias.cloned()))
    }
}

/// An adapter whose effect is multiplied: the layer without it, and so much of the difference.
struct Partly {
    whole: Arc<dyn LayerAdapter>,
    strength: f64,
}

/// An adapter at a strength, where it has no scale of its own.
pub(super) fn at_strength(whole: Arc<dyn LayerAdapter>, strength: f64) -> Arc<dyn LayerAdapter> {
    if strength == 1.0 { whole } else { Arc::new(Partly { whole, strength }) }
}

impl Partly {
    fn between(&self, from: &Tensor, to: &Tensor) -> Result<Tensor> {
        from + ((to - from)? * self.strength)?
    }
}

impl LayerAdapter for Partly {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        self.between(&base(x)?, &self.whole.forward(x, layer, base)?)
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let (to, changed) = self.whole.merged(weight, bias)?;
        let bias = match (bias, changed) {
            (Some(from), Some(to)) => Some(self.between(from, &to)?),
            (None, Some(to)) => Some((to * self.strength)?),
            (_, None) => None,
        };
        Ok((self.between(weight, &to)?, bias))
    }
}

/// A layer's output without its bias.
pub(super) fn unbiased(y: Tensor, layer: &Adapted) -> Result<Tensor> {
    match layer.bias() {
        Some(bias) => y.broadcast_sub(&along_channels(&bias.tensor()?.to_dtype(y.dtype())?, layer)?),
        None => Ok(y),
    }
}

/// And with it again.
pub(super) fn biased(y: Tensor, layer: &Adapted) -> Result<Tensor> {
    match layer.bias() {
        Some(bias) => y.broadcast_add(&along_channels(&bias.tensor()?.to_dtype(y.dtype())?, layer)?),
        None => Ok(y),
    }
}

/// A vector of one number a channel, such that it is broadcast over a layer's output, or its input.
pub(super) fn along_channels(vector: &Tensor, layer: &Adapted) -> Result<Tensor> {
    match layer.shape() {
        Shape::Linear { .. } => vector.flatten_all(),
        Shape::Conv { .. } => vector.reshape((1, (), 1, 1)),
    }
}

/// A vector of one number an output channel, such that it is broadcast over a weight of this rank.
pub(super) fn along_rows(vector: &Tensor, rank: usize) -> Result<Tensor> {
    vector.reshape([&[vector.elem_count()], vec![1; rank - 1].as_slice()].concat())
}

/// A vector of one number an input channel, such that it is broadcast over a weight of this rank.
pub(super) fn along_columns(vector: &Tensor, rank: usize) -> Result<Tensor> {
    vector.reshape([&[1, vector.elem_count()], vec![1; rank - 2].as_slice()].concat())
}
