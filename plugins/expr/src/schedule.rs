//! How much signal and noise there is, as formulas of time. Their derivatives are exact, and `flow` and the solvers use
//! them as they use those of a schedule in Rust.

mod form;

use std::sync::Arc;

use sconce_sdk::{Discrete, Folded, ParamError, prelude::*};

use crate::check::{self, Shown};
use crate::engine::{Dual, Params};
use crate::{language, root};
use form::{Form, betas};

/// The fields of a schedule's formulas.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spec {
    /// The factor on the data. With `log_snr` it may use lambda, the log-SNR. Default: alpha² + sigma² = 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<String>,
    /// The factor on the noise. Default: alpha² + sigma² = 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<String>,
    /// ln(alpha²/sigma²), in place of `sigma`. It may be infinite at both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_snr: Option<String>,
    /// In place of these the variance that step i of `grid` adds (DDPM), of i from 0, n = `grid` and s = i/(n - 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<String>,
    /// Points of a discrete schedule, at t = 1/grid, 2/grid … 1. Training draws no other times. Default: continuous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid: Option<usize>,
    /// Rows and columns of latents, for formulas that use height and width, where no picture's size is known. Default: 32
    /// and 32, which is 256 pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_size: Option<[usize; 2]>,
    /// Numbers by name, for the formulas.
    #[serde(skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// Formulas for the signal and the noise at a time. They may use
///
///   t         the time: 0 is data, 1 is noise
///   height, width   rows and columns of the latents, for a schedule that depends on the picture's size
///
/// Give `alpha` and `sigma`; or one of them, where alpha² + sigma² = 1 (both keep more digits where one is near 1); or
/// `log_snr`, with the same sum, or with `alpha`: "1" keeps the picture as it is and lets the noise grow, "sigmoid(lambda /
/// 2)" is the straight path of a rectified flow. Or `beta` and `grid` for DDPM's kind.
///
/// It is refused where alpha or sigma is below 0 or not finite, alpha grows or log-SNR does not fall, at a thousand times and
/// every point of the grid. What is not finite at an end alone, such as the slope of a root, is that of the nearest time inside.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "alpha": "cos(pi / 2 * t)", "sigma": "sin(pi / 2 * t)" }))]
#[schemars(example = serde_json::json!({ "log_snr": "lerp(most, -most, t)", "params": { "most": 12.0 } }))]
#[schemars(example = serde_json::json!({ "beta": "lerp(sqrt(b0), sqrt(b1), s)^2", "grid": 1000, "params": { "b0": 0.00085, "b1": 0.012 } }))]
pub struct Expr {
    spec: Spec,
    form: Form,
    size: [usize; 2],
}

/// This near to an end, what is not finite is taken from further inside.
const END: f64 = 1e-6;
impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let size = spec.base_size.unwrap_or([32, 32]);
        let form = Form::read(&spec, size)?;
        let made = Self { spec, form, size };
        if made.spec.base_size.is_some() && !made.form.depends_on_size() {
            return Err(ParamError::new("no formula uses height or width").within("base_size").into());
        }
        made.check()?;
        if made.form.depends_on_size() {
            for side in [8, 16, 64, 128, 256] {
                made.of_size([side, side]).check()?;
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
    fn of_size(&self, size: [usize; 2]) -> Self {
        let mut sized = Self { size, ..self.clone() };
        if let (Form::Betas { beta, table }, Some(n)) = (&mut sized.form, self.spec.grid) {
            *table = Discrete::from_betas(betas(beta, n, size));
        }
        sized
    }

    /// The fields that alpha and sigma come from.
    fn fields(&self) -> [&'static str; 2] {
        match self.form {
            Form::Both { .. } => ["alpha", "sigma"],
            Form::Alpha(_) => ["alpha"; 2],
            Form::Sigma(_) => ["sigma"; 2],
            Form::LogSnr(_) => ["log_snr"; 2],
            Form::LogSnrAnd { .. } => ["alpha", "log_snr"],
            Form::Betas { .. } => ["beta"; 2],
        }
    }

    fn check(&self) -> Result<(), ParamError> {
        let n = self.spec.grid.unwrap_or(1000);
        let [of_alpha, of_sigma] = self.fields();
        let mut before: Option<(f64, Noise)> = None;
        for t in check::unit(n) {
            let noise = self.at(t);
            let place = match self.form.depends_on_size() {
                true => format!("t = {}, height = {}, width = {}", Shown(t), self.size[0], self.size[1]),
                false => format!("t = {}", Shown(t)),
            };
            let wrong = |field: &str, what: String| Err(ParamError::new(what).within(field));
            for (field, name, value, slope) in
                [(of_alpha, "alpha", noise.alpha, noise.d_alpha), (of_sigma, "sigma", noise.sigma, noise.d_sigma)]
            {
                if !(value.is_finite() && value >= 0.0) {
                    return wrong(
                        field,
                        format!("{name} is {} at {place}, and must be 0 or a number above it", Shown(value)),
                    );
                }
                if !slope.is_finite() {
                    return wrong(field, format!("the derivative of {name} is {slope} at {place}, inside of (0, 1)"));
                }
            }
            if noise.alpha + noise.sigma == 0.0 {
                return wrong(of_sigma, format!("there is no signal and no noise at {place}"));
            }
            if let Some((earlier, less)) = before {
                let (from, to) = (less.log_snr(), noise.log_snr());
                // Very near to another time they may be equal.
                if !(if t - earlier > 0.1 / n as f64 { to < from } else { to <= from + 1e-9 }) {
                    let what = "log-SNR must fall as t grows, and";
                    return wrong(of_sigma, format!("{what} is {from} at t = {} and {to} at {place}", Shown(earlier)));
                }
                if noise.alpha > less.alpha + 1e-12 {
                    let (from, to) = (less.alpha, noise.alpha);
                    return wrong(
                        of_alpha,
                        format!("alpha grows, from {from} at t = {} to {to} at {place}", Shown(earlier)),
                    );
                }
            }
            before = Some((t, noise));
        }
        Ok(())
    }
}

impl Schedule for Expr {
    fn at(&self, t: f64) -> Noise {
        let t = t.clamp(0.0, 1.0);
        let fields = |n: Noise| [n.alpha, n.sigma, n.d_alpha, n.d_sigma];
        let mut found = fields(self.form.at(t, self.size));
        // From further inside only if that is what it takes.
        for step in [1e-14, 1e-10, 1e-7, 1e-4] {
            if found.iter().all(|x| x.is_finite()) || t.min(1.0 - t) > END {
                break;
            }
            let inside = fields(self.form.at(if t < 0.5 { t + step } else { t - step }, self.size));
            found.iter_mut().zip(inside).filter(|(x, _)| !x.is_finite()).for_each(|(x, inside)| *x = inside);
        }
        let [alpha, sigma, d_alpha, d_sigma] = found;
        Noise { alpha, sigma, d_alpha, d_sigma }
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        if let Form::Betas { table, .. } = &self.form {
            return table.t_of(log_snr);
        }
        let [height, width] = self.size.map(|x| Dual { value: x as f64, slope: 0.0 });
        let at = |t: f64| match &self.form {
            Form::LogSnr(f) | Form::LogSnrAnd { log_snr: f, .. } => f.along(&[Dual::variable(t), height, width]),
            _ => {
                let noise = self.at(t);
                Dual { value: noise.log_snr(), slope: noise.log_snr_slope() }
            }
        };
        match (at(0.0).value <= log_snr, at(1.0).value >= log_snr) {
            (true, _) => 0.0,
            (_, true) => 1.0,
            _ => root::find(log_snr, -1.0, at),
        }
    }

    fn grid(&self) -> Option<usize> {
        self.spec.grid
    }

    fn at_size(&self, height: usize, width: usize) -> Option<Arc<dyn Schedule>> {
        if !self.form.depends_on_size() {
            return None;
        }
        Some(Arc::new(self.of_size([height, width])))
    }
}

register!(Schedule, "expr", Expr);
