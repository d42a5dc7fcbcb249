//! The card of a run's result: a `README.md` as model hubs read it, with what the weights are, how they were made, pictures and
//! the recipe. It is made of the run alone, so that the same run has the same card.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use candle_core::Result;
use sconce_nn::weights::write_atomic;
use serde_json::{Value, json};

use super::run::Job;
use crate::recipe::Recipe;

/// Where a run's card is.
const NAME: &str = "README.md";

/// Writes the card of a run that wrote these files; pictures are named by their paths under `out`.
pub(super) fn write(job: &Job, written: &[PathBuf], out: &Path) -> Result<PathBuf> {
    let path = out.join(NAME);
    let text = text(job, written, out);
    write_atomic(&path, |to| to.write_all(text.as_bytes()))?;
    Ok(path)
}

fn text(job: &Job, written: &[PathBuf], out: &Path) -> String {
    let recipe = job.recipe;
    let native = job.model.native();
    let title = recipe.output.title.clone().unwrap_or_else(|| job.resolved.name.clone());
    let inside = |path: &Path| path.strip_prefix(out).unwrap_or(path).display().to_string().replace('\\', "/");
    let adapter = recipe.adapter.as_ref().map(|a| a.name());

    let mut tags = vec!["text-to-image", "sconce", native.family.as_str()];
    tags.extend(adapter);
    let mut text = String::from("---\npipeline_tag: text-to-image\n");
    if recipe.output.adapter_layouts.iter().any(|l| l.name() == "peft") || adapter.is_none() {
        text += "library_name: diffusers\n";
    }
    if let Some(license) = &recipe.output.license {
        let _ = writeln!(text, "license: {}", json!(license.to_lowercase()));
    }
    let base = base(recipe);
    if let Some(published) = base.strip_prefix("hf://") {
        let name: Vec<&str> = published.split(['@', '/']).take(2).collect();
        let _ = writeln!(text, "base_model: {}", json!(name.join("/")));
    }
    text += "tags:\n";
    tags.iter().for_each(|tag| text += &format!("- {}\n", json!(tag)));
    let _ = writeln!(text, "---\n\n# {title}\n");

    if let Some(description) = &recipe.output.description {
        let _ = writeln!(text, "{}\n", description.trim());
    }
    let how = adapter.map_or("A fine-tune".to_owned(), |a| format!("An adapter (`{a}`)"));
    let _ = writeln!(
        text,
        "{how} of `{base}` ({}), on {} pictures seen, by sconce {}.\n",
        native.family,
        recipe.train.images,
        env!("CARGO_PKG_VERSION")
    );
    for picture in written.iter().filter(|path| path.extension().is_some_and(|e| e == "png")) {
        let _ = writeln!(text, "![Before, above, and after]({})\n", inside(picture));
    }
    if let Some(preview) = recipe.preview.as_ref().filter(|p| !p.prompts.is_empty()) {
        text += "Drawn there, column by column:\n\n";
        preview.prompts.iter().for_each(|prompt| text += &format!("- {}\n", one_line(prompt)));
        text.push('\n');
    }
    if adapter.is_some() {
        text += "| file | |\n|---|---|\n";
        for file in written.iter().filter(|path| path.extension().is_some_and(|e| e == "safetensors")) {
            let size = file.metadata().map_or(String::new(), |m| format!("{:.1} MB", m.len() as f64 / 1e6));
            let _ = writeln!(text, "| `{}` | {size} |", inside(file));
        }
        text.push('\n');
    }
    text += "| | |\n|---|---|\n";
    let tables: [(&str, Value); 6] = [
        ("objective", recipe.objective.table()),
        ("schedule", recipe.schedule.table()),
        ("weighting", recipe.weighting.table()),
        ("timesteps", recipe.timesteps.table()),
        ("optimizer", recipe.optimizer.table()),
        ("average", recipe.ema.table()),
    ];
    for (what, table) in tables {
        let _ = writeln!(text, "| {what} | `{table}` |");
    }
    let recipe = job.resolved.portable_toml();
    let _ = writeln!(
        text,
        "\nThe whole recipe, which is in each weight file's header too:\n\n```toml\n{}\n```",
        recipe.trim_end()
    );
    text
}

/// The model that was trained, as the recipe names it; of a path on this machine its last name alone.
fn base(recipe: &Recipe) -> String {
    let path = &recipe.model.path;
    match Path::new(path).file_name() {
        Some(name) if Path::new(path).is_absolute() => name.to_string_lossy().into_owned(),
        _ => path.clone(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
