//! The laws of solvers, by data of which everything is known: a Gaussian, whose exact denoiser has a closed form and which is a
//! Gaussian at every level.

use candle_core::{Device, Error, Result, Tensor};
use sconce_nn::rng::Stream;
use sconce_sdk::{Level, Noise, Schedule, Spacing};

use super::{Checked, Law, bits, finite, holds, law, numbers};
use crate::solver::{Denoise, Denoised, Solver};

/// The data: independent numbers of this mean and deviation.
const MEAN: f64 = 0.7;
const DEVIATION: f64 = 0.5;

/// So many that the mean and the deviation of draws are known to a hundredth.
const SHAPE: [usize; 4] = [4, 4, 32, 32];

/// The laws of a solver: finite, from one step on; the same to the bit when asked the same; every step is told, and an error
/// there stops the run; from noise it arrives at the data's distribution, and nearer to it in more steps.
pub fn solver(solver: &dyn Solver) -> Law {
    law(obeys(solver, &Straight), || "on a rectified flow".to_owned())?;
    law(obeys(solver, &Circle), || "on a variance-preserving schedule".to_owned())
}

/// x_t = (1 - t) x0 + t eps: nothing but noise at t = 1.
struct Straight;

impl Schedule for Straight {
    fn at(&self, t: f64) -> Noise {
        Noise { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 }
    }
}

/// Most of a quarter of a circle: a little of the signal is left at t = 1.
struct Circle;

impl Schedule for Circle {
    fn at(&self, t: f64) -> Noise {
        let speed = 0.99 * std::f64::consts::FRAC_PI_2;
        let (sigma, alpha) = (speed * t).sin_cos();
        Noise::preserving(alpha, sigma, speed)
    }
}

/// Times of equal distance.
struct Even;

impl Spacing for Even {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let time = |i: usize| 1.0 - i as f64 / steps as f64;
        (0..=steps).map(time).map(|t| Level { t, noise: schedule.at(t) }).collect()
    }
}

/// The expected data and noise, of x_t ~ N(alpha m, alpha² d² + sigma²).
struct Exact {
    /// The steps that were told.
    told: Vec<usize>,
    /// Whether to stop the run when told.
    stops: bool,
}

impl Denoise for Exact {
    fn denoise(&mut self, x: &Tensor, level: &Level) -> Result<Denoised> {
        let Noise { alpha, sigma, .. } = level.noise;
        let share = 1.0 / ((alpha * DEVIATION).powi(2) + sigma * sigma);
        let from_mean = (x - alpha * MEAN)?;
        Ok(Denoised {
            x0: ((&from_mean * (share * alpha * DEVIATION * DEVIATION))? + MEAN)?,
            eps: (from_mean * (share * sigma))?,
        })
    }

    fn noise(&mut self, step: usize) -> Result<Tensor> {
        Stream::new(2, "step").at(step as u64, 0).normal(&SHAPE, &Device::Cpu)
    }

    fn stepped(&mut self, step: usize, _: &Tensor) -> Result<()> {
        self.told.push(step);
        if self.stops { Err(Error::Msg(STOP.to_owned())) } else { Ok(()) }
    }
}

const STOP: &str = "stop here";

fn run(solver: &dyn Solver, schedule: &dyn Schedule, steps: usize, model: &mut Exact) -> Result<Tensor> {
    let levels = solver.levels(&Even, schedule, steps);
    let Some(first) = levels.first() else { candle_core::bail!("it makes no levels of {steps} steps") };
    let noise = Stream::new(1, "start").normal(&SHAPE, &Device::Cpu)?;
    solver.solve((noise * solver.start(first))?, &levels, model)
}

/// How far the end of so many steps is from the data: by its mean and by its deviation, in those of the data.
fn off(solver: &dyn Solver, schedule: &dyn Schedule, steps: usize) -> Result<f64> {
    let end = numbers(&run(solver, schedule, steps, &mut Exact { told: Vec::new(), stops: false })?)?;
    let count = end.len() as f64;
    let mean = end.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = end.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
    Ok((mean - MEAN).hypot(variance.sqrt() - DEVIATION) / DEVIATION)
}

fn obeys(solver: &dyn Solver, schedule: &dyn Schedule) -> Checked {
    for steps in [1, 2, 7] {
        let mut exact = Exact { told: Vec::new(), stops: false };
        let end = run(solver, schedule, steps, &mut exact)?;
        holds(end.dims() == SHAPE, || format!("x of {SHAPE:?} ends as one of {:?}", end.dims()))?;
        holds(finite(&end)?, || format!("in {steps} steps it ends in what is not finite"))?;
        let again = run(solver, schedule, steps, &mut Exact { told: Vec::new(), stops: false })?;
        holds(bits(&end)? == bits(&again)?, || format!("in {steps} steps it ends elsewhere the second time"))?;
        let in_order: Vec<usize> = (0..steps).collect();
        holds(exact.told == in_order, || format!("of {steps} steps it tells {:?}", exact.told))?;
    }
    let mut exact = Exact { told: Vec::new(), stops: true };
    let stopped = run(solver, schedule, 7, &mut exact).is_err_and(|e| e.to_string().contains(STOP));
    holds(stopped && exact.told.len() == 1, || "an error from `stepped` does not stop it".to_owned())?;

    let (few, many) = (off(solver, schedule, 4)?, off(solver, schedule, 80)?);
    let ends = || format!("in 4 and in 80 steps its ends are {few:.3} and {many:.3} off, of the data's deviation");
    holds(many < NEAR, || format!("it does not arrive at the data: {}", ends()))?;
    // Below what the draws say there is nothing to compare.
    holds(many < (0.5 * few).max(SURE), || format!("more steps are not better: {}", ends()))
}

/// How near 80 steps are, for any method of the first order.
const NEAR: f64 = 0.06;

/// How well so many draws tell of a distribution, with the start that stands for the data at the first level.
const SURE: f64 = 0.03;
