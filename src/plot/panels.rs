//! Which panels show what: from the curves of runs to axes and lines.

use sconce_core::curves::{self, Cell, Coverage, Profile, Shares};
use sconce_sdk::{Distance, Level, Objective, Schedule, Weighting};

use super::figure::{Axis, Line, Panel, Stroke};

const TIME: &str = "time t";
const LOG_SNR: &str = "log-SNR λ";

/// What the panels of draws and weight show.
pub const COVERAGE_NOTE: &str = "Effective weight: w(λ)/(1 + exp(−λ)), of area 1; it is the weight on the error of v, which \
     every objective's output gives. Weight on the error of ε: w(λ) = p(λ)·k·(D/α)² in the same scale, where p is the density \
     of the draws, k the factor on the output's error, and D/α turns an error of ε into one of the output; the loss is \
     ½ ∫ w(λ) E|ε′ − ε|² dλ (Kingma & Gao 2023, section 3.2).";
/// How lines that coincide are drawn.
pub const ALTERNATE_NOTE: &str = "Where lines lie on each other, their colours alternate.";

fn line(of: usize, stroke: Stroke, points: Vec<(f64, f64)>) -> Line {
    Line { of, symbol: None, stroke, points }
}

/// alpha, sigma and log-SNR over t.
pub fn schedules<'a>(all: impl IntoIterator<Item = &'a dyn Schedule>) -> [Panel; 2] {
    let (mut amounts, mut log_snr, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for (of, schedule) in all.into_iter().enumerate() {
        let points = curves::amounts(schedule);
        let column = |f: fn(&sconce_sdk::Noise) -> f64| points.iter().map(|(t, noise)| (*t, f(noise))).collect();
        amounts.push(Line { symbol: Some("α"), ..line(of, Stroke::Full, column(|n| n.alpha)) });
        amounts.push(Line { symbol: Some("σ"), ..line(of, Stroke::Thin, column(|n| n.sigma)) });
        log_snr.push(line(of, Stroke::Full, column(|n| n.log_snr())));
        seen.extend([0.005, 0.995].map(|t| schedule.at(t).log_snr()));
    }
    let most = values(&amounts).fold(1.0, f64::max);
    let (low, high) = window(seen);
    [
        panel("Signal and noise", Axis::linear(TIME, 0.0, 1.0), Axis::linear("amount", 0.0, most * 1.04), amounts),
        panel("Log-SNR", Axis::linear(TIME, 0.0, 1.0), Axis::linear("λ = ln(α²/σ²)", low, high), log_snr),
    ]
}

/// Draws over t and over log-SNR, effective weight, and the weight on the error of epsilon.
pub fn coverages(all: &[Coverage]) -> [Panel; 4] {
    let parts: [fn(&Shares) -> f64; 2] = [|s| s.draws, |s| s.weight];
    let ends = [0.005, 0.995];
    let seen = all.iter().flat_map(|run| parts.iter().flat_map(move |&of| ends.map(|part| run.quantile(part, of))));
    let (low, high) = window(seen.collect());
    let over_time: Vec<Line> = all
        .iter()
        .enumerate()
        .map(|(of, run)| line(of, Stroke::Full, run.cells().iter().map(|c| (c.t, c.density_of_t())).collect()))
        .collect();
    let over_log_snr = |f: fn(&Cell) -> f64| -> Vec<Line> {
        let inside = |run: &Coverage| -> Vec<(f64, f64)> {
            let cells = run.cells().iter().rev().filter(|c| c.span.is_finite() && c.log_snr.is_finite());
            cells.map(|c| (c.log_snr, f(c))).collect()
        };
        all.iter().enumerate().map(|(of, run)| line(of, Stroke::Full, inside(run))).collect()
    };
    let below = |of: fn(&Shares) -> f64| {
        let shares = all.iter().map(|run| of(&run.between(f64::NEG_INFINITY, low)));
        let shares: Vec<(usize, f64)> = shares.enumerate().collect();
        let text = |(i, share): &(usize, f64)| (*i, format!("{} %", (share * 1000.0).round() / 10.0));
        let any = shares.iter().any(|(_, share)| *share >= 0.0005);
        any.then(|| (format!("below {low}:").replace('-', "−"), shares.iter().map(text).collect()))
    };
    let log_snr = Axis::linear(LOG_SNR, low, high);
    let (draws, weight, on_eps) = (over_log_snr(Cell::density), over_log_snr(Cell::weight), over_log_snr(Cell::on_eps));
    let top = |lines: &[Line]| {
        let within = lines.iter().flat_map(|l| &l.points).filter(|(x, _)| (low..=high).contains(x));
        within.map(|&(_, y)| y).fold(0.0, f64::max) * 1.08
    };
    let log = decades(&on_eps, low, high);
    let most = values(&over_time).fold(0.0, f64::max).min(10.0) * 1.08;
    [
        panel("Draws over time", Axis::linear(TIME, 0.0, 1.0), Axis::linear("density p(t)", 0.0, most), over_time),
        Panel {
            beyond: below(|s| s.draws),
            ..panel("Draws over log-SNR", log_snr.clone(), Axis::linear("density p(λ)", 0.0, top(&draws)), draws)
        },
        Panel {
            beyond: below(|s| s.weight),
            ..panel("Effective weight", log_snr.clone(), Axis::linear("share per unit of λ", 0.0, top(&weight)), weight)
        },
        panel("Weight on the error of ε", log_snr, Axis::log("w(λ)", log.0, log.1), on_eps),
    ]
}

/// a and b of y = a x0 + b eps over t.
pub fn objectives(all: &[&dyn Objective], schedule: &dyn Schedule) -> [Panel; 2] {
    let points = curves::amounts(schedule);
    let lines = |i: usize| -> Vec<Line> {
        let of = |o: &&dyn Objective| points.iter().map(|(t, n)| (*t, o.target(n)[i])).collect();
        all.iter().enumerate().map(|(k, objective)| line(k, Stroke::Full, of(objective))).collect()
    };
    let axis = |label: &str, lines: &[Line]| {
        let finite = || values(lines).filter(|y| y.abs() < 1e3);
        let (low, high) = (finite().fold(0.0, f64::min), finite().fold(0.0, f64::max));
        let room = 0.06 * (high - low).max(1e-9);
        Axis::linear(label, low - room, high + room)
    };
    let (a, b) = (lines(0), lines(1));
    let (a_axis, b_axis) = (axis("a in y = a x₀ + b ε", &a), axis("b in y = a x₀ + b ε", &b));
    let time = Axis::linear(TIME, 0.0, 1.0);
    [panel("Coefficient of the picture", time.clone(), a_axis, a), panel("Coefficient of the noise", time, b_axis, b)]
}

/// How far an output is from its target over their difference, and how hard it is pulled back.
pub fn distances(all: &[&dyn Distance], schedule: &dyn Schedule) -> [Panel; 2] {
    let middle = schedule.at(0.5);
    let lines = |i: usize| -> Vec<Line> {
        let of = |distance: &&dyn Distance| {
            let width = distance.width(0.5, &middle);
            (-150..=150).map(|k| f64::from(k) / 50.0).map(|d| (d, distance.at(d, width)[i])).collect()
        };
        all.iter().enumerate().map(|(k, distance)| line(k, Stroke::Full, of(distance))).collect()
    };
    let axis = |label: &str, lines: &[Line]| {
        let (low, high) = (values(lines).fold(0.0, f64::min), values(lines).fold(0.0, f64::max));
        Axis::linear(label, low, high.max(low + 1e-9))
    };
    let (far, pull) = (lines(0), lines(1));
    let (far_axis, pull_axis) = (axis("ρ(d)", &far), axis("dρ/dd", &pull));
    let across = Axis::linear("difference d", -3.0, 3.0);
    [panel("Distance", across.clone(), far_axis, far), panel("Its derivative", across, pull_axis, pull)]
}

/// The factors on the error of the data over log-SNR, and on that of the output over t.
pub fn weightings(all: &[&dyn Weighting], schedule: &dyn Schedule, objective: &dyn Objective) -> [Panel; 2] {
    let points = curves::amounts(schedule);
    let (low, high) = window([0.005, 0.995].map(|t| schedule.at(t).log_snr()).to_vec());
    let mut on_output = Vec::new();
    let mut on_data = Vec::new();
    // From the factor in use: `native` has none of its own on the data.
    for (of, weighting) in all.iter().enumerate() {
        let rows = points.iter().filter(|(_, n)| n.log_snr().is_finite()).map(|(t, n)| {
            let target = objective.target(n);
            let factor = weighting.on_output(n, target);
            (*t, n.log_snr(), factor, factor * (n.determinant(target) / n.sigma).powi(2))
        });
        let rows: Vec<_> = rows.collect();
        on_output.push(line(of, Stroke::Full, rows.iter().map(|r| (r.0, r.2)).collect()));
        on_data.push(line(of, Stroke::Full, rows.iter().rev().map(|r| (r.1, r.3)).collect()));
    }
    let most = values(&on_output).fold(0.0, f64::max) * 1.08;
    let log = decades(&on_data, low, high);
    let time = Axis::linear(TIME, 0.0, 1.0);
    [
        panel("Factor on the output's error", time, Axis::linear("k", 0.0, most), on_output),
        panel(
            "Factor on the error of x₀",
            Axis::linear(LOG_SNR, low, high),
            Axis::log("k D²/σ²", log.0, log.1),
            on_data,
        ),
    ]
}

/// The levels of samplers, by step.
pub fn levels(all: &[Vec<Level>]) -> [Panel; 2] {
    let column = |f: fn(&Level) -> f64| -> Vec<Line> {
        let points = |levels: &[Level]| levels.iter().enumerate().map(|(k, l)| (k as f64, f(l))).collect();
        all.iter().enumerate().map(|(of, levels)| line(of, Stroke::Dotted, points(levels))).collect()
    };
    let (time, log_snr) = (column(|l| l.t), column(|l| l.noise.log_snr()));
    let steps = all.iter().map(|l| l.len() - 1).max().unwrap_or(1) as f64;
    // Room for arrows.
    let seen = values(&log_snr).flat_map(|y| if y.is_finite() { [y - 0.5, y + 0.5] } else { [0.0, 0.0] });
    let (low, high) = window(seen.collect());
    let room = |end: f64| if values(&log_snr).any(|y| y == end) { 2.0 } else { 0.0 };
    let (low, high) = (low - room(f64::NEG_INFINITY), high + room(f64::INFINITY));
    let step = Axis::linear("step", 0.0, steps);
    [
        panel("Sampling: noise levels", step.clone(), Axis::linear(LOG_SNR, low, high), log_snr),
        panel("Sampling: times", step, Axis::linear(TIME, 0.0, 1.04), time),
    ]
}

/// Factors on the learning rate: `(images seen, factor)` of each.
pub fn rates(all: &[Vec<(u64, f64)>]) -> Panel {
    let points = |rate: &[(u64, f64)]| rate.iter().map(|&(images, factor)| (images as f64, factor)).collect();
    let lines: Vec<Line> = all.iter().enumerate().map(|(of, rate)| line(of, Stroke::Full, points(rate))).collect();
    let images = lines.iter().filter_map(|l| l.points.last()).map(|p| p.0).fold(1.0, f64::max);
    let most = values(&lines).fold(0.0, f64::max).max(1e-9) * 1.08;
    panel("Learning rate", Axis::linear("images seen", 0.0, images), Axis::linear("factor", 0.0, most), lines)
}

/// What averages are made of; `None` where there is none to draw.
pub fn averages(all: &[Option<Profile>]) -> Option<Panel> {
    let kept = || all.iter().enumerate().filter_map(|(of, profile)| Some((of, profile.as_ref()?)));
    let lines: Vec<Line> = kept().map(|(of, p)| line(of, Stroke::Full, p.density.clone())).collect();
    let most = values(&lines).fold(0.0, f64::max) * 1.08;
    let widths = kept().map(|(of, p)| (of, format!("{:.3}", p.sigma_rel))).collect();
    (!lines.is_empty()).then(|| Panel {
        beyond: Some(("σ rel:".into(), widths)),
        ..panel(
            "Average at the end",
            Axis::linear("part of the run", 0.0, 1.0),
            Axis::linear("share per run", 0.0, most),
            lines,
        )
    })
}

fn panel(title: &str, x: Axis, y: Axis, lines: Vec<Line>) -> Panel {
    Panel { title: title.into(), x, y, lines, beyond: None }
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|l| &l.points).map(|p| p.1)
}

/// A range of log-SNR that shows these, in even numbers, no further out than 20.
fn window(seen: Vec<f64>) -> (f64, f64) {
    let clamp = |x: f64| x.clamp(-20.0, 20.0);
    let low = seen.iter().copied().map(clamp).fold(0.0, f64::min);
    let high = seen.iter().copied().map(clamp).fold(0.0, f64::max);
    (2.0 * (low / 2.0).floor(), 2.0 * (high / 2.0).ceil().max(1.0))
}

/// Whole powers of ten around the values in a range of x, at most seven decades down from the largest.
fn decades(lines: &[Line], low: f64, high: f64) -> (f64, f64) {
    let inside = || {
        let points = lines.iter().flat_map(|l| &l.points).filter(|(x, _)| (low..=high).contains(x));
        points.map(|&(_, y)| y).filter(|y| *y > 0.0 && y.is_finite())
    };
    let top = 10f64.powi(inside().fold(1e-12, f64::max).log10().ceil() as i32);
    let bottom = 10f64.powi(inside().fold(f64::INFINITY, f64::min).min(top / 10.0).log10().floor() as i32);
    (bottom.max(top * 1e-7), top)
}
