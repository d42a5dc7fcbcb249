//! The tables by which a program and a library introduce themselves. The first fields of both, up to the versions, are the
//! same in every version of the ABI for ever: they are what a refusal is made of.

use std::ffi::c_void;

use super::basic::{SconceObject, SconceStatus, SconceStr};
use super::declare::c_struct;
use super::sink::{SconceError, SconceText};
use super::table::Table;

c_struct! {
    /// What the program offers to a library: the argument of `sconce_plugin`. It lives for ever.
    pub struct SconceHost {
        /// sizeof(SconceHost), as the program knows it.
        pub size: usize,
        /// The program's ABI. A library of another major version may read no field beyond the versions.
        pub abi_major: u32,
        /// Counts what was added at the ends of tables.
        pub abi_minor: u32,
        /// The version of sconce-sdk that the program is built with.
        pub version: SconceStr,
        /// Makes a plugin of any crate or library, for a plugin that wraps another one. `kind` is such as "schedule",
        /// `table` is JSON as a recipe has it, {"type": "cosine", ...} or "cosine". `object` becomes the plugin, whose
        /// table is that of its kind; its drop frees it. `resolved`, which may be null, takes {"type": name, ...} with
        /// every default filled in. Call it while building, or later, from any thread.
        pub make: Option<unsafe extern "C" fn(kind: SconceStr, table: SconceStr, object: *mut SconceObject, resolved: *const SconceText, error: *const SconceError) -> SconceStatus>,
        /// For a library without a JSON parser: the number at `field` of the JSON object `params`. Leaves `out` as it is where
        /// there is no such field; fails where it is no number.
        pub number: Option<unsafe extern "C" fn(params: SconceStr, field: SconceStr, out: *mut f64, error: *const SconceError) -> SconceStatus>,
        /// The same for a string, which is put into `out`.
        pub text: Option<unsafe extern "C" fn(params: SconceStr, field: SconceStr, out: *const SconceText, error: *const SconceError) -> SconceStatus>,
        /// Fails if the JSON object `params` has a field that is none of `names`.
        pub only: Option<unsafe extern "C" fn(params: SconceStr, n: usize, names: *const SconceStr, error: *const SconceError) -> SconceStatus>,
    }
}

c_struct! {
    /// A plugin of a library.
    pub struct SconcePlugin {
        /// sizeof(SconcePlugin), as the library knows it.
        pub size: usize,
        /// What it decides: "schedule", "objective", "weighting", "timesteps", "distance", "ema", "lr", "spacing" or
        /// "backbone". A program skips kinds that it does not know.
        pub kind: SconceStr,
        /// Its name in recipes: small letters, digits and hyphens.
        pub name: SconceStr,
        /// Other names that it answers to.
        pub aliases: *const SconceStr,
        /// Their number.
        pub n_aliases: usize,
        /// The JSON Schema of its parameters, an object: "description" says what the plugin does, "properties" has a
        /// "description" for each parameter, "examples" has tables to try it with where there are no defaults for all.
        pub schema: SconceStr,
        /// The functions of its kind: a SconceSchedule, SconceObjective, SconceWeighting, SconceTimesteps, SconceDistance,
        /// SconceEma, SconceLr, SconceSpacing or SconceBackbone. It lives for ever.
        pub table: *const c_void,
        /// The library's own, for `build`; may be null.
        pub data: *const c_void,
        /// Makes the plugin from `params`, a JSON object without "type": unknown fields are to be errors. `handle` becomes
        /// what the table's functions take. `resolved` takes `params` with every default filled in, as a JSON object; where
        /// nothing is put, the parameters are taken as they are. After a failure the handle is not used.
        pub build: Option<unsafe extern "C" fn(plugin: *const SconcePlugin, params: SconceStr, handle: *mut *mut c_void, resolved: *const SconceText, error: *const SconceError) -> SconceStatus>,
    }
}

c_struct! {
    /// What a library is: what `sconce_plugin` returns. It lives for ever.
    pub struct SconceLibrary {
        /// sizeof(SconceLibrary), as the library knows it.
        pub size: usize,
        /// SCONCE_ABI_MAJOR. A program of another major version reads no field beyond `version`.
        pub abi_major: u32,
        /// SCONCE_ABI_MINOR.
        pub abi_minor: u32,
        /// What it was built with, for messages: "sconce-sdk 0.1.0", "sconce_plugin.h 1.0, gcc 13".
        pub sdk: SconceStr,
        /// The crate's or library's name.
        pub name: SconceStr,
        /// Its version.
        pub version: SconceStr,
        /// Its plugins, each a pointer of its own, so that a SconcePlugin can grow.
        pub plugins: *const *const SconcePlugin,
        /// Their number.
        pub n_plugins: usize,
    }
}

impl Table for SconceHost {
    const LEAST: usize = std::mem::offset_of!(Self, make);
}
impl Table for SconcePlugin {
    const LEAST: usize = size_of::<Self>();
}
impl Table for SconceLibrary {
    const LEAST: usize = std::mem::offset_of!(Self, plugins);
}
