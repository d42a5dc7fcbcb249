//! The distribution function of the beta distribution.

/// ln B(a, b), the logarithm of the beta function.
pub fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// The regularised incomplete beta function I_x(a, b) (DLMF 8.17.22): the continued fraction, on the side of the mean where
/// it converges fast.
pub fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let scale = (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp() / a;
    scale / fraction(a, b, x)
}

/// 1 + d1/(1 + d2/(1 + …)) by the modified Lentz method, as a product of corrections.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let coefficient = |k: usize| {
        let (m, over) = ((k / 2) as f64, a + k as f64);
        let d = if k % 2 == 0 { m * (b - m) } else { -(a + m) * (a + b + m) };
        d * x / (over * (over - 1.0))
    };
    let away = |y: f64| if y.abs() < TINY { TINY } else { y };
    let (mut value, mut above, mut below) = (1.0, 1.0, 0.0);
    for k in 1..10_000 {
        let d = coefficient(k);
        below = 1.0 / away(1.0 + d * below);
        above = away(1.0 + d / above);
        value *= above * below;
        if (above * below - 1.0).abs() < 1e-16 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_closed_forms() {
        for x in [1e-9f64, 0.01, 0.3, 0.5, 0.77, 0.999] {
            for (a, b, want) in [
                (1.0, 1.0, x),
                (2.0, 2.0, x * x * (3.0 - 2.0 * x)),
                (0.5, 0.5, std::f64::consts::FRAC_2_PI * x.sqrt().asin()),
                (3.5, 1.0, x.powf(3.5)),
                (1.0, 60.0, 1.0 - (1.0 - x).powi(60)),
            ] {
                let found = incomplete_beta(a, b, x);
                assert!((found - want).abs() < 1e-13, "I_{x}({a}, {b}) = {found}, not {want}");
            }
        }
    }
}
