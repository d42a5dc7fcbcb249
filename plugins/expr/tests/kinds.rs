//! What each kind refuses, in its words, and what it takes; numbers are changed by `--set` as those of any plugin.

use std::f64::consts::{FRAC_2_PI, PI};

use sconce_expr as _;
use sconce_sdk::special::normal::probit;
use sconce_sdk::{Choice, Distance, Kind, ParamError, Schedule, TimestepSampler, registry};
use serde_json::{Value, json};

fn made<K: Kind + ?Sized>(mut table: Value) -> Result<Choice<K>, ParamError> {
    table["type"] = "expr".into();
    Choice::from_table(&table)
}

fn refused(kind: &str, table: &Value) -> String {
    let plugin = registry::find(kind, "expr").unwrap();
    let error = (plugin.build)(table.clone()).err().unwrap_or_else(|| panic!("{kind} takes {table}"));
    format!("[{kind}] {table}\n{error}")
}

/// Reviewed text.
#[test]
fn what_breaks_a_law_is_refused_with_the_point_where_it_does() {
    let said: Vec<String> = [
        ("weighting", json!({})),
        ("weighting", json!({ "on_x0": "1", "on_output": "1" })),
        ("weighting", json!({ "on_x0": "min(srn, 5)" })),
        ("weighting", json!({ "on_x0": "snr - 1" })),
        ("weighting", json!({ "on_x0": "1 / (snr - 1)" })),
        ("weighting", json!({ "on_x0": "min(snr, gamma)", "params": { "gama": 5.0 } })),
        ("weighting", json!({ "on_x0": "snr", "params": { "gamma": 5.0 } })),
        ("weighting", json!({ "on_x0": "snr", "params": { "snr": 5.0 } })),
        ("weighting", json!({ "on_x0": "a * snr" })),
        ("weighting", json!({ "on_output": "a * snr" })),
        ("weighting", json!({ "on_xo": "snr" })),
        ("weighting", json!({ "on_x0": 5 })),
        ("weighting", json!({ "on_x0": "g", "params": { "g": "5" } })),
        ("schedule", json!({})),
        ("schedule", json!({ "alpha": "t", "sigma": "1 - t" })),
        ("schedule", json!({ "alpha": "1 - t", "sigma": "t - 0.5" })),
        ("schedule", json!({ "alpha": "1 - t", "sigma": "t * (1 - t)" })),
        ("schedule", json!({ "alpha": "1 - 2 * t" })),
        ("schedule", json!({ "alpha": "1 + t", "sigma": "9 * t" })),
        ("schedule", json!({ "log_snr": "cos(7 * t)" })),
        ("schedule", json!({ "log_snr": "0 - t", "sigma": "t" })),
        ("schedule", json!({ "log_snr": "1 / (0.5 - t)" })),
        ("schedule", json!({ "beta": "0.01" })),
        ("schedule", json!({ "beta": "i / 5", "grid": 10 })),
        ("schedule", json!({ "alpha": "1 - t", "sigma": "t", "grid": 1 })),
        ("schedule", json!({ "alpha": "1 - t", "sigma": "t", "base_size": [8, 8] })),
        ("schedule", json!({ "alpha": "1 - t", "sigma": "t * (height - 20)" })),
        ("objective", json!({ "a": "1" })),
        ("objective", json!({ "a": "alpha", "b": "sigma" })),
        ("objective", json!({ "a": "ln(alpha - 0.5)", "b": "1" })),
        ("objective", json!({ "a": "0", "b": "1", "input_scale": "0" })),
        ("timesteps", json!({})),
        ("timesteps", json!({ "p": "t - 0.5" })),
        ("timesteps", json!({ "p": "0" })),
        ("timesteps", json!({ "p": "1 / t" })),
        ("timesteps", json!({ "p": "1 / sqrt(1 - t)" })),
        ("timesteps", json!({ "p": "1 + sin(1e9 * t)" })),
        ("timesteps", json!({ "p": "1 / abs(t - 0.3)" })),
        ("timesteps", json!({ "quantile": "2 * u" })),
        ("timesteps", json!({ "quantile": "1 - u" })),
        ("timesteps", json!({ "quantile": "ln(u - 0.5)" })),
        ("timesteps", json!({ "log_snr": "probit(u)" })),
        ("ema", json!({ "decay": "1.001" })),
        ("ema", json!({ "decay": "1 - 10 / k" })),
        ("lr", json!({ "factor": "1 - 2 * p" })),
        ("lr", json!({ "factor": "1 / (n - 100)" })),
        ("spacing", json!({ "t": "i / n" })),
        ("spacing", json!({ "t": "1 - s" })),
        ("spacing", json!({ "ratio": "80 * (1 - s)" })),
        ("spacing", json!({ "t": "0.5" })),
        ("distance", json!({ "rho": "d" })),
        ("distance", json!({ "rho": "d^2 + 1" })),
        ("distance", json!({ "rho": "d^3" })),
        ("distance", json!({ "rho": "d^2 * (2 - abs(d))" })),
        ("distance", json!({ "rho": "d^2 / c", "width": "t - 0.5" })),
        ("distance", json!({ "rho": "d^2", "width": "c" })),
    ]
    .iter()
    .map(|(kind, table)| refused(kind, table))
    .collect();
    let said = said.join("\n\n");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/refused.txt");
    if std::env::var_os("SCONCE_UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, &said).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(said == reviewed, "not as in {}:\n{said}", path.display());
}

/// The fields' paths survive, so that a recipe's error has a line.
#[test]
fn an_error_knows_its_field() {
    let path = |table: Value| made::<dyn TimestepSampler>(table).unwrap_err().path.join(".");
    assert_eq!(path(json!({ "p": "x" })), "p");
    assert_eq!(path(json!({ "p": "t", "params": { "k": 1 } })), "params.k");
    let around = json!({ "type": "expr", "alpha": "1 -" });
    let outer = serde_json::from_value::<Outer>(json!({ "of": around })).unwrap_err().to_string();
    assert!(outer.contains("alpha") && outer.contains("ends where"), "{outer}");
}

#[derive(Debug, serde::Deserialize)]
struct Outer {
    #[allow(dead_code)]
    of: Choice<dyn Schedule>,
}

fn sampler(table: Value) -> Choice<dyn TimestepSampler> {
    made(table.clone()).unwrap_or_else(|e| panic!("{table}: {e}"))
}

/// Densities whose quantiles are known, found numerically.
#[test]
fn quantiles_of_a_density_are_found_to_1e_12() {
    let flow = made::<dyn Schedule>(json!({ "alpha": "1 - t", "sigma": "t" })).unwrap();
    let us = (0..=1000).map(|i| f64::from(i) / 1000.0).chain([1e-9, 1e-5, 0.99999]);
    let us: Vec<f64> = us.filter(|u| *u < 1.0).collect();
    type Known = fn(f64) -> f64;
    let known: [(&str, Known, f64); 10] = [
        ("1", |u| u, 1e-13),
        ("t", |u| u.sqrt(), 1e-13),
        ("3 * r^2", |u| 1.0 - (1.0 - u).cbrt(), 1e-13),
        (
            "2 / (1 - 2 * t + 2 * t^2)",
            |u| (PI / 2.0 * u).sin() / ((PI / 2.0 * u).sin() + (PI / 2.0 * (1.0 - u)).sin()),
            1e-14,
        ),
        ("exp(-logit(t)^2 / 2) / (t * r)", |u| 1.0 / (1.0 + (-probit(u)).exp()), 1e-13),
        ("1 / sqrt(t * r)", |u| (PI / 2.0 * u).sin().powi(2), 1e-12),
        ("t^-0.9", |u| u.powi(10), 1e-13),
        ("exp(50 * t)", |u| (u * 50f64.exp_m1()).ln_1p() / 50.0, 1e-13),
        ("if(t < 0.3, 1, 3)", |u| if u < 0.3 / 2.4 { 2.4 * u } else { 0.3 + (2.4 * u - 0.3) / 3.0 }, 1e-12),
        (
            "abs(t - 0.5)",
            |u| if u < 0.5 { 0.5 - 0.5 * (1.0 - 2.0 * u).sqrt() } else { 0.5 + 0.5 * (2.0 * u - 1.0).sqrt() },
            3e-8,
        ),
    ];
    for (p, quantile, within) in known {
        let sampler = sampler(json!({ "p": p }));
        let (mut worst, mut back) = (0f64, 0f64);
        for u in &us {
            let t = sampler.quantile(*u, &**flow.object());
            worst = worst.max((t - quantile(*u)).abs());
            back = back.max((sampler.cumulative(t, &**flow.object()) - u).abs());
        }
        println!("{p}: {worst:e}, back {back:e}");
        assert!(worst < within, "{p}: {worst:e}");
    }
    // The ends of what is drawn.
    let middle = sampler(json!({ "p": "(t > 0.25) * (t < 0.5)" }));
    for (u, t) in [(0.0, 0.25), (1.0 - f64::EPSILON / 2.0, 0.5), (1.0, 0.5)] {
        assert!((middle.quantile(u, &**flow.object()) - t).abs() < 1e-12, "{u}");
    }
    let cosmap = sampler(json!({ "p": "1 / (1 - 2 * t + 2 * t^2)" }));
    assert!((cosmap.density(0.5, &**flow.object()) - 2.0 * FRAC_2_PI).abs() < 1e-13);
}

/// A density that never becomes smooth, of as many slow functions as a formula may have: refused in seconds, and in less
/// than a minute without optimisation.
#[test]
fn a_slow_and_rough_density_is_refused_in_seconds() {
    let slow = ["beta_quantile(t, 9e3, 2e3)"; 8].join(" + ");
    let started = std::time::Instant::now();
    let error = made::<dyn TimestepSampler>(json!({ "p": format!("{slow} + sin(1e9 * t) + 1") })).unwrap_err();
    assert!(error.message.contains("too rough"), "{error}");
    let took = started.elapsed();
    println!("refused in {took:?}");
    assert!(took.as_secs() < 120, "{took:?}");
}

/// A distance of a large picture is the same however many threads there are, and that of its elements one by one.
#[test]
fn a_distance_does_not_depend_on_threads() {
    let distance = made::<dyn Distance>(json!({ "rho": "c^2 * log1p((d / c)^2)", "width": "0.3" })).unwrap();
    let differences: Vec<f64> = (0..40_001).map(|i| (f64::from(i - 20_000) * 0.07).sin()).collect();
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut out = vec![[0.0; 2]; differences.len()];
        pool.install(|| distance.at_each(&differences, 0.3, &mut out));
        out
    };
    let one = with(1);
    assert!(one == with(2) && one == with(5));
    for (d, found) in differences.iter().zip(&one) {
        assert_eq!(distance.at(*d, 0.3), *found, "at {d}");
    }
}

#[test]
fn descriptions_teach_the_language() {
    for kind in ["weighting", "schedule", "objective", "timesteps", "ema", "lr", "spacing", "distance"] {
        let schema = (registry::find(kind, "expr").unwrap().schema)().to_value();
        let about = schema["description"].as_str().unwrap();
        for f in sconce_expr::engine::FUNCTIONS {
            assert!(about.contains(f.call), "{kind}: {}", f.name);
        }
        for (name, field) in schema["properties"].as_object().unwrap() {
            assert!(field["description"].as_str().is_some_and(|d| !d.is_empty()), "{kind}.{name}");
        }
        assert!(schema["examples"].as_array().is_some_and(|e| !e.is_empty()), "{kind}");
        assert_eq!(schema["additionalProperties"], false, "{kind}");
    }
}

/// Prints what `sconce show` says, to be read: `cargo test -p sconce-expr --test kinds shown -- --ignored --nocapture`.
#[test]
#[ignore = "prints"]
fn shown() {
    for kind in ["weighting", "schedule"] {
        let schema = (registry::find(kind, "expr").unwrap().schema)().to_value();
        println!("{}\n{}\n", schema["description"].as_str().unwrap(), schema["properties"]);
    }
}
