//! The conditioning of Stable Diffusion 1, 2 and XL: one CLIP encoder's last states, or two encoders' last but one side
//! by side with the second's pooled state and six numbers about the picture (Podell et al. 2023, sections 2.1 and 2.2).

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result, Tensor};
use sconce_core::Cond;
use sconce_core::model::{Conditioner, Geometry, LoadOptions, PromptUse};
use sconce_core::words::Vocabulary;
use sconce_nn::Store;
use serde_json::Value;

use super::clip::{Head, Hidden};
use super::prompt::{ClipPrompt, Names, class, known, present};
use crate::diffusers::read_json;

/// One or two CLIP encoders with their tokenizers.
pub struct SdConditioner {
    encoders: Vec<ClipPrompt>,
    hidden: Hidden,
    unconditional: Unconditional,
    device: Device,
}

/// What stands for the absence of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unconditional {
    /// The encoding of the empty text.
    Encoded,
    /// Zeros (`force_zeros_for_empty_prompt`).
    Zeros,
}

impl SdConditioner {
    /// Loads the encoders and tokenizers that the `model_index.json` of a diffusers folder names. Two encoders make it
    /// SDXL's.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Conditioner>> {
        let index = read_json(&dir.join("model_index.json"))?;
        known(options, &[])?;
        let load = |model, tokenizer, key, head| {
            let names = Names { model, tokenizer, key };
            present(dir, &index, names, options)?;
            ClipPrompt::load(dir, &index, names, head, options)
        };
        let mut encoders = vec![load("text_encoder", "tokenizer", "clip_l", Head::None)?];
        let mut unconditional = Unconditional::Encoded;
        let mut hidden = Hidden::Last;
        if class(&index, "text_encoder_2").is_some() {
            encoders.push(load("text_encoder_2", "tokenizer_2", "clip_g", Head::Projection)?);
            hidden = Hidden::Penultimate;
            if index.get("force_zeros_for_empty_prompt").and_then(Value::as_bool).unwrap_or(true) {
                unconditional = Unconditional::Zeros;
            }
        }
        Ok(Arc::new(Self { encoders, hidden, unconditional, device: options.device.clone() }))
    }

    fn is_xl(&self) -> bool {
        self.encoders.len() == 2
    }
}

/// B * chunks rows: each prompt's, filled up with empty ones.
fn rows(encoder: &ClipPrompt, prompts: &[(&str, PromptUse)], chunks: usize) -> Result<Vec<Vec<u32>>> {
    let mut rows = Vec::with_capacity(prompts.len() * chunks);
    for (text, _) in prompts {
        rows.extend(encoder.chunks(text)?);
        rows.resize_with(rows.len().next_multiple_of(chunks), || encoder.tokenizer.empty(encoder.length));
    }
    Ok(rows)
}

impl Conditioner for SdConditioner {
    fn encode(&self, prompts: &[(&str, PromptUse)]) -> Result<Cond> {
        let (batch, mut chunks) = (prompts.len(), 1);
        for (text, _) in prompts {
            for encoder in &self.encoders {
                chunks = chunks.max(encoder.chunks(text)?.len());
            }
        }
        let mut hidden = Vec::new();
        let mut pooled = None;
        for encoder in &self.encoders {
            let out = encoder.model.forward(&rows(encoder, prompts, chunks)?, self.hidden)?;
            let width = out.hidden.dim(2)?;
            hidden.push(out.hidden.reshape((batch, chunks * encoder.length, width))?); // B L D
            pooled = out.pooled;
        }
        let keep = match self.unconditional {
            Unconditional::Zeros => self.with_text(prompts)?,
            Unconditional::Encoded => None,
        };
        let keep = |x: Tensor| match &keep {
            Some(rows) => {
                let dims: Vec<usize> = std::iter::once(batch).chain(vec![1; x.rank() - 1]).collect();
                x.broadcast_mul(&rows.to_dtype(x.dtype())?.reshape(dims)?)
            }
            None => Ok(x),
        };
        let cond = Cond::default().with("context", keep(Tensor::cat(&hidden, 2)?)?);
        match pooled.filter(|_| self.is_xl()) {
            Some(pooled) => {
                let width = pooled.dim(1)?;
                let first = pooled.reshape((batch, chunks, width))?.narrow(1, 0, 1)?.squeeze(1)?; // B P
                Ok(cond.with("pooled", keep(first)?))
            }
            None => Ok(cond),
        }
    }

    fn geometry(&self, pictures: &[Geometry]) -> Result<Cond> {
        if !self.is_xl() {
            return Ok(Cond::default());
        }
        let ids = pictures.iter().flat_map(|g| [g.original, g.crop, g.target].concat()).map(|n| n as f32).collect();
        Ok(Cond::default().with("time_ids", Tensor::from_vec(ids, (pictures.len(), 6), &self.device)?))
    }

    fn token_ids(&self, prompt: &str) -> Result<Vec<Vec<Vec<u32>>>> {
        self.encoders.iter().map(|encoder| encoder.chunks(prompt)).collect()
    }

    fn stores(&self) -> Vec<Arc<Store>> {
        self.encoders.iter().map(|encoder| encoder.model.store().clone()).collect()
    }

    fn vocabularies(&self) -> Vec<&dyn Vocabulary> {
        self.encoders.iter().map(|encoder| encoder as &dyn Vocabulary).collect()
    }

    fn definition(&self) -> String {
        let encoders: Vec<_> = self.encoders.iter().map(ClipPrompt::definition).collect();
        format!("{:?} {:?} {encoders:?}", self.hidden, self.unconditional)
    }
}

impl SdConditioner {
    /// B: 1 for a prompt that is encoded, 0 for the absence of one; `None` if all are encoded.
    fn with_text(&self, prompts: &[(&str, PromptUse)]) -> Result<Option<Tensor>> {
        let absent = |(text, purpose): &(&str, PromptUse)| *purpose == PromptUse::Unconditional && text.is_empty();
        if !prompts.iter().any(absent) {
            return Ok(None);
        }
        let rows: Vec<f32> = prompts.iter().map(|p| f32::from(u8::from(!absent(p)))).collect();
        Tensor::from_vec(rows, prompts.len(), &self.device).map(Some)
    }
}
