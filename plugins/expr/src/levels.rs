//! A noise level as variables: the names by which the formulas of a weighting, an objective and a distance know it, and the
//! levels on which they are tried.

use sconce_sdk::Noise;

/// What every formula of a noise level may use, in this order.
pub(crate) const NAMES: [&str; 7] = ["alpha", "sigma", "snr", "lambda", "d_alpha", "d_sigma", "d_lambda"];

/// Where there is no noise, it counts as e^-40 of the signal, so that the SNR is e^80 and every weight a number.
const LEAST: f64 = 4.248_354_255_291_589e-18;

/// The level with a trace of noise where it has none.
pub(crate) fn with_a_trace(n: &Noise) -> Noise {
    Noise { sigma: n.sigma.max(LEAST * n.alpha), ..*n }
}

/// The values of [`NAMES`]. Without signal d_lambda is that of a trace of it.
pub(crate) fn variables(n: &Noise) -> [f64; 7] {
    let n = with_a_trace(n);
    let d_lambda = Noise { alpha: n.alpha.max(LEAST * n.sigma), ..n }.log_snr_slope();
    [n.alpha, n.sigma, n.snr(), n.log_snr(), n.d_alpha, n.d_sigma, d_lambda]
}

/// d_lambda on the clock of [`preserving`].
pub(crate) const PACE: f64 = -2.0;

/// The variance-preserving level of a log-SNR, on a clock on which log-SNR falls by 2 a unit: there a weight per unit of
/// log-SNR and one per unit of time are the same.
pub(crate) fn preserving(log_snr: f64) -> Noise {
    let alpha = 1.0 / (1.0 + (-log_snr).exp()).sqrt();
    let sigma = 1.0 / (1.0 + log_snr.exp()).sqrt();
    Noise { alpha, sigma, d_alpha: -alpha * sigma * sigma, d_sigma: sigma * alpha * alpha }
}

/// Levels of the three frames (variance preserving, straight, variance exploding) from log-SNR 20 to -20.
pub(crate) fn tried() -> impl Iterator<Item = Noise> {
    (-40..=40).map(|i| preserving(f64::from(-i) * 0.5)).flat_map(|n| {
        let (sum, ratio) = (n.alpha + n.sigma, n.sigma / n.alpha);
        let flow = Noise { alpha: n.alpha / sum, sigma: n.sigma / sum, d_alpha: -1.0, d_sigma: 1.0 };
        [n, flow, Noise { alpha: 1.0, sigma: ratio, d_alpha: 0.0, d_sigma: ratio }]
    })
}

/// A level in words.
pub(crate) fn place(n: &Noise) -> String {
    let round = |x: f64| (x * 1e6).round() / 1e6;
    format!("log-SNR {} (alpha = {}, sigma = {})", round(n.log_snr()), round(n.alpha), round(n.sigma))
}
