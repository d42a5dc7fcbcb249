//! PEFT's layout, which diffusers loads: `unet.<path>.lora_A.weight` and `lora_B.weight`. The layout has no alpha of its
//! own (readers take alpha = rank), so the scale is folded into B. Read too: PEFT's own files (`base_model.model.<path>`), and
//! what diffusers wrote before it had PEFT (`attn1.processor.to_q_lora.down.weight`, `lora_linear_layer`).

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use sconce_core::adapter::{AdapterLayout, Saved};
use sconce_nn::Store;
use sconce_nn::weights::WeightFiles;
use sconce_sdk::prelude::*;

/// PEFT's layout, which diffusers loads.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peft {}

impl AdapterLayout for Peft {
    fn write(&self, _: &[Arc<Store>], adapters: &[Saved]) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        for a in adapters {
            let (down, up, scale) = super::factors(a)?;
            let up = if scale == 1.0 { up.clone() } else { (up * scale)? };
            out.insert(format!("{}.{}.lora_A.weight", a.component, a.path), down.clone());
            out.insert(format!("{}.{}.lora_B.weight", a.component, a.path), up);
        }
        Ok(out)
    }

    fn read(&self, stores: &[Arc<Store>], file: &WeightFiles) -> Result<Option<Vec<Saved>>> {
        let layers = super::layers(stores);
        let denoiser = stores[0].component();
        let components: Vec<&str> = super::adaptable(stores).map(|s| s.component()).collect();
        // A key that begins with no component is not of this layout, unless PEFT itself wrote it, for the denoiser.
        let begins = |key: &str| {
            key.starts_with(WRAPPED)
                || key.split_once('.').is_some_and(|(c, _)| components.contains(&c) || ROOTS.contains(&c))
        };
        let parse = |key: &str| super::factor(key).filter(|_| begins(key));
        let find = |name: &str| {
            let (component, path) = match name.strip_prefix(WRAPPED) {
                Some(path) => (denoiser, path),
                None => name.split_once('.')?,
            };
            let known = |path: &str| {
                let key = (component.to_owned(), path.to_owned());
                layers.contains_key(&key).then_some(key)
            };
            // transformers 5 leaves `text_model.` out of its module names, files may have it or not.
            known(path)
                .or_else(|| known(&format!("text_model.{path}")))
                .or_else(|| known(path.strip_prefix("text_model.")?))
        };
        super::grouped(file, parse, find)
    }
}

/// What PEFT puts before a model's own names.
const WRAPPED: &str = "base_model.model.";
/// Components that such files are for: of another family's, the error should say that.
const ROOTS: [&str; 5] = ["unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"];

register!(AdapterLayout, "peft", Peft);
