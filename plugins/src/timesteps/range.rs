//! A part of the times: for training one stage of several, or leaving an end out.

use sconce_sdk::prelude::*;

use crate::range;

/// The times from `from` to `to` alone, drawn as `of` draws them there: kohya's `min_timestep` and `max_timestep`, in
/// thousandths.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Range {
    /// Nothing below this is drawn.
    #[serde(deserialize_with = "range::share")]
    pub from: f64,
    /// Nothing above this is drawn.
    #[serde(deserialize_with = "range::share")]
    pub to: f64,
    /// How they are drawn.
    pub of: Choice<dyn TimestepSampler>,
}

impl Default for Range {
    fn default() -> Self {
        Self { from: 0.0, to: 1.0, of: Choice::named("uniform").expect("it is registered here") }
    }
}

impl Range {
    /// The shares of `of`'s draws that lie below the range and up to its end.
    fn shares(&self, schedule: &dyn Schedule) -> [f64; 2] {
        let below = if self.from > 0.0 { self.of.cumulative(self.from, schedule) } else { 0.0 };
        [below, if self.to < 1.0 { self.of.cumulative(self.to, schedule) } else { 1.0 }]
    }
}

impl TimestepSampler for Range {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        let [below, up_to] = self.shares(schedule);
        // Rounding may not lead out of the range.
        self.of.quantile(below + u * (up_to - below), schedule).max(self.from).min(self.to)
    }

    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let [below, up_to] = self.shares(schedule);
        ((self.of.cumulative(t, schedule) - below) / (up_to - below)).clamp(0.0, 1.0)
    }

    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        if !(self.from..=self.to).contains(&t) {
            return 0.0;
        }
        let [below, up_to] = self.shares(schedule);
        self.of.density(t, schedule) / (up_to - below)
    }

    fn start(&self) -> Option<Box<dyn SamplerState>> {
        self.of.start()
    }
}

register!(TimestepSampler, "range", Range);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn keeps_the_shape_inside_and_nothing_outside() {
        let flow = RectifiedFlow::default();
        let half = Range { from: 0.5, to: 1.0, of: Choice::named("logit-normal").unwrap() };
        assert_eq!(half.quantile(0.0, &flow), 0.5);
        assert!((half.density(0.7, &flow) / half.of.density(0.7, &flow) - 2.0).abs() < 1e-9);
        assert_eq!(half.density(0.3, &flow), 0.0);
        assert!((Range { from: 0.2, to: 0.4, ..Range::default() }.quantile(0.5, &flow) - 0.3).abs() < 1e-15);
    }
}
