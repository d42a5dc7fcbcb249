//! Where a formula has a value: what the inverse of a schedule and of a quantile are found by.

use crate::engine::Dual;

/// The place in (0, 1) at which something that rises, or falls for a `sign` of -1, has a value: Newton's method, kept between
/// bounds, and halving where it jumps, is level or has no slope. Of a level stretch it is the end.
pub(crate) fn find(value: f64, sign: f64, at: impl Fn(f64) -> Dual) -> f64 {
    const ROUNDING: f64 = 4e-16;
    let (mut low, mut high, mut x) = (0.0, 1.0, 0.5);
    for _ in 0..200 {
        let here = at(x);
        if sign * here.value > sign * value {
            high = x
        } else {
            low = x
        }
        let newton = x - (here.value - value) / here.slope;
        if (newton - x).abs() <= ROUNDING * x {
            break;
        }
        x = if low < newton && newton < high { newton } else { 0.5 * (low + high) };
        if high - low <= ROUNDING * high {
            break;
        }
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slopes_jumps_and_the_ends_of_stretches() {
        let power = |n: i32| move |x: f64| Dual { value: x.powi(n), slope: f64::from(n) * x.powi(n - 1) };
        for x in [1e-9, 1e-3, 0.3, 0.999_999] {
            for n in [1, 2, 9] {
                let found = find(power(n)(x).value, 1.0, power(n));
                assert!((found / x - 1.0).abs() < 1e-14, "{found} for {x}^{n}");
            }
        }
        let falling = |x: f64| Dual { value: (1.0 - x).ln() - x.ln(), slope: -1.0 / (x * (1.0 - x)) };
        assert!((find(0.0, -1.0, falling) - 0.5).abs() < 1e-15);
        let steps = |x: f64| Dual { value: (4.0 * x).floor(), slope: 0.0 };
        assert!((find(1.0, 1.0, steps) - 0.5).abs() < 1e-15 && (find(0.5, 1.0, steps) - 0.25).abs() < 1e-15);
    }
}
