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

#[cfg(test)]
mod tests {
    use super::super::sink::{Report, TextBuffer};
    use super::*;

    /// The reason of a call's failure.
    fn failure(call: impl FnOnce(*const SconceError) -> SconceStatus) -> Option<String> {
        let report = Report::default();
        let sink = report.sink();
        (call(&raw const sink) != super::super::SCONCE_OK).then(|| report.finish().to_string())
    }

    #[test]
    fn parameters_are_read_for_libraries_without_a_parser() {
        let params = SconceStr::of("{\"gamma\": 2.5, \"by\": \"loss\"}");
        let of = SconceStr::of;
        let mut number_out = 7.0;
        let words = TextBuffer::default();
        let text_sink = words.sink();
        // SAFETY: texts, room and sinks live until the calls return.
        unsafe {
            assert_eq!(failure(|e| number(params, of("gamma"), &raw mut number_out, e)), None);
            assert_eq!(number_out, 2.5);
            assert_eq!(failure(|e| number(params, of("absent"), &raw mut number_out, e)), None);
            assert_eq!(number_out, 2.5);
            let words = failure(|e| number(params, of("by"), &raw mut number_out, e));
            assert_eq!(words.as_deref(), Some("`by`: \"loss\" is not a number"));
            assert_eq!(failure(|e| text(params, of("by"), &raw const text_sink, e)), None);
            let words = failure(|e| text(params, of("gamma"), &raw const text_sink, e));
            assert_eq!(words.as_deref(), Some("`gamma`: 2.5 is not a string"));
            let names = ["by", "gamma", "width"].map(of);
            assert_eq!(failure(|e| only(params, 3, names.as_ptr(), e)), None);
            let words = failure(|e| only(params, 1, names.as_ptr(), e));
            assert_eq!(words.as_deref(), Some("`gamma`: unknown field `gamma` (there are: by)"));
            let words = failure(|e| only(params, 0, std::ptr::null(), e));
            assert_eq!(words.as_deref(), Some("`gamma`: unknown field `gamma` (there are no parameters)"));
            let words = failure(|e| number(of("[1]"), of("gamma"), &raw mut number_out, e));
            assert_eq!(words.as_deref(), Some("the parameters are not a JSON object"));
        }
        assert_eq!(words.finish("a text").unwrap(), "loss");
    }

    #[test]
    fn what_cannot_be_made_is_told() {
        let asked = |kind: &str, table: &str| {
            let (kind, table, mut object) = (SconceStr::of(kind), SconceStr::of(table), SconceObject::NONE);
            // SAFETY: texts and room live until the call returns.
            let words = failure(|e| unsafe { make(kind, table, &raw mut object, std::ptr::null(), e) });
            assert!(object.table.is_null());
            words.unwrap()
        };
        assert_eq!(asked("adapter", "{}"), "there is no kind `adapter` that libraries can be given plugins of");
        assert_eq!(asked("ema", "{"), "the table is not JSON: EOF while parsing an object at line 1 column 1");
        assert_eq!(asked("ema", "{}"), "the ema has no `type` (`sconce list ema` shows what there is)");
        let none = "`type`: there is no ema `x` (none is linked in here: `--plugin FILE` loads a library that has it)";
        assert_eq!(asked("ema", "\"x\""), none);
    }
}
