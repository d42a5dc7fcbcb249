//! Files inside the program: `embedded:NAME` or `embedded:NAME/folder` wherever a recipe takes a path. They are unpacked once into the user's
//! cache folder, under a name made from their content, so that everything downstream sees ordinary folders.

use std::path::{Path, PathBuf};

use candle_core::{Error, Result, bail};
use sconce_nn::weights::write_atomic;

use crate::digest::Digest;

/// A folder inside the program, registered by `inventory::submit!`.
pub struct Embedded {
    /// The word after `embedded:`.
    pub name: &'static str,
    /// Relative paths and contents.
    pub files: fn() -> Vec<(String, &'static [u8])>,
}

inventory::collect!(Embedded);

/// The folder that a recipe's path means: an embedded one unpacked, a relative one under `base`.
pub fn locate(path: &str, base: &Path) -> Result<PathBuf> {
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

/// `$SCONCE_CACHE`, `$XDG_CACHE_HOME`, or `~/.cache`.
fn cache_home() -> Result<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    var("SCONCE_CACHE")
        .or_else(|| var("XDG_CACHE_HOME"))
        .or_else(|| var("HOME").or_else(|| var("USERPROFILE")).map(|h| h.join(".cache")))
        .ok_or_else(|| Error::Msg("no cache folder: set SCONCE_CACHE, XDG_CACHE_HOME or HOME".into()))
}
