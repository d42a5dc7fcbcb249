//! From a recipe's name to layers: the recipe, and below it what it extends, wherever each is. A recipe of this machine names
//! what places it likes. One from elsewhere is data of a stranger: it names places of the Hub, inside the program and beside
//! itself, and none of this machine, nor where anything is written.

use std::io::Read;
use std::path::{Component, Path, PathBuf};

use sconce_sdk::ParamError;
use sconce_sdk::names::nearest;
use serde_json::{Map, Value};

use super::builtin::builtins;
use super::document::Syntax;
use super::error::{Fault, Origin, RecipeError};
use super::layer::Layer;
use super::resolve::RecipeSource;
use crate::hub::{self, Needs};

/// The longest recipe, in bytes.
const MOST: u64 = 1 << 20;
/// The most recipes that extend each other.
const DEEPEST: usize = 16;

/// Where a recipe lies.
enum Place {
    /// On this machine: its relative paths start from this folder.
    Here(PathBuf),
    /// Elsewhere: the address of its folder.
    There(String),
}

struct Opened {
    layer: Layer,
    /// What it is known to be the same by.
    key: String,
    name: String,
    place: Place,
}

/// Pushes the recipe and, below it, what it extends. Gives the recipe's name and folder.
pub(super) fn chain(source: &RecipeSource, layers: &mut Vec<Layer>) -> Result<(String, PathBuf), RecipeError> {
    let (mut read, mut keys) = (Vec::new(), Vec::new());
    let Opened { mut layer, key, name, mut place } = open(source, None)?;
    let base_dir = match &place {
        Place::Here(folder) => folder.clone(),
        Place::There(_) => PathBuf::new(),
    };
    keys.push(key);
    loop {
        settle(&mut layer, &place)?;
        let Some(extends) = layer.value.remove("extends") else { break };
        let origin = layer.origin_of("extends", |m| m.value);
        let fault = |message: String| Fault::new(origin.clone(), "extends", ParamError::new(message));
        let Value::String(parent) = extends else {
            return Err(fault("must be the name of a built-in recipe, or a file".into()).into());
        };
        let next = match (RecipeSource::named(&parent), &place) {
            (RecipeSource::File(file), Place::Here(folder)) => RecipeSource::File(folder.join(file)),
            (RecipeSource::File(file), Place::There(folder)) if inside(&parent) => {
                RecipeSource::Elsewhere(format!("{folder}/{}", file.display()))
            }
            (RecipeSource::File(_), Place::There(_)) => return Err(fault(strange(&parent)).into()),
            (named, _) => named,
        };
        let below = open(&next, Some((&parent, &origin)))?;
        if let Some(start) = keys.iter().position(|n| *n == below.key) {
            keys.push(below.key);
            let circle = keys[start..].join(" -> ");
            return Err(fault(format!("the recipes extend each other in a circle: {circle}")).into());
        }
        keys.push(below.key);
        if keys.len() > DEEPEST {
            return Err(fault(format!("more than {DEEPEST} recipes extend each other")).into());
        }
        place = below.place;
        read.push(std::mem::replace(&mut layer, below.layer));
    }
    read.push(layer);
    layers.extend(read.into_iter().rev());
    Ok((name, base_dir))
}

/// Opens one recipe. `extended`: what another one wrote, and where.
fn open(source: &RecipeSource, extended: Option<(&str, &Origin)>) -> Result<Opened, RecipeError> {
    let plain = |layer, name: &str| Opened {
        layer,
        key: name.to_owned(),
        name: name.to_owned(),
        place: Place::Here(PathBuf::new()),
    };
    let fault = |label: &str, error: ParamError| match extended {
        Some((_, origin)) => Fault::new(origin.clone(), "extends", error),
        None => Fault::new(Origin::File { file: label.to_owned(), at: None }, "", error),
    };
    match source {
        RecipeSource::Builtin(name) => {
            let Some(builtin) = builtins().into_iter().find(|b| b.name == name) else {
                let error = ParamError::new("there is no built-in recipe of this name");
                return Err(fault(name, advise(error, name)).into());
            };
            let layer = Layer::text(&format!("built-in recipe {name}"), builtin.text, Syntax::Toml)?;
            Ok(plain(layer, name))
        }
        RecipeSource::Text { name, text, syntax } => Ok(plain(Layer::text(name, text, *syntax)?, name)),
        RecipeSource::Elsewhere(address) => {
            let failed = |e: candle_core::Error| fault(address, ParamError::new(crate::message(&e)));
            let (address, text) = match hub::leads(address) {
                true => {
                    let pinned = hub::pinned(address).map_err(failed)?;
                    let file = hub::fetched(&pinned, Needs::All).map_err(failed)?;
                    let text = read(&file).map_err(|why| fault(address, ParamError::new(why)))?;
                    (pinned, text)
                }
                false => (address.clone(), hub::text(address).map_err(failed)?),
            };
            let plain = address.split(['?', '#']).next().unwrap_or(&address);
            let (folder, file) = plain.rsplit_once('/').unwrap_or((plain, ""));
            let name = Path::new(file).file_stem().map_or(file.into(), |s| s.to_string_lossy().into_owned());
            let layer = Layer::text(plain, &text, Syntax::of(file))?;
            Ok(Opened { layer, key: address.clone(), name, place: Place::There(folder.to_owned()) })
        }
        RecipeSource::File(path) => {
            let label = path.display().to_string();
            let text = read(path).map_err(|why| {
                let message = match (path.exists(), extended) {
                    (false, None) => "there is no such file and no such built-in recipe".to_owned(),
                    (false, Some(_)) => format!("there is no file `{label}` and no such built-in recipe"),
                    (true, _) => format!("cannot read `{label}`: {why}"),
                };
                fault(&label, advise(ParamError::new(message), extended.map_or(label.as_str(), |(written, _)| written)))
            })?;
            let layer = Layer::text(&label, &text, Syntax::of(&label))?;
            let key = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display().to_string();
            let name = path.file_stem().map_or_else(|| label.clone(), |s| s.to_string_lossy().into_owned());
            Ok(Opened { layer, key, name, place: Place::Here(path.parent().unwrap_or(Path::new("")).to_owned()) })
        }
    }
}

/// The text of a file that may be a recipe.
fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MOST {
        return Err(format!("it is longer than {MOST} bytes, which no recipe is"));
    }
    String::from_utf8(bytes).map_err(|_| "it is no text in UTF-8".to_owned())
}

fn advise(error: ParamError, name: &str) -> ParamError {
    let all = builtins();
    let names = || all.iter().map(|b| b.name);
    match nearest(name, names()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None if all.is_empty() => error,
        None => error.help(format!("the built-in recipes are: {}", names().collect::<Vec<_>>().join(", "))),
    }
}

/// Makes the paths in a layer those that they mean from where it lies; refuses those that a stranger may not name.
fn settle(layer: &mut Layer, place: &Place) -> Result<(), RecipeError> {
    let folder = match place {
        Place::Here(folder) => {
            anchor(layer, folder);
            return Ok(());
        }
        Place::There(folder) => folder,
    };
    let mut faults = Vec::new();
    let on_hub = hub::leads(folder);
    paths(&mut layer.value, &mut |field, writes, path| {
        let table = field.starts_with("schedule.");
        let error = match writes {
            true => Some("says where things are written, which is not a recipe's from elsewhere to say".to_owned()),
            false if known_scheme(path) => None,
            false if !inside(path) => Some(strange(path)),
            false if !on_hub => Some(format!("`{path}` is beside a recipe that has no folder to fetch from")),
            false => {
                *path = format!("{folder}/{path}");
                None
            }
        };
        // A schedule's table is read as a file.
        let fetched = (error.is_none() && table && hub::leads(path)).then(|| hub::fetched(path, Needs::All));
        let error = match fetched {
            Some(Ok(file)) => {
                *path = file.display().to_string();
                None
            }
            Some(Err(e)) => Some(crate::message(&e)),
            None => error,
        };
        faults.extend(error.map(|message| (field, message)));
    });
    let fault = |(field, message): (String, String)| {
        let error = ParamError::new(message).help(format!("give your own: --set {field}=…"));
        Fault::new(layer.origin_of(&field, |m| m.value), &field, error)
    };
    let faults: Vec<Fault> = faults.into_iter().map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(RecipeError { faults }) }
}

fn strange(path: &str) -> String {
    format!(
        "`{path}` is a place of this machine, and the recipe is from elsewhere: such a one names places of the Hub (hf://…), inside the program (embedded:…), and beside itself"
    )
}

/// True for a path that stays in the folder it starts from, on any system.
fn inside(path: &str) -> bool {
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    !path.is_empty() && !path.contains(['\\', ':', '\0']) && Path::new(path).components().all(plain)
}

/// True for what is looked up elsewhere than in a folder.
fn known_scheme(path: &str) -> bool {
    hub::leads(path) || path.starts_with("embedded:")
}

/// Makes the paths in a layer absolute: relative ones are relative to the folder that it stands in.
pub(super) fn anchor(layer: &mut Layer, base: &Path) {
    paths(&mut layer.value, &mut |_, _, path| {
        if !path.is_empty()
            && !scheme(path)
            && let Ok(absolute) = std::path::absolute(base.join(&*path))
        {
            // `a/./b` is `a/b`; `..` stays, it may lead through a link.
            *path = absolute.display().to_string();
        }
    });
}

/// True for `embedded:…` and the like (a letter alone is a drive).
fn scheme(path: &str) -> bool {
    path.split_once(':').is_some_and(|(s, _)| s.len() > 1 && s.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Every path in a layer: the field, whether something is written there, and the path.
fn paths(tables: &mut Map<String, Value>, visit: &mut dyn FnMut(String, bool, &mut String)) {
    let mut at = |field: String, writes: bool, value: Option<&mut Value>| {
        if let Some(Value::String(path)) = value {
            visit(field, writes, path);
        }
    };
    for (table, field, writes) in [
        ("model", "path", false),
        ("data", "cache", true),
        ("output", "dir", true),
        ("preview", "autoencoder", false),
        ("train", "adapter_from", false),
    ] {
        at(format!("{table}.{field}"), writes, tables.get_mut(table).and_then(|t| t.get_mut(field)));
    }
    if let Some(Value::Object(files)) = tables.get_mut("model").and_then(|m| m.get_mut("files")) {
        files.iter_mut().for_each(|(name, file)| at(format!("model.files.{name}"), false, Some(file)));
    }
    let (mut schedule, mut field) = (tables.get_mut("schedule"), "schedule".to_owned());
    while let Some(table) = schedule {
        at(format!("{field}.file"), false, table.get_mut("file"));
        schedule = table.get_mut("of");
        field += ".of";
    }
    // `--set data.source.0.path=x` is a table with the key `0`.
    for (table, list, field) in [("data", "source", "path"), ("train", "token", "from")] {
        let name = |i: &dyn std::fmt::Display| format!("{table}.{list}.{i}.{field}");
        match tables.get_mut(table).and_then(|t| t.get_mut(list)) {
            Some(Value::Array(items)) => {
                items.iter_mut().enumerate().for_each(|(i, item)| at(name(&i), false, item.get_mut(field)));
            }
            Some(Value::Object(items)) => {
                items.iter_mut().for_each(|(i, item)| at(name(i), false, item.get_mut(field)));
            }
            _ => {}
        }
    }
}
