//! One engine for every program: its table of rules says what each of its fields means, and the engine asks them in turn, for
//! the fields that are there and for those whose default the recipe must say. None is lost.

use serde_json::Value;

use super::Case;
use crate::Migration;
use crate::place::{is_file, relative};
use crate::report::{Entry, Report, Verdict};
use crate::rule::{Does, Field, Rule, nearest};
use crate::value::{Takes, same, shown};

impl Case {
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
        // Of one name the last counts, and the command line's before a file's; folders of pictures have their own.
        let both = over.sources.is_none() && field.sources.is_none();
        let verdict = match both && counts != i && over.rank >= field.rank {
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
