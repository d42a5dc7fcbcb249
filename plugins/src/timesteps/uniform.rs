//! Every time alike.

use sconce_sdk::prelude::*;

/// Every time alike.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Uniform {}

impl TimestepSampler for Uniform {
    fn quantile(&self, u: f64) -> f64 {
        u
    }
}

register!(TimestepSampler, "uniform", Uniform);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Uniform {}.quantile(0.5), 0.5);
    }
}
