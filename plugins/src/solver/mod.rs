//! Solvers: how a sampler goes from one noise level to the next. Each is written in (alpha, sigma), so that it holds for
//! variance-preserving schedules, with or without signal at t = 1, and for rectified flows alike.

mod ddim;
mod dpmpp_2m;
mod dpmpp_2m_sde;
mod dpmpp_sde;
mod euler;
mod euler_ancestral;
mod heun;
mod unipc;
mod unipc_bh1;

use candle_core::{Result, Tensor};
use sconce_core::solver::Denoised;
use sconce_sdk::{Level, Noise};

pub use ddim::Ddim;
pub use dpmpp_2m::{Dpmpp2m, SolverType};
pub use dpmpp_2m_sde::Dpmpp2mSde;
pub use dpmpp_sde::DpmppSde;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use heun::Heun;
pub use unipc::UniPc;
pub use unipc_bh1::UniPcBh1;

/// p x + q y.
fn combine(x: &Tensor, p: f64, y: &Tensor, q: f64) -> Result<Tensor> {
    (x * p)? + (y * q)?
}

/// sigma/alpha at `to` over that at `from`: the factor by which a step cuts the noise; 0 from a level without signal.
fn noise_left(from: &Noise, to: &Noise) -> f64 {
    (to.sigma * from.alpha) / (to.alpha * from.sigma)
}

/// The straight step to a level: the same x0 and the same eps in its amounts.
///
/// It is Euler's step of Karras et al. 2022, section 3: there x/alpha moves by (rho' - rho) eps with rho = sigma/alpha,
/// and x/alpha = x0 + rho eps, so that x'/alpha' = x0 + rho' eps. Written so, it stays finite without signal.
fn straight(at: &Denoised, to: &Noise) -> Result<Tensor> {
    combine(&at.x0, to.alpha, &at.eps, to.sigma)
}

/// The straight step with a part of the noise replaced by fresh noise of deviation `eta` times what keeps the forward
/// process (eta = 1): Song et al. 2020, equation 16, which is also the ancestral step of Karras et al.'s code.
fn ancestral(at: &Denoised, from: &Noise, to: &Noise, eta: f64, fresh: &Tensor) -> Result<Tensor> {
    let (old, new) = kept_and_fresh(from, to, eta);
    combine(&at.x0, to.alpha, &at.eps, to.sigma * old)? + (fresh * (to.sigma * new))?
}

/// What an ancestral step makes its noise of: old noise, and fresh noise, as factors on the deviation.
fn kept_and_fresh(from: &Noise, to: &Noise, eta: f64) -> (f64, f64) {
    let left = noise_left(from, to);
    let fresh = (eta * ((1.0 - left) * (1.0 + left)).max(0.0).sqrt()).min(1.0);
    ((1.0 - fresh * fresh).sqrt(), fresh)
}

/// ln(alpha/sigma) at each level. The second order needs finite steps: a first level without any signal counts as one with
/// alpha = 2^-12, diffusers' stand-in, or half the next one's if that is less. Nothing else is touched by it.
fn lambdas(levels: &[Level]) -> Vec<f64> {
    let least = levels.get(1).map_or(1.0, |next| 0.5 * next.noise.alpha).min(1.0 / 4096.0);
    let signal = |noise: &Noise| if noise.alpha > 0.0 { noise.alpha } else { least };
    levels.iter().map(|level| signal(&level.noise).ln() - level.noise.sigma.ln()).collect()
}

/// The deviation of x at a first level, in the convention that the k-diffusion samplers have in diffusers: at t = 1 it is
/// the noise's alone, elsewhere it stands for unit-variance data too.
fn start_of_k_diffusion(first: &Level) -> f64 {
    if first.t >= 1.0 { first.noise.sigma } else { first.noise.alpha.hypot(first.noise.sigma) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cosine table ends at alpha = 4.9e-5, below the stand-in for no signal at all.
    #[test]
    fn little_signal_is_not_taken_for_none() {
        let level = |alpha: f64| {
            let noise = Noise { alpha, sigma: 1.0, d_alpha: 0.0, d_sigma: 0.0 };
            Level { t: 1.0, noise }
        };
        assert_eq!(lambdas(&[level(4.9e-5), level(0.1)])[0], 4.9e-5f64.ln());
        assert_eq!(lambdas(&[level(0.0), level(0.1)])[0], (1.0f64 / 4096.0).ln());
    }
}
