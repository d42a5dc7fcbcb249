//! A converted model is what it was: the same picture from the same noise, whatever schedule and objective it is read for;
//! and it is saved as what it computes.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use case::{Case, json, options};
use run::Bench;
use sconce_core::Cond;
use sconce_core::distance::Measure;
use sconce_core::model::{Backbone, Native, PromptUse, Recompute};
use sconce_core::network::{Conversion, Network, Preconditioning};
use sconce_core::noise::Drawn;
use sconce_core::recipe::{Convert, Fading, family};
use sconce_core::step::{Process, Row};
use sconce_models as _;
use sconce_nn::Store;
use sconce_nn::rng::Stream;
use sconce_plugins as _;
use sconce_sdk::{Choice, Distance, Kind, Noise, Objective, Schedule, TimestepSampler, Weighting};
use serde_json::{Value, json};

fn made<K: Kind + ?Sized>(table: impl Into<Value>) -> Choice<K> {
    let table = table.into();
    Choice::from_table(&table).unwrap_or_else(|e| panic!("{table}: {e}"))
}

/// Known by its time alone.
struct Clock;
impl Backbone for Clock {
    fn forward(&self, _: &Tensor, _: &Tensor, _: &Cond) -> Result<Tensor> {
        unreachable!("it is read, not run")
    }
    fn time(&self, t: f64, _: &Noise) -> f64 {
        1000.0 * t - 1.0
    }
    fn store(&self) -> &Arc<Store> {
        unreachable!("it has no parameters")
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

fn native(schedule: Value, objective: &str) -> Native {
    Native {
        family: String::new(),
        architecture: String::new(),
        base_version: String::new(),
        schedule,
        objective: json!({ "type": objective }),
        spacing: Value::Null,
        solver: Value::Null,
        steps: None,
        cfg: None,
        guidance: None,
        denoiser: String::new(),
        replaced: None,
        resolution_px: 64,
        latent_px: 8,
        untrained: false,
        evidence: BTreeMap::new(),
    }
}

/// Schedules with the objectives that go with them.
fn processes() -> Vec<(Value, &'static str)> {
    let zero_terminal = json!({ "type": "zero-terminal", "of": { "type": "scaled-linear" } });
    let shifted = json!({ "type": "rectified-flow", "shift": 3.0 });
    vec![
        (json!({ "type": "scaled-linear" }), "epsilon"),
        (json!({ "type": "scaled-linear" }), "v"),
        (zero_terminal, "v"),
        (json!({ "type": "cosine" }), "x0"),
        (shifted.clone(), "flow"),
        (shifted, "v"),
        (json!({ "type": "rectified-flow" }), "x0"),
        (json!({ "type": "edm" }), "edm"),
    ]
}

/// Any function of what a network sees.
fn network(x: f64, time: f64) -> f64 {
    (1.3 * x + 0.01 * time).sin() + 0.2 * x
}

/// What a network of its own process says x0 is.
fn own_x0(schedule: &dyn Schedule, objective: &dyn Objective, t: f64, x: f64) -> f64 {
    let level = schedule.at(t);
    let [p, q] = level.x0_from(objective.target(&level));
    p * x + q * network(objective.input_scale(&level) * x, Clock.time(t, &level))
}

#[test]
fn every_conversion_draws_what_the_model_drew() {
    for ((from, of), (to, as_)) in processes().iter().flat_map(|from| processes().into_iter().map(move |to| (from, to)))
    {
        let conversion = Conversion::of(Convert::Mapped(true), &native(from.clone(), of), 0).unwrap().unwrap();
        let (schedule, objective) = (made::<dyn Schedule>(to.clone()), made::<dyn Objective>(as_));
        let converted = Network { backbone: &Clock, conversion: Some(&conversion) };
        for t in (1..40).map(|i| f64::from(i) / 40.0) {
            let noise = schedule.at(t);
            let own_t = conversion.schedule.t_of(noise.log_snr());
            let own = conversion.schedule.at(own_t);
            if (own.log_snr() - noise.log_snr()).abs() > 1e-6
                || conversion.schedule.grid().is_some_and(|n| own_t < 1.0 / n as f64)
            {
                continue; // beyond what it was trained on
            }
            let x = 0.7 * (noise.alpha + noise.sigma);
            let read = converted.read(t, &noise, &*objective);
            let y = read.skip * x + read.output * network(read.input * x, read.time);
            let [p, q] = noise.x0_from(objective.target(&noise));
            let want = own_x0(&*conversion.schedule, &*conversion.objective, own_t, x * own.sigma / noise.sigma);
            let found = p * x + q * y;
            assert!(
                (found - want).abs() < 1e-6 * want.abs().max(1.0),
                "{of} on {from} as {as_} on {to} at {t}: {found} is not {want}"
            );
        }
    }
}

/// At pure noise an epsilon model is asked at its last level, and what it says of x0 there stands.
#[test]
fn beyond_the_ends_the_last_level_stands() {
    let conversion = Conversion::of(Convert::Mapped(true), &native(json!({ "type": "scaled-linear" }), "epsilon"), 0);
    let conversion = conversion.unwrap().unwrap();
    let (schedule, objective) = (made::<dyn Schedule>("rectified-flow"), made::<dyn Objective>("flow"));
    let last = conversion.schedule.at(1.0);
    let read = Network { backbone: &Clock, conversion: Some(&conversion) }.read(1.0, &schedule.at(1.0), &*objective);
    let eps = 0.8;
    let y = read.skip * eps + read.output * network(read.input * eps, read.time);
    let x0 = own_x0(&*conversion.schedule, &*conversion.objective, 1.0, last.sigma * eps);
    assert!((y - (eps - x0)).abs() < 1e-9, "{y} is not {}", eps - x0);
    let first = Network { backbone: &Clock, conversion: Some(&conversion) }.read(0.0, &schedule.at(0.0), &*objective);
    assert!((first.time - 0.0).abs() < 1e-9 && first.skip.is_finite() && first.output.is_finite(), "{first:?}");
}

/// What fades begins as the mapping, and ends as the network alone, whatever was in between.
#[test]
fn a_mapping_fades_from_the_model_to_the_network() {
    let native = native(json!({ "type": "scaled-linear" }), "epsilon");
    let (schedule, objective) = (made::<dyn Schedule>("rectified-flow"), made::<dyn Objective>("flow"));
    let noise = schedule.at(0.6);
    let at = |convert: Convert, images: u64| {
        let conversion = Conversion::of(convert, &native, images).unwrap();
        Network { backbone: &Clock, conversion: conversion.as_ref() }.read(0.6, &noise, &*objective)
    };
    let fading = Convert::Fading(Fading { over_images: 100 });
    let plain = Network::plain(&Clock).read(0.6, &noise, &*objective);
    assert_eq!(at(fading, 0), at(Convert::Mapped(true), 0));
    assert_eq!(at(Convert::Mapped(true), 0), at(Convert::Mapped(true), 1_000));
    assert_eq!(at(fading, 100), plain);
    assert_eq!(at(Convert::Mapped(false), 0), plain);
    let (start, middle) = (at(fading, 0), at(fading, 50));
    // F = (y - skip x)/output, half of the old and half of the new, for any y and x.
    let f = |read: &Preconditioning, y: f64, x: f64| (y - read.skip * x) / read.output;
    for (y, x) in [(0.3, -1.2), (-2.0, 0.4)] {
        let want = 0.5 * (f(&start, y, x) + y);
        assert!((f(&middle, y, x) - want).abs() < 1e-12, "{middle:?}");
    }
    assert!((middle.input.ln() - 0.5 * start.input.ln()).abs() < 1e-12, "{middle:?}");
}

/// One sample of squared errors.
struct Once;
impl Weighting for Once {
    fn on_x0(&self, _: f64) -> f64 {
        1.0
    }
}

/// Its errors of x0 at these levels of its own schedule, read as `to`; and as what it is, where that is `None`.
fn errors(case: &Case, ts: &[f64], to: Option<(&str, &str)>) -> Result<Vec<f32>> {
    let family = family(case.path(), None).unwrap();
    let model = family.load(case.path(), &options(DType::F32))?;
    let native = model.native();
    let own = made::<dyn Schedule>(native.schedule.clone()).sized(8, 8);
    let conversion = to.map(|_| Conversion::of(Convert::Mapped(true), native, 0)).transpose()?.flatten();
    let conversion = conversion.map(|c| c.sized(8, 8));
    let network = Network { backbone: &**model.backbone(), conversion: conversion.as_ref() };
    let (schedule, objective) = match to {
        Some((schedule, objective)) => (made(schedule), made(objective)),
        None => (own.clone(), made(native.objective.clone())),
    };
    let timesteps = made::<dyn TimestepSampler>("uniform");
    let process = Process { schedule: &*schedule, objective: &*objective, weighting: &Once, timesteps: &*timesteps };
    let row = |&t: &f64| {
        let t = if to.is_some() { schedule.t_of(own.at(t).log_snr()) } else { t };
        let noise = schedule.at(t);
        let target = objective.target(&noise);
        let weight = Once.on_output(&noise, target);
        Row { quantile: t, t, noise, target, weight, importance: 1.0, log_loss: 0.0 }
    };
    let rows: Vec<Row> = ts.iter().map(row).collect();
    let shape = [rows.len(), model.autoencoder().channels(), 8, 8];
    let random = |purpose| Stream::new(1, purpose).normal(shape.as_slice(), &options(DType::F32).device);
    let cond = model.conditioner().encode(&vec![("a cat", PromptUse::Caption); rows.len()])?;
    let pictures = vec![sconce_core::model::Geometry::plain(64, 64); rows.len()];
    let cond =
        cond.merge(model.conditioner().geometry(&pictures)?).merge(model.conditioner().guidance(3.5, rows.len())?);
    let distance = made::<dyn Distance>("mse");
    let measure = Measure { distance: &*distance, mask: None };
    let losses = process.loss(&network, &random("x0")?, &Drawn::plain(random("eps")?), &cond, &measure, &rows)?;
    losses.weighted.to_device(&Device::Cpu)?.to_vec1()
}

#[test]
fn whole_models_start_with_the_errors_that_they_had() -> Result<()> {
    for (name, others) in [
        ("sd1-a", [("rectified-flow", "flow"), ("cosine", "v")]),
        ("sd2-b", [("rectified-flow", "flow"), ("scaled-linear", "epsilon")]),
        ("sdxl-a", [("rectified-flow", "flow"), ("edm", "edm")]),
        ("sd3-b", [("cosine", "v"), ("rectified-flow", "x0")]),
        ("flux-a", [("cosine", "v"), ("edm", "edm")]),
    ] {
        let components = json(case::data(name, "keys.json"));
        let components: Vec<&str> = components.as_object().unwrap().keys().map(String::as_str).collect();
        let case = Case::new(name, &components)?;
        let ts = [0.1, 0.3, 0.5, 0.7, 0.9];
        let before = errors(&case, &ts, None)?;
        for to in others {
            for ((want, found), t) in before.iter().zip(errors(&case, &ts, Some(to))?).zip(ts) {
                let off = (found / want - 1.0).abs();
                assert!(off < 2e-3, "{name} as {to:?} at {t}: {found}, was {want}");
            }
        }
    }
    Ok(())
}

/// A few pictures on the way from the quickstart's epsilon to the flow: the scheduler config that is saved, and the losses of
/// the first two updates.
fn run(convert: &str) -> (Value, Vec<f64>) {
    let bench = Bench::of(&format!(
        "[model]\npath = \"embedded:quickstart\"\n{convert}\n[optimizer]\ntype = \"adamw\"\nlr = 1e-4\n[data]\nbatch = \
         8\n[[data.source]]\npath = \"pictures\"\ncaption = \"{{caption}} on a white background\"\n[train]\nimages = 16\n\
         seed = 5\n[schedule]\ntype = \"rectified-flow\"\n[objective]\ntype = \"flow\"\n[sampling]\nspacing = \
         \"trailing\"\nsolver = \"euler\"\n"
    ));
    bench.train("run", &[]);
    let loss = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON")["loss"].as_f64();
    (json(bench.path("run/model/scheduler/scheduler_config.json")), bench.log("run").lines().filter_map(loss).collect())
}

#[test]
fn a_model_starts_as_it_was_and_is_saved_as_what_it_computes() {
    let (mapped, start) = run("convert = true");
    assert_eq!((&mapped["prediction_type"], &mapped["beta_schedule"]), (&json!("epsilon"), &json!("scaled_linear")));
    let (faded, same) = run("convert = { over_images = 16 }");
    assert_eq!(faded["_class_name"], "FlowMatchEulerDiscreteScheduler");
    let (switched, other) = run("convert = { over_images = 0 }");
    assert_eq!(faded, switched);
    // The first update's loss is the same pictures' at the same noise: what the network knew, or what it does not know yet.
    assert_eq!(start[0], same[0]);
    assert!(start[0] < 0.5 * other[0], "{} as it was, {} from another output", start[0], other[0]);
}
