//! What the network learns, as two formulas.

use sconce_sdk::{Folded, ParamError, prelude::*};

use crate::engine::{Formula, Params, Reader};
use crate::{check, language, levels};

/// The fields of an objective's formulas.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The factor on the data in what the network learns.
    pub a: String,
    /// The factor on the noise in it.
    pub b: String,
    /// Factor on x_t before it enters the network. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_scale: Option<String>,
    /// Numbers by name, for the formulas.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// Two formulas for what the network learns, y = a x0 + b eps. They may use
///
///   alpha, sigma, d_alpha, d_sigma: the level and its derivatives by t
///   snr, lambda, d_lambda: alpha²/sigma², at most e^80; its logarithm; and the derivative of that
///
/// v is a = "-sigma", b = "alpha". Data and noise follow from x_t and y by the determinant D = alpha b - sigma a; formulas
/// whose D is 0 at some level between log-SNR 20 and -20, or that are not finite there, are refused. Where D falls to 0 at an
/// end of the schedule, `sconce check` says what it means.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "a": "-sigma", "b": "alpha" }))]
pub struct Expr {
    spec: Spec,
    a: Formula,
    b: Formula,
    input_scale: Option<Formula>,
}

impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let mut reader = Reader::new(&spec.params)?;
        let a = reader.read("a", &spec.a, &levels::NAMES)?;
        let b = reader.read("b", &spec.b, &levels::NAMES)?;
        let input_scale = reader.maybe("input_scale", &spec.input_scale, &levels::NAMES)?;
        reader.finish()?;
        let made = Self { spec, a, b, input_scale };
        levels::tried().try_for_each(|n| made.check(&n))?;
        Ok(made)
    }
}

impl From<Expr> for Spec {
    fn from(expr: Expr) -> Self {
        expr.spec
    }
}

impl Expr {
    fn check(&self, n: &Noise) -> Result<(), ParamError> {
        let ([a, b], scale) = (self.target(n), self.input_scale(n));
        for (field, value) in [("a", a), ("b", b)] {
            check::demand(value.is_finite(), field, value, levels::place(n), "a finite number")?;
        }
        let usable = scale.is_finite() && scale > 0.0;
        check::demand(usable, "input_scale", scale, levels::place(n), "a number above 0")?;
        // Relative to its terms, since they cancel.
        let (d, size) = (n.determinant([a, b]), (n.alpha * b).abs() + (n.sigma * a).abs());
        if d.abs() <= 1e-9 * size {
            let what = format!("says nothing of the data at {}: alpha b - sigma a is {d}", levels::place(n));
            return Err(ParamError::new(what).within("a"));
        }
        Ok(())
    }
}

impl Objective for Expr {
    fn target(&self, noise: &Noise) -> [f64; 2] {
        let variables = levels::variables(noise);
        [self.a.at(&variables), self.b.at(&variables)]
    }

    fn input_scale(&self, noise: &Noise) -> f64 {
        self.input_scale.as_ref().map_or(1.0, |scale| scale.at(&levels::variables(noise)))
    }
}

register!(Objective, "expr", Expr);
