//! FLUX.1 as a model family: how a folder is known to be one, and how it is loaded.

use std::path::Path;
use std::sync::Arc;

use candle_core::Result;
use schemars::JsonSchema;
use sconce_core::model::{Backbone, Family, LoadOptions, Model, Native, Tokens};
use sconce_nn::Store;
use sconce_sdk::network::Condition;
use sconce_sdk::register;
use serde::{Deserialize, Serialize};

use super::config::PATCH;
use super::{Config, Flux};
use crate::dit::Guided;
use crate::folder::{self, Clips, FolderModel, Rule, native};
use crate::own_backbone;
use crate::text::clip::Head;
use crate::text::{FluxConditioner, prompt};

/// FLUX.1-dev: distilled to know its guidance.
const DEV: Rule = Rule {
    name: "flux",
    architecture: "flux-1-dev",
    base_version: "flux1",
    evidence: "transformer/config.json: _class_name = FluxTransformer2DModel",
    denoiser: "transformer",
    resolution_px: 1024,
    clips: Clips::Never,
    spacing: Some("trailing"),
    steps: Some(28),
    cfg: Some(1.0),
};

/// FLUX.1-schnell: distilled to few steps.
const SCHNELL: Rule = Rule { architecture: "flux-1-schnell", steps: Some(4), ..DEV };

/// The guidance scale of the pipeline, and the most tokens of T5 (half as many for schnell, which was trained so).
const GUIDANCE: f64 = 3.5;
const TOKENS: [usize; 2] = [512, 256];

/// FLUX.1: a transformer over picture and text, with CLIP and T5 (Black Forest Labs 2024).
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flux1 {}

impl Family for Flux1 {
    fn detect(&self, path: &Path) -> Result<bool> {
        Ok(is(path)? && !own_backbone::is(path)?)
    }

    fn native(&self, path: &Path) -> Result<Native> {
        let (rule, guidance) = variant(path)?;
        Ok(Native { guidance, ..native::read(path, rule)? })
    }

    fn native_with(&self, path: &Path, solver: Option<&str>, spacing: Option<&str>) -> Result<Native> {
        let (rule, guidance) = variant(path)?;
        Ok(Native { guidance, ..native::read_with(path, rule, solver, spacing)? })
    }

    fn shapes(&self, path: &Path) -> Result<Vec<Arc<Store>>> {
        let denoiser = folder::empty(DEV.denoiser);
        Flux::new(denoiser.clone(), Config::read(&path.join(DEV.denoiser))?)?;
        folder::shapes(path, denoiser, prompt::shapes(path, &["text_encoder"], Head::Pooled, "text_encoder_2")?)
    }

    fn conditions(&self, path: &Path) -> Result<Vec<Condition>> {
        let config = Config::read(&path.join(DEV.denoiser))?;
        let mut all = vec![Condition::of("context", &[0, config.context]), Condition::of("pooled", &[config.pooled])];
        if config.guided == Guided::ByNumber {
            all.push(Condition::of("guidance", &[]));
        }
        Ok(all)
    }

    fn bucket_step_px(&self, path: &Path) -> Result<u32> {
        Ok(native::latent_px(path)? * PATCH as u32)
    }

    fn tokens(&self, path: &Path, side_px: u32) -> Result<Option<Tokens>> {
        let config = Config::read(&path.join(DEV.denoiser))?;
        let side = (side_px / self.bucket_step_px(path)?) as usize;
        let text = text_tokens(config.guided);
        Ok(Some(Tokens {
            picture: side * side,
            text,
            width: config.attends.width(),
            blocks: config.doubles + config.singles,
        }))
    }

    fn backbone(&self, path: &Path, options: &LoadOptions) -> Result<Arc<dyn Backbone>> {
        folder::demand(path, &DEV, is(path)?)?;
        Ok(Arc::new(Flux::load(&path.join(DEV.denoiser), options)?))
    }

    fn around(&self, path: &Path, backbone: Arc<dyn Backbone>, options: &LoadOptions) -> Result<Box<dyn Model>> {
        folder::demand(path, &DEV, is(path)?)?;
        let guided = Config::read(&path.join(DEV.denoiser))?.guided;
        let conditioner = FluxConditioner::load(path, text_tokens(guided), guided, options)?;
        FolderModel::assemble(path, self.native(path)?, backbone, conditioner, options)
    }
}

fn is(path: &Path) -> Result<bool> {
    folder::holds(path, DEV.denoiser, "FluxTransformer2DModel")
}

/// Most tokens of T5.
fn text_tokens(guided: Guided) -> usize {
    if guided == Guided::ByNumber { TOKENS[0] } else { TOKENS[1] }
}

/// Which of the two a folder is, and the guidance scale that its pipeline tells it.
fn variant(path: &Path) -> Result<(&'static Rule, Option<f64>)> {
    Ok(match Config::read(&path.join(DEV.denoiser))?.guided {
        Guided::ByNumber => (&DEV, Some(GUIDANCE)),
        Guided::No => (&SCHNELL, None),
    })
}

register!(Family, "flux", Flux1, aliases = ["flux1", "flux-1"]);
