//! The program's side: what a library may ask of it. It makes the inner one of a plugin that wraps another, from whatever
//! crate or library has it, and reads parameters for libraries that have no JSON parser.

use serde_json::{Map, Value};

use super::basic::{SconceObject, SconceStatus, SconceStr};
use super::crossing::{crossing, set};
use super::guard::guard;
use super::library::SconceHost;
use super::sink::{SconceError, SconceText};
use super::{ABI_MAJOR, ABI_MINOR};
use crate::choice::Selection;
use crate::names::nearest;
use crate::registry::ParamError;

/// What this program offers to libraries.
pub fn host_table() -> *const SconceHost {
    static HOST: SconceHost = SconceHost {
        size: size_of::<SconceHost>(),
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        version: SconceStr::of(env!("CARGO_PKG_VERSION")),
        make: Some(make),
        number: Some(number),
        text: Some(text),
        only: Some(only),
    };
    &raw const HOST
}

unsafe extern "C" fn make(
    kind: SconceStr,
    table: SconceStr,
    object: *mut SconceObject,
    resolved: *const SconceText,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller's texts live until this call returns.
        let (kind, table) = unsafe { (kind.read("the kind")?, table.read("the table")?) };
        let crossing = crossing(kind).ok_or_else(|| {
            ParamError::new(format!("there is no kind `{kind}` that libraries can be given plugins of"))
        })?;
        let table: Value =
            serde_json::from_str(table).map_err(|e| ParamError::new(format!("the table is not JSON: {e}")))?;
        let (plugin, built) = Selection::of(kind, &table)?.build()?;
        let made = crossing.export(built.object)?;
        // SAFETY: the caller passes room for an object, and a sink or null.
        unsafe {
            if !resolved.is_null() {
                SconceText::give(resolved, &crate::choice::whole(plugin.name, &built.params).to_string())?;
            }
            set(object, made)
        }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

/// # Safety
/// The text lives until the caller's own call returns.
unsafe fn object(params: SconceStr) -> Result<Map<String, Value>, ParamError> {
    // SAFETY: by this function's contract.
    let text = unsafe { params.read("the parameters' text")? };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ParamError::new("the parameters are not a JSON object")),
        Err(e) => Err(ParamError::new(format!("the parameters are not JSON: {e}"))),
    }
}

unsafe extern "C" fn number(
    params: SconceStr,
    field: SconceStr,
    out: *mut f64,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller's texts live until this call returns.
        let (params, field) = unsafe { (object(params)?, field.read("the field")?) };
        let Some(value) = params.get(field) else { return Ok(()) };
        let number = value.as_f64().ok_or_else(|| ParamError::new(format!("{value} is not a number")).within(field))?;
        // SAFETY: the caller passes room for a number.
        unsafe { set(out, number) }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn text(
    params: SconceStr,
    field: SconceStr,
    out: *const SconceText,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        // SAFETY: the caller's texts live until this call returns.
        let (params, field) = unsafe { (object(params)?, field.read("the field")?) };
        let Some(value) = params.get(field) else { return Ok(()) };
        let text = value.as_str().ok_or_else(|| ParamError::new(format!("{value} is not a string")).within(field))?;
        // SAFETY: the caller passes a sink.
        unsafe { SconceText::give(out, text) }
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}

unsafe extern "C" fn only(
    params: SconceStr,
    n: usize,
    names: *const SconceStr,
    error: *const SconceError,
) -> SconceStatus {
    let body = || {
        if n > 0 && names.is_null() {
            return Err(ParamError::new(format!("was asked of {n} names at a null pointer")));
        }
        // SAFETY: not null, and the caller passes n texts that live until this call returns.
        let names = (0..n).map(|i| unsafe { (*names.add(i)).read("a name") }).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the caller's text lives until this call returns.
        let params = unsafe { object(params)? };
        let Some(unknown) = params.keys().find(|field| !names.contains(&field.as_str())) else { return Ok(()) };
        let error = ParamError::new(format!("unknown field `{unknown}`")).within(unknown.clone());
        Err(match (nearest(unknown, names.iter().copied()), names.is_empty()) {
            (Some(near), _) => error.help(format!("did you mean `{near}`?")),
            (None, false) => error.help(format!("there are: {}", names.join(", "))),
            (None, true) => error.help("there are no parameters"),
        })
    };
    // SAFETY: the caller passes a sink.
    unsafe { guard(error, body) }
}
