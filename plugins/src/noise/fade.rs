//! Whether correlated noise is there at every level, or goes where the signal goes.

use sconce_sdk::prelude::*;

/// How much of the added noise there is at each level.
///
/// A sampler starts from plain Gaussian noise. Noise with an offset ends elsewhere: where the schedule keeps signal to the
/// end, that hides in what is left of the picture, but on a zero-terminal schedule the network would learn its first step
/// on inputs that no sampler gives it. Lin et al. 2023 hold the offset against zero terminal SNR for that reason;
/// Kutsuna 2024 (arXiv 2412.03134) derives what a sampler would have to do instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fade {
    /// All of it everywhere, as published.
    #[default]
    Never,
    /// As much as there is signal, alpha/sqrt(alpha² + sigma²): none in pure noise, where samplers start. For
    /// zero-terminal schedules.
    WithSignal,
}

impl Fade {
    /// The factor at a level.
    pub(super) fn at(self, noise: &Noise) -> f64 {
        match self {
            Self::Never => 1.0,
            Self::WithSignal => noise.alpha / noise.alpha.hypot(noise.sigma),
        }
    }
}
