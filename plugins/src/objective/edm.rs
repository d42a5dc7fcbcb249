//! The preconditioned target of EDM.

use sconce_sdk::prelude::*;

use crate::range;

/// What the network of EDM learns, whose inputs and outputs have unit variance at every level (Karras et al. 2022,
/// equations 7 and 8, table 1): D(x) = c_skip x + c_out F(c_in x), so F is asked for (x0 - c_skip x)/c_out.
///
/// With s = `sigma_data` and R = sqrt(sigma² + s² alpha²), in any frame, the paper's being alpha = 1: y = (sigma/s x0 - s
/// alpha eps)/R, and the input is scaled by 1/R. D = -R/s. In the variance-preserving frame with s = 1 it is -v.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Edm {
    /// Standard deviation of the data. The paper's is 0.5; scaled latents of Stable Diffusion have about 1.
    #[serde(deserialize_with = "range::positive")]
    pub sigma_data: f64,
}

impl Default for Edm {
    fn default() -> Self {
        Self { sigma_data: 0.5 }
    }
}

impl Edm {
    /// The deviation of x_t.
    fn deviation(&self, noise: &Noise) -> f64 {
        noise.sigma.hypot(self.sigma_data * noise.alpha)
    }
}

impl Objective for Edm {
    fn target(&self, noise: &Noise) -> [f64; 2] {
        let deviation = self.deviation(noise);
        [noise.sigma / (self.sigma_data * deviation), -self.sigma_data * noise.alpha / deviation]
    }

    fn input_scale(&self, noise: &Noise) -> f64 {
        1.0 / self.deviation(noise)
    }
}

register!(Objective, "edm", Edm);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_papers_preconditioning() {
        let (s, sigma) = (0.5, 1.7f64);
        let noise = Noise { alpha: 1.0, sigma, d_alpha: 0.0, d_sigma: 1.0 };
        let (c_skip, root) = (s * s / (sigma * sigma + s * s), sigma.hypot(s));
        let c_out = sigma * s / root;
        let [a, b] = Edm::default().target(&noise);
        assert!((a - (1.0 - c_skip) / c_out).abs() < 1e-12 && (b + c_skip * sigma / c_out).abs() < 1e-12);
        assert!((Edm::default().input_scale(&noise) - 1.0 / root).abs() < 1e-12);
        assert!((noise.determinant([a, b]) + root / s).abs() < 1e-12);
    }
}
