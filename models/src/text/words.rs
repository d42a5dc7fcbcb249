//! The learned words of one text encoder: their ids, which go on where its table ends, and how a prompt is spelt with them.

use std::ops::Range;
use std::sync::RwLock;

use candle_core::{Result, bail};
use sconce_core::digest::Digest;
use sconce_core::words::said;
use sconce_nn::Param;
use sconce_nn::weights::bytes_of;

/// Words with their ids.
pub struct Words {
    known: RwLock<Vec<Known>>,
    /// The first id that is free.
    first: u32,
}

struct Known {
    word: String,
    ids: Range<u32>,
    rows: Param,
}

impl Words {
    /// None yet, for a table of `size` rows.
    pub fn after(size: usize) -> Self {
        Self { known: RwLock::default(), first: size as u32 }
    }

    /// A word with its rows, `N D`.
    ///
    /// # Errors
    /// If it is there already, or is no word.
    pub fn add(&self, word: &str, rows: &Param) -> Result<()> {
        let mut known = self.known.write().expect("no writer panics");
        if word.trim().is_empty() || word.trim() != word {
            bail!("{word:?} is no word: it begins or ends with a space, or is nothing else");
        }
        if known.iter().any(|other| other.word.eq_ignore_ascii_case(word)) {
            bail!("the word `{word}` is given twice");
        }
        let first = known.last().map_or(self.first, |last| last.ids.end);
        let ids = first..first + rows.shape().dims()[0] as u32;
        known.push(Known { word: word.to_owned(), ids, rows: rows.clone() });
        Ok(())
    }

    /// What the words are and mean, by their hashes: nothing where there is none.
    pub fn definition(&self) -> Vec<String> {
        let hash = |rows: &Param| match rows.tensor().and_then(|rows| bytes_of(&rows)) {
            Ok(bytes) => Digest::of(&[&bytes]),
            Err(e) => e.to_string(),
        };
        let known = self.known.read().expect("no writer panics");
        known.iter().map(|known| format!("{} {}", known.word, hash(&known.rows))).collect()
    }

    /// The ids of a text; `plain` gives those of what is between learned words. Of two words at one place the longer counts.
    pub fn ids(&self, text: &str, plain: impl Fn(&str) -> Result<Vec<u32>>) -> Result<Vec<u32>> {
        let known = self.known.read().expect("no writer panics");
        let (mut ids, mut rest) = (Vec::new(), text);
        loop {
            let found = known.iter().filter_map(|known| Some((said(rest, &known.word)?, known.ids.clone())));
            let Some((place, own)) = found.min_by_key(|(place, _)| (place.start, usize::MAX - place.end)) else {
                if !rest.is_empty() || ids.is_empty() {
                    ids.extend(plain(rest)?);
                }
                return Ok(ids);
            };
            if place.start > 0 {
                ids.extend(plain(&rest[..place.start])?);
            }
            ids.extend(own);
            rest = &rest[place.end..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn a_prompt_is_spelt_with_the_words() -> Result<()> {
        let words = Words::after(100);
        let rows =
            |count: usize| Tensor::zeros((count, 3), DType::F32, &Device::Cpu).map(|rows| Param::new("rows", rows));
        words.add("<fox>", &rows(2)?)?;
        words.add("sks", &rows(1)?)?;
        words.add("sks dog", &rows(1)?)?;
        let letters = |text: &str| Ok(text.bytes().filter(|b| *b != b' ').map(u32::from).collect());
        assert_eq!(words.ids("a <fox>b", letters)?, [97, 100, 101, 98]);
        assert_eq!(words.ids("SKS <fox>", letters)?, [102, 100, 101]);
        assert_eq!(words.ids("sks dog sks", letters)?, [103, 102]);
        assert_eq!(words.ids("asks", letters)?, [97, 115, 107, 115]);
        assert_eq!(words.ids("", letters)?, Vec::<u32>::new());
        for no in ["SKS", " x", ""] {
            assert!(words.add(no, &rows(1)?).is_err(), "{no:?}");
        }
        Ok(())
    }
}
