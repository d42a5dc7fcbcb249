//! Learns what loss to expect at each noise level, and divides by it, so that all levels pull alike.

use std::f64::consts::{SQRT_2, TAU};

use sconce_sdk::prelude::*;
use sconce_sdk::special::normal::probit;
use serde::de::{Deserializer, Error};

use crate::range;

/// L/e^u + u of the weighted loss L, with u(lambda) learned beside the model (Karras et al. 2024, "Analyzing and improving
/// the training dynamics of diffusion models", section 2.1 and appendix B.2; after Kendall, Gal & Cipolla 2018). Its
/// minimum is u = ln E[L], where every noise level gives gradients of one size; so `of` decides only how a run starts.
///
/// u is one linear layer on Fourier features sqrt(2) cos(2 pi (f x + phi)) of x = ln(sigma/alpha)/4, as in the paper, with
/// two differences: frequencies and phases are spread evenly over their distributions instead of drawn, and the layer is free
/// and starts at zero instead of being normalised, so that losses of any size are met and the first step is that of `of`.
/// Losses come to about 1 at every level, and gradients grow as much: under a low `train.clip_norm` every update is cut.
/// Its gradient needs no graph: d/du is 1 - L/e^u. It trains by Adam with a rate of its own, which no schedule changes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Uncertainty {
    /// The weighting before the division, one that does not learn itself.
    #[serde(deserialize_with = "fixed")]
    pub of: Choice<dyn Weighting>,
    /// Fourier features.
    #[serde(deserialize_with = "range::points")]
    pub features: usize,
    /// Learning rate of u.
    #[serde(deserialize_with = "range::not_negative")]
    pub lr: f64,
}

fn fixed<'de, D: Deserializer<'de>>(d: D) -> Result<Choice<dyn Weighting>, D::Error> {
    let of = Choice::<dyn Weighting>::deserialize(d)?;
    match of.start() {
        None => Ok(of),
        Some(_) => Err(D::Error::custom(format!("`{}` learns by itself: take one that does not", of.name()))),
    }
}

impl Default for Uncertainty {
    fn default() -> Self {
        let of = Choice::named("native").expect("native is registered beside this");
        Self { of, features: 128, lr: 1e-2 }
    }
}

impl Weighting for Uncertainty {
    fn on_x0(&self, log_snr: f64) -> f64 {
        self.of.on_x0(log_snr)
    }

    fn on_output(&self, noise: &Noise, target: [f64; 2]) -> f64 {
        self.of.on_output(noise, target)
    }

    fn start(&self) -> Option<Box<dyn WeightingState>> {
        let n = self.features;
        let waves = (0..n).map(|i| [probit((i as f64 + 0.5) / n as f64), (i as f64 * GOLDEN).fract()]).collect();
        Some(Box::new(Layer { lr: self.lr, waves, weights: vec![[0.0; 3]; n], updates: 0.0 }))
    }
}

/// Multiples of the golden ratio fill [0, 1) evenly, and with no regard to the frequencies' order.
const GOLDEN: f64 = 0.618_033_988_749_894_8;
/// Log-SNRs beyond this, without signal or without noise, are told from it no more.
const FARTHEST: f64 = 20.0;
/// Adam's, as in the paper's code.
const BETAS: [f64; 2] = [0.9, 0.99];

struct Layer {
    lr: f64,
    /// Frequency and phase of each feature.
    waves: Vec<[f64; 2]>,
    /// Weight of each feature, and Adam's two moments.
    weights: Vec<[f64; 3]>,
    updates: f64,
}

impl Layer {
    /// The features at a log-SNR, over the root of their number, so that u has the weights' size.
    fn features(&self, log_snr: f64) -> impl Iterator<Item = f64> + '_ {
        let x = -log_snr.clamp(-FARTHEST, FARTHEST) / 8.0;
        let scale = SQRT_2 / (self.waves.len() as f64).sqrt();
        self.waves.iter().map(move |[f, phase]| scale * (TAU * (f * x + phase)).cos())
    }

    /// The gradient of the mean of importance · (L/e^u + u).
    fn gradient(&self, seen: &[Observation]) -> Vec<f64> {
        let mut gradient = vec![0.0; self.weights.len()];
        for o in seen {
            let slope = o.importance * (1.0 - o.loss * (-self.log_loss(o.log_snr)).exp()) / seen.len() as f64;
            gradient.iter_mut().zip(self.features(o.log_snr)).for_each(|(g, f)| *g += slope * f);
        }
        gradient
    }
}

impl WeightingState for Layer {
    fn log_loss(&self, log_snr: f64) -> f64 {
        self.features(log_snr).zip(&self.weights).map(|(f, [w, ..])| f * w).sum()
    }
}

impl Learned for Layer {
    fn observe(&mut self, seen: &[Observation]) {
        let gradient = self.gradient(seen);
        self.updates += 1.0;
        let rates = BETAS.map(|beta| 1.0 - beta.powf(self.updates));
        for ([w, mean, square], g) in self.weights.iter_mut().zip(gradient) {
            *mean += (1.0 - BETAS[0]) * (g - *mean);
            *square += (1.0 - BETAS[1]) * (g * g - *square);
            *w -= self.lr * (*mean / rates[0]) / ((*square / rates[1]).sqrt() + 1e-8);
        }
    }

    fn save(&self) -> Vec<f64> {
        self.weights.iter().flatten().copied().chain([self.updates]).collect()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), String> {
        let [weights @ .., updates] = state else { return Err("nothing was saved".into()) };
        if weights.len() != 3 * self.weights.len() {
            return Err(format!("{} numbers for {} features", weights.len(), self.weights.len()));
        }
        for (to, from) in self.weights.iter_mut().zip(weights.chunks(3)) {
            to.copy_from_slice(from);
        }
        self.updates = *updates;
        Ok(())
    }
}

register!(Weighting, "uncertainty", Uncertainty, aliases = ["edm2"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(log_snr: f64, loss: f64) -> Observation {
        Observation { quantile: 0.5, log_snr, weight: 1.0, error: loss, loss, log_loss: 0.0, importance: 1.0 }
    }

    fn layer(features: usize) -> Layer {
        let config = Uncertainty { features, ..Uncertainty::default() };
        let waves = (0..features).map(|i| [probit((i as f64 + 0.5) / features as f64), (i as f64 * GOLDEN).fract()]);
        Layer { lr: config.lr, waves: waves.collect(), weights: vec![[0.3, 0.0, 0.0]; features], updates: 0.0 }
    }

    #[test]
    fn the_gradient_matches_differences() {
        const H: f64 = 1e-6;
        let seen = [observed(-3.0, 0.7), observed(0.4, 2.0), observed(f64::INFINITY, 0.01)];
        let mut state = layer(8);
        let gradient = state.gradient(&seen);
        let loss = |state: &Layer| -> f64 {
            let one = |o: &Observation| o.loss * (-state.log_loss(o.log_snr)).exp() + state.log_loss(o.log_snr);
            seen.iter().map(one).sum::<f64>() / 3.0
        };
        for (i, g) in gradient.into_iter().enumerate() {
            let mut moved = |by: f64| {
                state.weights[i][0] += by;
                loss(&state)
            };
            let (after, before) = (moved(H), moved(-2.0 * H));
            moved(H);
            assert!((g - (after - before) / (2.0 * H)).abs() < 1e-8, "weight {i}: {g}");
        }
    }

    /// ln E[L], for a loss that falls by a factor of 400 over the levels.
    #[test]
    fn comes_to_the_logarithm_of_the_expected_loss() {
        let mut state = Uncertainty::default().start().expect("it learns");
        assert_eq!(state.log_loss(1.0), 0.0);
        let expected = |log_snr: f64| -1.0 + 0.5 * log_snr;
        for update in 0..1500 {
            let level = |i: i32| -6.0 + 12.0 * (f64::from(update * 8 + i) * GOLDEN).fract();
            // Losses of half and of one and a half of the mean.
            let seen: Vec<Observation> =
                (0..8).map(|i| observed(level(i), expected(level(i)).exp() * (0.5 + f64::from(i % 2)))).collect();
            state.observe(&seen);
        }
        for log_snr in [-5.0, -2.0, 0.0, 3.0, 5.0] {
            let error = state.log_loss(log_snr) - expected(log_snr);
            assert!(error.abs() < 0.25, "{error} off at {log_snr}");
        }
        assert!(state.log_loss(f64::NEG_INFINITY).is_finite() && state.log_loss(f64::INFINITY).is_finite());
    }
}
