//! What the tests share: recipes as data, and a check against the schema.
//!
//! The check knows as much of JSON Schema as `configs/schema.json` uses, so that the tests need no validator with its
//! hundred dependencies.

use std::path::Path;

use sconce_migrate::{Error, Migration, migrate};
use serde_json::Value;

/// What in `value` the schema forbids: paths and reasons.
pub fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut fail = |why: String| all.push(format!("{at}: {why}"));
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).expect("a reference points somewhere");
        return faults(root, target, value, at);
    }
    if let Some(kinds) = schema.get("type") {
        let kinds: Vec<&str> = kinds
            .as_array()
            .map_or_else(|| kinds.as_str().into_iter().collect(), |k| k.iter().filter_map(Value::as_str).collect());
        if !kinds.iter().any(|kind| is(value, kind)) {
            fail(format!("{value} is not {kinds:?}"));
        }
    }
    if schema.get("const").is_some_and(|c| c != value) {
        fail(format!("{value} is not {}", schema["const"]));
    }
    if schema.get("enum").and_then(Value::as_array).is_some_and(|all| !all.contains(value)) {
        fail(format!("{value} is none of {}", schema["enum"]));
    }
    if let (Some(least), Some(x)) = (schema["minimum"].as_f64(), value.as_f64())
        && x < least
    {
        fail(format!("{x} is below {least}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            fail(format!("has no `{name}`"));
        }
    }
    if schema.get("not").is_some_and(|not| faults(root, not, value, at).is_empty()) {
        fail("is what it must not be".into());
    }
    for (kind, least, most) in [("anyOf", 1, usize::MAX), ("oneOf", 1, 1)] {
        let Some(options) = schema.get(kind).and_then(Value::as_array) else { continue };
        let tried: Vec<Vec<String>> = options.iter().map(|o| faults(root, o, value, at)).collect();
        let fit = tried.iter().filter(|f| f.is_empty()).count();
        if fit < least || fit > most {
            let best = tried.iter().filter(|f| !f.is_empty()).min_by_key(|f| f.len());
            fail(format!("fits {fit} of the options ({kind}), the nearest: {best:?}"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        let path = format!("{at}.{key}");
        match (schema["properties"].get(key), schema.get("additionalProperties")) {
            (Some(own), _) => all.extend(faults(root, own, inner, &path)),
            (None, Some(Value::Bool(false))) => all.push(format!("{path}: there is no such field")),
            (None, Some(other)) => all.extend(faults(root, other, inner, &path)),
            (None, None) => {}
        }
    }
    for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(items) = schema.get("items") {
            all.extend(faults(root, items, inner, &format!("{at}[{i}]")));
        }
    }
    all
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        _ => false,
    }
}

/// A recipe as data.
pub fn data(recipe: &str) -> Value {
    fn table<'a>(pairs: impl Iterator<Item = (&'a str, Value)>) -> Value {
        pairs.map(|(k, v)| (k.to_owned(), v)).collect::<serde_json::Map<_, _>>().into()
    }
    fn item(of: &toml_edit::Item) -> Value {
        match of {
            toml_edit::Item::None => Value::Null,
            toml_edit::Item::Table(t) => table(t.iter().map(|(k, v)| (k, item(v)))),
            toml_edit::Item::ArrayOfTables(a) => a.iter().map(|t| item(&toml_edit::Item::Table(t.clone()))).collect(),
            toml_edit::Item::Value(v) => plain(v),
        }
    }
    fn plain(v: &toml_edit::Value) -> Value {
        match v {
            toml_edit::Value::String(s) => s.value().clone().into(),
            toml_edit::Value::Integer(i) => (*i.value()).into(),
            toml_edit::Value::Float(x) => (*x.value()).into(),
            toml_edit::Value::Boolean(b) => (*b.value()).into(),
            toml_edit::Value::Datetime(d) => d.value().to_string().into(),
            toml_edit::Value::Array(a) => a.iter().map(plain).collect(),
            toml_edit::Value::InlineTable(t) => table(t.iter().map(|(k, v)| (k, plain(v)))),
        }
    }
    let document: toml_edit::DocumentMut = recipe.parse().unwrap_or_else(|e| panic!("{e}\n{recipe}"));
    item(document.as_item())
}

/// Migrates a text that names no other file.
pub fn alone(text: &str) -> Result<Migration, Error> {
    migrate(text, &mut |_, _| Err("there is no such file".into()))
}

/// The recipe of a text, as data that fits the schema.
pub fn recipe(text: &str) -> Value {
    let migration = alone(text).unwrap_or_else(|e| panic!("{e}"));
    let (recipe, schema) = (data(&migration.recipe), schema());
    let faults = faults(&schema, &schema, &recipe, "recipe");
    assert!(faults.is_empty(), "{faults:?}\n{}", migration.recipe);
    recipe
}

/// What came of a field.
pub fn verdict(text: &str, field: &str) -> String {
    let report = alone(text).unwrap_or_else(|e| panic!("{e}")).report;
    let entry = report.entries.iter().find(|e| e.field == field);
    entry.unwrap_or_else(|| panic!("{field} is not in\n{report}")).verdict.to_string()
}

/// True if the report warns in these words.
pub fn warns(text: &str, words: &str) -> bool {
    alone(text).unwrap_or_else(|e| panic!("{e}")).report.warnings.iter().any(|w| w.contains(words))
}

/// The committed schema.
pub fn schema() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/schema.json");
    let text = std::fs::read_to_string(file).expect("the schema is committed");
    serde_json::from_str(&text).expect("the schema is JSON")
}
