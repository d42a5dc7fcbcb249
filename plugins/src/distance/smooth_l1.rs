//! The absolute difference with its corner rounded.

use sconce_sdk::prelude::*;

use super::WidthSchedule;
use crate::range;

/// 2(sqrt(d² + c²) - c): 2|d| above the width c and d²/c below it.
///
/// It is `huber` over c. Below the width it counts 1/c of the squared error, so with a scheduled width it weighs noise
/// levels by 1/c(t), on top of the weighting: where that is not wanted, take `huber`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SmoothL1 {
    /// The width: in pure noise, where it is scheduled.
    #[serde(deserialize_with = "range::positive")]
    pub c: f64,
    /// How the width follows the noise level.
    pub schedule: WidthSchedule,
}

impl Default for SmoothL1 {
    fn default() -> Self {
        Self { c: 0.1, schedule: WidthSchedule::default() }
    }
}

impl Distance for SmoothL1 {
    fn at(&self, d: f64, c: f64) -> [f64; 2] {
        let root = d.hypot(c);
        [2.0 * d * (d / (root + c)), 2.0 * (d / root)]
    }

    fn width(&self, t: f64, noise: &Noise) -> f64 {
        self.schedule.at(self.c, t, noise)
    }
}

register!(Distance, "smooth-l1", SmoothL1, aliases = ["smooth_l1"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distance::Huber;

    #[test]
    fn is_the_pseudo_huber_distance_over_the_width() {
        for d in [-7.0, -0.01, 0.3, 2.0] {
            let (smooth, huber) = (SmoothL1::default().at(d, 0.3), Huber::default().at(d, 0.3));
            assert!((smooth[0] * 0.3 - huber[0]).abs() < 1e-12 && (smooth[1] * 0.3 - huber[1]).abs() < 1e-12);
        }
        assert!((SmoothL1::default().at(1e6, 0.1)[0] / 2e6 - 1.0).abs() < 1e-6);
    }
}
