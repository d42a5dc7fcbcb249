//! Other times with more noise.

use sconce_sdk::prelude::*;

use crate::range;

/// The times of `of`, each t moved to a t/(1 + (a - 1) t) (Esser et al. 2024, equation 23): kohya's `discrete_flow_shift` with
/// `timestep_sampling = "shift"`. It draws more noise from a schedule that stays as it is, where a schedule's own shift changes
/// the noise at every time.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "of": "logit-normal", "shift": 3.0 }))]
pub struct Shift {
    /// The times to move.
    pub of: Choice<dyn TimestepSampler>,
    /// Above 1 is towards noise. Stable Diffusion 3 uses 3.
    #[serde(default = "three", deserialize_with = "range::positive")]
    pub shift: f64,
}

fn three() -> f64 {
    3.0
}

impl Shift {
    /// Where t was before the shift: the shift by 1/a.
    fn before(&self, t: f64) -> f64 {
        t / (self.shift - (self.shift - 1.0) * t)
    }
}

impl TimestepSampler for Shift {
    fn quantile(&self, u: f64, schedule: &dyn Schedule) -> f64 {
        let t = self.of.quantile(u, schedule);
        self.shift * t / (1.0 + (self.shift - 1.0) * t)
    }

    fn cumulative(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        self.of.cumulative(self.before(t), schedule)
    }

    fn density(&self, t: f64, schedule: &dyn Schedule) -> f64 {
        let slope = self.shift / (self.shift - (self.shift - 1.0) * t).powi(2);
        self.of.density(self.before(t), schedule) * slope
    }

    fn start(&self) -> Option<Box<dyn SamplerState>> {
        self.of.start()
    }
}

register!(TimestepSampler, "shift", Shift);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn draws_what_uniform_times_see_of_the_shifted_flow() {
        let shift = Shift { of: Choice::named("uniform").unwrap(), shift: 3.0 };
        let (plain, shifted) = (RectifiedFlow::default(), RectifiedFlow { shift: 3.0 });
        for u in [0.1, 0.6] {
            assert!((plain.at(shift.quantile(u, &plain)).sigma - shifted.at(u).sigma).abs() < 1e-15);
        }
    }
}
