//! How a difference counts, as a formula whose derivative is the gradient.

use rayon::prelude::*;
use sconce_sdk::{Folded, ParamError, prelude::*};

use crate::check::{self, Shown};
use crate::engine::{Dual, Formula, Params, Reader};
use crate::{language, levels};

/// The fields of a distance's formulas.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// The distance of a difference d, with the width c.
    pub rho: String,
    /// The width at a noise level. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<String>,
    /// Numbers by name, for the formulas.
    #[serde(default, skip_serializing_if = "Params::is_empty")]
    pub params: Params,
}

/// A formula for how far an output is from its target, element by element. It may use
///
///   d         the difference
///   c         the width, which `width` gives
///
/// and one for the width may use t, alpha, sigma, snr, lambda, d_alpha, d_sigma and d_lambda. A distance that is d² where d is
/// small leaves a weighting its meaning. The gradient is the exact derivative, and 0 at d = 0.
///
/// It must be 0 at 0, the same for d and -d, and grow with |d|: that is tried for |d| from 10^-6 to 10^3, at the widths of
/// log-SNR 20 to -20. It is computed for each element of the output: write it short.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Spec", into = "Spec")]
#[schemars(transform = language::teach)]
#[schemars(example = serde_json::json!({ "rho": "c^2 * log1p((d / c)^2)", "width": "lerp(1, c1, t)", "params": { "c1": 0.1 } }))]
pub struct Expr {
    spec: Spec,
    rho: Formula,
    width: Option<Formula>,
}

const OF_WIDTH: [&str; 8] = ["alpha", "sigma", "snr", "lambda", "d_alpha", "d_sigma", "d_lambda", "t"];

impl TryFrom<Spec> for Expr {
    type Error = Folded;

    fn try_from(spec: Spec) -> Result<Self, Folded> {
        let mut reader = Reader::new(&spec.params)?;
        let rho = reader.read("rho", &spec.rho, &["d", "c"])?;
        let width = reader.maybe("width", &spec.width, &OF_WIDTH)?;
        reader.finish()?;
        let made = Self { spec, rho, width };
        let mut widths = Vec::new();
        for n in levels::tried() {
            // Where the rectified flow has this level.
            let t = n.sigma / (n.alpha + n.sigma);
            let width = made.width(t, &n);
            let place = format!("t = {}, {}", Shown(t), levels::place(&n));
            check::demand(width.is_finite() && width > 0.0, "width", width, place, "a number above 0")?;
            widths.push(width);
        }
        widths.sort_by(f64::total_cmp);
        widths.dedup();
        widths.iter().step_by(1 + widths.len() / 20).try_for_each(|c| made.check(*c))?;
        Ok(made)
    }
}

impl From<Expr> for Spec {
    fn from(expr: Expr) -> Self {
        expr.spec
    }
}

impl Expr {
    fn check(&self, c: f64) -> Result<(), ParamError> {
        let demand = |holds, value: f64, d: f64, must: &str| {
            check::demand(holds, "rho", value, format!("d = {}, c = {}", Shown(d), Shown(c)), must)
        };
        let rho = |d: f64| self.at(d, c)[0];
        demand(rho(0.0) == 0.0, rho(0.0), 0.0, "0")?;
        let mut before = 0.0;
        for k in -48..=24 {
            let d = 10f64.powf(f64::from(k) / 8.0);
            let [value, slope] = self.at(d, c);
            demand(value.is_finite(), value, d, "a finite number")?;
            let even = (rho(-d) - value).abs() <= 1e-12 * value.abs();
            demand(even, rho(-d), -d, &format!("what it is at {}, {}", Shown(d), Shown(value)))?;
            // One that levels off may lose a rounding.
            let grows = value >= before * (1.0 - 1e-12);
            demand(grows, value, d, &format!("no less than {}, which it is nearer to 0", Shown(before)))?;
            if !(slope.is_finite() && slope >= -1e-12 * value / d) {
                let [slope, d, c] = [slope, d, c].map(Shown);
                let what = format!("the derivative is {slope} at d = {d}, c = {c}, and must be 0 or a number above it");
                return Err(ParamError::new(what).within("rho"));
            }
            before = value;
        }
        Ok(())
    }
}

impl Distance for Expr {
    fn at(&self, difference: f64, width: f64) -> [f64; 2] {
        let Dual { value, slope } = self.rho.along(&[Dual::variable(difference), Dual { value: width, slope: 0.0 }]);
        // What is even has no slope there, or a corner.
        [value, if difference == 0.0 { 0.0 } else { slope }]
    }

    /// In pieces of one length, however many threads there are; no element looks at another.
    fn at_each(&self, differences: &[f64], width: f64, out: &mut [[f64; 2]]) {
        const PIECE: usize = 8192;
        let piece = |(differences, out): (&[f64], &mut [[f64; 2]])| {
            self.rho.each(differences, &[width], out);
            out.iter_mut().zip(differences).filter(|(_, d)| **d == 0.0).for_each(|([_, slope], _)| *slope = 0.0);
        };
        match differences.len() < 2 * PIECE {
            true => piece((differences, out)),
            false => differences.par_chunks(PIECE).zip(out.par_chunks_mut(PIECE)).for_each(piece),
        }
    }

    fn width(&self, t: f64, noise: &Noise) -> f64 {
        let [alpha, sigma, snr, lambda, d_alpha, d_sigma, d_lambda] = levels::variables(noise);
        let values = [alpha, sigma, snr, lambda, d_alpha, d_sigma, d_lambda, t];
        self.width.as_ref().map_or(1.0, |width| width.at(&values))
    }
}

register!(Distance, "expr", Expr);
