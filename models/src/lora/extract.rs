//! A LoRA out of weights: what training changed, as near as a rank allows (Eckart & Young 1936); and a LoRA at another rank.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_core::adapter::Saved;
use sconce_nn::Store;
use sconce_nn::small::{Columns, halves, largest, of_product};
use sconce_nn::weights::WeightFiles;

use super::{ALPHA, DOWN, UP, adaptable, factors, product};

/// A LoRA, and what it leaves out.
pub struct Extracted {
    /// One addition for each layer that changed.
    pub adapters: Vec<Saved>,
    /// Layers whose weights are the same.
    pub unchanged: usize,
    /// The squared norm of all that changed in layers that can be adapted.
    pub whole: f64,
    /// The squared norm of what the rank leaves out of it.
    pub left_out: f64,
    /// The squared norm of what changed elsewhere (biases, norms), which a LoRA cannot hold.
    pub elsewhere: f64,
}

/// What `tuned` adds to `base` in the layers that `takes` names (component, path), at a rank. Both: a component's weights.
///
/// # Errors
/// If they are of two models.
pub fn extract(
    stores: &[Arc<Store>],
    base: &dyn Fn(&str) -> Result<WeightFiles>,
    tuned: &dyn Fn(&str) -> Result<WeightFiles>,
    rank: usize,
    takes: &dyn Fn(&str, &str) -> bool,
) -> Result<Extracted> {
    let mut found = Extracted { adapters: Vec::new(), unchanged: 0, whole: 0.0, left_out: 0.0, elsewhere: 0.0 };
    for store in adaptable(stores) {
        let component = store.component();
        let (base, tuned) = (base(component)?, tuned(component)?);
        let layers: BTreeMap<String, String> =
            store.layers().iter().map(|l| (format!("{}.weight", l.path()), l.path().to_owned())).collect();
        for param in store.params() {
            let name = param.name();
            let read = |from: &WeightFiles| from.tensor(name, DType::F32, &Device::Cpu);
            let (was, is) = (read(&base)?, read(&tuned)?);
            if was.dims() != is.dims() {
                bail!("{component}: `{name}` is {:?} in one and {:?} in the other: two models", was.dims(), is.dims());
            }
            let change = (is - was)?;
            let size = f64::from(change.sqr()?.sum_all()?.to_scalar::<f32>()?);
            if !size.is_finite() {
                bail!("{component}: `{name}` is not finite");
            }
            match layers.get(name).filter(|path| takes(component, path)) {
                None => found.elsewhere += size,
                Some(_) if size == 0.0 => found.unchanged += 1,
                Some(path) => {
                    let (down, up) = nearest(&change, rank, &format!("{component}.{name}"))?;
                    let adapter = saved(component, path, down, up);
                    let rest = (&change - product(&adapter, change.dims())?)?;
                    found.whole += size;
                    found.left_out += f64::from(rest.sqr()?.sum_all()?.to_scalar::<f32>()?);
                    found.adapters.push(adapter);
                }
            }
        }
    }
    Ok(found)
}

fn saved(component: &str, path: &str, down: Tensor, up: Tensor) -> Saved {
    let rank = up.dims()[1] as f64;
    Saved {
        component: component.to_owned(),
        path: path.to_owned(),
        tensors: BTreeMap::from([(DOWN.to_owned(), down), (UP.to_owned(), up)]),
        constants: BTreeMap::from([(ALPHA.to_owned(), rank)]),
    }
}

/// A and B of a change, in a layer's shapes.
fn nearest(change: &Tensor, rank: usize, place: &str) -> Result<(Tensor, Tensor)> {
    let (left, values, right) = largest(&change.flatten_from(1)?, rank, place)?;
    split(&left, &values, &right, rank, change.dims())
}

/// A and B of singular vectors and values, in a layer's shapes.
fn split(left: &Columns, values: &[f64], right: &Columns, rank: usize, dims: &[usize]) -> Result<(Tensor, Tensor)> {
    let (down, up) = halves(left, values, right, rank)?;
    let (kept, ones) = (down.dim(0)?, vec![1; dims.len() - 2]);
    Ok((down.reshape([&[kept], &dims[1..]].concat())?, up.reshape([&[dims[0], kept], ones.as_slice()].concat())?))
}

/// A layer's addition at another rank, as near as that allows, and the squared norms of it whole and of what is left out.
///
/// # Errors
/// If it has no two factors.
pub fn resized(adapter: &Saved, rank: usize) -> Result<(Saved, f64, f64)> {
    let (down, up, scale) = factors(adapter)?;
    let (down, up) = (down.to_dtype(DType::F32)?, up.to_dtype(DType::F32)?);
    let dims = [&[up.dim(0)?], &down.dims()[1..]].concat();
    let (left, values, right) = of_product(&(up.flatten_from(1)? * scale)?, &down.flatten_from(1)?)?;
    let (down, up) = split(&left, &values, &right, rank, &dims)?;
    let squares = |values: &[f64]| values.iter().map(|s| s * s).sum::<f64>();
    let left_out = squares(&values[rank.min(values.len())..]);
    Ok((saved(&adapter.component, &adapter.path, down, up), squares(&values), left_out))
}
