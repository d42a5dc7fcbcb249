//! Solvers: how a sampler goes from one noise level to the next. A solver sees signal and noise amounts and the
//! recovered (x0, eps), never the objective's name, so that every solver works for every objective.

use candle_core::{Result, Tensor};
use sconce_sdk::{Kind, Level, Schedule, Spacing};

/// What a denoiser's output says about x_t, by the recovery formulas.
pub struct Denoised {
    /// Expected data.
    pub x0: Tensor,
    /// Expected noise.
    pub eps: Tensor,
}

/// The denoiser and the noise source that a solver may call.
pub trait Denoise {
    /// x0 and eps for x_t at a level.
    fn denoise(&mut self, x: &Tensor, level: &Level) -> Result<Denoised>;
    /// Fresh unit-variance noise for step `step`, shaped like the latents: a pure function of the seed and the step. A solver
    /// that needs two a step counts half steps.
    fn noise(&mut self, step: usize) -> Result<Tensor>;
    /// Told after each step: progress and previews. An error stops the run.
    fn stepped(&mut self, _step: usize, _x: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// A way from noise to data.
///
/// Laws: finite; asked the same, it gives the same, to the bit; every step is told, in order, and an error there stops it; by an
/// exact denoiser it arrives at the data's distribution, and more steps are nearer.
pub trait Solver: Send + Sync {
    /// Takes `x` from `levels[0]` to the last level. `x` is x_t = alpha x0 + sigma eps at `levels[0]`; the levels are this
    /// solver's own, from [`Solver::levels`].
    fn solve(&self, x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor>;

    /// The levels of a run: the spacing's, unless the solver's reference implementation has its own way with them, or the
    /// solver asks between them.
    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        spacing.levels(schedule, steps)
    }

    /// The factor on unit-variance noise that makes x at the first level. There is no picture to take alpha x0 from, so
    /// the noise stands for it too: sqrt(alpha² + sigma²), that of data with unit variance.
    fn start(&self, first: &Level) -> f64 {
        first.noise.alpha.hypot(first.noise.sigma)
    }
}

impl Kind for dyn Solver {
    const NAME: &'static str = "solver";
    const ABOUT: &'static str = "how a sampler goes from one noise level to the next";
}
