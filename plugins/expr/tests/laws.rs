//! The laws of every kind on the examples of its formulas, and on more: those of tests/laws.rs, which needs the whole program.

use sconce_expr as _;
use sconce_sdk::testkit::{self, Law, instances};
use sconce_sdk::{
    Choice, Distance, EmaStrategy, Kind, LrSchedule, Noise, Objective, Schedule, Spacing, TimestepSampler, Weighting,
};
use serde_json::{Value, json};

/// The examples of a kind, and these.
fn all<K: Kind + ?Sized>(more: &[Value]) -> Vec<Choice<K>> {
    let made = more.iter().map(|table| {
        let mut table = table.clone();
        table["type"] = "expr".into();
        Choice::from_table(&table).unwrap_or_else(|e| panic!("{table}: {e}"))
    });
    let all: Vec<Choice<K>> = instances::<K>().unwrap().into_iter().chain(made).collect();
    assert!(all.len() > more.len(), "the {} has an example", K::NAME);
    all
}

fn check<K: Kind + ?Sized>(plugin: &Choice<K>, law: Law) {
    law.unwrap_or_else(|e| panic!("{plugin:?}: {e}"));
}

fn schedules() -> Vec<Choice<dyn Schedule>> {
    all(&[
        json!({ "alpha": "1 - t", "sigma": "t" }),
        json!({ "log_snr": "2 * ln((1 - t) / t)", "alpha": "sigmoid(lambda / 2)" }),
        json!({ "log_snr": "-2 * ln(tan(pi / 2 * t))" }),
        json!({ "alpha": "1", "sigma": "lerp(s0^(1/7), s1^(1/7), t)^7", "params": { "s0": 0.002, "s1": 80.0 } }),
        json!({ "alpha": "1", "log_snr": "lerp(12, -8, t)" }),
        json!({ "alpha": "(1 - t) / (1 + (sqrt(height * width) / 32 - 1) * t)",
            "log_snr": "2 * ln((1 - t) / t * 32 / sqrt(height * width))", "base_size": [16, 16] }),
        json!({ "sigma": "sqrt(t)", "alpha": "sqrt(1 - t)", "grid": 100 }),
        json!({ "sigma": "min(t, 0.5) + max(t - 0.5, 0) / 2" }),
    ])
}

fn times() -> Vec<f64> {
    let ends = [0.0, 1e-4, 1e-3, 0.01, 0.99, 0.999, 1.0];
    let mut times: Vec<f64> = (0..=40).map(|i| f64::from(i) / 41.3 + 0.004).chain(ends).collect();
    times.sort_by(f64::total_cmp);
    times
}

#[test]
fn schedules_hold() {
    for schedule in schedules() {
        let times = times();
        for pair in times.windows(2) {
            check(&schedule, testkit::schedule(&*schedule, pair[0], pair[1]));
            check(&schedule, testkit::schedule(&*schedule.sized(40, 200), pair[0], pair[1]));
        }
    }
    let sized = schedules().iter().filter(|s| s.at_size(64, 64).is_some()).count();
    assert_eq!(sized, 1);
}

#[test]
fn objectives_and_weightings_hold() {
    let objectives: Vec<Choice<dyn Objective>> = all(&[
        json!({ "a": "0", "b": "1" }),
        json!({ "a": "1", "b": "0" }),
        json!({ "a": "d_alpha / (alpha * d_sigma - sigma * d_alpha)", "b": "d_sigma / (alpha * d_sigma - sigma * d_alpha)" }),
        json!({ "a": "sigma / (s * hypot(sigma, s * alpha))", "b": "-s * alpha / hypot(sigma, s * alpha)",
            "input_scale": "1 / hypot(sigma, s * alpha)", "params": { "s": 0.5 } }),
    ]);
    let weightings: Vec<Choice<dyn Weighting>> = all(&[
        json!({ "on_x0": "-d_lambda / 2 * snr" }),
        json!({ "on_x0": "snr / (1 + snr * exp(-bias)) * -d_lambda / 2", "params": { "bias": 2 } }),
    ]);
    for schedule in schedules() {
        for t in times() {
            let noise = schedule.at(schedule.grid().map_or(t, |n| (t * n as f64).ceil().max(1.0) / n as f64));
            let targets: Vec<[f64; 2]> = objectives.iter().map(|o| o.target(&noise)).collect();
            for objective in &objectives {
                check(objective, testkit::objective(&**objective, &noise, 0.7, -1.3));
            }
            for weighting in &weightings {
                for target in &targets {
                    check(weighting, testkit::weighting(&**weighting, &noise, *target));
                }
                check(weighting, testkit::weighting_of_data(&**weighting, &noise, &targets));
            }
        }
    }
}

fn samplers() -> Vec<Choice<dyn TimestepSampler>> {
    all(&[
        json!({ "p": "1" }),
        json!({ "p": "if(t < 0.3, 0, if(t < 0.5, 2, t))" }),
        json!({ "p": "t^-0.4 * r^-0.4" }),
        json!({ "p": "exp(-logit(t)^2 / 2) / (t * r)" }),
        json!({ "p": "(t > 0.2) * (t < 0.4) + 5 * (t > 0.8)" }),
        json!({ "quantile": "u^2" }),
        json!({ "quantile": "0.25 * (1 + floor(4 * u))" }),
        json!({ "quantile": "if(u < 0.5, u / 2, 0.75 + (u - 0.5) / 2)" }),
    ])
}

#[test]
fn timesteps_hold() {
    let (schedules, samplers) = (schedules(), samplers());
    let us = (0..20).map(|i| f64::from(i) / 20.0 + 1e-3 * f64::from(i % 3)).chain([0.0, 0.99999]);
    for u in us {
        for sampler in &samplers {
            // One on a circle, one in steps, one straight and one that explodes.
            for schedule in [0, 2, 3, 6].map(|k| &schedules[k]) {
                check(sampler, testkit::timesteps(&**sampler, &**schedule, u, (u + 0.3).min(0.999999)));
            }
        }
    }
    for sampler in samplers {
        check(&sampler, testkit::density(&*sampler, &*schedules[3]));
    }
}

#[test]
fn distances_hold() {
    let distances: Vec<Choice<dyn Distance>> = all(&[
        json!({ "rho": "d^2" }),
        json!({ "rho": "abs(d)" }),
        json!({ "rho": "if(abs(d) < c, d^2, 2 * c * abs(d) - c^2)", "width": "0.3" }),
        json!({ "rho": "c^2 * d^2 / (c^2 + d^2)" }),
    ]);
    for distance in distances {
        for schedule in schedules() {
            let noise = schedule.at(0.4);
            for d in [-4.0, -0.31, -1e-3, 0.02, 0.5, 3.0] {
                // An absolute value's corner has no difference to compare with.
                check(&distance, testkit::distance(&*distance, d, 1.7 * d, 0.4, &noise));
            }
        }
    }
}

#[test]
fn averages_and_rates_hold() {
    for ema in all::<dyn EmaStrategy>(&[json!({ "decay": "max(1 - batch / n, 0)^7.9" }), json!({ "decay": "0.999" })]) {
        for images_seen in [0, 1, 7, 100, 4096, 123_456, 9_999_999] {
            for batch in [1, 3, 64, 4999] {
                check(&ema, testkit::ema(&*ema, images_seen, batch));
            }
        }
    }
    for lr in all::<dyn LrSchedule>(&[json!({ "factor": "(1 + cos(pi * p)) / 2", "warmup_images": 100 })]) {
        for images_seen in [0, 1, 50, 999, 1999] {
            for images_total in [0, 1, 500, 1000] {
                check(&lr, testkit::lr(&*lr, images_seen, images_total));
            }
        }
    }
}

#[test]
fn spacings_hold() {
    let spacings: Vec<Choice<dyn Spacing>> = all(&[
        json!({ "sigma": "lerp(start, end, s)" }),
        json!({ "t": "lerp(start, end, beta_quantile(s, 0.6, 0.6))", "last": "first-point" }),
        json!({ "ratio": "start * (end / start)^s", "last": "first-point" }),
    ]);
    for schedule in schedules() {
        // sigma grows all along in a spacing of sigma; and there is one where it does not reach far.
        for spacing in &spacings {
            for steps in [1, 2, 7, 29, 1000] {
                if schedule.grid().is_some_and(|n| n < 500) && steps > 50 {
                    continue;
                }
                check(spacing, testkit::spacing(&**spacing, &*schedule, steps));
            }
        }
    }
}

/// What a table says comes back when it is written out.
#[test]
fn tables_come_back() {
    let table = json!({ "type": "expr", "on_x0": "min(snr, gamma)", "params": { "gamma": 5.0 } });
    assert_eq!(Choice::<dyn Weighting>::from_table(&table).unwrap().table(), table);
    let noise = Noise { alpha: 0.6, sigma: 0.8, d_alpha: -1.0, d_sigma: 1.0 };
    let weighting = Choice::<dyn Weighting>::from_table(&table).unwrap();
    assert!((weighting.on_output(&noise, [0.0, 1.0]) - 1.0).abs() < 1e-15);
}
