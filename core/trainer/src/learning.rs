//! What a run learns beside the model: the states of a sampler of timesteps and of a weighting, where they have one. They
//! are told what each update showed once it is made, and their numbers are in every checkpoint.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_sdk::{Learned, Observation, SamplerState, TimestepSampler, Weighting, WeightingState};

use crate::step::{Losses, Row};

/// The states of a run's plugins. The default learns nothing.
#[derive(Default)]
pub struct Learning {
    sampler: Option<Box<dyn SamplerState>>,
    weighting: Option<Box<dyn WeightingState>>,
    seen: Vec<Observation>,
}

impl Learning {
    /// As these plugins start.
    pub fn start(timesteps: &dyn TimestepSampler, weighting: &dyn Weighting) -> Self {
        Self { sampler: timesteps.start(), weighting: weighting.start(), seen: Vec::new() }
    }

    /// The quantile to train at in place of u, and what it counts: `[u, 1]` where nothing is learned.
    pub fn map(&self, u: f64) -> [f64; 2] {
        self.sampler.as_ref().map_or([u, 1.0], |s| s.map(u))
    }

    /// The logarithm of the loss to expect: 0 where nothing is learned.
    pub fn log_loss(&self, log_snr: f64) -> f64 {
        self.weighting.as_ref().map_or(0.0, |w| w.log_loss(log_snr))
    }

    /// Notes one batch of an update.
    pub fn see(&mut self, rows: &[Row], losses: &Losses) -> Result<()> {
        if self.sampler.is_none() && self.weighting.is_none() {
            return Ok(());
        }
        let (distances, errors) = (losses.distance.to_vec1::<f32>()?, losses.error.to_vec1::<f32>()?);
        self.seen.extend(rows.iter().zip(distances).zip(errors).map(|((row, distance), error)| Observation {
            quantile: row.quantile,
            log_snr: row.noise.log_snr(),
            weight: row.weight,
            error: error.into(),
            loss: row.weight * f64::from(distance),
            log_loss: row.log_loss,
            importance: row.importance,
        }));
        Ok(())
    }

    /// Learns from the update whose batches were noted. All of them were drawn by the state from before it.
    pub fn learn(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        if let Some(sampler) = &mut self.sampler {
            sampler.observe(&seen);
        }
        if let Some(weighting) = &mut self.weighting {
            weighting.observe(&seen);
        }
    }

    /// The states as f64 tensors; none where nothing is learned.
    pub fn save(&self) -> Result<BTreeMap<String, Tensor>> {
        let sampler = self.sampler.iter().map(|s| (SAMPLER, s.save()));
        let weighting = self.weighting.iter().map(|w| (WEIGHTING, w.save()));
        sampler.chain(weighting).map(|(name, s)| Ok((name.to_owned(), Tensor::new(s, &Device::Cpu)?))).collect()
    }

    /// Takes them back.
    pub fn restore(&mut self, states: &BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(sampler) = &mut self.sampler {
            put(states, SAMPLER, &mut **sampler)?;
        }
        if let Some(weighting) = &mut self.weighting {
            put(states, WEIGHTING, &mut **weighting)?;
        }
        Ok(())
    }
}

const SAMPLER: &str = "timesteps";
const WEIGHTING: &str = "weighting";

fn put<S: Learned + ?Sized>(states: &BTreeMap<String, Tensor>, name: &str, to: &mut S) -> Result<()> {
    let Some(state) = states.get(name) else {
        bail!("the checkpoint does not hold what the {name} learned: with such a recipe, start a new run (--out)")
    };
    let numbers = state.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    to.restore(&numbers).map_err(|e| candle_core::Error::Msg(format!("what the {name} learned does not fit: {e}")))
}
