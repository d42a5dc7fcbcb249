//! The program's side of a plugin that wraps another: a library asks, and the program makes the inner one, from whatever
//! crate or library has it.

use serde_json::Value;

use super::basic::{SconceObject, SconceStatus, SconceStr};
use super::guard::guard;
use super::library::SconceHost;
use super::scalar::{scalar, set};
use super::sink::{SconceError, SconceText};
use super::{ABI_MAJOR, ABI_MINOR};
use crate::choice::Selection;
use crate::registry::ParamError;

/// What this program offers to libraries.
pub fn host_table() -> *const SconceHost {
    static HOST: SconceHost = SconceHost {
        size: size_of::<SconceHost>(),
        abi_major: ABI_MAJOR,
        abi_minor: ABI_MINOR,
        version: SconceStr::of(env!("CARGO_PKG_VERSION")),
        make: Some(make),
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
        let scalar = scalar(kind).ok_or_else(|| {
            ParamError::new(format!("there is no kind `{kind}` that libraries can be given plugins of"))
        })?;
        let table: Value =
            serde_json::from_str(table).map_err(|e| ParamError::new(format!("the table is not JSON: {e}")))?;
        let (plugin, built) = Selection::of(kind, &table)?.build()?;
        let made = scalar.export(built.object)?;
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
