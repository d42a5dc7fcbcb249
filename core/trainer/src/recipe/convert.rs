//! `model.convert`: how a checkpoint is taken to another objective or schedule.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a checkpoint becomes a model of another objective or schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be true, false, or { over_images = N }")]
pub enum Convert {
    /// Not at all, or read through a mapping all along.
    Mapped(bool),
    /// The mapping fades.
    Fading(Fading),
}

/// A mapping that fades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fading {
    /// The images over which the network takes over.
    pub over_images: u64,
}

impl Default for Convert {
    fn default() -> Self {
        Self::Mapped(false)
    }
}

impl Convert {
    /// Whether a conversion is meant.
    pub fn is_meant(self) -> bool {
        self != Self::default()
    }

    /// How far the network itself computes what the run asks for, from 0 to 1, after so many images.
    pub fn handed_over(self, images_seen: u64) -> f64 {
        match self {
            Self::Mapped(mapped) => f64::from(!mapped),
            Self::Fading(Fading { over_images }) if images_seen >= over_images => 1.0,
            Self::Fading(Fading { over_images }) => images_seen as f64 / over_images as f64,
        }
    }
}
