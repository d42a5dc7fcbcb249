//! Where a sampler puts its noise levels, as a formula.

use sconce_sdk::{Discrete, Folded, ParamError, prelude::*};

use crate::engine::{Formula, Params, Reader};
use crate::{check, language};

/// The fields of a spacing's formula.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The time of step i.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub t: Option<String>,
    /// In its place the log-SNR there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_snr: Option<String>,
    /// In its place sigma/alpha, which papers and programs call sigma where alpha² + sigma² = 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<String>,
    /// In its place sigma itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<String>,
    /// Where the picture is taken.
    pub last: Last,
    /// Numbers by name, for the formula.
    #[serde(skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// The level that a sampler ends at, where the picture is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Last {
    /// No noise at all.
    #[default]
    Clean,
    /// The schedule's first point, with its little noise.
    FirstPoint,
}

/// A formula for the noise level of each step. It is one of `t`, `log_snr`, `ratio` and `sigma`, and may use
///
///   i         the step, from 0, the noisiest, to n - 1
///   n         the number of steps
///   s         i/(n - 1), the share of the way; i/n where the last level is the schedule's first point, or n = 1
///   start, end   what the field is at t = 1 and at the schedule's first point; for `ratio` and `log_snr` no noisier than
///             a ratio of 4096, since a zero-terminal schedule has no end
///   points    the number of the schedule's points, 1000 for a continuous one
///
/// Trailing is t = "1 - i/n", Karras' is ratio = "lerp(start^(1/rho), end^(1/rho), s)^rho". It is refused where it is not
/// finite or does not fall (`log_snr`: rise) from step to step, for 1 to 100 steps of Stable Diffusion's schedule and of a
/// rectified flow.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "t": "1 - i / n" }))]
#[schemars(example = serde_json::json!({ "ratio": "lerp(start^(1/rho), end^(1/rho), s)^rho", "params": { "rho": 7.0 } }))]
#[schemars(example = serde_json::json!({ "log_snr": "lerp(start, end, s)" }))]
pub struct Expr {
    spec: Spec,
    formula: Formula,
    of: Of,
}

/// What the formula gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Time,
    LogSnr,
    Ratio,
    Sigma,
}

const NAMES: [&str; 6] = ["i", "n", "s", "start", "end", "points"];
/// alpha² = 2^-24, where diffusers ends a schedule that has no end.
const NOISIEST: f64 = 4096.0;

impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let mut reader = Reader::new(&spec.params)?;
        let (of, field, text) = match (&spec.t, &spec.log_snr, &spec.ratio, &spec.sigma) {
            (Some(text), None, None, None) => (Of::Time, "t", text),
            (None, Some(text), None, None) => (Of::LogSnr, "log_snr", text),
            (None, None, Some(text), None) => (Of::Ratio, "ratio", text),
            (None, None, None, Some(text)) => (Of::Sigma, "sigma", text),
            _ => return Err(ParamError::new("takes one of `t`, `log_snr`, `ratio` and `sigma`").into()),
        };
        let formula = reader.read(field, text, &NAMES)?;
        reader.finish()?;
        let made = Self { spec, formula, of };
        let betas = (0..1000)
            .map(|i| (0.00085f64.sqrt() + (0.012f64.sqrt() - 0.00085f64.sqrt()) * f64::from(i) / 999.0).powi(2));
        made.check(field, &Table(Discrete::from_betas(betas)))?;
        made.check(field, &Straight)?;
        Ok(made)
    }
}

impl From<Expr> for Spec {
    fn from(expr: Expr) -> Self {
        expr.spec
    }
}

/// Stable Diffusion's schedule, to try a spacing on.
struct Table(Discrete);

impl Schedule for Table {
    fn at(&self, t: f64) -> Noise {
        self.0.at(t)
    }

    fn grid(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// A rectified flow, to try a spacing on.
struct Straight;

impl Schedule for Straight {
    fn at(&self, t: f64) -> Noise {
        Noise { alpha: 1.0 - t, sigma: t, d_alpha: -1.0, d_sigma: 1.0 }
    }
}

impl Of {
    fn at(self, schedule: &dyn Schedule, t: f64) -> f64 {
        let noise = schedule.at(t);
        match self {
            Self::Time => t,
            Self::LogSnr => noise.log_snr().max(-2.0 * NOISIEST.ln()),
            Self::Ratio => (noise.sigma / noise.alpha).min(NOISIEST),
            Self::Sigma => noise.sigma,
        }
    }

    /// The time at which the schedule has this.
    fn time(self, schedule: &dyn Schedule, value: f64) -> f64 {
        match self {
            Self::Time => value.clamp(0.0, 1.0),
            Self::LogSnr => schedule.t_of(value),
            Self::Ratio => schedule.t_of(-2.0 * value.ln()),
            Self::Sigma => {
                let (mut low, mut high) = (0.0, 1.0);
                for _ in 0..80 {
                    let mid = 0.5 * (low + high);
                    if schedule.at(mid).sigma < value { low = mid } else { high = mid }
                }
                0.5 * (low + high)
            }
        }
    }
}

impl Expr {
    /// What the formula gives for each of `steps` steps.
    fn values(&self, schedule: &dyn Schedule, steps: usize) -> Vec<f64> {
        let points = schedule.grid().unwrap_or(1000) as f64;
        let (start, end) = (self.of.at(schedule, 1.0), self.of.at(schedule, 1.0 / points));
        // The schedule's first point may not come twice.
        let spaces = if self.spec.last == Last::FirstPoint || steps == 1 { steps } else { steps - 1 } as f64;
        let value = |i: f64| self.formula.at(&[i, steps as f64, i / spaces, start, end, points]);
        (0..steps).map(|i| value(i as f64)).collect()
    }

    fn check(&self, field: &str, schedule: &dyn Schedule) -> Result<(), ParamError> {
        for steps in [1, 2, 3, 4, 7, 8, 10, 20, 28, 30, 50, 100] {
            let values = self.values(schedule, steps);
            for (i, value) in values.iter().enumerate() {
                let (right, must) = match self.of {
                    Of::Time => (*value > 0.0 && *value <= 1.0 + 1e-12, "above 0 and up to 1"),
                    Of::LogSnr => (value.is_finite(), "a finite number"),
                    Of::Ratio | Of::Sigma => (value.is_finite() && *value > 0.0, "a number above 0"),
                };
                let place = format!("i = {i} of n = {steps}");
                check::demand(right, field, *value, &place, must)?;
                if i > 0 {
                    let before = values[i - 1];
                    let (falls, word) = match self.of {
                        Of::LogSnr => (*value > before, "above"),
                        _ => (*value < before, "below"),
                    };
                    check::demand(falls, field, *value, &place, &format!("{word} {before}, the step before"))?;
                }
            }
        }
        Ok(())
    }
}

impl Spacing for Expr {
    fn levels(&self, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        let level = |t: f64| Level { t, noise: schedule.at(t) };
        let last = match self.spec.last {
            Last::Clean => Level { t: 0.0, noise: Noise { alpha: 1.0, sigma: 0.0, d_alpha: 0.0, d_sigma: 0.0 } },
            Last::FirstPoint => level(1.0 / schedule.grid().unwrap_or(1000) as f64),
        };
        let placed = self.values(schedule, steps).into_iter().map(|value| level(self.of.time(schedule, value)));
        placed.chain([last]).collect()
    }
}

register!(Spacing, "expr", Expr);
