//! The shape of the schema of recipes. A checker takes any; an editor that completes and explains does not. Taplo, which
//! is behind most editors of TOML, puts together all that `properties`, `anyOf` and `oneOf` list, whatever the file says,
//! sees nothing of `then` and `else`, and drops what stands beside a `$ref`. And of alternatives that all fail, every
//! checker tells no more than that. So here:
//!
//! - a choice of a plugin lists names and parameters once, with all that explains them, and has its rules in `then`, by
//!   `type`, where a fault is told by itself and at its place;
//! - words are an `enum` with a text for each, and not alternatives of one word each;
//! - what may be left out is a type more, and not an alternative;
//! - a definition moves to where it is used, but for plugins, which contain each other;
//! - what a plugin wraps is no list of its own, in which Taplo would go down from wrapper to wrapper.

mod editor;
mod tidy;

use serde_json::{Map, Value, json};

pub use self::editor::Editor;
pub(super) use self::editor::fit;
pub(super) use self::tidy::tidy;

/// A plugin: its names, the first of which is its own, and the schema of its table.
pub(super) struct Way {
    pub names: Vec<String>,
    pub table: Value,
}

/// Defines `kind`, a plugin by name or as a table, and what it is made of: `kind:own` and `kind:table` for editors,
/// `kind:names`, `kind:typed` and `kind:fields` for checkers, and `kind.NAME` for each plugin. `usual` is the plugin of
/// recipes that name none.
pub(super) fn choice(
    kind: &str,
    about: &str,
    usual: Option<&str>,
    mut ways: Vec<Way>,
    definitions: &mut Map<String, Value>,
) {
    let to = |part: &str| json!({ "$ref": format!("#/$defs/{kind}{part}") });
    for way in &mut ways {
        way.table["properties"]["type"] = json!({ "description": first_paragraph(&way.table), "enum": way.names });
    }
    let when = |way: &Way| {
        let names: Vec<Value> = way.names.iter().map(|name| json!({ "const": name })).collect();
        json!({ "if": { "properties": { "type": { "anyOf": names } } }, "then": to(&format!(".{}", way.names[0])) })
    };
    let rules: Vec<Value> = ways.iter().map(when).collect();
    let all = together(&ways);
    let own = own_names(&ways);
    let mut by_name = own.clone();
    by_name["x-taplo"]["docs"]["main"] = BY_NAME.into();
    by_name.extend(usual.map(|usual| ("default".to_owned(), usual.into())));
    let mut listed = Map::from_iter([("type".to_owned(), Value::Object(by_name))]);
    listed.extend(all.iter().map(|(name, field)| (name.clone(), only_listed(field))));
    let mut fields = Map::from_iter([("type".to_owned(), json!({ "description": BY_NAME }))]);
    fields.extend(all);
    let mut define = |part: &str, value: Value| definitions.insert(format!("{kind}{part}"), value);
    // `true` keeps the alternatives from failing: the fault is told by `then` or `else`.
    let alternatives = [to(":table"), to(":own"), true.into()];
    let checks = json!({
        "type": ["object", "string"], "anyOf": alternatives,
        "if": { "type": "string" }, "then": to(":names"), "else": to(":typed"),
    });
    define("", checks);
    define(":own", own.into());
    define(":names", named(&ways));
    define(
        ":table",
        json!({ "type": "object", "properties": listed, "x-taplo": { "docs": { "main": sentence(about) } } }),
    );
    let typed = json!({
        "if": { "type": "object", "required": ["type"] },
        "then": { "properties": { "type": to(":names") }, "allOf": rules },
        "else": to(":fields"),
    });
    define(":typed", typed);
    let lower = "Fields of the plugin that a lower layer chose.";
    define(":fields", json!({ "description": lower, "properties": fields, "additionalProperties": false }));
    for Way { names, table } in ways {
        define(&format!(".{}", names[0]), table);
    }
}

const BY_NAME: &str = "The plugin, by its name.";

/// A field that editors list where they see no rules: the others have it from there, with a text that fits.
fn only_listed(field: &Value) -> Value {
    let mut listed = json!({ "doNotSuggest": true });
    if let Value::Object(listed) = &mut listed {
        listed.extend(field.as_object().into_iter().flatten().map(|(word, value)| (word.clone(), value.clone())));
    }
    listed["x-taplo"]["docs"]["main"] = field["description"].clone();
    if let Some(kind) = listed.as_object_mut().and_then(|listed| listed.shift_remove("$ref")) {
        // What is beside `allOf` ends the list here; the second one is for a plugin by its name.
        listed["properties"] = json!({});
        listed["allOf"] = json!([{ "$ref": kind }, { "type": ["object", "string"], "x-taplo": listed["x-taplo"] }]);
    }
    listed
}

/// The names of all plugins, with what each is; other names come last.
fn named(ways: &[Way]) -> Value {
    let own = ways.iter().map(|way| (&way.names[0], first_paragraph(&way.table)));
    let others = ways
        .iter()
        .flat_map(|way| way.names[1..].iter().map(|name| (name, format!("Another name of `{}`.", way.names[0]))));
    let (names, texts): (Vec<_>, Vec<_>) = own.chain(others).unzip();
    words(names.into_iter().map(|name| json!(name)).collect(), texts).into()
}

/// The plugins' own names, in the order that Taplo makes theirs: it sorts by the digits of a word's number.
fn own_names(ways: &[Way]) -> Map<String, Value> {
    let mut places: Vec<usize> = (0..ways.len()).collect();
    places.sort_by_key(|place| place.to_string());
    let mut ordered: Vec<(usize, &Way)> = places.into_iter().zip(ways).collect();
    ordered.sort_by_key(|(place, _)| *place);
    let texts = ordered.iter().map(|(_, way)| first_paragraph(&way.table)).collect();
    words(ordered.iter().map(|(_, way)| json!(way.names[0])).collect(), texts)
}

/// The parameters of all plugins, each with what it is to whom.
fn together(ways: &[Way]) -> Map<String, Value> {
    let mut fields: Map<String, Value> = Map::new();
    for (name, field) in ways.iter().flat_map(|way| fields_of(&way.table)).filter(|(name, _)| *name != "type") {
        let known = fields.entry(name.clone()).or_insert_with(|| field.clone());
        if bare(known) != bare(field) {
            *known = match either(&known["type"], &field["type"]) {
                Value::Null => json!({}),
                both => json!({ "type": both }),
            };
        } else if known.get("default") != field.get("default") {
            known.as_object_mut().map(|known| known.shift_remove("default"));
        }
    }
    for (name, field) in &mut fields {
        let mut texts: Vec<(String, Vec<String>)> = Vec::new();
        for way in ways {
            let Some((_, own)) = fields_of(&way.table).find(|(own, _)| *own == name) else { continue };
            let text = own["description"].as_str().unwrap_or_default().to_owned();
            let user = format!("`{}`", way.names[0]);
            match texts.iter_mut().find(|(known, _)| *known == text) {
                Some((_, users)) => users.push(user),
                None => texts.push((text, vec![user])),
            }
        }
        let texts: Vec<String> = texts.iter().map(|(text, users)| format!("{}: {text}", users.join(", "))).collect();
        field["description"] = texts.join("\n\n").into();
    }
    fields
}

fn fields_of(table: &Value) -> impl Iterator<Item = (&String, &Value)> {
    table["properties"].as_object().into_iter().flatten()
}

/// A schema without what explains it.
fn bare(schema: &Value) -> Value {
    let mut bare = schema.clone();
    for word in ["description", "default"] {
        bare.as_object_mut().map(|map| map.shift_remove(word));
    }
    bare
}

/// The types of both; null where one has none.
fn either(one: &Value, other: &Value) -> Value {
    if one.is_null() || other.is_null() {
        return Value::Null;
    }
    let mut all = types(one);
    all.extend(types(other).into_iter().filter(|t| !types(one).contains(t)));
    if all.len() == 1 { all.remove(0) } else { all.into() }
}

fn types(of: &Value) -> Vec<Value> {
    of.as_array().cloned().unwrap_or_else(|| vec![of.clone()])
}

/// The sentences of the first paragraph of what explains a plugin.
fn first_paragraph(table: &Value) -> String {
    let text = table["description"].as_str().unwrap_or_default();
    let text = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    match text.rsplit_once(". ") {
        Some((sentences, rest)) if !rest.ends_with(['.', ')']) => format!("{sentences}."),
        _ => text,
    }
}

fn sentence(about: &str) -> String {
    let mut letters = about.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

/// An `enum`, with a text for each word in the keywords of the editors that have one.
fn words(words: Vec<Value>, texts: Vec<String>) -> Map<String, Value> {
    let docs = json!({ "docs": { "enumValues": texts } });
    let Value::Object(map) =
        json!({ "type": "string", "enum": words, "markdownEnumDescriptions": texts, "x-taplo": docs })
    else {
        unreachable!("an object is written above")
    };
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_listed_in_their_order_by_an_editor_that_sorts_by_digits() {
        let name = |i: usize| format!("plugin-{i:02}");
        let ways: Vec<Way> = (0..23).map(|i| Way { names: vec![name(i)], table: json!({}) }).collect();
        let own = own_names(&ways);
        let listed = own["enum"].as_array().expect("words").iter().enumerate();
        let mut sorted: Vec<String> = listed.map(|(i, word)| format!("{i}{word}")).collect();
        sorted.sort();
        let shown: Vec<&str> = sorted.iter().map(|text| text.split('"').nth(1).expect("a word")).collect();
        assert_eq!(shown, (0..23).map(name).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_plugin_wraps_is_no_list_of_its_own() {
        let field = json!({ "description": "What is changed.", "$ref": "#/$defs/weighting" });
        let docs = json!({ "docs": { "main": "What is changed." } });
        let wanted = json!({
            "doNotSuggest": true, "description": "What is changed.", "x-taplo": docs, "properties": {},
            "allOf": [{ "$ref": "#/$defs/weighting" }, { "type": ["object", "string"], "x-taplo": docs }],
        });
        assert_eq!(only_listed(&field), wanted);
    }
}
