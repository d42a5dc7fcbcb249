//! LoHa: the elementwise product of two products of low rank, whose own rank may reach the square of theirs (Hyeon-Woo et al.
//! 2021, FedPara, arXiv 2108.06098, section 2.2). Named and initialised as in LyCORIS (Yeh et al. 2023, arXiv 2309.14859).

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use sconce_core::adapter::{Adapter, Attached};
use sconce_nn::layers::Shape;
use sconce_nn::ops::matmul;
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param, Store};
use sconce_sdk::prelude::*;

use super::parts::{
    ALPHA, Addition, Adds, Params, Ranked, Scaling, fits, full, given, normal, patterns, sides, size, weight_dims,
};

/// Additions that are elementwise products of two low-rank ones (Hyeon-Woo et al. 2021).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Loha {
    /// Rank of each of the two products; that of the addition may reach its square.
    pub rank: usize,
    /// The additions are scaled by alpha / rank. Default: the rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// What alpha is divided by.
    pub scaling: Scaling,
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
    /// Other ranks for some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<Ranked>,
}

impl Default for Loha {
    fn default() -> Self {
        let targets = super::parts::attentions();
        Self { rank: 8, alpha: None, scaling: Scaling::Rank, targets, layers: Vec::new() }
    }
}

const NAMES: [&str; 4] = ["hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"];
/// The cores of Tucker's form, which files of convolutions may have.
const CORES: [&str; 2] = ["hada_t1", "hada_t2"];

impl Adapter for Loha {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn patterns(&self) -> Vec<&String> {
        patterns(&self.targets, &self.layers)
    }

    fn tensors(&self) -> Vec<&'static str> {
        NAMES.to_vec()
    }

    fn knows(&self, tensors: &BTreeMap<String, Tensor>) -> bool {
        tensors.keys().all(|short| NAMES.iter().chain(&CORES).any(|name| name == short))
    }

    fn elements(&self, place: &str, layer: Shape) -> usize {
        let (o, i) = sides(layer);
        self.size(place).map_or(0, |(rank, _)| 2 * rank * (o + i))
    }

    fn build(&self, store: &Store, layer: &Adapted, init: &Stream) -> Result<Attached> {
        let (rank, alpha) = self.size(&format!("{}.{}", store.component(), layer.path()))?;
        let (o, i) = sides(layer.shape());
        let zero = Tensor::zeros((o, rank), DType::F32, &layer.weight().device())?;
        let tensors = [
            (NAMES[0], normal(init, 0, &[o, rank], 0.1, layer)?),
            (NAMES[1], normal(init, 1, &[rank, i], 1.0, layer)?),
            (NAMES[2], zero),
            (NAMES[3], normal(init, 3, &[rank, i], 1.0, layer)?),
        ];
        Ok(attached(store.component(), layer, tensors.into(), alpha, 1.0))
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
        let get = |short: &str| given(tensors, short, &place);
        let mut all = Vec::new();
        for (half, core) in CORES.iter().enumerate() {
            let (mut a, mut b) = (get(NAMES[2 * half])?, get(NAMES[2 * half + 1])?);
            if tensors.contains_key(*core) {
                (a, b) = from_tucker(&get(core)?, &a, &b)?;
            }
            all.extend([(NAMES[2 * half], a), (NAMES[2 * half + 1], b)]);
        }
        let (o, i) = sides(layer.shape());
        for half in [0, 2] {
            let ((a, b), rank) = ((&all[half].1, &all[half + 1].1), all[half].1.dim(1)?);
            fits(&place, &[a.dim(0)?, b.dim(0)?, b.dim(1)?], &[o, rank, i])?;
        }
        let alpha = constants.get(ALPHA).copied().unwrap_or(all[0].1.dim(1)? as f64);
        Ok(attached(component, layer, all, alpha, strength))
    }
}

impl Loha {
    fn size(&self, place: &str) -> Result<(usize, f64)> {
        size(place, self.rank, self.alpha, &self.layers, self.scaling)
    }
}

/// A core T (R R K K) and factors A (R O), B (R I) as one product: with T's second side and B in one, the rank stays R.
pub(super) fn from_tucker(core: &Tensor, a: &Tensor, b: &Tensor) -> Result<(Tensor, Tensor)> {
    let (r, _, k, _) = core.dims4()?;
    let i = b.dim(1)?;
    let by_place = core.permute((0, 2, 3, 1))?.contiguous()?.reshape((r * k * k, r))?; // R K K R
    let inputs = by_place.matmul(b)?.reshape((r, k * k, i))?.transpose(1, 2)?.contiguous()?.reshape((r, i * k * k))?;
    Ok((a.t()?.contiguous()?, inputs))
}

fn attached(
    component: &str,
    layer: &Adapted,
    tensors: Vec<(&'static str, Tensor)>,
    alpha: f64,
    strength: f64,
) -> Attached {
    let scale = strength * alpha / tensors[1].1.dims()[0] as f64;
    let params = Params::of(layer, tensors);
    let factors = NAMES.map(|name| params.get(name));
    let acts = Hadamard { factors, scale, dims: weight_dims(layer.shape()) };
    params.attached(component, layer, Arc::new(Adds(Arc::new(acts))), Some(alpha))
}

/// (A1 B1) o (A2 B2), scaled.
struct Hadamard {
    factors: [Param; 4],
    scale: f64,
    dims: Vec<usize>,
}

impl Addition for Hadamard {
    fn delta(&self) -> Result<Tensor> {
        let [a1, b1, a2, b2] = &self.factors;
        let left = matmul(&(full(a1)? * self.scale)?, &full(b1)?)?;
        (left * matmul(&full(a2)?, &full(b2)?)?)?.reshape(self.dims.as_slice())
    }
}

register!(Adapter, "loha", Loha);
