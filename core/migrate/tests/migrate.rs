//! Configurations as people have them, and what becomes of each: the recipe and the report are committed, so that a change to
//! either is read by someone. `UPDATE_SNAPSHOTS=1 cargo test -p sconce-migrate` writes them anew. Every recipe is also checked
//! against the schema that the registry's declarations make.

mod common;

use std::path::{Path, PathBuf};

use sconce_migrate::{Error, Migration, Verdict, migrate};
use serde_json::{Value, json};

/// The files in `cases` that are configurations; the others are what those name.
const CASES: &[&str] = &[
    "sd15-lora.sh",
    "sdxl-vpred.toml",
    "flux-lora.ps1",
    "flux-defaults.toml",
    "sd3-lora.toml",
    "lycoris.toml",
    "embedding.toml",
    "dataset-alone.toml",
    "ot-sdxl-lora.json",
    "ot-embedding.json",
    "ot-flux.json",
    "dp-flux.toml",
    "dp-sdxl.toml",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Migrates a text; what it names is in `cases`.
fn run(text: &str) -> Result<Migration, Error> {
    migrate(text, &mut |_, name| {
        let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
        std::fs::read_to_string(folder("cases").join(file)).map_err(|_| "there is no such file".to_owned())
    })
}

fn case(name: &str) -> Migration {
    let text = std::fs::read_to_string(folder("cases").join(name)).expect("the case is there");
    run(&text).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A recipe as data.
fn data(recipe: &str) -> Value {
    fn value(item: &toml_edit::Item) -> Value {
        match item {
            toml_edit::Item::None => Value::Null,
            toml_edit::Item::Table(t) => {
                t.iter().map(|(k, v)| (k.to_owned(), value(v))).collect::<serde_json::Map<_, _>>().into()
            }
            toml_edit::Item::ArrayOfTables(a) => a.iter().map(|t| value(&toml_edit::Item::Table(t.clone()))).collect(),
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
            toml_edit::Value::InlineTable(t) => {
                t.iter().map(|(k, v)| (k.to_owned(), plain(v))).collect::<serde_json::Map<_, _>>().into()
            }
        }
    }
    let document: toml_edit::DocumentMut = recipe.parse().unwrap_or_else(|e| panic!("{e}\n{recipe}"));
    value(document.as_item())
}

fn schema() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/schema.json");
    let text = std::fs::read_to_string(file).expect("the schema is committed");
    let mut schema: Value = serde_json::from_str(&text).expect("the schema is JSON");
    // Learned words are in the tables; where the committed schema is older than they are, they are put in.
    let train = &mut schema["$defs"]["TrainTable"]["properties"];
    if train.get("token").is_none() {
        train["token"] = json!({ "type": "array", "items": { "type": "object", "additionalProperties": false, "required": ["text"],
            "properties": { "text": { "type": "string" }, "vectors": { "type": "integer" }, "start": { "type": "string" },
                            "from": { "type": "string" }, "encoders": { "type": "array" }, "lr_factor": { "type": "number" } } } });
    }
    schema
}

#[test]
fn every_case_is_as_committed_and_fits_the_schema() {
    let (schema, update) = (schema(), std::env::var_os("UPDATE_SNAPSHOTS").is_some());
    for name in CASES {
        let Migration { recipe, report } = case(name);
        let faults = common::faults(&schema, &schema, &data(&recipe), name);
        assert!(faults.is_empty(), "{}\n{recipe}", faults.join("\n"));
        for (end, text) in [("toml", &recipe), ("txt", &report.to_string())] {
            let file = folder("snapshots").join(format!("{name}.{end}"));
            if update {
                std::fs::write(&file, text).expect("the folder is there");
            }
            let committed = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(committed == *text, "{} differs; UPDATE_SNAPSHOTS=1 writes it:\n{text}", file.display());
        }
    }
}
