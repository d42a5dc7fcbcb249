//! The words that a recipe teaches the text encoders: their first rows, which train, and the files that they become.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Result, Tensor, bail};
use sconce_nn::Param;

use crate::model::Model;
use crate::optimizer::Trained;
use crate::recipe::{Recipe, TokenTable};
use crate::words::{self, Learns, Vocabulary, Word};

/// A word with its rows by component.
pub struct Taught {
    text: String,
    rows: BTreeMap<String, Param>,
}

impl Taught {
    /// As it is now.
    pub fn word(&self) -> Result<Word> {
        let rows = self.rows.iter().map(|(component, rows)| Ok((component.clone(), rows.tensor()?.detach())));
        Ok(Word { text: self.text.clone(), rows: rows.collect::<Result<_>>()? })
    }

    /// True if it learned: it has a tensor of this name.
    fn learns(&self) -> bool {
        self.rows.values().any(|rows| rows.var().is_some())
    }
}

/// Teaches the model's encoders the recipe's words. Gives the words, and what trains of them.
pub fn teach(recipe: &Recipe, model: &dyn Model) -> Result<(Vec<Taught>, Vec<Trained>)> {
    let (mut words, mut trained) = (Vec::new(), Vec::new());
    let vocabularies = model.conditioner().vocabularies();
    for (i, table) in recipe.train.token.iter().enumerate() {
        let fault = |e: candle_core::Error| e.context(format!("train.token.{i} (`{}`)", table.text));
        let mut rows = BTreeMap::new();
        for (vocabulary, value) in first_rows(table, &vocabularies).map_err(fault)? {
            let component = vocabulary.component().to_owned();
            let param = Param::new(name(&table.text), value);
            vocabulary.add(&table.text, param.clone()).map_err(fault)?;
            if table.lr_factor > 0.0 {
                let name = format!("{component}/{}", param.name());
                let var = param.train()?;
                // Decay would pull a word towards nothing, which none of a table's rows is near to.
                trained.push(Trained { name, var, lr_factor: table.lr_factor, weight_decay: Some(0.0) });
            }
            rows.insert(component, param);
        }
        words.push(Taught { text: table.text.clone(), rows });
    }
    Ok((words, trained))
}

/// The name of a word's rows among a component's tensors.
fn name(word: &str) -> String {
    format!("token.{word}")
}

/// True for the name of a trained tensor that is a word's rows.
pub fn is_word(name: &str) -> bool {
    name.split_once('/').is_some_and(|(_, name)| name.starts_with("token."))
}

/// The encoders that a word is for, with the rows it starts from.
fn first_rows<'a>(table: &TokenTable, all: &[&'a dyn Vocabulary]) -> Result<Vec<(&'a dyn Vocabulary, Tensor)>> {
    let names = || all.iter().map(|v| v.component()).collect::<Vec<_>>().join(", ");
    if all.is_empty() {
        bail!("this model has no text encoder that learns words");
    }
    if let Some(stray) = table.encoders.iter().find(|name| !all.iter().any(|v| v.component() == *name)) {
        bail!("`encoders` names `{stray}`, and the encoders that learn words are: {}", names());
    }
    let chosen = |v: &&'a dyn Vocabulary| match table.encoders.is_empty() {
        true => v.learns() == Learns::ByItself,
        false => table.encoders.iter().any(|name| name == v.component()),
    };
    let chosen: Vec<&dyn Vocabulary> = all.iter().copied().filter(chosen).collect();
    if chosen.is_empty() {
        bail!("no encoder of this model learns words unless it is named: set `encoders`, there are: {}", names());
    }
    let read = table.from.as_ref().map(|file| (file, words::read(all, Path::new(file))));
    let read = read.map(|(file, words)| Ok::<_, candle_core::Error>((file, own(table, words?, file)?))).transpose()?;
    let rows = |vocabulary: &'a dyn Vocabulary| {
        let rows = match &read {
            Some((file, word)) => match word.rows.get(vocabulary.component()) {
                Some(rows) => rows.clone(),
                None => bail!("{file} has no rows for `{}`: leave it out of `encoders`", vocabulary.component()),
            },
            None => {
                let start = table.start.as_deref().unwrap_or_default();
                let rows = vocabulary.rows(start)?;
                let count = rows.dims().first().copied().unwrap_or(0);
                if count == 0 {
                    bail!("start = {start:?} has no tokens: give a word, such as \"person\"");
                }
                let again: Vec<u32> = (0..table.vectors.unwrap_or(1)).map(|i| (i % count) as u32).collect();
                let again = Tensor::from_vec(again.clone(), again.len(), rows.device())?;
                rows.index_select(&again, 0)?
            }
        };
        Ok((vocabulary, rows.to_dtype(DType::F32)?.to_device(vocabulary.device())?.contiguous()?))
    };
    chosen.into_iter().map(rows).collect()
}

/// Of a file's words the one that is meant: that of this name, or the only one.
fn own(table: &TokenTable, mut words: Vec<Word>, file: &str) -> Result<Word> {
    if words.len() == 1 {
        return Ok(words.remove(0));
    }
    let names: Vec<String> = words.iter().map(|word| format!("`{}`", word.text)).collect();
    match words.into_iter().find(|word| word.text.eq_ignore_ascii_case(&table.text)) {
        Some(word) => Ok(word),
        None => bail!("{file} holds the words {}, and none is `{}`", names.join(", "), table.text),
    }
}

/// Refuses words that no caption says: they would stay as they are without a word.
pub fn said_by<'a>(words: &[Taught], captions: impl IntoIterator<Item = &'a str> + Clone) -> Result<()> {
    for word in words.iter().filter(|word| word.learns()) {
        if !captions.clone().into_iter().any(|caption| words::said(caption, &word.text).is_some()) {
            let text = &word.text;
            bail!(
                "train.token: no caption says `{text}`, so there is nothing to learn it from: put it into the captions, or \
                 before all of them with data.source.caption = \"a photo of {text}, {{caption}}\""
            );
        }
    }
    Ok(())
}

/// Writes a file for each word, where ComfyUI and A1111 look for them by their names.
pub fn write(
    model: &dyn Model,
    words: &[Taught],
    dtype: DType,
    header: &BTreeMap<String, String>,
    out: &Path,
) -> Result<Vec<PathBuf>> {
    let vocabularies = model.conditioner().vocabularies();
    let file = |taught: &Taught| {
        let word = taught.word()?;
        let path = out.join("embeddings").join(format!("{}.safetensors", words::file_name(&word.text)));
        let cast = |(key, rows): (String, Tensor)| Ok((key, rows.to_dtype(dtype)?));
        let tensors = words::tensors(&vocabularies, &word).into_iter().map(cast).collect::<Result<_>>()?;
        let mut header = header.clone();
        header.insert(words::SAID.to_owned(), word.text);
        sconce_nn::weights::save(&path, &tensors, &header)?;
        Ok(path)
    };
    words.iter().filter(|word| word.learns()).map(file).collect()
}
