//! What questions to plugins cost: run by a program that links the plugins, and by one that loads them.

use std::hint::black_box;
use std::time::Instant;

use sconce_sdk::{
    Buffer, Choice, Distance, EmaStrategy, Gradients, LrSchedule, Network, Noise, Objective, Observation, Schedule,
    Spacing, TimestepSampler, Weighting,
};

/// Pairs of a question and its nanoseconds, the least of several rounds.
pub fn timings() -> Vec<(&'static str, f64)> {
    let flow = Choice::<dyn Schedule>::named("rectified-flow").expect("it is there");
    let table = Choice::<dyn Schedule>::named("scaled-linear").expect("it is there");
    let objective = Choice::<dyn Objective>::named("v").expect("it is there");
    let weighting = Choice::<dyn Weighting>::named("min-snr").expect("it is there");
    let uniform = Choice::<dyn TimestepSampler>::named("logit-normal").expect("it is there");
    let sigma = Choice::<dyn TimestepSampler>::named("log-normal-sigma").expect("it is there");
    let aware = Choice::<dyn TimestepSampler>::named("loss-aware").expect("it is there");
    let huber = Choice::<dyn Distance>::named("huber").expect("it is there");
    let lr = Choice::<dyn LrSchedule>::named("cosine").expect("it is there");
    let ema = Choice::<dyn EmaStrategy>::named("power").expect("it is there");
    let karras = Choice::<dyn Spacing>::named("karras").expect("it is there");

    let noise = flow.at(0.3);
    let target = objective.target(&noise);
    let mut state = aware.start().expect("it learns");
    let (quantile, log_snr) = (0.3, noise.log_snr());
    let (weight, error, loss, log_loss, importance) = (1.0, 0.5, 0.5, 0.0, 1.0);
    let seen = [Observation { quantile, log_snr, weight, error, loss, log_loss, importance }; 4];
    let differences: Vec<f64> = (0..65_536).map(|i| f64::from(i) * 1e-4 - 3.0).collect();
    let mut each = vec![[0.0; 2]; differences.len()];

    let network = Choice::<dyn Network>::named("odd-scales").expect("it is there");
    let latents = vec![0.5; 2 * 3 * 64 * 64];
    let (mut y, mut dx, mut dw) = (latents.clone(), latents.clone(), [0.0; 3]);
    let mut pass = || {
        let inputs = [
            Buffer { name: "x", shape: &[2, 3, 64, 64], data: &latents },
            Buffer { name: "time", shape: &[2], data: &[0.1, 0.9] },
            Buffer { name: "context", shape: &[2, 1, 4], data: &[0.5; 8] },
        ];
        let mut tape = network.record(black_box(&inputs), &mut y).expect("it answers");
        let inputs = vec![Some(dx.as_mut_slice()), None, None];
        tape.backward(&latents, &mut Gradients { inputs, parameters: vec![Some(&mut dw)] }).expect("it answers");
    };

    vec![
        ("backbone odd-scales, forward and backward of 24576", time(&mut pass)),
        ("schedule rectified-flow, at", time(|| flow.at(black_box(0.3)).alpha)),
        ("schedule scaled-linear, at", time(|| table.at(black_box(0.3)).alpha)),
        ("objective v, target", time(|| objective.target(black_box(&noise))[0])),
        ("weighting min-snr, on_output", time(|| weighting.on_output(black_box(&noise), target))),
        ("timesteps logit-normal, quantile", time(|| uniform.quantile(black_box(0.3), &*flow))),
        ("timesteps log-normal-sigma, quantile: asks the schedule", time(|| sigma.quantile(black_box(0.3), &*flow))),
        ("timesteps loss-aware, map of its state", time(|| state.map(black_box(0.3))[0])),
        ("timesteps loss-aware, observe 4", time(|| state.observe(black_box(&seen)))),
        ("distance huber, at", time(|| huber.at(black_box(0.3), 0.1)[0])),
        ("distance huber, at_each of 65536, an element", {
            time(|| huber.at_each(black_box(&differences), 0.1, &mut each)) / differences.len() as f64
        }),
        ("lr cosine, factor", time(|| lr.factor(black_box(300), 1000))),
        ("ema power, decay", time(|| ema.decay(0, black_box(300), 4))),
        ("spacing karras, levels of 30 steps", time(|| karras.levels(&*flow, black_box(30)).len())),
        ("a step's questions, batch 4", time(|| step(&*flow, &*objective, &*weighting, &*uniform, &*lr, &*ema))),
    ]
}

/// What a step of four pictures asks.
fn step(
    schedule: &dyn Schedule,
    objective: &dyn Objective,
    weighting: &dyn Weighting,
    timesteps: &dyn TimestepSampler,
    lr: &dyn LrSchedule,
    ema: &dyn EmaStrategy,
) -> f64 {
    let picture = |i: u32| {
        let noise: Noise = schedule.at(timesteps.quantile(black_box(f64::from(i) / 4.0 + 0.1), schedule));
        let target = objective.target(&noise);
        weighting.on_output(&noise, target) * objective.input_scale(&noise)
    };
    (0..4).map(picture).sum::<f64>() + lr.factor(black_box(300), 1000) + ema.decay(0, black_box(300), 4)
}

fn time<R>(mut question: impl FnMut() -> R) -> f64 {
    const ROUND: f64 = 2e-3;
    let mut calls = 1u32;
    let mut round = |calls: u32| {
        let start = Instant::now();
        for _ in 0..calls {
            black_box(question());
        }
        start.elapsed().as_secs_f64()
    };
    while round(calls) < ROUND {
        calls *= 2;
    }
    (0..15).map(|_| round(calls)).fold(f64::INFINITY, f64::min) / f64::from(calls) * 1e9
}
