//! T5's tokenizer: pieces of a unigram language model over whole sentences (Kudo 2018), as `tokenizer.json` describes it.

use std::path::Path;

use candle_core::{Error, Result, bail};
use tokenizers::Tokenizer;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

use crate::diffusers::read_json;

/// The `tokenizer.json` of every T5 of version 1.1 that was published (Google, Apache-2.0), compressed.
const PUBLISHED: &[u8] = include_bytes!("t5-tokenizer.json.zst");

/// The rows of the table that it is for.
pub const PUBLISHED_ROWS: u64 = 32_128;

/// The files of a tokenizer's folder for published models.
///
/// # Errors
/// Never, but where the program is damaged.
pub fn t5_vocabulary() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let json = zstd::decode_all(PUBLISHED)?;
    let config = serde_json::json!({ "tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>" });
    Ok(vec![("tokenizer.json", json), ("tokenizer_config.json", config.to_string().into_bytes())])
}

/// Text to token ids.
pub struct T5Tokenizer {
    inner: Tokenizer,
    end: u32,
    pad: u32,
}

impl T5Tokenizer {
    /// Reads a tokenizer's folder.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::read(dir).map_err(|e| Error::Msg(format!("{}: {e}", dir.display())))
    }

    fn read(dir: &Path) -> Result<Self> {
        let file = dir.join("tokenizer.json");
        if !file.is_file() {
            let also = if dir.join("spiece.model").is_file() { ", which holds the same as spiece.model" } else { "" };
            bail!("no tokenizer.json{also}: fetch the model's folder again, or save its tokenizer with transformers");
        }
        // Lengths are this program's business, whatever the file says of them.
        let mut inner = Tokenizer::from_file(&file).map_err(Error::msg)?;
        inner.with_padding(None).with_truncation(None).map_err(Error::msg)?;
        // Words as SentencePiece takes them: any run of spaces is one, and none is at the end. Files differ in how they say so,
        // and some do not.
        let spaces = Metaspace::new('▁', PrependScheme::Always, true);
        inner.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), spaces.into()])));
        let config = dir.join("tokenizer_config.json");
        let config = if config.is_file() { read_json(&config)? } else { Default::default() };
        let id = |field: &str, default: &str| {
            let token = config.get(field).map(|t| t.get("content").unwrap_or(t));
            let token = token.and_then(|t| t.as_str()).unwrap_or(default);
            match inner.token_to_id(token) {
                Some(id) => Ok(id),
                None => bail!("the special token {token:?} is not in the vocabulary"),
            }
        };
        let (end, pad) = (id("eos_token", "</s>")?, id("pad_token", "<pad>")?);
        Ok(Self { inner, end, pad })
    }

    /// The ids of a text, without the end token, whatever their number.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode(text, false).map_err(Error::msg)?.get_ids().to_vec())
    }

    /// A row of `length` ids: those of the text, cut off where they do not fit, the end token, padding.
    pub fn row(&self, text: &str, length: usize) -> Result<Vec<u32>> {
        Ok(self.row_of(self.ids(text)?, length))
    }

    /// [`row`](Self::row) of a text with these ids.
    pub fn row_of(&self, mut ids: Vec<u32>, length: usize) -> Vec<u32> {
        ids.truncate(length.saturating_sub(1));
        ids.push(self.end);
        ids.resize(length, self.pad);
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vocabulary_is_inside() -> Result<()> {
        let folder = tempfile::tempdir()?;
        for (name, bytes) in t5_vocabulary()? {
            std::fs::write(folder.path().join(name), bytes)?;
        }
        let tokenizer = T5Tokenizer::load(folder.path())?;
        assert_eq!(tokenizer.row("Hello world", 5)?, [8774, 296, 1, 0, 0]);
        assert_eq!(tokenizer.inner.get_vocab_size(true), 32_100);
        Ok(())
    }
}
