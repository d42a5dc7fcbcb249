//! PEFT's layout, which diffusers loads: `unet.<path>.lora_A.weight` and `lora_B.weight`. The layout has no alpha of its
//! own (without a configuration readers take alpha = rank), so the scale is folded into B. Read too: PEFT's own files (`base_model.model.<path>`), and
//! what diffusers wrote before it had PEFT (`attn1.processor.to_q_lora.down.weight`, `lora_linear_layer`).

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use sconce_core::adapter::{AdapterLayout, Saved};
use sconce_nn::Store;
use sconce_nn::weights::WeightFiles;
use sconce_sdk::prelude::*;

use super::peft_config::Config;
use super::{ALPHA, BIAS_DIFFERENCE, DOWN, FACTORS, MAGNITUDE, NEUMANN_TERMS, SKEW, UP, UP_BIAS, WEIGHT_ALONE};

/// PEFT's layout, which diffusers loads.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peft {}

impl AdapterLayout for Peft {
    fn write(&self, _: &[Arc<Store>], adapters: &[Saved]) -> Result<BTreeMap<String, Tensor>> {
        let mut out = BTreeMap::new();
        for a in adapters {
            super::writable(a)?;
            let scaled = SCALED.iter().find_map(|[short, by]| a.tensors.contains_key(*short).then_some((short, by)));
            let scale = match (a.constants.get(ALPHA), scaled.and_then(|(_, by)| a.tensors.get(*by))) {
                (Some(alpha), Some(rank)) => alpha / rank.dim(0)? as f64,
                _ => 1.0,
            };
            if let Some(odd) = a.tensors.keys().find(|short| short.ends_with("_t1") || short.ends_with("_t2")) {
                bail!("{}: its `{odd}` is scaled otherwise in PEFT: write it in kohya's layout", a.place());
            }
            if a.constants.contains_key(WEIGHT_ALONE) {
                bail!("{}: its factors leave the bias, and PEFT's do not: write it in kohya's layout", a.place());
            }
            for (short, value) in &a.tensors {
                let value = match short.as_str() {
                    _ if scale != 1.0 && scaled.is_some_and(|(s, _)| s == short) => (value * scale)?,
                    MAGNITUDE if value.rank() > 1 => {
                        bail!("{}: PEFT has no magnitudes of a layer's inputs: write it in kohya's layout", a.place())
                    }
                    MAGNITUDE if a.tensors.get(DOWN).is_some_and(|down| down.rank() == 4) => {
                        value.reshape((1, (), 1, 1))?
                    }
                    _ => value.clone(),
                };
                out.insert(format!("{}.{}.{short}", a.component, a.path), value);
            }
        }
        Ok(out)
    }

    fn carries(&self, short: &str) -> bool {
        let known = [DOWN, UP, MAGNITUDE, FACTORS].contains(&short);
        known || short.starts_with("hada_") || short.starts_with("lokr_")
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
        let parse = |key: &str| super::tensor(key).filter(|_| begins(key));
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
        let Some(found) = super::grouped(file, parse, find)? else { return Ok(None) };
        let wrapped = file.keys().any(|key| key.starts_with(WRAPPED));
        let config = Config::of(file, wrapped)?;
        // A file with an alpha of its own says it.
        let told = |saved: Saved| match &config {
            Some(config) if !saved.constants.contains_key(ALPHA) => config.applied(saved),
            _ => Ok(saved),
        };
        let mut all = Vec::new();
        for saved in found {
            let mut saved = told(saved)?;
            if wrapped && saved.tensors.contains_key(SKEW) {
                saved.constants.entry(NEUMANN_TERMS.to_owned()).or_insert(5.0); // PEFT's own file
            }
            let beside = bias(&mut saved)?;
            all.extend([Some(saved), beside].into_iter().flatten());
        }
        Ok(Some(all))
    }
}

/// What a LoRA adds to the output beside its product, as a difference of the layer's bias.
fn bias(saved: &mut Saved) -> Result<Option<Saved>> {
    let Some(bias) = saved.tensors.remove(UP_BIAS) else { return Ok(None) };
    let rank = saved.tensors.get(DOWN).map(|down| down.dim(0)).transpose()?;
    let scale = match (saved.constants.get(ALPHA), rank) {
        (Some(alpha), Some(rank)) => alpha / rank as f64,
        _ => 1.0,
    };
    let tensors = BTreeMap::from([(BIAS_DIFFERENCE.to_owned(), (bias * scale)?)]);
    Ok(Some(Saved { tensors, constants: BTreeMap::new(), ..saved.clone() }))
}

/// The tensor that takes up a scale, and the one that tells the rank that alpha was divided by.
const SCALED: [[&str; 2]; 4] =
    [[UP, DOWN], ["hada_w1_a", "hada_w1_b"], ["lokr_w2_a", "lokr_w2_b"], ["lokr_w1_a", "lokr_w1_b"]];

/// What PEFT puts before a model's own names.
const WRAPPED: &str = "base_model.model.";
/// Components that such files are for: of another family's, the error should say that.
const ROOTS: [&str; 5] = ["unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"];

register!(AdapterLayout, "peft", Peft);
