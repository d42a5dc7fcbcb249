//! Gauss's rules on [-1, 1], found once: many points for a cell, few for a part of one, in which the density is so nearly a
//! polynomial that the few are exact too.

use std::sync::LazyLock;

/// Nodes and weights for a cell.
pub(super) static WIDE: LazyLock<[[f64; 2]; 12]> = LazyLock::new(legendre);
/// Nodes and weights for a part of a cell.
pub(super) static FINE: LazyLock<[[f64; 2]; 6]> = LazyLock::new(legendre);

/// Newton's method on Legendre's polynomial.
fn legendre<const POINTS: usize>() -> [[f64; 2]; POINTS] {
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
}

/// A sum that keeps what it rounds off.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    /// With one more, which is not below 0.
    pub fn plus(self, x: f64) -> Self {
        let high = self.high + x;
        let part = high - self.high;
        Self { high, low: self.low + ((self.high - (high - part)) + (x - part)) }
    }

    /// The sum.
    pub fn value(self) -> f64 {
        self.high + self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_are_integrated_exactly() {
        for k in (0..12).step_by(2) {
            let sum: f64 = FINE.iter().map(|[x, w]| x.powi(k) * w).sum();
            assert!((sum - 2.0 / f64::from(k + 1)).abs() < 1e-15, "x^{k}: {sum}");
        }
    }

    #[test]
    fn a_sum_loses_nothing() {
        let sum = (0..1_000_000).fold(Sum::default().plus(1.0), |sum, _| sum.plus(1e-17));
        assert!((sum.value() - (1.0 + 1e-11)).abs() < 3e-16);
    }
}
