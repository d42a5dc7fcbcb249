//! Stable Diffusion 1, 2 and XL as model families: how a folder is known to be one, and how it is loaded.

use std::path::Path;
use std::sync::Arc;

use candle_core::Result;
use schemars::JsonSchema;
use sconce_core::model::{Backbone, Family, LoadOptions, Model, Native};
use sconce_nn::Store;
use sconce_sdk::network::Condition;
use sconce_sdk::register;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::unet::{self, UNet};
use crate::diffusers::{self, read_json};
use crate::folder::{self, Clips, FolderModel, Rule, empty, native};
use crate::own_backbone;
use crate::text::SdConditioner;
use crate::text::clip::{ClipText, Config as TextConfig, Head};

/// What all three have.
const UNET: Rule = Rule {
    name: "",
    architecture: "",
    base_version: "",
    evidence: "",
    denoiser: "unet",
    resolution_px: 512,
    clips: Clips::Never,
    spacing: None,
    steps: None,
    cfg: None,
};

/// One CLIP-L text encoder.
const SD1: Rule = Rule {
    name: "sd1",
    architecture: "stable-diffusion-v1",
    base_version: "sd_v1",
    evidence: "unet/config.json: no addition_embed_type; text_encoder/config.json: hidden_act = quick_gelu, as CLIP-L has",
    resolution_px: 512,
    ..UNET
};

/// One OpenCLIP-H text encoder.
const SD2: Rule = Rule {
    name: "sd2",
    architecture: "stable-diffusion-v2-768-v",
    base_version: "sd_v2_v",
    evidence: "unet/config.json: no addition_embed_type; text_encoder/config.json: hidden_act = gelu, as OpenCLIP has",
    resolution_px: 768,
    ..UNET
};

/// Two text encoders, and the pictures' geometry as a condition.
const SDXL: Rule = Rule {
    name: "sdxl",
    architecture: "stable-diffusion-xl-v1-base",
    base_version: "sdxl_base_v1-0",
    evidence: "unet/config.json: addition_embed_type = text_time; text_encoder and text_encoder_2 are there",
    resolution_px: 1024,
    clips: Clips::AsSaid,
    ..UNET
};

/// The family of a diffusers folder; `None` where it is none of these.
fn family_of(dir: &Path) -> Result<Option<&'static Rule>> {
    if ["model_index.json", "unet/config.json", "text_encoder/config.json"].iter().any(|file| !dir.join(file).is_file())
    {
        return Ok(None);
    }
    let unet = diffusers::config(&dir.join("unet"))?;
    let word =
        |json: &serde_json::Map<String, Value>, field| json.get(field).and_then(Value::as_str).map(str::to_owned);
    if word(&unet, "_class_name").is_some_and(|class| class != "UNet2DConditionModel") {
        return Ok(None);
    }
    let second = dir.join("text_encoder_2/config.json").is_file();
    let text = diffusers::config(&dir.join("text_encoder"))?;
    // The activation of CLIP-L is also what the format stands for where it says none.
    let activation = word(&text, "hidden_act").unwrap_or_else(|| "quick_gelu".to_owned());
    Ok(match (word(&unet, "addition_embed_type").as_deref(), second, activation.as_str()) {
        (Some("text_time"), true, _) => Some(&SDXL),
        (None, false, "quick_gelu") => Some(&SD1),
        (None, false, "gelu") => Some(&SD2),
        _ => None,
    })
}

fn shapes(dir: &Path) -> Result<Vec<Arc<Store>>> {
    let mut encoders = Vec::new();
    for (component, head) in [("text_encoder", Head::None), ("text_encoder_2", Head::Projection)] {
        let folder = dir.join(component);
        if folder.is_dir() {
            encoders.push(ClipText::new(&empty(component), TextConfig::read(&folder)?, head, 0)?.store().clone());
        }
    }
    let denoiser = empty("unet");
    UNet::new(denoiser.clone(), unet::Config::read(&dir.join("unet"))?, 1000)?;
    folder::shapes(dir, denoiser, encoders)
}

fn conditions(dir: &Path) -> Result<Vec<Condition>> {
    let unet = unet::Config::read(&dir.join("unet"))?;
    let width = unet.levels.first().map_or(0, |level| level.context);
    let mut all = vec![Condition::of("context", &[0, width])];
    if unet.added.is_some() {
        let pooled = TextConfig::read(&dir.join("text_encoder_2"))?.projection_dim;
        all.extend([Condition::of("pooled", &[pooled]), Condition::of("time_ids", &[6])]);
    }
    Ok(all)
}

fn is(dir: &Path, rule: &'static Rule) -> Result<bool> {
    Ok(family_of(dir)?.is_some_and(|found| found.name == rule.name))
}

fn backbone(dir: &Path, rule: &'static Rule, options: &LoadOptions) -> Result<Arc<dyn Backbone>> {
    folder::demand(dir, rule, is(dir, rule)?)?;
    let scheduler = read_json(&dir.join(native::SCHEDULER))?;
    let steps = scheduler.get("num_train_timesteps").and_then(Value::as_u64).unwrap_or(1000);
    Ok(Arc::new(UNet::load(&dir.join("unet"), steps as usize, options)?))
}

fn around(
    dir: &Path,
    rule: &'static Rule,
    backbone: Arc<dyn Backbone>,
    options: &LoadOptions,
) -> Result<Box<dyn Model>> {
    folder::demand(dir, rule, is(dir, rule)?)?;
    FolderModel::assemble(dir, native::read(dir, rule)?, backbone, SdConditioner::load(dir, options)?, options)
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident, $rule:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $name {}

        impl Family for $name {
            fn detect(&self, path: &Path) -> Result<bool> {
                Ok(is(path, &$rule)? && !own_backbone::is(path)?)
            }

            fn native(&self, path: &Path) -> Result<Native> {
                native::read(path, &$rule)
            }

            fn native_with(&self, path: &Path, solver: Option<&str>, spacing: Option<&str>) -> Result<Native> {
                native::read_with(path, &$rule, solver, spacing)
            }

            fn shapes(&self, path: &Path) -> Result<Vec<Arc<Store>>> {
                shapes(path)
            }

            fn conditions(&self, path: &Path) -> Result<Vec<Condition>> {
                conditions(path)
            }

            fn backbone(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn Backbone>> {
                backbone(path, &$rule, options)
            }

            fn around(
                &self,
                path: &Path,
                denoiser: Arc<dyn Backbone>,
                options: &LoadOptions,
            ) -> Result<Box<dyn Model>> {
                around(path, &$rule, denoiser, options)
            }
        }
    )*};
}

families! {
    /// Stable Diffusion 1.x: a UNet with one CLIP-L text encoder (Rombach et al. 2022).
    Sd1, SD1;
    /// Stable Diffusion 2.x: a UNet with one OpenCLIP-H text encoder.
    Sd2, SD2;
    /// Stable Diffusion XL: a UNet with two text encoders and the pictures' geometry as a condition (Podell et al. 2023).
    Sdxl, SDXL;
}

register!(Family, "sd1", Sd1, aliases = ["sd15", "sd1.5"]);
register!(Family, "sd2", Sd2, aliases = ["sd21", "sd2.1"]);
register!(Family, "sdxl", Sdxl);
