//! How much the error counts, as a formula.

use sconce_sdk::{Folded, ParamError, prelude::*};

use crate::engine::{Formula, Params, Reader};
use crate::{check, language, levels};

/// The fields of a weighting's formula.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The factor on the error of the data, |x0 - x0'|². The factor on any objective's output follows by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_x0: Option<String>,
    /// In its place the factor on the error of the output, |y - y'|², of a, b and D too: "1" is the weighting `native`. What
    /// this puts on the data depends on the objective, unless it has the factor sigma^2/D^2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_output: Option<String>,
    /// Numbers by name, for the formula.
    #[serde(skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// A formula for how much the error counts at a noise level. It may use
///
///   snr       alpha²/sigma²; at most e^80, where there is no noise
///   lambda    ln(snr), at most 80
///   alpha, sigma, d_alpha, d_sigma, d_lambda: the level and its derivatives by t. d_lambda is below 0; a weighting that a
///             paper gives over log-SNR has the factor -d_lambda/2
///   a, b, D   in `on_output`: y = a x0 + b eps, and D = alpha b - sigma a
///
/// It is refused where it is below 0 or not finite between log-SNR 20 and -20.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "on_x0": "min(snr, gamma)", "params": { "gamma": 5.0 } }))]
#[schemars(example = serde_json::json!({ "on_output": "snr / (1 + snr) * sigma^2 / D^2" }))]
pub struct Expr {
    spec: Spec,
    of: Of,
}

#[derive(Clone, Debug)]
enum Of {
    X0(Formula),
    Output(Formula),
}

const ON_OUTPUT: [&str; 10] = ["alpha", "sigma", "snr", "lambda", "d_alpha", "d_sigma", "d_lambda", "a", "b", "D"];

impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let mut reader = Reader::new(&spec.params)?;
        check::one_of(&[("on_x0", spec.on_x0.is_some()), ("on_output", spec.on_output.is_some())])?;
        let on_x0 = reader.maybe("on_x0", &spec.on_x0, &levels::NAMES)?;
        let on_output = reader.maybe("on_output", &spec.on_output, &ON_OUTPUT)?;
        reader.finish()?;
        let of = match (on_x0, on_output) {
            (Some(formula), _) => Of::X0(formula),
            (None, formula) => Of::Output(formula.expect("one of them is there")),
        };
        let made = Self { spec, of };
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
        let demand = |field, value: f64, of: &str| {
            let place = format!("{}{of}", levels::place(n));
            check::demand(value.is_finite() && value >= 0.0, field, value, place, "0 or a number above it")
        };
        match &self.of {
            Of::X0(formula) => demand("on_x0", formula.at(&levels::variables(n)), ""),
            Of::Output(_) => [([1.0, 0.0], "x0"), ([0.0, 1.0], "epsilon"), ([-n.sigma, n.alpha], "v")]
                .into_iter()
                .try_for_each(|(target, name)| demand("on_output", self.on_output(n, target), &format!(" for {name}"))),
        }
    }
}

impl Weighting for Expr {
    /// At the variance-preserving level, per unit of log-SNR where it looks at the clock; for a formula of the output, what
    /// it amounts to for v. The step asks for `on_output` alone.
    fn on_x0(&self, log_snr: f64) -> f64 {
        let n = levels::with_a_trace(&levels::preserving(log_snr));
        match &self.of {
            Of::X0(formula) => {
                let [alpha, sigma, snr, lambda, d_alpha, d_sigma, _] = levels::variables(&n);
                formula.at(&[alpha, sigma, snr, lambda, d_alpha, d_sigma, levels::PACE])
            }
            Of::Output(_) => self.on_output(&n, [-n.sigma, n.alpha]) / n.sigma.powi(2),
        }
    }

    fn on_output(&self, noise: &Noise, target: [f64; 2]) -> f64 {
        let n = levels::with_a_trace(noise);
        let d = n.determinant(target);
        match &self.of {
            Of::X0(formula) => formula.at(&levels::variables(&n)) * (n.sigma / d).powi(2),
            Of::Output(formula) => {
                let [alpha, sigma, snr, lambda, d_alpha, d_sigma, d_lambda] = levels::variables(&n);
                formula.at(&[alpha, sigma, snr, lambda, d_alpha, d_sigma, d_lambda, target[0], target[1], d])
            }
        }
    }
}

register!(Weighting, "expr", Expr);
