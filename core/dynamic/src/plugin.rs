//! One plugin of a library: from its table to an entry of the registry.

use std::ffi::c_void;
use std::sync::Arc;

use sconce_sdk::abi::{
    Crossing, Report, SCONCE_OK, SCONCE_PANICKED, SconceObject, SconcePlugin, SconceStr, TextBuffer, Who, crossing,
    read,
};
use sconce_sdk::registry::{Built, ParamError, Plugin};
use sconce_sdk::schemars::Schema;
use sconce_sdk::serde_json::{self, Value};

use crate::error::Fault;
use crate::library::{Library, Skipped};

/// A plugin as its library describes it.
pub enum Described {
    /// One for the registry.
    Plugin(&'static Plugin, Arc<Who>),
    /// One that this program cannot use.
    Skipped(Skipped),
}

/// Reads plugin `i` of a library.
///
/// # Safety
/// `table` is null, or a table of any version of the ABI's that lives for ever, as do its texts.
pub unsafe fn describe(table: *const SconcePlugin, i: usize, library: &Library) -> Result<Described, Fault> {
    let place = format!("plugin {} of {}", i + 1, library.name());
    // SAFETY: by this function's contract.
    let plugin = unsafe { read(table) }.map_err(|error| Fault::Table { place: place.clone(), error })?;
    let text = |what: &str, text: SconceStr| {
        // SAFETY: by this function's contract.
        let text: Result<&'static str, ParamError> = unsafe { text.read(what) };
        text.map_err(|e| Fault::Text { place: place.clone(), what: e.message })
    };
    let kind = named(text("its kind", plugin.kind)?).map_err(|what| Fault::Text { place: place.clone(), what })?;
    let name = named(text("its name", plugin.name)?).map_err(|what| Fault::Text { place: place.clone(), what })?;
    let place = format!("the {kind} `{name}`");
    let wrong = |what: String| Fault::Text { place: place.clone(), what };
    if plugin.n_aliases > 100 || (plugin.n_aliases > 0 && plugin.aliases.is_null()) {
        return Err(wrong(format!("there cannot be {} aliases at {:?}", plugin.n_aliases, plugin.aliases)));
    }
    let alias = |i| {
        // SAFETY: the library says that it has this many texts there.
        let alias = text("an alias", unsafe { *plugin.aliases.add(i) })?;
        named(alias).map_err(wrong)
    };
    let aliases: Vec<&'static str> = (0..plugin.n_aliases).map(alias).collect::<Result<_, _>>()?;
    let Some(crossing) = crossing(kind) else {
        let why =
            "plugins of this kind cannot be in a library, or only for a newer sconce: link its crate in".to_owned();
        return Ok(Described::Skipped(Skipped { kind: kind.to_owned(), name: name.to_owned(), why }));
    };
    // SAFETY: by this function's contract.
    unsafe { crossing.check(plugin.table) }.map_err(|error| Fault::Table { place: place.clone(), error })?;
    let Some(build) = plugin.build else {
        let error = sconce_sdk::abi::TableError::Missing { name: "SconcePlugin", function: "build" };
        return Err(Fault::Table { place, error });
    };
    let schema = schema(text("its schema", plugin.schema)?).map_err(wrong)?;
    let who = library.who(kind, name);
    let source = Source { table, functions: plugin.table, build, crossing, who: who.clone() };
    let registered = Plugin {
        kind: crossing.name,
        about: crossing.about,
        name,
        aliases: aliases.leak(),
        krate: library.name(),
        version: library.version(),
        schema: Box::leak(Box::new(move || schema.clone())),
        build: Box::leak(Box::new(move |params| source.build(&params))),
        origin: library.origin(),
    };
    Ok(Described::Plugin(Box::leak(Box::new(registered)), who))
}

/// A word that recipes can have.
fn named(name: &'static str) -> Result<&'static str, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !name.is_empty() && name.len() <= 100 && name.chars().all(fits) {
        return Ok(name);
    }
    let shown: String = name.chars().take(100).collect();
    Err(format!("{shown:?} is no name: names are made of small letters, digits and hyphens"))
}

fn schema(text: &str) -> Result<Schema, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("its schema is not JSON: {e}"))?;
    let object = value.as_object().ok_or("its schema is not a JSON object")?;
    if object.get("properties").is_some_and(|p| !p.is_object()) {
        return Err("the `properties` of its schema are not an object".into());
    }
    Schema::try_from(value).map_err(|e| format!("its schema is none: {e}"))
}

type Build = unsafe extern "C" fn(
    *const SconcePlugin,
    SconceStr,
    *mut *mut c_void,
    *const sconce_sdk::abi::SconceText,
    *const sconce_sdk::abi::SconceError,
) -> i32;

/// What makes a plugin of a library's.
struct Source {
    table: *const SconcePlugin,
    functions: *const c_void,
    build: Build,
    crossing: &'static Crossing,
    who: Arc<Who>,
}

// SAFETY: the tables live for ever and never change, and the ABI asks of `build` that any thread may call it.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

impl Source {
    fn build(&self, params: &Value) -> Result<Built, ParamError> {
        let text = params.to_string();
        let (report, resolved, mut handle) = (Report::default(), TextBuffer::default(), std::ptr::null_mut());
        let (error, sink) = (report.sink(), resolved.sink());
        // SAFETY: the library's own table, a text that lives until the call returns, room for a handle, and sinks.
        let status = unsafe {
            (self.build)(self.table, SconceStr::of(&text), &raw mut handle, &raw const sink, &raw const error)
        };
        if status != SCONCE_OK {
            let mut error = report.finish();
            if status == SCONCE_PANICKED {
                error.message = format!("{}: `build` {}", self.who, error.message);
            }
            return Err(error);
        }
        let object = SconceObject { table: self.functions, handle };
        // SAFETY: the table is the library's of this kind, checked, and the handle what its `build` made for it.
        let object = unsafe { self.crossing.import(object, Some(self.who.clone()))? };
        let resolved = resolved.finish("a text of its parameters").map_err(|e| self.wrong(&e.message))?;
        let params = match resolved.as_str() {
            "" => params.clone(),
            text => serde_json::from_str(text)
                .ok()
                .filter(Value::is_object)
                .ok_or_else(|| self.wrong("gives back parameters that are not a JSON object"))?,
        };
        Ok(Built { object, params })
    }

    fn wrong(&self, what: &str) -> ParamError {
        ParamError::new(format!("{}: `build` {what}", self.who))
    }
}
