//! The library's side: the entry symbol, which lists the plugins of the crates that say [`export!`](crate::export), and
//! what such a plugin does where it wraps another one.
//!
//! The symbol is this crate's, not the plugin crate's. Each linked artifact has one copy of this crate, so the symbol is
//! there once, however many plugin crates are linked into it; in a program it is an ordinary function that nobody calls.

use std::ffi::c_void;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::basic::{SconceObject, SconceStatus, SconceStr};
use super::crossing::{crossing, set};
use super::guard::{guard, take_over_panics};
use super::library::{SconceHost, SconceLibrary, SconcePlugin};
use super::sink::{Report, SconceError, SconceText, TextBuffer};
use super::table::read;
use super::{ABI_MAJOR, ABI_MINOR, SCONCE_OK};
use crate::registry::{Kind, ParamError, Plugin};

/// A crate whose plugins its library lists: what [`export!`](crate::export) leaves behind.
pub struct Exported {
    /// The crate.
    pub krate: &'static str,
    /// Its version.
    pub version: &'static str,
}

inventory::collect!(Exported);

/// Lists the plugins of this crate where it is built as a library that sconce loads.
///
/// One line in the crate, beside its [`register!`](crate::register)s, with `crate-type = ["rlib", "cdylib"]` in its
/// `Cargo.toml`. It does nothing where the crate is linked into a program, together with any number of others that have
/// it too.
///
/// What the library lists is what this crate itself registers. A plugin that wraps another one (a
/// [`Choice`](crate::Choice)) is given that by the program.
#[macro_export]
macro_rules! export {
    () => {
        $crate::inventory::submit! {
            $crate::abi::Exported { krate: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") }
        }
    };
}

static HOST: OnceLock<SconceHost> = OnceLock::new();

/// What a library is, told to the program that loaded it; null after a failure, with its reason in `error`.
///
/// # Safety
/// Both point to tables of any version of the ABI's; the first lives for ever, the second until the call returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sconce_plugin(host: *const SconceHost, error: *const SconceError) -> *const SconceLibrary {
    let mut library = std::ptr::null();
    let body = || {
        if cfg!(panic = "abort") {
            let e = ParamError::new("is built with panic = \"abort\", so that its first panic would end the program");
            return Err(e.help("remove `panic = \"abort\"` from the profile in its Cargo.toml and build it again"));
        }
        // SAFETY: by this function's contract.
        let host = unsafe { read(host)? };
        take_over_panics();
        if host.abi_major != ABI_MAJOR {
            // Its table is not one that we know. It sees by our versions which side is to be updated.
            library = Box::leak(Box::new(introduction()?));
            return Ok(());
        }
        HOST.get_or_init(|| host);
        library = listed()?;
        Ok(())
    };
    // SAFETY: by this function's contract.
    match unsafe { guard(error, body) } {
        SCONCE_OK => library,
        _ => std::ptr::null(),
    }
}

/// A table that never changes.
struct Fixed<T>(T);
// SAFETY: nothing writes to it after it is made, and what its pointers point to lives and stays for ever.
unsafe impl<T> Send for Fixed<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Fixed<T> {}

fn listed() -> Result<*const SconceLibrary, ParamError> {
    static LIBRARY: OnceLock<Result<Fixed<SconceLibrary>, ParamError>> = OnceLock::new();
    match LIBRARY.get_or_init(|| library().map(Fixed)) {
        Ok(Fixed(library)) => Ok(library),
        Err(e) => Err(e.clone()),
    }
}

/// What the library is, without its plugins.
fn introduction() -> Result<SconceLibrary, ParamError> {
    let mut crates: Vec<&Exported> = inventory::iter::<Exported>.into_iter().collect();
    crates.sort_by_key(|c| c.krate);
    if crates.is_empty() {
        let e = ParamError::new("has sconce-sdk in it, but no crate that says `export!()`");
        return Err(e.help("write `sconce_sdk::export!();` in the plugin crate's lib.rs"));
    }
    let join =
        |part: fn(&Exported) -> &'static str| keep(crates.iter().map(|c| part(c)).collect::<Vec<_>>().join(" + "));
    Ok(SconceLibrary {
        size: size_of::<SconceLibrary>(),
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        sdk: SconceStr::of(concat!("sconce-sdk ", env!("CARGO_PKG_VERSION"))),
        name: join(|c| c.krate),
        version: join(|c| c.version),
        n_plugins: 0,
        plugins: std::ptr::null(),
    })
}

fn library() -> Result<SconceLibrary, ParamError> {
    let introduction = introduction()?;
    let mut plugins: Vec<&'static Plugin> = inventory::iter::<Plugin>.into_iter().filter(|p| is_listed(p)).collect();
    plugins.sort_by_key(|p| (p.kind, p.name));
    let tables: Vec<*const SconcePlugin> = plugins.into_iter().map(described).collect();
    Ok(SconceLibrary { n_plugins: tables.len(), plugins: tables.leak().as_ptr(), ..introduction })
}

/// Whether a plugin is of a crate that says `export!()`.
fn is_listed(plugin: &Plugin) -> bool {
    inventory::iter::<Exported>.into_iter().any(|c| c.krate == plugin.krate)
}

/// The table of a plugin. A kind that does not cross has no functions, which the program reports.
fn described(plugin: &'static Plugin) -> *const SconcePlugin {
    let aliases: Vec<SconceStr> = plugin.aliases.iter().map(|alias| SconceStr::of(alias)).collect();
    Box::leak(Box::new(SconcePlugin {
        size: size_of::<SconcePlugin>(),
        kind: SconceStr::of(plugin.kind),
        name: SconceStr::of(plugin.name),
        n_aliases: aliases.len(),
        aliases: aliases.leak().as_ptr(),
        schema: keep((plugin.schema)().to_value().to_string()),
        table: crossing(plugin.kind).map_or(std::ptr::null(), |s| s.table()),
        data: std::ptr::from_ref(plugin).cast(),
        build: Some(build),
    }))
}

/// A text of a library lives as long as the library, which is never unloaded.
fn keep(text: String) -> SconceStr {
    SconceStr::of(text.leak())
}

unsafe extern "C" fn build(
    plugin: *const SconcePlugin,
    params: SconceStr,
    handle: *mut *mut c_void,
    resolved: *const SconceText,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller passes a table of this library's, whose data is a registered plugin.
        let plugin = unsafe { &*read(plugin)?.data.cast::<Plugin>() };
        // SAFETY: the caller's text lives until this call returns.
        let params = unsafe { params.read("the parameters' text")? };
        let params: Value =
            serde_json::from_str(params).map_err(|e| ParamError::new(format!("the parameters are not JSON: {e}")))?;
        let built = (plugin.build)(params)?;
        let crossing = crossing(plugin.kind).ok_or_else(|| {
            ParamError::new(format!("a {} cannot be built in a library: it has no functions in the ABI", plugin.kind))
        })?;
        let object = crossing.export(built.object)?;
        // SAFETY: the caller passes a sink, and room for a handle.
        unsafe { SconceText::give(resolved, &built.params.to_string()).and_then(|()| set(handle, object.handle)) }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

/// In a library: the inner plugin that a table names, made by the program. `None` where this code is the program, or the
/// plugin is one that this library lists itself.
pub(crate) fn made_by_host<K: Kind + ?Sized>(name: &str, table: &Value) -> Option<Result<(Arc<K>, Value), ParamError>> {
    let host = HOST.get()?;
    let crossing = crossing(K::NAME)?;
    let ours = |p: &Plugin| p.kind == K::NAME && (p.name == name || p.aliases.contains(&name)) && is_listed(p);
    if inventory::iter::<Plugin>.into_iter().any(ours) {
        return None;
    }
    let Some(make) = host.make else {
        let e = ParamError::new(format!("this sconce cannot make the {} `{name}` for a library", K::NAME));
        return Some(Err(e.help("update sconce")));
    };
    let (report, resolved, mut object) = (Report::default(), TextBuffer::default(), SconceObject::NONE);
    let (error, text) = (report.sink(), resolved.sink());
    let table = table.to_string();
    // SAFETY: texts that live until the call returns, room for an object, and sinks.
    let status = unsafe {
        make(SconceStr::of(K::NAME), SconceStr::of(&table), &raw mut object, &raw const text, &raw const error)
    };
    if status != SCONCE_OK {
        return Some(Err(report.finish()));
    }
    let take = || {
        // SAFETY: what `make` gives is an object with a table of the kind, ours to free.
        let object = unsafe { crossing.import(object, None)? };
        let object = object.downcast::<Arc<K>>().map_err(|_| ParamError::new("the program made another kind"))?;
        let resolved = serde_json::from_str(&resolved.finish("a table")?)
            .map_err(|e| ParamError::new(format!("what the program made is not JSON: {e}")))?;
        Ok((*object, resolved))
    };
    Some(take())
}
