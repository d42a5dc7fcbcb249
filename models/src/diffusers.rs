//! The diffusers folder: one sub-folder a component, with its `config.json` and its weights, sharded or not. What every
//! component's loader needs to read one, and errors that name the file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Error, Result, Tensor, bail};
use sconce_core::model::LoadOptions;
use sconce_nn::Store;
use sconce_nn::store::{Keep, Source};
use sconce_nn::weights::{WeightFiles, save_each, write_atomic};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::original;

/// What weight files are called: by diffusers, and by transformers.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];

/// A JSON file that holds an object.
pub fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let what = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| Error::Msg(format!("{what}: cannot read: {e}")))?;
    serde_json::from_str(&text).map_err(|e| Error::Msg(format!("{what}: not a JSON object: {e}")))
}

/// Writes a JSON object, and says where.
pub fn write_json(path: &Path, json: &Map<String, Value>) -> Result<PathBuf> {
    let text = serde_json::to_string_pretty(json).map_err(Error::wrap)? + "\n";
    write_atomic(path, |out| out.write_all(text.as_bytes()))?;
    Ok(path.to_owned())
}

/// Writes a component's weights into a model folder, tensor by tensor, in one file or, where they are more than `shard_bytes`, in
/// shards with an index, as diffusers and transformers do. Gives the files.
///
/// # Errors
/// If a tensor cannot be made, or the folder not written.
pub fn save_weights(
    dir: &Path,
    component: &str,
    plan: &BTreeMap<String, (DType, Vec<usize>)>,
    metadata: &BTreeMap<String, String>,
    shard_bytes: Option<u64>,
    mut value: impl FnMut(&str) -> Result<Tensor>,
) -> Result<Vec<PathBuf>> {
    let [ours, theirs] = STEMS;
    let stem = if component.starts_with("text_encoder") { theirs } else { ours };
    let folder = dir.join(component);
    let size = |(dtype, shape): &(DType, Vec<usize>)| (shape.iter().product::<usize>() * dtype.size_in_bytes()) as u64;
    let mut shards: Vec<(u64, BTreeMap<String, (DType, Vec<usize>)>)> = vec![Default::default()];
    for (name, what) in plan {
        let full = shards.last().is_some_and(|(bytes, shard)| {
            !shard.is_empty() && shard_bytes.is_some_and(|most| bytes + size(what) > most)
        });
        if full {
            shards.push(Default::default());
        }
        if let Some((bytes, shard)) = shards.last_mut() {
            *bytes += size(what);
            shard.insert(name.clone(), what.clone());
        }
    }
    let count = shards.len();
    let mut written = Vec::new();
    let mut map = Map::new();
    for (i, (_, shard)) in shards.iter().enumerate() {
        let name = match count {
            1 => format!("{stem}.safetensors"),
            _ => format!("{stem}-{:05}-of-{count:05}.safetensors", i + 1),
        };
        map.extend(shard.keys().map(|key| (key.clone(), json!(name))));
        save_each(&folder.join(&name), shard, metadata, &mut value)?;
        written.push(folder.join(name));
    }
    if count > 1 {
        let total: u64 = shards.iter().map(|(bytes, _)| bytes).sum();
        let index = Map::from_iter([
            ("metadata".to_owned(), json!({ "total_size": total })),
            ("weight_map".to_owned(), Value::Object(map)),
        ]);
        written.push(write_json(&folder.join(format!("{stem}.safetensors.index.json")), &index)?);
    }
    // What an earlier writing left in another form would be read in their place.
    for name in file_names(&folder)?.iter().filter(|name| name.starts_with(stem) && name.contains(".safetensors")) {
        let path = folder.join(name);
        if !written.contains(&path) {
            std::fs::remove_file(&path).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))?;
        }
    }
    Ok(written)
}

/// The `config.json` of a component's folder.
pub fn config(dir: &Path) -> Result<Map<String, Value>> {
    read_json(&dir.join("config.json"))
}

/// What `read` makes of a component's `config.json`, whose name is in its errors.
pub fn described<T>(dir: &Path, read: impl FnOnce(Map<String, Value>) -> Result<T>) -> Result<T> {
    read(config(dir)?).map_err(|e| Error::Msg(format!("{}: {e}", dir.join("config.json").display())))
}

/// A config's fields but those of the format itself, whose names begin with `_`.
pub fn fields<T: DeserializeOwned>(json: Map<String, Value>) -> Result<T> {
    let fields = json.into_iter().filter(|(key, _)| !key.starts_with('_')).collect();
    serde_json::from_value(Value::Object(fields)).map_err(Error::wrap)
}

/// The name of a component: that of its folder.
pub fn component(dir: &Path) -> Result<&str> {
    match dir.file_name().and_then(|name| name.to_str()) {
        Some(name) => Ok(name),
        None => bail!("{}: a component's folder needs a plain name", dir.display()),
    }
}

/// The parameters of a denoiser's folder, see [`source`].
pub fn denoiser(dir: &Path, options: &LoadOptions) -> Result<Arc<Store>> {
    let keep = Keep { hosted_blocks: options.swap_blocks, ..options.keep(component(dir)?) };
    let source = source(dir, options, |files| files)?;
    Ok(Store::keeping(component(dir)?, source, options.dtype, &options.device, keep, options.reads))
}

/// The parameters of another component's folder, computed in `dtype`.
pub fn store(
    dir: &Path,
    options: &LoadOptions,
    dtype: DType,
    published: impl FnOnce(WeightFiles) -> WeightFiles,
) -> Result<Arc<Store>> {
    let keep = options.keep(component(dir)?);
    let source = source(dir, options, published)?;
    Ok(Store::keeping(component(dir)?, source, dtype, &options.device, keep, options.reads))
}

/// Where the values of a component's folder come from: its weight files with their keys as `published` renames them, or,
/// where it holds a config alone, the seed that `options` give.
fn source(dir: &Path, options: &LoadOptions, published: impl FnOnce(WeightFiles) -> WeightFiles) -> Result<Source> {
    if let Some(files) = original::file::elsewhere(dir)? {
        return Ok(Source::Files(files));
    }
    match options.random {
        Some(seed) if !has_weights(dir)? => Ok(Source::Random(seed)),
        _ => Ok(Source::Files(published(WeightFiles::open(&weight_files(dir)?)?))),
    }
}

/// The weights of a component's folder, by the names that the networks here ask for.
pub fn weights(dir: &Path) -> Result<WeightFiles> {
    if let Some(files) = original::file::elsewhere(dir)? {
        return Ok(files);
    }
    let files = WeightFiles::open(&weight_files(dir)?)?;
    Ok(match component(dir)? {
        "vae" => crate::vae::kl::published(files),
        name if name.starts_with("text_encoder") => match config(dir)?.get("d_kv") {
            Some(_) => files.rename(crate::text::t5::published_key),
            None => files.rename(crate::text::clip::published_key),
        },
        _ => files,
    })
}

/// True if a component's folder holds weights of any form.
pub fn has_weights(dir: &Path) -> Result<bool> {
    let weights = |name: &String| [".safetensors", ".bin", ".ckpt", ".index.json"].iter().any(|e| name.ends_with(e));
    Ok(file_names(dir)?.iter().any(weights))
}

/// The weight files of a component's folder: the shards that an index names, or one file. Where there are only variants
/// (`model.fp16.safetensors`), the `fp16` one or the only one.
pub fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let what = dir.display();
    let names = file_names(dir)?;
    let mut found: BTreeMap<&str, (&str, bool)> = BTreeMap::new(); // variant -> file, whether it is an index
    for name in &names {
        if let Some((variant, index)) = STEMS.iter().find_map(|stem| variant(name, stem)) {
            let best = found.entry(variant).or_insert((name, index));
            if index {
                *best = (name, index);
            }
        }
    }
    let chosen = found.get("").or_else(|| found.get("fp16"));
    let Some(&(name, index)) = chosen.or_else(|| found.values().next().filter(|_| found.len() == 1)) else {
        if !found.is_empty() {
            bail!("{what}: several variants of the weights and no plain one: {:?}; leave one", found.keys());
        }
        if names.iter().any(|n| n.ends_with(".bin") || n.ends_with(".ckpt")) {
            bail!("{what}: the weights are pickled (.bin), which may run code: convert them to safetensors first");
        }
        bail!("{what}: no weights: expected {}.safetensors", STEMS.join(".safetensors or "))
    };
    if index { shards(&dir.join(name)) } else { Ok(vec![dir.join(name)]) }
}

/// The names of the files in a folder, sorted.
pub fn file_names(dir: &Path) -> Result<BTreeSet<String>> {
    let failed = |e| Error::Msg(format!("{}: cannot read the folder: {e}", dir.display()));
    let names = std::fs::read_dir(dir).map_err(failed)?;
    let names: Vec<_> = names.collect::<std::io::Result<_>>().map_err(failed)?;
    Ok(names.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The variant of a weight file ("" for the plain one), and whether the file is an index of shards.
fn variant<'a>(name: &'a str, stem: &str) -> Option<(&'a str, bool)> {
    let rest = name.strip_prefix(stem)?;
    let inner = |middle: &'a str| match middle.strip_prefix('.') {
        Some(variant) if !variant.contains("-of-") => Some(variant),
        None if middle.is_empty() => Some(""),
        _ => None, // a shard, or another file altogether
    };
    if let Some(middle) = rest.strip_suffix(".safetensors") {
        return Some((inner(middle)?, false));
    }
    if let Some(middle) = rest.strip_suffix(".safetensors.index.json") {
        return Some((inner(middle)?, true));
    }
    let variant = rest.strip_prefix(".safetensors.index.")?.strip_suffix(".json")?;
    Some((variant, true))
}

fn shards(index: &Path) -> Result<Vec<PathBuf>> {
    let what = index.display();
    let json = read_json(index)?;
    let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
        bail!("{what}: no `weight_map`");
    };
    let mut names = BTreeSet::new();
    for name in map.values() {
        match name.as_str() {
            // A name with a folder in it could point anywhere.
            Some(name) if Path::new(name).file_name().is_some_and(|plain| plain == name) => names.insert(name),
            _ => bail!("{what}: `weight_map` names {name}, which is no file of this folder"),
        };
    }
    Ok(names.into_iter().map(|name| index.with_file_name(name)).collect())
}
