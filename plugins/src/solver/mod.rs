//! Solvers: how a sampler goes from one noise level to the next. Each is written in (alpha, sigma), so that it holds for
//! variance-preserving schedules, with or without signal at t = 1, and for rectified flows alike.

mod ddim;
mod dpmpp_2m;
mod euler;
mod euler_ancestral;
mod heun;

use candle_core::{Result, Tensor};
use sconce_core::solver::Denoised;
use sconce_sdk::{Level, Noise};

pub use ddim::Ddim;
pub use dpmpp_2m::Dpmpp2m;
pub use euler::Euler;
pub use euler_ancestral::EulerAncestral;
pub use heun::Heun;

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
/// It is Euler's step of Karras et al. 2022, section 4: there x/alpha moves by (rho' - rho) eps with rho = sigma/alpha,
/// and x/alpha = x0 + rho eps, so that x'/alpha' = x0 + rho' eps. Written so, it stays finite without signal.
fn straight(at: &Denoised, to: &Noise) -> Result<Tensor> {
    combine(&at.x0, to.alpha, &at.eps, to.sigma)
}

/// The straight step with a part of the noise replaced by fresh noise of deviation `eta` times what keeps the forward
/// process (eta = 1): Song et al. 2020, equation 16, which is also the ancestral step of Karras et al.'s code.
fn ancestral(at: &Denoised, from: &Noise, to: &Noise, eta: f64, fresh: &Tensor) -> Result<Tensor> {
    let kept = noise_left(from, to);
    let share = (eta * ((1.0 - kept) * (1.0 + kept)).max(0.0).sqrt()).min(1.0);
    let old = combine(&at.x0, to.alpha, &at.eps, to.sigma * (1.0 - share * share).sqrt())?;
    old + (fresh * (to.sigma * share))?
}

/// The deviation of x at a first level, in the convention that the k-diffusion samplers have in diffusers: at t = 1 it is
/// the noise's alone, elsewhere it stands for unit-variance data too.
fn start_of_k_diffusion(first: &Level) -> f64 {
    if first.t >= 1.0 { first.noise.sigma } else { first.noise.alpha.hypot(first.noise.sigma) }
}
