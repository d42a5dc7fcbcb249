//! No average: the weights as they are.

use sconce_sdk::prelude::*;

/// No average is kept.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct None {}

impl EmaStrategy for None {
    fn tracks(&self) -> Vec<Track> {
        Vec::new()
    }

    fn decay(&self, _: usize, _: u64, _: u64) -> f64 {
        0.0
    }
}

register!(EmaStrategy, "none", None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_nothing() {
        assert!(None {}.tracks().is_empty());
    }
}
