//! What formulas cost, in medians of many calls: `cargo run --release -p sconce-expr --example speed`.

use std::hint::black_box;
use std::time::Instant;

use sconce_expr as _;
use sconce_sdk::{Choice, Distance, Kind, Schedule, TimestepSampler};
use serde_json::{Value, json};

fn made<K: Kind + ?Sized>(mut table: Value) -> Choice<K> {
    table["type"] = "expr".into();
    Choice::from_table(&table).unwrap_or_else(|e| panic!("{table}: {e}"))
}

/// The median of 31 runs, in seconds.
fn median(mut run: impl FnMut()) -> f64 {
    let mut took: Vec<f64> = (0..31)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed().as_secs_f64()
        })
        .collect();
    took.sort_by(f64::total_cmp);
    took[15]
}

fn main() {
    let flow: Choice<dyn Schedule> = made(json!({ "alpha": "1 - t", "sigma": "t" }));
    let schedule = &**flow.object();
    for p in [
        "1 + 3 * t^2",
        "exp(-logit(t)^2 / 2) / (t * r)",
        "t^-0.9",
        "1 / sqrt(t * r)",
        "exp(50 * t)",
        "if(t < 0.3, 1, 3)",
        "abs(t - 0.5)",
    ] {
        let started = Instant::now();
        let sampler: Choice<dyn TimestepSampler> = made(json!({ "p": p }));
        let reading = started.elapsed().as_secs_f64();
        let n = 1000;
        let us: Vec<f64> = (0..n).map(|i| (f64::from(i) + 0.37) / f64::from(n)).collect();
        let each = |f: &dyn Fn(f64) -> f64| median(|| us.iter().for_each(|u| _ = black_box(f(*u)))) / f64::from(n);
        let quantile = each(&|u| sampler.quantile(u, schedule));
        let cumulative = each(&|t| sampler.cumulative(t, schedule));
        println!(
            "p = {p:<32} quantile {:6.2} us, cumulative {:6.2} us, read in {:6.2} ms",
            quantile * 1e6,
            cumulative * 1e6,
            reading * 1e3
        );
    }
    let differences: Vec<f64> = (0..65_536).map(|i| (f64::from(i) * 0.7).sin()).collect();
    let mut out = vec![[0.0; 2]; differences.len()];
    for rho in
        ["c^2 * log1p((d / c)^2)", "d^2", "2 * c * (hypot(d, c) - c)", "if(abs(d) < c, d^2, 2 * c * abs(d) - c^2)"]
    {
        let distance: Choice<dyn Distance> = made(json!({ "rho": rho, "width": "0.3" }));
        let all = median(|| distance.at_each(&differences, 0.3, black_box(&mut out)));
        println!("rho = {rho:<42} 65,536 elements {:6.2} ms", all * 1e3);
    }
}
