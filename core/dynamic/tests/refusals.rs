//! Everything that a file can be other than a library of plugins for this program, and what is said of it. The texts are
//! reviewed as texts: what, where, what to do.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use common::c_library;
use sconce_dynamic::{load, load_pinned};

/// The error, its help, and nothing that differs from machine to machine.
fn refusal(path: &Path) -> String {
    told(path, load(path))
}

fn told(path: &Path, outcome: Result<&sconce_dynamic::Library, sconce_dynamic::LoadError>) -> String {
    let error = outcome.err().unwrap_or_else(|| panic!("{} is loaded", path.display()));
    let folder = path.parent().expect("it is in a folder").display().to_string();
    format!("{error}\n{}", error.help()).replace(&folder, "DIR")
}

fn variant(name: &str, defines: &[&str]) -> PathBuf {
    c_library("variants.c", name, defines)
}

fn file(name: &str, content: &[u8]) -> PathBuf {
    let folder = common::scratch().join("files");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

#[test]
fn files_that_are_no_libraries() {
    let nowhere = common::scratch().join("nowhere.so");
    assert_eq!(
        refusal(&nowhere),
        "DIR/nowhere.so: there is no such file\n\
         check the path; `cargo build --release` puts a crate's library into target/release"
    );
    let folder = common::scratch().join("files");
    fs::create_dir_all(&folder).unwrap();
    assert_eq!(
        refusal(&folder),
        "DIR/files: is not a file\ngive the library itself, such as target/release/libmy_plugin.so"
    );
    let build = "build it for this system: crate-type = [\"rlib\", \"cdylib\"] in Cargo.toml, or cc -shared -fPIC";
    for (name, content, what) in [
        ("empty.so", &b""[..], "empty"),
        ("text.so", b"[weighting]\ntype = 1\0\xff", "something that begins with \"[weighting]\\ntype\""),
        ("script.so", b"#!/bin/sh\necho", "a script"),
        ("archive.a", b"!<arch>\nx", "a static library"),
        ("windows.dll", b"MZ\x90\0", "a library or program of Windows (PE)"),
        ("mac.dylib", b"\xcf\xfa\xed\xfe\x07", "a library or program of macOS (Mach-O)"),
    ] {
        if std::env::consts::OS == "linux" {
            let words = format!("DIR/{name}: is not a shared library of this system: it is {what}\n{build}");
            assert_eq!(refusal(&file(name, content)), words);
        }
    }
}

#[test]
fn huge_files_are_not_even_read() {
    let path = file("huge.so", b"\x7fELF");
    File::options().write(true).open(&path).unwrap().set_len(5 << 40).unwrap();
    assert_eq!(
        refusal(&path),
        "DIR/huge.so: has 5497558138880 bytes; a library of plugins has at most 1073741824\n\
         check that the path is that of a library"
    );
    fs::remove_file(path).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn files_that_were_cut_short_end_nothing() {
    let whole = fs::read(&common::fixture().odd).unwrap();
    for length in [4, 63, 64, 1000, whole.len() / 2, whole.len() - 1] {
        let path = file(&format!("short-{length}.so"), &whole[..length]);
        let words = refusal(&path);
        let start = format!("DIR/short-{length}.so: is cut short: it has {length} bytes, and its headers speak of ");
        assert!(words.starts_with(&start) && words.ends_with("\ncopy or build it again"), "{words}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn files_for_other_machines() {
    let mut bytes = fs::read(variant("other-machine", &[])).unwrap();
    let other = if cfg!(target_arch = "x86_64") { (183, "aarch64") } else { (62, "x86_64") };
    bytes[18] = other.0;
    let words = refusal(&file("other-machine.so", &bytes));
    let what = format!("an ELF file for {}, and this is {}\n", other.1, std::env::consts::ARCH);
    assert!(words.contains(&what), "{words}");
    bytes[16] = 1;
    bytes[18] = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    let words = refusal(&file("object.so", &bytes));
    assert!(words.contains("it is an ELF file that is not a shared one\n"), "{words}");
}

#[cfg(unix)]
#[test]
fn files_that_cannot_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let path = file("secret.so", b"\x7fELF");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // Who may read everything finds that it is cut short.
    let words = match File::open(&path) {
        Err(_) => "DIR/secret.so: cannot be read: Permission denied (os error 13)\ncheck the file's permissions",
        Ok(_) => "DIR/secret.so: is cut short: it has 4 bytes, and its headers speak of 64\ncopy or build it again",
    };
    assert_eq!(refusal(&path), words);
}

#[test]
fn libraries_that_are_of_no_plugins() {
    let help = "in Rust, write `sconce_sdk::export!();` in the crate's lib.rs and build it as a cdylib; in C, define \
                `sconce_plugin` as sconce_plugin.h declares it";
    let words = refusal(&variant("no-entry", &["-DNO_ENTRY", "-Wno-unused-variable", "-Wno-unused-function"]));
    let name = common::dylib("no-entry");
    assert_eq!(
        words,
        format!("DIR/{name}: has no function `sconce_plugin`, so it is not a library of sconce plugins\n{help}")
    );
    assert_eq!(
        refusal(&common::fixture().silent),
        format!(
            "DIR/{}: does not let itself be used: it has sconce-sdk in it, but no crate that says `export!()`\n\
             write `sconce_sdk::export!();` in the plugin crate's lib.rs",
            common::dylib("fixture_silent")
        )
    );
    let words = refusal(&variant("undefined", &["-DUNDEFINED"]));
    assert!(words.contains(": cannot be loaded: ") && words.contains("nowhere"), "{words}");
    assert!(words.ends_with("`ldd` on the file shows which libraries it misses; build it on this system"), "{words}");
}

#[test]
fn a_library_whose_panics_would_end_the_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins/weighting-rust");
    let built = common::cargo_with(&folder, "cargo-abort", &[("CARGO_PROFILE_DEV_PANIC", "abort")]);
    let name = common::dylib("sconce_tempered_snr");
    assert_eq!(
        refusal(&built.join(&name)),
        format!(
            "DIR/{name}: does not let itself be used: it is built with panic = \"abort\", so that its first panic would \
             end the program\nremove `panic = \"abort\"` from the profile in its Cargo.toml and build it again"
        )
    );
}

#[test]
fn another_version_says_which_side_to_update() {
    let name = common::dylib("major-2");
    assert_eq!(
        refusal(&variant("major-2", &["-DMAJOR=2", "-DMINOR=7"])),
        format!("DIR/{name}: speaks version 2.7 of the plugin ABI (a test); this sconce speaks 1.1\nupdate sconce")
    );
    let name = common::dylib("major-0");
    assert_eq!(
        refusal(&variant("major-0", &["-DMAJOR=0"])),
        format!(
            "DIR/{name}: speaks version 0.1 of the plugin ABI (a test); this sconce speaks 1.1\n\
             update the library: build it with sconce-sdk 0.1.0 or newer"
        )
    );
}

#[test]
fn the_sha256_is_looked_at_before_the_code_runs() {
    // The library cannot be loaded at all: that its hash is told shows that this was not tried.
    let path = variant("pinned", &["-DUNDEFINED", "-DNAME=\"c-pinned\""]);
    let words = told(&path, load_pinned(&path, "1234"));
    let start = format!("DIR/{}: has the sha256 ", common::dylib("pinned"));
    assert!(words.starts_with(&start), "{words}");
    assert!(
        words.ends_with(", not 1234\nget the file that was meant, or, if this one is to be trusted, name its sha256"),
        "{words}"
    );
    let good = variant("pinned-good", &["-DNAME=\"c-pinned-good\""]);
    let library = load(&good).unwrap_or_else(|e| panic!("{e}"));
    let pinned = load_pinned(&good, &library.sha256().to_uppercase()).unwrap_or_else(|e| panic!("{e}"));
    assert!(std::ptr::eq(library, pinned), "loaded once");
    assert_eq!(library.sha256().len(), 64);
}

/// What is wrong with the tables, without the path and the advice, which is the same for all.
#[test]
fn tables_that_are_none() {
    let cases: [(&str, &[&str], &str); 21] = [
        ("t-null-plugin", &["-DPLUGIN=NULL"], "plugin 1 of variant: the SconcePlugin is a null pointer"),
        (
            "t-odd-plugin",
            &["-DPLUGIN=(const SconcePlugin*)((const char*)&plugin+1)"],
            "plugin 1 of variant: the SconcePlugin is at an address that is not aligned for it",
        ),
        (
            "t-small-library",
            &["-DLIBRARY_SIZE=7"],
            "what `sconce_plugin` returns: the SconceLibrary says that it has 7 bytes; its first field must be \
             sizeof(SconceLibrary), 64 or more",
        ),
        (
            "t-large-library",
            &["-DLIBRARY_SIZE=1000000"],
            "what `sconce_plugin` returns: the SconceLibrary says that it has 1000000 bytes; its first field must be \
             sizeof(SconceLibrary), 64 or more",
        ),
        (
            "t-small-plugin",
            &["-DPLUGIN_SIZE=16"],
            "plugin 1 of variant: the SconcePlugin says that it has 16 bytes; its first field must be \
             sizeof(SconcePlugin), 96 or more",
        ),
        (
            "t-small-table",
            &["-DTABLE_SIZE=16"],
            "the weighting `c-variant`: the SconceWeighting says that it has 16 bytes; its first field must be \
             sizeof(SconceWeighting), 24 or more",
        ),
        ("t-null-table", &["-DTABLE=NULL"], "the weighting `c-variant`: the SconceWeighting is a null pointer"),
        (
            "t-no-function",
            &["-DON_X0=NULL"],
            "the weighting `c-variant`: the SconceWeighting has no `on_x0`, which it must have",
        ),
        (
            "t-no-build",
            &["-DBUILD=NULL"],
            "the weighting `c-variant`: the SconcePlugin has no `build`, which it must have",
        ),
        ("t-null-plugins", &["-DPLUGINS=NULL"], "what `sconce_plugin` returns: there cannot be 1 plugins at 0x0"),
        (
            "t-many-plugins",
            &["-DN_PLUGINS=99999999", "-DPLUGINS=(void*)4096"],
            "what `sconce_plugin` returns: there cannot be 99999999 plugins at 0x1000",
        ),
        ("t-no-plugins", &["-DN_PLUGINS=0"], "has no plugin that this sconce can use"),
        ("t-aliases", &["-DN_ALIASES=3"], "the weighting `c-variant`: there cannot be 3 aliases at 0x0"),
        (
            "t-bad-utf8",
            &["-DNAME=\"c\\xff\""],
            "plugin 1 of variant: its name is not UTF-8: invalid utf-8 sequence of 1 bytes from index 1",
        ),
        (
            "t-bad-name",
            &["-DNAME=\"C Variant\""],
            "plugin 1 of variant: \"C Variant\" is no name: names are made of small letters, digits and hyphens",
        ),
        (
            "t-no-name",
            &["-DNAME=\"\""],
            "plugin 1 of variant: \"\" is no name: names are made of small letters, digits and hyphens",
        ),
        (
            "t-kind",
            &["-DKIND=\"backbones\""],
            "has no plugin that this sconce can use; the backbones `c-variant`: plugins of this kind cannot be in a \
             library, or only for a newer sconce: link its crate in",
        ),
        (
            "t-schema",
            &["-DSCHEMA=\"{\""],
            "the weighting `c-variant`: its schema is not JSON: EOF while parsing an object at line 1 column 1",
        ),
        ("t-schema-list", &["-DSCHEMA=\"[1]\""], "the weighting `c-variant`: its schema is not a JSON object"),
        ("t-anonymous", &["-DLIBRARY_NAME=\"\""], "what `sconce_plugin` returns: name is empty"),
        ("t-null", &["-DRETURNED=NULL"], "does not let itself be used: it failed, and gave no reason"),
    ];
    for (name, defines, what) in cases {
        let path = variant(name, defines);
        let error = load(&path).err().unwrap_or_else(|| panic!("{name} is loaded"));
        assert_eq!(error.to_string(), format!("{}: {what}", path.display()));
        let help = error.help();
        let author = "this is an error in the library: tell its author, with these words";
        let others = ["ask the library's author", "update sconce, or link the crate in"];
        assert!(help == author || others.contains(&help.as_str()), "{name}: {help}");
    }
    let refuses = variant("t-refuses", &["-DRETURNED=NULL", "-DREFUSAL=\"needs AVX-512\""]);
    let name = common::dylib("t-refuses");
    assert_eq!(
        refusal(&refuses),
        format!("DIR/{name}: does not let itself be used: it needs AVX-512\nask the library's author")
    );
}

#[test]
fn names_that_are_there_already_are_told_with_both_owners() {
    let one = variant("twice-1", &["-DNAME=\"c-twice\"", "-DLIBRARY_NAME=\"one\""]);
    let other = variant("twice-2", &["-DNAME=\"c-twice\"", "-DLIBRARY_NAME=\"other\""]);
    load(&one).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(
        refusal(&other),
        format!(
            "DIR/{}: the weighting `c-twice` is registered twice, by one 0.3 (DIR/{}) and by other 0.3 (DIR/{}): leave \
             one of them out\nload one of them only, or rename the plugin",
            common::dylib("twice-2"),
            common::dylib("twice-1"),
            common::dylib("twice-2")
        )
    );
    // A name that a linked crate has.
    let linked = variant("twice-3", &["-DNAME=\"linked-one\""]);
    let words = refusal(&linked);
    assert!(words.contains("is registered twice, by sconce-dynamic 0.1.0 and by variant 0.3 ("), "{words}");
}

mod linked {
    use sconce_sdk::prelude::*;
    use sconce_sdk::{schemars, serde};

    /// A weighting that is linked into this test.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(crate = "serde")]
    #[schemars(crate = "schemars")]
    pub struct Linked {}

    impl Weighting for Linked {
        fn on_x0(&self, _: f64) -> f64 {
            1.0
        }
    }

    register!(Weighting, "linked-one", Linked);
}
