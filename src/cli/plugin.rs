//! Plugins of libraries: those that the user has installed, and those of one call. A library is code, so that none is loaded
//! that the user did not name; a recipe cannot.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sconce_dynamic::{Library, LoadError, load, load_pinned};
use sconce_nn::weights::write_atomic;
use serde::{Deserialize, Serialize};

use super::{Failure, print};

/// Install, list or remove plugins that are libraries.
///
/// An installed library is loaded by every command, as long as it is the same file to the bit. One of a single call is named by
/// `--plugin` instead. A recipe never loads anything: it can say what it needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce plugin add target/release/libmy_plugin.so
  sconce plugin list
  sconce plugin remove my-plugin
  sconce train my.toml --plugin target/release/libmy_plugin.so --check-plugins")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Hold a library to the laws of its plugins, and install it for this user.
    Add {
        /// The library: `.so`, `.dylib` or `.dll`.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List the installed libraries with their plugins.
    List,
    /// Remove an installed library.
    Remove {
        /// The name of its crate.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Libraries of one call, for every command.
#[derive(Debug, clap::Args)]
pub struct Loaded {
    /// Load the plugins of a library, if it has the sha256 after the `#` where one is given. May be repeated.
    #[arg(long, value_name = "FILE[#SHA256]", global = true)]
    plugin: Vec<PluginArg>,

    /// Hold the plugins of all libraries to the laws of their kinds before anything else.
    #[arg(long, global = true)]
    check_plugins: bool,
}

/// A library, with its hash where it must have one.
#[derive(Clone, Debug)]
struct PluginArg {
    file: PathBuf,
    sha256: Option<String>,
}

impl FromStr for PluginArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, sha256) = match text.rsplit_once('#') {
            Some((file, hash)) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
                (file, Some(hash.to_owned()))
            }
            Some((_, hash)) if hash.len() > 30 => return Err("a sha256 has 64 hexadecimal digits".into()),
            _ => (text, None),
        };
        Ok(Self { file: file.into(), sha256 })
    }
}

/// The libraries that the user has installed: file name and hash by the name of the crate.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Installed {
    #[serde(default)]
    library: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: String,
    sha256: String,
    version: String,
}

const LIST: &str = "plugins.json";

impl Loaded {
    /// Loads what is installed, and what the command line names. What is installed and cannot be loaded is told, and no other
    /// command than one that needs it fails for it.
    pub(super) fn load(&self, command: &super::Command) -> Result<(), Failure> {
        if !matches!(command, super::Command::Plugin(_)) {
            for (name, entry) in installed()?.library {
                if let Err(e) = load_pinned(&folder()?.join(&entry.file), &entry.sha256) {
                    eprintln!("warning: the installed plugin `{name}` is not loaded: {e}\n  help: {}", e.help());
                }
            }
        }
        for PluginArg { file, sha256 } in &self.plugin {
            let library = match sha256 {
                Some(hash) => load_pinned(file, hash),
                None => load(file),
            };
            skipped(library.map_err(refused)?);
        }
        if self.check_plugins {
            for library in sconce_dynamic::loaded() {
                checked(library)?;
            }
        }
        Ok(())
    }
}

fn refused(error: LoadError) -> Failure {
    let help = error.help();
    Failure::files(error).help(help)
}

fn skipped(library: &Library) {
    for skipped in library.skipped() {
        eprintln!(
            "warning: {}: the {} `{}` is not used: {}",
            library.path().display(),
            skipped.kind,
            skipped.name,
            skipped.why
        );
    }
}

fn checked(library: &Library) -> Result<(), Failure> {
    for (plugin, checked) in library.check_laws().map_err(Failure::files)? {
        let cases = checked.tables.len();
        eprintln!("{} {}: keeps the laws, in {cases} forms, {:?} a call", plugin.kind, plugin.name, checked.per_call);
        checked.notes.iter().for_each(|note| eprintln!("  note: {note}"));
    }
    Ok(())
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Add { file } => add(&file),
        Command::List => list(),
        Command::Remove { name } => remove(&name),
    }
}

fn add(file: &Path) -> Result<(), Failure> {
    let library = load(file).map_err(refused)?;
    skipped(library);
    checked(library)?;
    let ending = file.extension().unwrap_or_default().to_string_lossy();
    let to = format!("{}-{}.{ending}", library.name(), library.version());
    if to.contains(['/', '\\']) {
        return Err(Failure::files(format!("the library calls itself `{}`, which is no file's name", library.name())));
    }
    let bytes = std::fs::read(file).map_err(|e| Failure::files(format!("{}: {e}", file.display())))?;
    write_atomic(&folder()?.join(&to), |out| out.write_all(&bytes)).map_err(Failure::run)?;
    let mut installed = installed()?;
    let entry = Entry { file: to, sha256: library.sha256().to_owned(), version: library.version().to_owned() };
    let file = entry.file.clone();
    let before = installed.library.insert(library.name().to_owned(), entry);
    save(&installed)?;
    if let Some(old) = before.filter(|old| old.file != file) {
        let _ = std::fs::remove_file(folder()?.join(old.file)); // what is not listed is not loaded
    }
    let names = library.plugins().map(|p| format!("{} {}", p.kind, p.name)).collect::<Vec<_>>().join(", ");
    print(&format!("installed {} {}: {names}\n", library.name(), library.version()))
}

fn list() -> Result<(), Failure> {
    let installed = installed()?;
    if installed.library.is_empty() {
        return print(&format!("no library is installed in {}\n", folder()?.display()));
    }
    for (name, Entry { file, sha256, version }) in &installed.library {
        print(&format!("{name} {version}, sha256 {sha256}\n"))?;
        match load_pinned(&folder()?.join(file), sha256) {
            Ok(library) => {
                for plugin in library.plugins() {
                    print(&format!("  {} {}\n", plugin.kind, plugin.name))?;
                }
            }
            Err(e) => print(&format!("  not loaded: {e}\n"))?,
        }
    }
    Ok(())
}

fn remove(name: &str) -> Result<(), Failure> {
    let mut installed = installed()?;
    let Some(entry) = installed.library.remove(name) else {
        let names = installed.library.keys().cloned().collect::<Vec<_>>().join(", ");
        let there = if names.is_empty() { "none is".to_owned() } else { format!("there are: {names}") };
        return Err(Failure::usage(format!("no library `{name}` is installed")).help(there));
    };
    save(&installed)?;
    match std::fs::remove_file(folder()?.join(&entry.file)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::run(format!("{}: {e}", entry.file))),
        _ => print(&format!("removed {name} {}\n", entry.version)),
    }
}

/// `$SCONCE_PLUGINS`, or `sconce/plugins` where the system keeps a user's data.
fn folder() -> Result<PathBuf, Failure> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let data =
        || var("XDG_DATA_HOME").or_else(|| var("LOCALAPPDATA")).or_else(|| Some(var("HOME")?.join(".local/share")));
    let found = var("SCONCE_PLUGINS").or_else(|| Some(data()?.join("sconce/plugins")));
    found.ok_or_else(|| Failure::usage("no folder for plugins: set SCONCE_PLUGINS or HOME"))
}

fn installed() -> Result<Installed, Failure> {
    let Ok(folder) = folder() else { return Ok(Installed::default()) };
    let path = folder.join(LIST);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| Failure::files(format!("{}: {e}", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Installed::default()),
        Err(e) => Err(Failure::files(format!("{}: {e}", path.display()))),
    }
}

fn save(installed: &Installed) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(installed).map_err(|e| Failure::run(e.to_string()))? + "\n";
    write_atomic(&folder()?.join(LIST), |out| out.write_all(text.as_bytes())).map_err(Failure::run)
}
