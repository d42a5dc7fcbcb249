//! The beta distribution: its distribution function and quantiles.

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
    // By a choice made once: rounded, either side may be beyond its mean.
    match x > (a + 1.0) / (a + b + 2.0) {
        true => 1.0 - below_mean(b, a, 1.0 - x),
        false => below_mean(a, b, x),
    }
}

fn below_mean(a: f64, b: f64, x: f64) -> f64 {
    let scale = (a * x.ln() + b * (-x).ln_1p() - ln_beta(a, b)).exp() / a;
    scale / fraction(a, b, x)
}

/// 1 + d1/(1 + d2/(1 + …)) by the modified Lentz method, as a product of corrections.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let coefficient = |k: usize| {
        let (m, over) = ((k / 2) as f64, a + k as f64);
        let d = if k.is_multiple_of(2) { m * (b - m) } else { -(a + m) * (a + b + m) };
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

/// The x below which a share u of the beta distribution with these shapes lies: Newton's method, kept between bounds.
pub fn quantile(u: f64, a: f64, b: f64) -> f64 {
    if u <= 0.0 || u >= 1.0 {
        return u.clamp(0.0, 1.0);
    }
    let log_beta = ln_beta(a, b);
    let (mut low, mut high, mut x) = (0.0, 1.0, a / (a + b));
    for _ in 0..200 {
        let error = incomplete_beta(a, b, x) - u;
        if error > 0.0 {
            high = x
        } else {
            low = x
        }
        let density = ((a - 1.0) * x.ln() + (b - 1.0) * (-x).ln_1p() - log_beta).exp();
        let newton = x - error / density;
        let next = if low < newton && newton < high { newton } else { 0.5 * (low + high) };
        if (next - x).abs() <= 1e-15 * x {
            break;
        }
        x = next;
    }
    x
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

    /// Where both sides are beyond their mean by a rounding: found by fuzzing, as an endless recursion.
    #[test]
    fn a_value_at_the_mean_is_found() {
        for (a, b, x) in [
            (0.03062498165240735, 6.138193525667177, 0.1261657338486498),
            (4.2345678547692835e-05, 48.0, 0.02000082997459662),
        ] {
            let [below, here, above] = [x * (1.0 - 1e-9), x, x * (1.0 + 1e-9)].map(|x| incomplete_beta(a, b, x));
            assert!(
                (below - here).abs() < 1e-8 && (above - here).abs() < 1e-8 && here <= 1.0,
                "{below}, {here}, {above}"
            );
        }
    }

    /// Distributions whose quantiles are elementary.
    #[test]
    fn quantiles_are_those_of_the_known_cases() {
        for k in 1..100 {
            let u = f64::from(k) / 100.0;
            let near = |a: f64, b: f64, x: f64| {
                assert!((quantile(u, a, b) - x).abs() < 1e-13, "{u} of ({a}, {b}): {} is not {x}", quantile(u, a, b));
            };
            near(1.0, 1.0, u);
            near(3.5, 1.0, u.powf(1.0 / 3.5));
            near(1.0, 0.3, 1.0 - (1.0 - u).powf(1.0 / 0.3));
            near(0.5, 0.5, (std::f64::consts::FRAC_PI_2 * u).sin().powi(2));
        }
    }

    /// As scipy.stats.beta.ppf has them.
    #[test]
    fn quantiles_are_those_of_scipy() {
        for (u, a, b, x) in [
            (0.001, 0.6, 0.6, 1.855873851745199e-05),
            (0.3, 0.6, 0.6, 0.23401700387523572),
            (0.999, 0.6, 0.6, 0.9999814412614826),
            (0.2, 2.0, 5.0, 0.1398806882699578),
            (0.9, 40.0, 3.0, 0.9734717789444088),
            (0.01, 300.0, 700.0, 0.2669142322587996),
            (0.7, 0.05, 8.0, 6.195452643751969e-05),
        ] {
            let found = quantile(u, a, b);
            assert!((found / x - 1.0).abs() < 1e-10, "{u} of ({a}, {b}): {found} is not {x}");
        }
    }
}
