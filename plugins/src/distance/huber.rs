//! Keeps a few pictures that do not belong from steering the rest.

use sconce_sdk::prelude::*;

use super::WidthSchedule;
use crate::range;

/// The pseudo-Huber distance 2c(sqrt(d² + c²) - c) (Charbonnier et al. 1997; for diffusion with a scheduled width,
/// Khrapov et al. 2024, section 3.2): d² below the width c, 2c|d| above it.
///
/// Where errors are below c it is the squared error, and the weighting means what it says; an element whose error is n
/// times c counts 2/n of its weight. With the width narrow at high noise, that is where outliers lose their say. As its
/// minimum is no longer the mean, a narrow width biases what is sampled.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Huber {
    /// The width: in pure noise, where it is scheduled.
    #[serde(deserialize_with = "range::positive")]
    pub c: f64,
    /// How the width follows the noise level.
    pub schedule: WidthSchedule,
}

impl Default for Huber {
    fn default() -> Self {
        Self { c: 0.1, schedule: WidthSchedule::default() }
    }
}

impl Distance for Huber {
    fn at(&self, d: f64, c: f64) -> [f64; 2] {
        let root = d.hypot(c);
        [2.0 * c * d * (d / (root + c)), 2.0 * c * (d / root)]
    }

    fn width(&self, t: f64, noise: &Noise) -> f64 {
        self.schedule.at(self.c, t, noise)
    }
}

register!(Distance, "huber", Huber, aliases = ["pseudo-huber"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_square_below_the_width_and_straight_above() {
        let [small, _] = Huber::default().at(1e-4, 0.1);
        assert!((small / 1e-8 - 1.0).abs() < 1e-6);
        let [large, slope] = Huber::default().at(-1e4, 0.1);
        assert!((large / (2.0 * 0.1 * (1e4 - 0.1)) - 1.0).abs() < 1e-9 && (slope + 0.2).abs() < 1e-9);
        let [middle, _] = Huber::default().at(3.0, 4.0);
        assert!((middle - 2.0 * 4.0 * (5.0 - 4.0)).abs() < 1e-12);
    }
}
