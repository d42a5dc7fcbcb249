//! kohya's layout, which ComfyUI, Forge and A1111 load: `lora_unet_<path with _>.lora_down.weight`, `lora_up.weight` and
//! `alpha`. The text encoders are `lora_te_`, or `lora_te1_` and `lora_te2_` where there are two; SDXL's UNet goes by its
//! original names (`input_blocks_4_1_…`).

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, bail};
use sconce_core::adapter::{AdapterLayout, Saved};
use sconce_core::model::Model;
use sconce_nn::weights::WeightFiles;
use sconce_sdk::prelude::*;

use super::ldm;

/// kohya's layout, which ComfyUI, Forge and A1111 load.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kohya {}

impl AdapterLayout for Kohya {
    fn write(&self, model: &dyn Model, adapters: &[Saved]) -> Result<BTreeMap<String, Tensor>> {
        let names = Names::of(model);
        let mut out = BTreeMap::new();
        for a in adapters {
            let Some(name) = names.written.get(&(a.component.clone(), a.path.clone())) else {
                bail!("{}.{}: the model has no such layer", a.component, a.path)
            };
            let (Some(down), Some(up)) = (a.tensors.get("lora_A.weight"), a.tensors.get("lora_B.weight")) else {
                bail!("{}.{}: this layout holds LoRA alone", a.component, a.path)
            };
            let alpha = a.constants.get("alpha").copied().unwrap_or(down.dim(0)? as f64);
            out.insert(format!("{name}.lora_down.weight"), down.clone());
            out.insert(format!("{name}.lora_up.weight"), up.clone());
            out.insert(format!("{name}.alpha"), Tensor::new(alpha as f32, &Device::Cpu)?);
        }
        Ok(out)
    }

    fn read(&self, model: &dyn Model, file: &WeightFiles) -> Result<Option<Vec<Saved>>> {
        let names = Names::of(model);
        let parse = |key: &str| {
            let name = |suffix: &str| key.strip_suffix(suffix).map(str::to_owned);
            name(".lora_down.weight")
                .map(|n| (n, "lora_A.weight"))
                .or_else(|| name(".lora_up.weight").map(|n| (n, "lora_B.weight")))
                .or_else(|| name(".alpha").map(|n| (n, "alpha")))
        };
        super::grouped(file, parse, |name| names.read.get(name).cloned())
    }
}

/// The layers' names in this layout, both ways.
struct Names {
    written: BTreeMap<(String, String), String>,
    read: BTreeMap<String, (String, String)>,
}

impl Names {
    fn of(model: &dyn Model) -> Self {
        let encoders: Vec<String> = model.conditioner().stores().iter().map(|s| s.component().to_owned()).collect();
        let paths: Vec<String> = model.backbone().store().layers().iter().map(|l| l.path().to_owned()).collect();
        let depth = ldm::layers_per_block(&paths);
        let (mut written, mut read) = (BTreeMap::new(), BTreeMap::new());
        for (component, path) in super::layers(model).into_keys() {
            let layer = (component.clone(), path.clone());
            let spell = |prefix: &str, path: &str| format!("{prefix}_{}", path.replace('.', "_"));
            let all = match encoders.iter().position(|e| *e == component) {
                Some(i) => {
                    let prefix = if encoders.len() > 1 { format!("lora_te{}", i + 1) } else { "lora_te".to_owned() };
                    vec![spell(&prefix, &path)]
                }
                // Both spellings of the UNet are read; the first is written.
                None if encoders.len() > 1 => {
                    let original = ldm::original(&path, depth, &paths);
                    original.iter().map(String::as_str).chain([path.as_str()]).map(|p| spell("lora_unet", p)).collect()
                }
                None => vec![spell("lora_unet", &path)],
            };
            written.insert(layer.clone(), all[0].clone());
            read.extend(all.into_iter().map(|name| (name, layer.clone())));
        }
        Self { written, read }
    }
}

register!(AdapterLayout, "kohya", Kohya);
