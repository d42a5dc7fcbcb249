//! How an average follows the weights, as a formula.

use sconce_sdk::{Folded, prelude::*};

use crate::engine::{Formula, Params, Reader};
use crate::{check, language};

/// The fields of an average's formula.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The share of the average that a step keeps.
    pub decay: String,
    /// Numbers by name, for the formula.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// A formula for the share of the average that a step keeps. It may use
///
///   n         images seen, those of this step too
///   batch     images of this step
///   k         updates made, this one too: n/batch
///
/// It is cut to [0, 1] for roundings' sake, and refused where it is outside for some n up to 10^9 and batch up to 4096. The
/// first step, k = 1, should keep nothing: the average is of untrained weights there.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "decay": "min((k - 1) / (k + 9), most)", "params": { "most": 0.9999 } }))]
pub struct Expr {
    spec: Spec,
    decay: Formula,
}

/// Roundings beyond [0, 1] that are none of the formula's doing.
const ROUNDING: f64 = 1e-12;

impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let mut reader = Reader::new(&spec.params)?;
        let decay = reader.read("decay", &spec.decay, &["n", "batch", "k"])?;
        reader.finish()?;
        let made = Self { spec, decay };
        for batch in [1, 2, 4, 7, 16, 64, 256, 1000, 4096] {
            // Every update at first, then more and more between two.
            let mut k = 1;
            while k * batch <= 1_000_000_000 {
                let value = made.raw(k * batch, batch);
                let inside = (-ROUNDING..=1.0 + ROUNDING).contains(&value);
                let place = format!("n = {}, batch = {batch}", k * batch);
                check::demand(inside, "decay", value, place, "from 0 to 1")?;
                k += 1 + k / 16;
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
    fn raw(&self, images_seen: u64, batch: u64) -> f64 {
        let batch = batch.max(1) as f64;
        // A step's own images are among those seen.
        let n = (images_seen as f64).max(batch);
        self.decay.at(&[n, batch, n / batch])
    }
}

impl EmaStrategy for Expr {
    fn tracks(&self) -> Vec<Track> {
        vec![Track::default()]
    }

    fn decay(&self, _: usize, images_seen: u64, batch: u64) -> f64 {
        self.raw(images_seen, batch).clamp(0.0, 1.0)
    }
}

register!(EmaStrategy, "expr", Expr);
