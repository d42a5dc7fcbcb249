//! A schedule whose power of signal falls along a logistic curve.

use sconce_sdk::prelude::*;

use crate::range;

/// alpha² follows the logistic function from `start` to `end`, scaled to go from 1 to 0 (Jabri et al. 2022;
/// Chen 2023, algorithm 1): gentler at both ends than the cosine. With g the logistic function and x = (start + t (end -
/// start))/temperature, alpha² = (g(x(1)) - g(x))/(g(x(1)) - g(x(0))). Not to be confused with DDPM's `sigmoid-betas`.
///
/// The paper's 1e-9 under alpha² is not needed here: nothing divides by it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sigmoid {
    /// Where on the logistic curve t = 0 is.
    #[serde(deserialize_with = "range::finite")]
    pub start: f64,
    /// Where t = 1 is, above `start`.
    #[serde(deserialize_with = "range::finite")]
    pub end: f64,
    /// Lower is steeper in the middle (tau in the paper, which takes 0.9 for larger pictures).
    #[serde(deserialize_with = "range::positive")]
    pub temperature: f64,
}

impl Default for Sigmoid {
    fn default() -> Self {
        Self { start: -3.0, end: 3.0, temperature: 1.0 }
    }
}

/// At the very ends alpha or sigma is a root and its slope infinite: this keeps it a number, and its direction right.
const STEEPEST: f64 = 1e12;

impl Schedule for Sigmoid {
    fn at(&self, t: f64) -> Noise {
        let t = t.clamp(0.0, 1.0);
        let half = 0.5 / self.temperature;
        let (first, last, all) = (half * self.start, half * self.end, half * (self.end - self.start));
        let here = first + t * all;
        // g(2a) - g(2b) = sinh(a - b)/(2 cosh a cosh b): differences of nearly equal numbers would lose their digits.
        let left = ((1.0 - t) * all).sinh() * first.cosh() / (all.sinh() * here.cosh());
        let gone = (t * all).sinh() * last.cosh() / (all.sinh() * here.cosh());
        let (alpha, sigma) = (left.sqrt(), gone.sqrt());
        let d_gone = all * first.cosh() * last.cosh() / (all.sinh() * here.cosh().powi(2));
        Noise::preserving(alpha, sigma, (0.5 * d_gone / (alpha * sigma)).min(STEEPEST))
    }
}

register!(Schedule, "sigmoid", Sigmoid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_papers_difference_of_logistic_functions() {
        let g = |x: f64| 1.0 / (1.0 + (-x).exp());
        let schedule = Sigmoid { temperature: 0.9, ..Sigmoid::default() };
        for t in [0.0, 0.2, 0.5, 0.9] {
            let x = |t: f64| (-3.0 + 6.0 * t) / 0.9;
            let gamma = (g(x(1.0)) - g(x(t))) / (g(x(1.0)) - g(x(0.0)));
            assert!((schedule.at(t).alpha.powi(2) - gamma).abs() < 1e-12);
        }
        assert_eq!(schedule.at(1.0).alpha, 0.0);
    }
}
