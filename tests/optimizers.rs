//! Optimizers against their reference packages, update by update on the same gradients (tests/fixtures/optimizers.py), and
//! the laws of everything registered: a resumed run is the same run, updates of single parameters in any order are those
//! of all at once, and what `check` estimates is what is kept.

#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_core::optimizer::{At, Optimizer, Trained};
use sconce_core::testkit;
use sconce_nn::weights::WeightFiles;
use sconce_plugins as _;
use sconce_sdk::Choice;
use serde::Deserialize;

const CPU: &Device = &Device::Cpu;
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/data/optimizers");
/// As in optimizers.py.
const UPDATES: usize = 8;
const LOOKED_AT: [usize; 3] = [0, 3, 7];

#[derive(Deserialize)]
struct Case {
    name: String,
    optimizer: serde_json::Value,
    shapes: BTreeMap<String, Vec<usize>>,
    gap: bool,
    constant: bool,
}

fn weight(name: &str, shape: &[usize]) -> Result<Var> {
    let values = formula::probe("weights", name, shape).into_iter().map(|w| 0.5 * w).collect();
    Var::from_vec(values, shape, CPU)
}

fn gradient(name: &str, shape: &[usize], update: usize) -> Result<Tensor> {
    let scale = 10f64.powi(update as i32 % 3 - 2) * (1 + name.len()) as f64;
    let mut values = formula::probe("gradients", name, shape);
    let changing = formula::probe("gradients", &format!("{name}/{update}"), shape);
    for (i, (g, part)) in values.iter_mut().zip(changing).enumerate() {
        *g = if i % 11 == 3 { 0.0 } else { (*g + 0.5 * part) * scale as f32 };
    }
    Tensor::from_vec(values, shape, CPU)
}

fn rate(update: usize) -> f64 {
    [0.25, 1.0, 0.75, 0.5][update % 4]
}

/// The largest difference, against the root mean square of what is expected.
fn error(got: &[f32], expected: &[f32]) -> f64 {
    let square = expected.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>() / expected.len() as f64;
    let worst = got.iter().zip(expected).map(|(g, e)| (f64::from(*g) - f64::from(*e)).abs()).fold(0.0, f64::max);
    worst / square.sqrt()
}

/// How far a case may be from its reference: the formulas are the same, but where PyTorch runs Muon's iteration in bf16.
fn tolerance(case: &str) -> f64 {
    match case {
        "muon-bf16" => 1e-2,
        _ => 1e-6,
    }
}

#[test]
fn every_update_is_that_of_the_reference() -> Result<()> {
    let cases: Vec<Case> = serde_json::from_str(&std::fs::read_to_string(format!("{DATA}/cases.json"))?).unwrap();
    let expected = WeightFiles::open(&[format!("{DATA}/expected.safetensors")])?;
    let expected = |key: &str| expected.tensor(key, DType::F32, CPU);
    let mut failed = Vec::new();
    for case in cases {
        let optimizer = Choice::<dyn Optimizer>::from_table(&case.optimizer).unwrap();
        let vars: Vec<(&String, Var)> =
            case.shapes.iter().map(|(k, s)| Ok((k, weight(k, s)?))).collect::<Result<_>>()?;
        let trained = vars.iter().map(|(k, v)| Trained::new(format!("unet/{k}"), v.clone())).collect();
        let mut state = optimizer.start(trained)?;
        let mut worst = 0f64;
        for update in 0..UPDATES {
            let grad = |(k, v): &(&String, Var)| match case.gap && *k == "vector" && update == 3 {
                true => Ok(None),
                false => gradient(k, v.dims(), update).map(Some),
            };
            let grads: Vec<Option<Tensor>> = vars.iter().map(grad).collect::<Result<_>>()?;
            let factor = if case.constant { 1.0 } else { rate(update) };
            state.step(&grads, &At { lr: optimizer.lr() * factor, seed: 0, images_seen: update as u64 })?;
            for (k, v) in &vars {
                let large = v.elem_count() > 1000;
                let row = if large { LOOKED_AT.iter().position(|&u| u == update) } else { Some(update) };
                let Some(row) = row else { continue };
                let got = v.flatten_all()?.to_vec1::<f32>()?.into_iter().step_by(if large { 7 } else { 1 });
                let rows = expected(&format!("{}/{k}", case.name))?;
                let off = error(&got.collect::<Vec<_>>(), &rows.get(row)?.to_vec1::<f32>()?);
                if off > tolerance(&case.name) {
                    failed.push(format!("{}: {k} is {off:.1e} off after update {update}", case.name));
                }
                worst = worst.max(off);
            }
        }
        if let Some(averaged) = state.averaged()? {
            for ((k, _), average) in vars.iter().zip(averaged) {
                let want = expected(&format!("{}/averaged/{k}", case.name))?.to_vec1::<f32>()?;
                let off = error(&average.flatten_all()?.to_vec1::<f32>()?, &want);
                if off > tolerance(&case.name) {
                    failed.push(format!("{}: the average of {k} is {off:.1e} off", case.name));
                }
                worst = worst.max(off);
            }
        }
        println!("{:22} {worst:.1e}", case.name);
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// A resumed run is the same run, parameters may come in any order, the state is what `check` counts with, and it goes downhill.
#[test]
fn optimizers_obey_their_laws() {
    for optimizer in testkit::instances::<dyn Optimizer>().unwrap() {
        testkit::optimizer(&*optimizer).unwrap_or_else(|broken| panic!("{optimizer:?}: {broken}"));
    }
}

/// Updates of a hundredth of bf16's last place are lost by rounding to the nearest, and not by stochastic rounding.
#[test]
fn small_updates_of_bf16_weights_count() -> Result<()> {
    let (count, updates, lr) = (4096, 100, 3e-5);
    let optimizer = Choice::<dyn Optimizer>::from_table(&serde_json::json!({ "type": "lion" })).unwrap();
    let var = Var::from_tensor(&Tensor::ones(count, DType::BF16, CPU)?)?;
    let mut state = optimizer.start(vec![Trained::new("unet/w", var.clone())])?;
    for update in 0..updates {
        let grad = Tensor::ones(count, DType::BF16, CPU)?;
        state.step(&[Some(grad)], &At { lr, seed: 1, images_seen: update })?;
    }
    let mean = var.as_tensor().to_dtype(DType::F32)?.mean_all()?.to_scalar::<f32>()?;
    let want = 1.0 - lr * updates as f64;
    assert!((f64::from(mean) - want).abs() < 2e-4, "{mean}, wanted {want}");
    Ok(())
}
