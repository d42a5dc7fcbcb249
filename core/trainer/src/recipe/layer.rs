//! Layers: where values come from, lowest first. figment merges them; this module turns each source into one, and takes
//! out of the lower layers what a higher one replaces as a whole.

use std::collections::BTreeMap;

use figment::value::{Dict, Map as Profiles};
use figment::{Figment, Metadata, Profile, Provider};
use sconce_sdk::{ParamError, registry};
use serde_json::{Map, Value};

pub(super) use super::document::join;
use super::document::{Document, Mark, Position, Syntax};
use super::error::{Fault, Origin};

/// Tables that a recipe may leave out; `false` takes away one that a lower layer has.
pub(super) const OPTIONAL: [&str; 4] = ["backbone", "adapter", "validation", "preview"];

/// Tables that name a plugin; a plain string there is the plugin with its defaults.
pub(super) const PLUGINS: [&str; 11] = [
    "backbone",
    "schedule",
    "objective",
    "weighting",
    "timesteps",
    "distance",
    "noise",
    "ema",
    "adapter",
    "optimizer",
    "lr",
];

/// One source of values.
pub(super) struct Layer {
    /// The origin of what has no position of its own.
    pub origin: Origin,
    /// The tables.
    pub value: Map<String, Value>,
    marks: BTreeMap<String, Mark>,
    /// Origins by path, where they differ within the layer.
    pub origins: BTreeMap<String, Origin>,
}

impl Layer {
    /// From tables without positions.
    pub fn plain(origin: Origin, value: Map<String, Value>) -> Self {
        Self { origin, value, marks: BTreeMap::new(), origins: BTreeMap::new() }.normal()
    }

    /// From a recipe's text.
    pub fn text(file: &str, text: &str, syntax: Syntax) -> Result<Self, Fault> {
        let Document { value, marks } = Document::parse(file, text, syntax)?;
        let origin = Origin::File { file: file.to_owned(), at: None };
        Ok(Self { origin, value, marks, origins: BTreeMap::new() }.normal())
    }

    /// From `a.b=c`: c is a TOML value, or a plain string where it is none.
    pub fn assignment(origin: Origin, path: &str, text: &str) -> Result<Self, Fault> {
        if path.is_empty() || path.split('.').any(|s| s.trim().is_empty()) {
            let error = ParamError::new("not a field's path").help("write --set table.field=value");
            return Err(Fault::new(origin, path, error));
        }
        let value = inline(text).unwrap_or_else(|_| Value::String(text.to_owned()));
        let nested = path
            .rsplit('.')
            .fold(value, |value, name| Value::Object(Map::from_iter([(name.trim().to_owned(), value)])));
        let Value::Object(value) = nested else { unreachable!("a path has a segment") };
        Ok(Self::plain(origin, value))
    }

    /// `schedule = "cosine"` becomes `schedule = { type = "cosine" }`, and an alias the name, so that layers that mean one
    /// plugin merge.
    fn normal(mut self) -> Self {
        let spell_out = |table: &mut Map<String, Value>, kinds: &[&str]| {
            for kind in kinds {
                let Some(value) = table.get_mut(*kind) else { continue };
                if value.is_string() {
                    *value = Value::Object(Map::from_iter([("type".to_owned(), value.take())]));
                }
                if let Some(name) = value.get("type").and_then(Value::as_str)
                    && let Ok(plugin) = registry::find(kind, name)
                {
                    value["type"] = Value::String(plugin.name.to_owned());
                }
            }
        };
        spell_out(&mut self.value, &PLUGINS);
        if let Some(Value::Object(sampling)) = self.value.get_mut("sampling") {
            spell_out(sampling, &["solver", "spacing"]);
        }
        self
    }

    /// The value at a dotted path.
    pub fn get(&self, path: &str) -> Option<&Value> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(a, b)| (a, Some(b)));
        rest.into_iter().flat_map(|r| r.split('.')).try_fold(self.value.get(first)?, |value, name| match value {
            Value::Object(map) => map.get(name),
            Value::Array(items) => items.get(name.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Where the field at a path was written: its name, or its value.
    pub fn origin_of(&self, path: &str, part: fn(&Mark) -> Position) -> Origin {
        if let (Origin::File { file, .. }, Some(mark)) = (&self.origin, self.marks.get(path)) {
            return Origin::File { file: file.clone(), at: Some(part(mark)) };
        }
        let named = std::iter::successors(Some(path), |p| p.rsplit_once('.').map(|(head, _)| head));
        named.filter_map(|p| self.origins.get(p)).next().unwrap_or(&self.origin).clone()
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> figment::error::Result<Profiles<Profile, Dict>> {
        let value = figment::value::Value::serialize(&self.value)?;
        Ok(Profile::Default.collect(value.into_dict().unwrap_or_default()))
    }
}

/// One TOML value: `5`, `"text"`, `{ type = "karras" }`.
pub fn inline(text: &str) -> Result<Value, Fault> {
    let mut document = Document::parse(text, &format!("v = {text}"), Syntax::Toml)?;
    let value = document.value.remove("v").filter(|_| document.value.is_empty());
    value.ok_or_else(|| Fault::syntax(text, None, "is not one TOML value"))
}

/// Merges layers, lowest first. Tables are merged field by field, but one whose `type` is another plugin's replaces
/// what is below it: the fields of one schedule mean nothing to another.
pub(super) fn merge(layers: &mut [Layer]) -> Result<Map<String, Value>, Fault> {
    for upper in 1..layers.len() {
        let (below, rest) = layers.split_at_mut(upper);
        fill_lists(&mut rest[0], below);
        for lower in below {
            prune(&mut lower.value, &rest[0].value);
        }
    }
    let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
    let mut merged: Map<String, Value> = figment
        .extract()
        .map_err(|e| Fault::new(Origin::Default("layering".into()), "", ParamError::new(e.to_string())))?;
    for table in OPTIONAL {
        if merged.get(table) == Some(&Value::Bool(false)) {
            merged.remove(table);
        }
    }
    Ok(merged)
}

/// `--set data.source.0.path=x` changes one item of a list: the rest of the list comes from the layers below.
fn fill_lists(upper: &mut Layer, below: &[Layer]) {
    let mut indexed = Vec::new();
    tables("", &upper.value, &mut |path, map| {
        if !map.is_empty() && map.keys().all(|k| k.parse::<usize>().is_ok()) {
            indexed.push((path.to_owned(), map.clone()));
        }
    });
    for (path, changes) in indexed {
        let lower = below.iter().rev().find(|l| l.get(&path).is_some_and(Value::is_array));
        let Some(lower) = lower else {
            // A list of its own, where its items are counted from 0.
            let in_order = (0..changes.len()).map(|i| changes.get(&i.to_string()).cloned());
            if let Some(items) = in_order.collect::<Option<Vec<Value>>>() {
                replace(&mut upper.value, &path, Value::Array(items));
            }
            continue;
        };
        let Some(Value::Array(mut items)) = lower.get(&path).cloned() else { continue };
        let mut copied = Vec::new();
        leaves(&path, &Value::Array(items.clone()), &mut |leaf| copied.push(leaf.to_owned()));
        for (index, change) in changes {
            let Some(item) = index.parse().ok().and_then(|i: usize| items.get_mut(i)) else { continue };
            leaves(&join(&path, &index), &change, &mut |leaf| copied.retain(|c| c != leaf));
            overlay(item, change);
        }
        for leaf in copied {
            let origin = lower.origin_of(&leaf, |m| m.value);
            upper.origins.insert(leaf, origin);
        }
        replace(&mut upper.value, &path, Value::Array(items));
    }
}

/// Puts a value in the place of the one at a path that is there.
fn replace(tables: &mut Map<String, Value>, path: &str, value: Value) {
    let (outer, name) = path.rsplit_once('.').map_or((None, path), |(a, b)| (Some(a), b));
    let table = outer
        .into_iter()
        .flat_map(|o| o.split('.'))
        .try_fold(tables, |map, name| map.get_mut(name).and_then(Value::as_object_mut));
    if let Some(table) = table {
        table.insert(name.to_owned(), value);
    }
}

fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(low), Value::Object(high)) => {
            for (name, value) in high {
                match low.get_mut(&name) {
                    Some(old) => overlay(old, value),
                    None => drop(low.insert(name, value)),
                }
            }
        }
        (low, high) => *low = high,
    }
}

/// Every table in a table, with its path.
fn tables(path: &str, map: &Map<String, Value>, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
    for (name, value) in map {
        if let Value::Object(inner) = value {
            let path = join(path, name);
            visit(&path, inner);
            tables(&path, inner, visit);
        }
    }
}

fn prune(lower: &mut Map<String, Value>, upper: &Map<String, Value>) {
    lower.retain(|name, low| match (low, upper.get(name)) {
        (Value::Object(low), Some(Value::Object(high))) => {
            let replaced = matches!((low.get("type"), high.get("type")), (Some(a), Some(b)) if a != b);
            if !replaced {
                prune(low, high);
            }
            !replaced
        }
        (_, other) => other.is_none(),
    });
}

/// The recipe's fields among environment variables: `SCONCE_TRAIN__IMAGES=1000` is `train.images = 1000`. Two
/// underscores part table and field, so variables without them are not the recipe's.
pub(super) fn environment(variables: impl Iterator<Item = (String, String)>) -> Result<Vec<Layer>, Fault> {
    let mut fields: Vec<(String, String)> =
        variables.filter(|(name, _)| name.starts_with("SCONCE_") && name.contains("__")).collect();
    fields.sort();
    fields
        .into_iter()
        .map(|(name, text)| {
            let path = name["SCONCE_".len()..].to_lowercase().replace("__", ".");
            Layer::assignment(Origin::Environment(name), &path, &text)
        })
        .collect()
}

/// Where the field at `path` comes from: the highest layer that has it, or else has the table around it.
pub(super) fn locate(layers: &[Layer], path: &str, part: fn(&Mark) -> Position) -> Option<Origin> {
    let outwards = std::iter::successors(Some(path), |p| p.rsplit_once('.').map(|(head, _)| head));
    outwards
        .filter(|p| !p.is_empty())
        .find_map(|p| layers.iter().rev().find(|l| l.get(p).is_some()).map(|l| l.origin_of(p, part)))
}

/// Every leaf's path in a value.
pub(super) fn leaves(path: &str, value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => {
            items.iter().enumerate().for_each(|(i, value)| leaves(&join(path, &i.to_string()), value, visit));
        }
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(name, value)| leaves(&join(path, name), value, visit));
        }
        _ => visit(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn layer(value: Value) -> Layer {
        let Value::Object(map) = value else { panic!("a table") };
        Layer::plain(Origin::Default("test".into()), map)
    }

    #[test]
    fn another_type_replaces_and_the_same_type_merges() {
        let low = json!({"schedule": {"type": "scaled-linear", "beta_start": 0.1}, "adapter": {"type": "lora"}});
        let other = json!({"schedule": {"type": "zero-terminal", "of": {"type": "cosine"}}, "adapter": false});
        let same = json!({"schedule": {"type": "scaled-linear", "beta_end": 0.2}});
        let replaced = merge(&mut [layer(low.clone()), layer(other.clone())]).expect("merges");
        assert_eq!(Value::Object(replaced), json!({"schedule": other["schedule"]}));
        let merged = merge(&mut [layer(low.clone()), layer(same.clone())]).expect("merges");
        assert_eq!(merged["schedule"], json!({"type": "scaled-linear", "beta_start": 0.1, "beta_end": 0.2}));
        let back = merge(&mut [layer(low), layer(other), layer(same)]).expect("merges");
        assert_eq!(back["schedule"], json!({"type": "scaled-linear", "beta_end": 0.2}), "nothing of the first leaks");
        let short = merge(&mut [layer(json!({"schedule": "cosine"}))]).expect("merges");
        assert_eq!(short["schedule"], json!({"type": "cosine"}));
    }

    #[test]
    fn one_item_of_a_list_can_be_set() {
        let text = "[[data.source]]\npath = 'a'\nrepeats = 2\n[[data.source]]\npath = 'b'\n";
        let file = Layer::text("r.toml", text, Syntax::Toml).expect("parses");
        let set = Layer::assignment(Origin::Set("s".into()), "data.source.0.path", "c").expect("a path");
        let mut layers = [file, set];
        let merged = merge(&mut layers).expect("merges");
        assert_eq!(merged["data"]["source"], json!([{"path": "c", "repeats": 2}, {"path": "b"}]));
        let origin = |path| locate(&layers, path, |m| m.value).expect("located").to_string();
        assert_eq!(origin("data.source.0.path"), "--set s");
        assert_eq!(origin("data.source.0.repeats"), "r.toml:3:11");
        assert_eq!(origin("data.source.1.path"), "r.toml:5:8");
    }

    #[test]
    fn assignments_and_variables_are_toml_or_text() {
        let set = |p, t| Layer::assignment(Origin::Set(String::new()), p, t).expect("a path").value;
        assert_eq!(Value::Object(set("train.images", "1_000")), json!({"train": {"images": 1000}}));
        assert_eq!(Value::Object(set("model.path", "a b")), json!({"model": {"path": "a b"}}));
        assert_eq!(Value::Object(set("preview.prompts", "[\"x\"]")), json!({"preview": {"prompts": ["x"]}}));
        let variables = [("SCONCE_TRAIN__IMAGES", "7"), ("SCONCE_UPDATE", "1"), ("OTHER__A", "1")];
        let layers = environment(variables.iter().map(|(a, b)| (a.to_string(), b.to_string()))).expect("good");
        assert_eq!(layers.len(), 1);
        assert_eq!(layers[0].get("train.images"), Some(&json!(7)));
    }
}
