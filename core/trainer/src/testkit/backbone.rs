//! The laws of networks in tensors. Those of a network with an engine of its own are in the SDK.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_nn::Store;
use sconce_nn::checkpoint::backward;
use sconce_nn::store::Source;
use sconce_nn::weights::{WeightFiles, save};
use sconce_sdk::Noise;

use super::{Checked, Law, bits, distance, finite, holds, law, product, random};
use crate::Cond;
use crate::architecture::{Architecture, Start};
use crate::model::{Backbone, Recompute};

/// The laws of a network in tensors, given conditions for two pictures (what it takes, it knows alone): it asks for the same
/// parameters, each once, whatever they start from; its output is finite, of the shape of x, the same when asked the same, and
/// that of each picture its own; every parameter gets the gradient that differences give, and so does what it is given; blocks
/// that are computed again give the same; and its own weight file gives it back.
pub fn backbone(architecture: &dyn Architecture, cond: &Cond) -> Law {
    law(obeys(architecture, cond), String::new)
}

fn built(architecture: &dyn Architecture, source: Source, dtype: DType) -> Result<(Arc<Store>, Arc<dyn Backbone>)> {
    let store = Store::new("backbone", source, architecture.dtype(dtype), &Device::Cpu);
    Ok((store.clone(), architecture.build(store)?))
}

fn at_start(architecture: &dyn Architecture) -> Source {
    match architecture.start() {
        Start::Own(read) => Source::Own(read),
        Start::Seeded => Source::Random(1),
    }
}

fn names(store: &Store) -> Vec<(String, Vec<usize>)> {
    store.params().iter().map(|p| (p.name().to_owned(), p.shape().dims().to_vec())).collect()
}

fn obeys(architecture: &dyn Architecture, cond: &Cond) -> Checked {
    let about = architecture.about();
    let (store, network) = built(architecture, at_start(architecture), DType::F32)?;
    let (shapes, _) = built(architecture, Source::Shapes, DType::F32)?;
    holds(!store.params().is_empty(), || "it has no parameters".to_owned())?;
    holds(names(&store) == names(&shapes), || "it asks for other parameters where there are only shapes".to_owned())?;
    let says = (about.channels, about.side_multiple);
    let takes = (network.channels(), network.side_multiple());
    holds(says == takes && says.0 > 0 && says.1 > 0, || {
        format!(
            "`about` says {} channels and sides of multiples of {}; the network {} and {}",
            says.0, says.1, takes.0, takes.1
        )
    })?;

    let shape = [2, says.0, 2 * says.1, 3 * says.1];
    // As it is given by a schedule in training.
    let level = Noise::preserving(0.8, 0.6, 1.0);
    let times: Vec<f32> = [0.3, 0.8].map(|t| network.time(t, &level) as f32).to_vec();
    let asked = Asked { x: random(&shape, 1)?, time: Tensor::new(times, &Device::Cpu)?, cond: cond.clone() };
    holds(finite(&asked.time)?, || "its time is not finite".to_owned())?;
    let y = asked.of(&*network)?;
    holds(y.dims() == shape, || format!("for x of {shape:?} the output is of {:?}", y.dims()))?;
    holds(finite(&y)?, || "its output is not finite".to_owned())?;
    holds(bits(&y)? == bits(&asked.of(&*network)?)?, || "asked the same, it answers something else".to_owned())?;
    each_by_itself(&*network, &asked, &y)?;
    comes_back_from_its_file(architecture, &store, &asked, &y)?;
    let (_, half) = built(architecture, at_start(architecture), DType::BF16)?;
    let narrow = asked.of(&*half)?;
    holds(narrow.dims() == shape && finite(&narrow)?, || "in bf16 its output is not finite".to_owned())?;
    gradients_are_right(&store, &*network, &asked)
}

/// A question.
#[derive(Clone)]
struct Asked {
    x: Tensor,
    time: Tensor,
    cond: Cond,
}

impl Asked {
    fn of(&self, network: &dyn Backbone) -> Result<Tensor> {
        network.forward(&self.x, &self.time, &self.cond)
    }

    /// x and the conditions, by name.
    fn inputs(&self) -> Vec<(String, Tensor)> {
        let conditions = self.cond.0.iter().map(|(name, t)| (name.clone(), t.clone()));
        std::iter::once(("x".to_owned(), self.x.clone())).chain(conditions).collect()
    }

    fn with(&self, name: &str, value: &Tensor) -> Self {
        match name {
            "x" => Self { x: value.clone(), ..self.clone() },
            name => Self { cond: self.cond.clone().with(name, value.clone()), ..self.clone() },
        }
    }
}

fn each_by_itself(network: &dyn Backbone, asked: &Asked, y: &Tensor) -> Checked {
    for i in 0..2 {
        let one = |t: &Tensor| t.narrow(0, i, 1);
        let alone = Asked { x: one(&asked.x)?, time: one(&asked.time)?, cond: asked.cond.map(one)? }.of(network)?;
        let off = distance(&alone, &one(y)?)?;
        holds(off < 1e-4, || format!("what it says of a picture depends on the others of its batch: {off:.1e}"))?;
    }
    Ok(())
}

fn comes_back_from_its_file(architecture: &dyn Architecture, store: &Store, asked: &Asked, y: &Tensor) -> Checked {
    let folder = tempfile::tempdir().map_err(candle_core::Error::from)?;
    let path = folder.path().join("model.safetensors");
    let tensors = store.params().iter().map(|p| Ok((p.name().to_owned(), p.tensor()?))).collect::<Result<_>>()?;
    save(&path, &tensors, &BTreeMap::new())?;
    let (store, network) = built(architecture, Source::Files(WeightFiles::open(&[&path])?), DType::F32)?;
    store.finish()?;
    let same = bits(&asked.of(&*network)?)? == bits(y)?;
    holds(same, || "from its own weight file it answers something else".to_owned())
}

fn gradients_are_right(store: &Store, network: &dyn Backbone, asked: &Asked) -> Checked {
    let params: Vec<(String, Var)> =
        store.params().iter().map(|p| Ok((p.name().to_owned(), p.train()?))).collect::<Result<_>>()?;
    // Away from zeros, behind which nothing gets a gradient.
    for (i, (_, var)) in params.iter().enumerate() {
        var.set(&(var.as_tensor() + (random(var.dims(), i as u64)? * 0.1)?)?)?;
    }
    let inputs: Vec<(String, Var)> =
        asked.inputs().into_iter().map(|(name, t)| Ok((name, Var::from_tensor(&t)?))).collect::<Result<_>>()?;
    let tracked = inputs.iter().fold(asked.clone(), |asked, (name, var)| asked.with(name, var.as_tensor()));
    let probe = random(asked.x.dims(), 77)?;
    let graded = |what: Recompute| -> Result<(Tensor, GradStore)> {
        network.recompute(what);
        let y = tracked.of(network)?.to_dtype(DType::F32)?;
        let grads = backward(&(&y * &probe)?.sum_all()?)?;
        Ok((y, grads))
    };
    let (y, grads) = graded(Recompute::Nothing)?;
    let (again, recomputed) = graded(Recompute::Blocks)?;
    network.recompute(Recompute::Nothing);
    let off = distance(&again, &y)?;
    holds(off < 1e-5, || format!("with its blocks computed again its output is {off:.1e} off"))?;

    for (name, var) in &params {
        let (Some(grad), Some(other)) = (grads.get(var.as_tensor()), recomputed.get(var.as_tensor())) else {
            return holds(false, || format!("`{name}` gets no gradient: the graph is cut, or it is not used"));
        };
        right(name, var.as_tensor(), grad, other, |value| {
            var.set(value)?;
            product(&asked.of(network)?.detach(), &probe)
        })?;
    }
    for (name, var) in &inputs {
        // It may leave a condition alone.
        let zeros = var.as_tensor().zeros_like()?;
        let [grad, other] = [&grads, &recomputed].map(|grads| grads.get(var.as_tensor()).unwrap_or(&zeros));
        right(name, var.as_tensor(), grad, other, |value| {
            product(&asked.with(name, &value.detach()).of(network)?.detach(), &probe)
        })?;
    }
    Ok(())
}

/// A gradient against differences along one way, and against that through blocks which are computed again. Leaves the value as
/// it was.
fn right(name: &str, value: &Tensor, grad: &Tensor, other: &Tensor, at: impl Fn(&Tensor) -> Result<f64>) -> Checked {
    holds(grad.dims() == value.dims() && finite(grad)?, || {
        format!("the gradient of `{name}` {:?} is of {:?}, or not finite", value.dims(), grad.dims())
    })?;
    let off = distance(other, grad)?;
    holds(off < 1e-4, || format!("with blocks computed again the gradient of `{name}` is {off:.1e} off"))?;
    let (kept, way) = (value.copy()?.detach(), random(value.dims(), 21)?);
    let moved = |step: f64| at(&(&kept + (&way * step)?)?);
    let slope = |step: f64| Ok::<f64, candle_core::Error>((moved(step)? - moved(-step)?) / (2.0 * step));
    let (fine, coarse) = (slope(2e-3)?, slope(4e-3)?);
    at(&kept)?;
    let along = product(grad, &way)?;
    // Two steps say how far differences can be trusted.
    let doubt = 2.0 * (fine - coarse).abs() + 1e-2 * fine.abs() + 1e-2;
    holds((along - fine).abs() <= doubt, || {
        format!("along `{name}` the gradient gives {along}, the differences {fine} and {coarse}")
    })
}
