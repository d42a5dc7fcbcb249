//! A value as a recipe writes it: rates as 1e-4, counts in groups of three, texts in quotes that need no backslash.

use serde_json::Value;
use toml_edit::{Formatted, Key};

/// A value in TOML.
pub(crate) fn toml(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => match n.as_i64() {
            Some(i) => i.to_string(),
            None => float(n.as_f64().unwrap_or_default()),
        },
        Value::String(s) => toml_edit::Value::String(Formatted::new(s.clone())).to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(k, v)| format!("{} = {}", Key::new(k), toml(v)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A count, from four digits on in groups of three.
pub(crate) fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    if digits.len() < 4 {
        return n.to_string();
    }
    let first = digits.len() % 3;
    let groups = digits.as_bytes()[first..].chunks(3).map(|c| String::from_utf8_lossy(c).into_owned());
    let head = (first > 0).then(|| digits[..first].to_owned());
    let sign = if n < 0 { "-" } else { "" };
    sign.to_owned() + &head.into_iter().chain(groups).collect::<Vec<_>>().join("_")
}

/// A number as people write rates: 1e-4.
fn float(x: f64) -> String {
    if x != 0.0 && (x.abs() < 1e-3 || x.abs() >= 1e9) {
        return format!("{x:e}");
    }
    // `{:?}` keeps the point that makes it a float in TOML.
    format!("{x:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let all = json!([1e-4, 2.5e-6, 0.01, 5.0, 40, 8000, 1_000_000, true, "a\"b"]);
        assert_eq!(toml(&all), r#"[1e-4, 2.5e-6, 0.01, 5.0, 40, 8000, 1000000, true, 'a"b']"#);
    }
}
