//! Solvers against a denoiser that is never wrong: for data of a known distribution the expected x0 has a closed form,
//! and for a Gaussian so has the whole way from noise to data.

use candle_core::{Device, Result, Tensor};
use sconce_core::solver::{Denoise, Denoised, Solver};
use sconce_nn::rng::Stream;
use sconce_plugins as _;
use sconce_sdk::testkit::instances;
use sconce_sdk::{Choice, Kind, Level, Noise, Objective, Schedule, Spacing};
use serde_json::{Value, json};

fn made<K: Kind + ?Sized>(table: Value) -> Choice<K> {
    Choice::from_table(&table).unwrap()
}

/// Data of one dimension.
#[derive(Clone, Copy)]
enum Data {
    Gaussian {
        mean: f64,
        deviation: f64,
    },
    /// Two points, the first with this probability.
    Points {
        at: [f64; 2],
        first: f64,
    },
}

impl Data {
    /// E[x0 | x_t].
    fn expected(&self, x: f64, n: &Noise) -> f64 {
        match *self {
            Self::Gaussian { mean, deviation } => {
                let variance = deviation * deviation;
                let gain = variance * n.alpha / (n.alpha * n.alpha * variance + n.sigma * n.sigma);
                mean + gain * (x - n.alpha * mean)
            }
            Self::Points { at: [a, b], first } => {
                let square = |p: f64| ((x - n.alpha * p) / n.sigma).powi(2) / 2.0;
                let odds = (1.0 - first) / first * (square(a) - square(b)).exp();
                if odds.is_infinite() { b } else { (a + odds * b) / (1.0 + odds) }
            }
        }
    }
}

/// A network that outputs what the objective asks for, made of the expected x0.
struct Ideal {
    data: Data,
    objective: Choice<dyn Objective>,
    count: usize,
    calls: usize,
}

impl Denoise for Ideal {
    fn denoise(&mut self, x: &Tensor, level: &Level) -> Result<Denoised> {
        self.calls += 1;
        let n = &level.noise;
        let target = self.objective.target(n);
        let (of_x0, of_eps) = (n.x0_from(target), n.eps_from(target));
        let recover = |x: f64| {
            let x0 = self.data.expected(x, n);
            let y = target[0] * x0 + target[1] * (x - n.alpha * x0) / n.sigma;
            (of_x0[0] * x + of_x0[1] * y, of_eps[0] * x + of_eps[1] * y)
        };
        let (x0, eps): (Vec<f64>, Vec<f64>) = x.to_vec1::<f64>()?.into_iter().map(recover).unzip();
        Ok(Denoised { x0: Tensor::new(x0, &Device::Cpu)?, eps: Tensor::new(eps, &Device::Cpu)? })
    }

    fn noise(&mut self, step: usize) -> Result<Tensor> {
        normals("fresh", step as u64, self.count)
    }
}

fn normals(purpose: &str, step: u64, count: usize) -> Result<Tensor> {
    let normals = Stream::new(1, purpose).at(step, 0).normals(count);
    Tensor::new(normals.into_iter().map(f64::from).collect::<Vec<_>>(), &Device::Cpu)
}

/// Solvers that add noise.
const STOCHASTIC: [&str; 3] = ["euler-ancestral", "dpmpp-2m-sde", "dpmpp-sde"];

/// One way to sample.
struct Way {
    schedule: Choice<dyn Schedule>,
    objective: Choice<dyn Objective>,
    solver: Choice<dyn Solver>,
    spacing: Choice<dyn Spacing>,
}

impl Way {
    fn of(schedule: Value, objective: &str, solver: Value, spacing: Value) -> Self {
        Self {
            schedule: made(schedule),
            objective: made(json!(objective)),
            solver: made(solver),
            spacing: made(spacing),
        }
    }

    fn levels(&self, steps: usize) -> Vec<Level> {
        self.solver.levels(&*self.spacing, &*self.schedule, steps)
    }

    /// The end of a run from `x`, and how often the network was asked.
    fn run(&self, data: Data, x: &Tensor, steps: usize) -> (Vec<f64>, usize) {
        let mut ideal = Ideal { data, objective: self.objective.clone(), count: x.elem_count(), calls: 0 };
        let end = self.solver.solve(x.clone(), &self.levels(steps), &mut ideal).unwrap();
        (end.to_vec1().unwrap(), ideal.calls)
    }

    /// The greatest error of a run on Gaussian data, against the exact solution of the probability-flow equation, which
    /// keeps (x - alpha mean)/sqrt(alpha² deviation² + sigma²).
    fn error(&self, steps: usize) -> f64 {
        let (mean, deviation) = (0.6, 0.5);
        let start = [-2.0, -0.5, 0.1, 1.0, 2.5];
        let levels = self.levels(steps);
        let scale = |n: &Noise| (n.alpha * deviation).hypot(n.sigma);
        let (first, last) = (levels[0].noise, levels[levels.len() - 1].noise);
        let exact = |x: f64| last.alpha * mean + scale(&last) / scale(&first) * (x - first.alpha * mean);
        let x = Tensor::new(&start, &Device::Cpu).unwrap();
        let (end, _) = self.run(Data::Gaussian { mean, deviation }, &x, steps);
        end.iter().zip(start).map(|(&end, x)| (end - exact(x)).abs()).fold(0.0, f64::max)
    }
}

/// Every schedule, objective, solver and spacing that go together.
fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    // Around one schedule of each kind, with a table and without, every wrapper has shown what it does.
    let around = |s: &Choice<dyn Schedule>| s.table().get("of").map(|of| of["type"].clone());
    let shown = |s: &Choice<dyn Schedule>| around(s).is_none_or(|of| of == "scaled-linear" || of == "rectified-flow");
    for schedule in instances::<dyn Schedule>().unwrap().into_iter().filter(shown) {
        for objective in instances::<dyn Objective>().unwrap() {
            for solver in instances::<dyn Solver>().unwrap() {
                for spacing in instances::<dyn Spacing>().unwrap() {
                    let way = Way {
                        schedule: schedule.clone(),
                        objective: objective.clone(),
                        solver: solver.clone(),
                        spacing,
                    };
                    let first = way.levels(10)[0].noise;
                    // Without signal, or nearly, epsilon says nothing about the data.
                    if first.determinant(objective.target(&first)).abs() > 1e-3 {
                        ways.push(way);
                    }
                }
            }
        }
    }
    ways
}

/// Those between a spacing's too.
#[test]
fn levels_of_every_solver_fall_from_the_spacings_first_to_its_last() {
    for way in ways() {
        for steps in [1, 2, 7, 100] {
            let levels = way.levels(steps);
            let falls = |a: &Noise, b: &Noise| b.sigma * a.alpha < a.sigma * b.alpha;
            let name = format!("{:?} {:?} {:?}", way.schedule, way.solver, way.spacing);
            assert!(
                levels.windows(2).all(|p| falls(&p[0].noise, &p[1].noise) && p[0].t >= p[1].t),
                "{name}: {levels:?}"
            );
            assert_eq!(levels.last(), way.spacing.levels(&*way.schedule, steps).last(), "{name}");
        }
    }
}

#[test]
fn every_way_of_sampling_ends_at_the_data() {
    let data = Data::Points { at: [-1.0, 0.5], first: 0.3 };
    let ways = ways();
    assert!(ways.len() > 200, "{} ways", ways.len());
    for way in ways {
        let count = 400;
        let x = (normals("start", 0, count).unwrap() * way.solver.start(&way.levels(60)[0])).unwrap();
        let (end, _) = way.run(data, &x, 60);
        let name = format!("{:?} {:?} {:?} {:?}", way.schedule, way.objective, way.solver, way.spacing);
        let stray = end.iter().filter(|&&x| (x + 1.0).abs().min((x - 0.5).abs()) > 0.05).count();
        assert!(stray <= count / 50, "{stray} of {count} are at neither point: {name}");
        let share = end.iter().filter(|&&x| x < -0.25).count() as f64 / count as f64;
        assert!((share - 0.3).abs() < 0.12, "{share} of the samples are at the first point: {name}");
    }
}

#[test]
fn deterministic_solvers_follow_the_exact_way_of_a_gaussian() {
    for way in ways().into_iter().filter(|w| !STOCHASTIC.contains(&w.solver.name())) {
        let (some, many) = (way.error(50), way.error(200));
        let name = format!("{:?} {:?} {:?} {:?}", way.schedule, way.objective, way.solver, way.spacing);
        assert!(many < 0.06, "{many} off after 200 steps: {name}");
        // The last step, to no noise at all, has an error that more steps do not lessen.
        assert!(many < 0.5 * some || many < 5e-3, "{some} off after 50 steps and {many} after 200: {name}");
    }
}

/// On a path whose noise is linear in t: elsewhere the last step, to no noise at all, is what remains of the error.
#[test]
fn solvers_have_the_order_that_they_claim() {
    let orders = [
        (json!("euler"), 1.0),
        (json!("ddim"), 1.0),
        (json!("heun"), 2.0),
        (json!("dpmpp-2m"), 2.0),
        (json!({ "type": "dpmpp-2m", "solver_type": "heun" }), 2.0),
        (json!({ "type": "dpmpp-2m-sde", "eta": 0.0 }), 2.0),
        (json!({ "type": "dpmpp-sde", "eta": 0.0 }), 2.0),
        (json!({ "type": "dpmpp-sde", "eta": 0.0, "r": 0.3 }), 2.0),
        (json!({ "type": "unipc", "order": 1 }), 2.0),
        (json!({ "type": "unipc-bh1", "order": 1 }), 2.0),
    ];
    for (solver, order) in orders {
        let way = Way::of(json!("rectified-flow"), "v", solver.clone(), json!("trailing"));
        let found = (way.error(100) / way.error(200)).log2();
        assert!((found - order).abs() < 0.35, "{solver} is of order {found}");
    }
}

/// Euler's step moves x/alpha by the change of sigma/alpha times eps, as k-diffusion writes it.
#[test]
fn euler_and_ddim_are_one_and_equal_the_step_in_k_diffusions_frame() {
    for (schedule, objective) in [("scaled-linear", "epsilon"), ("scaled-linear", "v"), ("rectified-flow", "flow")] {
        let way = |solver| {
            Way::of(json!(schedule), objective, json!(solver), json!({ "type": "leading", "steps_offset": 1 }))
        };
        let data = Data::Gaussian { mean: 0.3, deviation: 0.7 };
        let start = [-1.0, 0.2, 1.7];
        let x = Tensor::new(&start, &Device::Cpu).unwrap();
        let (euler, ddim) = (way("euler").run(data, &x, 10).0, way("ddim").run(data, &x, 10).0);
        assert_eq!(euler, ddim);
        let levels = way("euler").levels(10);
        for (x, found) in start.into_iter().zip(euler) {
            let mut scaled = x / levels[0].noise.alpha;
            for pair in levels.windows(2) {
                let rho = |n: &Noise| n.sigma / n.alpha;
                let denoised = data.expected(scaled * pair[0].noise.alpha, &pair[0].noise);
                let slope = (scaled - denoised) / rho(&pair[0].noise);
                scaled += (rho(&pair[1].noise) - rho(&pair[0].noise)) * slope;
            }
            assert!((scaled - found).abs() < 1e-9, "{schedule} {objective}: {scaled} and {found}");
        }
    }
}

#[test]
fn ancestral_steps_keep_the_distribution() {
    let count = 10_000;
    let (mean, deviation) = (0.6, 0.5);
    let solvers = [
        json!("euler-ancestral"),
        json!({ "type": "ddim", "eta": 1.0 }),
        json!("dpmpp-2m-sde"),
        json!({ "type": "dpmpp-2m-sde", "solver_type": "heun", "eta": 0.5 }),
        json!("dpmpp-sde"),
        json!({ "type": "dpmpp-sde", "eta": 0.5, "r": 0.7 }),
    ];
    for solver in solvers {
        for schedule in
            [json!("scaled-linear"), json!({ "type": "zero-terminal", "of": "linear" }), json!("rectified-flow")]
        {
            let way = Way::of(schedule, "v", solver.clone(), json!("trailing"));
            let first = way.levels(300)[0].noise;
            let scale = (first.alpha * deviation).hypot(first.sigma);
            let x = ((normals("start", 0, count).unwrap() * scale).unwrap() + first.alpha * mean).unwrap();
            let (end, _) = way.run(Data::Gaussian { mean, deviation }, &x, 300);
            let found = end.iter().sum::<f64>() / count as f64;
            let spread = (end.iter().map(|x| (x - found).powi(2)).sum::<f64>() / count as f64).sqrt();
            let near = (found - mean).abs() < 0.03 && (spread - deviation).abs() < 0.03;
            assert!(near, "{found} ± {spread} by {:?} on {:?}", way.solver, way.schedule);
        }
    }
}

#[test]
fn one_call_a_step_but_two_for_heun_and_dpmpp_sde() {
    let x = Tensor::new(&[0.5], &Device::Cpu).unwrap();
    let data = Data::Gaussian { mean: 0.0, deviation: 1.0 };
    for solver in instances::<dyn Solver>().unwrap() {
        let way = Way::of(json!("scaled-linear"), "epsilon", solver.table(), json!("trailing"));
        let calls = if ["heun", "dpmpp-sde"].contains(&solver.name()) { 19 } else { 10 };
        assert_eq!(way.run(data, &x, 10).1, calls, "{solver:?}");
    }
}
