//! Weightings: how much the error counts at each noise level.

mod cosmap;
mod debiased;
mod edm;
mod elbo;
mod min_snr;
mod native;
mod p2;
mod sigma_sqrt;
mod sigmoid;
mod soft_min_snr;
mod uncertainty;

use sconce_sdk::{Noise, Weighting};

pub use cosmap::Cosmap;
pub use debiased::Debiased;
pub use edm::Edm;
pub use elbo::Elbo;
pub use min_snr::MinSnr;
pub use native::Native;
pub use p2::P2;
pub use sigma_sqrt::SigmaSqrt;
pub use sigmoid::Sigmoid;
pub use soft_min_snr::SoftMinSnr;
pub use uncertainty::Uncertainty;

/// Beyond this log-SNR there is no noise to speak of, nor signal beyond its negative; e^80 keeps every weight finite.
const CLEAN: f64 = 80.0;

/// The SNR, at most e^80.
fn snr(log_snr: f64) -> f64 {
    log_snr.min(CLEAN).exp()
}

/// The factor on the output error of a weighting that a paper gives for an integral over log-SNR: for times drawn evenly,
/// a level counts by -1/2 d lambda/dt too (Kingma & Gao 2023, section 3.1).
fn over_log_snr(weighting: &dyn Weighting, noise: &Noise, target: [f64; 2]) -> f64 {
    let least = (-0.5 * CLEAN).exp();
    let alpha = noise.alpha.max(least * noise.sigma);
    let n = Noise { alpha, sigma: noise.sigma.max(least * alpha), ..*noise };
    -0.5 * n.log_snr_slope() * weighting.on_x0(n.log_snr()) * (n.sigma / n.determinant(target)).powi(2)
}
