//! Solvers and spacings against diffusers' schedulers and k-diffusion's samplers: the same toy network, the same noise, the
//! same end. `fixtures/solvers.py` says how the ends were made.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor};
use sconce_core::solver::{Denoise, Denoised, Solver};
use sconce_core::testkit;
use sconce_plugins as _;
use sconce_sdk::{Choice, Kind, Level, Objective, Schedule, Spacing};
use serde::Deserialize;
use serde_json::{Value, json};

/// Relative to the norm of the end.
const TOLERANCE: f64 = 1e-4;

/// The same under a zero-terminal schedule, where diffusers' classes but DDIM take alpha = 2^-12 at t = 1 and so count that
/// share of the noise as signal; sconce takes 0. It is 2e-3 of the data's mean here.
const TOLERANCE_WITHOUT_SIGNAL: f64 = 10.0 / 4096.0;

#[derive(Deserialize)]
struct Fixture {
    /// Weight, mean and deviation of each Gaussian of the data.
    mixture: Vec<[f64; 3]>,
    start: Vec<f64>,
    noise: Vec<Vec<f64>>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    /// A class of diffusers, or a function of k-diffusion.
    reference: String,
    schedule: String,
    objective: String,
    solver: Value,
    spacing: Value,
    /// The end by the number of steps.
    ends: BTreeMap<usize, Vec<f64>>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/data/solvers.json")).unwrap()
}

fn made<K: Kind + ?Sized>(table: &Value) -> Choice<K> {
    Choice::from_table(table).unwrap()
}

/// A network that is never wrong about the data, asked by its time alone, and what is recovered from its output at the
/// level's own amounts.
struct Toy<'a> {
    fixture: &'a Fixture,
    schedule: &'a dyn Schedule,
    objective: &'a dyn Objective,
}

impl Toy<'_> {
    fn output(&self, x: f64, t: f64) -> f64 {
        let n = self.schedule.at(t);
        let parts = self.fixture.mixture.iter().map(|[weight, mean, deviation]| {
            let variance = (n.alpha * deviation).powi(2) + n.sigma * n.sigma;
            let log = weight.ln() - 0.5 * variance.ln() - 0.5 * (x - n.alpha * mean).powi(2) / variance;
            (log, mean + n.alpha * deviation * deviation / variance * (x - n.alpha * mean))
        });
        let parts: Vec<(f64, f64)> = parts.collect();
        let greatest = parts.iter().map(|p| p.0).fold(f64::MIN, f64::max);
        let (sum, whole) = parts.iter().fold((0.0, 0.0), |(sum, whole), (log, mean)| {
            let share = (log - greatest).exp();
            (sum + share * mean, whole + share)
        });
        let x0 = sum / whole;
        let [a, b] = self.objective.target(&n);
        a * x0 + b * (x - n.alpha * x0) / n.sigma
    }
}

impl Denoise for Toy<'_> {
    fn denoise(&mut self, x: &Tensor, level: &Level) -> Result<Denoised> {
        let target = self.objective.target(&level.noise);
        let (of_x0, of_eps) = (level.noise.x0_from(target), level.noise.eps_from(target));
        let recover = |x: f64| {
            let y = self.output(x, level.t);
            (of_x0[0] * x + of_x0[1] * y, of_eps[0] * x + of_eps[1] * y)
        };
        let (x0, eps): (Vec<f64>, Vec<f64>) = x.to_vec1::<f64>()?.into_iter().map(recover).unzip();
        Ok(Denoised { x0: Tensor::new(x0, &Device::Cpu)?, eps: Tensor::new(eps, &Device::Cpu)? })
    }

    fn noise(&mut self, step: usize) -> Result<Tensor> {
        Tensor::new(self.fixture.noise[step].as_slice(), &Device::Cpu)
    }
}

/// Whether the reference is given the spacing's own levels, and starts from the noise alone: k-diffusion knows of nothing
/// else, and some schedulers of diffusers only go where the fixture sends them on a rectified flow.
fn takes_any_levels(run: &Run) -> bool {
    run.reference.starts_with("sample_") || run.schedule == "rectified-flow"
}

/// How far the end of a run is from the reference's, relative to its norm; with the least alpha there may be.
fn error(fixture: &Fixture, run: &Run, steps: usize, least_alpha: f64) -> f64 {
    let schedule = match run.schedule.as_str() {
        "zero-terminal" => json!({ "type": "zero-terminal", "of": "scaled-linear" }),
        name => json!(name),
    };
    let (schedule, objective) = (made::<dyn Schedule>(&schedule), made::<dyn Objective>(&json!(run.objective)));
    let (solver, spacing) = (made::<dyn Solver>(&run.solver), made::<dyn Spacing>(&run.spacing));
    let own = solver.levels(&*spacing, &*schedule, steps);
    // Between two levels DPM++ SDE asks at its own.
    let mut levels = match takes_any_levels(run) && solver.name() != "dpmpp-sde" {
        true => spacing.levels(&*schedule, steps),
        false => own,
    };
    let noise = &mut levels[0].noise;
    if noise.alpha < least_alpha {
        (noise.alpha, noise.sigma) = (least_alpha, (1.0 - least_alpha * least_alpha).sqrt());
    }
    let first = &levels[0];
    let start = if takes_any_levels(run) { first.noise.sigma } else { solver.start(first) };
    let x: Vec<f64> = fixture.start.iter().map(|x| x * start).collect();
    let mut toy = Toy { fixture, schedule: &*schedule, objective: &*objective };
    let end = solver.solve(Tensor::new(x, &Device::Cpu).unwrap(), &levels, &mut toy).unwrap();
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let (end, want) = (end.to_vec1::<f64>().unwrap(), &run.ends[&steps]);
    norm(&mut end.iter().zip(want).map(|(a, b)| a - b)) / norm(&mut want.iter().copied())
}

/// Whether the reference counts 2^-12 of the noise as signal where there is none.
fn stands_in(run: &Run) -> bool {
    run.schedule == "zero-terminal" && run.reference != "DDIMScheduler"
}

#[test]
fn ends_are_those_of_diffusers_and_k_diffusion() {
    let fixture = fixture();
    let (mut worst, mut off) = (BTreeMap::new(), Vec::new());
    for run in &fixture.runs {
        for &steps in run.ends.keys() {
            let error = error(&fixture, run, steps, 0.0);
            let most = worst.entry((&run.reference, &run.schedule)).or_insert((0f64, 0usize));
            *most = (most.0.max(error), most.1 + 1);
            let tolerance = if stands_in(run) { TOLERANCE_WITHOUT_SIGNAL } else { TOLERANCE };
            if error.is_nan() || error > tolerance {
                let Run { reference, schedule, objective, solver, spacing, .. } = run;
                off.push(format!("{error:.1e} {reference} {schedule} {objective} {solver} {spacing} {steps} steps"));
            }
        }
    }
    for ((reference, schedule), (error, runs)) in worst {
        println!("{reference} on {schedule}: {runs} runs within {error:.1e}");
    }
    assert!(off.is_empty(), "{} ends differ:\n{}", off.len(), off.join("\n"));
}

/// Each from noise to a Gaussian, of which everything is known.
#[test]
fn solvers_obey_their_laws() {
    for solver in testkit::instances::<dyn Solver>().unwrap() {
        testkit::solver(&*solver).unwrap_or_else(|broken| panic!("{solver:?}: {broken}"));
    }
}

/// With diffusers' amounts at t = 1 in place of sconce's, so are the ends: nothing else differs there.
#[test]
fn what_differs_without_signal_is_the_stand_in_alone() {
    let fixture = fixture();
    let (mut runs, mut worst) = (0, 0f64);
    for run in fixture.runs.iter().filter(|run| stands_in(run)) {
        for &steps in run.ends.keys() {
            let error = error(&fixture, run, steps, 1.0 / 4096.0);
            let Run { reference, solver, spacing, .. } = run;
            assert!(error < TOLERANCE, "{error:.1e} {reference} {solver} {spacing} {steps} steps");
            (runs, worst) = (runs + 1, worst.max(error));
        }
    }
    println!("{runs} runs without signal within {worst:.1e}");
    assert!(runs > 100);
}
