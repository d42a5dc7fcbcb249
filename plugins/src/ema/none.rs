//! No average: the weights as they are.

use sconce_sdk::prelude::*;

/// No average is kept.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct None {}

impl EmaStrategy for None {
    fn decay(&self, _: u64, _: u64) -> Option<f64> {
        Option::None
    }
}

register!(EmaStrategy, "none", None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_nothing() {
        assert_eq!(None {}.decay(4, 4), Option::None);
    }
}
