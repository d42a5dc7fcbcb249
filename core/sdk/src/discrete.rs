//! A discrete, variance-preserving schedule between its points. Training only ever visits the points; samplers ask
//! anywhere, and `flow` asks for derivatives, so the table is continued to all of [0, 1].

use crate::noise::Noise;

/// Points i = 0 … n-1 at t = (i + 1)/n, each a log-SNR; alpha² + sigma² = 1.
///
/// Between points log-SNR is linear in t. Two cells differ, because log-SNR is infinite at an end of theirs: before the
/// first point sigma is linear from 0, and in front of a last point without signal alpha is linear to 0.
#[derive(Clone, Debug)]
pub struct Discrete {
    log_snr: Vec<f64>,
}

impl Discrete {
    /// From alpha² at each point (alpha-bar in DDPM, Ho et al. 2020), falling strictly; the last may be 0.
    pub fn from_alpha_bar(alpha_bar: impl IntoIterator<Item = f64>) -> Self {
        Self { log_snr: alpha_bar.into_iter().map(|a| (a / (1.0 - a)).ln()).collect() }
    }

    /// From the variance that each step of DDPM adds: alpha² is the running product of 1 - beta.
    pub fn from_betas(betas: impl IntoIterator<Item = f64>) -> Self {
        Self::from_alpha_bar(betas.into_iter().scan(1.0, |product, beta| {
            *product *= 1.0 - beta;
            Some(*product)
        }))
    }

    /// From sigma/alpha at each point, above 0 and rising strictly.
    pub fn from_sigmas(sigmas: impl IntoIterator<Item = f64>) -> Self {
        Self { log_snr: sigmas.into_iter().map(|sigma| -2.0 * sigma.ln()).collect() }
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.log_snr.len()
    }

    /// True without points.
    pub fn is_empty(&self) -> bool {
        self.log_snr.is_empty()
    }

    /// Signal and noise at t, with the derivatives of the interpolant; on a point, where it has a kink, their mean.
    pub fn at(&self, t: f64) -> Noise {
        let n = self.len();
        let position = t.clamp(0.0, 1.0) * n as f64;
        let cell = (position as usize).min(n - 1);
        let noise = self.in_cell(cell, position - cell as f64);
        let nearest = position.round() as usize;
        if (1..n).contains(&nearest) && (position - nearest as f64).abs() < 1e-9 {
            let (before, after) = (self.in_cell(nearest - 1, 1.0), self.in_cell(nearest, 0.0));
            let d_alpha = 0.5 * (before.d_alpha + after.d_alpha);
            return Noise { d_alpha, d_sigma: 0.5 * (before.d_sigma + after.d_sigma), ..noise };
        }
        noise
    }

    /// The time of a log-SNR: [`Discrete::at`] the other way round.
    pub fn t_of(&self, log_snr: f64) -> f64 {
        let k = self.log_snr.partition_point(|point| *point > log_snr);
        let Some(&to) = self.log_snr.get(k) else { return 1.0 };
        let w = match k.checked_sub(1).map(|j| self.log_snr[j]) {
            None => sigma_of(log_snr) / sigma_of(to),
            Some(from) if to == f64::NEG_INFINITY => 1.0 - alpha_of(log_snr) / alpha_of(from),
            Some(from) => (from - log_snr) / (from - to),
        };
        (k as f64 + w) / self.len() as f64
    }

    /// At the share `w` of the way through cell k, which ends at point k.
    fn in_cell(&self, k: usize, w: f64) -> Noise {
        let per_t = self.len() as f64;
        let to = self.log_snr[k];
        let Some(from) = k.checked_sub(1).map(|j| self.log_snr[j]) else {
            let (sigma, d_sigma) = (w * sigma_of(to), per_t * sigma_of(to));
            let alpha = ((1.0 - sigma) * (1.0 + sigma)).sqrt();
            return Noise { alpha, sigma, d_alpha: -sigma * d_sigma / alpha, d_sigma };
        };
        if to == f64::NEG_INFINITY {
            let (alpha, d_alpha) = ((1.0 - w) * alpha_of(from), -per_t * alpha_of(from));
            let sigma = ((1.0 - alpha) * (1.0 + alpha)).sqrt();
            return Noise { alpha, sigma, d_alpha, d_sigma: -alpha * d_alpha / sigma };
        }
        let (log_snr, slope) = (from + w * (to - from), per_t * (to - from));
        let (alpha, sigma) = (alpha_of(log_snr), sigma_of(log_snr));
        // alpha² is the logistic function of log-SNR, whose derivative is alpha² sigma².
        Noise {
            alpha,
            sigma,
            d_alpha: 0.5 * alpha * sigma * sigma * slope,
            d_sigma: -0.5 * sigma * alpha * alpha * slope,
        }
    }
}

fn alpha_of(log_snr: f64) -> f64 {
    1.0 / (1.0 + (-log_snr).exp()).sqrt()
}

fn sigma_of(log_snr: f64) -> f64 {
    alpha_of(-log_snr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_are_exact_and_the_ends_reach_data_and_noise() {
        let table = Discrete::from_alpha_bar([0.9, 0.5, 0.0]);
        for (i, alpha_bar) in [0.9f64, 0.5, 0.0].into_iter().enumerate() {
            let noise = table.at((i + 1) as f64 / 3.0);
            assert!((noise.alpha - alpha_bar.sqrt()).abs() < 1e-12, "{noise:?}");
            assert!((noise.sigma - (1.0 - alpha_bar).sqrt()).abs() < 1e-12, "{noise:?}");
        }
        assert_eq!((table.at(0.0).alpha, table.at(0.0).sigma), (1.0, 0.0));
        assert_eq!((table.at(1.0).alpha, table.at(1.0).sigma), (0.0, 1.0));
    }
}
