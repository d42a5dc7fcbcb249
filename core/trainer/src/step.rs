//! One training step, top to bottom, as the papers write it. Everything that a plugin decides is a row of B scalars; the
//! rows go to the device together, and nothing here knows a plugin's or a model's name.

use candle_core::{DType, Device, Result, Tensor};
use sconce_nn::rng::Stream;
use sconce_sdk::{Noise, Objective, Schedule, TimestepSampler, Weighting};

use crate::cond::Cond;
use crate::model::Backbone;

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
    /// Time in [0, 1].
    pub t: f64,
    /// alpha and sigma there.
    pub noise: Noise,
    /// The coefficients of y = a x0 + b eps.
    pub target: [f64; 2],
    /// The factor on |y' - y|².
    pub weight: f64,
}

/// What one forward pass gives, B each.
pub struct Losses {
    /// The weighted loss of each sample, in the graph.
    pub weighted: Tensor,
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
        Row { t, noise, target, weight: self.weighting.on_output(&noise, target) }
    }

    /// The loss of clean latents `x0` (B C H W) under unit-variance noise `eps`, one row a sample.
    pub fn loss(&self, model: &dyn Backbone, x0: &Tensor, eps: &Tensor, cond: &Cond, rows: &[Row]) -> Result<Losses> {
        let column = |f: &dyn Fn(&Row) -> f64| column(rows, x0.device(), f);
        let alpha = column(&|r| r.noise.alpha)?; // B 1 1 1
        let sigma = column(&|r| r.noise.sigma)?;
        let a = column(&|r| r.target[0])?;
        let b = column(&|r| r.target[1])?;
        let scale = column(&|r| self.objective.input_scale(&r.noise))?;
        let time = column(&|r| model.time(r.t, &r.noise))?.flatten_all()?; // B

        let x_t = (x0.broadcast_mul(&alpha)? + eps.broadcast_mul(&sigma)?)?;
        let y = (x0.broadcast_mul(&a)? + eps.broadcast_mul(&b)?)?;
        let input = x_t.broadcast_mul(&scale)?.to_dtype(model.dtype())?;
        let output = model.forward(&input, &time, cond)?.to_dtype(DType::F32)?;
        let error = (output - y)?.sqr()?.flatten_from(1)?.mean(1)?; // B
        let weighted = (&error * column(&|r| r.weight)?.flatten_all()?)?;
        Ok(Losses { weighted, error })
    }
}

/// Quantiles for an update of `count` samples: one in each of `count` equal strata, in random order, so that every
/// update sees the whole timestep distribution, over all of its accumulated batches.
pub fn stratified(stream: &Stream, count: usize) -> Vec<f64> {
    let random = stream.uniform(2 * count);
    let (jitter, order) = random.split_at(count);
    let mut strata: Vec<usize> = (0..count).collect();
    strata.sort_by(|&i, &j| order[i].total_cmp(&order[j]));
    strata.into_iter().zip(jitter).map(|(s, j)| (s as f64 + j) / count as f64).collect()
}

/// A scalar for each sample, as `B 1 1 1` f32 on the device.
fn column(rows: &[Row], device: &Device, f: &dyn Fn(&Row) -> f64) -> Result<Tensor> {
    let values: Vec<f32> = rows.iter().map(|r| f(r) as f32).collect();
    Tensor::from_vec(values, (rows.len(), 1, 1, 1), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stratum_is_drawn_once() {
        let mut u = stratified(&Stream::new(3, "timesteps").at(640, 0), 16);
        u.sort_by(f64::total_cmp);
        for (i, u) in u.into_iter().enumerate() {
            assert!((i as f64..(i + 1) as f64).contains(&(u * 16.0)), "stratum {i}: {u}");
        }
    }
}
