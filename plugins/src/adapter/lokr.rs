//! LoKr: the Kronecker product of a small matrix and a larger one of low rank, W' = W + (alpha / rank) C x (A B) (Yeh et al.
//! 2023, arXiv 2309.14859, section 3; Edalati et al. 2022, KronA). Named and initialised as in LyCORIS.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use sconce_core::adapter::{Adapter, Attached};
use sconce_nn::layers::Shape;
use sconce_nn::ops::{linear, matmul};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::prelude::*;

use super::parts::{ALPHA, Addition, Adds, Params, Ranked, Scaling, fits, full, given, patterns, size, weight_dims};

/// Additions that are Kronecker products: few numbers that reach the whole weight (Yeh et al. 2023).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Lokr {
    /// Rank of the larger factor. At half of its side and above it is a full matrix.
    pub rank: usize,
    /// The additions are scaled by alpha / rank, unless both factors are full matrices. Default: the rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// What alpha is divided by.
    pub scaling: Scaling,
    /// The small factor's side: the largest divisor of the layer's that is no larger than this. Default: as near the root
    /// of the layer's side as its divisors allow, which trains the fewest numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<usize>,
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
    /// Other ranks for some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Ranked>,
}

impl Default for Lokr {
    fn default() -> Self {
        let targets = super::parts::attentions();
        Self { rank: 16, alpha: None, scaling: Scaling::Rank, factor: None, targets, layers: Vec::new() }
    }
}

const SMALL: &str = "lokr_w1";
const SMALL_HALVES: [&str; 2] = ["lokr_w1_a", "lokr_w1_b"];
const LARGE: &str = "lokr_w2";
const LARGE_HALVES: [&str; 2] = ["lokr_w2_a", "lokr_w2_b"];
/// The core of Tucker's form, which files of convolutions may have.
const CORE: &str = "lokr_t2";

impl Adapter for Lokr {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn patterns(&self) -> Vec<&String> {
        patterns(&self.targets, &self.layers)
    }

    fn tensors(&self) -> Vec<&'static str> {
        vec![SMALL, LARGE, LARGE_HALVES[0], LARGE_HALVES[1]]
    }

    fn knows(&self, tensors: &BTreeMap<String, Tensor>) -> bool {
        let known = |short: &String| [SMALL, LARGE, CORE].contains(&&**short) || halves().any(|half| half == short);
        tensors.keys().all(known)
    }

    fn elements(&self, place: &str, layer: Shape) -> usize {
        let Ok((rank, _)) = self.size(place) else { return 0 };
        let Sides { small, large, places } = self.sides(layer);
        let full = large[0] * large[1] * places;
        small[0] * small[1] + if low(rank, large) { rank * (large[0] + large[1] * places) } else { full }
    }

    fn build(&self, store: &Store, layer: &Adapted, init: &Stream) -> Result<Attached> {
        let (rank, alpha) = self.size(&format!("{}.{}", store.component(), layer.path()))?;
        let Sides { small, large, places } = self.sides(layer.shape());
        let device = layer.weight().device();
        // Kaiming uniform with a = sqrt(5): up to 1 / sqrt(fan in).
        let uniform = |part: u64, dims: &[usize]| {
            let bound = 1.0 / (dims[1] as f64).sqrt();
            let values = init.at(part, 0).uniform(dims.iter().product());
            Tensor::from_vec(values.iter().map(|u| ((2.0 * u - 1.0) * bound) as f32).collect(), dims, &device)
        };
        let mut tensors = vec![(SMALL, uniform(0, &small)?)];
        if low(rank, large) {
            tensors.push((LARGE_HALVES[0], uniform(1, &[large[0], rank])?));
            tensors.push((LARGE_HALVES[1], Tensor::zeros((rank, large[1] * places), DType::F32, &device)?));
            return attached(store.component(), layer, tensors, alpha, 1.0);
        }
        let side = (places as f64).sqrt() as usize;
        let dims = if layer_is_conv(layer) { vec![large[0], large[1], side, side] } else { large.to_vec() };
        tensors.push((LARGE, Tensor::zeros(dims, DType::F32, &device)?));
        attached(store.component(), layer, tensors, rank as f64, 1.0)
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
        let mut rank = None;
        let mut all = Vec::new();
        for (whole, parts) in [(SMALL, SMALL_HALVES), (LARGE, LARGE_HALVES)] {
            if tensors.contains_key(whole) {
                all.push((whole, given(tensors, whole, &place)?));
                continue;
            }
            let [mut a, mut b] = [given(tensors, parts[0], &place)?, given(tensors, parts[1], &place)?];
            if whole == LARGE && tensors.contains_key(CORE) {
                (a, b) = super::loha::from_tucker(&given(tensors, CORE, &place)?, &a, &b)?;
            }
            fits(&place, &[b.dim(0)?], &[a.dim(1)?])?;
            rank = Some(b.dim(0)? as f64);
            all.extend([(parts[0], a), (parts[1], b)]);
        }
        // Two full matrices have no rank to divide by: whatever the file says, their scale is 1.
        let alpha = match rank {
            Some(rank) => constants.get(ALPHA).copied().unwrap_or(rank),
            None => constants.get(ALPHA).copied().unwrap_or(1.0),
        };
        attached(component, layer, all, alpha, strength)
    }
}

/// The names of the halves.
fn halves() -> impl Iterator<Item = &'static str> {
    SMALL_HALVES.into_iter().chain(LARGE_HALVES)
}

fn layer_is_conv(layer: &Adapted) -> bool {
    matches!(layer.shape(), Shape::Conv { .. })
}

/// Rows and columns of the two factors, and the places of the kernel, which the larger has.
struct Sides {
    small: [usize; 2],
    large: [usize; 2],
    places: usize,
}

/// Whether the larger factor is a product itself.
fn low(rank: usize, large: [usize; 2]) -> bool {
    2 * rank < large[0].max(large[1])
}

impl Lokr {
    fn size(&self, place: &str) -> Result<(usize, f64)> {
        size(place, self.rank, self.alpha, &self.layers, self.scaling)
    }

    fn sides(&self, layer: Shape) -> Sides {
        let (output, input, places) = match layer {
            Shape::Linear { input, output } => (output, input, 1),
            Shape::Conv { input, output, kernel, .. } => (output, input, kernel * kernel),
        };
        let (rows, columns) = (self.split(output), self.split(input));
        Sides { small: [rows, columns], large: [output / rows, input / columns], places }
    }

    /// The small one of two factors of a side.
    fn split(&self, side: usize) -> usize {
        match self.factor {
            Some(factor) if factor > 0 && side.is_multiple_of(factor) => factor.min(side / factor),
            most => (1..=side)
                .take_while(|d| d * d <= side && *d <= most.unwrap_or(side).max(1))
                .filter(|d| side.is_multiple_of(*d))
                .last()
                .unwrap_or(1),
        }
    }
}

fn attached(
    component: &str,
    layer: &Adapted,
    tensors: Vec<(&'static str, Tensor)>,
    alpha: f64,
    strength: f64,
) -> Result<Attached> {
    let dims = |short: &str| tensors.iter().find(|(name, _)| *name == short).map(|(_, t)| t.dims().to_vec());
    let rank = [SMALL_HALVES[1], LARGE_HALVES[1]].iter().filter_map(|half| dims(half)).map(|d| d[0]).next_back();
    let scale = strength * rank.map_or(1.0, |rank| alpha / rank as f64);
    let params = Params::of(layer, tensors.iter().map(|(n, t)| (*n, t.clone())));
    let factor = |whole: &'static str, parts: [&'static str; 2]| match dims(whole) {
        Some(_) => Factor::Whole(params.get(whole)),
        None => Factor::Product(params.get(parts[0]), params.get(parts[1])),
    };
    let acts = Kronecker {
        small: factor(SMALL, SMALL_HALVES),
        large: factor(LARGE, LARGE_HALVES),
        scale,
        dims: weight_dims(layer.shape()),
    };
    let place = format!("{component}.{}", layer.path());
    let (small, large) = (acts.small.dims(), acts.large.dims());
    let (output, inputs) = super::parts::sides(layer.shape());
    fits(&place, &[small[0] * large[0], small[1] * large[1]], &[output, inputs])?;
    if alpha == 0.0 || !scale.is_finite() {
        bail!("{place}: an alpha of {alpha} says nothing of what is added");
    }
    Ok(params.attached(component, layer, Arc::new(Adds(Arc::new(acts))), Some(alpha)))
}

/// One side of the product.
#[derive(Clone)]
enum Factor {
    Whole(Param),
    Product(Param, Param),
}

impl Factor {
    /// Rows, and columns with the kernel's places.
    fn dims(&self) -> [usize; 2] {
        match self {
            Factor::Whole(p) => {
                let shape = p.shape();
                [shape.dims()[0], shape.dims()[1..].iter().product()]
            }
            Factor::Product(a, b) => [a.shape().dims()[0], b.shape().dims()[1]],
        }
    }

    /// As a matrix.
    fn matrix(&self) -> Result<Tensor> {
        match self {
            Factor::Whole(p) => full(p)?.flatten_from(1),
            Factor::Product(a, b) => matmul(&full(a)?, &full(b)?),
        }
    }

    /// Of `.. I`, the product with it.
    fn of(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Factor::Whole(p) => linear(x, &p.tensor()?, None),
            Factor::Product(a, b) => linear(&linear(x, &b.tensor()?, None)?, &a.tensor()?, None),
        }
    }
}

/// C x D, scaled: the weight in row l K + k and column m N + n is C[l, m] D[k, n].
#[derive(Clone)]
struct Kronecker {
    small: Factor,
    large: Factor,
    scale: f64,
    dims: Vec<usize>,
}

impl Addition for Kronecker {
    fn delta(&self) -> Result<Tensor> {
        let (c, d) = ((self.small.matrix()? * self.scale)?, self.large.matrix()?);
        let ([l, m], [k, n]) = (self.small.dims(), self.large.dims());
        let all = c.reshape((l, 1, m, 1))?.broadcast_mul(&d.reshape((1, k, 1, n))?)?;
        all.reshape(self.dims.as_slice())
    }

    /// On a linear layer the product is never made: D acts on the inputs' groups, and C between them.
    fn added(self: Arc<Self>, x: &Tensor, layer: &Adapted) -> Result<Tensor> {
        if layer_is_conv(layer) {
            return self.whole(x, layer);
        }
        let ([_, m], [_, n]) = (self.small.dims(), self.large.dims());
        let (mut dims, last) = (x.dims().to_vec(), x.rank() - 1);
        let inside = self.large.of(&x.reshape([&dims[..last], &[m, n]].concat())?)?; // .. M K
        let between = self.small.of(&inside.transpose(last, last + 1)?.contiguous()?)?; // .. K L
        dims[last] = self.dims[0];
        (between.transpose(last, last + 1)?.contiguous()?.reshape(dims)? * self.scale)?.contiguous()
    }
}

register!(Adapter, "lokr", Lokr);
