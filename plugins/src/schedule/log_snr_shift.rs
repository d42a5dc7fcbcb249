//! Moves another schedule to more or less noise, for pictures of another size than it was made for.

use std::sync::Arc;

use sconce_sdk::prelude::*;

use crate::range;

/// Any schedule with its log-SNR shifted (Hoogeboom et al. 2023, section 3.1): by a number, and for latents of a side d by
/// 2 ln(base_side/d), so that a larger picture is hidden as well as one of `base_side` by the unshifted schedule.
///
/// Each level stays on the path of `of`: on the circle of a variance-preserving schedule, on the straight line of a
/// rectified flow, whose time shift by a is this by -2 ln a. Where the shift leads beyond the ends of `of`, alpha² + sigma²
/// stays what it is at the end.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "of": "cosine-continuous", "by": -2.77 }))]
pub struct LogSnrShift {
    /// The schedule to change.
    pub of: Choice<dyn Schedule>,
    /// Added to every log-SNR: below 0 is more noise.
    #[serde(default, deserialize_with = "range::finite")]
    pub by: f64,
    /// The side of the square latents for which `of` is right: 32 is 256 pixels. Default: the size does not matter.
    #[serde(default, deserialize_with = "range::maybe_positive", skip_serializing_if = "Option::is_none")]
    pub base_side: Option<f64>,
}

/// A level in polar form: alpha = radius cos, sigma = radius sin of an angle that grows with the noise.
struct Polar {
    radius: f64,
    d_radius: f64,
    d_angle: f64,
}

impl Polar {
    fn of(n: &Noise) -> Self {
        let radius = n.alpha.hypot(n.sigma);
        let d_radius = (n.alpha * n.d_alpha + n.sigma * n.d_sigma) / radius;
        Self { radius, d_radius, d_angle: (n.alpha * n.d_sigma - n.sigma * n.d_alpha) / (radius * radius) }
    }
}

impl Schedule for LogSnrShift {
    fn at(&self, t: f64) -> Noise {
        let inner = self.of.at(t);
        // tan of the angle grows by this factor.
        let factor = (-0.5 * self.by).exp();
        let turned = inner.alpha.hypot(factor * inner.sigma);
        let (cos, sin) = (inner.alpha / turned, factor * inner.sigma / turned);
        let d_angle =
            Polar::of(&inner).d_angle * factor * (inner.alpha.powi(2) + inner.sigma.powi(2)) / (turned * turned);

        let log_snr = 2.0 * (cos.ln() - sin.ln());
        let there = self.of.at(self.of.t_of(log_snr));
        let Polar { radius, d_radius, d_angle: pace } = Polar::of(&there);
        let reached = log_snr.is_infinite() || (there.log_snr() - log_snr).abs() < 1e-6;
        let d_radius = if reached { d_radius * d_angle / pace } else { 0.0 };
        Noise {
            alpha: radius * cos,
            sigma: radius * sin,
            d_alpha: d_radius * cos - radius * sin * d_angle,
            d_sigma: d_radius * sin + radius * cos * d_angle,
        }
    }

    fn t_of(&self, log_snr: f64) -> f64 {
        self.of.t_of(log_snr - self.by)
    }

    fn grid(&self) -> Option<usize> {
        self.of.grid()
    }

    fn at_size(&self, height: usize, width: usize) -> Option<Arc<dyn Schedule>> {
        let of = self.of.at_size(height, width);
        let side = ((height * width) as f64).sqrt();
        let more = self.base_side.map(|base| 2.0 * (base / side).ln());
        if of.is_none() && more.is_none() {
            return None;
        }
        let of = of.map_or_else(|| self.of.clone(), |object| self.of.with(object));
        Some(Arc::new(Self { of, by: self.by + more.unwrap_or(0.0), base_side: None }))
    }
}

register!(Schedule, "log-snr-shift", LogSnrShift, aliases = ["log_snr_shift"]);

#[cfg(test)]
mod tests {
    use super::*;

    fn shifted(name: &str, by: f64, base_side: Option<f64>) -> LogSnrShift {
        LogSnrShift { of: Choice::named(name).unwrap(), by, base_side }
    }

    #[test]
    fn twice_the_side_is_a_quarter_of_the_snr() {
        let sized = shifted("scaled-linear", 0.0, Some(32.0)).at_size(64, 64).unwrap();
        let inner = Choice::<dyn Schedule>::named("scaled-linear").unwrap();
        for t in [0.001, 0.3, 1.0] {
            assert!((sized.at(t).snr() / inner.at(t).snr() - 0.25).abs() < 1e-12);
            assert!((sized.at(t).alpha.hypot(sized.at(t).sigma) - 1.0).abs() < 1e-12);
        }
        assert!(shifted("scaled-linear", -1.0, None).at_size(64, 64).is_none());
    }

    #[test]
    fn a_rectified_flow_stays_one_and_exploding_variance_too() {
        let flow = shifted("rectified-flow", -2.0 * 3f64.ln(), None);
        let shift = Choice::<dyn Schedule>::from_table(&serde_json::json!({ "type": "rectified-flow", "shift": 3.0 }));
        let shift = shift.unwrap();
        for t in [0.0, 0.2, 0.7, 1.0] {
            let (a, b) = (flow.at(t), shift.at(t));
            assert!((a.alpha - b.alpha).abs() < 1e-9 && (a.d_sigma - b.d_sigma).abs() < 1e-6, "{a:?} {b:?}");
        }
        assert!((shifted("edm", -1.0, None).at(0.3).alpha - 1.0).abs() < 1e-9);
    }
}
