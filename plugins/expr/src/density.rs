//! A density's distribution function and quantiles, found numerically once and kept: to about 1e-14 where the density is
//! smooth, and to 1e-12 where it has jumps, kinks or infinite ends.
//!
//! The integral is taken over x = ln(t/(1 - t)), which gives both ends of [0, 1] room: there a density that is infinite at an
//! end, such as t^-0.4, is a falling exponential like any other.

use std::sync::LazyLock;

use sconce_sdk::ParamError;

use crate::check::Shown;
use crate::engine::Formula;

/// How the field is called that the formula is from.
const FIELD: &str = "p";
/// The names that it may use: the time, and what is left of it with all its digits.
pub(crate) const NAMES: [&str; 2] = ["t", "r"];
/// What helps at t = 1.
const WRITE_R: &str = "write r for 1 - t, which keeps its digits there; or write its `quantile`";
/// Points of one rule.
const POINTS: usize = 12;
/// The most cells.
const MOST: usize = 20_000;
/// The error of a cell that is small enough, as a share of the whole.
const ERROR: f64 = 2e-16;
/// Where x begins: t = 1e-304.
const FIRST: f64 = -700.0;
/// Where x ends for a density that does not use r: beyond, t cannot be told from 1.
const LAST: f64 = 36.0;

/// A part of x, and the mass before it.
#[derive(Clone, Copy, Debug)]
struct Cell {
    from: f64,
    to: f64,
    before: f64,
    mass: f64,
}

/// A density, normalised, with its distribution.
#[derive(Clone, Debug)]
pub(crate) struct Density {
    formula: Formula,
    cells: Vec<Cell>,
    total: f64,
}

/// Nodes and weights on [-1, 1]: Newton's method on Legendre's polynomial.
static RULE: LazyLock<[[f64; 2]; POINTS]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (POINTS as f64 + 0.5)).cos();
        let mut slope = 1.0;
        for _ in 0..20 {
            let (mut before, mut here) = (1.0, x);
            for k in 2..=POINTS {
                let k = k as f64;
                (before, here) = (here, ((2.0 * k - 1.0) * x * here - (k - 1.0) * before) / k);
            }
            slope = POINTS as f64 * (x * here - before) / (x * x - 1.0);
            x -= here / slope;
        }
        [x, 2.0 / ((1.0 - x * x) * slope * slope)]
    })
});

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Density {
    /// Of a formula of [`NAMES`]. It must be finite and not negative, and have a mass.
    pub fn new(formula: Formula) -> Result<Self, ParamError> {
        let whole = formula.uses(1);
        let ends =
            [-300.0, -100.0, -40.0, -20.0, -10.0, -5.0, -2.0, 0.0, 2.0, 5.0, 10.0, 20.0, LAST, 100.0, 300.0, 700.0];
        let ends = ends.into_iter().filter(|x| whole || *x <= LAST);
        let mut made = Self { formula, cells: Vec::new(), total: 0.0 };
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
                for (from, to, mass) in [(from, mid, left), (mid, to, right)] {
                    made.cells.push(Cell { from, to, before: made.total, mass });
                    made.total += mass;
                }
            } else {
                open.extend([(mid, to, right), (from, mid, left)]);
            }
            if made.cells.len() + open.len() > MOST {
                let what = format!("is too rough to integrate near t = {}", Shown(logistic(mid)));
                let error = ParamError::new(what).within(FIELD);
                return Err(if mid > 15.0 && !whole { error.help(WRITE_R) } else { error });
            }
        }
        made.check_mass()?;
        Ok(made)
    }

    fn check_mass(&self) -> Result<(), ParamError> {
        let (first, last) = (self.cells[0], self.cells[self.cells.len() - 1]);
        let wrong = |what: String| ParamError::new(what).within(FIELD);
        if !(self.total.is_finite() && self.total > 0.0) {
            return Err(wrong(format!("has the integral {} over [0, 1], and must have one above 0", self.total)));
        }
        // What lies beyond the ends is about the integrand there times the way to them.
        if self.term(first.from) * 100.0 > 1e-9 * self.total {
            let help = "where it has an integral all the same, write its `quantile`";
            return Err(wrong("grows so steeply towards t = 0 that no integral is found".into()).help(help));
        }
        if self.term(last.to) * 10.0 > 1e-9 * self.total {
            return Err(wrong("grows so steeply towards t = 1 that no integral is found".into()).help(WRITE_R));
        }
        Ok(())
    }

    /// The formula's value at x per unit of x.
    fn term(&self, x: f64) -> f64 {
        let (t, r) = (logistic(x), logistic(-x));
        self.formula.at(&[t, r]) * t * r
    }

    fn integral(&self, from: f64, to: f64) -> f64 {
        let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
        RULE.iter().map(|[x, w]| self.term(middle + half * x) * w).sum::<f64>() * half
    }

    /// The integral, of values that are what a density's are.
    fn checked(&self, from: f64, to: f64) -> Result<f64, ParamError> {
        let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
        for [x, _] in RULE.iter() {
            let (t, r) = (logistic(middle + half * x), logistic(-middle - half * x));
            let value = self.formula.at(&[t, r]);
            crate::check::demand(
                value.is_finite() && value >= 0.0,
                FIELD,
                value,
                format!("t = {}", Shown(t)),
                "0 or a number above it",
            )?;
        }
        Ok(self.integral(from, to))
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
        let cell = self.cells[self.cells.partition_point(|c| c.to < x).min(self.cells.len() - 1)];
        let x = x.clamp(cell.from, cell.to);
        ((cell.before + self.integral(cell.from, x)) / self.total).clamp(0.0, 1.0)
    }

    /// The time below which a share u of the draws is: Newton's method, kept between bounds.
    pub fn quantile(&self, u: f64) -> f64 {
        if u >= 1.0 {
            return logistic(self.cells.iter().rfind(|c| c.mass > 0.0).map_or(f64::INFINITY, |c| c.to));
        }
        let aim = u.max(0.0) * self.total;
        // The last cell that begins at or below the aim: times without density are skipped.
        let cell = self.cells[self.cells.partition_point(|c| c.before <= aim).max(1) - 1];
        let (mut low, mut high) = (cell.from, cell.to);
        let mut x = low + (high - low) * ((aim - cell.before) / cell.mass).clamp(0.0, 1.0);
        for _ in 0..100 {
            let error = cell.before + self.integral(cell.from, x) - aim;
            if error > 0.0 {
                high = x
            } else {
                low = x
            }
            let newton = x - error / self.term(x);
            if (newton - x).abs() <= 2e-16 * x.abs().max(1.0) || high - low <= 1e-15 * high.abs().max(1.0) {
                break;
            }
            x = if low < newton && newton < high { newton } else { 0.5 * (low + high) };
        }
        if x <= FIRST + 1e-6 { 0.0 } else { logistic(x) }
    }
}
