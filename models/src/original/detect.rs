//! What a single file is, by its keys and header alone: the published model whose shape it has, and what it predicts.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use candle_core::{DType, Device, Error, Result, bail};
use sconce_nn::weights::WeightFiles;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::folder::native::FLOW;

/// A published model: its family, and the configs that its single files do not hold.
#[derive(Clone, Debug)]
pub struct Published {
    /// Its name here (`sdxl`, `flux-dev`).
    pub name: &'static str,
    /// Its family.
    pub family: String,
    /// `model_index.json`.
    pub index: Map<String, Value>,
    /// `scheduler/scheduler_config.json`.
    pub scheduler: Map<String, Value>,
    /// Where two kinds were published in one shape: above this spread of [`BIAS`] a file without a marker predicts v.
    pub v_spread: Option<f64>,
    /// Each component's `config.json`.
    pub components: BTreeMap<String, Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    like: Option<String>,
    family: Option<String>,
    model_index: Option<Map<String, Value>>,
    scheduler: Option<Map<String, Value>>,
    v_spread: Option<f64>,
    components: BTreeMap<String, Map<String, Value>>,
}

/// All published models, by name.
pub fn published() -> &'static BTreeMap<&'static str, Published> {
    static ALL: OnceLock<BTreeMap<&'static str, Published>> = OnceLock::new();
    ALL.get_or_init(|| {
        let entries: BTreeMap<&'static str, Entry> =
            serde_json::from_str(include_str!("published.json")).expect("the list is right");
        let of = |(name, entry): (&&'static str, &Entry)| {
            let base = entry.like.as_ref().map_or(entry, |like| &entries[like.as_str()]);
            let mut components = base.components.clone();
            components.extend(entry.components.clone());
            let own = |of: fn(&Entry) -> Option<Map<String, Value>>| of(entry).or_else(|| of(base)).expect("given");
            let published = Published {
                name,
                family: entry.family.clone().or(base.family.clone()).expect("given"),
                index: own(|e| e.model_index.clone()),
                scheduler: own(|e| e.scheduler.clone()),
                v_spread: entry.v_spread,
                components,
            };
            (*name, published)
        };
        entries.iter().map(of).collect()
    })
}

/// The published model that a file's denoiser is, or is a fine-tune of; `None` if its keys are no denoiser's. The denoiser's
/// keys may begin with `model.diffusion_model.` or be bare.
///
/// # Errors
/// If it is a relative that is not supported, such as an inpainting model.
pub fn detect(file: &WeightFiles) -> Result<Option<&'static Published>> {
    let all = published();
    for prefix in ["model.diffusion_model.", ""] {
        let shape = |key: &str| file.info(&format!("{prefix}{key}")).map(|(shape, _)| shape.to_vec());
        if shape("double_blocks.0.img_attn.qkv.weight").is_some() {
            let guided = shape("guidance_in.in_layer.weight").is_some();
            return Ok(Some(&all[if guided { "flux-dev" } else { "flux-schnell" }]));
        }
        if shape("joint_blocks.0.x_block.attn.qkv.weight").is_some() {
            let dual = shape("joint_blocks.0.x_block.attn2.qkv.weight").is_some();
            let normed = shape("joint_blocks.0.x_block.attn.ln_q.weight").is_some();
            return Ok(Some(match (dual, normed) {
                (true, _) => &all["sd35-medium"],
                (false, true) => &all["sd35-large"],
                (false, false) => &all["sd3-medium"],
            }));
        }
        if let Some(first) = shape("input_blocks.0.0.weight") {
            let paths = file.paths();
            if let &[_, channels, ..] = first.as_slice()
                && channels != 4
            {
                bail!(
                    "{paths:?}: its UNet takes {channels} channels: inpainting and other picture-to-picture models are not \
                     supported"
                );
            }
            let text = shape("input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
                .or_else(|| shape("input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"));
            let width = text.as_deref().and_then(|s| s.get(1)).copied();
            return Ok(Some(match (shape("label_emb.0.0.weight").is_some(), width) {
                (true, Some(2048)) => &all["sdxl"],
                (false, Some(768)) => &all["sd15"],
                (false, Some(1024)) => &all["sd21"],
                (_, width) => bail!("{paths:?}: a UNet for text of width {width:?} is of no family here"),
            }));
        }
    }
    Ok(None)
}

/// What a single file says that it predicts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prediction {
    /// Fields of the scheduler's config that follow.
    pub scheduler: Map<String, Value>,
    /// Where each was read.
    pub evidence: Vec<String>,
}

/// What a file's markers and header say about its prediction type and schedule: the tensors `v_pred` and `ztsnr` (as ComfyUI
/// and Forge read them), the fields of ModelSpec and of this program; for a file without any, of a shape that two kinds have,
/// a bias whose spread differs between them.
///
/// `scheduler`: the config that it has but for that; `published`: what it was taken for, where its own header says nothing.
///
/// # Errors
/// If two of them contradict each other.
pub fn prediction(
    file: &WeightFiles,
    header: &BTreeMap<String, String>,
    scheduler: &Map<String, Value>,
    published: Option<&Published>,
) -> Result<Prediction> {
    let paths = file.paths();
    let mut said: Vec<(&str, String)> = Vec::new(); // prediction type of diffusers, and where
    let marked = |key: &str| file.info(key).is_some();
    if marked("edm_mean") || marked("edm_vpred.sigma_max") || marked("edm_vpred.sigma_min") {
        bail!(
            "{paths:?}: the file's markers (edm_mean, edm_vpred) say that it was trained in EDM's frame: say so in the \
             recipe, from a diffusers folder"
        );
    }
    if marked("v_pred") {
        said.push(("v_prediction", "the tensor `v_pred`".into()));
    }
    for field in ["modelspec.prediction_type", "modelspec.predict_key"] {
        let Some(word) = header.get(field) else { continue };
        let kind = match word.as_str() {
            "epsilon" | "eps" => "epsilon",
            "v" | "v_prediction" | "v-prediction" => "v_prediction",
            "x0" | "sample" => "sample",
            "flow" | "flow_prediction" | "rectified-flow" => "flow_prediction",
            _ => continue,
        };
        said.push((kind, format!("the header's {field} = {word}")));
    }
    let kinds: Vec<&str> = said.iter().map(|(kind, _)| *kind).collect();
    if let Some(other) = kinds.iter().position(|kind| *kind != kinds[0]) {
        let (a, b) = (&said[0], &said[other]);
        bail!(
            "{paths:?}: {} says {}, and {} says {}: one of them is wrong; set [objective] with model.convert, \
             or remove the wrong one",
            a.1,
            a.0,
            b.1,
            b.0
        );
    }
    let mut found = Prediction::default();
    let flow = scheduler.get("_class_name").is_some_and(|class| class == FLOW);
    match said.first() {
        Some((kind, _)) if flow && *kind != "flow_prediction" => {
            bail!("{paths:?}: {} says {kind}, of a model that predicts the flow", said[0].1)
        }
        Some((kind, place)) if !flow => {
            found.scheduler.insert("prediction_type".into(), json!(kind));
            found.evidence.push(format!("{place}: prediction_type = {kind}"));
        }
        Some(_) => {}
        None => {
            if let Some(least) = published.and_then(|p| p.v_spread)
                && let Some(spread) = spread(file)?
            {
                let kind = if spread > least { "v_prediction" } else { "epsilon" };
                found.scheduler.insert("prediction_type".into(), json!(kind));
                found.evidence.push(format!("no marker; the spread of {BIAS} is that of {kind}"));
            }
        }
    }
    let told = header.get("ss_zero_terminal_snr").is_some_and(|word| word == "True");
    for (said, place) in [(marked("ztsnr"), "the tensor `ztsnr`"), (told, "the header's ss_zero_terminal_snr")] {
        if said {
            found.scheduler.insert("rescale_betas_zero_snr".into(), json!(true));
            found.scheduler.insert("timestep_spacing".into(), json!("trailing"));
            found.evidence.push(format!("{place}: rescale_betas_zero_snr = true"));
        }
    }
    Ok(found)
}

/// A bias that is spread wider in Stable Diffusion 2's models of v than in those of epsilon.
const BIAS: &str = "output_blocks.11.1.transformer_blocks.0.norm1.bias";

/// Its deviation; `None` where the file does not have it.
fn spread(file: &WeightFiles) -> Result<Option<f64>> {
    for prefix in ["model.diffusion_model.", ""] {
        let key = format!("{prefix}{BIAS}");
        if file.info(&key).is_some() {
            let values = file.tensor(&key, DType::F32, &Device::Cpu)?.to_vec1::<f32>().map_err(Error::wrap)?;
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
            let square = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / values.len() as f64;
            return Ok(Some(square.sqrt()));
        }
    }
    Ok(None)
}
