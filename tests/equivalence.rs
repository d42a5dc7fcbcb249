//! What papers and other programs publish, against what follows here from one formula: the forms of weightings, and the
//! timesteps and noise levels of diffusers' schedulers.

use std::path::Path;

use proptest::prelude::*;
use sconce_core::solver::Solver;
use sconce_plugins as _;
use sconce_sdk::{Choice, Kind, Noise, Objective, Schedule, Spacing, Weighting};
use serde_json::{Value, json};

fn named<K: Kind + ?Sized>(name: &str) -> Choice<K> {
    Choice::named(name).unwrap()
}

fn made<K: Kind + ?Sized>(table: Value) -> Choice<K> {
    Choice::from_table(&table).unwrap()
}

/// The factor of a weighting on the output error of an objective.
fn factor(weighting: &str, objective: &str, noise: &Noise) -> f64 {
    let target = named::<dyn Objective>(objective).target(noise);
    named::<dyn Weighting>(weighting).on_output(noise, target)
}

/// alpha and sigma of a variance-preserving level.
fn preserving(log_snr: f64) -> Noise {
    let alpha = 1.0 / (1.0 + (-log_snr).exp()).sqrt();
    let sigma = 1.0 / (1.0 + log_snr.exp()).sqrt();
    Noise { alpha, sigma, d_alpha: -sigma, d_sigma: alpha }
}

fn near(a: f64, b: f64) -> Result<(), TestCaseError> {
    prop_assert!((a - b).abs() <= 1e-9 * a.abs().max(b.abs()), "{a} is not {b}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Hang et al. 2023, and its form for v in diffusers' training scripts.
    #[test]
    fn min_snr_on_the_data_is_its_published_form_for_every_objective(log_snr in -12.0..12.0) {
        let (noise, s) = (preserving(log_snr), f64::exp(log_snr));
        near(factor("min-snr", "x0", &noise), s.min(5.0))?;
        near(factor("min-snr", "epsilon", &noise), s.min(5.0) / s)?;
        near(factor("min-snr", "v", &noise), s.min(5.0) / (s + 1.0))?;
    }

    /// Yu et al. 2023, and what it means for v.
    #[test]
    fn debiased_is_the_root_of_the_snr(log_snr in -12.0..6.9) {
        let (noise, s) = (preserving(log_snr), f64::exp(log_snr));
        near(factor("debiased", "epsilon", &noise), 1.0 / s.sqrt())?;
        near(factor("debiased", "x0", &noise), s.sqrt())?;
        near(factor("debiased", "v", &noise), s.sqrt() / (s + 1.0))?;
        let offset = made::<dyn Weighting>(json!({ "type": "debiased", "snr_offset": 1.0, "snr_cap": 1e9 }));
        let v = named::<dyn Objective>("v").target(&noise);
        near(offset.on_output(&noise, v), 1.0 / (s + 1.0).sqrt())?;
    }

    /// Kingma & Gao 2023, table 1: the weight on the epsilon error over log-SNR, times the density p(lambda) of training.
    #[test]
    fn losses_have_the_weight_over_log_snr_that_kingma_and_gao_give(t in 0.01..0.99) {
        // The error of y counts (D/alpha)² of that of epsilon; p(lambda) = 1/|d lambda/dt| for uniform t.
        let weight = |noise: &Noise, objective: &str| {
            let d = noise.determinant(named::<dyn Objective>(objective).target(noise));
            let slope = 2.0 * (noise.d_alpha / noise.alpha - noise.d_sigma / noise.sigma);
            (d / noise.alpha).powi(2) / slope.abs()
        };
        let rate = std::f64::consts::FRAC_PI_2;
        let (sin, cos) = f64::sin_cos(rate * t);
        let cosine = Noise { alpha: cos, sigma: sin, d_alpha: -rate * sin, d_sigma: rate * cos };
        let flow = named::<dyn Schedule>("rectified-flow").at(t);
        // Cosine with epsilon: sech(lambda/2). Its constant is 1/(2 pi).
        near(weight(&cosine, "epsilon") * std::f64::consts::TAU, 1.0 / (0.5 * cosine.log_snr()).cosh())?;
        // Rectified flow with its velocity, and cosine with v: e^(-lambda/2).
        near(weight(&flow, "flow") * 2.0, (-0.5 * flow.log_snr()).exp())?;
        near(weight(&cosine, "v") * std::f64::consts::PI, (-0.5 * cosine.log_snr()).exp())?;
    }

    /// Salimans & Ho 2022, appendix D: v is the derivative of x by the angle.
    #[test]
    fn flow_on_a_variance_preserving_schedule_is_v(t in 0.0..1.0) {
        for schedule in ["scaled-linear", "linear", "cosine"] {
            let noise = named::<dyn Schedule>(schedule).at(t);
            let (flow, v) = (named::<dyn Objective>("flow").target(&noise), named::<dyn Objective>("v").target(&noise));
            prop_assert!((flow[0] - v[0]).abs() < 1e-9 && (flow[1] - v[1]).abs() < 1e-9, "{flow:?} {v:?}");
        }
    }
}

#[test]
fn the_signal_left_at_the_end_is_the_published_one() {
    let left = |table: Value| made::<dyn Schedule>(table).at(1.0).alpha;
    assert!((left(json!("scaled-linear")) - 0.0683).abs() < 5e-5);
    assert!((left(json!("linear")) - 0.0063).abs() < 1e-4);
    assert!((left(json!("cosine")) - 5e-5).abs() < 1e-6);
    assert_eq!(left(json!({ "type": "zero-terminal", "of": { "type": "scaled-linear" } })), 0.0);
}

/// The share of a weighting's sum over the 1000 points that lies at t >= 0.9, for v under zero terminal SNR.
#[test]
fn min_snr_takes_the_weight_from_pure_noise_and_debiased_with_an_offset_does_not() {
    let schedule = made::<dyn Schedule>(json!({ "type": "zero-terminal", "of": "scaled-linear" }));
    let share = |weighting: Value| {
        let weighting = made::<dyn Weighting>(weighting);
        let weight = |i: usize| {
            let noise = schedule.at(i as f64 / 1000.0);
            weighting.on_output(&noise, named::<dyn Objective>("v").target(&noise))
        };
        (901..=1000).map(weight).sum::<f64>() / (1..=1000).map(weight).sum::<f64>()
    };
    assert!((share(json!("native")) - 0.1).abs() < 1e-12);
    assert!(share(json!("min-snr")) < 0.005);
    let offset = share(json!({ "type": "debiased", "snr_offset": 1.0 }));
    assert!((offset - 0.131).abs() < 0.002, "{offset}");
}

/// The runs of the parity fixtures: for each, diffusers' timesteps and sigma/alpha (with 4096 where there is no signal).
#[test]
fn solvers_visit_the_timesteps_and_levels_that_diffusers_visits() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data");
    let read = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let mut compared = 0;
    for case in std::fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()) {
        if !case.join("expected.json").is_file() || !case.join("model").is_dir() {
            continue;
        }
        let config = read(&case.join("model/scheduler/scheduler_config.json"));
        if config["beta_schedule"].is_null() {
            continue; // a flow, whose whole runs are held against diffusers in parity_flow
        }
        for run in read(&case.join("expected.json"))["runs"].as_array().unwrap() {
            compare(&format!("{} {}", case.display(), run["name"]), &config, run);
            compared += 1;
        }
    }
    assert!(compared > 80, "{compared} runs");
}

fn compare(name: &str, config: &Value, run: &Value) {
    let beta = config["beta_schedule"].as_str().unwrap().replace('_', "-");
    let mut schedule = json!({ "type": beta, "beta_start": config["beta_start"], "beta_end": config["beta_end"] });
    if run["zero_terminal"] == true {
        schedule = json!({ "type": "zero-terminal", "of": schedule });
    }
    let schedule = made::<dyn Schedule>(schedule);

    let word = if run["karras"] == true { "karras" } else { run["spacing"].as_str().unwrap() };
    let mut spacing = json!({ "type": word });
    if word == "leading" {
        spacing["steps_offset"] = run["steps_offset"].clone();
    }
    if run["final_sigmas_type"] == "sigma_min" {
        spacing["last"] = json!("first-point");
    }
    let mut solver = json!({ "type": run["solver"] });
    if run["set_alpha_to_one"] == false {
        solver["last"] = json!("first-point");
    }
    let (spacing, solver) = (made::<dyn Spacing>(spacing), made::<dyn Solver>(solver));
    let levels = solver.levels(&*spacing, &*schedule, run["steps"].as_u64().unwrap() as usize);

    let numbers =
        |field: &str| run[field].as_array().map(|a| a.iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>());
    // Heun's are listed twice but for the first, since it asks twice.
    let once = |mut list: Vec<f64>| {
        list.dedup();
        list
    };
    let timesteps = once(numbers("timesteps").unwrap());
    assert_eq!(timesteps.len(), levels.len() - 1, "{name}");
    for (want, level) in timesteps.iter().zip(&levels) {
        assert!((1000.0 * level.t - 1.0 - want).abs() < 2e-3, "{name}: timestep {want}, {level:?}");
    }
    if let Some(sigmas) = numbers("sigmas").map(once) {
        for (want, level) in sigmas.iter().zip(&levels) {
            let sigma = level.noise.sigma / level.noise.alpha.max(1.0 / 4096.0);
            // diffusers adds up betas in f32.
            assert!((sigma - want).abs() < 1e-4 * want.max(1e-3), "{name}: sigma {want}, {level:?}");
        }
    } else if run["set_alpha_to_one"] == false {
        assert!((levels.last().unwrap().noise.sigma.powi(2) - config["beta_start"].as_f64().unwrap()).abs() < 1e-9);
    }
    let start = solver.start(&levels[0]) / levels[0].noise.alpha.max(1.0 / 4096.0);
    // In diffusers' frame Euler and Heun keep x/alpha, DDIM and DPM++ x itself.
    let want = run["init_noise_sigma"].as_f64().unwrap();
    let in_frame = if ["euler", "heun"].contains(&solver.name()) { start } else { solver.start(&levels[0]) };
    assert!((in_frame / want - 1.0).abs() < 1e-4, "{name}: starts at {in_frame} and not {want}");
}
