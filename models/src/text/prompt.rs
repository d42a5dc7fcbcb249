//! A text encoder with its tokenizer, as a diffusers folder names them: from prompts to what the encoder says of them.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_core::model::LoadOptions;
use sconce_core::words::{Learns, Vocabulary};
use sconce_nn::{Param, Store};
use serde_json::{Map, Value};

use super::clip::{ClipText, Head};
use super::t5::T5Encoder;
use super::tokenizer::ClipTokenizer;
use super::unigram::T5Tokenizer;
use super::words::Words;
use crate::folder::empty;

/// Which components are one encoder's.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// Its weights.
    pub model: &'a str,
    /// Its tokenizer.
    pub tokenizer: &'a str,
    /// What files of learned words call it.
    pub key: &'static str,
}

/// The class of a component, where the pipeline has it.
pub fn class<'a>(index: &'a Map<String, Value>, component: &str) -> Option<&'a str> {
    index.get(component)?.get(1)?.as_str()
}

/// Whether a pipeline has an encoder: named in its `model_index.json`, and not left out on purpose. One that is named and
/// whose folder is missing is an error.
pub fn present(dir: &Path, index: &Map<String, Value>, names: Names, options: &LoadOptions) -> Result<bool> {
    if class(index, names.model).is_none() || options.without.iter().any(|name| name == names.model) {
        return Ok(false);
    }
    for folder in [names.model, names.tokenizer] {
        if !dir.join(folder).is_dir() {
            bail!(
                "{}: model_index.json names `{folder}`, and there is no such folder: fetch it, or leave the encoder out on \
                 purpose with model.without = [\"{}\"] (--without {})",
                dir.display(),
                names.model,
                names.model
            );
        }
    }
    Ok(true)
}

/// Refuses a name that is no encoder of the family among those that are left out.
pub fn known(options: &LoadOptions, encoders: &[&str]) -> Result<()> {
    match options.without.iter().find(|name| !encoders.contains(&name.as_str())) {
        Some(stray) if encoders.is_empty() => {
            bail!("this family cannot do without `{stray}`: it needs all its encoders")
        }
        Some(stray) => bail!("there is no encoder `{stray}` to leave out, there are {}", encoders.join(", ")),
        None => Ok(()),
    }
}

/// The parameters of a folder's encoders without their values: those that it has of `clips`, and of T5 as `long`.
pub fn shapes(dir: &Path, clips: &[&str], head: Head, long: &str) -> Result<Vec<Arc<Store>>> {
    let mut stores = Vec::new();
    for component in clips.iter().filter(|c| dir.join(c).is_dir()) {
        let config = super::clip::Config::read(&dir.join(component))?;
        stores.push(ClipText::new(&empty(component), config, head, 0)?.store().clone());
    }
    if dir.join(long).is_dir() {
        stores.push(T5Encoder::new(&empty(long), super::t5::Config::read(&dir.join(long))?)?.store().clone());
    }
    Ok(stores)
}

fn demand(dir: &Path, index: &Map<String, Value>, component: &str, classes: &[&str]) -> Result<()> {
    match class(index, component) {
        Some(found) if classes.contains(&found) => Ok(()),
        other => bail!(
            "{}: `{component}` is {}, this family has {}",
            dir.join("model_index.json").display(),
            other.unwrap_or("missing"),
            classes.join(" or ")
        ),
    }
}

/// A CLIP text model.
pub struct ClipPrompt {
    /// Its tokenizer.
    pub tokenizer: ClipTokenizer,
    /// The encoder.
    pub model: ClipText,
    /// Tokens in a row, begin and end included.
    pub length: usize,
    words: Words,
    key: &'static str,
}

impl ClipPrompt {
    /// Loads it.
    pub fn load(
        dir: &Path,
        index: &Map<String, Value>,
        names: Names,
        head: Head,
        options: &LoadOptions,
    ) -> Result<Self> {
        demand(dir, index, names.tokenizer, &["CLIPTokenizer", "CLIPTokenizerFast"])?;
        let wanted = if head == Head::Projection { "CLIPTextModelWithProjection" } else { "CLIPTextModel" };
        demand(dir, index, names.model, &[wanted])?;
        let tokenizer = ClipTokenizer::load(&dir.join(names.tokenizer))?;
        let model = ClipText::load(&dir.join(names.model), head, tokenizer.eos(), options)?;
        let most = model.config().max_position_embeddings;
        let length = tokenizer.max_length().map_or(most, |n| n.min(most));
        let words = Words::after(model.config().vocab_size);
        Ok(Self { length, tokenizer, model, words, key: names.key })
    }

    /// The rows that the encoder is given for a prompt: one, or more for a longer text.
    pub fn chunks(&self, prompt: &str) -> Result<Vec<Vec<u32>>> {
        self.tokenizer.rows(&self.words.ids(prompt, |text| self.tokenizer.ids(text))?, self.length)
    }

    /// What decides its rows and states beside the weights.
    pub fn definition(&self) -> impl std::fmt::Debug + '_ {
        (self.model.config(), self.tokenizer.eos(), self.length, self.words.definition())
    }

    /// The one row that a text is cut to.
    pub fn row(&self, prompt: &str) -> Result<Vec<u32>> {
        Ok(self.chunks(prompt)?.swap_remove(0))
    }
}

/// T5's encoder.
pub struct T5Prompt {
    tokenizer: T5Tokenizer,
    /// The encoder.
    pub model: T5Encoder,
    /// Tokens in a row, the end included.
    pub length: usize,
    words: Words,
    key: &'static str,
}

impl T5Prompt {
    /// Loads it, for rows of `length` tokens.
    pub fn load(
        dir: &Path,
        index: &Map<String, Value>,
        names: Names,
        length: usize,
        options: &LoadOptions,
    ) -> Result<Self> {
        demand(dir, index, names.tokenizer, &["T5TokenizerFast", "T5Tokenizer"])?;
        demand(dir, index, names.model, &["T5EncoderModel"])?;
        let tokenizer = T5Tokenizer::load(&dir.join(names.tokenizer))?;
        let model = T5Encoder::load(&dir.join(names.model), options)?;
        let words = Words::after(model.config().vocab_size);
        Ok(Self { tokenizer, model, length, words, key: names.key })
    }

    /// The row of a prompt.
    pub fn row(&self, prompt: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.row_of(self.words.ids(prompt, |text| self.tokenizer.ids(text))?, self.length))
    }

    /// What decides its states beside the weights.
    pub fn definition(&self) -> impl std::fmt::Debug + '_ {
        (self.model.config(), self.words.definition())
    }

    /// The last states of prompts, B L D.
    pub fn encode(&self, prompts: &[&str]) -> Result<Tensor> {
        self.model.forward(&prompts.iter().map(|p| self.row(p)).collect::<Result<Vec<_>>>()?)
    }
}

impl Vocabulary for ClipPrompt {
    fn component(&self) -> &str {
        self.model.store().component()
    }

    fn key(&self) -> &'static str {
        self.key
    }

    fn width(&self) -> usize {
        self.model.config().hidden_size
    }

    fn device(&self) -> &Device {
        self.model.store().device()
    }

    fn learns(&self) -> Learns {
        Learns::ByItself
    }

    fn rows(&self, text: &str) -> Result<Tensor> {
        self.model.rows(&self.tokenizer.ids(text)?)?.detach().to_dtype(DType::F32)
    }

    fn add(&self, word: &str, rows: Param) -> Result<()> {
        self.words.add(word, &rows)?;
        self.model.tokens().go_on(rows)
    }
}

impl Vocabulary for T5Prompt {
    fn component(&self) -> &str {
        self.model.store().component()
    }

    fn key(&self) -> &'static str {
        self.key
    }

    fn width(&self) -> usize {
        self.model.config().d_model
    }

    fn device(&self) -> &Device {
        self.model.store().device()
    }

    fn learns(&self) -> Learns {
        Learns::WhenNamed
    }

    fn rows(&self, text: &str) -> Result<Tensor> {
        self.model.rows(&self.tokenizer.ids(text)?)?.detach().to_dtype(DType::F32)
    }

    fn add(&self, word: &str, rows: Param) -> Result<()> {
        self.words.add(word, &rows)?;
        self.model.tokens().go_on(rows)
    }
}
