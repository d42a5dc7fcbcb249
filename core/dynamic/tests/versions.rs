//! Libraries that are older or newer than this program, and programs that are older or newer than a library: what one side
//! lacks, the other does without.

mod common;

use std::ffi::c_void;

use common::c_library;
use sconce_dynamic::{Library, load};
use sconce_sdk::abi::{
    ABI_MAJOR, ABI_MINOR, ENTRY, Report, SconceError, SconceHost, SconceLibrary, SconceStr, host_table,
};
use sconce_sdk::serde_json::json;
use sconce_sdk::{Choice, Noise, Weighting};

fn variant(name: &str, defines: &[&str]) -> &'static Library {
    let quoted = format!("-DNAME=\"{name}\"");
    let defines: Vec<&str> = defines.iter().copied().chain([quoted.as_str()]).collect();
    load(&c_library("variants.c", name, &defines)).unwrap_or_else(|e| panic!("{e}"))
}

const LEVEL: Noise = Noise { alpha: 0.6, sigma: 0.8, d_alpha: -1.0, d_sigma: 0.75 };

/// 1/(1 + snr) on a variance-preserving level is sigma²; for epsilon (sigma/alpha)² comes to it.
fn answers(name: &str) {
    let weighting = Choice::<dyn Weighting>::named(name).unwrap_or_else(|e| panic!("{e}"));
    assert!((weighting.on_x0(LEVEL.log_snr()) - 0.64).abs() < 1e-12);
    assert!((weighting.on_output(&LEVEL, [0.0, 1.0]) - 0.64 * (0.8f64 / 0.6).powi(2)).abs() < 1e-12);
    assert!(weighting.start().is_none());
}

#[test]
fn a_table_of_a_newer_library_is_read_as_far_as_it_is_known() {
    let library = variant("newer-table", &["-DTABLE_SIZE=sizeof(struct Newer)", "-DMINOR=9"]);
    assert_eq!(library.abi(), (1, 9));
    answers("newer-table");
}

#[test]
fn plugins_of_kinds_that_come_later_are_left_out_and_told_of() {
    let library = variant("later-kind", &["-DSECOND", "-DN_PLUGINS=2"]);
    answers("later-kind");
    let names: Vec<&str> = library.plugins().map(|p| p.name).collect();
    assert_eq!(names, ["later-kind"]);
    let [skipped] = library.skipped() else { panic!("{:?}", library.skipped()) };
    assert_eq!((skipped.kind.as_str(), skipped.name.as_str()), ("teleporter", "c-beam"));
    let why = "plugins of this kind cannot be in a library, or only for a newer sconce: link its crate in";
    assert_eq!(skipped.why, why);
}

#[test]
fn what_a_shorter_table_has_behind_it_is_not_looked_at() {
    variant("older-table", &["-DTABLE_SIZE=offsetof(SconceWeighting,start)", "-DSHORT"]);
    answers("older-table");
    variant(
        "oldest-table",
        &["-DTABLE_SIZE=offsetof(SconceWeighting,on_output)", "-DON_OUTPUT=(void*)garbage", "-DSHORT"],
    );
    answers("oldest-table");
}

#[test]
fn a_library_of_nothing_but_what_it_must_have_is_told_of_in_full() {
    let library = variant("plain-library", &[]);
    assert_eq!((library.name(), library.version(), library.sdk()), ("variant", "0.3", "a test"));
    let plugin = library.plugins().next().expect("one");
    assert_eq!(
        (plugin.krate, plugin.version, plugin.about),
        ("variant", "0.3", "how much the error counts at each noise level")
    );
    assert_eq!(plugin.owner(), format!("variant 0.3 ({})", library.path().display()));
    assert_eq!(plugin.origin.to_string(), format!("{}, sha256 {}", library.path().display(), library.sha256()));
    let table = Choice::<dyn Weighting>::named("plain-library").expect("it is there").table();
    assert_eq!(table, json!({ "type": "plain-library" }));
}

/// What a library says to a program, asked without one.
fn ask(host: *const SconceHost) -> Result<SconceLibrary, String> {
    // SAFETY: the fixture is a library of plugins, whose initialisers do no harm.
    let library = unsafe { libloading::Library::new(&common::fixture().odd) }.expect("it is a library");
    type Entry = unsafe extern "C" fn(*const SconceHost, *const SconceError) -> *const SconceLibrary;
    let report = Report::default();
    let sink = report.sink();
    // SAFETY: the entry has this type; the tables live until it returns.
    let table = unsafe { library.get::<Entry>(ENTRY.as_bytes()).expect("it has one")(host, &raw const sink) };
    std::mem::forget(library);
    // SAFETY: what it returns lives for ever.
    if table.is_null() { Err(report.finish().to_string()) } else { Ok(unsafe { *table }) }
}

/// A program's table, grown.
#[repr(C)]
struct NewerHost {
    known: SconceHost,
    unknown: *const c_void,
}

#[test]
fn a_library_reads_a_programs_table_as_far_as_it_can() {
    // SAFETY: the program's own table.
    let host = unsafe { *host_table() };
    // This one lists plugins whose defaults ask the program for others, so that those are loaded first.
    load(&common::fixture().built_in).unwrap_or_else(|e| panic!("{e}"));

    assert_eq!(ask(std::ptr::null()).err().as_deref(), Some("the SconceHost is a null pointer"), "no program at all");
    let short = SconceHost { size: 4, ..host };
    let words = "the SconceHost says that it has 4 bytes; its first field must be sizeof(SconceHost), 32 or more";
    assert_eq!(ask(&raw const short).err().as_deref(), Some(words));

    // Of another major version no more than the versions is read; the program sees by the answer whom to update.
    let other = SconceHost { abi_major: 2, size: std::mem::offset_of!(SconceHost, make), ..host };
    let library = ask(&raw const other).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((library.abi_major, library.abi_minor, library.n_plugins), (ABI_MAJOR, ABI_MINOR, 0));
}

#[test]
fn a_library_takes_a_newer_program() {
    // SAFETY: the program's own table.
    let host = unsafe { *host_table() };
    load(&common::fixture().built_in).unwrap_or_else(|e| panic!("{e}"));
    let known = SconceHost { size: size_of::<NewerHost>(), abi_minor: 12, version: SconceStr::of("9.9"), ..host };
    let newer = NewerHost { known, unknown: std::ptr::without_provenance(8) };
    let newer: &'static NewerHost = Box::leak(Box::new(newer));
    let library = ask((&raw const *newer).cast()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(library.n_plugins, 12);
}
