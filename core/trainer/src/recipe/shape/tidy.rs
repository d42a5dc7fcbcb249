//! What schemars gives for enums, options and definitions, in the shape of [`super`].

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{types, words};

/// Rewrites what schemars gives for enums, options and definitions.
pub fn tidy(root: &mut Value) {
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
