//! Where a recipe's paths lead. `hf://…` leads to the Hub ([`crate::hub`]); `embedded:NAME` or `embedded:NAME/folder` are files inside the program, unpacked once into the user's
//! cache folder, under a name made from their content, so that everything downstream sees ordinary folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Error, Result, bail};
use sconce_nn::weights::write_atomic;

use crate::digest::Digest;
use crate::hub::{self, Needs};

/// A folder inside the program, registered by `inventory::submit!`.
pub struct Embedded {
    /// The word after `embedded:`.
    pub name: &'static str,
    /// Relative paths and contents.
    pub files: fn() -> Vec<(String, &'static [u8])>,
}

inventory::collect!(Embedded);

/// The folder that a recipe's path means: an embedded one unpacked, one of the Hub fetched, a relative one under `base`.
pub fn locate(path: &str, base: &Path) -> Result<PathBuf> {
    if hub::leads(path) {
        return hub::fetched(path, Needs::All);
    }
    match path.strip_prefix("embedded:") {
        None => Ok(base.join(path)),
        Some(inside) => {
            let (name, rest) = inside.split_once('/').unwrap_or((inside, ""));
            Ok(unpack(name)?.join(rest))
        }
    }
}

fn unpack(name: &str) -> Result<PathBuf> {
    let all = || inventory::iter::<Embedded>.into_iter();
    let Some(embedded) = all().find(|e| e.name == name) else {
        let names: Vec<&str> = all().map(|e| e.name).collect();
        bail!("nothing called `{name}` is embedded in this program; there is: {}", names.join(", "));
    };
    let files = (embedded.files)();
    let all = files.iter().fold(Digest::default(), |all, (path, bytes)| all.part(path.as_bytes()).part(bytes)).hex();
    let folder = cache_home()?.join("sconce").join("embedded").join(format!("{name}-{}", &all[..12]));
    for (path, bytes) in files {
        let to = folder.join(&path);
        if std::fs::metadata(&to).is_ok_and(|m| m.len() == bytes.len() as u64) {
            continue;
        }
        write_atomic(&to, |out| out.write_all(bytes))?;
    }
    Ok(folder)
}

/// What makes a model folder of a file, registered by `inventory::submit!`.
pub struct Opener {
    /// Whether a file of this name is its matter.
    pub opens: fn(&Path) -> bool,
    /// The folder of a file, with further files for some components.
    pub folder: fn(&Path, &BTreeMap<String, PathBuf>) -> Result<PathBuf>,
}

inventory::collect!(Opener);

/// The model folder that a recipe means: a folder, or the one that is made of a file and of `files`, by component. Of the Hub
/// comes what is needed.
pub fn locate_model(path: &str, files: &BTreeMap<String, PathBuf>, base: &Path, needs: Needs) -> Result<PathBuf> {
    let found = match hub::leads(path) {
        true => hub::fetched(path, needs)?,
        false => locate(path, base)?,
    };
    if found.is_file() {
        let here = |(name, file): (&String, &PathBuf)| Ok((name.clone(), hub::here(file, Needs::All)?));
        let files = files.iter().map(here).collect::<Result<_>>()?;
        return match inventory::iter::<Opener>.into_iter().find(|opener| (opener.opens)(&found)) {
            Some(opener) => (opener.folder)(&found, &files),
            None => bail!(
                "`{}` is no model: expected a diffusers folder (the one that holds model_index.json) or a .safetensors file",
                found.display()
            ),
        };
    }
    match files.keys().next() {
        None => Ok(found),
        Some(name) => bail!("model.files.{name}: components are named beside a single file, and `{path}` is none"),
    }
}

/// What a file is known to be the same by, without reading it.
pub fn identity(path: &Path) -> Result<[String; 3]> {
    let meta = std::fs::metadata(path).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))?;
    let time = meta.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    let state = format!("{} {:?}", meta.len(), time.map(|t| t.as_nanos()));
    Ok([path.display().to_string(), state, env!("CARGO_PKG_VERSION").to_owned()])
}

/// A folder under `home` that is made once for what `identity` tells: `write` fills it, and it appears whole or not at all.
pub fn once(home: &Path, stem: &str, identity: &[String], write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let digest = identity.iter().fold(Digest::default(), |all, part| all.part(part.as_bytes())).hex();
    let folder = home.join(format!("{stem}-{}", &digest[..12]));
    if folder.is_dir() {
        return Ok(folder);
    }
    match whole(&folder, write) {
        Err(_) if folder.is_dir() => Ok(folder), // another run was faster
        made => made.map(|()| folder),
    }
}

/// A folder that appears whole or not at all: `write` fills it under another name.
pub fn whole(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut tmp = folder.as_os_str().to_owned();
    tmp.push(format!(".{}.tmp", std::process::id()));
    let tmp = PathBuf::from(tmp);
    let _ = std::fs::remove_dir_all(&tmp);
    let renamed = |()| std::fs::rename(&tmp, folder).map_err(|e| Error::Msg(format!("{}: {e}", folder.display())));
    let made = write(&tmp).and_then(renamed);
    if made.is_err() {
        let _ = std::fs::remove_dir_all(&tmp);
    }
    made
}

/// `$SCONCE_CACHE`, `$XDG_CACHE_HOME`, or `~/.cache`.
pub fn cache_home() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("SCONCE_CACHE")
        .or_else(|| var("XDG_CACHE_HOME"))
        .or_else(|| var("HOME").or_else(|| var("USERPROFILE")).map(|h| h.join(".cache")))
        .ok_or_else(|| Error::Msg("no cache folder: set SCONCE_CACHE, XDG_CACHE_HOME or HOME".into()))
}
