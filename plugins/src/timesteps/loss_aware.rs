//! Draws times where there is most to learn, found out as the run goes.

use sconce_sdk::prelude::*;
use serde::de::{Deserializer, Error};

use crate::range;

/// Any distribution of times, drawn more often where `by` says that samples say more, and weighted down as much: the
/// loss stays what `of` makes it, with less noise (Nichol & Dhariwal 2021, section 3.3; Katharopoulos & Fleuret 2018).
///
/// The quantiles of `of` are cut into bins of equal mass. A bin's chance is, but for the `even` share, in proportion to the
/// root mean square of what was seen in it, which is what makes the variance of the loss's estimate least (Nichol & Dhariwal
/// 2021, equation 18); a time that is drawn n times as often counts 1/n. Bins that were hardly seen stand at the mean of all.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LossAware {
    /// The distribution that the loss is to have, of a plugin that does not learn itself.
    #[serde(default = "uniform", deserialize_with = "fixed")]
    pub of: Choice<dyn TimestepSampler>,
    /// What draws are drawn to.
    #[serde(default)]
    pub by: By,
    /// Bins of equal mass.
    #[serde(default = "bins", deserialize_with = "range::points")]
    pub bins: usize,
    /// Share of the draws that is left to `of` as it is; no sample's weight is above one over it.
    #[serde(default = "even", deserialize_with = "range::inside_unit")]
    pub even: f64,
    /// What was seen so many images ago counts 1/e of what was seen now.
    #[serde(default = "memory", deserialize_with = "range::positive")]
    pub memory_images: f64,
}

/// What draws are drawn to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// The weighted loss (Nichol & Dhariwal 2021).
    Loss,
    /// The norm of its gradient with regard to the output, weight times the root of the squared error, which bounds that of
    /// the whole gradient up to a constant (Katharopoulos & Fleuret 2018, section 3.2).
    #[default]
    Gradient,
}

fn fixed<'de, D: Deserializer<'de>>(d: D) -> Result<Choice<dyn TimestepSampler>, D::Error> {
    let of = Choice::<dyn TimestepSampler>::deserialize(d)?;
    match of.start() {
        None => Ok(of),
        Some(_) => Err(D::Error::custom(format!("`{}` learns by itself: take one that does not", of.name()))),
    }
}
fn uniform() -> Choice<dyn TimestepSampler> {
    Choice::named("uniform").expect("it is registered beside this one")
}
fn bins() -> usize {
    32
}
fn even() -> f64 {
    0.25
}
fn memory() -> f64 {
    10_000.0
}

/// Samples that a bin must have seen for its own mean to count as much as that of all.
const DOUBT: f64 = 4.0;

impl TimestepSampler for LossAware {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        self.of.quantile(u, schedule)
    }

    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        self.of.cumulative(t, schedule)
    }

    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        self.of.density(t, schedule)
    }

    fn start(&self) -> Option<Box<dyn SamplerState>> {
        let (squares, counts) = (vec![0.0; self.bins], vec![0.0; self.bins]);
        let chances = vec![1.0 / self.bins as f64; self.bins];
        Some(Box::new(Seen { config: self.clone(), squares, counts, chances }))
    }
}

/// What was seen: for each bin, fading sums of squares and of samples, and the chance that follows.
struct Seen {
    config: LossAware,
    squares: Vec<f64>,
    counts: Vec<f64>,
    chances: Vec<f64>,
}

impl Seen {
    /// The chance of each bin; all of them add up to 1.
    fn chances(&self) -> Vec<f64> {
        let bins = self.counts.len() as f64;
        let means = self.squares.iter().zip(&self.counts).filter(|(_, n)| **n > 0.0).map(|(s, n)| s / n);
        let (sum, seen) = means.fold((0.0, 0.0), |(sum, seen), mean| (sum + mean, seen + 1.0));
        let mean = if seen > 0.0 { sum / seen } else { 0.0 };
        let root = |(s, n): (&f64, &f64)| ((s + DOUBT * mean) / (n + DOUBT)).sqrt();
        let roots: Vec<f64> = self.squares.iter().zip(&self.counts).map(root).collect();
        let whole: f64 = roots.iter().sum();
        let even = self.config.even;
        let chance = |r: &f64| if whole > 0.0 { even / bins + (1.0 - even) * r / whole } else { 1.0 / bins };
        roots.iter().map(chance).collect()
    }
}

impl SamplerState for Seen {
    fn map(&self, u: f64) -> [f64; 2] {
        let bins = self.chances.len() as f64;
        let mut below = 0.0;
        for (bin, chance) in self.chances.iter().enumerate() {
            if u < below + chance || bin + 1 == self.chances.len() {
                let inside = ((u - below) / chance).clamp(0.0, 1.0 - f64::EPSILON);
                return [(bin as f64 + inside) / bins, 1.0 / (bins * chance)];
            }
            below += chance;
        }
        unreachable!("there are two bins or more, and the last takes what is left")
    }
}

impl Learned for Seen {
    fn observe(&mut self, seen: &[Observation]) {
        let keep = (-(seen.len() as f64) / self.config.memory_images).exp();
        self.squares.iter_mut().chain(&mut self.counts).for_each(|x| *x *= keep);
        let bins = self.counts.len();
        for o in seen {
            let bin = ((o.quantile * bins as f64) as usize).min(bins - 1);
            self.squares[bin] += match self.config.by {
                By::Loss => o.loss * o.loss,
                By::Gradient => o.weight * o.weight * o.error,
            } * (-2.0 * o.log_loss).exp();
            self.counts[bin] += 1.0;
        }
        self.chances = self.chances();
    }

    fn save(&self) -> Vec<f64> {
        [&self.squares[..], &self.counts].concat()
    }

    fn restore(&mut self, state: &[f64]) -> Result<(), String> {
        let bins = self.counts.len();
        if state.len() != 2 * bins {
            return Err(format!("{} numbers for {bins} bins", state.len()));
        }
        self.squares.copy_from_slice(&state[..bins]);
        self.counts.copy_from_slice(&state[bins..]);
        self.chances = self.chances();
        Ok(())
    }
}

register!(TimestepSampler, "loss-aware", LossAware, aliases = ["loss_aware"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler() -> LossAware {
        let of = Choice::named("uniform").expect("registered");
        LossAware { of, by: By::Loss, bins: 4, even: 0.2, memory_images: 1000.0 }
    }

    fn observed(quantile: f64, loss: f64) -> Observation {
        Observation { quantile, log_snr: 0.0, weight: 1.0, error: loss, loss, log_loss: 0.0, importance: 1.0 }
    }

    #[test]
    fn starts_as_it_is_told_and_learns_where_the_loss_is() {
        let mut state = sampler().start().expect("it learns");
        assert_eq!(state.map(0.3), [0.3, 1.0]);
        let seen: Vec<Observation> = (0..400)
            .map(|i| (f64::from(i) + 0.5) / 400.0)
            .map(|u| observed(u, if u < 0.25 { 3.0 } else { 1.0 }))
            .collect();
        state.observe(&seen);
        // Half of the free 0.8 for the first bin, whose root mean square is half of the sum of all: 0.05 + 0.8 · 3/6.
        let [v, weight] = state.map(0.2);
        assert!((weight - 0.25 / 0.45).abs() < 0.02 && (v - 0.2 * weight).abs() < 1e-12, "{v}, {weight}");
    }

    /// The expectation of any function is that under `of`.
    #[test]
    fn what_it_learned_leaves_the_mean_as_it_is() {
        let mut state = sampler().start().expect("it learns");
        state.observe(&[observed(0.1, 9.0), observed(0.9, 0.5), observed(0.3, 1e-3)]);
        let f = |v: f64| (5.0 * v).sin() + v * v;
        let mean = |g: &dyn Fn(f64) -> f64| (0..100_000).map(|i| g((f64::from(i) + 0.5) / 1e5)).sum::<f64>() / 1e5;
        let learned = mean(&|u| {
            let [v, weight] = state.map(u);
            weight * f(v)
        });
        assert!((learned - mean(&f)).abs() < 1e-4, "{learned}, not {}", mean(&f));
    }
}
