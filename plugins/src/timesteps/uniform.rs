//! Every time alike.

use sconce_sdk::prelude::*;

/// Every time alike.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Uniform {}

impl TimestepSampler for Uniform {
    fn quantile(&self, u: f64, _: &dyn Schedule) -> f64 {
        u
    }

    fn cumulative(&self, t: f64, _: &dyn Schedule) -> f64 {
        t
    }

    fn density(&self, _: f64, _: &dyn Schedule) -> f64 {
        1.0
    }
}

register!(TimestepSampler, "uniform", Uniform);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Uniform {}.quantile(0.5, &RectifiedFlow::default()), 0.5);
    }
}
