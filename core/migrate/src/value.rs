//! Reading: TOML and JSON become one kind of value, in the order in which they are written, within limits that no honest
//! configuration meets; and a value becomes what its field takes, since some programs write numbers in quotes.

use serde_json::{Map, Number, Value};
use toml_edit::{Array, Document, Item, Table, Value as Toml};

use crate::Error;

/// Bytes of a configuration.
pub(crate) const LARGEST: usize = 1 << 20;

/// Reads TOML.
pub(crate) fn toml(text: &str) -> Result<Map<String, Value>, Error> {
    let document = small(text)?.parse::<Document<String>>();
    let document =
        document.map_err(|e| Error::Syntax { syntax: "TOML", message: e.to_string().trim_end().to_owned() })?;
    Ok(table(document.as_table()))
}

/// Reads JSON, with the numbers that Python writes and JSON has not.
pub(crate) fn json(text: &str) -> Result<Value, Error> {
    serde_json::from_str(&python(small(text)?)).map_err(|e| Error::Syntax { syntax: "JSON", message: e.to_string() })
}

/// Refuses a text that is too large to be a configuration.
pub(crate) fn small(text: &str) -> Result<&str, Error> {
    if text.len() > LARGEST { Err(Error::TooLarge { bytes: text.len() }) } else { Ok(text) }
}

/// `Infinity` and `NaN` outside of strings, in quotes.
fn python(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped, mut rest) = (false, false, text);
    while let Some(c) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !quoted && rest.starts_with(w));
        if let Some(word) = word {
            out += &format!("\"{word}\"");
            rest = &rest[word.len()..];
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

fn table(table: &Table) -> Map<String, Value> {
    table.iter().map(|(key, item)| (key.to_owned(), self::item(item))).collect()
}

fn item(item: &Item) -> Value {
    match item {
        Item::None => Value::Null,
        Item::Value(value) => self::value(value),
        Item::Table(table) => Value::Object(self::table(table)),
        Item::ArrayOfTables(tables) => tables.iter().map(|t| Value::Object(self::table(t))).collect(),
    }
}

fn value(value: &Toml) -> Value {
    let array = |array: &Array| array.iter().map(self::value).collect();
    match value {
        Toml::String(s) => Value::String(s.value().clone()),
        Toml::Integer(i) => Value::from(*i.value()),
        Toml::Float(x) => Number::from_f64(*x.value()).map_or_else(|| x.value().to_string().into(), Value::Number),
        Toml::Boolean(b) => Value::Bool(*b.value()),
        Toml::Datetime(d) => Value::String(d.value().to_string()),
        Toml::Array(items) => array(items),
        Toml::InlineTable(fields) => {
            fields.iter().map(|(k, v)| (k.to_owned(), self::value(v))).collect::<Map<_, _>>().into()
        }
    }
}

/// What a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    /// A number, or one in quotes.
    Number,
    /// A text.
    Text,
    /// True or false.
    Flag,
    /// One or several.
    List,
    /// Whatever there is.
    Any,
}

impl Takes {
    /// The value as what the field takes; nothing where it is empty. Else what was expected.
    pub fn read(self, value: &Value) -> Result<Value, &'static str> {
        let number = |x: f64| Number::from_f64(x).map(Value::Number).ok_or("a finite number");
        Ok(match (self, value) {
            (_, Value::Null) | (Self::Any, _) | (Self::Text, Value::String(_)) => value.clone(),
            (Self::Number, Value::Number(_)) | (Self::Flag, Value::Bool(_)) | (Self::List, Value::Array(_)) => {
                value.clone()
            }
            (Self::Number | Self::Flag, Value::String(s)) if s.trim().is_empty() || s == "None" => Value::Null,
            (Self::Number, Value::String(s)) => match s.trim().parse::<i64>() {
                Ok(whole) => whole.into(),
                Err(_) => number(s.trim().parse().map_err(|_| "a number")?)?,
            },
            (Self::Text, Value::Number(_) | Value::Bool(_)) => Value::String(shown(value)),
            (Self::Flag, Value::String(s)) => match s.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" => true.into(),
                "false" | "0" | "no" => false.into(),
                _ => return Err("true or false"),
            },
            (Self::Flag, Value::Number(n)) => (n.as_f64() != Some(0.0)).into(),
            (Self::List, Value::String(s)) if s.trim().is_empty() => Value::Null,
            (Self::List, Value::String(_) | Value::Number(_)) => Value::Array(vec![value.clone()]),
            (Self::Number, _) => return Err("a number"),
            (Self::Text, _) => return Err("a text"),
            (Self::Flag, _) => return Err("true or false"),
            (Self::List, _) => return Err("a list"),
        })
    }
}

/// A value as a report shows it.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(s) => s.clone(),
        Value::Null => "nothing".to_owned(),
        other => crate::literal::toml(other),
    };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(60) {
        Some((cut, _)) => format!("{}…", &line[..cut]),
        None => line,
    }
}

/// True if two values are the same, whole numbers and others alike.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_become_what_their_field_takes() {
        assert_eq!(Takes::Number.read(&json!("1e-4")), Ok(json!(1e-4)));
        assert_eq!(Takes::Number.read(&json!("8")), Ok(json!(8)));
        assert_eq!(Takes::Number.read(&json!("")), Ok(Value::Null));
        assert_eq!(Takes::Number.read(&json!("inf")), Err("a finite number"));
        assert_eq!(Takes::Flag.read(&json!("True")), Ok(json!(true)));
        assert_eq!(Takes::List.read(&json!("a")), Ok(json!(["a"])));
        assert_eq!(Takes::Text.read(&json!([1])), Err("a text"));
    }

    #[test]
    fn json_of_python_is_read() {
        let read = json(r#"{ "a": Infinity, "b": "Infinity \" NaN", "c": -Infinity }"#);
        assert_eq!(read.ok(), Some(json!({ "a": "Infinity", "b": "Infinity \" NaN", "c": "-Infinity" })));
    }

    #[test]
    fn toml_keeps_its_order() {
        let read = toml("b = 1\na = [1.5, 'x']\n[[t]]\nc = { d = true }\n[[t]]\n").expect("this is TOML");
        assert_eq!(Value::Object(read).to_string(), r#"{"b":1,"a":[1.5,"x"],"t":[{"c":{"d":true}},{}]}"#);
    }
}
