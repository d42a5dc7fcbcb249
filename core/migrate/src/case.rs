//! One engine for every program: its table of rules says what each of its fields means, and the engine asks them in turn, for
//! the fields that are there and for those whose default the recipe must say. What a rule sees and does goes through a [`Case`].

use std::collections::HashMap;

use serde_json::Value;

use crate::draft::Draft;
use crate::family::Family;
use crate::place::{is_file, relative};
use crate::report::{Entry, Report, Verdict};
use crate::rule::{Does, Field, Rule, nearest};
use crate::value::{Takes, same, shown};
use crate::{Error, Migration, Program};

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

    /// True if a field says something about all folders of pictures; one that is not about folders is.
    fn everywhere(&self, key: &str) -> bool {
        let said = || self.fields.iter().filter(|f| f.key == key && !f.value.is_null());
        said().any(|f| f.sources.is_none())
            || (self.given(key).is_some()
                && (0..self.folders).all(|i| said().any(|f| f.sources.as_ref().is_some_and(|s| s.contains(&i)))))
    }

    /// Asks every rule. Gives what came of each field, in the order of the input.
    pub fn run(&mut self) -> Vec<Entry> {
        let mut order: Vec<usize> = (0..self.fields.len()).collect();
        order.sort_by_key(|&i| self.fields[i].rank);
        let absent = self.rules.iter().flat_map(|rules| rules.iter());
        self.assumed = true;
        for rule in absent.filter(|r| r.said && !self.everywhere(r.key)).collect::<Vec<_>>() {
            self.from = format!("{}, its default", rule.key);
            let field = Field::new(rule.key, rule.key, rule.default());
            self.apply(rule, &field);
        }
        self.assumed = false;
        let mut entries: Vec<Option<Entry>> = vec![None; self.fields.len()];
        for i in order {
            let field = self.fields[i].clone();
            self.from.clone_from(&field.shown);
            entries[i] = Some(self.told(i, &field));
        }
        entries.into_iter().flatten().collect()
    }

    fn told(&mut self, i: usize, field: &Field) -> Entry {
        let Some(rule) = self.rule(&field.key) else {
            let keys = self.rules.iter().flat_map(|rules| rules.iter().map(|r| r.key));
            let last = field.key.rsplit('.').next().unwrap_or_default();
            let secret = ["key", "token", "secret", "password"].iter().any(|w| last.ends_with(w));
            let value = if secret { "…".to_owned() } else { shown(&field.value) };
            let verdict = Verdict::Unknown(nearest(&field.key, keys).map(str::to_owned));
            return Entry { field: field.shown.clone(), value, verdict };
        };
        let value = if matches!(rule.does, Does::Secret(_)) { "…".to_owned() } else { shown(&field.value) };
        let counts = self.places.get(&field.key).copied().unwrap_or(i);
        let over = &self.fields[counts];
        let verdict = match over.sources == field.sources && over.rank > field.rank && field.sources.is_none() {
            true => Verdict::Overruled(over.shown.clone()),
            false => self.apply(rule, field),
        };
        let usual = field.value.is_null() || (!rule.usual.is_empty() && same(&rule.default(), &field.value));
        let usual = usual || (rule.takes == Takes::Flag && rule.usual.is_empty() && !field.flag());
        let verdict = match verdict {
            Verdict::NoPlace(_) | Verdict::NoNeed(_) if usual => Verdict::Default,
            other => other,
        };
        Entry { field: field.shown.clone(), value, verdict }
    }

    fn apply(&mut self, rule: &Rule, field: &Field) -> Verdict {
        match rule.does {
            _ if field.value.is_null() => Verdict::Default,
            Does::To(path) => {
                self.set(path, field.value.clone());
                Verdict::went(path)
            }
            Does::By(f) => f(self, field),
            Does::No(why) => Verdict::no_place(why),
            Does::Not(why) | Does::Secret(why) => Verdict::no_need(why),
        }
    }

    /// The end: recipe and report, with what every recipe needs asked for.
    pub fn done(mut self, entries: Vec<Entry>) -> Migration {
        self.draft.ask("model.path", "a diffusers folder, a single file, or hf://owner/name");
        for i in 0..self.folders.max(1) {
            self.draft.ask(&format!("data.source.{i}.path"), "a folder of pictures, each with a .txt of its name");
        }
        self.draft.ask("optimizer.type", "sconce list optimizer");
        let said = |path: &str| self.draft.get(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (model, pictures) = (said("model.path"), said("data.source.0.path"));
        if relative(&model) || relative(&pictures) {
            self.warn(
                "relative paths in a recipe are relative to the recipe's own folder, not to where the \
                 program is started",
            );
        }
        if self.draft.has("model.files") && !model.is_empty() && !is_file(&model) {
            self.warn(
                "model.files are beside a single file: where model.path is a folder, put a component in its \
                 place in there",
            );
        }
        let heading = format!(
            "From a configuration of {}, by `sconce migrate`, whose report says what came of each field. \
                 Comments name the fields that the values are from. Before a run: `sconce check`.",
            self.program
        );
        let (recipe, asked) = (self.draft.text(&heading), self.draft.asked());
        Migration { recipe, report: Report { program: self.program, entries, warnings: self.warnings, asked } }
    }
}
