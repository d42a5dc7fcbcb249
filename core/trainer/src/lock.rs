//! A lock: everything beside the recipe's own text that a run depends on, each by its name and its hash. Two runs of one lock on
//! the same kind of machine are the same run, bit for bit, and where they are not, a lock tells which line differs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use candle_core::{Device, Error, Result};
use sconce_sdk::registry::{self, Origin};
use serde_json::Value;

use crate::digest::{Digest, of_file};
use crate::hub::{self, Needs, of_model};
use crate::recipe::Resolved;

/// Tables of names and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock(BTreeMap<String, BTreeMap<String, String>>);

/// What the file says of itself.
const HEAD: &str = "# What a run of the recipe depends on, by `sconce lock`. `sconce train` holds itself against it.\n";

impl Lock {
    /// Of a recipe, its pictures (by [`Set::identity`]) and a device. Hashes the model's files.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of(resolved: &Resolved, data: &str, device: &Device) -> Result<Self> {
        let recipe = &resolved.recipe;
        let run = BTreeMap::from([
            ("sconce".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("machine".to_owned(), machine(device)),
            ("seed".to_owned(), recipe.train.seed.to_string()),
            ("recipe".to_owned(), Digest::of(&[resolved.portable_toml().as_bytes()])),
        ]);
        let mut files = BTreeMap::new();
        let mut take = |name: String, path: &Path| -> Result<()> {
            files.insert(name, of_file(path)?);
            Ok(())
        };
        for (name, path) in model_files(resolved)? {
            take(name, &path)?;
        }
        let others = recipe.train.token.iter().filter_map(|token| Some((token.text.as_str(), token.from.as_ref()?)));
        for (what, path) in recipe.train.adapter_from.iter().map(|path| ("adapter_from", path)).chain(others) {
            take(what.to_owned(), &hub::here(Path::new(path), Needs::Weights)?)?;
        }
        let data = BTreeMap::from([("identity".to_owned(), data.to_owned())]);
        let mut plugins = BTreeMap::new();
        for (kind, table) in &resolved.tables() {
            used(kind, table, &mut plugins);
        }
        let tables = [("run", run), ("files", files), ("data", data), ("plugins", plugins)];
        Ok(Self(tables.into_iter().map(|(name, table)| (name.to_owned(), table)).collect()))
    }

    /// [`Lock::of`] a recipe whose pictures are read for it.
    ///
    /// # Errors
    /// If a file or a picture cannot be read.
    pub fn of_files(resolved: &Resolved, device: &Device) -> Result<Self> {
        Self::of(resolved, &resolved.pictures()?.identity(), device)
    }

    /// From a lock's text.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let tables = toml::from_str(text).map_err(|e| Error::Msg(format!("not a lock: {}", e.message())))?;
        Ok(Self(tables))
    }

    /// As a file.
    pub fn to_toml(&self) -> String {
        let tables = self.0.iter().map(|(name, table)| {
            let lines = table.iter().map(|(name, value)| format!("{} = {}\n", quoted(name), quoted(value)));
            format!("\n[{name}]\n{}", lines.collect::<String>())
        });
        HEAD.to_owned() + &tables.collect::<String>()
    }

    /// Refuses to be another lock than the one that is wanted.
    ///
    /// # Errors
    /// With the lines that differ.
    pub fn held_to(&self, wanted: &Self) -> Result<()> {
        let lines = wanted.differences(self);
        if lines.is_empty() {
            return Ok(());
        }
        Err(Error::Msg(format!(
            "the run would not be the locked one:\n    {}\n  put that back, make the lock anew (`sconce lock`), or run without \
             it (--unlocked)",
            lines.join("\n    ")
        )))
    }

    /// The lines in which another one differs: what this one has, and what the other.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let none = BTreeMap::new();
        let mut all = Vec::new();
        let tables: std::collections::BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        for table in tables {
            let (own, its) = (self.0.get(table).unwrap_or(&none), other.0.get(table).unwrap_or(&none));
            let names: std::collections::BTreeSet<&String> = own.keys().chain(its.keys()).collect();
            for name in names.into_iter().filter(|name| own.get(*name) != its.get(*name)) {
                let value = |of: &BTreeMap<String, String>| of.get(name).map_or("nothing".into(), |v| short(v));
                all.push(format!("{table}.{name}: locked as {}, now {}", value(own), value(its)));
            }
        }
        all
    }
}

/// A lock in the making: the model's files are hashed beside a run, where nothing waits for it.
pub struct Locking(JoinHandle<Result<Lock>>);

impl Locking {
    /// Begins.
    pub fn start(resolved: &Resolved, data: &str, device: &Device) -> Self {
        let (resolved, data, device) = (resolved.clone(), data.to_owned(), device.clone());
        Self(std::thread::spawn(move || Lock::of(&resolved, &data, &device)))
    }

    /// Waits for it.
    ///
    /// # Errors
    /// Those of [`Lock::of`].
    pub fn end(self) -> Result<Lock> {
        let died = |_| Error::Msg("the thread that hashes the model's files died".into());
        self.0.join().map_err(died)?
    }
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string() // TOML's basic strings escape as JSON's do
}

/// A hash by its first digits.
fn short(value: &str) -> String {
    let hash = value.len() == 64 && value.bytes().all(|b| b.is_ascii_hexdigit());
    if hash { format!("{}…", &value[..12]) } else { value.to_owned() }
}

/// What of a machine may change the last bits of a sum: the width of the CPU's registers (products of matrices are cut into the
/// same parts on all of them), or which GPU it is.
fn machine(device: &Device) -> String {
    let what = match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => cuda.cuda_stream().context().name().unwrap_or_else(|_| "gpu".to_owned()),
        _ => "cpu".to_owned(),
    };
    #[cfg(target_arch = "x86_64")]
    let simd = match (std::is_x86_feature_detected!("avx512f"), std::is_x86_feature_detected!("avx2")) {
        (true, _) => " avx512",
        (_, true) => " avx2",
        _ => "",
    };
    #[cfg(not(target_arch = "x86_64"))]
    let simd = "";
    format!("{} {}{simd} {what}", std::env::consts::ARCH, std::env::consts::OS)
}

/// The files that a model is read from, by their names in it.
fn model_files(resolved: &Resolved) -> Result<Vec<(String, PathBuf)>> {
    let model = &resolved.recipe.model;
    let given = match hub::leads(&model.path) {
        true => hub::fetched(&model.path, Needs::Model(&resolved.left_out()))?,
        false => PathBuf::from(&model.path),
    };
    let mut files = Vec::new();
    if given.is_file() {
        let name = given.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((name, given));
        for (component, file) in &model.files {
            let file = hub::here(file, Needs::All)?;
            if !file.is_dir() {
                files.push((component.clone(), file));
                continue;
            }
            for inner in std::fs::read_dir(&file).map_err(|e| Error::Msg(format!("{}: {e}", file.display())))?.flatten()
            {
                files.push((format!("{component}/{}", inner.file_name().to_string_lossy()), inner.path()));
            }
        }
        return Ok(files);
    }
    let (folder, left_out) = (&resolved.model_dir, resolved.left_out());
    let failed = |e: std::io::Error| Error::Msg(format!("{}: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let mut all = vec![path.clone()];
        if path.is_dir() {
            all = std::fs::read_dir(&path).map_err(failed)?.flatten().map(|e| e.path()).collect();
        }
        for path in all {
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            if of_model(&name, &left_out) {
                files.push((name, path));
            }
        }
    }
    Ok(files)
}

/// The plugins that a table names, and those within it, with the crates that have them.
fn used(kind: &str, table: &Value, plugins: &mut BTreeMap<String, String>) {
    let Value::Object(fields) = table else { return };
    if let Some(name) = fields.get("type").and_then(Value::as_str)
        && let Ok(plugin) = registry::find(kind, name)
    {
        let file = match plugin.origin {
            Origin::Linked => String::new(),
            Origin::Library { sha256, .. } => format!(", sha256 {sha256}"),
        };
        plugins.insert(format!("{kind} {name}"), format!("{} {}{file}", plugin.krate, plugin.version));
    }
    for (field, value) in fields {
        // What a plugin wraps is of its own kind; what a plain table holds is called by its kind.
        let inner = if field == "of" { kind } else { field.as_str() };
        used(inner, value, plugins);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written_and_tells_what_differs() -> Result<()> {
        let hash = "ab".repeat(32);
        let table = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let lock = Lock(BTreeMap::from([
            ("run".to_owned(), table("sconce", "0.1.0")),
            ("files".to_owned(), table("unet/a \"b\".safetensors", &hash)),
        ]));
        assert_eq!(Lock::parse(&lock.to_toml())?, lock);
        let mut other = lock.clone();
        other.0.insert("files".to_owned(), table("unet/a \"b\".safetensors", "x"));
        other.0.insert("data".to_owned(), table("identity", "y"));
        assert_eq!(
            lock.differences(&other),
            [
                "data.identity: locked as nothing, now y",
                "files.unet/a \"b\".safetensors: locked as abababababab…, now x"
            ]
        );
        assert!(lock.differences(&lock).is_empty());
        assert!(Lock::parse("x = 1").is_err());
        Ok(())
    }
}
