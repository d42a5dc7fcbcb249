//! The tables' rows: a field of another program, what it takes, what is its default, and what is done with it.

use std::ops::Range;

use serde_json::Value;

use crate::case::Case;
use crate::report::Verdict;
pub(crate) use crate::value::Takes;

/// What a field means.
pub(crate) struct Rule {
    /// Its name, as [`Field::key`] has it. A `*` at the end stands for anything.
    pub key: &'static str,
    /// What its field takes.
    pub takes: Takes,
    /// The other program's default, in JSON; empty: none.
    pub usual: &'static str,
    /// The default means something that the recipe must say.
    pub said: bool,
    /// What is done with it.
    pub does: Does,
}

/// What is done with a field.
pub(crate) enum Does {
    /// It goes to this field of the recipe as it is.
    To(&'static str),
    /// What this function does with it.
    By(fn(&mut Case, &Field) -> Verdict),
    /// The recipe has no word for it, for this reason.
    No(&'static str),
    /// The recipe needs no word for it, for this reason.
    Not(&'static str),
    /// The recipe needs no word for it, for this reason; it may be a secret, and is not even shown.
    Secret(&'static str),
}

impl Rule {
    /// A rule for a field.
    pub const fn new(key: &'static str, takes: Takes, does: Does) -> Self {
        Self { key, takes, usual: "", said: false, does }
    }

    /// With the other program's default.
    #[must_use]
    pub const fn usual(mut self, json: &'static str) -> Self {
        self.usual = json;
        self
    }

    /// With a default that the recipe must say, although the configuration does not.
    #[must_use]
    pub const fn said(mut self, json: &'static str) -> Self {
        self.usual = json;
        self.said = true;
        self
    }

    /// True if its field takes a list.
    pub fn is_list(&self) -> bool {
        self.takes == Takes::List
    }

    /// True if its field is a flag.
    pub fn is_flag(&self) -> bool {
        self.takes == Takes::Flag
    }

    /// The other program's default.
    pub fn default(&self) -> Value {
        serde_json::from_str(self.usual).unwrap_or(Value::Null)
    }

    /// True if it is about a field of this name.
    pub fn fits(&self, key: &str) -> bool {
        match self.key.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => self.key == key,
        }
    }
}

/// A field of the input.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    /// Its name, as it is written.
    pub shown: String,
    /// Its name in the rules.
    pub key: String,
    /// Its value: once the engine runs, as what its rule takes.
    pub value: Value,
    /// The folders of pictures that it is about; none: all.
    pub sources: Option<Range<usize>>,
    /// Fields of a higher rank overrule those of a lower.
    pub rank: u8,
}

impl Field {
    /// A field about everything.
    pub fn new(shown: impl Into<String>, key: impl Into<String>, value: Value) -> Self {
        Self { shown: shown.into(), key: key.into(), value, sources: None, rank: 0 }
    }

    /// As a number, where it is one.
    pub fn number(&self) -> Option<f64> {
        self.value.as_f64()
    }

    /// As a text, empty where it is none.
    pub fn text(&self) -> &str {
        self.value.as_str().unwrap_or_default()
    }

    /// As a flag.
    pub fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }
}

/// The nearest of some names, if it is near.
pub(crate) fn nearest<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = all.map(|other| (distance(name, other), other)).min_by_key(|(d, _)| *d)?;
    (near.0 <= name.len().min(9) / 3).then_some(near.1)
}

/// Letters to add, take away or change.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_there_once_and_its_default_is_json() {
        for rules in [crate::kohya::RULES, crate::onetrainer::RULES, crate::diffusion_pipe::RULES] {
            let all: Vec<&Rule> = rules.iter().flat_map(|rules| rules.iter()).collect();
            for (i, rule) in all.iter().enumerate() {
                assert!(all[..i].iter().all(|other| other.key != rule.key), "{} is there twice", rule.key);
                let default = rule.usual.is_empty() || serde_json::from_str::<Value>(rule.usual).is_ok();
                assert!(default, "the default of {} is {}", rule.key, rule.usual);
                assert_eq!(rule.takes.read(&rule.default()), Ok(rule.default()), "{}", rule.key);
            }
        }
    }

    #[test]
    fn a_slip_finds_its_word() {
        let all = ["learning_rate", "network_dim", "seed"];
        assert_eq!(nearest("learning_rte", all.into_iter()), Some("learning_rate"));
        assert_eq!(nearest("sed", all.into_iter()), Some("seed"));
        assert_eq!(nearest("colour", all.into_iter()), None);
    }
}
