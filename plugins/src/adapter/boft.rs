//! BOFT: the rotation of all outputs as a product of sparse ones, each of small blocks whose members lie further apart than the
//! last one's, as in a fast Fourier transform (Liu et al. 2023, arXiv 2311.06243, section 4). Named, and ordered, as in LyCORIS.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};
use sconce_core::adapter::{Adapter, Attached, Saved};
use sconce_nn::layers::Shape;
use sconce_nn::ops::matmul;
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Store};
use sconce_sdk::prelude::*;

use super::inputs;
use super::oft::{BLOCKS, RESCALE, attached, go_on, ones, rescale};
use super::parts::{ALPHA, fits, given, weight_dims};

/// Rotations of all outputs by a butterfly of small ones (Liu et al. 2023).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Boft {
    /// Outputs in a block: an even number, the largest of those that leave a power of two of blocks.
    pub block: usize,
    /// How many factors the butterfly has. Default: as many as mix every output with every other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factors: Option<usize>,
    /// Bounds how far the rotations go: Q's norm is cut to this times the outputs. Zero: not at all.
    pub constraint: f64,
    /// Whether a factor for each output trains beside the rotations, which alone change no neuron's size.
    pub rescale: bool,
    /// Layers to adapt, matched against `component.path`, with `*` for any text.
    pub targets: Vec<String>,
}

impl Default for Boft {
    fn default() -> Self {
        Self { block: 16, factors: None, constraint: 0.0, rescale: false, targets: super::parts::attentions() }
    }
}

impl Adapter for Boft {
    fn targets(&self) -> &[String] {
        &self.targets
    }

    fn tensors(&self) -> Vec<&'static str> {
        vec![BLOCKS, RESCALE]
    }

    fn knows(&self, tensors: &BTreeMap<String, Tensor>) -> bool {
        tensors.get(BLOCKS).is_some_and(|blocks| blocks.rank() == 4) || tensors.contains_key(inputs::BUTTERFLY)
    }

    fn elements(&self, _: &str, layer: Shape) -> usize {
        let outputs = weight_dims(layer)[0];
        self.blocks(outputs).map_or(0, |[factors, _, side]| factors * outputs * side)
            + if self.rescale { outputs } else { 0 }
    }

    fn build(&self, store: &Store, layer: &Adapted, _: &Stream) -> Result<Attached> {
        let outputs = weight_dims(layer.shape())[0];
        let Some([factors, count, side]) = self.blocks(outputs) else {
            candle_core::bail!(
                "adapter.block = {}: the {outputs} outputs of {}.{} are no power of two times an even number that small",
                self.block,
                store.component(),
                layer.path()
            );
        };
        let blocks = Tensor::zeros((factors, count, side, side), DType::F32, &layer.weight().device())?;
        let rescale = self.rescale.then(|| ones(layer)).transpose()?;
        Ok(attached(store.component(), layer, blocks, rescale, self.constraint, 1.0, butterfly))
    }

    fn restore(
        &self,
        component: &str,
        layer: &Adapted,
        tensors: &BTreeMap<String, Tensor>,
        constants: &BTreeMap<String, f64>,
        strength: f64,
    ) -> Result<Attached> {
        if tensors.contains_key(inputs::BUTTERFLY) {
            return inputs::boft(component, layer, tensors, strength);
        }
        let place = format!("{component}.{}", layer.path());
        let (blocks, rescale) = (given(tensors, BLOCKS, &place)?, rescale(tensors, layer, &place)?);
        let (factors, count, side, columns) = blocks.dims4()?;
        let most = count.ilog2() as usize + 1;
        let outputs = weight_dims(layer.shape())[0];
        // A block is two halves from groups that lie apart, of 2, 4, … blocks.
        let whole = count.is_power_of_two() && side.is_multiple_of(2) && factors <= most;
        fits(&place, &[count * side, columns, usize::from(whole)], &[outputs, side, 1])?;
        let constraint = constants.get(ALPHA).copied().unwrap_or(0.0);
        Ok(attached(component, layer, blocks, rescale, constraint, strength, butterfly))
    }

    fn start(&self, store: &Store, layer: &Adapted, init: &Stream, from: &Saved) -> Result<Attached> {
        go_on(self.build(store, layer, init)?, from)
    }
}

impl Boft {
    /// Factors, blocks in each, and the blocks' side.
    fn blocks(&self, outputs: usize) -> Option<[usize; 3]> {
        let fits = |side: &usize| outputs.is_multiple_of(*side) && (outputs / side).is_power_of_two();
        let side = (1..=self.block.min(outputs) / 2).rev().map(|half| 2 * half).find(fits)?;
        let most = (outputs / side).ilog2() as usize + 1;
        Some([self.factors.unwrap_or(most).clamp(1, most), outputs / side, side])
    }
}

/// Through every factor of R, `M N B B`.
fn butterfly(y: &Tensor, r: &Tensor) -> Result<Tensor> {
    let (factors, count, side, _) = r.dims4()?;
    let (rows, outputs) = y.dims2()?;
    let mut y = y.clone();
    for i in 0..factors {
        // Two halves of a block lie this far apart: outputs c, g, k become c, k, g, so that a block is contiguous.
        let apart = (side / 2) << i;
        let groups = outputs / (2 * apart);
        let near = y.reshape((rows, groups, 2, apart))?.transpose(2, 3)?.contiguous()?;
        let near = near.reshape((rows, count, side))?.transpose(0, 1)?.contiguous()?; // N T B
        let r = r.get(i)?.transpose(1, 2)?.contiguous()?; // y' = R y
        let turned = matmul(&near, &r)?.transpose(0, 1)?.contiguous()?;
        y = turned.reshape((rows, groups, apart, 2))?.transpose(2, 3)?.contiguous()?.reshape((rows, outputs))?;
    }
    Ok(y)
}

register!(Adapter, "boft", Boft);
