//! The schedule of EDM, whose noise grows without end instead of driving the signal out.

use sconce_sdk::prelude::*;

use crate::range;

/// sigma/alpha runs from `sigma_min` to `sigma_max`, evenly in its rho-th root (Karras et al. 2022, equation 5).
///
/// In the paper the picture stays as it is and the noise grows (`exploding`): the network's input must then be scaled, which
/// the objective `edm` does. A network that was trained on inputs of unit variance, such as Stable Diffusion's, wants
/// `preserving`. The ratio sigma/alpha, and so everything that is told in it, is the same in both.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edm {
    /// sigma/alpha at t = 0.
    #[serde(deserialize_with = "range::positive")]
    pub sigma_min: f64,
    /// sigma/alpha at t = 1.
    #[serde(deserialize_with = "range::positive")]
    pub sigma_max: f64,
    /// Higher gives more of t to little noise.
    #[serde(deserialize_with = "range::positive")]
    pub rho: f64,
    /// What is kept as noise is added.
    pub frame: Frame,
}

/// What is kept as noise is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Frame {
    /// The picture's size: alpha = 1 (variance exploding).
    #[default]
    Exploding,
    /// The variance: alpha² + sigma² = 1.
    Preserving,
}

impl Default for Edm {
    fn default() -> Self {
        Self { sigma_min: 0.002, sigma_max: 80.0, rho: 7.0, frame: Frame::Exploding }
    }
}

impl Edm {
    fn root(&self, sigma: f64) -> f64 {
        sigma.powf(1.0 / self.rho)
    }
}

impl Schedule for Edm {
    fn at(&self, t: f64) -> Noise {
        let (least, most) = (self.root(self.sigma_min), self.root(self.sigma_max));
        let root = least + t.clamp(0.0, 1.0) * (most - least);
        let sigma = root.powf(self.rho);
        let d_sigma = self.rho * sigma / root * (most - least);
        match self.frame {
            Frame::Exploding => Noise { alpha: 1.0, sigma, d_alpha: 0.0, d_sigma },
            Frame::Preserving => {
                let alpha = 1.0 / 1f64.hypot(sigma);
                Noise::preserving(alpha, alpha * sigma, alpha * alpha * d_sigma)
            }
        }
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        let (least, most) = (self.root(self.sigma_min), self.root(self.sigma_max));
        ((self.root((-0.5 * log_snr).exp()) - least) / (most - least)).clamp(0.0, 1.0)
    }
}

register!(Schedule, "edm", Edm, aliases = ["karras"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_same_in_both_frames() {
        let (exploding, preserving) = (Edm::default(), Edm { frame: Frame::Preserving, ..Edm::default() });
        assert!((exploding.at(0.0).sigma - 0.002).abs() < 1e-12 && (exploding.at(1.0).sigma - 80.0).abs() < 1e-9);
        for t in [0.0, 0.3, 1.0] {
            let (a, b) = (exploding.at(t), preserving.at(t));
            assert!((b.sigma / b.alpha / a.sigma - 1.0).abs() < 1e-12 && (b.alpha.hypot(b.sigma) - 1.0).abs() < 1e-12);
        }
    }
}
