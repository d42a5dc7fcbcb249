//! Which times are trained on, as a density or as quantiles; of the one the other is found.

use sconce_sdk::{Folded, ParamError, prelude::*};

use crate::check::{self, Shown};
use crate::density::{self, Density};
use crate::engine::{Formula, Params, Reader};
use crate::{language, root};

/// The fields of a timestep sampler's formula.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The density of times but for a factor: it is normalised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<String>,
    /// In its place the time below which a share u of the draws is, rising in u.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantile: Option<String>,
    /// In their place the log-SNR that a share u of the draws is above, falling in u: a distribution of noise levels, which
    /// is cut to those that the schedule has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_snr: Option<String>,
    /// Numbers by name, for the formula.
    #[serde(skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// A formula for the times that are drawn, by their density or their quantiles. It is one of `p`, `quantile` and `log_snr`,
/// and may use
///
///   t         in `p`, the time: 0 is data, 1 is noise
///   r         in `p`, 1 - t with all its digits, for a density that is infinite at t = 1
///   u         in `quantile` and `log_snr`, the share of the draws, from 0 to 1
///
/// A logit-normal density is p = "exp(-logit(t)^2 / 2) / (t * r)", the same as quantile = "sigmoid(probit(u))". Of one of the
/// two the other is found: to 1e-12 and better where the formula is smooth.
///
/// It is refused where p is below 0 or not finite, or has no integral; where the quantile leaves [0, 1] or does not rise.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "p": "1 + k * t^2", "params": { "k": 3.0 } }))]
#[schemars(example = serde_json::json!({ "quantile": "sigmoid(mean + std * probit(u))", "params": { "mean": 0.0, "std": 1.0 } }))]
#[schemars(example = serde_json::json!({ "log_snr": "-2 * (mean + std * probit(u))", "params": { "mean": -0.4, "std": 1.0 } }))]
pub struct Expr {
    spec: Spec,
    of: Of,
}

#[derive(Clone, Debug)]
enum Of {
    Density(Density),
    Quantile(Formula),
    LogSnr(Formula),
}

/// The least share of the draws that is told from none.
const LEAST: f64 = 1e-300;
/// Roundings that are none of the formula's doing.
const ROUNDING: f64 = 1e-12;

impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let mut reader = Reader::new(&spec.params)?;
        let of = match (&spec.p, &spec.quantile, &spec.log_snr) {
            (Some(p), None, None) => Of::Density(Density::new(reader.read("p", p, &density::NAMES)?)?),
            (None, Some(quantile), None) => Of::Quantile(reader.read("quantile", quantile, &["u"])?),
            (None, None, Some(log_snr)) => Of::LogSnr(reader.read("log_snr", log_snr, &["u"])?),
            _ => return Err(ParamError::new("takes one of `p`, `quantile` and `log_snr`").into()),
        };
        reader.finish()?;
        match &of {
            Of::Density(_) => {}
            Of::Quantile(formula) => rises("quantile", formula, 1.0, |t| (-ROUNDING..=1.0 + ROUNDING).contains(&t))?,
            Of::LogSnr(formula) => rises("log_snr", formula, -1.0, |lambda| !lambda.is_nan())?,
        }
        Ok(Self { spec, of })
    }
}

impl From<Expr> for Spec {
    fn from(expr: Expr) -> Self {
        expr.spec
    }
}

/// That a formula of u has the values it may have, and rises, or falls for a `sign` of -1.
fn rises(field: &str, formula: &Formula, sign: f64, may: fn(f64) -> bool) -> Result<(), ParamError> {
    let mut before: Option<f64> = None;
    for u in check::unit(1000).filter(|u| *u < 1.0) {
        let value = formula.at(&[u]);
        let must = if sign > 0.0 { "from 0 to 1" } else { "a number" };
        check::demand(may(value), field, value, format!("u = {}", Shown(u)), must)?;
        if let Some(before) = before {
            let word = if sign > 0.0 { "no less" } else { "no more" };
            let right = sign * value >= sign * before - ROUNDING * (1.0 + value.abs());
            check::demand(
                right,
                field,
                value,
                format!("u = {}", Shown(u)),
                &format!("{word} than {}, just before", Shown(before)),
            )?;
        }
        before = Some(value);
    }
    Ok(())
}

/// The share of the draws up to a value of a formula of u that rises, or falls for a `sign` of -1.
fn share_up_to(formula: &Formula, value: f64, sign: f64) -> f64 {
    match sign * formula.at(&[LEAST]) > sign * value {
        true => 0.0,
        false => root::find(value, sign, |u| formula.slope(u)),
    }
}

/// The share of the draws up to a level of a falling log-SNR.
fn share_up_to_level(formula: &Formula, noise: &Noise) -> f64 {
    let log_snr = noise.log_snr();
    match log_snr.is_infinite() {
        true => f64::from(log_snr < 0.0),
        false => share_up_to(formula, log_snr, -1.0),
    }
}

/// The shares of the whole distribution before the schedule's first level and up to its last.
fn ends(formula: &Formula, schedule: &dyn Schedule) -> [f64; 2] {
    [0.0, 1.0].map(|t| share_up_to_level(formula, &schedule.at(t)))
}

impl Expr {
    /// The mean density over the thousandth that t is in, which is an answer for single times too.
    fn mean_density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let end = (t * 1000.0).ceil().clamp(1.0, 1000.0);
        let below = if end > 1.0 { self.cumulative((end - 1.0) / 1000.0, schedule) } else { 0.0 };
        1000.0 * (self.cumulative(end / 1000.0, schedule) - below)
    }
}

impl TimestepSampler for Expr {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        match &self.of {
            Of::Density(density) => density.quantile(u),
            Of::Quantile(formula) => formula.at(&[u]).clamp(0.0, 1.0),
            Of::LogSnr(formula) => {
                let [first, last] = ends(formula, schedule);
                schedule.t_of(formula.at(&[first + u * (last - first)]))
            }
        }
    }

    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        match &self.of {
            Of::Density(density) => density.cumulative(t),
            Of::Quantile(formula) => share_up_to(formula, t, 1.0),
            Of::LogSnr(formula) => {
                let [first, last] = ends(formula, schedule);
                ((share_up_to_level(formula, &schedule.at(t)) - first) / (last - first)).clamp(0.0, 1.0)
            }
        }
    }

    /// The slope of the quantile the other way up; where it has none, because single times are drawn or some are left out,
    /// the mean over a thousandth.
    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let found = match &self.of {
            Of::Density(density) => return density.at(t),
            Of::Quantile(formula) => {
                let u = formula.slope(self.cumulative(t, schedule));
                let reached = (u.value - t).abs() < 1e-9;
                if reached { 1.0 / u.slope } else { f64::NAN }
            }
            Of::LogSnr(formula) => {
                let ([first, last], noise) = (ends(formula, schedule), schedule.at(t));
                let u = formula.slope(share_up_to_level(formula, &noise));
                let reached = (u.value - noise.log_snr()).abs() < 1e-6;
                if reached { noise.log_snr_slope() / u.slope / (last - first) } else { f64::NAN }
            }
        };
        if found.is_finite() && found >= 0.0 { found } else { self.mean_density(t, schedule) }
    }
}

register!(TimestepSampler, "expr", Expr);
