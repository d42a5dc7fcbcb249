//! Configurations as people have them, and what becomes of each: the recipe and the report are committed, so that a change to
//! either is read by someone. `UPDATE_SNAPSHOTS=1 cargo test -p sconce-migrate` writes them anew. Every recipe is also checked
//! against the schema that the registry's declarations make.

#[allow(dead_code)]
mod common;

use std::path::{Path, PathBuf};

use sconce_migrate::{Error, Migration, migrate};

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

#[test]
fn every_case_is_as_committed_and_fits_the_schema() {
    let (schema, update) = (common::schema(), std::env::var_os("UPDATE_SNAPSHOTS").is_some());
    for name in CASES {
        let Migration { recipe, report } = case(name);
        let faults = common::faults(&schema, &schema, &common::data(&recipe), name);
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
