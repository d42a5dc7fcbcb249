//! The quantiles of the beta distribution.

/// The incomplete beta function: the integral of s^(a-1) (1-s)^(b-1) from 0 to x, by its continued fraction (DLMF 8.17.22),
/// which converges fast up to (a + 1)/(a + b + 2).
fn head(x: f64, a: f64, b: f64) -> f64 {
    // Their number grows with the root of the shapes.
    let terms = 20 + (5.0 * (a + b).sqrt()) as usize;
    let fraction = (1..=terms).rev().fold(1.0, |rest, m| {
        let m = m as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = (a + m - 1.0) * (a + b + m - 1.0) * x / ((a + 2.0 * m - 2.0) * (a + 2.0 * m - 1.0));
        1.0 - odd / (1.0 + even / rest)
    });
    x.powf(a) * (1.0 - x).powf(b) / (a * fraction)
}

/// The x below which a share u of the beta distribution with these shapes lies: Newton's method, kept between bounds.
pub(crate) fn quantile(u: f64, a: f64, b: f64) -> f64 {
    if u <= 0.0 || u >= 1.0 {
        return u.clamp(0.0, 1.0);
    }
    let middle = (a + 1.0) / (a + b + 2.0);
    let whole = head(middle, a, b) + head(1.0 - middle, b, a);
    let below = |x: f64| if x <= middle { head(x, a, b) } else { whole - head(1.0 - x, b, a) };
    let (mut low, mut high, mut x) = (0.0, 1.0, a / (a + b));
    for _ in 0..200 {
        let error = below(x) - u * whole;
        if error > 0.0 {
            high = x
        } else {
            low = x
        }
        let newton = x - error / (x.powf(a - 1.0) * (1.0 - x).powf(b - 1.0));
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
