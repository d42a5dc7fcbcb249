//! The last touches, by which language the schema is for: where a fault is marked, and how a text is set.

use serde_json::{Value, json};

/// Whose editors read a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Editor {
    /// Those of TOML.
    #[default]
    Toml,
    /// Those of YAML.
    Yaml,
}

/// Fits a schema to its readers.
pub fn fit(schema: &mut Value, editor: Editor) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                *text = flowing(text);
            }
            match editor {
                // Of a key that is not there Taplo marks the whole table, and of a table that is not there the whole file,
                // but where its value is what may not be.
                Editor::Toml if map.get("additionalProperties") == Some(&Value::Bool(false)) => {
                    let never = json!({ "allOf": [true], "not": { "there is no such key": true } });
                    map.insert("additionalProperties".into(), never);
                }
                Editor::Yaml if map.get("doNotSuggest").is_some() => {
                    map.shift_remove("description");
                }
                Editor::Yaml => {
                    if let Some(text) = map.get("description").filter(|text| text.is_string()).cloned() {
                        map.insert("markdownDescription".into(), text);
                    }
                }
                Editor::Toml => {}
            }
            map.values_mut().for_each(|value| fit(value, editor));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fit(item, editor)),
        _ => {}
    }
}

/// Each paragraph in one line, but for lists and tables, whose lines are indented.
fn flowing(text: &str) -> String {
    let paragraph = |text: &str| match text.lines().any(|line| line.starts_with(' ')) {
        true => text.to_owned(),
        false => text.replace('\n', " "),
    };
    text.split("\n\n").map(paragraph).collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_flow_and_lists_stay() {
        let text = "A formula\nof\n\n  t   the time\n  u   another\n\nand\nno more";
        assert_eq!(flowing(text), "A formula of\n\n  t   the time\n  u   another\n\nand no more");
    }
}
