//! Learned words: a word of the user's own is some rows beside a text encoder's table, which are learned while all else may stay
//! as it is (textual inversion, Gal et al. 2022), or together with an adapter (pivotal tuning). A word has rows in each encoder
//! that knows it; a file holds them all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor, bail};
use sconce_nn::Param;
use sconce_nn::weights::{WeightFiles, read_metadata};

use crate::hub::{self, Needs};

/// A text encoder that words can be taught.
pub trait Vocabulary: Send + Sync {
    /// Its component: `text_encoder`.
    fn component(&self) -> &str;

    /// Its name in files that hold a word for several encoders: `clip_l`, `clip_g`, `t5xxl`.
    fn key(&self) -> &'static str;

    /// How many numbers a row has.
    fn width(&self) -> usize;

    /// Where its rows are.
    fn device(&self) -> &Device;

    /// When it learns a word.
    fn learns(&self) -> Learns;

    /// The rows of a text's tokens, `N D` in f32, on the encoder's device.
    fn rows(&self, text: &str) -> Result<Tensor>;

    /// From now on `word` is these rows, `N D`, wherever a prompt says it.
    ///
    /// # Errors
    /// If there is such a word already.
    fn add(&self, word: &str, rows: Param) -> Result<()>;
}

/// When an encoder learns a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learns {
    /// Unless the recipe names others.
    ByItself,
    /// Where the recipe names it: an encoder so large that a gradient through it is a choice.
    WhenNamed,
}

/// A word with its rows by component, `N D` each.
#[derive(Clone, Debug)]
pub struct Word {
    /// How prompts say it.
    pub text: String,
    /// Its rows.
    pub rows: BTreeMap<String, Tensor>,
}

/// Where a text first says a word, in bytes: upper and lower case alike, and not within a longer word.
pub fn said(text: &str, word: &str) -> Option<Range<usize>> {
    // Scripts without spaces have no ends of words to look for.
    let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let inside = |outer: Option<char>, inner: Option<char>| outer.is_some_and(letter) && inner.is_some_and(letter);
    let starts = text.char_indices().map(|(at, _)| at);
    starts.filter(|_| !word.is_empty()).find_map(|at| {
        let end = at + word.len();
        let here = text.get(at..end).is_some_and(|piece| piece.eq_ignore_ascii_case(word));
        let within = inside(text[..at].chars().next_back(), word.chars().next())
            || inside(text.get(end..).and_then(|rest| rest.chars().next()), word.chars().next_back());
        (here && !within).then_some(at..end)
    })
}

/// The header's field that tells how a file's word is said.
pub const SAID: &str = "sconce.word";

/// A word in an adapter's file: `bundle_emb.NAME.clip_l`, and `<NAME>` in the first LoRA repository's.
pub fn is_bundled(key: &str) -> bool {
    key.starts_with("bundle_emb.") || (key.starts_with('<') && key.ends_with('>'))
}

/// The words of a file, here or of the Hub, for these encoders. One that does not say how its word is said is named by the
/// file.
///
/// # Errors
/// If it holds none, or one that fits no encoder.
pub fn read(vocabularies: &[&dyn Vocabulary], path: &Path) -> Result<Vec<Word>> {
    let path = hub::here(path, Needs::Weights)?;
    let words = words(vocabularies, &path, |_| true)?;
    if words.is_empty() {
        bail!("{}: it holds no learned word", path.display());
    }
    Ok(words)
}

/// The words that stand beside an adapter in its file; mostly none.
pub fn bundled(vocabularies: &[&dyn Vocabulary], path: &Path) -> Result<Vec<Word>> {
    let path = hub::here(path, Needs::Weights)?;
    words(vocabularies, &path, is_bundled)
}

fn words(vocabularies: &[&dyn Vocabulary], path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<Word>> {
    let file = WeightFiles::open(&[path])?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let own = read_metadata(path)?.remove(SAID).unwrap_or(stem);
    let mut words: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
    for key in file.keys().filter(|key| wanted(key)) {
        let rows = file.tensor(key, DType::F32, &Device::Cpu)?;
        let rows = if rows.rank() == 1 { rows.unsqueeze(0)? } else { rows };
        let (name, encoder) = match key.strip_prefix("bundle_emb.").and_then(|rest| rest.split_once('.')) {
            Some((name, encoder)) => (name, encoder),
            None if place(vocabularies, key).is_some() || UNNAMED.contains(&key) => (own.as_str(), key),
            None => (key, ""),
        };
        let fits = |v: &&&dyn Vocabulary| rows.rank() == 2 && rows.dims()[1] == v.width() && rows.dims()[0] > 0;
        let found = match place(vocabularies, encoder) {
            Some(named) => Some(named).filter(fits),
            // A file that does not say for which encoder it is can only be for one.
            None if vocabularies.len() == 1 => vocabularies.first().filter(fits),
            None => vocabularies.iter().find(fits).filter(|_| vocabularies.iter().filter(fits).count() == 1),
        };
        let Some(vocabulary) = found else {
            let known: Vec<String> =
                vocabularies.iter().map(|v| format!("{} ({} wide)", v.component(), v.width())).collect();
            bail!(
                "{}: `{key}` is {:?}, and this model's text encoders are {}: the word was made for another model",
                path.display(),
                rows.dims(),
                known.join(", ")
            );
        };
        words.entry(name.to_owned()).or_default().insert(vocabulary.component().to_owned(), rows);
    }
    Ok(words.into_iter().map(|(text, rows)| Word { text, rows }).collect())
}

/// What files call the rows of a word that they do not name.
const UNNAMED: [&str; 3] = ["emb_params", "*", "string_to_param.*"];

/// The encoder that a key names: as ComfyUI, OneTrainer and kohya do, as diffusers does by number, or by its component.
fn place<'a>(vocabularies: &'a [&'a dyn Vocabulary], key: &str) -> Option<&'a &'a dyn Vocabulary> {
    let number = key.strip_prefix("text_encoders_").and_then(|n| n.parse::<usize>().ok());
    vocabularies
        .iter()
        .enumerate()
        .find(|(i, v)| v.key() == key || v.component() == key || number == Some(*i))
        .map(|v| v.1)
}

/// The tensors of a word's file, by the names that other programs know: of its own where the model has one encoder, else of the
/// encoders.
pub fn tensors(vocabularies: &[&dyn Vocabulary], word: &Word) -> BTreeMap<String, Tensor> {
    let key = |component: &str| match vocabularies.iter().find(|v| v.component() == component) {
        Some(vocabulary) if vocabularies.len() > 1 => vocabulary.key().to_owned(),
        _ => word.text.clone(),
    };
    word.rows.iter().map(|(component, rows)| (key(component), rows.clone())).collect()
}

/// The name of a word's file without the ending, which is what ComfyUI's and A1111's prompts call it by.
pub fn file_name(word: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '-' || c == '_' { c } else { ' ' };
    let name = word.chars().map(plain).collect::<String>().split_whitespace().collect::<Vec<_>>().join("-");
    if name.is_empty() { "word".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_where_it_is_one() {
        assert_eq!(said("a photo of <Fox>, sitting", "<fox>"), Some(11..16));
        assert_eq!(said("tasks for sks dog", "sks"), Some(10..13));
        assert_eq!(said("tasks for dogs", "sks"), None);
        assert_eq!(said("über<fox>", "<fox>"), Some(5..10));
        assert_eq!(said("a fox", ""), None);
        assert_eq!(said("狐狸", "狐狸"), Some(0..6));
        assert_eq!(said("一只狐狸在雪中", "狐狸"), Some(6..12));
    }

    #[test]
    fn a_words_file_is_named_by_what_any_system_takes() {
        assert_eq!(["<my fox>", "sks", "../../x", "<>"].map(file_name), ["my-fox", "sks", "x", "word"]);
    }
}
