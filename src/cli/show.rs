//! `sconce show`: one plugin, or one built-in recipe.

use std::fmt::Write;

use sconce_core::recipe::builtins;
use sconce_sdk::{Plugin, registry};
use serde_json::{Map, Value, json};

use super::list::{self, RECIPE};
use super::{Failure, plot, print, print_json};

/// Show one plugin: what it does, its fields and their defaults.
///
/// `sconce show recipe NAME` prints a built-in recipe, to start one's own from.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce show weighting min-snr
  sconce show schedule zero-terminal --json
  sconce show recipe sdxl-lora > my.toml")]
pub struct Args {
    /// A kind (`sconce list`), or `recipe`.
    #[arg(value_name = "KIND")]
    kind: String,

    /// A plugin of that kind (`sconce list KIND`).
    #[arg(value_name = "NAME")]
    name: String,

    /// Print the plugin's JSON Schema, defaults and origin as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    if args.kind == RECIPE {
        let all = builtins();
        let names: Vec<&str> = all.iter().map(|r| r.name).collect();
        let Some(recipe) = all.iter().find(|r| r.name == args.name) else {
            return Err(Failure::usage(format!("there is no built-in recipe `{}`", args.name))
                .help(format!("there are: {}", names.join(", "))));
        };
        return if args.json {
            print_json(&json!({ "name": recipe.name, "text": recipe.text }))
        } else {
            print(recipe.text)
        };
    }
    let all = registry::all().map_err(Failure::plugin)?;
    let mut kinds: Vec<&str> = all.iter().map(|p| p.kind).chain([RECIPE]).collect();
    kinds.dedup();
    let plugin = registry::find(list::known(&args.kind, &kinds)?, &args.name).map_err(|e| {
        let help = e.help.unwrap_or_default();
        Failure::usage(e.message).help(help)
    })?;
    let defaults = (plugin.build)(Value::Object(Map::new())).ok().map(|built| built.params);
    if args.json {
        return print_json(&json!({
            "kind": plugin.kind, "name": plugin.name, "aliases": plugin.aliases, "crate": plugin.krate,
            "version": plugin.version, "origin": plugin.origin.to_string(), "about": plugin.about, "schema": (plugin.schema)(), "defaults": defaults,
        }));
    }
    print(&text(plugin, defaults.as_ref()))
}

fn text(plugin: &Plugin, defaults: Option<&Value>) -> String {
    let mut out = format!("{} {}\n\n{}\n", plugin.kind, plugin.name, list::about(plugin));
    let schema = (plugin.schema)().to_value();
    let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    if fields.is_empty() {
        out += "\nNo fields.\n";
    }
    for (name, field) in &fields {
        let default = defaults.and_then(|d| d.get(name)).filter(|d| !d.is_null());
        let default = match default {
            Some(value) => format!(", default {value}"),
            None if schema.get("required").and_then(Value::as_array).is_some_and(|r| r.iter().any(|n| n == name)) => {
                ", required".into()
            }
            None => ", optional".into(),
        };
        let about = field.get("description").and_then(Value::as_str).unwrap_or_default();
        let _ = write!(out, "\n  {name}: {}{default}\n    {}\n", kind_of(field), about.replace('\n', "\n    "));
    }
    if !plugin.aliases.is_empty() {
        let _ = write!(out, "\nAlso known as: {}\n", plugin.aliases.join(", "));
    }
    let _ = write!(out, "\nIn a recipe:\n  [{}]\n  type = \"{}\"\n", plugin.kind, plugin.name);
    let example = schema.get("examples").and_then(|examples| examples.get(0));
    for (field, value) in example.and_then(Value::as_object).into_iter().flatten() {
        let _ = writeln!(out, "  {field} = {}", toml(value));
    }
    let drawn = match (defaults, example) {
        (None, Some(fields)) => format!("{}{}", plugin.name, toml(fields)),
        _ => plugin.name.to_owned(),
    };
    if let Some(picture) = plot::in_text(plugin.kind, &drawn) {
        let drawn = if drawn.contains('{') { format!("'{drawn}'") } else { drawn };
        let _ = write!(out, "\n{picture}`sconce plot {} {drawn}` draws it among others.\n", plugin.kind);
    }
    let _ = write!(out, "\nRegistered by {}\n", plugin.owner());
    out
}

/// A value as a recipe has it.
fn toml(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name} = {}", toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        plain => plain.to_string(),
    }
}

/// A field's type in a recipe's words.
fn kind_of(field: &Value) -> String {
    if let Some(kind) = field.get("$ref").and_then(Value::as_str) {
        return format!("a {}", kind.rsplit('/').next().unwrap_or("table"));
    }
    if let Some(ways) = field.get("anyOf").or(field.get("oneOf")).and_then(Value::as_array) {
        let ways: Vec<String> =
            ways.iter().filter(|w| w.get("type").and_then(Value::as_str) != Some("null")).map(kind_of).collect();
        return ways.join(" or ");
    }
    if let Some(word) = field.get("const") {
        return word.to_string();
    }
    let named = |name: &str| match name {
        "integer" => "whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "string" => "text".to_owned(),
        "array" => format!("list of {}s", field.get("items").map_or("value".into(), kind_of)),
        "object" => "table".to_owned(),
        other => other.to_owned(),
    };
    match field.get("type") {
        Some(Value::String(name)) => named(name),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str).filter(|n| *n != "null");
            names.map(named).collect::<Vec<_>>().join(" or ")
        }
        _ => "value".into(),
    }
}
