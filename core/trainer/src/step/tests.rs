//! The step's loss against its formula, on a network of one number.

use std::sync::Arc;

use candle_core::{Device, Var};
use sconce_nn::Store;
use sconce_nn::rng::Stream;
use sconce_nn::store::Source;
use sconce_sdk::{Distance, Learned, Observation, SamplerState, WeightingState};

use super::*;
use crate::model::{Backbone, Recompute};

/// Outputs its input times a number.
struct Gain(Var, Arc<Store>);

impl Backbone for Gain {
    fn forward(&self, x: &Tensor, _: &Tensor, _: &Cond) -> Result<Tensor> {
        x.broadcast_mul(self.0.as_tensor())
    }
    fn time(&self, t: f64, _: &Noise) -> f64 {
        t
    }
    fn store(&self) -> &Arc<Store> {
        &self.1
    }
    fn recompute(&self, _: Recompute) {}
    fn channels(&self) -> usize {
        4
    }
    fn side_multiple(&self) -> usize {
        1
    }
    fn dtype(&self) -> DType {
        DType::F32
    }
}

/// A straight schedule, v, a weight of 2, even times, the squared error.
struct Plain;
impl Schedule for Plain {
    fn at(&self, t: f64) -> Noise {
        Noise { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 }
    }
}
impl Objective for Plain {
    fn target(&self, n: &Noise) -> [f64; 2] {
        [-n.sigma, n.alpha]
    }
}
impl Weighting for Plain {
    fn on_x0(&self, _: f64) -> f64 {
        unreachable!("the step asks for `on_output`")
    }
    fn on_output(&self, _: &Noise, _: [f64; 2]) -> f64 {
        2.0
    }
    fn start(&self) -> Option<Box<dyn WeightingState>> {
        Some(Box::new(State(0.0)))
    }
}
impl TimestepSampler for Plain {
    fn quantile(&self, u: f64, _: &dyn Schedule) -> f64 {
        u
    }
    fn start(&self) -> Option<Box<dyn SamplerState>> {
        Some(Box::new(State(0.0)))
    }
}
impl Distance for Plain {
    fn at(&self, d: f64, _: f64) -> [f64; 2] {
        [d * d, 2.0 * d]
    }
}

/// Counts what it sees; draws the square of u, and expects a loss of e^0.5.
struct State(f64);
impl Learned for State {
    fn observe(&mut self, seen: &[Observation]) {
        self.0 += seen.iter().map(|o| o.loss + 1e3 * o.importance).sum::<f64>();
    }
    fn save(&self) -> Vec<f64> {
        vec![self.0]
    }
    fn restore(&mut self, state: &[f64]) -> std::result::Result<(), String> {
        let [sum] = state else { return Err("one number".into()) };
        self.0 = *sum;
        Ok(())
    }
}
impl SamplerState for State {
    fn map(&self, u: f64) -> [f64; 2] {
        [u * u, 2.0 * u]
    }
}
impl WeightingState for State {
    fn log_loss(&self, _: f64) -> f64 {
        0.5
    }
}

const PROCESS: Process<'static> = Process { schedule: &Plain, objective: &Plain, weighting: &Plain, timesteps: &Plain };

fn gain() -> Result<Gain> {
    let store = Store::new("unet", Source::Shapes, DType::F32, &Device::Cpu);
    Ok(Gain(Var::new(&[[[[0.3f32]]]], &Device::Cpu)?, store))
}

fn loss(model: &Gain, rows: &[Row], mask: Option<&Tensor>) -> Result<Losses> {
    let random = |purpose| Stream::new(1, purpose).normal((2, 3, 4, 4), &Device::Cpu);
    let (x0, eps) = (random("x0")?, Drawn::plain(random("eps")?));
    PROCESS.loss(&Network::plain(model), &x0, &eps, &Cond::default(), &Measure { distance: &Plain, mask }, rows)
}

#[test]
fn what_is_not_learned_leaves_not_a_bit() -> Result<()> {
    let model = gain()?;
    let rows = [PROCESS.row(0.25), PROCESS.row(0.75)];
    let found = loss(&model, &rows, None)?;
    let random = |purpose| Stream::new(1, purpose).normal((2, 3, 4, 4), &Device::Cpu);
    let (x0, eps) = (random("x0")?, random("eps")?);
    let t = Tensor::new(&[0.25f32, 0.75], &Device::Cpu)?.reshape((2, 1, 1, 1))?;
    let s = t.affine(-1.0, 1.0)?;
    let x_t = (x0.broadcast_mul(&s)? + eps.broadcast_mul(&t)?)?;
    let y = (x0.broadcast_mul(&t.neg()?)? + eps.broadcast_mul(&s)?)?;
    let want = (x_t.broadcast_mul(model.0.as_tensor())? - y)?.sqr()?.flatten_from(1)?.mean(1)?;
    let want = (want * Tensor::new(&[2f32, 2.0], &Device::Cpu)?)?;
    assert_eq!(found.weighted.to_vec1::<f32>()?, want.to_vec1::<f32>()?);
    let gradient = |loss: &Tensor| {
        let grads = loss.sum_all()?.backward()?;
        grads.get(&model.0).expect("it trains").flatten_all()?.to_vec1::<f32>()
    };
    assert_eq!(gradient(&found.weighted)?, gradient(&want)?);
    Ok(())
}

#[test]
fn a_mask_weighs_places() -> Result<()> {
    let model = gain()?;
    let rows = [PROCESS.row(0.25), PROCESS.row(0.75)];
    let half = Tensor::cat(
        &[
            Tensor::ones((2, 1, 4, 2), DType::F32, &Device::Cpu)?,
            Tensor::zeros((2, 1, 4, 2), DType::F32, &Device::Cpu)?,
        ],
        3,
    )?;
    let other = half.affine(-1.0, 1.0)?;
    let sum = |mask| loss(&model, &rows, mask)?.weighted.sum_all()?.to_scalar::<f32>();
    let (left, right, whole) = (sum(Some(&half))?, sum(Some(&other))?, sum(None)?);
    assert!((left + right - whole).abs() < 1e-5 * whole && left > 0.1 * whole && right > 0.1 * whole);
    Ok(())
}

#[test]
fn what_is_learned_divides_the_loss_and_counts_draws() -> Result<()> {
    let model = gain()?;
    let mut learning = Learning::start(&Plain, &Plain);
    let rows = [PROCESS.drawn(0.5, &learning), PROCESS.drawn(0.9, &learning)];
    assert_eq!([rows[0].t, rows[0].importance, rows[0].log_loss], [0.25, 1.0, 0.5]);
    let found = loss(&model, &rows, None)?;
    let (weighted, distance) = (found.weighted.to_vec1::<f32>()?, found.distance.to_vec1::<f32>()?);
    for ((row, weighted), distance) in rows.iter().zip(weighted).zip(&distance) {
        let want = row.importance * (2.0 * f64::from(*distance) / 0.5f64.exp() + 0.5);
        assert!((f64::from(weighted) / want - 1.0).abs() < 1e-6, "{weighted}, not {want}");
    }
    learning.see(&rows, &found)?;
    learning.learn();
    learning.learn();
    let states = learning.save()?;
    let want = 2.0 * distance.iter().map(|&d| f64::from(d)).sum::<f64>() + 2800.0;
    for state in states.values() {
        assert!((state.to_vec1::<f64>()?[0] - want).abs() < 1e-9, "once, after the update");
    }
    let mut back = Learning::start(&Plain, &Plain);
    back.restore(&states)?;
    assert_eq!(back.save()?["timesteps"].to_vec1::<f64>()?, states["timesteps"].to_vec1::<f64>()?);
    assert!(back.restore(&Default::default()).is_err());
    Ok(())
}
