//! Loading: from a path to plugins in the registry.

use std::error::Error as _;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sconce_sdk::abi::{
    self, ABI_MAJOR, Report, SconceError, SconceHost, SconceLibrary, SconceStr, Who, host_table, read,
};
use sconce_sdk::health;
use sconce_sdk::laws::{self, Checked};
use sconce_sdk::registry::{self, Origin, Plugin};

use crate::error::{Fault, LawBroken, LoadError};
use crate::file::Looked;
use crate::plugin::{self, Described};

/// A library whose plugins are in the registry.
pub struct Library {
    path: &'static Path,
    sha256: &'static str,
    name: &'static str,
    version: &'static str,
    sdk: String,
    abi: (u32, u32),
    plugins: Vec<(&'static Plugin, Arc<Who>)>,
    skipped: Vec<Skipped>,
}

/// A plugin that this program cannot use.
#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why not.
    pub why: String,
}

static LOADED: Mutex<Vec<&'static Library>> = Mutex::new(Vec::new());

/// More plugins than this are a number that was read from the wrong place.
const MOST_PLUGINS: usize = 10_000;

/// The libraries that were loaded, in order.
pub fn loaded() -> Vec<&'static Library> {
    LOADED.lock().unwrap_or_else(|e| e.into_inner()).clone()
}

/// Loads a library and adds its plugins to the registry, all of them or none. One that is loaded already is given as it is.
pub fn load(path: &Path) -> Result<&'static Library, LoadError> {
    Looked::at(path).and_then(open).map_err(|fault| LoadError { path: path.to_owned(), fault })
}

/// The same for a file whose sha256, in hexadecimal digits, is known: its code runs only if it fits.
pub fn load_pinned(path: &Path, sha256: &str) -> Result<&'static Library, LoadError> {
    let looked = Looked::at(path).and_then(|file| match file.sha256.eq_ignore_ascii_case(sha256.trim()) {
        true => Ok(file),
        false => Err(Fault::Hash { found: file.sha256, wanted: sha256.trim().to_owned() }),
    });
    looked.and_then(open).map_err(|fault| LoadError { path: path.to_owned(), fault })
}

type Entry = unsafe extern "C" fn(*const SconceHost, *const SconceError) -> *const SconceLibrary;

fn open(file: Looked) -> Result<&'static Library, Fault> {
    // Held throughout: two threads that load one file load it once.
    let mut all = LOADED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(library) = all.iter().find(|l| l.path == file.path) {
        return if library.sha256 == file.sha256 { Ok(library) } else { Err(Fault::Changed) };
    }
    let entry = entry(&file.path)?;
    file.unchanged()?;
    let report = Report::default();
    let sink = report.sink();
    // SAFETY: the function is what the ABI says of its name, its arguments live as long as it says.
    let table = unsafe { entry(host_table(), &raw const sink) };
    if table.is_null() {
        return Err(Fault::Refused(report.finish()));
    }
    // SAFETY: the entry returns a table of the library's, for ever, as the ABI says.
    let library = unsafe { read_library(table, file)? };
    registry::add(library.plugins.iter().map(|(plugin, _)| *plugin).collect()).map_err(Fault::Taken)?;
    all.push(library);
    Ok(library)
}

/// The library's one function. From here on its code has run, and it stays.
fn entry(path: &PathBuf) -> Result<Entry, Fault> {
    #[cfg(unix)]
    // SAFETY: the library's initialisers run. That they do no harm is what whoever asked for the library vouches for. All
    // symbols are bound at once, so that a missing one is an error here and not the end of a run.
    let library = unsafe {
        use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
        Library::open(Some(path), RTLD_NOW | RTLD_LOCAL).map(libloading::Library::from)
    };
    #[cfg(not(unix))]
    // SAFETY: as above.
    let library = unsafe { libloading::Library::new(path) };
    // The loader's own words are in the source, where there is one.
    let words = |e: libloading::Error| e.source().map_or_else(|| e.to_string(), ToString::to_string);
    let library = library.map_err(|e| Fault::Loader(words(e)))?;
    // SAFETY: the ABI gives the function of this name this type.
    let entry = unsafe { library.get::<Entry>(abi::ENTRY.as_bytes()) }.map(|entry| *entry);
    // Threads and tables of a library may be in use from now on, whatever comes of it.
    std::mem::forget(library);
    entry.map_err(|_| Fault::NoEntry)
}

/// # Safety
/// The table is what a library's entry returned.
unsafe fn read_library(table: *const SconceLibrary, file: Looked) -> Result<&'static Library, Fault> {
    let in_library = |error| Fault::Table { place: "what `sconce_plugin` returns".into(), error };
    // SAFETY: by this function's contract.
    let table = unsafe { read(table).map_err(in_library)? };
    let text = |field: &str, text: SconceStr| {
        // SAFETY: texts in a library's tables live for ever.
        let text = unsafe { text.read(field) };
        text.map_err(|e| Fault::Text { place: "what `sconce_plugin` returns".into(), what: e.message })
    };
    let (sdk, name, version) = (text("sdk", table.sdk)?, text("name", table.name)?, text("version", table.version)?);
    if table.abi_major != ABI_MAJOR {
        return Err(Fault::Abi { major: table.abi_major, minor: table.abi_minor, sdk: sdk.to_owned() });
    }
    if name.is_empty() {
        return Err(Fault::Text { place: "what `sconce_plugin` returns".into(), what: "name is empty".into() });
    }
    if table.n_plugins > MOST_PLUGINS || (table.n_plugins > 0 && table.plugins.is_null()) {
        let what = format!("there cannot be {} plugins at {:?}", table.n_plugins, table.plugins);
        return Err(Fault::Text { place: "what `sconce_plugin` returns".into(), what });
    }
    let path: &'static Path = Box::leak(file.path.into_boxed_path());
    let sha256: &'static str = file.sha256.leak();
    let mut library = Library {
        path,
        sha256,
        name,
        version,
        sdk: sdk.to_owned(),
        abi: (table.abi_major, table.abi_minor),
        plugins: Vec::new(),
        skipped: Vec::new(),
    };
    for i in 0..table.n_plugins {
        // SAFETY: the library says that it has this many pointers there, each to a table that lives for ever.
        let described = unsafe { plugin::describe(*table.plugins.add(i), i, &library)? };
        match described {
            Described::Plugin(plugin, who) => library.plugins.push((plugin, who)),
            Described::Skipped(skipped) => library.skipped.push(skipped),
        }
    }
    if library.plugins.is_empty() {
        let reasons = library.skipped.iter().map(|s| format!("; the {} `{}`: {}", s.kind, s.name, s.why));
        return Err(Fault::Nothing(reasons.collect()));
    }
    Ok(Box::leak(Box::new(library)))
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}, sha256 {})", self.name, self.version, self.path.display(), self.sha256)
    }
}

impl Library {
    /// Its file, as a whole path.
    pub fn path(&self) -> &'static Path {
        self.path
    }

    /// Of its file, in hexadecimal digits.
    pub fn sha256(&self) -> &'static str {
        self.sha256
    }

    /// The crate that it is of, or what its author calls it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its version.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// What it was built with.
    pub fn sdk(&self) -> &str {
        &self.sdk
    }

    /// The ABI that it speaks, major and minor.
    pub fn abi(&self) -> (u32, u32) {
        self.abi
    }

    /// Its plugins, in the registry now.
    pub fn plugins(&self) -> impl Iterator<Item = &'static Plugin> {
        self.plugins.iter().map(|(plugin, _)| *plugin)
    }

    /// Its plugins that this program cannot use, of which it should tell.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The first failure of any of its plugins since it was loaded.
    pub fn fault(&self) -> Option<health::Fault> {
        self.plugins.iter().find_map(|(_, who)| who.fault())
    }

    /// Runs the laws of their kinds on its plugins: what `--check-plugins` does. A failure, such as a panic or NaN, is told
    /// before the law that it breaks.
    pub fn check_laws(&self) -> Result<Vec<(&'static Plugin, Checked)>, LawBroken> {
        let mut all = Vec::new();
        for (plugin, who) in &self.plugins {
            let before = who.fault();
            let Some(checked) = laws::check(plugin) else { continue };
            if let Some(fault) = who.fault().filter(|_| before.is_none()) {
                return Err(LawBroken { plugin: who.to_string(), law: fault.0.replace(&format!("{who}: "), "") });
            }
            match checked {
                Ok(checked) => all.push((*plugin, checked)),
                Err(law) => return Err(LawBroken { plugin: who.to_string(), law }),
            }
        }
        Ok(all)
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::Library { path: self.path, sha256: self.sha256 }
    }

    /// A plugin of its, for messages.
    pub(crate) fn who(&self, kind: &str, name: &str) -> Arc<Who> {
        Who::new(format!("the {kind} `{name}` of {} {} ({})", self.name, self.version, self.path.display()))
    }
}
