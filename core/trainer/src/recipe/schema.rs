//! The JSON Schema of a recipe, for editors: the plain tables from their types, the plugins from the registry.

use std::collections::BTreeMap;

use schemars::schema_for;
use sconce_sdk::{Kind, ParamError, Plugin, registry};
use serde_json::{Map, Value, json};

use super::layer::OPTIONAL;
use super::native;
use super::shape::{self, Editor, Way};
use super::tables::Recipe;
use crate::architecture::Architecture;

/// The schema of everything that a recipe may say. Nothing is required, since a lower layer may have said it.
pub fn schema(editor: Editor) -> Result<Value, ParamError> {
    let mut root = schema_for!(Recipe).to_value();
    let mut kinds: BTreeMap<&str, Vec<&Plugin>> = BTreeMap::new();
    for plugin in registry::all()? {
        kinds.entry(plugin.kind).or_default().push(plugin);
    }
    let mut definitions = Map::new();
    if let Some(Value::Object(tables)) = root.get_mut("$defs").map(Value::take) {
        definitions.extend(tables);
    }
    for (kind, plugins) in kinds {
        let ways = plugins.iter().map(|plugin| way(plugin, &mut definitions)).collect();
        let usual = native::DEFAULTS.iter().find(|(table, _)| *table == kind).map(|(_, name)| *name);
        shape::choice(kind, plugins[0].about, usual, ways, &mut definitions);
    }
    // None may be linked in: it is whatever a library has.
    definitions.entry(<dyn Architecture>::NAME).or_insert_with(|| {
        let name = json!({ "description": "The plugin, by its name.", "type": "string" });
        json!({ "description": <dyn Architecture>::ABOUT, "type": ["object", "string"], "properties": { "type": name } })
    });
    for table in definitions.values_mut().filter(|d| d.get("properties").is_some()) {
        table.as_object_mut().and_then(|t| t.remove("required"));
    }
    let map = root.as_object_mut().expect("a struct's schema is an object");
    map.remove("required");
    let fields = map.get_mut("properties").and_then(Value::as_object_mut).expect("a struct has properties");
    for name in OPTIONAL {
        if let Some(field) = fields.get_mut(name).map(Value::take) {
            let description = field.get("description").cloned().unwrap_or_default();
            let away = json!({ "description": "Takes away the table of a lower layer.", "const": false });
            fields.insert(name.to_owned(), json!({ "description": description, "anyOf": [field, away] }));
        }
    }
    let extends =
        json!({ "description": "The recipe below this one: a built-in one by name, or a file.", "type": "string" });
    fields.shift_insert(0, "extends".to_owned(), extends);
    map.insert("$defs".into(), Value::Object(definitions));
    shape::tidy(&mut root);
    shape::fit(&mut root, editor);
    Ok(root)
}

/// One plugin's table; its own definitions move to the root under its name.
fn way(plugin: &Plugin, definitions: &mut Map<String, Value>) -> Way {
    let mut schema = (plugin.schema)().to_value();
    let map = schema.as_object_mut().expect("a parameter struct's schema is an object");
    map.remove("$schema");
    if let Some(Value::Object(own)) = map.remove("$defs") {
        let moved = |name: &str| format!("{}-{}-{name}", plugin.kind, plugin.name);
        let known: Vec<String> = own.keys().cloned().collect();
        for (name, mut definition) in own {
            redirect(&mut definition, &known, &moved);
            definitions.insert(moved(&name), definition);
        }
        redirect(map.get_mut("properties").unwrap_or(&mut Value::Null), &known, &moved);
    }
    let names: Vec<String> = std::iter::once(&plugin.name).chain(plugin.aliases).map(ToString::to_string).collect();
    let fields =
        map.entry("properties").or_insert_with(|| json!({})).as_object_mut().expect("properties are an object");
    fields.shift_insert(0, "type".to_owned(), Value::Null);
    map.insert("title".into(), plugin.name.into());
    map.insert("additionalProperties".into(), false.into());
    Way { names, table: schema }
}

/// Points references to `#/$defs/NAME`, for the names given, at where they moved.
fn redirect(value: &mut Value, names: &[String], moved: &dyn Fn(&str) -> String) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/").filter(|n| names.iter().any(|own| own == n))
            {
                *target = format!("#/$defs/{}", moved(name));
            }
            map.values_mut().for_each(|v| redirect(v, names, moved));
        }
        Value::Array(items) => items.iter_mut().for_each(|v| redirect(v, names, moved)),
        _ => {}
    }
}
