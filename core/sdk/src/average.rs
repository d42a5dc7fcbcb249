//! What an average of the weights is told by: its profile over the run, and the snapshots that are kept of it, from which
//! averages of other profiles can be rebuilt afterwards (Karras et al. 2024, arXiv 2312.02696, section 3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One running average.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Track {
    /// Its profile, where it has one: what averages of other profiles can be rebuilt from.
    pub profile: Option<Profile>,
}

/// A power-function profile: in an average at time t, the weights of time tau count
/// p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) on [0, t] (Karras et al. 2024, section 3.1). Its width grows in step with
/// the run, and the untrained weights leave no trace in it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// The power.
    pub gamma: f64,
}

impl Profile {
    /// The widest profile that does not fall in time, sigma_rel = 1/sqrt(12): the plain mean of the whole run, gamma = 0.
    pub const WIDEST: f64 = 0.288_675_134_594_812_9;

    /// The profile of a relative width: its standard deviation as a share of the run so far. `None` outside
    /// (0, [`Profile::WIDEST`]].
    ///
    /// gamma is the largest root of g³ + 7g² + (16 - 1/s²) g + (12 - 1/s²), s = `sigma_rel`: 16.97 for 0.05, 6.94 for 0.10.
    pub fn of_width(sigma_rel: f64) -> Option<Self> {
        if !(sigma_rel > 0.0 && sigma_rel <= Self::WIDEST) {
            return None;
        }
        let s = sigma_rel.powi(-2);
        // The cubic is convex from 0 on and positive at 1/sigma_rel, so Newton's steps come down to the root and stay
        // above it.
        let mut g = sigma_rel.recip();
        for _ in 0..100 {
            let value = ((g + 7.0) * g + 16.0 - s) * g + 12.0 - s;
            let slope = (3.0 * g + 14.0) * g + 16.0 - s;
            let next = g - value / slope;
            if next >= g {
                break;
            }
            g = next;
        }
        Some(Self { gamma: g.max(0.0) })
    }

    /// sigma_rel = sqrt((gamma + 1) / ((gamma + 2)² (gamma + 3))).
    pub fn width(&self) -> f64 {
        let g = self.gamma;
        ((g + 1.0) / ((g + 2.0).powi(2) * (g + 3.0))).sqrt()
    }

    /// beta = (1 - dt/t)^(gamma + 1) for a step of `batch` images that ends at `images_seen`. The betas of
    /// a run multiply to its profile exactly, whatever the batches were.
    pub fn decay(&self, images_seen: u64, batch: u64) -> f64 {
        (1.0 - batch as f64 / images_seen.max(1) as f64).max(0.0).powf(self.gamma + 1.0)
    }

    /// The inner product of this profile at time `t` with `other` at time `u`, both above 0, over the run.
    pub fn product(&self, t: f64, other: &Self, u: f64) -> f64 {
        let (a, b) = (self.gamma, other.gamma);
        let ratio = if t < u { (t / u).powf(b) } else { (u / t).powf(a) };
        (a + 1.0) * (b + 1.0) * ratio / ((a + b + 1.0) * t.max(u))
    }
}

/// When the averages are written down as a run goes, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshots {
    /// One every so many images, and one at the end.
    pub every_images: u64,
    /// The type of the stored values.
    pub dtype: Stored,
}

/// A floating type of stored values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    /// 32 bits.
    #[default]
    F32,
    /// IEEE half: 11 bits of precision, overflows at 65,504.
    F16,
    /// bfloat16: 8 bits of precision.
    Bf16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_and_width_are_those_of_the_paper() {
        let gamma = |s| Profile::of_width(s).expect("in range").gamma;
        assert!((gamma(0.05) - 16.97).abs() < 5e-3 && (gamma(0.10) - 6.94).abs() < 5e-3);
        assert!(gamma(Profile::WIDEST) < 1e-6);
        for s in [1e-4, 0.01, 0.05, 0.07, 0.10, 0.15, 0.25, 0.288] {
            let back = Profile { gamma: gamma(s) }.width();
            assert!((back / s - 1.0).abs() < 1e-12, "{s} comes back as {back}");
        }
        assert!([0.0, -0.1, 0.29, f64::NAN].iter().all(|&s| Profile::of_width(s).is_none()));
    }

    /// The formulas against sums over a run of uneven steps.
    #[test]
    fn decays_multiply_to_the_profile_and_products_are_integrals() {
        let (wide, narrow) = (Profile { gamma: 2.5 }, Profile { gamma: 16.97 });
        let (mut seen, mut weights) = (0, Vec::new());
        for batch in [3, 4, 1, 7].into_iter().cycle().take(40) {
            seen += batch;
            let decay = wide.decay(seen, batch);
            weights.iter_mut().for_each(|(_, w)| *w *= decay);
            weights.push((seen, 1.0 - decay));
        }
        let end = seen as f64;
        let share = |t: u64| (t as f64 / end).powf(wide.gamma + 1.0);
        let mut before = 0;
        for (at, weight) in weights {
            assert!((weight - (share(at) - share(before))).abs() < 1e-12, "at {at}: {weight}");
            before = at;
        }

        let density = |p: &Profile, tau: f64, t: f64| match tau <= t {
            true => (p.gamma + 1.0) * (tau / t).powf(p.gamma) / t,
            false => 0.0,
        };
        for (t, u) in [(3.0, 5.0), (5.0, 3.0), (4.0, 4.0)] {
            const N: usize = 200_000;
            let h = f64::min(t, u) / N as f64;
            let at = |i: usize| (i as f64 + 0.5) * h;
            let sum: f64 = (0..N).map(|i| density(&wide, at(i), t) * density(&narrow, at(i), u) * h).sum();
            let got = wide.product(t, &narrow, u);
            assert!((got / sum - 1.0).abs() < 1e-6, "{t} {u}: {got} against {sum}");
        }
    }
}
