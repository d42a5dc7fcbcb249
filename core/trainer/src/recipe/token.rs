//! `[[token]]`: a word of the user's own that the text encoders learn.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A word of the user's own: rows beside the text encoders' tables, learned from the captions that say it (textual inversion,
/// Gal et al. 2022), together with an adapter where there is one (pivotal tuning).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenTable {
    /// How captions and prompts say it: `<penguin>`. Upper and lower case are alike.
    pub text: String,
    /// How many rows it has, which is how many tokens of a prompt it takes. Default: as many as `from` has, or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<usize>,
    /// A text near to what it is to mean, such as `bird`: it starts from the rows of that text's tokens, again from the first
    /// where there are fewer than `vectors`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// A file of a word, as ComfyUI, A1111, diffusers or sconce have it, that it starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The text encoders that learn it, by component. Default: every CLIP encoder of the model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub encoders: Vec<String>,
    /// Factor on the learning rate. Zero: it is known, and stays as `from` has it.
    #[serde(default = "whole")]
    pub lr_factor: f64,
}

fn whole() -> f64 {
    1.0
}
