//! The amounts of signal and noise at one time, and what follows from them alone: SNR, and the recovery formulas by
//! which any objective's output gives x0 and eps.

/// x_t = alpha x0 + sigma eps at one time t, with the derivatives of both by t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Factor on the data.
    pub alpha: f64,
    /// Factor on the unit-variance noise.
    pub sigma: f64,
    /// d alpha / dt.
    pub d_alpha: f64,
    /// d sigma / dt.
    pub d_sigma: f64,
}

impl Noise {
    /// A variance-preserving level, alpha² + sigma² = 1, on the circle at the angular speed d angle/dt: (alpha, sigma) =
    /// (cos, sin) of an angle that grows from 0 at data to pi/2 at noise.
    pub fn preserving(alpha: f64, sigma: f64, speed: f64) -> Self {
        Self { alpha, sigma, d_alpha: -sigma * speed, d_sigma: alpha * speed }
    }

    /// Signal-to-noise ratio alpha²/sigma² (0 at a zero-terminal t = 1, infinite without noise).
    pub fn snr(&self) -> f64 {
        (self.alpha / self.sigma).powi(2)
    }

    /// lambda = ln(alpha²/sigma²).
    pub fn log_snr(&self) -> f64 {
        2.0 * (self.alpha.ln() - self.sigma.ln())
    }

    /// d lambda/dt, below 0; infinite where there is no signal or no noise.
    pub fn log_snr_slope(&self) -> f64 {
        2.0 * (self.d_alpha * self.sigma - self.d_sigma * self.alpha) / (self.alpha * self.sigma)
    }

    /// D = alpha b - sigma a, the determinant of (x0, eps) -> (x_t, y) for an output y = a x0 + b eps.
    pub fn determinant(&self, [a, b]: [f64; 2]) -> f64 {
        self.alpha * b - self.sigma * a
    }

    /// The coefficients of x0 = p x_t + q y, as `[p, q]` = `[b/D, -sigma/D]`.
    pub fn x0_from(&self, [a, b]: [f64; 2]) -> [f64; 2] {
        let d = self.determinant([a, b]);
        [b / d, -self.sigma / d]
    }

    /// The coefficients of eps = p x_t + q y, as `[p, q]` = `[-a/D, alpha/D]`.
    pub fn eps_from(&self, [a, b]: [f64; 2]) -> [f64; 2] {
        let d = self.determinant([a, b]);
        [-a / d, self.alpha / d]
    }
}

/// One noise level on a sampler's way: the time, and the amounts there.
///
/// `noise` need not be `schedule.at(t)`: a sampler may place levels by sigma (Karras) and ask the model at the t that
/// fits best, or end at alpha = 1, sigma = 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Time in [0, 1], from which the backbone makes its own (999 for t = 1 in Stable Diffusion).
    pub t: f64,
    /// Signal and noise there.
    pub noise: Noise,
}
