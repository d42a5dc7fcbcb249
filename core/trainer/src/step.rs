//! One training step, top to bottom, as the papers write it. Everything that a plugin decides is a row of B scalars; the
//! rows go to the device together, and nothing here knows a plugin's or a model's name.

use candle_core::{DType, Result, Tensor};
use sconce_sdk::{Noise, Objective, Schedule, TimestepSampler, Weighting};

use crate::cond::Cond;
use crate::distance::Measure;
use crate::learning::Learning;
use crate::network::{Network, Preconditioning};
use crate::noise::Drawn;

/// The decisions of a run that the step follows.
pub struct Process<'a> {
    /// alpha and sigma over time.
    pub schedule: &'a dyn Schedule,
    /// What the network learns.
    pub objective: &'a dyn Objective,
    /// How much each noise level counts.
    pub weighting: &'a dyn Weighting,
    /// Which times are drawn.
    pub timesteps: &'a dyn TimestepSampler,
}

/// The scalars of one sample.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The quantile of the timestep distribution.
    pub quantile: f64,
    /// Time in [0, 1].
    pub t: f64,
    /// alpha and sigma there.
    pub noise: Noise,
    /// The coefficients of y = a x0 + b eps.
    pub target: [f64; 2],
    /// The factor on |y' - y|².
    pub weight: f64,
    /// What a learned sampler's draw counts: 1 over how much more often it is drawn.
    pub importance: f64,
    /// The learned logarithm u of the loss to expect: L becomes L/e^u + u.
    pub log_loss: f64,
}

/// What one forward pass gives, B each.
pub struct Losses {
    /// What is trained on, in the graph: the weighted distance, and what was learned about it.
    pub weighted: Tensor,
    /// The mean distance of each sample's output.
    pub distance: Tensor,
    /// The mean squared error of each sample's output.
    pub error: Tensor,
}

impl Process<'_> {
    /// The row at quantile `u` of the timestep distribution, snapped to the schedule's grid where it has one.
    pub fn row(&self, u: f64) -> Row {
        let t = self.timesteps.quantile(u, self.schedule);
        // A time that is a point stays it, whatever t · n rounds to.
        let snap = |n: usize| (t * n as f64 - 1e-9).ceil().clamp(1.0, n as f64) / n as f64;
        let t = self.schedule.grid().map_or(t, snap);
        let noise = self.schedule.at(t);
        let target = self.objective.target(&noise);
        let weight = self.weighting.on_output(&noise, target);
        Row { quantile: u, t, noise, target, weight, importance: 1.0, log_loss: 0.0 }
    }

    /// The row of a training draw: where the sampler and the weighting learn, as they have so far.
    pub fn drawn(&self, u: f64, learning: &Learning) -> Row {
        let [quantile, importance] = learning.map(u);
        let row = self.row(quantile);
        Row { importance, log_loss: learning.log_loss(row.noise.log_snr()), ..row }
    }

    /// The loss of clean latents `x0` (B C H W) under the noise `eps`, one row a sample.
    pub fn loss(
        &self,
        network: &Network,
        x0: &Tensor,
        eps: &Drawn,
        cond: &Cond,
        measure: &Measure,
        rows: &[Row],
    ) -> Result<Losses> {
        let values = |values: Vec<f32>| Tensor::from_vec(values, (rows.len(), 1, 1, 1), x0.device());
        let column = |f: &dyn Fn(&Row) -> f64| values(rows.iter().map(|r| f(r) as f32).collect());
        let reads: Vec<_> = rows.iter().map(|r| network.read(r.t, &r.noise, self.objective)).collect();
        let read = |f: &dyn Fn(&Preconditioning) -> f64| values(reads.iter().map(|r| f(r) as f32).collect());
        let alpha = column(&|r| r.noise.alpha)?; // B 1 1 1
        let sigma = column(&|r| r.noise.sigma)?;
        let a = column(&|r| r.target[0])?;
        let b = column(&|r| r.target[1])?;
        let c_skip = read(&|r| r.skip)?;
        let c_out = read(&|r| r.output)?;
        let c_in = read(&|r| r.input)?;
        let time = read(&|r| r.time)?.flatten_all()?; // B

        let x_t = (x0.broadcast_mul(&alpha)? + eps.input.broadcast_mul(&sigma)?)?;
        let y = (x0.broadcast_mul(&a)? + eps.target.broadcast_mul(&b)?)?;
        let input = x_t.broadcast_mul(&c_in)?.to_dtype(network.backbone.dtype())?;
        let f = network.backbone.forward(&input, &time, cond)?.to_dtype(DType::F32)?;
        let output = (x_t.broadcast_mul(&c_skip)? + f.broadcast_mul(&c_out)?)?;

        let difference = (output - y)?; // B C H W
        let distance = measure.distance(&difference, rows)?; // B
        let factor = column(&|r| r.importance * r.weight / r.log_loss.exp())?.flatten_all()?;
        let more = column(&|r| r.importance * r.log_loss)?.flatten_all()?;
        let weighted = ((&distance * factor)? + more)?;
        Ok(Losses { weighted, distance: distance.detach(), error: measure.squared_error(&difference)? })
    }
}

#[cfg(test)]
mod tests;
