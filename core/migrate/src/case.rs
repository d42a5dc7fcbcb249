//! A configuration on its way to a recipe: what a rule sees of it, and what a rule can do. Who asks the rules is `engine.rs`.

mod engine;

use std::collections::HashMap;

use serde_json::Value;

use crate::draft::Draft;
use crate::family::Family;
use crate::report::Verdict;
use crate::rule::{Field, Rule};
use crate::value::{Takes, shown};
use crate::{Error, Program};

/// Fields of a configuration; more are no honest one.
const MOST: usize = 20_000;

/// A configuration on its way to a recipe.
pub(crate) struct Case {
    /// Whose it is.
    pub program: Program,
    rules: &'static [&'static [Rule]],
    fields: Vec<Field>,
    /// Where each name is in `fields`, the one that counts last.
    places: HashMap<String, usize>,
    /// The recipe.
    pub draft: Draft,
    /// What the report warns of.
    pub warnings: Vec<String>,
    /// The model's family.
    pub family: Family,
    /// Folders of pictures.
    pub folders: usize,
    /// Pictures in a batch, and batches in an update.
    pub batch: f64,
    /// Batches in an update.
    pub accumulate: f64,
    /// The side of a square picture, in pixels.
    pub side_px: f64,
    /// The checkpoint is FLUX.1-schnell, by its name.
    pub schnell: bool,
    /// What is trained.
    pub learns: Learns,
    /// The pictures' own file could not be read, so that nothing of theirs is known, defaults included.
    pub unread: bool,
    /// The field whose rule runs.
    from: String,
    /// That field is one that the configuration does not say.
    assumed: bool,
}

/// What a run trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Learns {
    /// The model's own weights.
    #[default]
    Whole,
    /// An adapter.
    Adapter,
    /// A word: textual inversion.
    Word,
}

impl Case {
    /// A configuration of a program with these rules. Values become what their rules take.
    pub fn new(program: Program, rules: &'static [&'static [Rule]], fields: Vec<Field>) -> Result<Self, Error> {
        if fields.len() > MOST {
            return Err(Error::TooMany { what: "fields", limit: MOST });
        }
        let mut case = Self {
            program,
            rules,
            fields,
            places: HashMap::new(),
            draft: Draft::default(),
            warnings: Vec::new(),
            family: Family::default(),
            folders: 0,
            batch: 1.0,
            accumulate: 1.0,
            side_px: 512.0,
            schnell: false,
            learns: Learns::default(),
            unread: false,
            assumed: false,
            from: String::new(),
        };
        for i in 0..case.fields.len() {
            let field = &case.fields[i];
            let (takes, key) = (case.rule(&field.key).map_or(Takes::Any, |r| r.takes), field.key.clone());
            let value = takes.read(&field.value).map_err(|expected| Error::Wrong {
                field: field.shown.clone(),
                expected,
                found: shown(&field.value),
            })?;
            case.fields[i].value = value;
            let before = case.places.get(&key).is_some_and(|&j| case.fields[j].rank > case.fields[i].rank);
            if !before {
                case.places.insert(key, i);
            }
        }
        Ok(case)
    }

    fn rule(&self, key: &str) -> Option<&'static Rule> {
        let all = || self.rules.iter().flat_map(|rules| rules.iter());
        all().find(|r| r.key == key).or_else(|| all().find(|r| r.fits(key)))
    }

    /// The field of this name that counts, where there is one that says something.
    pub fn given(&self, key: &str) -> Option<&Field> {
        self.places.get(key).map(|&i| &self.fields[i]).filter(|f| !f.value.is_null())
    }

    /// A field's value, or the program's default.
    pub fn value(&self, key: &str) -> Value {
        let default = || self.rule(key).map_or(Value::Null, Rule::default);
        self.given(key).map_or_else(default, |f| f.value.clone())
    }

    /// A field as a number.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.value(key).as_f64()
    }

    /// A field as a text, empty where there is none.
    pub fn text(&self, key: &str) -> String {
        self.value(key).as_str().unwrap_or_default().to_owned()
    }

    /// A field as a flag.
    pub fn flag(&self, key: &str) -> bool {
        self.value(key).as_bool().unwrap_or_default()
    }

    /// Every field of a name.
    pub fn all(&self, key: &str) -> Vec<Field> {
        self.fields.iter().filter(|f| f.key == key).cloned().collect()
    }

    /// Sets a field of the recipe, from the field whose rule runs.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let from = self.from.clone();
        self.draft.set(path, value.into(), from);
    }

    /// [`Case::set`], with the reason.
    pub fn set_as(&mut self, path: &str, value: impl Into<Value>, why: &str) {
        self.draft.set(path, value.into(), why);
    }

    /// Sets a table of the recipe whole, in place of what it was; the reason stands at its first line.
    pub fn table(&mut self, table: &str, fields: &Value, why: &str) {
        self.draft.clear(table);
        for (i, (key, value)) in fields.as_object().into_iter().flatten().enumerate() {
            self.draft.set(&format!("{table}.{key}"), value.clone(), if i == 0 { why } else { "" });
        }
    }

    /// Adds an entry to a table within a table: `model.files`, `model.quantise`.
    pub fn entry_of(&mut self, path: &str, key: &str, value: impl Into<Value>) -> Verdict {
        let mut table = self.draft.get(path).and_then(Value::as_object).cloned().unwrap_or_default();
        table.insert(key.to_owned(), value.into());
        let before = self.draft.comment(path).filter(|c| !c.split(", ").any(|name| name == self.from));
        let from = before.map_or_else(|| self.from.clone(), |before| format!("{before}, {}", self.from));
        self.draft.set(path, table.into(), from);
        Verdict::went(format!("{path}.{key}"))
    }

    /// Sets a field of the pictures' folders that the input's field is about.
    pub fn source(&mut self, field: &Field, key: &str, value: impl Into<Value>) -> Verdict {
        let value = value.into();
        let about = field.sources.clone().unwrap_or(0..self.folders);
        if about.is_empty() || (self.assumed && self.unread) {
            return Verdict::no_need("the folder is left out");
        }
        for i in about {
            self.set(&format!("data.source.{i}.{key}"), value.clone());
        }
        Verdict::went(format!("data.source.{key}"))
    }

    /// Warns, once.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// Pictures in so many updates.
    pub fn images(&self, updates: f64) -> u64 {
        // What no run reaches is cut to what a recipe can say.
        (updates * self.batch * self.accumulate).round().clamp(0.0, 1e15) as u64
    }

    /// How [`Case::images`] came to be: "400 x 4 x 2".
    pub fn product(&self, updates: f64) -> String {
        let factors = [updates, self.batch, self.accumulate].map(|x| x.to_string());
        let used = if self.accumulate == 1.0 { &factors[..2] } else { &factors[..] };
        format!("{}: {}", self.from, used.join(" x "))
    }
}
