//! The conditioning of Flux: T5's last states, and CLIP's state at the end of the text. Models that were distilled to know
//! their guidance are told it beside them. An encoder may be left out: zeros stand for it.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_core::Cond;
use sconce_core::model::{Conditioner, Geometry, LoadOptions, PromptUse};
use sconce_core::words::Vocabulary;
use sconce_nn::Store;
use serde_json::Value;

use super::clip::{Head, Hidden};
use super::prompt::{ClipPrompt, Names, T5Prompt, known, present};
use crate::diffusers::{config, read_json};
use crate::dit::Guided;

/// The encoders.
pub struct FluxConditioner {
    clip: Option<ClipPrompt>,
    t5: Option<T5Prompt>,
    /// Tokens of the context.
    tokens: usize,
    /// Width of the context, and of the pooled state.
    widths: [usize; 2],
    guided: Guided,
    dtype: DType,
    device: Device,
}

impl FluxConditioner {
    /// Loads what `model_index.json` names. `tokens`: those of the context, where the options do not say.
    pub fn load(dir: &Path, tokens: usize, guided: Guided, options: &LoadOptions) -> Result<Arc<dyn Conditioner>> {
        let index = read_json(&dir.join("model_index.json"))?;
        let transformer = config(&dir.join("transformer"))?;
        let number = |field: &str, default: u64| transformer.get(field).and_then(Value::as_u64).unwrap_or(default);
        let widths = [number("joint_attention_dim", 4096) as usize, number("pooled_projection_dim", 768) as usize];
        let tokens = options.max_tokens.unwrap_or(tokens);
        known(options, &["text_encoder", "text_encoder_2"])?;
        let short = Names { model: "text_encoder", tokenizer: "tokenizer", key: "clip_l" };
        let long = Names { model: "text_encoder_2", tokenizer: "tokenizer_2", key: "t5xxl" };
        let load = || ClipPrompt::load(dir, &index, short, Head::Pooled, options);
        let clip = present(dir, &index, short, options)?.then(load).transpose()?;
        let load = || T5Prompt::load(dir, &index, long, tokens, options);
        let t5 = present(dir, &index, long, options)?.then(load).transpose()?;
        let found =
            [t5.as_ref().map(|t5| t5.model.config().d_model), clip.as_ref().map(|c| c.model.config().hidden_size)];
        for (i, name) in ["text_encoder_2", "text_encoder"].into_iter().enumerate() {
            if let Some(found) = found[i].filter(|&found| found != widths[i]) {
                let (dir, wanted) = (dir.display(), widths[i]);
                bail!("{dir}: `{name}` gives states of {found} numbers, the transformer takes {wanted}");
            }
        }
        let (dtype, device) = (options.dtype, options.device.clone());
        Ok(Arc::new(Self { clip, t5, tokens, widths, guided, dtype, device }))
    }
}

impl Conditioner for FluxConditioner {
    fn encode(&self, prompts: &[(&str, PromptUse)]) -> Result<Cond> {
        let texts: Vec<&str> = prompts.iter().map(|(text, _)| *text).collect();
        let zeros = |dims: &[usize]| Tensor::zeros(dims, self.dtype, &self.device);
        let context = match &self.t5 {
            Some(t5) => t5.encode(&texts)?, // B L D
            None => zeros(&[texts.len(), self.tokens, self.widths[0]])?,
        };
        let pooled = match &self.clip {
            Some(clip) => {
                let rows: Vec<Vec<u32>> = texts.iter().map(|text| clip.row(text)).collect::<Result<_>>()?;
                let out = clip.model.forward(&rows, Hidden::Last)?;
                out.pooled.expect("the encoder was loaded to give it") // B P
            }
            None => zeros(&[texts.len(), self.widths[1]])?,
        };
        Ok(Cond::default().with("context", context).with("pooled", pooled))
    }

    fn geometry(&self, _: &[Geometry]) -> Result<Cond> {
        Ok(Cond::default())
    }

    fn guidance(&self, scale: f64, count: usize) -> Result<Cond> {
        match self.guided {
            Guided::ByNumber => Ok(Cond::default().with("guidance", Tensor::full(scale as f32, count, &self.device)?)), // B
            Guided::No => Ok(Cond::default()),
        }
    }

    fn token_ids(&self, prompt: &str) -> Result<Vec<Vec<Vec<u32>>>> {
        let clip = self.clip.as_ref().map(|clip| clip.row(prompt));
        let t5 = self.t5.as_ref().map(|t5| t5.row(prompt));
        clip.into_iter().chain(t5).map(|row| Ok(vec![row?])).collect()
    }

    fn stores(&self) -> Vec<Arc<Store>> {
        let clip = self.clip.as_ref().map(|clip| clip.model.store().clone());
        clip.into_iter().chain(self.t5.as_ref().map(|t5| t5.model.store().clone())).collect()
    }

    fn vocabularies(&self) -> Vec<&dyn Vocabulary> {
        let clip = self.clip.iter().map(|clip| clip as &dyn Vocabulary);
        clip.chain(self.t5.iter().map(|t5| t5 as &dyn Vocabulary)).collect()
    }

    fn definition(&self) -> String {
        let clip = self.clip.as_ref().map(ClipPrompt::definition);
        let t5 = self.t5.as_ref().map(T5Prompt::definition);
        format!("flux {clip:?} {t5:?} {} {:?}", self.tokens, self.widths)
    }
}
