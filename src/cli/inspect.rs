//! `sconce inspect`: what a weight file or a model folder holds, from headers and configs alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use sconce_core::digest::of_file;
use sconce_core::hub;
use sconce_core::train::RECIPE;
use sconce_models::original::detect;
use sconce_models::original::file::CONFIGS;
use sconce_models::original::pickle::{is_pickled, unpickled};
use sconce_nn::weights::{WeightFiles, read_metadata};
use serde_json::{Map, Value, json};

use super::args::{FilesArg, family, here};
use super::{Failure, print, print_json};

/// Say what a weight file or a model folder holds.
///
/// A safetensors file: its tensors by type, the number of parameters, its header, and for an adapter its rank and the
/// layers it is for. A diffusers folder: its family, what the checkpoint says about how it was trained, where that was
/// read, and its components. Weights are not loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce inspect style.safetensors
  sconce inspect models/sdxl
  sconce inspect runs/my/peft.safetensors --recipe > again.toml
  sconce inspect style.safetensors --json | jq '.tensors'")]
pub struct Args {
    /// A safetensors file, an old `.ckpt`, or a diffusers folder.
    #[arg(value_name = "FILE|DIR")]
    path: PathBuf,

    /// Print everything as JSON, each tensor too.
    #[arg(long)]
    json: bool,

    /// Also take the file's SHA-256 and its first ten digits, by which sites and web interfaces name a model (AutoV2).
    #[arg(long)]
    hash: bool,

    /// Print the recipe in the file's header instead.
    #[arg(long, conflicts_with = "json")]
    recipe: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let asked = args.path.to_str().filter(|path| hub::leads(path));
    let fetched = match asked {
        Some(path) if path.ends_with(".safetensors") => Some(here(path)?),
        Some(path) => Some(FilesArg::default().locate(path)?),
        None => None,
    };
    let path = fetched.as_deref().unwrap_or(&args.path);
    if !path.exists() {
        return Err(Failure::files(format!("there is no `{}`", path.display())));
    }
    let unpickled = is_pickled(path).then(|| unpickled(path)).transpose().map_err(Failure::files)?;
    let path = unpickled.as_deref().unwrap_or(path);
    let mut holds = if path.is_dir() { folder(path, path)? } else { file(path)? };
    if args.hash {
        if path.is_dir() {
            return Err(Failure::usage("--hash is for a file: a folder has as many as it has weight files"));
        }
        holds["sha256"] = json!(of_file(if asked.is_some() { path } else { &args.path }).map_err(Failure::files)?);
    }
    if args.recipe {
        return match holds.get("metadata").and_then(|m| m.get(RECIPE)).and_then(Value::as_str) {
            Some(recipe) => print(recipe),
            None => Err(Failure::files(format!("`{}` holds no recipe", path.display()))),
        };
    }
    if args.json {
        return print_json(&holds);
    }
    print(&if holds.get("family").is_some() { folder_text(&holds) } else { file_text(&holds) })
}

fn file(path: &Path) -> Result<Value, Failure> {
    let weights = WeightFiles::open(&[path]).map_err(Failure::files)?;
    let metadata = read_metadata(path).map_err(Failure::files)?;
    if metadata.contains_key(CONFIGS) || detect(&weights).map_err(Failure::files)?.is_some() {
        let made = FilesArg::default().locate(&path.display().to_string())?;
        let mut holds = folder(path, &made)?;
        holds["metadata"] = json!(metadata);
        holds["layout"] = json!("single-file");
        holds["dtypes"] = json!(types(&weights));
        return Ok(holds);
    }
    let mut tensors = Map::new();
    for key in weights.keys() {
        let (shape, dtype) = weights.info(key).expect("the key is one of the file's");
        tensors.insert(key.to_owned(), json!({ "dtype": dtype, "shape": shape }));
    }
    Ok(json!({
        "file": path, "tensor_count": tensors.len(), "dtypes": types(&weights), "lora": adapters(&weights), "metadata": metadata,
        "tensors": tensors,
    }))
}

/// How many tensors and parameters there are of each type.
fn types(weights: &WeightFiles) -> Map<String, Value> {
    let mut dtypes: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (shape, dtype) in weights.keys().filter_map(|key| weights.info(key)) {
        let entry = dtypes.entry(dtype).or_default();
        *entry = (entry.0 + 1, entry.1 + shape.iter().product::<usize>());
    }
    let counts = |(tensors, parameters)| json!({ "tensors": tensors, "parameters": parameters });
    dtypes.into_iter().map(|(dtype, count)| (dtype, counts(count))).collect()
}

/// Kinds, ranks and targets, where the keys are those of adapters in any layout.
fn adapters(weights: &WeightFiles) -> Value {
    // What ends the one key that each layer has, and whether its first side is the rank.
    const KINDS: [(&str, &str, bool); 12] = [
        (".lora_A.weight", "LoRA", true),
        (".lora_down.weight", "LoRA", true),
        (".lora.down.weight", "LoRA", true),
        (":down", "LoRA", true),
        (".hada_w1_b", "LoHa", true),
        (".lokr_w1", "LoKr", false),
        (".lokr_w1_b", "LoKr", true),
        (".oft_blocks", "OFT", false),
        (".ia3_l", "IA3", false),
        (".on_input", "IA3", false),
        (".diff", "full difference", false),
        ("_lora.down.weight", "LoRA", true),
    ];
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut ranks: BTreeMap<usize, usize> = BTreeMap::new();
    let mut targets: BTreeMap<String, usize> = BTreeMap::new();
    let mut layers = 0;
    for key in weights.keys() {
        if key.ends_with(".dora_scale") || key.contains(".lora_magnitude_vector") {
            *kinds.entry("DoRA's magnitudes".to_owned()).or_default() += 1;
        }
        let Some((layer, kind, ranked)) = KINDS.iter().find_map(|(end, k, r)| Some((key.strip_suffix(end)?, k, r)))
        else {
            continue;
        };
        let shape = weights.info(key).map(|(shape, _)| shape).unwrap_or_default();
        layers += 1;
        if *ranked {
            *ranks.entry(shape.first().copied().unwrap_or_default()).or_default() += 1;
        }
        *kinds.entry(if shape.len() == 4 && *kind == "OFT" { "BOFT" } else { kind }.to_owned()).or_default() += 1;
        *targets.entry(pattern(layer)).or_default() += 1;
    }
    match layers {
        0 => Value::Null,
        _ => json!({ "kinds": kinds, "layers": layers, "ranks": ranks, "targets": targets }),
    }
}

/// A layer's path with its numbers as `*`, so that like layers count together.
fn pattern(layer: &str) -> String {
    let mut pattern = String::new();
    for (i, part) in layer.split_inclusive(['.', '_', ':']).enumerate() {
        let (word, end) = part.split_at(part.trim_end_matches(['.', '_', ':']).len());
        let numeric = i > 0 && !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        pattern += if numeric { "*" } else { word };
        pattern += end;
    }
    pattern
}

fn file_text(holds: &Value) -> String {
    let mut out = format!("{}\n", holds["file"].as_str().unwrap_or_default());
    out += &types_text(holds);
    if let Value::Object(lora) = &holds["lora"] {
        let ranks: Vec<String> =
            entries(&lora["ranks"]).map(|(rank, layers)| format!("rank {rank} on {layers} layers")).collect();
        let kinds: Vec<String> =
            entries(&lora["kinds"]).map(|(kind, layers)| format!("{kind} on {layers} layers")).collect();
        let _ = writeln!(
            out,
            "adapters: {}{}{}",
            kinds.join(", "),
            if ranks.is_empty() { "" } else { "; " },
            ranks.join(", ")
        );
        for (target, layers) in entries(&lora["targets"]) {
            let _ = writeln!(out, "  {:>5} x {target}", layers.to_string());
        }
    }
    for (i, (key, value)) in entries(&holds["metadata"]).enumerate() {
        if i == 0 {
            out += "header:\n";
        }
        let _ = writeln!(out, "  {key}: {}", cut(value.as_str().unwrap_or_default()));
    }
    out
}

/// What a model's folder holds, that was given as `given`.
fn folder(given: &Path, path: &Path) -> Result<Value, Failure> {
    let family = family(path)?;
    let native = family.native(path).map_err(Failure::files)?;
    let shapes = family.shapes(path).map_err(Failure::files)?;
    let sizes: BTreeMap<&str, usize> = shapes.iter().map(|s| (s.component(), s.elements())).collect();
    let mut tokens = Map::new();
    for encoder in sizes.keys() {
        let config = std::fs::read(path.join(encoder).join("config.json")).unwrap_or_default();
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        if let Some(length) = config.get("max_position_embeddings") {
            tokens.insert((*encoder).to_owned(), length.clone());
        }
    }
    Ok(json!({
        "folder": given, "family": native.family, "resolution_px": native.resolution_px, "parameters": sizes,
        "tokens": tokens, "metadata": folder_metadata(path),
        "native": { "schedule": native.schedule, "objective": native.objective, "spacing": native.spacing, "solver": native.solver },
        "evidence": native.evidence,
    }))
}

/// The header of the denoiser's first weight file.
pub(super) fn folder_metadata(path: &Path) -> BTreeMap<String, String> {
    let weights =
        ["unet", "transformer"].iter().flat_map(|c| std::fs::read_dir(path.join(c)).into_iter().flatten().flatten());
    let mut files: Vec<PathBuf> =
        weights.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    files.sort();
    files.first().and_then(|f| read_metadata(f).ok()).unwrap_or_default()
}

/// The types, and the hash where it was asked for.
fn types_text(holds: &Value) -> String {
    let mut out = String::new();
    for (dtype, counts) in entries(&holds["dtypes"]) {
        let _ =
            writeln!(out, "  {dtype}: {} tensors, {} parameters", counts["tensors"], grouped(&counts["parameters"]));
    }
    if let Some(hash) = holds["sha256"].as_str() {
        let _ = writeln!(out, "  SHA-256 {hash}, AutoV2 {}", &hash[..10]);
    }
    out
}

fn folder_text(holds: &Value) -> String {
    let word = |name: &str| holds[name].as_str().unwrap_or_default();
    let mut out = format!("{}\nfamily: {}, {} px\n", word("folder"), word("family"), holds["resolution_px"]);
    out += &types_text(holds);
    out += "trained and to be sampled as:\n";
    for (name, table) in entries(&holds["native"]) {
        let _ = writeln!(out, "  {name}: {}", sconce_core::check::in_one_line(table));
    }
    out += "read from:\n";
    for (fact, place) in entries(&holds["evidence"]) {
        let _ = writeln!(out, "  {fact}: {}", place.as_str().unwrap_or_default());
    }
    out += "components:\n";
    for (component, count) in entries(&holds["parameters"]) {
        let tokens = holds["tokens"].get(component).map(|n| format!(", {n} tokens")).unwrap_or_default();
        let _ = writeln!(out, "  {component}: {} parameters{tokens}", grouped(count));
    }
    if holds["metadata"].get(RECIPE).is_some() {
        out += "made by sconce: --recipe prints its recipe\n";
    }
    out
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// 1234567 as 1,234,567.
fn grouped(count: &Value) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|g| std::str::from_utf8(g).expect("digits")).collect();
    groups.join(",")
}

/// The first line of a header field, not too long.
fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(120).collect();
    if short.len() < text.len() { format!("{short} … ({} bytes)", text.len()) } else { short }
}
