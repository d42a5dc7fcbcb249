//! A resolved recipe as text: saved with checkpoints and in the headers of weight files, so that a run can be made again
//! without the layers that it came from.

use serde_json::{Map, Value};
use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table};

use super::resolve::Resolved;

impl Resolved {
    /// The whole recipe in TOML, every default filled in; resolves to the same recipe.
    pub fn to_toml(&self) -> String {
        toml(&self.tables())
    }

    /// The whole recipe with folders cut down to their last name: for files that are given away, where whole paths
    /// would tell about the machine that made them.
    pub fn portable_toml(&self) -> String {
        fn cut(value: &mut Value) {
            match value {
                Value::Object(map) => map.values_mut().for_each(cut),
                Value::Array(items) => items.iter_mut().for_each(cut),
                Value::String(text) => {
                    let path = std::path::Path::new(text.as_str());
                    if let (true, Some(name)) = (path.is_absolute(), path.file_name()) {
                        *text = name.to_string_lossy().into_owned();
                    }
                }
                _ => {}
            }
        }
        let mut tables = self.tables();
        for table in ["model", "data", "output"] {
            tables.get_mut(table).into_iter().for_each(cut);
        }
        tables.get_mut("preview").and_then(|preview| preview.get_mut("autoencoder")).into_iter().for_each(cut);
        for field in ["adapter_from", "token"] {
            tables.get_mut("train").and_then(|train| train.get_mut(field)).into_iter().for_each(cut);
        }
        toml(&tables)
    }

    /// The whole recipe as plain tables.
    pub fn tables(&self) -> Map<String, Value> {
        match serde_json::to_value(&self.recipe) {
            Ok(Value::Object(map)) => map,
            _ => unreachable!("a recipe is made of tables with string keys"),
        }
    }
}

fn toml(tables: &Map<String, Value>) -> String {
    let mut document = DocumentMut::new();
    for (name, value) in tables {
        document.insert(name, item(value));
    }
    document.to_string()
}

/// A table for an object, `[[…]]` for a list of objects; within them everything is written in one line.
fn item(value: &Value) -> Item {
    let Value::Object(map) = value else { return inline(value).map_or(Item::None, Item::Value) };
    let mut table = Table::new();
    let (tables, values): (Vec<_>, Vec<_>) = map.iter().partition(|(_, v)| is_list_of_tables(v));
    for (name, value) in values {
        if let Some(value) = inline(value) {
            table.insert(name, Item::Value(value));
        }
    }
    for (name, value) in tables {
        let items = value.as_array().into_iter().flatten();
        let list: ArrayOfTables = items.filter_map(|v| item(v).into_table().ok()).collect();
        table.insert(name, Item::ArrayOfTables(list));
    }
    Item::Table(table)
}

fn is_list_of_tables(value: &Value) -> bool {
    // Objects of one field read better in one line: `[{ type = "peft" }]`.
    let long = |v: &Value| v.as_object().is_some_and(|map| map.len() > 1);
    value.as_array().is_some_and(|a| a.iter().all(Value::is_object) && a.iter().any(long))
}

fn inline(value: &Value) -> Option<toml_edit::Value> {
    Some(match value {
        // TOML has no null: a field without a value is left out.
        Value::Null => return None,
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => match n.as_i64() {
            Some(i) => i.into(),
            None => n.as_f64()?.into(),
        },
        Value::String(s) => s.as_str().into(),
        Value::Array(items) => items.iter().filter_map(inline).collect::<Array>().into(),
        Value::Object(map) => {
            map.iter().filter_map(|(name, v)| Some((name.as_str(), inline(v)?))).collect::<InlineTable>().into()
        }
    })
}
