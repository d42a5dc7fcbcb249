//! The registry: what [`register!`](crate::register) declares and what libraries bring, found by kind and name. One declaration feeds parsing,
//! `sconce list`, `sconce show`, the docs and the JSON Schema.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::names::nearest;

/// A kind of plugin: implemented for the trait object (`dyn Weighting`).
pub trait Kind: Send + Sync + 'static {
    /// The word in recipes: the name of its table.
    const NAME: &'static str;
    /// What a plugin of this kind decides.
    const ABOUT: &'static str;

    /// An object of another trait under the same word, as one of this: `None` where it is none of those.
    fn adapted(_object: Object) -> Option<Arc<Self>> {
        None
    }
}

/// One registered plugin.
pub struct Plugin {
    /// The kind's word.
    pub kind: &'static str,
    /// What the kind decides.
    pub about: &'static str,
    /// The name in `type = "name"`.
    pub name: &'static str,
    /// Other accepted names (those of other programs).
    pub aliases: &'static [&'static str],
    /// The crate that registers it.
    pub krate: &'static str,
    /// That crate's version.
    pub version: &'static str,
    /// The JSON Schema of its parameters, with its documentation.
    pub schema: &'static (dyn Fn() -> Schema + Send + Sync),
    /// Makes it from its parameters (a JSON object without `type`).
    pub build: &'static (dyn Fn(Value) -> Result<Built, ParamError> + Send + Sync),
    /// How it came into this program.
    pub origin: Origin,
}

inventory::collect!(Plugin);

/// How a plugin came into the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Its crate is linked in.
    Linked,
    /// Its library was loaded.
    Library {
        /// The library's file.
        path: &'static Path,
        /// Of that file, in hexadecimal digits.
        sha256: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linked => f.write_str("linked in"),
            Self::Library { path, sha256 } => write!(f, "{}, sha256 {sha256}", path.display()),
        }
    }
}

impl Plugin {
    /// Who has it, for messages: "min-crate 0.1.0", with the library's path where it is from one.
    pub fn owner(&self) -> String {
        match self.origin {
            Origin::Linked => format!("{} {}", self.krate, self.version),
            Origin::Library { path, .. } => format!("{} {} ({})", self.krate, self.version, path.display()),
        }
    }

    /// Its name and its aliases.
    fn words(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// An `Arc<dyn Kind>` of some kind, in a box.
pub type Object = Box<dyn Any + Send + Sync>;

/// A plugin made from parameters.
pub struct Built {
    /// The plugin.
    pub object: Object,
    /// The parameters with every default filled in.
    pub params: Value,
}

/// Why a plugin could not be made from a table.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{message}{}", path_prefix(.path), help_suffix(.help))]
pub struct ParamError {
    /// The field at fault, from the plugin's table inwards: `["of", "beta_start"]`.
    pub path: Vec<String>,
    /// What is wrong.
    pub message: String,
    /// What to do: the nearest valid name, the accepted values.
    pub help: Option<String>,
}

fn path_prefix(path: &[String]) -> String {
    if path.is_empty() { String::new() } else { format!("`{}`: ", path.join(".")) }
}

fn help_suffix(help: &Option<String>) -> String {
    help.as_ref().map(|h| format!(" ({h})")).unwrap_or_default()
}

impl ParamError {
    /// An error about the table as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { path: Vec::new(), message: message.into(), help: None }
    }

    /// The same error, seen from one table further out.
    pub fn within(mut self, field: impl Into<String>) -> Self {
        self.path.insert(0, field.into());
        self
    }

    /// With advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// Plugins that are not of linked crates.
static ADDED: RwLock<Vec<&'static Plugin>> = RwLock::new(Vec::new());

/// Every plugin, sorted by kind and name. A (kind, name) that two crates register is an error that names both.
pub fn all() -> Result<Vec<&'static Plugin>, ParamError> {
    sorted(&ADDED.read().unwrap_or_else(|e| e.into_inner()))
}

fn sorted(added: &[&'static Plugin]) -> Result<Vec<&'static Plugin>, ParamError> {
    let linked = inventory::iter::<Plugin>.into_iter();
    let mut plugins: Vec<&'static Plugin> = linked.chain(added.iter().copied()).collect();
    plugins.sort_by_key(|p| (p.kind, p.name, p.krate));
    match plugins.windows(2).find(|pair| (pair[0].kind, pair[0].name) == (pair[1].kind, pair[1].name)) {
        Some(pair) => Err(twice(pair[0].name, pair[0], pair[1])),
        None => Ok(plugins),
    }
}

/// Adds the plugins of a library to those of the linked crates: all of them, or, where a name is taken, none.
pub fn add(plugins: Vec<&'static Plugin>) -> Result<(), ParamError> {
    let mut added = ADDED.write().unwrap_or_else(|e| e.into_inner());
    let there = sorted(&added)?;
    for (i, plugin) in plugins.iter().enumerate() {
        let others = there.iter().chain(&plugins[..i]).filter(|p| p.kind == plugin.kind);
        for other in others {
            if let Some(word) = plugin.words().find(|word| other.words().any(|w| w == *word)) {
                return Err(twice(word, other, plugin));
            }
        }
    }
    added.extend(plugins);
    Ok(())
}

fn twice(word: &str, one: &Plugin, other: &Plugin) -> ParamError {
    let message = format!(
        "the {} `{word}` is registered twice, by {} and by {}: leave one of them out",
        one.kind,
        one.owner(),
        other.owner(),
    );
    ParamError::new(message)
}

/// A name that lives as long as the program, as those of plugins do.
pub(crate) fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = name.to_owned().leak();
    names.insert(name);
    name
}

/// The plugins of one kind.
pub fn of_kind(kind: &str) -> Result<Vec<&'static Plugin>, ParamError> {
    Ok(all()?.into_iter().filter(|p| p.kind == kind).collect())
}

/// The plugin `name` of a kind, by its name or an alias.
pub fn find(kind: &str, name: &str) -> Result<&'static Plugin, ParamError> {
    let plugins = of_kind(kind)?;
    if let Some(p) = plugins.iter().find(|p| p.name == name || p.aliases.contains(&name)) {
        return Ok(p);
    }
    let names: Vec<&str> = plugins.iter().map(|p| p.name).collect();
    let error = ParamError::new(format!("there is no {kind} `{name}`")).within("type");
    if names.is_empty() {
        return Err(error.help("none is linked in here: `--plugin FILE` loads a library that has it"));
    }
    Err(match nearest(name, names.iter().copied()) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("there are: {}", names.join(", "))),
    })
}

/// The object inside a [`Built`], as its kind.
pub fn downcast<K: Kind + ?Sized>(built: Built) -> Result<(Arc<K>, Value), ParamError> {
    match built.object.downcast::<Arc<K>>() {
        Ok(object) => Ok((*object, built.params)),
        Err(object) => match K::adapted(object) {
            Some(object) => Ok((object, built.params)),
            None => Err(ParamError::new(format!("a plugin is registered as a {} that it is not", K::NAME))),
        },
    }
}

/// Parses parameters, for [`register!`](crate::register): typed, with the path of the field at fault.
pub fn parse<P: DeserializeOwned + Serialize + JsonSchema>(params: Value) -> Result<(P, Value), ParamError> {
    let parsed: P = serde_path_to_error::deserialize(params).map_err(|e| {
        let path = e.path().iter().filter_map(segment).collect();
        crate::choice::unfold(path, &e.into_inner().to_string())
    })?;
    let resolved = serde_json::to_value(&parsed)
        .map_err(|e| ParamError::new(format!("the parameters cannot be written back: {e}")))?;
    Ok((parsed, resolved))
}

fn segment(s: &serde_path_to_error::Segment) -> Option<String> {
    use serde_path_to_error::Segment::{Enum, Map, Seq, Unknown};
    match s {
        Map { key } => Some(key.clone()),
        Seq { index } => Some(index.to_string()),
        Enum { .. } | Unknown => None,
    }
}

/// Registers a plugin: the kind's trait, its name in recipes, its parameter struct, and other names it answers to.
///
/// The struct needs `Serialize`, `Deserialize` (with `deny_unknown_fields`), `JsonSchema`, a doc comment, one for each
/// field, and the kind's trait.
#[macro_export]
macro_rules! register {
    ($kind:ident, $name:literal, $params:ty $(, aliases = [$($alias:literal),* $(,)?])? $(,)?) => {
        $crate::inventory::submit! {
            $crate::registry::Plugin {
                kind: <dyn $kind as $crate::registry::Kind>::NAME,
                about: <dyn $kind as $crate::registry::Kind>::ABOUT,
                name: $name,
                aliases: &[$($($alias),*)?],
                krate: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                schema: &|| $crate::schemars::schema_for!($params),
                build: &|params| {
                    let (object, params) = $crate::registry::parse::<$params>(params)?;
                    let object: std::sync::Arc<dyn $kind> = std::sync::Arc::new(object);
                    Ok($crate::registry::Built { object: Box::new(object), params })
                },
                origin: $crate::registry::Origin::Linked,
            }
        }
    };
}
