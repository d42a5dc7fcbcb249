//! The learning rate over the run, as a formula.

use sconce_sdk::{Folded, prelude::*};

use crate::engine::{Formula, Params, Reader};
use crate::{check, language};

/// The fields of a learning rate's formula.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The factor on every learning rate, after the warm-up.
    pub factor: String,
    /// Images over which the rate rises from nothing, in a straight line: a factor on the formula's.
    #[serde(default)]
    pub warmup_images: u64,
    /// Numbers by name, for the formula.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// A formula for the factor on every learning rate. It may use
///
///   n         images seen before this step
///   total     images of the run
///   p         the share of the way from the end of the warm-up to the end of the run, from 0 to 1
///   warmup    `warmup_images`
///
/// Half a cosine down is "(1 + cos(pi * p)) / 2". It is refused where it is below 0 or not finite in runs of 1 to 10^9
/// images. A value below 0 by a rounding counts as 0.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "factor": "final + (1 - final) * (1 - p)^2", "params": { "final": 0.1 } }))]
pub struct Expr {
    spec: Spec,
    factor: Formula,
}

/// Roundings below 0 that are none of the formula's doing.
const ROUNDING: f64 = 1e-12;

impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let mut reader = Reader::new(&spec.params)?;
        let factor = reader.read("factor", &spec.factor, &["n", "total", "p", "warmup"])?;
        reader.finish()?;
        let made = Self { spec, factor };
        for total in (0..=9).flat_map(|k| [1, 3].map(|m| m * 10u64.pow(k))) {
            for i in 0..=100 {
                let n = (total as f64 * f64::from(i) / 100.0) as u64;
                let value = made.raw(n, total);
                let right = value.is_finite() && value >= -ROUNDING;
                let place = format!("n = {n} of total = {total}");
                check::demand(right, "factor", value, place, "0 or a number above it")?;
            }
        }
        Ok(made)
    }
}

impl From<Expr> for Spec {
    fn from(expr: Expr) -> Self {
        expr.spec
    }
}

impl Expr {
    fn raw(&self, images_seen: u64, images_total: u64) -> f64 {
        let warmup = self.spec.warmup_images;
        let length = images_total.saturating_sub(warmup).max(1);
        let done = (images_seen.saturating_sub(warmup) as f64 / length as f64).min(1.0);
        self.factor.at(&[images_seen as f64, images_total as f64, done, warmup as f64])
    }
}

impl LrSchedule for Expr {
    fn factor(&self, images_seen: u64, images_total: u64) -> f64 {
        // Never quite 0: a first step that moves nothing would be wasted.
        let warm = ((images_seen + 1) as f64 / (self.spec.warmup_images + 1) as f64).min(1.0);
        let factor = self.raw(images_seen, images_total);
        warm * if factor < 0.0 { 0.0 } else { factor }
    }
}

register!(LrSchedule, "expr", Expr);
