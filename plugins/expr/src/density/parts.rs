//! The table that a quantile is looked up in. A part is so short that a cubic through its ends, by the mass, is right to a few
//! millionths of it, and one step of Halley's method, for which the formula gives its exact derivative, makes that all digits.
//! Where a density jumps it takes more steps, and is kept between bounds.

use super::rule::{FINE, Sum};
use super::{Cell, Density};

/// Parts of a cell.
const PARTS: usize = 24;
/// The share of the draws below which a cell is one part: few quantiles lie there.
const RARE: f64 = 1e-14;

/// A part of x, and the mass before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub from: f64,
    pub to: f64,
    pub before: f64,
    pub mass: f64,
    /// The factors of the cubic that gives x - from by the share of the mass.
    bend: [f64; 3],
}

impl Density {
    /// The cells in parts. Their masses add up to those of the cells, so that no rounding runs on.
    pub(super) fn cut(&self, cells: &[Cell]) -> Vec<Part> {
        let (mut parts, mut before, mut sum) = (Vec::with_capacity(cells.len()), 0.0, Sum::default());
        let mut at_from = self.term(cells[0].0);
        for &(start, end, mass) in cells {
            let count = if mass > RARE * self.total { PARTS } else { 1 };
            sum = sum.plus(mass);
            let mut from = start;
            for i in 1..=count {
                let to = if i == count { end } else { start + (end - start) * (i as f64 / count as f64) };
                let at_to = self.term(to);
                let own = if i == count { sum.value() - before } else { self.integral(from, to, FINE.as_slice()) };
                // What is left for the last may be a rounding below nothing.
                let own = own.max(0.0);
                parts.push(Part { from, to, before, mass: own, bend: bend(from, to, own, [at_from, at_to]) });
                (from, before, at_from) = (to, before + own, at_to);
            }
            before = before.max(sum.value());
        }
        parts
    }

    /// The x of a part up to which there is a mass of `aim`.
    pub(super) fn place(&self, part: &Part, aim: f64) -> f64 {
        let width = part.to - part.from;
        let (mut low, mut high) = (part.from, part.to);
        let mut x = part.guess(((aim - part.before) / part.mass).clamp(0.0, 1.0));
        for _ in 0..100 {
            let error = part.before + self.integral(part.from, x, FINE.as_slice()) - aim;
            if error > 0.0 {
                high = x
            } else {
                low = x
            }
            let term = self.term_and_slope(x);
            let step = error / term.value;
            let bent = term.slope / term.value;
            let halley = x - step * (1.0 + 0.5 * step * bent);
            let inside = low <= halley && halley <= high;
            // The error that is left is about the step's cube times this; a part is short beside what bends the density.
            if inside && step.abs().powi(3) * (bent * bent + 0.1 / (width * width)) <= 1e-17 {
                return halley;
            }
            if (halley - x).abs() <= 1e-15 * x.abs().max(1.0) || high - low <= 1e-15 * high.abs().max(1.0) {
                break;
            }
            x = if low < halley && halley < high { halley } else { 0.5 * (low + high) };
        }
        x
    }
}

impl Part {
    /// About where a share of the mass ends.
    fn guess(&self, share: f64) -> f64 {
        let [a, b, c] = self.bend;
        (self.from + share * (a + share * (b + share * c))).clamp(self.from, self.to)
    }
}

/// The cubic with these ends, whose slopes there are those of the inverse; where these are infinite, a line.
fn bend(from: f64, to: f64, mass: f64, terms: [f64; 2]) -> [f64; 3] {
    let width = to - from;
    let [a, b] = terms.map(|term| mass / term);
    let cubic = [a, 3.0 * width - 2.0 * a - b, a + b - 2.0 * width];
    if cubic.iter().all(|x| x.is_finite()) { cubic } else { [width, 0.0, 0.0] }
}
