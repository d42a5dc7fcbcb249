//! The laws of each kind, to be run on everything registered. A law is a function of a plugin and a place to look at it;
//! a property test picks the places, so that this crate needs no test framework.
//!
//! ```
//! use sconce_sdk::{prelude::*, testkit};
//!
//! #[derive(Serialize, Deserialize, JsonSchema)]
//! struct Straight {}
//! impl Schedule for Straight {
//!     fn at(&self, t: f64) -> Noise {
//!         Noise { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 }
//!     }
//! }
//! testkit::schedule(&Straight {}, 0.2, 0.7).unwrap();
//! ```

mod network;

use std::f64::consts::FRAC_PI_2;

use serde_json::{Value, json};

use crate::choice::Choice;
use crate::kinds::{Distance, EmaStrategy, LrSchedule, Objective, Schedule, Spacing, TimestepSampler, Weighting};
use crate::learned::{Learned, Observation, SamplerState};
use crate::noise::Noise;
use crate::registry::{self, Kind, ParamError, Plugin};

pub use network::{ask_network, network};

/// Nothing, or what does not hold and where.
pub type Law = Result<(), String>;

fn holds(law: bool, what: impl FnOnce() -> String) -> Law {
    if law { Ok(()) } else { Err(what()) }
}

fn near(a: f64, b: f64, tolerance: f64) -> bool {
    (a - b).abs() <= tolerance * (1.0 + a.abs().max(b.abs()))
}

/// Every registered plugin of a kind with its defaults; one that has none, with each of the examples in its schema. One
/// that needs another plugin in `of` comes once around each of these.
pub fn instances<K: Kind + ?Sized>() -> Result<Vec<Choice<K>>, ParamError> {
    let (mut made, mut wrappers) = (Vec::new(), Vec::new());
    for plugin in registry::of_kind(K::NAME)? {
        match single(plugin)? {
            Some(instances) => made.extend(instances),
            None => wrappers.push(plugin),
        }
    }
    let around: Vec<Choice<K>> =
        wrappers.iter().map(|plugin| wrapped(plugin, &made)).collect::<Result<Vec<_>, _>>()?.concat();
    made.extend(around);
    Ok(made)
}

/// The same of one plugin.
pub fn instances_of<K: Kind + ?Sized>(plugin: &Plugin) -> Result<Vec<Choice<K>>, ParamError> {
    if let Some(instances) = single(plugin)? {
        return Ok(instances);
    }
    let others = registry::of_kind(K::NAME)?;
    let inner = others.into_iter().filter_map(|p| single(p).ok().flatten()).flatten().collect::<Vec<_>>();
    wrapped(plugin, &inner)
}

/// A plugin by itself; `None` for one that needs another one in `of`.
fn single<K: Kind + ?Sized>(plugin: &Plugin) -> Result<Option<Vec<Choice<K>>>, ParamError> {
    match (Choice::named(plugin.name), examples(plugin)) {
        (Ok(choice), _) => Ok(Some(vec![choice])),
        (Err(e), _) if e.message.contains("missing field `of`") => Ok(None),
        (Err(e), tables) if tables.is_empty() => Err(e.within(plugin.name)),
        (Err(_), tables) => {
            let made = |table| Choice::from_table(table).map_err(|e| e.within(plugin.name));
            tables.iter().map(made).collect::<Result<_, _>>().map(Some)
        }
    }
}

fn wrapped<K: Kind + ?Sized>(plugin: &Plugin, inner: &[Choice<K>]) -> Result<Vec<Choice<K>>, ParamError> {
    inner.iter().map(|inner| Choice::from_table(&json!({ "type": plugin.name, "of": inner.table() }))).collect()
}

/// The tables that a plugin's schema gives as examples.
fn examples(plugin: &Plugin) -> Vec<Value> {
    let schema = (plugin.schema)().to_value();
    let examples = schema.get("examples").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |mut table: Value| {
        table["type"] = plugin.name.into();
        table
    };
    examples.into_iter().map(named).collect()
}

/// The laws of a schedule, looked at from two times in [0, 1], the second at least 1e-6 later: amounts are finite and not
/// negative, log-SNR falls strictly, `t_of` inverts it, and the derivatives agree with differences.
pub fn schedule(schedule: &dyn Schedule, t: f64, later: f64) -> Law {
    let (noise, noisier) = (schedule.at(t), schedule.at(later));
    let (here, there) = (noise.log_snr(), noisier.log_snr());
    let amounts = [noise.alpha, noise.sigma].iter().all(|x| x.is_finite() && *x >= 0.0);
    holds(amounts && noise.alpha + noise.sigma > 0.0, || format!("amounts at t = {t}: {noise:?}"))?;
    holds(here > there, || format!("log-SNR does not fall from t = {t} ({here}) to {later} ({there})"))?;
    let back = schedule.t_of(here);
    holds(near(back, t, 1e-6), || format!("t_of(log-SNR at {t}) = {back}"))?;
    differences(schedule, t)
}

/// The derivatives at t, and at the nearest point of a discrete schedule.
fn differences(schedule: &dyn Schedule, t: f64) -> Law {
    const H: f64 = 1e-8;
    // Nearer to an end the step would be so small that its difference is one of roundings.
    const EDGE: f64 = 1e-5;
    // Some schedules are as steep as a root where there is no signal or no noise.
    let step = |t: f64| H.min(1e-3 * t.min(1.0 - t));
    let places = match schedule.grid().map(|n| n as f64) {
        // Only in a cell's inside, or on a point exactly, is the interpolant as smooth as a difference needs it.
        Some(n) => {
            let cell = (t * n).floor().min(n - 1.0);
            let inside = (t * n - cell).clamp(0.1, 0.9);
            vec![(cell + inside) / n, (cell / n).max(1.0 / n)]
        }
        None => vec![t],
    };
    for t in places.into_iter().filter(|t| (EDGE..=1.0 - EDGE).contains(t)) {
        let [from, to] = [t - step(t), t + step(t)];
        let (before, here, after) = (schedule.at(from), schedule.at(t), schedule.at(to));
        let slope = |f: fn(&Noise) -> f64| (f(&after) - f(&before)) / (to - from);
        let (alpha, sigma) = (slope(|n| n.alpha), slope(|n| n.sigma));
        let right = near(alpha, here.d_alpha, 1e-4) && near(sigma, here.d_sigma, 1e-4);
        holds(right, || format!("at t = {t} the differences are {alpha} and {sigma}, the derivatives {here:?}"))?;
    }
    Ok(())
}

/// The law of an objective: x0 and eps come back from (x_t, y) wherever the determinant is not 0.
pub fn objective(objective: &dyn Objective, noise: &Noise, x0: f64, eps: f64) -> Law {
    let [a, b] = objective.target(noise);
    let d = noise.determinant([a, b]);
    if d == 0.0 {
        return Ok(());
    }
    let (x_t, y) = (noise.alpha * x0 + noise.sigma * eps, a * x0 + b * eps);
    for ([p, q], want, name) in [(noise.x0_from([a, b]), x0, "x0"), (noise.eps_from([a, b]), eps, "eps")] {
        let got = p * x_t + q * y;
        // The terms may be large and cancel.
        let size = 1.0 + (p * x_t).abs() + (q * y).abs() + (p * y).abs();
        holds((got - want).abs() <= 1e-9 * size, || format!("{name} = {want} comes back as {got} at {noise:?}"))?;
    }
    Ok(())
}

/// The first law of a weighting: finite and not negative at a level that is trained on.
pub fn weighting(weighting: &dyn Weighting, noise: &Noise, target: [f64; 2]) -> Law {
    if noise.determinant(target) == 0.0 {
        return Ok(());
    }
    let weight = weighting.on_output(noise, target);
    holds(weight.is_finite() && weight >= 0.0, || format!("the weight is {weight} for {target:?} at {noise:?}"))
}

/// The second law of a weighting: what it puts on the error of the data does not depend on the objective. `native` alone
/// is meant to break it.
pub fn weighting_of_data(weighting: &dyn Weighting, noise: &Noise, targets: &[[f64; 2]]) -> Law {
    let determined = targets.iter().filter(|&&t| noise.determinant(t) != 0.0 && noise.sigma > 0.0);
    let on_data = |&t: &[f64; 2]| weighting.on_output(noise, t) * (noise.determinant(t) / noise.sigma).powi(2);
    let weights: Vec<f64> = determined.map(on_data).collect();
    let alike = weights.windows(2).all(|w| near(w[0], w[1], 1e-9));
    holds(alike, || format!("the weights on the data are {weights:?} for {targets:?} at {noise:?}"))
}

/// The laws of a timestep sampler at two quantiles in [0, 1), the second not smaller: it rises, stays in [0, 1], and the
/// distribution function gives the quantiles back.
pub fn timesteps(sampler: &dyn TimestepSampler, schedule: &dyn Schedule, u: f64, later: f64) -> Law {
    let (here, there) = (sampler.quantile(u, schedule), sampler.quantile(later, schedule));
    let right = here <= there && here >= 0.0 && there <= 1.0;
    holds(right, || format!("the quantiles {u} and {later} are {here} and {there}"))?;
    // A share of the draws may be at one time: every u up to the distribution function gives it.
    let share = sampler.cumulative(here, schedule);
    let again = sampler.quantile(0.5 * (u + share), schedule);
    let right = share >= u - 1e-9 && near(again, here, 1e-6);
    holds(right, || format!("t = {here} is the quantile {u}, and there the distribution function is {share}"))
}

/// The law of a sampler's density: on each twentieth of [0, 1] its integral is the share of the draws.
pub fn density(sampler: &dyn TimestepSampler, schedule: &dyn Schedule) -> Law {
    const PARTS: usize = 20;
    const POINTS: usize = 2000;
    let mut below = 0.0;
    for part in 0..PARTS {
        let (from, to) = (part as f64 / PARTS as f64, (part + 1) as f64 / PARTS as f64);
        // t = from + (to - from) sin²(s): even steps of s tame a density that is infinite at an end.
        let ds = FRAC_PI_2 / POINTS as f64;
        let term = |i: usize| {
            let (sin, cos) = ((i as f64 + 0.5) * ds).sin_cos();
            sampler.density(from + (to - from) * sin * sin, schedule) * 2.0 * sin * cos * ds
        };
        let integral = (to - from) * (0..POINTS).map(term).sum::<f64>();
        let share = sampler.cumulative(to, schedule);
        let right = (integral - (share - below)).abs() < 1e-4 + 1e-2 * integral;
        holds(right, || format!("from t = {from} to {to} the density is {integral}, the share {}", share - below))?;
        below = share;
    }
    holds(near(below, 1.0, 1e-9), || format!("only {below} of the draws are in [0, 1]"))
}

/// The laws of what a sampler learned, at a quantile in [0, 1): the map rises within [0, 1], its weight is its derivative,
/// and the mean weight over all draws is 1.
pub fn sampler_state(state: &dyn SamplerState, u: f64) -> Law {
    const H: f64 = 1e-7;
    const DRAWS: usize = 10_000;
    let u = u.clamp(2.0 * H, 1.0 - 2.0 * H);
    let [[before, low], [here, weight], [after, high]] = [u - H, u, u + H].map(|u| state.map(u));
    let rises = before < here && here < after && before >= 0.0 && after <= 1.0;
    holds(rises && weight > 0.0, || {
        format!("at u = {u} the map goes {before}, {here}, {after}, its weight is {weight}")
    })?;
    // A map may have kinks; the difference across one lies between the slopes on its sides.
    let slope = (after - before) / (2.0 * H);
    let right = near(slope, slope.clamp(low.min(high), low.max(high)), 1e-6);
    holds(right, || format!("at u = {u} the weight is {weight}, the map's slope {slope}"))?;
    let draws = (0..DRAWS).map(|i| state.map((i as f64 + 0.5) / DRAWS as f64));
    let (mean, middle) = draws.fold((0.0, 0.0), |(mean, middle), [v, weight]| (mean + weight, middle + weight * v));
    let (mean, middle) = (mean / DRAWS as f64, middle / DRAWS as f64);
    let unbiased = near(mean, 1.0, 1e-2) && near(middle, 0.5, 1e-2);
    holds(unbiased, || format!("the mean weight is {mean}, the weighted mean quantile {middle}"))
}

/// The law of everything learned: a state that is saved and restored into a fresh one goes on to the bit.
pub fn learned<S: Learned + ?Sized>(state: &mut S, fresh: &mut S, seen: &[Observation]) -> Law {
    fresh.restore(&state.save())?;
    let bits = |s: &S| s.save().into_iter().map(f64::to_bits).collect::<Vec<_>>();
    state.observe(seen);
    fresh.observe(seen);
    holds(bits(state) == bits(fresh), || "a restored state goes on otherwise".to_owned())?;
    let mut short = state.save();
    short.pop();
    holds(short.len() + 1 < 2 || fresh.restore(&short).is_err(), || "a state that is cut short is taken".to_owned())
}

/// The laws of a distance at two differences of any sign: 0 at 0, even, growing with |d|, its slope its derivative, many at
/// once as one by one, and a width that is finite and above 0.
pub fn distance(distance: &dyn Distance, d: f64, further: f64, t: f64, noise: &Noise) -> Law {
    const H: f64 = 1e-5;
    let width = distance.width(t, noise);
    holds(width.is_finite() && width > 0.0, || format!("the width at t = {t}, {noise:?}, is {width}"))?;
    let rho = |d: f64| distance.at(d, width)[0];
    let (small, large) = (d.abs().min(further.abs()), d.abs().max(further.abs()));
    holds(rho(0.0) == 0.0 && distance.at(0.0, width)[1] == 0.0, || format!("rho(0) is {}", rho(0.0)))?;
    holds(near(rho(d), rho(-d), 1e-12), || format!("rho({d}) is {}, rho({}) is {}", rho(d), -d, rho(-d)))?;
    holds(rho(small) <= rho(large), || format!("rho falls from {small} to {large}"))?;
    let mut each = [[f64::NAN; 2]; 2];
    distance.at_each(&[d, further], width, &mut each);
    let same = each == [distance.at(d, width), distance.at(further, width)];
    holds(same, || format!("{d} and {further} at once are {each:?}, which they are not one by one"))?;
    let (slope, difference) = (distance.at(d, width)[1], (rho(d + H) - rho(d - H)) / (2.0 * H));
    // The third derivative grows as the width shrinks.
    let right = near(slope, difference, 1e-6 + (H / width).powi(2));
    holds(right, || format!("at {d} with width {width} the slope is {slope}, the difference {difference}"))
}

/// The laws of an average, after a step of `batch` images that ends at `images_seen`: every decay is in [0, 1], that of a
/// track with a profile is the profile's, and snapshots are of tracks among which there is a profile.
pub fn ema(ema: &dyn EmaStrategy, images_seen: u64, batch: u64) -> Law {
    let tracks = ema.tracks();
    for (i, track) in tracks.iter().enumerate() {
        let decay = ema.decay(i, images_seen, batch);
        let of_profile = track.profile.is_none_or(|p| near(p.decay(images_seen, batch), decay, 1e-12));
        holds((0.0..=1.0).contains(&decay) && of_profile, || {
            format!("the decay of {track:?} is {decay} after {images_seen} images, {batch} a step")
        })?;
    }
    let Some(snapshots) = ema.snapshots(images_seen) else { return Ok(()) };
    let right = snapshots.every_images > 0 && tracks.iter().any(|t| t.profile.is_some());
    holds(right, || format!("in a run of {images_seen} images there is {snapshots:?} of {tracks:?}"))
}

/// The law of a learning-rate schedule: finite and not negative.
pub fn lr(lr: &dyn LrSchedule, images_seen: u64, images_total: u64) -> Law {
    let factor = lr.factor(images_seen, images_total);
    holds(factor.is_finite() && factor >= 0.0, || format!("the factor is {factor} at {images_seen} of {images_total}"))
}

/// The laws of a spacing: n + 1 levels with times in [0, 1], and sigma/alpha falls strictly.
pub fn spacing(spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Law {
    for levels in [spacing.levels(schedule, steps), spacing.levels_counting_last(schedule, steps)] {
        holds(levels.len() == steps + 1, || format!("{} levels for {steps} steps", levels.len()))?;
        for (k, pair) in levels.windows(2).enumerate() {
            let (from, to) = (&pair[0], &pair[1]);
            // Multiplied out, since alpha may be 0.
            let falls = to.noise.sigma * from.noise.alpha < from.noise.sigma * to.noise.alpha;
            let inside = [from.t, to.t].iter().all(|t| (0.0..=1.0).contains(t));
            holds(falls && inside && from.t >= to.t, || format!("step {k} of {steps} goes from {from:?} to {to:?}"))?;
        }
    }
    Ok(())
}
