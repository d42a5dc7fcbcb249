//! What papers say that schedules, objectives, weightings and timesteps amount to, and the numbers that diffusers makes of
//! them, against what follows here.

use std::f64::consts::{FRAC_PI_2, PI};
use std::path::Path;

use sconce_core::step::Process;
use sconce_plugins as _;
use sconce_sdk::{Choice, Kind, LrSchedule, Noise, Objective, Schedule, TimestepSampler, Weighting};
use serde_json::{Value, json};

fn made<K: Kind + ?Sized>(table: impl Into<Value>) -> Choice<K> {
    let table = table.into();
    Choice::from_table(&table).unwrap_or_else(|e| panic!("{table}: {e}"))
}

#[track_caller]
fn near(found: f64, want: f64, tolerance: f64) {
    assert!((found - want).abs() <= tolerance * want.abs().max(1e-12), "{found} is not {want}");
}

/// The decisions of a run.
struct Run {
    schedule: Choice<dyn Schedule>,
    objective: Choice<dyn Objective>,
    weighting: Choice<dyn Weighting>,
    timesteps: Choice<dyn TimestepSampler>,
}

impl Run {
    fn new(
        schedule: impl Into<Value>,
        objective: &str,
        weighting: impl Into<Value>,
        timesteps: impl Into<Value>,
    ) -> Self {
        let objective = made(objective);
        Self { schedule: made(schedule), objective, weighting: made(weighting), timesteps: made(timesteps) }
    }

    /// The weight on the error of epsilon per unit of log-SNR (Kingma & Gao 2023, section 2): the density of levels times the
    /// factor that an error of epsilon gets. At a time, with the log-SNR there.
    fn weight(&self, t: f64) -> (f64, f64) {
        let noise = self.schedule.at(t);
        let target = self.objective.target(&noise);
        let density = self.timesteps.density(t, &*self.schedule) / noise.log_snr_slope().abs();
        let factor = self.weighting.on_output(&noise, target);
        (noise.log_snr(), density * factor * (noise.determinant(target) / noise.alpha).powi(2))
    }

    /// Checks that the weight is `want` of the log-SNR, but for a constant.
    #[track_caller]
    fn weighs(&self, want: impl Fn(f64) -> f64) {
        let ratio = |t: f64| {
            let (log_snr, weight) = self.weight(t);
            weight / want(log_snr)
        };
        for t in [0.02, 0.1, 0.3, 0.7, 0.9, 0.98] {
            near(ratio(t), ratio(0.5), 1e-8);
        }
    }
}

fn sech(x: f64) -> f64 {
    1.0 / x.cosh()
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn normal(x: f64, mean: f64, deviation: f64) -> f64 {
    (-0.5 * ((x - mean) / deviation).powi(2)).exp() / (deviation * (2.0 * PI).sqrt())
}

/// Kingma & Gao 2023, table 1.
#[test]
fn losses_have_the_weight_over_log_snr_that_kingma_and_gao_give() {
    Run::new("cosine-continuous", "epsilon", "native", "uniform").weighs(|l| sech(0.5 * l));
    Run::new("cosine-continuous", "v", "native", "uniform").weighs(|l| (-0.5 * l).exp());
    Run::new("rectified-flow", "flow", "native", "uniform").weighs(|l| (-0.5 * l).exp());
    let edm = |l: f64| normal(l, 2.4, 2.4) * ((-l).exp() + 0.25);
    Run::new("edm", "edm", "native", "log-normal-sigma").weighs(edm);
    Run::new(json!({ "type": "edm", "frame": "preserving" }), "epsilon", "edm", "log-normal-sigma").weighs(edm);
    Run::new("rectified-flow", "flow", "edm", "log-normal-sigma").weighs(edm);
}

/// Kingma et al. 2021, equation 17; Kingma & Gao 2023, section 4: whatever the schedule.
#[test]
fn the_bound_weighs_every_log_snr_alike_and_the_sigmoid_a_part_of_them() {
    for schedule in ["cosine-continuous", "sigmoid", "rectified-flow", "edm"] {
        for objective in ["x0", "v", "edm"] {
            Run::new(schedule, objective, "elbo", "uniform").weighs(|_| 1.0);
            Run::new(schedule, objective, json!({ "type": "sigmoid", "bias": -1.0 }), "uniform")
                .weighs(|l| logistic(-1.0 - l));
        }
    }
}

/// Esser et al. 2024, section 3.1: a density of times is a weight.
#[test]
fn drawing_more_is_weighing_more() {
    let drawn = Run::new("rectified-flow", "flow", "native", "cosmap");
    let weighed = Run::new("rectified-flow", "flow", "cosmap", "uniform");
    let shifted = Run::new(json!({ "type": "rectified-flow", "shift": 3.0 }), "flow", "native", "uniform");
    let moved = Run::new("rectified-flow", "flow", "native", json!({ "type": "shift", "of": "uniform", "shift": 3.0 }));
    for t in [0.1, 0.5, 0.8] {
        near(drawn.weight(t).1, weighed.weight(t).1, 1e-12);
        let (log_snr, weight) = moved.weight(t);
        near(weight, shifted.weight(shifted.schedule.t_of(log_snr)).1, 1e-12);
    }
}

/// alpha and sigma of a variance-preserving level, and of the same level with alpha = 1.
fn levels(log_snr: f64) -> [Noise; 2] {
    let (alpha, ratio) = (logistic(log_snr).sqrt(), (-0.5 * log_snr).exp());
    [Noise::preserving(alpha, alpha * ratio, 1.0), Noise { alpha: 1.0, sigma: ratio, d_alpha: 0.0, d_sigma: 1.0 }]
}

fn factor(weighting: impl Into<Value>, objective: impl Into<Value>, noise: &Noise) -> f64 {
    made::<dyn Weighting>(weighting).on_output(noise, made::<dyn Objective>(objective).target(noise))
}

#[test]
fn weightings_have_their_published_forms_on_the_output() {
    for log_snr in [-9.0, -2.0, 0.0, 1.3, 8.0] {
        let (s, sigma2) = (f64::exp(log_snr), f64::exp(-log_snr));
        for noise in levels(log_snr) {
            // Choi et al. 2022, equation 8.
            near(factor(json!({ "type": "p2", "gamma": 0.5 }), "epsilon", &noise), (1.0 + s).powf(-0.5), 1e-9);
            // k-diffusion's, on the output F of EDM.
            let (sd, sd2) = (0.5, 0.25);
            near(factor("soft-min-snr", "edm", &noise), sigma2 * sd * sd / (sigma2 + sd2).powi(2), 1e-9);
            // Hang et al. 2023 and its smooth form bound each other.
            let ratio =
                factor("soft-min-snr", "v", &noise) / factor(json!({ "type": "min-snr", "gamma": 4.0 }), "v", &noise);
            assert!((0.5 - 1e-9..1.0).contains(&ratio), "{ratio}");
            // Karras et al. 2022, table 1.
            near(factor("edm", "x0", &noise), (sigma2 + sd2) / (sigma2 * sd2), 1e-9);
            near(factor("edm", "edm", &noise), 1.0, 1e-9);
        }
    }
}

/// Karras et al. 2022, appendix B: with data of deviation 1 in the variance-preserving frame, EDM's network learns -v.
#[test]
fn v_is_edm_in_the_variance_preserving_frame() {
    let edm = made::<dyn Objective>(json!({ "type": "edm", "sigma_data": 1.0 }));
    for schedule in ["scaled-linear", "cosine-continuous", "sigmoid"] {
        for t in [0.001, 0.3, 1.0] {
            let noise = made::<dyn Schedule>(schedule).at(t);
            let ([a, b], [c, d]) = (edm.target(&noise), made::<dyn Objective>("v").target(&noise));
            assert!((a + c).abs() < 1e-12 && (b + d).abs() < 1e-12 && (edm.input_scale(&noise) - 1.0).abs() < 1e-12);
        }
    }
}

/// A network sees and learns the same in either frame.
#[test]
fn edm_is_the_same_in_both_frames() {
    let (edm, x0, eps) = (made::<dyn Objective>("edm"), 0.7, -1.1);
    for log_snr in [-11.0, -1.0, 3.0, 12.0] {
        let [a, b] = levels(log_snr).map(|n| {
            let [p, q] = edm.target(&n);
            [edm.input_scale(&n) * (n.alpha * x0 + n.sigma * eps), p * x0 + q * eps]
        });
        assert!((a[0] - b[0]).abs() < 1e-12 && (a[1] - b[1]).abs() < 1e-12, "{a:?} {b:?}");
    }
}

/// Esser et al. 2024, equations 19 to 21.
#[test]
fn densities_are_the_formulas_of_stable_diffusion_3() {
    let flow = made::<dyn Schedule>("rectified-flow");
    let density = |table: Value, t: f64| made::<dyn TimestepSampler>(table).density(t, &*flow);
    for t in [0.03f64, 0.2, 0.5, 0.64, 0.97] {
        let (m, s) = (-0.3, 0.8);
        let logit = (t / (1.0 - t)).ln();
        let want = normal(logit, m, s) / (t * (1.0 - t));
        near(density(json!({ "type": "logit-normal", "mean": m, "std": s }), t), want, 1e-10);
        near(density(json!("cosmap"), t), 2.0 / (PI - 2.0 * PI * t + 2.0 * PI * t * t), 1e-10);
        for scale in [-0.9, -0.4, 0.81, 1.29, 1.6] {
            // |d f⁻¹/dt| of the published f, inverted and differentiated by numbers.
            let f = |u: f64| 1.0 - u - scale * ((FRAC_PI_2 * u).cos().powi(2) - 1.0 + u);
            let inverse = |t: f64| {
                let (mut low, mut high) = (0.0, 1.0);
                for _ in 0..60 {
                    let mid = 0.5 * (low + high);
                    if f(mid) > t { low = mid } else { high = mid }
                }
                low
            };
            let slope = (inverse(t - 1e-5) - inverse(t + 1e-5)) / 2e-5;
            near(density(json!({ "type": "mode", "scale": scale }), t), slope, 1e-5);
        }
    }
}

/// The density added up to a quantile is the quantile's u.
#[test]
fn beta_follows_its_distribution_function() {
    let flow = made::<dyn Schedule>("rectified-flow");
    for (alpha, beta) in [(2.0, 2.0), (1.5, 1.0), (0.6, 0.6), (0.5, 3.0), (20.0, 7.0)] {
        let sampler = made::<dyn TimestepSampler>(json!({ "type": "beta", "alpha": alpha, "beta": beta }));
        for u in [0.01, 0.3, 0.5, 0.92] {
            let end = sampler.quantile(u, &*flow);
            // t = end x^4 tames the infinite density at 0.
            let n = 20_000;
            let term = |i: usize| {
                let x = (i as f64 + 0.5) / n as f64;
                sampler.density(end * x.powi(4), &*flow) * 4.0 * x.powi(3) * end / n as f64
            };
            near((0..n).map(term).sum(), u, 1e-5);
        }
    }
}

/// Drawn as the step draws them: levels of EDM's distribution on a table, whose times are points.
#[test]
fn noise_levels_are_drawn_on_any_schedule() {
    for schedule in ["edm", "rectified-flow", "scaled-linear", "cosine"] {
        let run =
            Run::new(schedule, "v", "native", json!({ "type": "log-normal-sigma", "p_mean": -0.4, "p_std": 1.0 }));
        let Run { schedule, objective, weighting, timesteps } = &run;
        let process = Process {
            schedule: &**schedule,
            objective: &**objective,
            weighting: &**weighting,
            timesteps: &**timesteps,
        };
        let n = 2000;
        let logs: Vec<f64> = (0..n).map(|i| -0.5 * process.row((i as f64 + 0.5) / n as f64).noise.log_snr()).collect();
        let mean = logs.iter().sum::<f64>() / n as f64;
        let deviation = (logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
        assert!((mean + 0.4).abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} ± {deviation} on {schedule:?}");
    }
}

fn fixture() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/scalars.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

#[test]
fn schedules_have_the_numbers_of_diffusers() {
    let fixture = fixture();
    let times: Vec<f64> = numbers(&fixture["points"]).iter().map(|i| (i + 1.0) / 1000.0).collect();
    let folder = tempfile::tempdir().unwrap();
    for case in fixture["of_betas"].as_array().unwrap() {
        let config = &case["config"];
        let name = match config["beta_schedule"].as_str().unwrap() {
            "sigmoid" => "sigmoid-betas",
            other => other,
        };
        let mut own = json!({ "type": name });
        if name != "squaredcos_cap_v2" {
            own["beta_start"] = config["beta_start"].clone();
            own["beta_end"] = config["beta_end"].clone();
        }
        if config["rescale_betas_zero_snr"] == true {
            own = json!({ "type": "zero-terminal", "of": own });
        }
        let file = folder.path().join("scheduler_config.json");
        std::fs::write(&file, config.to_string()).unwrap();
        for schedule in [made::<dyn Schedule>(own), made(json!({ "type": "table", "file": file }))] {
            for (t, want) in times.iter().zip(numbers(&case["alpha_bar"])) {
                let found = schedule.at(*t).alpha.powi(2);
                // diffusers multiplies in f32.
                assert!((found - want).abs() <= 1e-4 * want + 1e-9, "{schedule:?} at {t}: {found}, not {want}");
            }
        }
    }
    for (i, want) in numbers(&fixture["edm_sigmas"]).into_iter().enumerate() {
        near(made::<dyn Schedule>("edm").at(1.0 - i as f64 / 10.0).sigma, want, 1e-5);
    }
    let shifted = made::<dyn Schedule>(json!({ "type": "rectified-flow", "shift": 3.0 }));
    for (t, want) in times.iter().zip(numbers(&fixture["flow_shift_3"])) {
        near(shifted.at(*t).sigma, want, 1e-5);
    }
    for case in fixture["flow_flux"].as_array().unwrap() {
        let [height, width] = ["height", "width"].map(|side| case[side].as_u64().unwrap() as usize);
        let sized = made::<dyn Schedule>("flux_shift").sized(height, width);
        for (t, want) in [0.9, 0.5, 0.1].into_iter().zip(numbers(&case["sigmas"])) {
            near(sized.at(t).sigma, want, 1e-5);
        }
    }
}

#[test]
fn weightings_of_stable_diffusion_3_have_the_numbers_of_diffusers() {
    let fixture = fixture();
    let flow = made::<dyn Schedule>("rectified-flow");
    for (name, weights) in fixture["sd3_weights"].as_object().unwrap() {
        for (sigma, want) in numbers(&fixture["sd3_sigmas"]).into_iter().zip(numbers(weights)) {
            near(factor(name.as_str(), "flow", &flow.at(sigma)), want, 1e-6);
        }
    }
}

#[test]
fn learning_rates_have_the_factors_of_diffusers_and_transformers() {
    let fixture = fixture();
    for case in fixture["lr"].as_array().unwrap() {
        let mut table = case["table"].clone();
        // From 10 on the warm-up is over in both.
        table["warmup_images"] = json!(10);
        let lr = made::<dyn LrSchedule>(table);
        for (step, want) in numbers(&fixture["lr_steps"]).into_iter().zip(numbers(&case["factors"])) {
            let found = lr.factor(step as u64, 100);
            assert!((found - want).abs() < 1e-9, "{lr:?} at {step}: {found}, not {want}");
        }
    }
}
