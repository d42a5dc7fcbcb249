//! The shape of the schema of recipes. A checker takes any; an editor that completes and explains does not. Taplo, which
//! is behind most editors of TOML, puts together all that `properties`, `anyOf` and `oneOf` list, whatever the file says,
//! sees nothing of `then` and `else`, and drops what stands beside a `$ref`. And of alternatives that all fail, every
//! checker tells no more than that. So here:
//!
//! - a choice of a plugin lists names and parameters once, with all that explains them, and has its rules in `then`, by
//!   `type`, where a fault is told by itself and at its place;
//! - words are an `enum` with a text for each, and not alternatives of one word each;
//! - what may be left out is a type more, and not an alternative;
//! - a definition moves to where it is used, but for plugins, which contain each other.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// A plugin: its names, the first of which is its own, and the schema of its table.
pub(super) struct Way {
    pub names: Vec<String>,
    pub table: Value,
}

/// Defines `kind`, a plugin by name or as a table, and what it is made of: `kind:names`, `kind:table` for editors,
/// `kind:typed` and `kind:fields` for checkers, and `kind.NAME` for each plugin.
pub(super) fn choice(kind: &str, about: &str, mut ways: Vec<Way>, definitions: &mut Map<String, Value>) {
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
    let mut listed = Map::from_iter([("type".to_owned(), to(":names"))]);
    listed.extend(all.iter().map(|(name, field)| (name.clone(), only_listed(field))));
    let mut fields = Map::from_iter([("type".to_owned(), json!({ "description": BY_NAME }))]);
    fields.extend(all);
    let mut define = |part: &str, value: Value| definitions.insert(format!("{kind}{part}"), value);
    // `true` keeps the alternatives from failing: the fault is told by `then` or `else`.
    let alternatives = [to(":table"), to(":names"), true.into()];
    let checks = json!({
        "type": ["object", "string"], "anyOf": alternatives,
        "if": { "type": "string" }, "then": to(":names"), "else": to(":typed"),
    });
    define("", checks);
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
    if field.get("$ref").is_some() {
        listed["anyOf"] = json!([{ "$ref": field["$ref"] }]);
    } else if let (Value::Object(listed), Value::Object(field)) = (&mut listed, field) {
        listed.extend(field.iter().filter(|(word, _)| *word != "description").map(|(w, v)| (w.clone(), v.clone())));
    }
    listed["x-taplo"]["docs"]["main"] = field["description"].clone();
    listed
}

/// The names of all plugins, with what each is; other names come last.
fn named(ways: &[Way]) -> Value {
    let own = ways.iter().map(|way| (&way.names[0], first_paragraph(&way.table)));
    let others = ways
        .iter()
        .flat_map(|way| way.names[1..].iter().map(|name| (name, format!("Another name of `{}`.", way.names[0]))));
    let (names, texts): (Vec<_>, Vec<_>) = own.chain(others).unzip();
    let mut all = words(names.into_iter().map(|name| json!(name)).collect(), texts);
    all["x-taplo"]["docs"]["main"] = BY_NAME.into();
    all.into()
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

/// Rewrites what schemars gives for enums, options and definitions.
pub(super) fn tidy(root: &mut Value) {
    let definitions = root["$defs"].take();
    let lookup = definitions.as_object().expect("there are definitions").clone();
    rewrite(root, &lookup);
    let mut kept = lookup.clone();
    kept.values_mut().for_each(|definition| rewrite(definition, &lookup));
    root["$defs"] = kept.into();
    loop {
        let text = root.to_string();
        let all = root["$defs"].as_object_mut().expect("it was put back");
        let before = all.len();
        all.retain(|name, _| text.contains(&format!("\"#/$defs/{name}\"")));
        if all.len() == before {
            return;
        }
    }
}

fn rewrite(schema: &mut Value, definitions: &Map<String, Value>) {
    match schema {
        Value::Object(map) => {
            move_in(map, definitions);
            one_type_more(map, definitions);
            one_enum(map);
            map.values_mut().for_each(|value| rewrite(value, definitions));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, definitions)),
        _ => {}
    }
}

/// Takes in the definition at a `$ref`; what stands beside it goes first.
fn move_in(map: &mut Map<String, Value>, definitions: &Map<String, Value>) {
    let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/")) else { return };
    // A plugin's kind has parts, and may contain itself.
    if name.contains([':', '.']) || definitions.contains_key(&format!("{name}:names")) {
        return;
    }
    let Some(Value::Object(definition)) = definitions.get(name) else { return };
    if reached(&definitions[name], definitions, &mut BTreeSet::new()).contains(name) {
        return;
    }
    map.shift_remove("$ref");
    for (word, value) in definition {
        map.entry(word.clone()).or_insert_with(|| value.clone());
    }
}

/// The definitions that a schema refers to, and those that they do.
fn reached<'a>(
    schema: &Value,
    definitions: &'a Map<String, Value>,
    seen: &'a mut BTreeSet<String>,
) -> &'a BTreeSet<String> {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/"))
                && seen.insert(name.to_owned())
                && let Some(definition) = definitions.get(name)
            {
                reached(definition, definitions, seen);
            }
            map.values().for_each(|value| {
                reached(value, definitions, seen);
            });
        }
        Value::Array(items) => items.iter().for_each(|item| {
            reached(item, definitions, seen);
        }),
        _ => {}
    }
    seen
}

/// `anyOf` a schema, and null or false.
fn one_type_more(map: &mut Map<String, Value>, definitions: &Map<String, Value>) {
    let Some([schema, less]) = map.get("anyOf").and_then(Value::as_array).map(Vec::as_slice) else { return };
    let away = less["const"] == false;
    if !away && less["type"] != "null" {
        return;
    }
    let Value::Object(mut schema) = schema.clone() else { return };
    one_type_more(&mut schema, definitions);
    move_in(&mut schema, definitions);
    if let Some(to) = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix("#/$defs/"))
        && let Some(Value::Object(kind)) = definitions.get(to)
    {
        schema = kind.clone();
    }
    one_enum(&mut schema);
    let Some(known) = schema.get("type").map(types) else { return };
    let (more, value) = if away { ("boolean", json!(false)) } else { ("null", Value::Null) };
    schema.insert("type".into(), known.into_iter().chain([more.into()]).collect());
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(value);
    } else if away {
        schema.insert("not".into(), json!({ "const": true }));
    }
    map.shift_remove("anyOf");
    for (word, value) in schema {
        map.entry(word).or_insert(value);
    }
}

/// `oneOf` words, each with its description.
fn one_enum(map: &mut Map<String, Value>) {
    let Some(ways) = map.get("oneOf").and_then(Value::as_array) else { return };
    let Some(all) = ways.iter().map(|way| way.get("const").cloned()).collect::<Option<Vec<_>>>() else { return };
    let text = |way: &Value| way["description"].as_str().unwrap_or_default().to_owned();
    let listed = words(all, ways.iter().map(text).collect());
    map.shift_remove("oneOf");
    map.extend(listed);
}
