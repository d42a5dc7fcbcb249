//! PEFT's layout, which diffusers loads: `unet.<path>.lora_A.weight` and `lora_B.weight`. The layout has no alpha of its
//! own (readers take alpha = rank), so the scale is folded into B.

use std::collections::BTreeMap;

use candle_core::{Result, Tensor, bail};
use sconce_core::adapter::{AdapterLayout, Saved};
use sconce_core::model::Model;
use sconce_nn::weights::WeightFiles;
use sconce_sdk::prelude::*;

/// PEFT's layout, which diffusers loads.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peft {}

impl AdapterLayout for Peft {
    fn write(&self, _: &dyn Model, adapters: &[Saved]) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        for a in adapters {
            let (Some(down), Some(up)) = (a.tensors.get("lora_A.weight"), a.tensors.get("lora_B.weight")) else {
                bail!("{}.{}: this layout holds LoRA alone", a.component, a.path)
            };
            let rank = down.dim(0)? as f64;
            let scale = a.constants.get("alpha").map_or(1.0, |alpha| alpha / rank);
            let up = if scale == 1.0 { up.clone() } else { (up * scale)? };
            out.insert(format!("{}.{}.lora_A.weight", a.component, a.path), down.clone());
            out.insert(format!("{}.{}.lora_B.weight", a.component, a.path), up);
        }
        Ok(out)
    }

    fn read(&self, model: &dyn Model, file: &WeightFiles) -> Result<Option<Vec<Saved>>> {
        let layers = super::layers(model);
        let parse = |key: &str| {
            let name = |suffix: &str| key.strip_suffix(suffix).map(str::to_owned);
            name(".lora_A.weight")
                .map(|n| (n, "lora_A.weight"))
                .or_else(|| name(".lora_B.weight").map(|n| (n, "lora_B.weight")))
                .or_else(|| name(".alpha").map(|n| (n, "alpha")))
        };
        let find = |name: &str| {
            let (component, path) = name.split_once('.')?;
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

register!(AdapterLayout, "peft", Peft);
