//! A density's distribution function and quantiles, found numerically once and kept: to about 1e-14 where the density is
//! smooth, and to 1e-12 where it has jumps, kinks or infinite ends.
//!
//! The integral is taken over x = ln(t/(1 - t)), which gives both ends of [0, 1] room: there a density that is infinite at an
//! end, such as t^-0.4, is a falling exponential like any other. Cells of x are halved until a rule of twelve points is exact
//! in them; then each is cut into parts (`parts.rs`), so that a quantile has few steps to take.

mod parts;
mod rule;

use std::sync::Arc;

use sconce_sdk::ParamError;

use crate::check::{self, Shown};
use crate::engine::{Dual, Formula};
use parts::Part;
use rule::{FINE, Sum, WIDE};

/// How the field is called that the formula is from.
const FIELD: &str = "p";
/// The names that it may use: the time, and what is left of it with all its digits.
pub(crate) const NAMES: [&str; 2] = ["t", "r"];
/// What helps at t = 1.
const WRITE_R: &str = "write r for 1 - t, which keeps its digits there; or write its `quantile`";
/// The most cells; fewer for a formula of slow functions.
const MOST: usize = 20_000;
/// The error of a cell that is small enough, as a share of the whole.
const ERROR: f64 = 2e-16;
/// Where x begins: t = 1e-304.
const FIRST: f64 = -700.0;
/// Where x ends for a density that does not use r: beyond, t cannot be told from 1.
const LAST: f64 = 36.0;

/// A stretch of x, with its mass.
type Cell = (f64, f64, f64);

/// A density, normalised, with its distribution.
#[derive(Clone, Debug)]
pub(crate) struct Density {
    formula: Formula,
    parts: Arc<[Part]>,
    total: f64,
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// t and 1 - t, each with all its digits.
fn both(x: f64) -> [f64; 2] {
    let e = (-x.abs()).exp();
    let (small, large) = (e / (1.0 + e), 1.0 / (1.0 + e));
    if x < 0.0 { [small, large] } else { [large, small] }
}

impl Density {
    /// Of a formula of [`NAMES`]. It must be finite and not negative, and have a mass.
    pub fn new(formula: Formula) -> Result<Self, ParamError> {
        let whole = formula.uses(1);
        let ends =
            [-300.0, -100.0, -40.0, -20.0, -10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 10.0, 20.0, LAST, 100.0, 300.0, 700.0];
        let ends = ends.into_iter().filter(|x| whole || *x <= LAST);
        let most = MOST / (1 + 2 * formula.slow());
        let mut made = Self { formula, parts: Arc::new([]), total: 0.0 };
        let (mut cells, mut sum) = (Vec::<Cell>::new(), Sum::default());
        let mut from = FIRST;
        let mut open = Vec::new();
        let mut about = 0.0;
        for to in ends {
            let mass = made.checked(from, to)?;
            about += mass;
            open.push((from, to, mass));
            from = to;
        }
        open.reverse();
        while let Some((from, to, mass)) = open.pop() {
            let mid = 0.5 * (from + to);
            let [left, right] = [made.checked(from, mid)?, made.checked(mid, to)?];
            about = about.max(left + right);
            let near = (left + right - mass).abs() <= ERROR * about.max(made.total) + 4e-16 * mass;
            if near || to - from < 1e-13 * mid.abs().max(0.1) {
                cells.extend([(from, mid, left), (mid, to, right)]);
                sum = sum.plus(left).plus(right);
                made.total = sum.value();
            } else {
                open.extend([(mid, to, right), (from, mid, left)]);
            }
            if cells.len() + open.len() > most {
                let what = format!("is too rough to integrate near t = {}", Shown(logistic(mid)));
                let error = ParamError::new(what).within(FIELD);
                return Err(if mid > 15.0 && !whole { error.help(WRITE_R) } else { error });
            }
        }
        made.check_mass(&cells)?;
        made.parts = made.cut(&cells).into();
        Ok(made)
    }

    fn check_mass(&self, cells: &[Cell]) -> Result<(), ParamError> {
        let (first, last) = (cells[0].0, cells[cells.len() - 1].1);
        let wrong = |what: String| ParamError::new(what).within(FIELD);
        if !(self.total.is_finite() && self.total > 0.0) {
            return Err(wrong(format!("has the integral {} over [0, 1], and must have one above 0", self.total)));
        }
        // What lies beyond the ends is about the integrand there times the way to them.
        if self.term(first) * 100.0 > 1e-9 * self.total {
            let help = "where it has an integral all the same, write its `quantile`";
            return Err(wrong("grows so steeply towards t = 0 that no integral is found".into()).help(help));
        }
        if self.term(last) * 10.0 > 1e-9 * self.total {
            return Err(wrong("grows so steeply towards t = 1 that no integral is found".into()).help(WRITE_R));
        }
        Ok(())
    }

    /// The formula's value at x per unit of x.
    fn term(&self, x: f64) -> f64 {
        let [t, r] = both(x);
        self.formula.at(&[t, r]) * t * r
    }

    /// The same, and its derivative by x.
    fn term_and_slope(&self, x: f64) -> Dual {
        let [t, r] = both(x);
        let p = self.formula.along(&[Dual { value: t, slope: t * r }, Dual { value: r, slope: -t * r }]);
        Dual { value: p.value * t * r, slope: t * r * (p.slope + p.value * (r - t)) }
    }

    /// The integral, by a rule of few points or of many.
    fn integral(&self, from: f64, to: f64, rule: &[[f64; 2]]) -> f64 {
        let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
        rule.iter().map(|[x, w]| self.term(middle + half * x) * w).sum::<f64>() * half
    }

    /// The integral, of values that are what a density's are.
    fn checked(&self, from: f64, to: f64) -> Result<f64, ParamError> {
        let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
        let mut sum = 0.0;
        for [x, w] in WIDE.iter() {
            let [t, r] = both(middle + half * x);
            let value = self.formula.at(&[t, r]);
            let right = value.is_finite() && value >= 0.0;
            if !right {
                check::demand(right, FIELD, value, format!("t = {}", Shown(t)), "0 or a number above it")?;
            }
            sum += value * t * r * w;
        }
        Ok(sum * half)
    }

    /// Draws per unit of t.
    pub fn at(&self, t: f64) -> f64 {
        self.formula.at(&[t, 1.0 - t]) / self.total
    }

    /// The share of the draws at t or before it.
    pub fn cumulative(&self, t: f64) -> f64 {
        if t <= 0.0 || t >= 1.0 {
            return t.clamp(0.0, 1.0);
        }
        let x = t.ln() - (-t).ln_1p();
        let part = &self.parts[self.parts.partition_point(|p| p.to < x).min(self.parts.len() - 1)];
        let x = x.clamp(part.from, part.to);
        ((part.before + self.integral(part.from, x, FINE.as_slice())) / self.total).clamp(0.0, 1.0)
    }

    /// The time below which a share u of the draws is.
    pub fn quantile(&self, u: f64) -> f64 {
        let aim = u.max(0.0) * self.total;
        // Nothing is drawn beyond the last part that has a mass.
        if aim >= self.total {
            return logistic(self.parts.iter().rfind(|p| p.mass > 0.0).map_or(f64::INFINITY, |p| p.to));
        }
        // The last part that begins at or below the aim: times without density are skipped.
        let x = self.place(&self.parts[self.parts.partition_point(|p| p.before <= aim).max(1) - 1], aim);
        if x <= FIRST + 1e-6 { 0.0 } else { logistic(x) }
    }
}
