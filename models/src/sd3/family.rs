//! Stable Diffusion 3 and 3.5 as a model family: how a folder is known to be one, and how it is loaded.

use std::path::Path;
use std::sync::Arc;

use candle_core::Result;
use schemars::JsonSchema;
use sconce_core::model::{Backbone, Family, LoadOptions, Model, Native, Tokens};
use sconce_nn::Store;
use sconce_sdk::network::Condition;
use sconce_sdk::register;
use serde::{Deserialize, Serialize};

use super::{Config, Mmdit};
use crate::dit::QkNorm;
use crate::folder::{self, Clips, FolderModel, Rule, native};
use crate::own_backbone;
use crate::text::clip::Head;
use crate::text::sd3::{CLIP_TOKENS, T5_TOKENS};
use crate::text::{Sd3Conditioner, prompt};

const RULE: Rule = Rule {
    name: "sd3",
    architecture: "stable-diffusion-v3-medium",
    base_version: "sd3",
    evidence: "transformer/config.json: _class_name = SD3Transformer2DModel",
    denoiser: "transformer",
    resolution_px: 1024,
    clips: Clips::Never,
    spacing: None,
    steps: Some(28),
    cfg: Some(7.0),
};

/// Stable Diffusion 3 and 3.5: a transformer over picture and text, with two CLIP encoders and T5 (Esser et al. 2024).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sd3 {}

impl Family for Sd3 {
    fn detect(&self, path: &Path) -> Result<bool> {
        Ok(is(path)? && !own_backbone::is(path)?)
    }

    fn native(&self, path: &Path) -> Result<Native> {
        named(path, native::read(path, &RULE)?)
    }

    fn native_with(&self, path: &Path, solver: Option<&str>, spacing: Option<&str>) -> Result<Native> {
        named(path, native::read_with(path, &RULE, solver, spacing)?)
    }

    fn shapes(&self, path: &Path) -> Result<Vec<Arc<Store>>> {
        let denoiser = folder::empty(RULE.denoiser);
        Mmdit::new(denoiser.clone(), Config::read(&path.join(RULE.denoiser))?)?;
        let clips = ["text_encoder", "text_encoder_2"];
        folder::shapes(path, denoiser, prompt::shapes(path, &clips, Head::Projection, "text_encoder_3")?)
    }

    fn conditions(&self, path: &Path) -> Result<Vec<Condition>> {
        let config = Config::read(&path.join(RULE.denoiser))?;
        Ok(vec![Condition::of("context", &[0, config.context]), Condition::of("pooled", &[config.pooled])])
    }

    fn bucket_step_px(&self, path: &Path) -> Result<u32> {
        let patch = Config::read(&path.join(RULE.denoiser))?.patch as u32;
        Ok(native::latent_px(path)? * patch)
    }

    fn tokens(&self, path: &Path, side_px: u32) -> Result<Option<Tokens>> {
        let config = Config::read(&path.join(RULE.denoiser))?;
        let side = (side_px / self.bucket_step_px(path)?) as usize;
        let (text, width) = (CLIP_TOKENS + T5_TOKENS, config.attends.width());
        Ok(Some(Tokens { picture: side * side, text, width, blocks: config.layers }))
    }

    fn backbone(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn Backbone>> {
        folder::demand(path, &RULE, is(path)?)?;
        Ok(Arc::new(Mmdit::load(&path.join(RULE.denoiser), options)?))
    }

    fn around(&self, path: &Path, backbone: Arc<dyn Backbone>, options: &LoadOptions) -> Result<Box<dyn Model>> {
        folder::demand(path, &RULE, is(path)?)?;
        let conditioner = Sd3Conditioner::load(path, options)?;
        FolderModel::assemble(path, self.native(path)?, backbone, conditioner, options)
    }
}

fn is(path: &Path) -> Result<bool> {
    folder::holds(path, RULE.denoiser, "SD3Transformer2DModel")
}

/// With the name of its size in the headers of weight files.
fn named(path: &Path, native: Native) -> Result<Native> {
    let config = Config::read(&path.join(RULE.denoiser))?;
    let architecture = match (config.attends.qk_norm, config.alone.is_empty()) {
        (QkNorm::None, _) => RULE.architecture,
        (QkNorm::Rms, true) => "stable-diffusion-v3.5-large",
        (QkNorm::Rms, false) => "stable-diffusion-v3.5-medium",
    };
    Ok(Native { architecture: architecture.to_owned(), ..native })
}

register!(Family, "sd3", Sd3, aliases = ["sd35", "sd3.5"]);
