//! The laws of [`crate::testkit`] as a check that a program makes of one plugin while it runs: at places chosen once, on
//! schedules of its own, so that the answer is the same everywhere. Tests look at more places; this takes seconds at
//! most, and is for plugins that the program was not tested with.

use std::f64::consts::FRAC_PI_2;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::choice::Choice;
use crate::kinds::{Distance, EmaStrategy, LrSchedule, Objective, Schedule, Spacing, TimestepSampler, Weighting};
use crate::learned::Observation;
use crate::network::Network;
use crate::noise::Noise;
use crate::registry::{Kind, Plugin};
use crate::testkit::{self, Law};

/// What a plugin that keeps the laws of its kind is like.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The tables that it was made from.
    pub tables: Vec<String>,
    /// What is allowed but unusual, in sentences.
    pub notes: Vec<String>,
    /// The time of one question, the mean of a thousand.
    pub per_call: Duration,
}

/// A question to a scalar plugin that takes longer is worth a note: a step asks a few for each picture.
const SLOW: Duration = Duration::from_millis(1);

/// The laws of a plugin's kind on the plugin: with its defaults, or its schema's examples, or around other plugins. `None`
/// for a kind that has no laws here. An error says which law does not hold, where, and of which table.
pub fn check(plugin: &Plugin) -> Option<Result<Checked, String>> {
    type Check = fn(&Plugin) -> Result<Checked, String>;
    const CHECKS: [(&str, Check); 9] = [
        (<dyn Schedule>::NAME, all::<dyn Schedule>),
        (<dyn Objective>::NAME, all::<dyn Objective>),
        (<dyn Weighting>::NAME, all::<dyn Weighting>),
        (<dyn TimestepSampler>::NAME, all::<dyn TimestepSampler>),
        (<dyn Distance>::NAME, all::<dyn Distance>),
        (<dyn EmaStrategy>::NAME, all::<dyn EmaStrategy>),
        (<dyn LrSchedule>::NAME, all::<dyn LrSchedule>),
        (<dyn Spacing>::NAME, all::<dyn Spacing>),
        (<dyn Network>::NAME, all::<dyn Network>),
    ];
    CHECKS.iter().find(|(kind, _)| *kind == plugin.kind).map(|(_, check)| check(plugin))
}

fn all<K: Lawful + ?Sized>(plugin: &Plugin) -> Result<Checked, String> {
    let instances = testkit::instances_of::<K>(plugin).map_err(|e| {
        format!("it cannot be made to be tried: {e}; give its parameters defaults, or its schema `examples`")
    })?;
    let mut checked = Checked { tables: Vec::new(), notes: Vec::new(), per_call: Duration::ZERO };
    for choice in &instances {
        let table = choice.table().to_string();
        choice.laws(&mut checked.notes).map_err(|broken| format!("{broken}, of {table}"))?;
        checked.per_call = checked.per_call.max(time(choice));
        checked.tables.push(table);
    }
    checked.notes.dedup();
    if K::SCALAR && checked.per_call > SLOW {
        checked
            .notes
            .push(format!("slow: one question takes {:?}, and a step asks for every picture", checked.per_call));
    }
    Ok(checked)
}

/// Points of a density in each twentieth of [0, 1], and how long all of them may take.
const POINTS: u32 = 2000;
const PATIENCE: Duration = Duration::from_millis(1500);

fn once<R>(question: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    black_box(question());
    start.elapsed()
}

fn time<K: Lawful + ?Sized>(choice: &Choice<K>) -> Duration {
    const CALLS: u32 = 1000;
    let start = Instant::now();
    for call in 1..=CALLS {
        choice.ask();
        // Of one that takes its time a few calls say enough.
        if start.elapsed() > SLOW * 10 {
            return start.elapsed() / call;
        }
    }
    start.elapsed() / CALLS
}

/// A kind whose laws can be checked.
trait Lawful: Kind {
    /// Whether it answers with a few numbers, in no time.
    const SCALAR: bool = true;
    fn laws(&self, notes: &mut Vec<String>) -> Law;
    /// Asks one question.
    fn ask(&self);
}

const TIMES: [f64; 11] = [0.0, 1e-4, 1e-3, 0.02, 0.2513, 0.5, 0.7707, 0.98, 0.999, 0.9999, 1.0];
/// Where there are both signal and noise.
const INSIDE: [f64; 7] = [2e-3, 0.02, 0.2513, 0.5, 0.7707, 0.98, 0.998];
/// Not 0: a distribution function that is found by bisection knows no quantile so exactly.
const QUANTILES: [f64; 8] = [1e-6, 0.01, 0.125, 0.4, 0.5, 0.875, 0.99, 0.999_999];

/// x_t = (1 - t) x0 + t eps.
struct Straight;

impl Schedule for Straight {
    fn at(&self, t: f64) -> Noise {
        Noise { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 }
    }
}

/// A quarter of a circle, of which training draws only some points.
struct Circle;

impl Schedule for Circle {
    fn at(&self, t: f64) -> Noise {
        let (sin, cos) = (FRAC_PI_2 * t).sin_cos();
        Noise::preserving(cos, sin, FRAC_PI_2)
    }

    fn grid(&self) -> Option<usize> {
        Some(100)
    }
}

const FRAMES: [&dyn Schedule; 2] = [&Straight, &Circle];

/// What x0, epsilon, v and flow are at a level.
fn targets(n: &Noise) -> [[f64; 2]; 4] {
    [[1.0, 0.0], [0.0, 1.0], [-n.sigma, n.alpha], [n.d_alpha, n.d_sigma]]
}

fn levels() -> impl Iterator<Item = Noise> {
    FRAMES.iter().flat_map(|schedule| INSIDE.iter().map(|t| schedule.at(*t)))
}

/// Updates of eight pictures.
fn updates() -> [Vec<Observation>; 3] {
    [0, 1, 2].map(|update| {
        let picture = |i: i32| {
            let quantile = f64::from(i * 3 + update) / 24.0;
            let (weight, error) = (1.0 + quantile, 0.1 + 2.0 * quantile * quantile);
            let log_snr = if i + update == 0 { f64::INFINITY } else { 8.0 - 16.0 * quantile };
            let (loss, log_loss) = (weight * error, 0.25 - quantile);
            Observation { quantile, log_snr, weight, error, loss, log_loss, importance: 1.0 + 0.5 * quantile }
        };
        (0..8).map(picture).collect()
    })
}

impl Lawful for dyn Schedule {
    fn laws(&self, _: &mut Vec<String>) -> Law {
        let pairs = || TIMES.windows(2).map(|w| (w[0], w[1])).chain([(0.2513, 0.98), (0.5, 0.500_002)]);
        pairs().try_for_each(|(t, later)| testkit::schedule(self, t, later))?;
        for (height, width) in [(32, 32), (128, 96)] {
            if let Some(sized) = self.at_size(height, width) {
                pairs()
                    .try_for_each(|(t, later)| testkit::schedule(&*sized, t, later))
                    .map_err(|e| format!("at {height} x {width}: {e}"))?;
            }
        }
        Ok(())
    }

    fn ask(&self) {
        black_box(self.at(black_box(0.4)));
    }
}

impl Lawful for dyn Objective {
    fn laws(&self, _: &mut Vec<String>) -> Law {
        levels().try_for_each(|noise| {
            testkit::objective(self, &noise, 0.7, -1.3)?;
            let scale = self.input_scale(&noise);
            if scale.is_finite() { Ok(()) } else { Err(format!("the input scale is {scale} at {noise:?}")) }
        })
    }

    fn ask(&self) {
        black_box(self.target(&Straight.at(black_box(0.4))));
    }
}

impl Lawful for dyn Weighting {
    fn laws(&self, notes: &mut Vec<String>) -> Law {
        for noise in levels() {
            targets(&noise).into_iter().try_for_each(|target| testkit::weighting(self, &noise, target))?;
            if testkit::weighting_of_data(self, &noise, &targets(&noise)).is_err() {
                // `native` is meant to be so, but it is seldom what a weighting means.
                let note = "its weight on the data depends on the objective".to_owned();
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
        let (Some(mut state), Some(mut fresh)) = (self.start(), self.start()) else { return Ok(()) };
        for update in updates() {
            testkit::learned(&mut *state, &mut *fresh, &update)?;
            for log_snr in [f64::NEG_INFINITY, -9.0, 0.0, 3.0, f64::INFINITY] {
                let log_loss = state.log_loss(log_snr);
                if !log_loss.is_finite() {
                    return Err(format!("the learned log-loss is {log_loss} at a log-SNR of {log_snr}"));
                }
            }
        }
        Ok(())
    }

    fn ask(&self) {
        black_box(self.on_output(&Straight.at(black_box(0.4)), [0.0, 1.0]));
    }
}

impl Lawful for dyn TimestepSampler {
    fn laws(&self, notes: &mut Vec<String>) -> Law {
        for schedule in FRAMES {
            for pair in QUANTILES.windows(2) {
                testkit::timesteps(self, schedule, pair[0], pair[1])?;
            }
        }
        let one = once(|| self.density(0.4, FRAMES[0])).max(once(|| self.density(0.9, FRAMES[0])));
        if one * 20 * POINTS < PATIENCE {
            testkit::density(self, FRAMES[0])?;
        } else {
            notes.push(format!("slow: its density takes {one:?} at one time, and was not integrated"));
        }
        let (Some(mut state), Some(mut fresh)) = (self.start(), self.start()) else { return Ok(()) };
        for update in updates() {
            testkit::learned(&mut *state, &mut *fresh, &update)?;
            QUANTILES.iter().try_for_each(|u| testkit::sampler_state(&*state, *u))?;
        }
        Ok(())
    }

    fn ask(&self) {
        black_box(self.quantile(black_box(0.4), FRAMES[0]));
    }
}

impl Lawful for dyn Distance {
    fn laws(&self, _: &mut Vec<String>) -> Law {
        for (t, noise) in INSIDE.iter().map(|t| (*t, Straight.at(*t))) {
            for (d, further) in [(0.0, 0.1), (-0.3, 1.7), (2.5, -4.0)] {
                testkit::distance(self, d, further, t, &noise)?;
            }
        }
        Ok(())
    }

    fn ask(&self) {
        black_box(self.at(black_box(0.4), 1.0));
    }
}

impl Lawful for dyn EmaStrategy {
    fn laws(&self, _: &mut Vec<String>) -> Law {
        for images_seen in [0, 1, 7, 64, 1000, 123_456, 10_000_000] {
            for batch in [1, 4, 333] {
                testkit::ema(self, images_seen, batch)?;
            }
        }
        Ok(())
    }

    fn ask(&self) {
        black_box(self.decay(0, black_box(1000), 4));
    }
}

impl Lawful for dyn LrSchedule {
    fn laws(&self, _: &mut Vec<String>) -> Law {
        for images_total in [0, 1, 1000, 100_000] {
            for images_seen in [0, 1, 400, 999, 1000, 5000, 99_999, 100_000] {
                testkit::lr(self, images_seen, images_total)?;
            }
        }
        Ok(())
    }

    fn ask(&self) {
        black_box(self.factor(black_box(400), 1000));
    }
}

impl Lawful for dyn Spacing {
    fn laws(&self, _: &mut Vec<String>) -> Law {
        for schedule in FRAMES {
            for steps in [1, 2, 7, 30, 60] {
                testkit::spacing(self, schedule, steps)?;
            }
        }
        Ok(())
    }

    fn ask(&self) {
        black_box(self.levels(FRAMES[0], black_box(4)));
    }
}

impl Lawful for dyn Network {
    const SCALAR: bool = false;

    fn laws(&self, _: &mut Vec<String>) -> Law {
        testkit::network(self)
    }

    fn ask(&self) {
        // It answered before: the laws hold.
        let _ = black_box(testkit::ask_network(self));
    }
}
