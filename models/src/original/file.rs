//! Single-file checkpoints as model folders. The configs that such a file leaves out are put into a folder of the user's cache
//! beside views into the file, and from there on it is a diffusers folder like any other; no weight is copied.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::{Error, Result, bail};
use sconce_core::embedded::{Opener, cache_home, identity, once};
use sconce_core::model::Family;
use sconce_nn::Store;
use sconce_nn::weights::{View, WeightFiles, read_metadata, write_atomic};
use sconce_sdk::Choice;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Names, Part, Published, Whole, detect, parts, prediction, views, wholes};
use crate::diffusers::{self, write_json};
use crate::folder::TOKENIZERS;
use crate::folder::native::{EVIDENCE, SCHEDULER};
use crate::text::unigram::PUBLISHED_ROWS;
use crate::text::{clip, t5_vocabulary};

/// The header field that holds what a single file leaves out, so that it comes back as it was.
pub const CONFIGS: &str = "sconce.configs";
/// In a component's folder: where its weights are.
const VIEWS: &str = "views.json";

/// What a single file leaves out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Configs {
    pub family: String,
    pub model_index: Map<String, Value>,
    pub scheduler: Map<String, Value>,
    pub components: BTreeMap<String, Map<String, Value>>,
}

/// Weights that lie in files of another layout.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Elsewhere {
    files: Vec<PathBuf>,
    tensors: BTreeMap<String, View>,
}

inventory::submit!(Opener { opens: |path| path.extension().is_some_and(|e| e == "safetensors"), folder: prepare });

/// The weights of a component's folder that lie elsewhere; `None` where the folder holds them.
pub(crate) fn elsewhere(dir: &Path) -> Result<Option<WeightFiles>> {
    let path = dir.join(VIEWS);
    if !path.is_file() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))?;
    let Elsewhere { files, tensors } =
        serde_json::from_str(&text).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))?;
    WeightFiles::open(&files)?.viewed(&tensors).map(Some)
}

/// The folder of a single file, with components from other files: `vae`, `text_encoder` … name weight files, `tokenizer` …
/// folders or `tokenizer.json`.
///
/// # Errors
/// If it is no model's, or a component is not whole.
pub fn prepare(path: &Path, others: &BTreeMap<String, PathBuf>) -> Result<PathBuf> {
    let path = std::path::absolute(path).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))?;
    let what = path.display();
    let file = WeightFiles::open(&[&path])?;
    let header = read_metadata(&path)?;
    let published = if header.contains_key(CONFIGS) { None } else { detect(&file)? };
    let configs = match (header.get(CONFIGS), published) {
        (Some(text), _) => {
            serde_json::from_str(text).map_err(|e| Error::Msg(format!("{what}: the header's {CONFIGS}: {e}")))?
        }
        (None, Some(published)) => Configs {
            family: published.family.clone(),
            model_index: published.index.clone(),
            scheduler: published.scheduler.clone(),
            components: published.components.clone(),
        },
        (None, None) => bail!(
            "{what}: its keys are those of no model that is known here. `sconce inspect` lists them; a LoRA goes to --lora, a \
             component of its own to model.files"
        ),
    };
    configs.components.iter().try_for_each(|(name, config)| {
        let config = config.iter().try_for_each(|(field, value)| bounded(field, value));
        config.map_err(|e| Error::Msg(format!("{what}: the header's {CONFIGS}: {name}: {e}")))
    })?;
    let parts = parts(&configs.family)?;
    let known = |name: &&String| parts.iter().any(|p| p.component == *name) || name.starts_with("tokenizer");
    if let Some(stray) = others.keys().find(|name| !known(name)) {
        let names: Vec<&str> = parts.iter().map(|p| p.component).collect();
        bail!(
            "model.files: there is no component `{stray}`, a model of the family {} has {}",
            configs.family,
            names.join(", ")
        );
    }
    let mut same = identity(&path)?.to_vec();
    for (name, other) in others {
        same.push(name.clone());
        same.extend(identity(other)?);
    }
    let stem = path.file_stem().map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned());
    once(&cache_home()?.join("sconce/single"), &stem, &same, |to| {
        let sources = Sources { path: &path, file: &file, header: &header, published, others };
        write_folder(to, &configs, parts, &sources)
    })
}

/// Refuses numbers of a config that no network has: building one of them would take all memory before a weight is read.
fn bounded(field: &str, value: &Value) -> Result<()> {
    let most = if field.contains("layers") { 1_000 } else { 10_000_000 };
    match value {
        Value::Number(n) if n.as_f64().is_none_or(|n| n.abs() > f64::from(most)) => {
            bail!("`{field}` = {n}: no network has more than {most}")
        }
        Value::Array(all) if all.len() > 1_000 => bail!("`{field}` lists {} things", all.len()),
        Value::Array(all) => all.iter().try_for_each(|value| bounded(field, value)),
        Value::Object(fields) => fields.iter().try_for_each(|(field, value)| bounded(field, value)),
        _ => Ok(()),
    }
}

struct Sources<'a> {
    path: &'a Path,
    file: &'a WeightFiles,
    header: &'a BTreeMap<String, String>,
    published: Option<&'static Published>,
    others: &'a BTreeMap<String, PathBuf>,
}

fn write_folder(to: &Path, configs: &Configs, parts: &[Part], sources: &Sources) -> Result<()> {
    let present = |part: &&Part| {
        sources.others.contains_key(part.component)
            || sources.file.keys().any(|key| key.starts_with(part.prefix))
            || (is_denoiser(part) && configs.components.contains_key(part.component))
    };
    let present: Vec<&Part> = parts.iter().filter(present).collect();
    if let Some(lacking) = parts.iter().find(|p| p.component == "vae" && !present.iter().any(|q| q.component == "vae"))
    {
        bail!(
            "{}: it holds no autoencoder (keys that begin with `{}`): name its file, model.files.vae = \"ae.safetensors\" (--file \
             vae=ae.safetensors), and those of the text encoders that are to be used",
            sources.path.display(),
            lacking.prefix
        );
    }
    let mut index = configs.model_index.clone();
    for part in present.iter().filter(|part| configs.components.contains_key(part.component)) {
        write_json(&to.join(part.component).join("config.json"), &configs.components[part.component])?;
    }
    // By our names, not by the file's, which could lead anywhere.
    for name in TOKENIZERS {
        let Some(class) = index.get(name).and_then(|of| of.get(1)?.as_str()) else { continue };
        let encoder = configs.components.get(&name.replacen("tokenizer", "text_encoder", 1));
        let rows = encoder.and_then(|config| config.get("vocab_size")?.as_u64());
        tokenizer(&to.join(name), name, class, rows, sources.others.get(name))?;
    }
    let said = prediction(sources.file, sources.header, &configs.scheduler, sources.published)?;
    let mut scheduler = configs.scheduler.clone();
    scheduler.extend(said.scheduler);
    if scheduler.get("rescale_betas_zero_snr") == Some(&json!(true)) && scheduler["_class_name"] == "PNDMScheduler" {
        scheduler.insert("_class_name".into(), json!("EulerDiscreteScheduler")); // PNDM cannot begin without signal
        index.insert("scheduler".into(), json!(["diffusers", "EulerDiscreteScheduler"]));
    }
    write_json(&to.join(SCHEDULER), &scheduler)?;
    let file = sources.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut evidence = match sources.published {
        None => format!("{file}: the header's {CONFIGS}"),
        Some(_) => format!("{file}: the settings of the published model of this shape"),
    };
    for place in &said.evidence {
        evidence += &format!("; {place}");
    }
    write_json(&to.join(EVIDENCE), &Map::from_iter([("scheduler".to_owned(), json!(evidence))]))?;
    write_json(&to.join("model_index.json"), &index)?;

    let family = Choice::<dyn Family>::named(&configs.family).map_err(|e| Error::Msg(e.to_string()))?;
    let stores = family.shapes(to)?;
    for part in present {
        let Some(store) = stores.iter().find(|store| store.component() == part.component) else { continue };
        let (files, found);
        match sources.others.get(part.component) {
            Some(other) => {
                files = vec![std::path::absolute(other).map_err(|e| Error::Msg(format!("{}: {e}", other.display())))?];
                found = find(store, part, &WeightFiles::open(&files)?)?;
            }
            None => {
                files = vec![sources.path.to_owned()];
                found = find(store, part, sources.file)?;
            }
        }
        let text = serde_json::to_string(&Elsewhere { files, tensors: found }).map_err(Error::wrap)?;
        write_atomic(&to.join(part.component).join(VIEWS), |out| out.write_all(text.as_bytes()))?;
    }
    Ok(())
}

fn is_denoiser(part: &Part) -> bool {
    matches!(part.names, Names::Unet | Names::Sd3 | Names::Flux)
}

/// The views of a component in a file, under the original names or those of diffusers, with the prefix of a whole model or
/// none.
fn find(store: &Store, part: &Part, file: &WeightFiles) -> Result<BTreeMap<String, View>> {
    let mut nearest: Option<(usize, String)> = None;
    for (names, prefix) in [(part.names, part.prefix), (part.names, ""), (Names::Same, part.prefix), (Names::Same, "")]
    {
        let wholes = wholes(store, names, prefix)?;
        let views = views(&wholes);
        let lacks = |(key, whole): &(&String, &Whole)| match file.info(key) {
            None => Some(format!("`{key}` is missing")),
            Some((shape, _)) if shape != whole.stored_shape() => {
                Some(format!("`{key}` has shape {shape:?}, expected {:?}", whole.stored_shape()))
            }
            Some(_) => None,
        };
        let buffers: BTreeSet<String> = store.buffers().into_iter().collect();
        let needed = wholes.iter().filter(|(_, whole)| !whole.rows.iter().all(|(_, name, _)| buffers.contains(name)));
        let lacking: Vec<String> = needed.filter_map(|whole| lacks(&whole)).collect();
        if lacking.is_empty() {
            strays(store, part, prefix, &wholes, file)?;
            let there = views.into_iter().filter(|(_, view)| file.info(&view.key).is_some());
            return there.map(|(name, view)| Ok((name, scaled(view, file)?))).collect();
        }
        if nearest.as_ref().is_none_or(|(count, _)| lacking.len() < *count) {
            let (first, more) = (lacking[..lacking.len().min(3)].join(", "), lacking.len().saturating_sub(3));
            nearest = Some((
                lacking.len(),
                format!("{first}{}", if more > 0 { format!(" and {more} more") } else { String::new() }),
            ));
        }
    }
    let why = nearest.map(|(_, why)| why).unwrap_or_default();
    bail!("{:?}: the component `{}` is not whole: {why}", file.paths(), part.component)
}

/// With the number that a weight of eight bits is multiplied by, where the file has one beside it (ComfyUI's scaled FP8).
fn scaled(mut view: View, file: &WeightFiles) -> Result<View> {
    let Some(layer) = view.key.strip_suffix(".weight") else { return Ok(view) };
    let beside = ["scale_weight", "weight_scale"].map(|name| format!("{layer}.{name}"));
    view.scale = beside.into_iter().find(|key| file.info(key).is_some());
    if let Some(scale) = view.scale.as_ref()
        && let Some((_, dtype)) = file.info(&view.key)
        && !dtype.starts_with("f8")
    {
        bail!(
            "{:?}: `{}` is {dtype} and scaled by `{scale}`: of packed weights those in FP8 are read; take the file in bf16 or f16",
            file.paths(),
            view.key
        );
    }
    Ok(view)
}

/// What stands beside weights of eight bits: their scale, that of what they are given, and marks of the format.
fn is_scale(key: &str) -> bool {
    let end = key.rsplit('.').next().unwrap_or(key);
    ["scale_weight", "weight_scale", "scale_input", "input_scale", "comfy_quant", "scaled_fp8"].contains(&end)
}

/// Refuses keys of a component that have no place in it: it would be another network.
fn strays(
    store: &Store,
    part: &Part,
    prefix: &str,
    wholes: &BTreeMap<String, Whole>,
    file: &WeightFiles,
) -> Result<()> {
    // What such files carry beside the network, or of a text encoder's last layer that is not used.
    const BESIDE: [&str; 5] =
        ["logit_scale", "position_ids", "text_projection", "text_projection.weight", "embed_tokens.weight"];
    let unused = format!("transformer.resblocks.{}.", clip::layers(store));
    let stray = |key: &&str| {
        key.strip_prefix(prefix).is_some_and(|rest| {
            !wholes.contains_key(*key)
                && !is_scale(rest)
                && !BESIDE.iter().any(|end| rest.ends_with(end))
                && !rest.starts_with(&unused)
        })
    };
    if prefix.is_empty() && !is_denoiser(part) {
        return Ok(());
    }
    let strays: Vec<&str> = file.keys().filter(stray).collect();
    if prefix.is_empty() && strays.iter().any(|key| parts_begin(key)) {
        return Ok(());
    }
    match strays.as_slice() {
        [] => Ok(()),
        [first, ..] => bail!(
            "{:?}: `{first}` and {} more keys have no place in `{}`: it is another network than the published one",
            file.paths(),
            strays.len() - 1,
            part.component
        ),
    }
}

/// True for keys of other components, beside a denoiser without a prefix.
fn parts_begin(key: &str) -> bool {
    ["first_stage_model.", "cond_stage_model.", "conditioner.", "text_encoders.", "vae."]
        .iter()
        .any(|p| key.starts_with(p))
}

/// A tokenizer's folder: the given one, or CLIP's or T5's, whose vocabularies are the same in all published models. `rows`: of the
/// encoder's table.
fn tokenizer(to: &Path, name: &str, class: &str, rows: Option<u64>, given: Option<&PathBuf>) -> Result<()> {
    let put = |name: &str, bytes: &[u8]| write_atomic(&to.join(name), |out| out.write_all(bytes));
    if let Some(given) = given {
        let read = |p: &Path| std::fs::read(p).map_err(|e| Error::Msg(format!("{}: {e}", p.display())));
        if !given.is_dir() {
            return put("tokenizer.json", &read(given)?);
        }
        return diffusers::file_names(given)?.iter().try_for_each(|file| put(file, &read(&given.join(file))?));
    }
    if class.starts_with("T5") {
        return match rows {
            Some(PUBLISHED_ROWS) => t5_vocabulary()?.into_iter().try_for_each(|(file, bytes)| put(file, &bytes)),
            _ => Ok(()), // the text encoder's loader says what is missing, where it is not left out
        };
    }
    crate::text::clip_vocabulary(name != "tokenizer")
        .into_iter()
        .try_for_each(|(file, text)| put(file, text.as_bytes()))
}
