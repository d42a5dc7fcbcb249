//! The running averages of what trains. A tensor is averaged as it is; an adapter that is not linear in its tensors, as a
//! product of two is not, by views of it that are ([`Mean`]), so that an average is always that of the model's weights.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::{DType, Result, Tensor, Var, bail};
use rayon::prelude::*;
use sconce_nn::inplace;
use sconce_sdk::EmaStrategy;

use super::weights::Weights;
use crate::adapter::{Attached, Mean};
use crate::optimizer::{OptimizerState, Trained};

/// What is averaged as one.
pub(super) enum Part<'a> {
    /// A trained tensor.
    Tensor(&'a Trained),
    /// An adapter, by its views.
    Adapter(&'a Attached, &'a dyn Mean),
}

impl Part<'_> {
    /// Its views by name, as they are now.
    pub fn views(&self) -> Result<Vec<(String, Tensor)>> {
        match self {
            Self::Tensor(p) => Ok(vec![(p.name.clone(), p.var.as_tensor().detach())]),
            Self::Adapter(a, mean) => {
                let name = |view: &str| format!("{}/{}.{view}", a.component, a.path);
                Ok(mean.views()?.into_iter().map(|(view, t)| (name(view), t)).collect())
            }
        }
    }

    /// Puts averaged views in its place.
    pub fn set(&self, means: &[Tensor]) -> Result<()> {
        match self {
            Self::Tensor(p) => p.var.set(&means[0].to_dtype(p.var.dtype())?),
            Self::Adapter(a, mean) => {
                for (short, value) in mean.tensors(means, None)?.tensors {
                    a.params[&short].set(&value)?;
                }
                Ok(())
            }
        }
    }
}

/// The averages, as many as the recipe tracks.
pub struct Averages {
    names: Vec<String>,
    tracks: Vec<Vec<Var>>,
}

impl Averages {
    /// As many as the strategy tracks, at the weights as they are.
    pub(super) fn start(weights: &Weights, ema: &dyn EmaStrategy) -> Result<Self> {
        let tracks = ema.tracks().len();
        if tracks == 0 {
            return Ok(Self { names: Vec::new(), tracks: Vec::new() });
        }
        let (names, views): (Vec<String>, Vec<Tensor>) = weights.views()?.into_iter().unzip();
        let copies =
            || views.iter().map(|v| Var::from_tensor(&v.to_dtype(DType::F32)?.copy()?)).collect::<Result<Vec<_>>>();
        Ok(Self { names, tracks: (0..tracks).map(|_| copies()).collect::<Result<_>>()? })
    }

    /// Moves them after a step.
    pub fn follow(&self, weights: &Weights, ema: &dyn EmaStrategy, images_seen: u64, batch: u64) -> Result<()> {
        if self.tracks.is_empty() {
            return Ok(());
        }
        let views = weights.views()?;
        for (track, averages) in self.tracks.iter().enumerate() {
            let decay = ema.decay(track, images_seen, batch);
            for (average, (_, view)) in averages.iter().zip(&views) {
                inplace::lerp(average, view, 1.0 - decay)?;
            }
        }
        Ok(())
    }

    /// Runs `f` with the first of them in the weights' place, or else with the average that the optimizer keeps; with the
    /// weights as they are where there is neither.
    pub fn swapped<T>(
        &self,
        weights: &Weights,
        optimizer: &dyn OptimizerState,
        f: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let of_optimizer = if self.tracks.is_empty() { optimizer.averaged()? } else { None };
        if self.tracks.is_empty() && of_optimizer.is_none() {
            return f();
        }
        let copy = |p: &Trained| p.var.as_tensor().detach().copy();
        let kept: Vec<Tensor> = weights.params.iter().map(copy).collect::<Result<_>>()?;
        if let Some(average) = of_optimizer {
            for (a, p) in average.iter().zip(&weights.params) {
                p.var.set(&a.to_dtype(p.var.dtype())?)?;
            }
        } else {
            let mut means = self.tracks[0].iter().map(|a| a.as_tensor().detach());
            let mut put = Vec::new();
            for part in weights.parts() {
                put.push((means.by_ref().take(part.views()?.len()).collect::<Vec<Tensor>>(), part));
            }
            put.par_iter().try_for_each(|(means, part)| part.set(means))?;
        }
        let result = f();
        for (k, p) in kept.iter().zip(&weights.params) {
            p.var.set(k)?;
        }
        result
    }

    /// True where the recipe keeps none.
    pub fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    /// All of them by track and name, as files hold them: `0/unet/conv_in.weight`.
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        let named = self.tracks.iter().enumerate().flat_map(|(track, averages)| {
            self.names.iter().zip(averages).map(move |(name, a)| (key(track, name), a.as_tensor().detach()))
        });
        named.collect()
    }

    /// Takes back what [`Averages::named`] gave.
    pub fn restore(&self, values: &BTreeMap<String, Tensor>) -> Result<()> {
        for (track, averages) in self.tracks.iter().enumerate() {
            for (name, average) in self.names.iter().zip(averages) {
                match values.get(&key(track, name)) {
                    Some(value) => average.set(&value.to_device(average.device())?)?,
                    None => bail!("there is no average `{}`", key(track, name)),
                }
            }
        }
        Ok(())
    }
}

/// The name of an average in a file.
pub(super) fn key(track: usize, name: &str) -> String {
    format!("{track}/{name}")
}

impl Weights {
    /// What is averaged, in one order for the whole run.
    pub(super) fn parts(&self) -> Vec<Part<'_>> {
        let adapters = self.adapters.iter().filter_map(|a| Some((a, a.mean.as_deref()?)));
        let covered: BTreeSet<String> = adapters
            .clone()
            .flat_map(|(a, _)| a.params.values().map(|p| format!("{}/{}", a.component, p.name())))
            .collect();
        let plain = self.params.iter().filter(|p| !covered.contains(&p.name)).map(Part::Tensor);
        plain.chain(adapters.map(|(a, mean)| Part::Adapter(a, mean))).collect()
    }

    fn views(&self) -> Result<Vec<(String, Tensor)>> {
        let views: Vec<_> = self.parts().iter().map(Part::views).collect::<Result<_>>()?;
        Ok(views.into_iter().flatten().collect())
    }
}
