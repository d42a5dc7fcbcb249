//! As much of JSON Schema as `configs/schema.json` uses, so that the test needs no validator with its hundred dependencies.

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
