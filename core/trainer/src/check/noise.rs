//! What the schedule, the objective, the weighting and the spacing mean together.

use sconce_sdk::{Choice, Kind, Noise, Objective, Schedule, registry};
use serde_json::json;

use super::{Report, figure, in_one_line};
use crate::recipe::Resolved;
use crate::step::Process;

/// Quantiles that stand for the timestep distribution.
const DRAWS: usize = 10_000;
/// Where the noisy end begins: 900 of 1000.
const NOISY: f64 = 0.9;
/// The noisy end is starved with less than this of the loss's weight (uniform draws of equal weight: 0.1).
const STARVED: f64 = 0.02;
/// Training is by luck with more of the loss's weight on one draw in ten thousand than this.
const LUCK: f64 = 0.05;
/// Recovery of x0 with coefficients above this divides by nothing.
const BLOWS_UP: f64 = 1e6;

/// Of plugins that learn as the run goes.
const LEARNS_DRAWS: &str = "\nwhere it draws more is learned as the run goes; the loss stays that of these draws";
const LEARNS_WEIGHT: &str = "\nso it starts; the weight is learned as the run goes";

/// The network's input is too large with a deviation above this, where the data's is 1.
const LARGE: f64 = 3.0;

pub(super) fn explain(resolved: &Resolved, report: &mut Report) {
    let recipe = &resolved.recipe;
    let schedule = resolved.schedule(resolved.side_px());
    let process = recipe.process(&*schedule);
    if !sound(resolved, &process, report) {
        return;
    }
    ends(resolved, &schedule, report);
    let singular = determinant(resolved, &process, report);
    if !singular {
        weights(resolved, &process, report);
    }
    super::step::explain(resolved, report);
    inputs(resolved, &process, report);
    super::sampling::explain(resolved, singular, report);
    if !resolved.from_nothing() {
        super::conversion::explain(resolved, report);
    }
}

/// True if the checkpoint was trained to where no signal is left, so that a run need not teach it that.
fn knows_noise(resolved: &Resolved) -> bool {
    let own = Choice::<dyn Schedule>::from_table(&resolved.native.schedule);
    resolved.from_nothing() || own.is_ok_and(|own| own.at(1.0).alpha == 0.0)
}

/// Refuses parameters by which log-SNR does not fall, or times are drawn that are none.
fn sound(resolved: &Resolved, process: &Process, report: &mut Report) -> bool {
    let recipe = &resolved.recipe;
    let points = process.schedule.grid().unwrap_or(200);
    let level = |i: usize| process.schedule.at(i as f64 / points as f64).log_snr();
    // NaN does not fall either.
    if let Some(i) = (0..points).find(|&i| !(level(i) > level(i + 1))) {
        report.refuse(
            "not-a-schedule",
            format!(
                "the schedule `{}` must add noise all the way, but its log-SNR goes from {:.3} at t = {} to {:.3} at t = {}",
                recipe.schedule.name(),
                level(i),
                figure(i as f64 / points as f64),
                level(i + 1),
                figure((i + 1) as f64 / points as f64),
            ),
            "look at the order of the numbers in [schedule]: they go from data to noise",
        );
        return false;
    }
    let time = |i: u32| process.timesteps.quantile(f64::from(i) / 1000.0, process.schedule);
    let drawn = |i: &u32| {
        let known = !process.timesteps.cumulative(time(*i), process.schedule).is_nan();
        known && (0.0..=1.0).contains(&time(*i)) && (*i == 0 || time(*i) >= time(i - 1))
    };
    if let Some(i) = (0..1000).find(|i| !drawn(i)) {
        report.refuse(
            "not-timesteps",
            format!(
                "the timesteps `{}` draw t = {} at quantile {}",
                recipe.timesteps.name(),
                time(i),
                f64::from(i) / 1000.0
            ),
            "look at the numbers in [timesteps]: the range must have times that can be drawn, its start below its end",
        );
        return false;
    }
    true
}

/// alpha/sqrt(alpha² + sigma²): the share that does not depend on whether the variance is preserved.
pub(super) fn signal(noise: &Noise) -> f64 {
    noise.alpha / noise.alpha.hypot(noise.sigma)
}

fn ends(resolved: &Resolved, schedule: &Choice<dyn Schedule>, report: &mut Report) {
    let first = schedule.grid().map_or(0.0, |n| 1.0 / n as f64);
    let (low, high) = (schedule.at(first), schedule.at(1.0));
    report.fact(
        "schedule",
        format!(
            "{}\nSNR {} at t = {first}, {} at t = 1; share of signal left at t = 1: {}{}",
            in_one_line(&schedule.table()),
            figure(low.snr()),
            figure(high.snr()),
            figure(signal(&high)),
            by_size(resolved),
        ),
        json!({ "table": schedule, "first_t": first, "snr_first": finite(low.snr()), "snr_last": high.snr(), "alpha_last": high.alpha }),
    );
    let objective = &resolved.recipe.objective;
    let (start, end) = (pair(objective.target(&low)), pair(objective.target(&high)));
    let target = if start == end { start } else { format!("{start} at t = {first}, {end} at t = 1") };
    report.fact(
        "objective",
        format!("{}: y = {target}", in_one_line(&objective.table())),
        json!({ "table": objective, "first": objective.target(&low), "last": objective.target(&high) }),
    );
}

/// What another size does, where it does anything.
fn by_size(resolved: &Resolved) -> String {
    if resolved.recipe.schedule.at_size(1, 1).is_none() {
        return String::new();
    }
    let here = resolved.side_px();
    let at = |px: u32| format!("{} at {px} px", figure(resolved.schedule(px).at(0.5).snr()));
    format!("\nby the picture's size: SNR at t = 0.5 is {}, {} (told here), {}", at(here / 2), at(here), at(here * 2))
}

/// Refuses where the network is given numbers of another size than it can take, which no saved scheduler could tell either.
fn inputs(resolved: &Resolved, process: &Process, report: &mut Report) {
    let recipe = &resolved.recipe;
    let largest = |objective: &dyn Objective| {
        let rows = (0..200).map(|i| process.row((f64::from(i) + 0.5) / 200.0));
        let inputs = rows.map(|r| (objective.input_scale(&r.noise) * r.noise.alpha.hypot(r.noise.sigma), r.t));
        inputs.max_by(|a, b| a.0.total_cmp(&b.0)).expect("200 rows")
    };
    let (deviation, t) = largest(process.objective);
    if deviation <= LARGE {
        return;
    }
    let all = registry::of_kind(<dyn Objective>::NAME).unwrap_or_default();
    let scales = |name: &str| Choice::<dyn Objective>::named(name).is_ok_and(|o| largest(&*o).0 <= LARGE);
    let scaling: Vec<&str> = all.iter().map(|p| p.name).filter(|name| scales(name)).collect();
    report.refuse(
        "large-input",
        format!(
            "the network is given inputs of deviation {} at t = {} (for data of deviation 1): the schedule `{}` does not keep \
             the variance, and the objective `{}` does not scale the input",
            figure(deviation),
            figure(t),
            recipe.schedule.name(),
            recipe.objective.name(),
        ),
        format!("objectives that scale it: {}; or take a schedule that keeps the variance", scaling.join(", ")),
    );
}

/// a x0 + b eps as one writes it.
fn pair([a, b]: [f64; 2]) -> String {
    let term = |factor: f64, name: &str| match figure(factor.abs()).as_str() {
        "0" => None,
        "1" => Some((factor < 0.0, name.to_owned())),
        size => Some((factor < 0.0, format!("{size} {name}"))),
    };
    let terms = [term(a, "x0"), term(b, "eps")];
    let written =
        terms.into_iter().flatten().fold(String::new(), |sum, (negative, term)| match (sum.is_empty(), negative) {
            (true, false) => term,
            (true, true) => format!("-{term}"),
            (false, false) => format!("{sum} + {term}"),
            (false, true) => format!("{sum} - {term}"),
        });
    if written.is_empty() { "0".into() } else { written }
}

/// Refuses where x0 cannot be had from (x_t, y) at a time that is trained on.
fn determinant(resolved: &Resolved, process: &Process, report: &mut Report) -> bool {
    let recipe = &resolved.recipe;
    let edge = f64::from(2.0f32.powi(-24));
    let quantiles = [edge, 1.0 - edge].into_iter().chain((0..1000).map(|i| (f64::from(i) + 0.5) / 1000.0));
    let Some(row) = quantiles.map(|u| process.row(u)).find(|row| blows_up(&row.noise, row.target)) else {
        return false;
    };
    let [a, b] = row.target;
    report.refuse(
        "singular-objective",
        format!(
            "the objective `{}` cannot be learned on this schedule: at t = {} there is alpha = {} of the picture and sigma = {} of \
             noise, and the network would output {} x0 + {} eps there, from which the picture does not follow \
             (D = alpha b - sigma a = {})",
            recipe.objective.name(),
            figure(row.t),
            figure(row.noise.alpha),
            figure(row.noise.sigma),
            figure(a),
            figure(b),
            figure(row.noise.determinant(row.target)),
        ),
        format!("objectives that this schedule can have: {}; or take a schedule that keeps some signal", fitting(&row.noise).join(", ")),
    );
    true
}

pub(super) fn blows_up(noise: &Noise, target: [f64; 2]) -> bool {
    !noise.x0_from(target).iter().all(|c| c.abs() < BLOWS_UP)
}

pub(super) fn fitting(noise: &Noise) -> Vec<&'static str> {
    let all = registry::of_kind(<dyn Objective>::NAME).unwrap_or_default();
    let fits = |name: &str| Choice::<dyn Objective>::named(name).is_ok_and(|o| !blows_up(noise, o.target(noise)));
    all.iter().map(|p| p.name).filter(|name| fits(name)).collect()
}

/// Where the draws and the loss's weight are, by tenths of t.
fn weights(resolved: &Resolved, process: &Process, report: &mut Report) {
    let (mut draws, mut weight) = ([0.0; 10], [0.0; 10]);
    let (mut noisy_draws, mut noisy_weight, mut sum, mut bad, mut heaviest) = (0.0, 0.0, 0.0, None, (0.0, 0.0));
    for i in 0..DRAWS {
        let row = process.row((i as f64 + 0.5) / DRAWS as f64);
        if !(row.weight.is_finite() && row.weight >= 0.0) {
            bad.get_or_insert(row);
            continue;
        }
        // A grid point closes its tenth: t = 0.9 is the last of the ninth.
        let tenth = ((row.t * 10.0 - 1e-9).ceil() as usize).clamp(1, 10) - 1;
        draws[tenth] += 1.0 / DRAWS as f64;
        weight[tenth] += row.weight;
        sum += row.weight;
        if row.weight > heaviest.0 {
            heaviest = (row.weight, row.t);
        }
        if row.t > NOISY + 1e-9 {
            noisy_draws += 1.0 / DRAWS as f64;
            noisy_weight += row.weight;
        }
    }
    let recipe = &resolved.recipe;
    if let Some(row) = bad {
        report.refuse(
            "bad-weight",
            format!("the weighting `{}` gives {} at t = {}", recipe.weighting.name(), row.weight, figure(row.t)),
            "take another weighting, or timesteps that leave this time out",
        );
        return;
    }
    if sum == 0.0 {
        report.refuse(
            "no-weight",
            format!("the weighting `{}` is 0 everywhere", recipe.weighting.name()),
            "take another weighting",
        );
        return;
    }
    let share = noisy_weight / sum;
    let weight = weight.map(|w| w / sum);
    report.fact(
        "timesteps",
        format!(
            "{}: {} over t, {} of the draws above t = {NOISY}{}",
            in_one_line(&recipe.timesteps.table()),
            bars(&draws),
            percent(noisy_draws),
            if recipe.timesteps.start().is_some() { LEARNS_DRAWS } else { "" }
        ),
        json!({ "table": recipe.timesteps, "by_tenth_of_t": draws, "above_0.9": noisy_draws }),
    );
    report.fact(
        "weighting",
        format!(
            "{}: {} over t, {} of the loss's weight above t = {NOISY}{}",
            in_one_line(&recipe.weighting.table()),
            bars(&weight),
            percent(share),
            if recipe.weighting.start().is_some() { LEARNS_WEIGHT } else { "" }
        ),
        json!({ "table": recipe.weighting, "by_tenth_of_t": weight, "above_0.9": share }),
    );
    if heaviest.0 > LUCK * sum {
        report.warn(
            "few-draws-decide",
            format!(
                "of {DRAWS} even draws the one at t = {} has {} of the loss's weight: the weighting `{}` grows without bound there, and \
                 single pictures decide what is learned",
                figure(heaviest.1),
                percent(heaviest.0 / sum),
                recipe.weighting.name(),
            ),
            "take another weighting, or timesteps that leave this end out",
        );
    }
    if process.schedule.at(1.0).alpha == 0.0 && share < STARVED && !knows_noise(resolved) {
        report.warn(
            "starved-noise",
            format!(
                "the schedule ends in pure noise so that the model learns to set brightness there, but the timesteps `{}` draw t > {NOISY} \
                 in {} of the cases and the weighting `{}` leaves it {} of the loss's weight: the model hardly learns what the schedule is for",
                recipe.timesteps.name(),
                percent(noisy_draws),
                recipe.weighting.name(),
                percent(share),
            ),
            format!("uniform timesteps draw it in 10 %; weightings that keep half of the draws' share: {}", keeping(process, noisy_draws).join(", ")),
        );
    }
}

/// Weightings that, with their defaults, keep at least half of the draws' share on the noisy end.
fn keeping(process: &Process, draws: f64) -> Vec<&'static str> {
    let all = registry::of_kind(<dyn sconce_sdk::Weighting>::NAME).unwrap_or_default();
    let keeps = |name: &str| {
        let Ok(weighting) = Choice::<dyn sconce_sdk::Weighting>::named(name) else { return false };
        let process = Process { weighting: &*weighting, ..*process };
        let rows = (0..1000).map(|i| process.row((f64::from(i) + 0.5) / 1000.0));
        let (noisy, sum) = rows.fold((0.0, 0.0), |(noisy, sum), row| {
            (noisy + if row.t > NOISY + 1e-9 { row.weight } else { 0.0 }, sum + row.weight)
        });
        noisy / sum >= 0.5 * draws
    };
    all.iter().map(|p| p.name).filter(|name| keeps(name)).collect()
}

pub(crate) fn percent(share: f64) -> String {
    format!("{} %", figure((share * 1e4).round() / 100.0))
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

fn bars(shares: &[f64; 10]) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = shares.iter().copied().fold(0.0, f64::max);
    let bar = |s: &f64| BARS[((s / top * 8.0).ceil() as usize).min(8)];
    format!("[{}]", shares.iter().map(bar).collect::<String>())
}
