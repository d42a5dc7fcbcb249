//! OneTrainer: one JSON with every field that its windows have, most of them at their defaults, and lists of concepts (folders
//! of pictures) and samples (prompts) that are in it or in files beside it. What is absent has OneTrainer's default, and some of
//! those a recipe must say.

mod adapter;
mod concept;
mod distance;
mod how;
mod noise;
mod optimizer;
mod parts;
mod run;
mod sample;
mod word;

use serde_json::{Map, Value};

use crate::case::{Case, Learns};
use crate::family::Family;
use crate::rule::{Field, Rule};
use crate::{Error, Migration, Program, Read, Wanted, value};

/// All fields, by what they are about.
pub(crate) static RULES: &[&[Rule]] = &[
    run::RULES,
    how::RULES,
    parts::RULES,
    word::RULES,
    noise::RULES,
    distance::RULES,
    adapter::RULES,
    optimizer::RULES,
    concept::RULES,
    sample::RULES,
];

/// Objects that are read as a whole.
const WHOLE: &[&str] = &["optimizer_defaults", "cloud", "secrets", "concept_stats", "muon_adam_config"];

/// The model types that sconce has.
const TYPES: &[(&str, Family)] = &[
    ("STABLE_DIFFUSION_15", Family::Sd1),
    ("STABLE_DIFFUSION_20", Family::Sd2),
    ("STABLE_DIFFUSION_20_BASE", Family::Sd2),
    ("STABLE_DIFFUSION_21", Family::Sd2),
    ("STABLE_DIFFUSION_21_BASE", Family::Sd2),
    ("STABLE_DIFFUSION_XL_10_BASE", Family::Sdxl),
    ("STABLE_DIFFUSION_3", Family::Sd3),
    ("STABLE_DIFFUSION_35", Family::Sd3),
    ("FLUX_DEV_1", Family::Flux),
];

/// A configuration.
pub(crate) fn json(config: Map<String, Value>, read: &mut Read) -> Result<Migration, Error> {
    let mut warnings = Vec::new();
    let mut list = |inside: &str, beside: &str, wanted: Wanted| match config.get(inside) {
        Some(Value::Array(items)) => Ok(Some((inside.to_owned(), items.clone()))),
        _ => {
            let Some(Value::String(name)) = config.get(beside) else { return Ok(None) };
            match read(wanted, name).map(|text| value::json(&text)) {
                Ok(Ok(Value::Array(items))) => Ok(Some((name.clone(), items))),
                Ok(Ok(_)) => {
                    Err(Error::Wrong { field: name.clone(), expected: "a list", found: "something else".into() })
                }
                Ok(Err(e)) => Err(e),
                Err(why) => {
                    warnings.push(format!("cannot read `{name}`, so that the recipe asks for what it says: {why}"));
                    Ok(None)
                }
            }
        }
    };
    let concepts = list("concepts", "concept_file_name", Wanted::Dataset)?;
    let samples = list("samples", "sample_definition_file_name", Wanted::Prompts)?;
    let mut fields = Vec::new();
    for (key, value) in config {
        match key.as_str() {
            "concepts" | "samples" => {}
            "additional_embeddings" => word::more(&value, &mut fields),
            // `null` is no clipping there.
            "clip_grad_norm" if value.is_null() => fields.push(Field::new(&key, &key, 0.0.into())),
            _ => flatten(&key, &key, value, &mut fields),
        }
    }
    let folders = concepts.map(|(name, items)| concept::fields(&name, &items, &mut fields)).transpose()?;
    if let Some((name, items)) = samples {
        fields.push(Field::new(name, "samples", items.into()));
    }
    finish(fields, folders.unwrap_or(1), warnings)
}

/// The leaves of a value, by dotted names.
fn flatten(shown: &str, key: &str, value: Value, fields: &mut Vec<Field>) {
    match value {
        Value::Object(inner) if !inner.is_empty() && !WHOLE.iter().any(|w| key.ends_with(w)) => {
            for (name, v) in inner {
                flatten(&format!("{shown}.{name}"), &format!("{key}.{name}"), v, fields);
            }
        }
        value => fields.push(Field::new(shown, key, value)),
    }
}

fn finish(fields: Vec<Field>, folders: usize, warnings: Vec<String>) -> Result<Migration, Error> {
    let mut case = Case::new(Program::OneTrainer, RULES, fields)?;
    case.warnings = warnings;
    let kind = case.text("model_type");
    match TYPES.iter().find(|(name, _)| *name == kind) {
        Some((_, family)) => case.family = *family,
        None => {
            return Err(Error::Unsupported(format!(
                "sconce has no model like OneTrainer's {kind}: it trains {}",
                TYPES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
            )));
        }
    }
    case.learns = match case.text("training_method").as_str() {
        "FINE_TUNE" | "FINE_TUNE_VAE" => Learns::Whole,
        "LORA" => Learns::Adapter,
        "EMBEDDING" => Learns::Word,
        other => {
            return Err(Error::Wrong {
                field: "training_method".into(),
                expected: "FINE_TUNE, LORA, EMBEDDING or FINE_TUNE_VAE",
                found: value::shown(&other.into()),
            });
        }
    };
    case.schnell = case.text("base_model_name").to_ascii_lowercase().contains("schnell");
    case.folders = folders;
    case.batch = case.number("batch_size").unwrap_or(1.0);
    case.accumulate = case.number("gradient_accumulation_steps").unwrap_or(1.0);
    case.side_px = run::sides(&case.text("resolution")).first().copied().unwrap_or(512.0);
    let entries = case.run();
    Ok(case.done(entries))
}
