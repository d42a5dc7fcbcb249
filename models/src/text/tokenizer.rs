//! CLIP's tokenizer: byte-level byte-pair encoding of lower-cased words (Radford et al. 2021, section 2.4). Read from
//! `vocab.json` and `merges.txt`, or from the same tables in a `tokenizer.json`; the rules around the tables are CLIP's
//! in both cases, and the folder's other files say which tokens are special.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Error, Result, bail};
use serde_json::{Map, Value, json};
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use crate::diffusers::read_json;

/// What counts as one word before any merge: a special token, an English contraction's tail, letters, one digit, or a
/// run of anything else that is not space.
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The merges of every CLIP that was published (OpenAI, MIT), most frequent first.
const MERGES: &str = include_str!("clip-merges.txt");

/// The files of a tokenizer's folder for the vocabulary of published models; `bang`: pads with `!`, as OpenCLIP's do.
pub fn clip_vocabulary(bang: bool) -> Vec<(&'static str, String)> {
    // The printable bytes first, then the others by a stand-in from 256 on: the alphabet of GPT-2's byte-level encoding.
    let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let stand_ins = (0..256u32).filter(|b| !printable(b)).zip(256..).map(|(_, c)| c);
    let bytes: Vec<char> = (0..256u32).filter(printable).chain(stand_ins).filter_map(char::from_u32).collect();
    let merges = MERGES.lines().skip(1).map(|line| line.replacen(' ', "", 1));
    let words = bytes.iter().map(char::to_string).chain(bytes.iter().map(|c| format!("{c}</w>"))).chain(merges);
    let words = words.chain(["<|startoftext|>".to_owned(), "<|endoftext|>".to_owned()]);
    let vocabulary: Map<String, Value> = (0u32..).zip(words).map(|(id, word)| (word, json!(id))).collect();
    let special = json!({
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>",
        "pad_token": if bang { "!" } else { "<|endoftext|>" },
    });
    let config = json!({ "tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": true });
    vec![
        ("merges.txt", MERGES.to_owned()),
        ("vocab.json", Value::Object(vocabulary).to_string()),
        ("special_tokens_map.json", special.to_string()),
        ("tokenizer_config.json", config.to_string()),
    ]
}

/// Text to token ids.
pub struct ClipTokenizer {
    inner: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    max_length: Option<usize>,
}

impl ClipTokenizer {
    /// Reads a tokenizer's folder.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::read(dir).map_err(|e| Error::Msg(format!("{}: {e}", dir.display())))
    }

    fn read(dir: &Path) -> Result<Self> {
        let (model, mut added) = model(dir)?;
        let config = optional_json(&dir.join("tokenizer_config.json"))?;
        let mut special = config.clone();
        match config.get("added_tokens_decoder").and_then(Value::as_object) {
            Some(by_id) => {
                added = by_id.iter().map(|(id, token)| Ok((number(id)?, token.clone()))).collect::<Result<_>>()?
            }
            // Older folders keep them in two files of their own.
            None => {
                special.extend(optional_json(&dir.join("special_tokens_map.json"))?);
                for (content, id) in optional_json(&dir.join("added_tokens.json"))? {
                    let token = json!({ "content": content, "normalized": true });
                    added.entry(number(&id.to_string())?).or_insert(token);
                }
            }
        }

        let mut inner = pipeline(model)?;
        let name = |key: &str, default: &str| match special.get(key) {
            None | Some(Value::Null) => Ok(default.to_owned()),
            Some(token) => content(token).map(str::to_owned),
        };
        let end = "<|endoftext|>";
        let [bos, eos, unk, pad] = [
            name("bos_token", "<|startoftext|>")?,
            name("eos_token", end)?,
            name("unk_token", end)?,
            name("pad_token", end)?,
        ];
        let named = [("bos_token", &bos), ("eos_token", &eos), ("unk_token", &unk), ("pad_token", &pad)];
        for (id, token) in &added {
            let token = added_token(token)?;
            let token = if named.iter().any(|(_, n)| **n == token.content) { token.special(true) } else { token };
            let content = token.content.clone();
            inner.add_tokens([token]).map_err(Error::msg)?;
            if inner.token_to_id(&content) != Some(*id) {
                bail!("the added token {content:?} should have the id {id}, it has {:?}", inner.token_to_id(&content));
            }
        }
        let listed = ["additional_special_tokens", "extra_special_tokens"]
            .iter()
            .filter_map(|key| special.get(*key)?.as_array());
        let named =
            named.iter().map(|(key, name)| special.get(*key).filter(|v| !v.is_null()).cloned().unwrap_or(json!(name)));
        for token in named.chain(listed.flatten().cloned()) {
            let token = added_token(&token)?.special(true);
            if !inner.get_added_tokens_decoder().values().any(|t| t.content == token.content) {
                inner.add_tokens([token]).map_err(Error::msg)?;
            }
        }

        let id = |token: &str| match inner.token_to_id(token) {
            Some(id) => Ok(id),
            None => bail!("the special token {token:?} is not in the vocabulary"),
        };
        // A length that was never set is stored as 1e30.
        let max_length =
            config.get("model_max_length").and_then(Value::as_f64).filter(|n| *n < 1e9).map(|n| n as usize);
        Ok(Self { bos: id(&bos)?, eos: id(&eos)?, pad: id(&pad)?, inner, max_length })
    }

    /// The ids of a text, without begin and end, whatever their number.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode(text, false).map_err(Error::msg)?.get_ids().to_vec())
    }

    /// The rows that an encoder of `length` positions is given for a text: begin, up to `length - 2` ids, end, padding.
    /// One row for a text that fits, one more for each `length - 2` ids beyond; never fewer than one.
    pub fn chunks(&self, text: &str, length: usize) -> Result<Vec<Vec<u32>>> {
        self.rows(&self.ids(text)?, length)
    }

    /// [`chunks`](Self::chunks) of a text with these ids.
    pub fn rows(&self, ids: &[u32], length: usize) -> Result<Vec<Vec<u32>>> {
        if length < 3 {
            bail!("a length of {length} tokens has no room for text between the begin and end tokens");
        }
        let count = ids.len().div_ceil(length - 2).max(1);
        let chunk = |i: usize| ids.get(i * (length - 2)..).unwrap_or_default().iter().take(length - 2);
        Ok((0..count).map(|i| self.row(chunk(i).copied(), length)).collect())
    }

    /// The row of an empty text.
    pub fn empty(&self, length: usize) -> Vec<u32> {
        self.row(std::iter::empty(), length)
    }

    fn row(&self, ids: impl Iterator<Item = u32>, length: usize) -> Vec<u32> {
        let mut row: Vec<u32> = std::iter::once(self.bos).chain(ids).chain([self.eos]).collect();
        row.resize(length, self.pad);
        row
    }

    /// The end token's id.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The number of positions that the folder states, begin and end included.
    pub fn max_length(&self) -> Option<usize> {
        self.max_length
    }
}

/// The byte-pair tables, and the added tokens that stand beside them, by id.
fn model(dir: &Path) -> Result<(BPE, BTreeMap<u32, Value>)> {
    let mut added = BTreeMap::new();
    let (vocab, merges) = if dir.join("vocab.json").is_file() && dir.join("merges.txt").is_file() {
        let merges =
            std::fs::read_to_string(dir.join("merges.txt")).map_err(|e| Error::Msg(format!("merges.txt: {e}")))?;
        let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
        (Value::Object(read_json(&dir.join("vocab.json"))?), lines.map(|line| json!(line)).collect())
    } else if dir.join("tokenizer.json").is_file() {
        let mut json = read_json(&dir.join("tokenizer.json"))?;
        for token in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
            added.insert(number(&token["id"].to_string())?, token.clone());
        }
        let mut model = json.remove("model").unwrap_or_default();
        if model["end_of_word_suffix"] != "</w>" {
            bail!("tokenizer.json is not CLIP's: its model has no end_of_word_suffix \"</w>\"");
        }
        (model["vocab"].take(), model["merges"].take())
    } else {
        bail!("no tokenizer: expected vocab.json and merges.txt, or tokenizer.json");
    };
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
        "end_of_word_suffix": "</w>", "fuse_unk": false, "vocab": vocab, "merges": merges,
    });
    // The model reads borrowed text only.
    Ok((
        serde_json::from_str(&model.to_string()).map_err(|e| Error::Msg(format!("the vocabulary and merges: {e}")))?,
        added,
    ))
}

fn pipeline(model: BPE) -> Result<Tokenizer> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ").map_err(Error::msg)?;
    let words = SplitPattern::Regex(WORDS.into());
    let words = Split::new(words, SplitDelimiterBehavior::Removed, true).map_err(Error::msg)?;
    let bytes = ByteLevel::new(false, true, true);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))
        .map_err(Error::msg)?
        .with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

/// A JSON object, empty where the file is not there.
fn optional_json(path: &Path) -> Result<Map<String, Value>> {
    if path.is_file() { read_json(path) } else { Ok(Map::new()) }
}

fn number(text: &str) -> Result<u32> {
    text.parse().map_err(|_| Error::Msg(format!("{text} is no token id")))
}

/// A token is written as its text, or as an object with the text and how to match it.
fn content(token: &Value) -> Result<&str> {
    match token.as_str().or_else(|| token.get("content")?.as_str()) {
        Some(content) => Ok(content),
        None => bail!("{token} is no token: expected a string or an object with `content`"),
    }
}

fn added_token(token: &Value) -> Result<AddedToken> {
    let is = |key: &str| token.get(key).and_then(Value::as_bool);
    let special = is("special").unwrap_or(token.is_string());
    Ok(AddedToken::from(content(token)?, special)
        .normalized(is("normalized").unwrap_or(!special))
        .lstrip(is("lstrip").unwrap_or(false))
        .rstrip(is("rstrip").unwrap_or(false))
        .single_word(is("single_word").unwrap_or(false)))
}
