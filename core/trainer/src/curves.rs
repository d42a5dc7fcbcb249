//! What a run's decisions come to as curves: where its draws and its weight lie over the noise levels, what rate and what
//! average it has over its images. From the plugins' own numbers, for the program to draw and to compare.
//!
//! Every objective's loss is one integral over lambda = log-SNR (Kingma & Gao 2023, section 3.2),
//!
//!   L = 1/2 ∫ w(lambda) E|eps' - eps|² d lambda,   w(lambda) = p(lambda) · k · (D/alpha)²,
//!
//! where p is the density of the drawn levels, k the factor on the output error, and (D/alpha)² = |y' - y|²/|eps' - eps|²
//! what the objective makes of an error of epsilon. So w alone, up to a factor, tells what a run trains, whatever its
//! schedule, objective, weighting and timesteps are called.
//!
//! **The factor.** The integral of w itself often has no value: for v under a cosine schedule w is e^(-lambda/2). The error
//! of v, |v' - v|² = |eps' - eps|² (alpha² + sigma²)/alpha², is what stays finite at both ends, so w is scaled until
//! w(lambda)/(1 + e^-lambda), the weight on the error of v, has area 1. That share is the "effective weight" here.

use sconce_sdk::{EmaStrategy, LrSchedule, Noise, Schedule};
use serde::Serialize;

use crate::step::Process;

/// Where the noisy end begins: 900 of 1000.
pub const NOISY: f64 = 0.9;

/// A narrow range of times, all of whose draws are at one noise level: a grid point of a discrete schedule.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The time.
    pub t: f64,
    /// Its width in t.
    pub width: f64,
    /// lambda; -infinity where there is no signal.
    pub log_snr: f64,
    /// Its width in lambda; infinite where the cell reaches to an end of lambda, so that it has no density.
    pub span: f64,
    /// The factor on the output error, k.
    pub factor: f64,
    /// Its shares.
    pub share: Shares,
}

/// Shares of a whole run that lie somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// Of the draws.
    pub draws: f64,
    /// Of draws times the factor on the output error: of the loss, where every output is equally wrong.
    pub loss: f64,
    /// Of the effective weight: of the loss, where v, computed from every output, is equally wrong.
    pub weight: f64,
}

impl std::iter::Sum for Shares {
    fn sum<I: Iterator<Item = Self>>(shares: I) -> Self {
        shares.fold(Self::default(), |a, b| Self {
            draws: a.draws + b.draws,
            loss: a.loss + b.loss,
            weight: a.weight + b.weight,
        })
    }
}

impl Cell {
    /// p(t).
    pub fn density_of_t(&self) -> f64 {
        self.share.draws / self.width
    }

    /// p(lambda); 0 in a cell that reaches to an end.
    pub fn density(&self) -> f64 {
        self.share.draws / self.span
    }

    /// The effective weight per unit of lambda, of area 1; 0 in a cell that reaches to an end.
    pub fn weight(&self) -> f64 {
        self.share.weight / self.span
    }

    /// w(lambda) of the module's formula, in its scale.
    pub fn on_eps(&self) -> f64 {
        self.weight() * (1.0 + (-self.log_snr).exp())
    }
}

/// A run that has no effective weight.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum NoWeight {
    /// The factor on the output error is no weight.
    #[error("the factor on the output's error is {factor} at t = {t}")]
    Bad {
        /// Where.
        t: f64,
        /// What it is.
        factor: f64,
    },
    /// Nothing counts.
    #[error("the weight is 0 at every level that is drawn")]
    Zero,
}

/// Where a run's draws and weight lie: cells from data to noise.
#[derive(Clone, Debug)]
pub struct Coverage {
    cells: Vec<Cell>,
}

impl Coverage {
    /// Of the levels that a step draws.
    pub fn of(process: &Process) -> Result<Self, NoWeight> {
        let Process { schedule, objective, weighting, timesteps } = *process;
        let edges = edges(schedule);
        let log_snr = |t: f64| schedule.at(t).log_snr();
        let mut cells = Vec::with_capacity(edges.len());
        for (i, pair) in edges.windows(2).enumerate() {
            let (from, to) = (pair[0], pair[1]);
            let (t, span) = match schedule.grid() {
                // Around a point: to the middle between it and the next on either side.
                Some(_) => (to, edges.get(i + 2).map_or(f64::INFINITY, |&next| 0.5 * (log_snr(from) - log_snr(next)))),
                None => (0.5 * (from + to), log_snr(from) - log_snr(to)),
            };
            let draws =
                timesteps.cumulative(to, schedule) - if i == 0 { 0.0 } else { timesteps.cumulative(from, schedule) };
            let noise = schedule.at(t);
            let target = objective.target(&noise);
            let factor = if draws > 0.0 { weighting.on_output(&noise, target) } else { 0.0 };
            if !(factor.is_finite() && factor >= 0.0) {
                return Err(NoWeight::Bad { t, factor });
            }
            // |y' - y|² = D²/(alpha² + sigma²) |v' - v|².
            let on_v = factor * (noise.determinant(target) / noise.alpha.hypot(noise.sigma)).powi(2);
            let share = Shares { draws, loss: draws * factor, weight: draws * on_v };
            cells.push(Cell { t, width: to - from, log_snr: noise.log_snr(), span, factor, share });
        }
        if schedule.grid().is_some() {
            close(&mut cells);
        }
        let total: Shares = cells.iter().map(|c| c.share).sum();
        if !(total.loss > 0.0 && total.weight > 0.0) {
            return Err(NoWeight::Zero);
        }
        for Cell { share, .. } in &mut cells {
            share.loss /= total.loss;
            share.weight /= total.weight;
        }
        Ok(Self { cells })
    }

    /// The cells, from data to noise.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// What lies above a time.
    pub fn above(&self, t: f64) -> Shares {
        self.cells.iter().filter(|c| c.t > t + 1e-9).map(|c| c.share).sum()
    }

    /// What lies at lambda in [from, to).
    pub fn between(&self, from: f64, to: f64) -> Shares {
        self.cells.iter().filter(|c| (from..to).contains(&c.log_snr)).map(|c| c.share).sum()
    }

    /// The lambda below which this part of something (the draws, the weight) lies.
    pub fn quantile(&self, part: f64, of: fn(&Shares) -> f64) -> f64 {
        let mut sum = 0.0;
        let reached = |c: &&Cell| {
            sum += of(&c.share);
            sum >= part
        };
        self.cells.iter().rev().find(reached).or(self.cells.first()).map_or(0.0, |c| c.log_snr)
    }

    /// The cell with the most effective weight per unit of lambda.
    pub fn peak(&self) -> &Cell {
        let largest = self.cells.iter().max_by(|a, b| a.weight().total_cmp(&b.weight()));
        largest.expect("a schedule has levels")
    }

    /// The part of the effective weight that lies elsewhere in another run: half of the summed differences, over bins a
    /// quarter wide in lambda (total variation).
    pub fn moved(&self, other: &Self) -> f64 {
        let edges = (-80..=80).map(|i| f64::from(i) / 4.0);
        let edges: Vec<f64> = [f64::NEG_INFINITY].into_iter().chain(edges).chain([f64::INFINITY]).collect();
        let weight = |run: &Self, pair: &[f64]| run.between(pair[0], pair[1]).weight;
        0.5 * edges.windows(2).map(|pair| (weight(self, pair) - weight(other, pair)).abs()).sum::<f64>()
    }
}

/// Bounds of cells in t: the points of a discrete schedule; else even steps in t together with even steps in lambda, fine
/// enough to draw either.
fn edges(schedule: &dyn Schedule) -> Vec<f64> {
    if let Some(n) = schedule.grid() {
        return (0..=n).map(|i| i as f64 / n as f64).collect();
    }
    let even = (0..=500).map(|i| f64::from(i) / 500.0);
    let levels = (-400..=400).map(|i| schedule.t_of(f64::from(i) / 20.0));
    let mut edges: Vec<f64> = even.chain(levels).collect();
    edges.sort_by(f64::total_cmp);
    edges.dedup_by(|later, earlier| *later - *earlier < 1e-9);
    edges
}

/// A table has nothing beyond its end points, so their widths in lambda go on as those before them do; a point without
/// signal has none.
fn close(cells: &mut [Cell]) {
    let finite = cells.iter().filter(|c| c.log_snr.is_finite()).count();
    if finite >= 4 {
        cells[0].span = cells[1].span.powi(2) / cells[2].span;
        cells[finite - 1].span = cells[finite - 2].span.powi(2) / cells[finite - 3].span;
    }
}

/// Signal and noise over t: at the points of a discrete schedule, else at 401 times.
pub fn amounts(schedule: &dyn Schedule) -> Vec<(f64, Noise)> {
    let (first, n) = schedule.grid().map_or((0, 400), |n| (1, n));
    (first..=n).map(|i| i as f64 / n as f64).map(|t| (t, schedule.at(t))).collect()
}

/// The factor on the learning rate, `(images seen, factor)`, at the steps that begin nearest to 401 even places.
pub fn rate(lr: &dyn LrSchedule, images: u64, batch: u64) -> Vec<(u64, f64)> {
    let last = images.saturating_sub(1) / batch;
    let mut steps: Vec<u64> = (0..=400).map(|i| (i as f64 / 400.0 * last as f64).round() as u64).collect();
    steps.dedup();
    steps.into_iter().map(|step| (step * batch, lr.factor(step * batch, images))).collect()
}

/// What an average of the weights is made of at the end of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// `(place, density)` over the run's time in [0, 1], of area 1 less `first`.
    pub density: Vec<(f64, f64)>,
    /// Share of the weights that the run began with.
    pub first: f64,
    /// Mean age of what is averaged, as a share of the run.
    pub age: f64,
    /// The profile's standard deviation as a share of the run: sigma_rel of Karras et al. 2024 (section 3.1).
    pub sigma_rel: f64,
}

/// The profile of the first average, which is validated and written; `None` where none is kept.
pub fn average(ema: &dyn EmaStrategy, images: u64, batch: u64) -> Option<Profile> {
    ema.tracks().first()?;
    let steps = images.div_ceil(batch).max(1);
    // Bins of whole steps, at most 400.
    let (bin, share_of) = (steps.div_ceil(400), |steps_in: u64| steps_in as f64 / steps as f64);
    let ends = (0..steps.div_ceil(bin)).map(|i| (i * bin, ((i + 1) * bin).min(steps)));
    let mut density: Vec<(f64, f64)> = ends.clone().map(|(from, to)| (share_of(from + to) / 2.0, 0.0)).collect();
    // From the last step backwards: what the later ones have left of each.
    let (mut left, mut mean, mut square) = (1.0, 0.0, 0.0);
    for step in (0..steps).rev() {
        let decay = ema.decay(0, (step + 1) * batch, batch);
        let (share, age) = (left * (1.0 - decay), share_of(steps - 1 - step));
        density[(step / bin) as usize].1 += share;
        (mean, square) = (mean + share * age, square + share * age * age);
        left *= decay;
    }
    density.iter_mut().zip(ends).for_each(|(bin, (from, to))| bin.1 /= share_of(to - from));
    // The first weights are as old as the run.
    (mean, square) = (mean + left, square + left);
    Some(Profile { density, first: left, age: mean, sigma_rel: (square - mean * mean).max(0.0).sqrt() })
}
