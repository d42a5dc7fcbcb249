//! Rotations of a layer's inputs, y = W R x, as PEFT and OneTrainer have OFT (Qiu et al. 2025, arXiv 2506.19847, section 3) and BOFT.
//! Such files are drawn with and merged; what trains here are rotations of outputs, which more programs load. Of a convolution the
//! columns of the weight are rotated, `I K K` as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, DType, Result, Tensor, bail};
use sconce_core::adapter::Attached;
use sconce_nn::Adapted;
use sconce_nn::layers::{LayerAdapter, Shape};
use sconce_nn::ops::{inverse, matmul};

use super::parts::{along_channels, along_rows, at_strength, biased, fits, given, sides, unbiased};

/// OFT's skew-symmetric matrices, `N B(B-1)/2`: what is above their diagonals. One alone stands for all.
pub(super) const SKEW: &str = "oft_R";
/// Beside it: they are divided by 2 sqrt(B - 1) (OneTrainer).
const SKEW_SCALED: &str = "oft_R.scaled_oft";
/// BOFT's free matrices, `M N B B`, and factors for the outputs.
pub(super) const BUTTERFLY: &str = "boft_R";
const BUTTERFLY_SCALE: &str = "boft_s";
/// Terms of the series that stands for an inverse; none: the inverse itself. Where PEFT says nothing, OneTrainer wrote it, with five.
const TERMS: &str = "neumann_terms";
/// Bounds the norm of each skew-symmetric matrix, over the root of their number.
const BOUND: &str = "bound";

/// A file's OFT on a layer.
pub(super) fn oft(
    component: &str,
    layer: &Adapted,
    tensors: &BTreeMap<String, Tensor>,
    constants: &BTreeMap<String, f64>,
    strength: f64,
) -> Result<Attached> {
    let place = format!("{component}.{}", layer.path());
    let vectors = given(tensors, SKEW, &place)?;
    let (count, elements) = vectors.dims2()?;
    let side = (((1 + 8 * elements) as f64).sqrt() as usize).div_ceil(2);
    let inputs = sides(layer.shape()).1;
    if side * (side - 1) / 2 != elements || !inputs.is_multiple_of(side) {
        bail!("the adapter does not fit {place}: it rotates {side} of {inputs} inputs: it was made for another model");
    }
    let mut skew = above(&vectors, side)?;
    if let Some(bound) = constants.get(BOUND) {
        let bound = bound / (count as f64).sqrt();
        let norms = skew.sqr()?.sum_keepdim((1, 2))?.sqrt()?;
        let kept = (norms.clamp(0.0, bound)? / norms.clamp(f64::MIN_POSITIVE as f32, f32::MAX)?)?;
        skew = skew.broadcast_mul(&kept)?;
    }
    if tensors.contains_key(SKEW_SCALED) {
        skew = (skew / (2.0 * ((side - 1) as f64).sqrt()))?;
    }
    if !constants.contains_key(TERMS) && matches!(layer.shape(), Shape::Conv { .. }) {
        skew = skew.neg()?; // OneTrainer multiplies a convolution's columns by R where PEFT has Rᵀ
    }
    let terms = constants.get(TERMS).map_or(5, |terms| *terms as usize);
    let blocks = if terms == 0 { cayley(&skew)? } else { series(&skew, terms)? };
    let blocks = match count {
        1 => blocks.broadcast_as((inputs / side, side, side))?.contiguous()?,
        _ => blocks,
    };
    fits(&place, &[blocks.dim(0)? * side], &[inputs])?;
    Ok(attached(component, layer, Turned { factors: vec![Factor { order: None, blocks }], scale: None }, strength))
}

/// A file's BOFT on a layer.
pub(super) fn boft(
    component: &str,
    layer: &Adapted,
    tensors: &BTreeMap<String, Tensor>,
    strength: f64,
) -> Result<Attached> {
    let place = format!("{component}.{}", layer.path());
    let free = given(tensors, BUTTERFLY, &place)?;
    let (count, blocks, side, columns) = free.dims4()?;
    let (outputs, inputs) = sides(layer.shape());
    let whole = count == 1 || (side.is_multiple_of(2) && blocks.is_multiple_of(1 << (count - 1)));
    fits(&place, &[blocks * side, columns, usize::from(whole)], &[inputs, side, 1])?;
    let skew = ((&free - free.transpose(2, 3)?)? * 0.5)?;
    let factor = |i: usize| {
        let order = (count > 1).then(|| order(inputs, side / 2, i));
        Ok(Factor { order, blocks: cayley(&skew.get(i)?)? })
    };
    let factors = (0..count).map(factor).collect::<Result<_>>()?;
    let scale = tensors.get(BUTTERFLY_SCALE).map(|s| s.to_dtype(DType::F32)?.flatten_all()).transpose()?;
    if let Some(scale) = &scale {
        fits(&place, scale.dims(), &[outputs])?;
    }
    Ok(attached(component, layer, Turned { factors, scale }, strength))
}

fn attached(component: &str, layer: &Adapted, acts: Turned, strength: f64) -> Attached {
    Attached {
        component: component.to_owned(),
        path: layer.path().to_owned(),
        layer: at_strength(Arc::new(acts), strength),
        params: BTreeMap::new(),
        constants: BTreeMap::new(),
        mean: None,
        file: None,
    }
}

/// Skew-symmetric matrices, `N B B`, of what is above their diagonals.
fn above(vectors: &Tensor, side: usize) -> Result<Tensor> {
    let mut all = Vec::new();
    for vector in vectors.to_vec2::<f32>()? {
        let mut matrix = vec![0f32; side * side];
        let places = (0..side).flat_map(|row| (row + 1..side).map(move |column| (row, column)));
        for ((row, column), value) in places.zip(vector) {
            (matrix[row * side + column], matrix[column * side + row]) = (value, -value);
        }
        all.extend(matrix);
    }
    Tensor::from_vec(all, (vectors.dim(0)?, side, side), vectors.device())
}

/// (1 - Q)(1 + Q)⁻¹ = 2 (1 + Q)⁻¹ - 1.
fn cayley(skew: &Tensor) -> Result<Tensor> {
    let one = Tensor::eye(skew.dim(D::Minus1)?, DType::F32, skew.device())?.broadcast_as(skew.shape())?;
    (inverse(&(&one + skew)?)? * 2.0)? - one
}

/// What stands for (1 + Q)(1 - Q)⁻¹: 1 + 2 Q + 2 Q² + … with so many terms, the last of them once.
fn series(skew: &Tensor, terms: usize) -> Result<Tensor> {
    let mut sum = Tensor::eye(skew.dim(D::Minus1)?, DType::F32, skew.device())?.broadcast_as(skew.shape())?;
    if terms > 1 {
        sum = (sum + (skew * 2.0)?)?;
    }
    if terms > 2 {
        let mut power = matmul(skew, skew)?;
        sum = (sum + (&power * 2.0)?)?;
        for _ in 3..terms - 1 {
            power = matmul(&power, skew)?;
            sum = (sum + (&power * 2.0)?)?;
        }
        sum = (sum + matmul(&power, skew)?)?;
    }
    sum.contiguous()
}

/// Where the inputs of the butterfly's factor `i` come from: in groups of 2^(i+1) halves of a block, the even halves before the
/// odd ones.
fn order(inputs: usize, half: usize, i: usize) -> Vec<u32> {
    let halves = 1 << (i + 1);
    let group = |start: usize| (0..halves).step_by(2).chain((1..halves).step_by(2)).map(move |h| start + h * half);
    let starts = (0..inputs).step_by(half * halves).flat_map(group);
    starts.flat_map(|start| start as u32..(start + half) as u32).collect()
}

/// One orthogonal factor of a rotation: P D Pᵀ, D of blocks.
struct Factor {
    order: Option<Vec<u32>>,
    blocks: Tensor, // N B B
}

impl Factor {
    /// `T I` rows times it, or times its transpose.
    fn on(&self, rows: &Tensor, blocks: &Tensor) -> Result<Tensor> {
        let (count, side, _) = blocks.dims3()?;
        let moved = |rows: &Tensor, order: Vec<u32>| rows.index_select(&Tensor::new(order, rows.device())?, 1);
        let mut rows = rows.clone();
        if let Some(order) = &self.order {
            let mut back = vec![0; order.len()];
            (0u32..).zip(order).for_each(|(i, to)| back[*to as usize] = i);
            rows = moved(&rows, back)?;
        }
        let groups = rows.reshape(((), count, side))?.transpose(0, 1)?.contiguous()?; // N T B
        rows = matmul(&groups, &blocks.to_dtype(rows.dtype())?)?.transpose(0, 1)?.contiguous()?.flatten_from(1)?;
        match &self.order {
            Some(order) => moved(&rows, order.clone()),
            None => Ok(rows),
        }
    }
}

struct Turned {
    /// The first acts on the weight's rows first, the last on the inputs.
    factors: Vec<Factor>,
    scale: Option<Tensor>, // O
}

impl LayerAdapter for Turned {
    fn forward(&self, x: &Tensor, layer: &Adapted, base: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        if matches!(layer.shape(), Shape::Conv { .. }) {
            // No rotation of the picture is one of its patches: what the weight changes by is added.
            let weight = layer.weight().tensor()?.detach().to_dtype(DType::F32)?;
            let change = (self.merged(&weight, None)?.0 - weight)?;
            return base(x)? + layer.apply(x, &change.to_dtype(x.dtype())?, None)?;
        }
        let mut rows = x.contiguous()?.flatten_to(x.rank() - 2)?;
        for factor in self.factors.iter().rev() {
            rows = factor.on(&rows, &factor.blocks)?;
        }
        let y = base(&rows.reshape(x.shape())?)?;
        let Some(scale) = &self.scale else { return Ok(y) };
        let y = unbiased(y, layer)?;
        biased(y.broadcast_mul(&along_channels(scale, layer)?.to_dtype(y.dtype())?)?, layer)
    }

    fn merged(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Option<Tensor>)> {
        let mut rows = weight.flatten_from(1)?; // O I
        for factor in &self.factors {
            rows = factor.on(&rows, &factor.blocks.transpose(1, 2)?.contiguous()?)?;
        }
        let mut whole = rows.reshape(weight.shape())?;
        if let Some(scale) = &self.scale {
            whole = whole.broadcast_mul(&along_rows(scale, weight.rank())?)?;
        }
        Ok((whole, bias.cloned()))
    }
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn a_butterflys_halves_are_sorted_in_wider_and_wider_groups() {
        assert_eq!(order(8, 2, 0), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(order(8, 2, 1), [0, 1, 4, 5, 2, 3, 6, 7]);
        assert_eq!(order(8, 1, 1), [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
