//! The conditioning of Stable Diffusion 3 (Esser et al. 2024, section 4): two CLIP encoders' last states but one side by side,
//! T5's last states after them, and both CLIP encoders' pooled states. Any of the three may be left out: zeros stand for it,
//! which the model has seen in training.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_core::Cond;
use sconce_core::model::{Conditioner, Geometry, LoadOptions, PromptUse};
use sconce_core::words::Vocabulary;
use sconce_nn::Store;
use serde_json::Value;

use super::clip::{self, Head, Hidden};
use super::prompt::{ClipPrompt, Names, T5Prompt, known, present};
use crate::diffusers::{config, read_json};

/// Tokens that the family's pipeline gives T5.
pub const T5_TOKENS: usize = 256;

/// The encoders.
pub struct Sd3Conditioner {
    clips: [Clip; 2],
    t5: Option<T5Prompt>,
    /// Tokens of T5's part, whether it is there or not.
    t5_tokens: usize,
    /// Width of the joint context.
    width: usize,
    dtype: DType,
    device: Device,
}

/// A CLIP encoder, or the widths of one that was left out.
enum Clip {
    There(ClipPrompt),
    Absent { hidden: usize, pooled: usize },
}

/// Tokens of a CLIP encoder, where it was left out.
pub const CLIP_TOKENS: usize = 77;

impl Sd3Conditioner {
    /// Loads what `model_index.json` names.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Conditioner>> {
        let index = read_json(&dir.join("model_index.json"))?;
        let transformer = config(&dir.join("transformer"))?;
        let number = |field: &str, default: u64| transformer.get(field).and_then(Value::as_u64).unwrap_or(default);
        let (width, pooled) = (number("joint_attention_dim", 4096) as usize, number("pooled_projection_dim", 2048));
        let names = [
            ("text_encoder", "tokenizer", "clip_l"),
            ("text_encoder_2", "tokenizer_2", "clip_g"),
            ("text_encoder_3", "tokenizer_3", "t5xxl"),
        ]
        .map(|(model, tokenizer, key)| Names { model, tokenizer, key });
        known(options, &["text_encoder", "text_encoder_2", "text_encoder_3"])?;
        let clip = |names: Names| -> Result<Option<ClipPrompt>> {
            let load = || ClipPrompt::load(dir, &index, names, Head::Projection, options);
            present(dir, &index, names, options)?.then(load).transpose()
        };
        let clips = match (clip(names[0])?, clip(names[1])?) {
            (Some(a), Some(b)) => [Clip::There(a), Clip::There(b)],
            (Some(a), None) => {
                let rest = absent(dir, names[1], pooled as usize, Some(&a))?;
                [Clip::There(a), rest]
            }
            (None, Some(b)) => [absent(dir, names[0], pooled as usize, Some(&b))?, Clip::There(b)],
            (None, None) => [absent(dir, names[0], pooled as usize, None)?, Clip::Absent { hidden: 0, pooled: 0 }],
        };
        let t5_tokens = options.max_tokens.unwrap_or(T5_TOKENS);
        let load = || T5Prompt::load(dir, &index, names[2], t5_tokens, options);
        let t5 = present(dir, &index, names[2], options)?.then(load).transpose()?;
        if let Some(t5) = t5.as_ref().filter(|t5| t5.model.config().d_model != width) {
            bail!(
                "{}: text_encoder_3 gives states of {} numbers, the transformer takes {width} (`joint_attention_dim`)",
                dir.display(),
                t5.model.config().d_model
            );
        }
        Ok(Arc::new(Self { clips, t5, t5_tokens, width, dtype: options.dtype, device: options.device.clone() }))
    }

    fn there(&self) -> impl Iterator<Item = &ClipPrompt> {
        self.clips.iter().filter_map(|clip| match clip {
            Clip::There(clip) => Some(clip),
            Clip::Absent { .. } => None,
        })
    }
}

/// The widths of an encoder that is left out: as its config says, or what the other one leaves of the transformer's.
fn absent(dir: &Path, names: Names, pooled: usize, other: Option<&ClipPrompt>) -> Result<Clip> {
    let folder = dir.join(names.model);
    if folder.join("config.json").is_file() {
        let config = clip::Config::read(&folder)?;
        return Ok(Clip::Absent { hidden: config.hidden_size, pooled: config.projection_dim });
    }
    let rest = pooled - other.map_or(0, |clip| clip.model.config().projection_dim.min(pooled));
    Ok(Clip::Absent { hidden: rest, pooled: rest })
}

impl Conditioner for Sd3Conditioner {
    fn encode(&self, prompts: &[(&str, PromptUse)]) -> Result<Cond> {
        let texts: Vec<&str> = prompts.iter().map(|(text, _)| *text).collect();
        let batch = texts.len();
        let zeros = |dims: &[usize]| Tensor::zeros(dims, self.dtype, &self.device);
        let tokens = self.there().map(|clip| clip.length).next().unwrap_or(CLIP_TOKENS);
        let (mut hidden, mut pooled) = (Vec::new(), Vec::new());
        for clip in &self.clips {
            match clip {
                Clip::There(clip) => {
                    let rows: Vec<Vec<u32>> = texts.iter().map(|text| clip.row(text)).collect::<Result<_>>()?;
                    let out = clip.model.forward(&rows, Hidden::Penultimate)?;
                    hidden.push(out.hidden);
                    pooled.extend(out.pooled);
                }
                Clip::Absent { hidden: width, pooled: size } => {
                    hidden.push(zeros(&[batch, tokens, *width])?);
                    pooled.push(zeros(&[batch, *size])?);
                }
            }
        }
        let hidden = Tensor::cat(&hidden, 2)?; // B 77 D
        let Some(room) = self.width.checked_sub(hidden.dim(2)?) else {
            bail!(
                "the CLIP encoders give states of {} numbers, the transformer takes {} (`joint_attention_dim`)",
                hidden.dim(2)?,
                self.width
            );
        };
        let hidden = Tensor::cat(&[&hidden, &zeros(&[batch, tokens, room])?], 2)?;
        let long = match &self.t5 {
            Some(t5) => t5.encode(&texts)?,
            None => zeros(&[batch, self.t5_tokens, self.width])?,
        };
        let context = Tensor::cat(&[&hidden, &long], 1)?; // B 77+T W
        Ok(Cond::default().with("context", context).with("pooled", Tensor::cat(&pooled, 1)?))
    }

    fn geometry(&self, _: &[Geometry]) -> Result<Cond> {
        Ok(Cond::default())
    }

    fn token_ids(&self, prompt: &str) -> Result<Vec<Vec<Vec<u32>>>> {
        let mut all: Vec<_> = self.there().map(|clip| Ok(vec![clip.row(prompt)?])).collect::<Result<_>>()?;
        if let Some(t5) = &self.t5 {
            all.push(vec![t5.row(prompt)?]);
        }
        Ok(all)
    }

    fn stores(&self) -> Vec<Arc<Store>> {
        let clips = self.there().map(|clip| clip.model.store().clone());
        clips.chain(self.t5.iter().map(|t5| t5.model.store().clone())).collect()
    }

    fn vocabularies(&self) -> Vec<&dyn Vocabulary> {
        let clips = self.there().map(|clip| clip as &dyn Vocabulary);
        clips.chain(self.t5.iter().map(|t5| t5 as &dyn Vocabulary)).collect()
    }

    fn definition(&self) -> String {
        let clips: Vec<_> = self.there().map(ClipPrompt::definition).collect();
        let t5 = self.t5.as_ref().map(T5Prompt::definition);
        format!("sd3 {clips:?} {t5:?} {} {}", self.t5_tokens, self.width)
    }
}
