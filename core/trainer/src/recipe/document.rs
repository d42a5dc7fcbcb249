//! The text of a recipe with its positions: TOML, YAML and JSON become one plain value, and every field keeps the line
//! and column it was written at, so that an error found much later can still point at it.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};
use serde_json::{Map, Number, Value};
use toml_edit::{Item, TableLike};

use super::error::Fault;

/// The syntax of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// `.toml`, and whatever has no other known ending.
    Toml,
    /// `.yaml`, `.yml`.
    Yaml,
    /// `.json`.
    Json,
}

impl Syntax {
    /// By a file name's ending.
    pub fn of(name: &str) -> Self {
        match name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).as_deref() {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            _ => Self::Toml,
        }
    }
}

/// A line and a column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Where a field was written.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Its name.
    pub key: Position,
    /// Its value.
    pub value: Position,
}

/// A parsed text.
#[derive(Debug, Default)]
pub struct Document {
    /// The tables.
    pub value: Map<String, Value>,
    /// Positions by dotted path, list items by their number: `data.source.0.path`.
    pub marks: BTreeMap<String, Mark>,
}

impl Document {
    /// Parses `text`, which errors call `file`.
    pub fn parse(file: &str, text: &str, syntax: Syntax) -> Result<Self, Fault> {
        let mut document = Self::default();
        match syntax {
            Syntax::Toml => {
                let toml = toml_edit::Document::parse(text).map_err(|e| {
                    let at = e.span().map(|s| position(text, s.start));
                    Fault::syntax(file, at, e.message())
                })?;
                document.value = document.toml_table("", toml.as_table(), text);
            }
            Syntax::Json => {
                // A recipe in JSON must be JSON: YAML, which marks the positions, allows more.
                serde_json::from_str::<Map<String, Value>>(text).map_err(|e| {
                    let at = Position { line: e.line().max(1), column: e.column().max(1) };
                    let message = e.to_string();
                    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(m, _)| m);
                    Fault::syntax(file, Some(at), message)
                })?;
                document.yaml(file, text)?;
            }
            Syntax::Yaml => document.yaml(file, text)?,
        }
        Ok(document)
    }

    fn toml_table(&mut self, path: &str, table: &dyn TableLike, text: &str) -> Map<String, Value> {
        let mut map = Map::new();
        for (name, item) in table.iter() {
            let path = join(path, name);
            let key = table.key(name).and_then(|k| k.span()).map(|s| position(text, s.start));
            let value = item.span().map(|s| position(text, s.start));
            if let Some((key, value)) = key.or(value).zip(value.or(key)) {
                self.marks.insert(path.clone(), Mark { key, value });
            }
            map.insert(name.to_owned(), self.toml_item(&path, item, text));
        }
        map
    }

    fn toml_item(&mut self, path: &str, item: &Item, text: &str) -> Value {
        match item {
            Item::None => Value::Null,
            Item::Value(value) => self.toml_value(path, value, text),
            Item::Table(table) => Value::Object(self.toml_table(path, table, text)),
            Item::ArrayOfTables(tables) => {
                let mut items = Vec::new();
                for (i, table) in tables.iter().enumerate() {
                    let path = join(path, &i.to_string());
                    if let Some(span) = table.span() {
                        let at = position(text, span.start);
                        self.marks.insert(path.clone(), Mark { key: at, value: at });
                    }
                    items.push(Value::Object(self.toml_table(&path, table, text)));
                }
                Value::Array(items)
            }
        }
    }

    fn toml_value(&mut self, path: &str, value: &toml_edit::Value, text: &str) -> Value {
        match value {
            toml_edit::Value::String(s) => s.value().as_str().into(),
            toml_edit::Value::Integer(i) => (*i.value()).into(),
            toml_edit::Value::Float(f) => (*f.value()).into(),
            toml_edit::Value::Boolean(b) => (*b.value()).into(),
            toml_edit::Value::Datetime(d) => d.value().to_string().into(),
            toml_edit::Value::InlineTable(table) => Value::Object(self.toml_table(path, table, text)),
            toml_edit::Value::Array(array) => {
                let mut items = Vec::new();
                for (i, item) in array.iter().enumerate() {
                    let path = join(path, &i.to_string());
                    if let Some(span) = item.span() {
                        let at = position(text, span.start);
                        self.marks.insert(path.clone(), Mark { key: at, value: at });
                    }
                    items.push(self.toml_value(&path, item, text));
                }
                Value::Array(items)
            }
        }
    }

    fn yaml(&mut self, file: &str, text: &str) -> Result<(), Fault> {
        let nodes =
            MarkedYaml::load_from_str(text).map_err(|e| Fault::syntax(file, Some(mark(e.marker())), e.info()))?;
        match nodes.as_slice() {
            [] => Ok(()),
            [node] => match self.yaml_node("", node) {
                Value::Object(map) => {
                    self.value = map;
                    Ok(())
                }
                Value::Null => Ok(()),
                _ => Err(Fault::syntax(file, Some(mark(&node.span.start)), "a recipe is a map of tables")),
            },
            [_, second, ..] => Err(Fault::syntax(
                file,
                Some(mark(&second.span.start)),
                "a recipe is one YAML document, here is another",
            )),
        }
    }

    fn yaml_node(&mut self, path: &str, node: &MarkedYaml) -> Value {
        match &node.data {
            YamlData::Value(scalar) => match scalar {
                Scalar::Null => Value::Null,
                Scalar::Boolean(b) => (*b).into(),
                Scalar::Integer(i) => (*i).into(),
                Scalar::FloatingPoint(f) => Number::from_f64(f.into_inner()).map_or(Value::Null, Value::Number),
                Scalar::String(s) => s.as_ref().into(),
            },
            YamlData::Sequence(items) => Value::Array(
                items
                    .iter()
                    .enumerate()
                    .map(|(i, item)| {
                        let path = join(path, &i.to_string());
                        let at = mark(&item.span.start);
                        self.marks.insert(path.clone(), Mark { key: at, value: at });
                        self.yaml_node(&path, item)
                    })
                    .collect(),
            ),
            YamlData::Mapping(map) => Value::Object(
                map.iter()
                    .map(|(key, item)| {
                        let name = match self.yaml_node("", key) {
                            Value::String(s) => s,
                            other => other.to_string(),
                        };
                        let path = join(path, &name);
                        let mark = Mark { key: mark(&key.span.start), value: mark(&item.span.start) };
                        self.marks.insert(path.clone(), mark);
                        (name, self.yaml_node(&path, item))
                    })
                    .collect(),
            ),
            YamlData::Tagged(_, node) => self.yaml_node(path, node),
            YamlData::Representation(text, ..) => text.as_ref().into(),
            YamlData::Alias(_) | YamlData::BadValue => Value::Null,
        }
    }
}

/// `a.b` from `a` and `b`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn position(text: &str, byte: usize) -> Position {
    let before = &text[..byte.min(text.len())];
    let line = before.rfind('\n').map_or(0, |n| n + 1);
    Position { line: before.matches('\n').count() + 1, column: before[line..].chars().count() + 1 }
}

fn mark(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_syntaxes_give_one_value_and_their_own_positions() {
        let toml = Document::parse("r.toml", "[train]\nimages = 10\n[schedule]\nof = { type = \"x\" }\n", Syntax::Toml);
        let yaml = Document::parse("r.yaml", "train:\n  images: 10\nschedule:\n  of: {type: x}\n", Syntax::Yaml);
        let json = "{\"train\": {\"images\": 10},\n \"schedule\": {\"of\": {\"type\": \"x\"}}}";
        let json = Document::parse("r.json", json, Syntax::Json);
        let [toml, yaml, json] = [toml, yaml, json].map(|d| d.expect("parses"));
        assert_eq!(toml.value, yaml.value);
        assert_eq!(toml.value, json.value);
        let at = |d: &Document| {
            let m = d.marks["schedule.of.type"];
            [m.key.line, m.key.column, m.value.line, m.value.column]
        };
        assert_eq!([at(&toml), at(&yaml), at(&json)], [[4, 8, 4, 15], [4, 8, 4, 14], [2, 22, 2, 30]]);
    }

    #[test]
    fn syntax_errors_have_positions() {
        let place = |text, syntax| Document::parse("r", text, syntax).expect_err("bad").to_string();
        assert!(
            place("a = 1\nb = = 2\n", Syntax::Toml).starts_with("r:2:"),
            "{}",
            place("a = 1\nb = = 2\n", Syntax::Toml)
        );
        assert!(place("{\"a\": 1,\n \"b\": }", Syntax::Json).starts_with("r:2:"));
        assert!(place("a: [1\nb: 2\n", Syntax::Yaml).starts_with("r:2:"));
    }
}
