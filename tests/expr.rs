//! Every built-in formula written as a formula in a recipe, against the plugin itself: to 1e-12.

use sconce_expr as _;
use sconce_plugins as _;
use sconce_sdk::{
    Choice, Distance, EmaStrategy, Kind, LrSchedule, Noise, Objective, Profile, Schedule, Spacing, TimestepSampler,
    Weighting,
};
use serde_json::{Value, json};

fn made<K: Kind + ?Sized>(table: Value) -> Choice<K> {
    Choice::from_table(&table).unwrap_or_else(|e| panic!("{table}: {e}"))
}

/// The plugin of a table, or of a name, and the formula that says the same.
fn pair<K: Kind + ?Sized>(plugin: Value, mut formula: Value) -> [Choice<K>; 2] {
    formula["type"] = "expr".into();
    [made(plugin), made(formula)]
}

fn near(a: f64, b: f64, place: &dyn Fn() -> String) {
    near_to(1e-12, a, b, place);
}

fn near_to(within: f64, a: f64, b: f64, place: &dyn Fn() -> String) {
    assert!(a == b || (a - b).abs() <= within * (1.0 + a.abs()), "{a:e} is {b:e} as a formula, {}", place());
}

fn schedule(name: &str) -> Choice<dyn Schedule> {
    made(name.into())
}

/// Times, near the ends too.
fn times() -> Vec<f64> {
    (0..=500).map(|i| f64::from(i) / 500.0).chain([1e-6, 1e-4, 0.0123, 0.99999]).collect()
}

/// What training sees of each frame of schedule; where there is no noise, a formula has the limit and some plugins have 0.
fn levels() -> Vec<Noise> {
    ["scaled-linear", "cosine-continuous", "rectified-flow", "edm"]
        .iter()
        .map(|name| schedule(name))
        .flat_map(|s| times().into_iter().filter(|t| *t > 0.0).map(move |t| s.at(t)).collect::<Vec<_>>())
        .collect()
}

#[test]
fn weightings() {
    let pairs: Vec<[Choice<dyn Weighting>; 2]> = vec![
        pair("min-snr".into(), json!({ "on_x0": "min(snr, gamma)", "params": { "gamma": 5.0 } })),
        pair("soft-min-snr".into(), json!({ "on_x0": "snr * gamma / (snr + gamma)", "params": { "gamma": 4.0 } })),
        pair("p2".into(), json!({ "on_x0": "snr * (k + snr)^-gamma", "params": { "gamma": 1.0, "k": 1.0 } })),
        pair("p2".into(), json!({ "on_x0": "snr / (k + snr)", "params": { "k": 1.0 } })),
        pair(
            json!({ "type": "p2", "gamma": 0.5 }),
            json!({ "on_x0": "snr * (k + snr)^-gamma", "params": { "gamma": 0.5, "k": 1.0 } }),
        ),
        pair(
            "debiased".into(),
            json!({ "on_x0": "if(snr > cap, snr / sqrt(cap), sqrt(snr))", "params": { "cap": 1000 } }),
        ),
        pair("edm".into(), json!({ "on_x0": "snr + sigma_data^-2", "params": { "sigma_data": 0.5 } })),
        pair("cosmap".into(), json!({ "on_x0": "2 / pi * (1 + sqrt(snr))^4 / (1 + snr)" })),
        pair("sigma-sqrt".into(), json!({ "on_x0": "(1 + sqrt(snr))^4" })),
        pair("elbo".into(), json!({ "on_x0": "-d_lambda / 2 * snr" })),
        pair(
            "sigmoid".into(),
            json!({ "on_x0": "-d_lambda / 2 * snr / (1 + snr * exp(-bias))", "params": { "bias": 2.0 } }),
        ),
        pair("native".into(), json!({ "on_output": "1" })),
    ];
    for [plugin, formula] in pairs {
        for log_snr in (-60..=60).map(|i| f64::from(i) * 0.25).chain([f64::INFINITY, f64::NEG_INFINITY, 79.0]) {
            let (a, b) = (plugin.on_x0(log_snr), formula.on_x0(log_snr));
            // Without noise a weight is a number that nothing follows from.
            if log_snr == f64::INFINITY && plugin.name() == "native" {
                continue;
            }
            near(a, b, &|| format!("{formula:?} at log-SNR {log_snr}"));
        }
        for noise in levels() {
            for target in [[1.0, 0.0], [0.0, 1.0], [-noise.sigma, noise.alpha], [-1.0, 1.0]] {
                if noise.determinant(target) == 0.0 {
                    continue;
                }
                let (a, b) = (plugin.on_output(&noise, target), formula.on_output(&noise, target));
                near(a, b, &|| format!("{formula:?} at {noise:?} for {target:?}"));
            }
        }
    }
}

#[test]
fn objectives() {
    let edm = json!({ "a": "sigma / (s * hypot(sigma, s * alpha))", "b": "-s * alpha / hypot(sigma, s * alpha)",
        "input_scale": "1 / hypot(sigma, s * alpha)", "params": { "s": 0.5 } });
    let flow = json!({ "a": "d_alpha / (alpha * d_sigma - sigma * d_alpha)",
        "b": "d_sigma / (alpha * d_sigma - sigma * d_alpha)" });
    let pairs: Vec<[Choice<dyn Objective>; 2]> = vec![
        pair("x0".into(), json!({ "a": "1", "b": "0" })),
        pair("epsilon".into(), json!({ "a": "0", "b": "1" })),
        pair("v".into(), json!({ "a": "-sigma", "b": "alpha" })),
        pair("flow".into(), flow),
        pair("edm".into(), edm),
    ];
    for [plugin, formula] in pairs {
        for noise in levels() {
            let (found, want) = (formula.target(&noise), plugin.target(&noise));
            for (a, b) in want.into_iter().zip(found).chain([(plugin.input_scale(&noise), formula.input_scale(&noise))])
            {
                near(a, b, &|| format!("{formula:?} at {noise:?}"));
            }
        }
    }
}

#[test]
fn schedules() {
    let betas = |beta: &str, params: Value| json!({ "beta": beta, "grid": 1000, "params": params });
    let ddpm = json!({ "b0": 1e-4, "b1": 0.02 });
    let shifted = |shift: f64| json!({ "alpha": "(1 - t) / (1 + (a - 1) * t)", "sigma": "a * t / (1 + (a - 1) * t)", "params": { "a": shift } });
    let exploding =
        json!({ "alpha": "1", "sigma": "lerp(s0^(1/7), s1^(1/7), t)^7", "params": { "s0": 0.002, "s1": 80.0 } });
    let preserving =
        json!({ "log_snr": "-14 * ln(lerp(s0^(1/7), s1^(1/7), t))", "params": { "s0": 0.002, "s1": 80.0 } });
    let sigmoid = json!({
        "alpha": "sqrt(sinh((1 - t) * all) * cosh(k * from) / (sinh(all) * cosh(k * from + t * all)))".replace("all", "(k * (to - from))"),
        "sigma": "sqrt(sinh(t * all) * cosh(k * to) / (sinh(all) * cosh(k * from + t * all)))".replace("all", "(k * (to - from))"),
        "params": { "k": 0.5, "from": -3.0, "to": 3.0 },
    });
    let flux = "exp(0.5 + 0.65 / 3840 * (floor(height / 2) * floor(width / 2) - 256))";
    let sd3 = "(sqrt(height * width) / 32)";
    let by_size = |a: &str| {
        json!({ "alpha": "(1 - t) / (1 + (a - 1) * t)".replace('a', a).replace(&format!("{a}lph{a}"), "alpha"),
            "sigma": "a * t / (1 + (a - 1) * t)".replace('a', a) })
    };
    let cosine = "min(1 - (cos(((i + 1) / n + o) / (1 + o) * pi / 2) / cos((i / n + o) / (1 + o) * pi / 2))^2, 0.999)";
    let pairs: Vec<[Choice<dyn Schedule>; 2]> = vec![
        pair("linear".into(), betas("lerp(b0, b1, s)", ddpm.clone())),
        pair("scaled-linear".into(), betas("lerp(sqrt(b0), sqrt(b1), s)^2", json!({ "b0": 0.00085, "b1": 0.012 }))),
        pair("sigmoid-betas".into(), betas("lerp(b0, b1, sigmoid(12 * s - 6))", ddpm)),
        pair("cosine".into(), betas(cosine, json!({ "o": 0.008 }))),
        pair("cosine-continuous".into(), json!({ "alpha": "sin(pi / 2 * (1 - t))", "sigma": "sin(pi / 2 * t)" })),
        pair("cosine-continuous".into(), json!({ "log_snr": "2 * ln(sin(pi / 2 * (1 - t)) / sin(pi / 2 * t))" })),
        pair("rectified-flow".into(), json!({ "alpha": "1 - t", "sigma": "t" })),
        pair("rectified-flow".into(), json!({ "log_snr": "2 * ln((1 - t) / t)", "alpha": "sigmoid(lambda / 2)" })),
        pair(json!({ "type": "rectified-flow", "shift": 3.0 }), shifted(3.0)),
        pair("rectified-flow-flux".into(), by_size(flux)),
        pair("rectified-flow-sd3".into(), by_size(sd3)),
        pair("edm".into(), exploding),
        pair(json!({ "type": "edm", "frame": "preserving" }), preserving),
        pair("sigmoid".into(), sigmoid),
    ];
    for [plugin, formula] in pairs {
        assert_eq!(plugin.grid(), formula.grid(), "{formula:?}");
        let sizes = plugin.at_size(64, 64).map_or(vec![], |_| vec![(64, 64), (40, 200)]);
        assert_eq!(formula.at_size(64, 64).is_some(), !sizes.is_empty(), "{formula:?}");
        let sized = sizes.into_iter().map(|(h, w)| (plugin.sized(h, w), formula.sized(h, w)));
        for (plugin, formula) in sized.chain([(plugin.clone(), formula.clone())]) {
            for t in times() {
                let (a, b) = (plugin.at(t), formula.at(t));
                let place = || format!("{formula:?} at t = {t}: {a:?}, {b:?}");
                near(a.alpha, b.alpha, &place);
                near(a.sigma, b.sigma, &place);
                // At an end the slope of a root is infinite, and each says so in its way.
                if t > 0.0 && t < 1.0 {
                    near_to(1e-11, a.d_alpha, b.d_alpha, &place);
                    near_to(1e-11, a.d_sigma, b.d_sigma, &place);
                    near(plugin.t_of(a.log_snr()), formula.t_of(a.log_snr()), &place);
                }
            }
        }
    }
}

#[test]
fn timesteps() {
    let pairs: Vec<[Choice<dyn TimestepSampler>; 2]> = vec![
        pair("uniform".into(), json!({ "p": "1" })),
        pair("uniform".into(), json!({ "quantile": "u" })),
        pair("logit-normal".into(), json!({ "p": "exp(-logit(t)^2 / 2) / (t * r)" })),
        pair("logit-normal".into(), json!({ "quantile": "sigmoid(probit(u))" })),
        pair(
            json!({ "type": "logit-normal", "mean": 0.7, "std": 0.6 }),
            json!({ "p": "exp(-((logit(t) - m) / s)^2 / 2) / (t * r)", "params": { "m": 0.7, "s": 0.6 } }),
        ),
        pair("mode".into(), json!({ "quantile": "u + s * (u - sin(pi / 2 * u)^2)", "params": { "s": 1.29 } })),
        pair("cosmap".into(), json!({ "p": "1 / (1 - 2 * t + 2 * t^2)" })),
        pair("cosmap".into(), json!({ "quantile": "sin(pi / 2 * u) / (sin(pi / 2 * u) + sin(pi / 2 * (1 - u)))" })),
        pair("beta".into(), json!({ "p": "t * r" })),
        pair("beta".into(), json!({ "quantile": "beta_quantile(u, 2, 2)" })),
        pair(
            json!({ "type": "beta", "alpha": 0.6, "beta": 0.6 }),
            json!({ "p": "t^(a - 1) * r^(b - 1)", "params": { "a": 0.6, "b": 0.6 } }),
        ),
        pair(
            json!({ "type": "beta", "alpha": 3.5, "beta": 1.25 }),
            json!({ "p": "t^(a - 1) * r^(b - 1)", "params": { "a": 3.5, "b": 1.25 } }),
        ),
        pair(
            "log-normal-sigma".into(),
            json!({ "log_snr": "-2 * (mean + std * probit(u))", "params": { "mean": -1.2, "std": 1.2 } }),
        ),
        pair(
            json!({ "type": "fixed-list", "times": [0.25, 0.5, 0.75, 1.0] }),
            json!({ "quantile": "(1 + floor(4 * u)) / 4" }),
        ),
        pair(json!({ "type": "range", "from": 0.2, "to": 0.4 }), json!({ "quantile": "lerp(0.2, 0.4, u)" })),
        pair(
            json!({ "type": "shift", "of": "uniform", "shift": 3.0 }),
            json!({ "quantile": "a * u / (1 + (a - 1) * u)", "params": { "a": 3 } }),
        ),
    ];
    for [plugin, formula] in pairs {
        for schedule in ["rectified-flow", "scaled-linear", "edm"].map(schedule) {
            let mut worst = [0f64; 3];
            for u in (0..997).map(|i| (f64::from(i) + 0.5) / 997.0).chain([1e-5, 0.99999]) {
                let (a, b) = (plugin.quantile(u, &*schedule), formula.quantile(u, &*schedule));
                let place = || format!("{formula:?} on {schedule:?} at u = {u}");
                worst[0] = worst[0].max((a - b).abs());
                near(a, b, &place);
                let t = u;
                let [a, b] = [&plugin, &formula].map(|s| s.cumulative(t, &*schedule));
                worst[1] = worst[1].max((a - b).abs());
                near(a, b, &place);
                // Beyond these, shares come so near to 0 and 1 that a quantile tells them no more.
                if (0.005..0.995).contains(&t) && plugin.name() != "fixed-list" {
                    let [a, b] = [&plugin, &formula].map(|s| s.density(t, &*schedule));
                    worst[2] = worst[2].max((a - b).abs() / (1.0 + a));
                    near_to(1e-10, a, b, &place);
                }
            }
            println!(
                "{} on {}: quantile {:e}, share {:e}, density {:e}",
                formula.table(),
                schedule.name(),
                worst[0],
                worst[1],
                worst[2]
            );
        }
    }
}

#[test]
fn averages() {
    let gamma = Profile::of_width(0.1).unwrap().gamma;
    let pairs: Vec<[Choice<dyn EmaStrategy>; 2]> = vec![
        pair(
            "constant".into(),
            json!({ "decay": "max(1 - (1 - d) * max(w / n, 1), 0)", "params": { "d": 0.999, "w": 10_000 } }),
        ),
        pair(
            "inverse-power".into(),
            json!({ "decay": "if(k <= 1, 0, min(1 - (1 + (k - 1) / g)^-(2 / 3), most))", "params": { "g": 1, "most": 0.9999 } }),
        ),
        pair("power".into(), json!({ "decay": "(1 - batch / n)^(gamma + 1)", "params": { "gamma": gamma } })),
    ];
    for [plugin, formula] in pairs {
        for batch in [1, 4, 64, 1000] {
            for updates in [1, 2, 3, 10, 77, 5_000, 1_234_567] {
                let n = updates * batch + batch / 2;
                let [a, b] = [&plugin, &formula].map(|e| e.decay(0, n, batch));
                near(a, b, &|| format!("{formula:?} at {n} images, {batch} a step"));
            }
        }
    }
}

#[test]
fn learning_rates() {
    let warm = |mut table: Value, warmup: u64| {
        table["warmup_images"] = warmup.into();
        table
    };
    let named = |name: &str| json!({ "type": name });
    let restarts = "if(p < 1, (1 + cos(pi * mod(3 * p, 1))) / 2, 0)";
    let decay = "if(total - n < 0.2 * total, 1 - sqrt(1 - max(total - n, 0) / (0.2 * total)), 1)";
    for warmup in [0, 300] {
        let pairs: Vec<[Choice<dyn LrSchedule>; 2]> = [
            (named("constant"), json!({ "factor": "1" })),
            (
                json!({ "type": "cosine", "final_factor": 0.1 }),
                json!({ "factor": "lerp(0.1, 1, (1 + cos(pi * p)) / 2)" }),
            ),
            (named("cosine-restarts"), json!({ "factor": restarts })),
            (named("linear"), json!({ "factor": "1 - p" })),
            (named("polynomial"), json!({ "factor": "(1 - p)^2" })),
            (named("rex"), json!({ "factor": "(1 - p) / (1 / 2 + (1 - p) / 2)" })),
            (named("inverse-sqrt"), json!({ "factor": "1 / sqrt(max(n / 100_000, 1))" })),
            (named("warmup-stable-decay"), json!({ "factor": decay })),
        ]
        .map(|(plugin, formula)| pair(warm(plugin, warmup), warm(formula, warmup)))
        .into();
        for [plugin, formula] in pairs {
            for total in [1, 250, 10_000, 3_000_000] {
                for i in 0..=100 {
                    let n = total * i / 100;
                    let [a, b] = [&plugin, &formula].map(|l| l.factor(n, total));
                    near(a, b, &|| format!("{formula:?} at {n} of {total}"));
                }
            }
        }
    }
    // The warm-up by hand.
    let by_hand = json!({ "factor": "min((n + 1) / (w + 1), 1)", "params": { "w": 300 } });
    let [plugin, formula] = pair::<dyn LrSchedule>(warm(named("constant"), 300), by_hand);
    for n in [0, 1, 150, 299, 300, 5000] {
        near(plugin.factor(n, 10_000), formula.factor(n, 10_000), &|| format!("{n}"));
    }
}

#[test]
fn spacings() {
    let rho = json!({ "rho": 7.0 });
    let karras = "lerp(start^(1 / rho), end^(1 / rho), s)^rho";
    let first_point = |mut table: Value| {
        table["last"] = "first-point".into();
        table
    };
    let named = |name: &str| json!({ "type": name });
    let leading = "(floor(points / n) * (n - 1 - i) + 1 + min(o, points - 1 - floor(points / n) * (n - 1))) / points";
    let beta = "(round((points - 1) * beta_quantile(1 - i / n, 0.6, 0.6)) + 1) / points";
    let linspace = "(points - (points - 1) * s) / points";
    let sigma = |name: &str| json!({ "type": name, "over": "sigma" });
    let exponential = "start * (end / start)^s";
    let pairs: Vec<[Choice<dyn Spacing>; 2]> = vec![
        pair(named("trailing"), json!({ "t": "round(points * (1 - i / n)) / points" })),
        pair(named("leading"), json!({ "t": leading, "params": { "o": 0 } })),
        pair(json!({ "type": "leading", "steps_offset": 1 }), json!({ "t": leading, "params": { "o": 1 } })),
        pair(named("ddim-uniform"), json!({ "t": leading, "params": { "o": 1 } })),
        pair(named("linspace"), json!({ "t": linspace })),
        pair(first_point(named("linspace")), first_point(json!({ "t": linspace }))),
        pair(named("normal"), json!({ "t": linspace })),
        pair(named("sgm-uniform"), json!({ "t": "(points - (points - 1) * i / n) / points" })),
        pair(named("simple"), json!({ "t": "(points - floor(i * (points / n))) / points" })),
        pair(named("beta"), json!({ "t": beta })),
        pair(named("karras"), json!({ "ratio": karras, "params": rho })),
        pair(first_point(named("karras")), first_point(json!({ "ratio": karras, "params": rho }))),
        pair(sigma("karras"), json!({ "sigma": karras, "params": rho })),
        pair(named("exponential"), json!({ "ratio": exponential })),
        pair(named("exponential"), json!({ "log_snr": "lerp(start, end, s)" })),
        pair(sigma("exponential"), json!({ "sigma": exponential })),
    ];
    for [plugin, formula] in pairs {
        for schedule in ["scaled-linear", "rectified-flow", "cosine", "edm"].map(schedule) {
            for steps in [1, 2, 5, 10, 28, 50] {
                let (want, found) = (plugin.levels(&*schedule, steps), formula.levels(&*schedule, steps));
                assert_eq!(want.len(), found.len());
                for (k, (a, b)) in want.iter().zip(&found).enumerate() {
                    let place = || format!("{formula:?} on {} at {k} of {steps}: {a:?}, {b:?}", schedule.name());
                    near(a.t, b.t, &place);
                    near(a.noise.alpha, b.noise.alpha, &place);
                    near(a.noise.sigma, b.noise.sigma, &place);
                }
            }
        }
    }
}

#[test]
fn distances() {
    let huber = "2 * c * d * (d / (hypot(d, c) + c))";
    let snr = "(1 - c1) / (1 + sigma / alpha)^2 + c1";
    let log_cosh =
        "2 * c^2 * if(abs(d / c) < 1, log1p(sinh(d / c)^2) / 2, abs(d / c) + log1p(exp(-2 * abs(d / c))) - ln(2))";
    let with = |rho: &str, width: &str| json!({ "rho": rho, "width": width, "params": { "c1": 0.1 } });
    let pairs: Vec<[Choice<dyn Distance>; 2]> = vec![
        pair("mse".into(), json!({ "rho": "d^2" })),
        pair("huber".into(), with(huber, snr)),
        pair(json!({ "type": "huber", "schedule": "exponential" }), with(huber, "c1^t")),
        pair(json!({ "type": "huber", "schedule": "constant" }), with(huber, "c1")),
        pair("smooth-l1".into(), with("2 * d * (d / (hypot(d, c) + c))", snr)),
        pair("log-cosh".into(), json!({ "rho": log_cosh })),
    ];
    for [plugin, formula] in pairs {
        let flow = schedule("rectified-flow");
        for t in [0.0, 0.01, 0.3, 0.7, 1.0] {
            let noise = flow.at(t);
            let c = plugin.width(t, &noise);
            near(c, formula.width(t, &noise), &|| format!("{formula:?} at t = {t}"));
            for d in [0.0, 1e-6, 1e-3, 0.05, 0.4, 2.0, 37.0].into_iter().flat_map(|d| [d, -d]) {
                for (a, b) in plugin.at(d, c).into_iter().zip(formula.at(d, c)) {
                    near(a, b, &|| format!("{formula:?} at d = {d}, c = {c}"));
                }
            }
        }
    }
}

/// Prints the nanoseconds of one evaluation, of the plugin and of the formula, and the milliseconds that it takes to make
/// the formula: `cargo test --release --test expr cost -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn cost() {
    fn nanoseconds(of: impl Fn(f64) -> f64) -> f64 {
        let best = (0..5).map(|_| {
            let (started, n) = (std::time::Instant::now(), 20_000);
            let sum: f64 = (0..n).map(|i| of(std::hint::black_box((f64::from(i) + 0.5) / f64::from(n)))).sum();
            std::hint::black_box(sum);
            started.elapsed().as_secs_f64() * 1e9 / f64::from(n)
        });
        best.fold(f64::INFINITY, f64::min)
    }
    fn row<K: Kind + ?Sized>(what: &str, plugin: Value, formula: Value, of: impl Fn(&K, f64) -> f64) {
        let started = std::time::Instant::now();
        let [plugin, formula] = pair::<K>(plugin, formula);
        let made = started.elapsed().as_secs_f64() * 1e3;
        let [a, b] = [&plugin, &formula].map(|p| nanoseconds(|x| of(p, x)));
        println!("{what:<34} {a:>8.0} ns {b:>8.0} ns   made in {made:.2} ms");
    }
    let flow = schedule("rectified-flow");
    let noise = |t: f64| Noise { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 };
    println!("{:<34} {:>11} {:>11}", "", "plugin", "formula");
    let min_snr = json!({ "on_x0": "min(snr, gamma)", "params": { "gamma": 5.0 } });
    row::<dyn Weighting>("weighting min-snr, on_output", "min-snr".into(), min_snr, |w, t| {
        w.on_output(&noise(t), [0.0, 1.0])
    });
    let elbo = json!({ "on_x0": "-d_lambda / 2 * snr" });
    row::<dyn Weighting>("weighting elbo, on_output", "elbo".into(), elbo, |w, t| w.on_output(&noise(t), [0.0, 1.0]));
    row::<dyn Objective>("objective v", "v".into(), json!({ "a": "-sigma", "b": "alpha" }), |o, t| {
        o.target(&noise(t))[0]
    });
    let straight = json!({ "alpha": "1 - t", "sigma": "t" });
    row::<dyn Schedule>("schedule rectified-flow, at", "rectified-flow".into(), straight.clone(), |s, t| {
        s.at(t).d_sigma
    });
    row::<dyn Schedule>("schedule rectified-flow, t_of", "rectified-flow".into(), straight, |s, t| s.t_of(t));
    let cosine = json!({ "alpha": "sin(pi / 2 * (1 - t))", "sigma": "sin(pi / 2 * t)" });
    row::<dyn Schedule>("schedule cosine-continuous, at", "cosine-continuous".into(), cosine, |s, t| s.at(t).d_sigma);
    let betas =
        json!({ "beta": "lerp(sqrt(b0), sqrt(b1), s)^2", "grid": 1000, "params": { "b0": 0.00085, "b1": 0.012 } });
    row::<dyn Schedule>("schedule scaled-linear, at", "scaled-linear".into(), betas, |s, t| s.at(t).d_sigma);
    let logit = json!({ "quantile": "sigmoid(probit(u))" });
    row::<dyn TimestepSampler>("timesteps logit-normal, quantile", "logit-normal".into(), logit, |s, u| {
        s.quantile(u, &*flow)
    });
    let logit = json!({ "p": "exp(-logit(t)^2 / 2) / (t * r)" });
    row::<dyn TimestepSampler>("the same by its density", "logit-normal".into(), logit, |s, u| s.quantile(u, &*flow));
    let levels = json!({ "log_snr": "-2 * (mean + std * probit(u))", "params": { "mean": -1.2, "std": 1.2 } });
    row::<dyn TimestepSampler>("timesteps log-normal-sigma", "log-normal-sigma".into(), levels, |s, u| {
        s.quantile(u, &*flow)
    });
    let power = json!({ "decay": "(1 - batch / n)^(gamma + 1)", "params": { "gamma": 6.94 } });
    row::<dyn EmaStrategy>("ema power", "power".into(), power, |e, x| e.decay(0, 4 + (x * 1e6) as u64, 4));
    row::<dyn LrSchedule>("lr cosine", "cosine".into(), json!({ "factor": "(1 + cos(pi * p)) / 2" }), |l, x| {
        l.factor((x * 1e6) as u64, 1_000_000)
    });
    let karras = json!({ "ratio": "lerp(start^(1/rho), end^(1/rho), s)^rho", "params": { "rho": 7.0 } });
    row::<dyn Spacing>("spacing karras, 30 steps", "karras".into(), karras, |s, _| s.levels(&*flow, 30)[3].t);
    let huber = json!({ "rho": "2 * c * d * (d / (hypot(d, c) + c))", "width": "0.1" });
    row::<dyn Distance>("distance huber", "huber".into(), huber, |r, d| r.at(d, 0.1)[1]);
    row::<dyn Distance>("distance mse", "mse".into(), json!({ "rho": "d^2" }), |r, d| r.at(d, 0.1)[1]);
}
