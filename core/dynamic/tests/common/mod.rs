//! What the tests of this crate share: libraries, built by cargo and by the C compiler.

#![allow(dead_code)]

pub mod probe;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A folder for what is built here.
pub fn scratch() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// What is built of `tests/fixture`.
pub struct Fixture {
    pub built_in: PathBuf,
    pub odd: PathBuf,
    pub silent: PathBuf,
    pub linked: PathBuf,
}

/// Builds the third parties' crates once.
pub fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let folder = cargo(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture"));
        Fixture {
            built_in: folder.join(dylib("fixture_built_in")),
            odd: folder.join(dylib("fixture_odd")),
            silent: folder.join(dylib("fixture_silent")),
            linked: folder.join(format!("fixture-linked{}", std::env::consts::EXE_SUFFIX)),
        }
    })
}

/// Builds a crate or a workspace, and gives the folder of what came out.
pub fn cargo(folder: &Path) -> PathBuf {
    cargo_with(folder, "cargo", &[])
}

/// The same, into a folder of its own and with something else in cargo's environment.
pub fn cargo_with(folder: &Path, target: &str, environment: &[(&str, &str)]) -> PathBuf {
    let target = scratch().join(target);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Not --locked: where the SDK has a new dependency, the lock file here follows by itself.
    command.args(["build", "--quiet"]).current_dir(folder).env("CARGO_TARGET_DIR", &target);
    command.envs(environment.iter().copied());
    // What cargo tells the crate under test is not for these.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = command.output().expect("cargo runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo build in {} failed:\n{words}", folder.display());
    target.join("debug")
}

/// A library's file name on this system.
pub fn dylib(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

/// Compiles a source file into a library, with the header of the SDK.
pub fn compile(compiler: &str, source: &Path, library: &Path, flags: &[&str]) {
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/include");
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-I"]).arg(include);
    let output = command.args(flags).arg("-o").arg(library).arg(source).arg("-lm").output().unwrap_or_else(|e| {
        panic!("`{compiler}` cannot be run ({e}): these tests build plugins in C and C++. Install gcc or clang")
    });
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {} failed:\n{words}", source.display());
}

/// The same for a source in Zig: false where there is no Zig, which is told. `ZIG` is the command, `zig` where it is not set.
pub fn compile_zig(source: &Path, library: &Path) -> bool {
    let words = std::env::var("ZIG").unwrap_or_else(|_| "zig".into());
    let zig = |arguments: &[&str]| {
        let mut words = words.split_whitespace();
        let mut command = Command::new(words.next().unwrap_or("zig"));
        command.args(words).args(arguments);
        command
    };
    if !zig(&["version"]).output().is_ok_and(|output| output.status.success()) {
        // Not eprintln, which the harness keeps to itself where a test passes.
        let told = writeln!(
            std::io::stderr(),
            "skipped: `{words} version` fails, so no plugin is built in Zig. Set ZIG to its command"
        );
        told.expect("there is a standard error");
        return false;
    }
    let ran = |mut command: Command| {
        let output = command.output().expect("it ran a moment ago");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "zig, for {}, failed:\n{words}", source.display());
        output.stdout
    };
    let folder = library.parent().expect("a library is in a folder");
    std::fs::create_dir_all(folder).expect("a folder can be made");
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/include/sconce_plugin.h");
    let mut translate = zig(&["translate-c", "-lc"]);
    translate.arg(header);
    let module = folder.join("sconce_plugin.zig");
    std::fs::write(&module, ran(translate)).expect("it can be written");
    let mut build = zig(&["build-lib", "-dynamic", "-lc", "-O", "ReleaseSafe", "--dep", "sconce_plugin"]);
    build.arg(format!("-Mroot={}", source.display())).arg(format!("-Msconce_plugin={}", module.display()));
    build.arg(format!("-femit-bin={}", library.display()));
    ran(build);
    true
}

/// Compiles a C source of tests/c with definitions, into a library of the name given.
pub fn c_library(source: &str, name: &str, defines: &[&str]) -> PathBuf {
    let folder = scratch().join("c");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let library = folder.join(dylib(name));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c").join(source);
    // Written aside and renamed: another test may have the old one loaded.
    let fresh = folder.join(format!("{name}.{}.new", std::process::id()));
    compile("cc", &source, &fresh, defines);
    std::fs::rename(&fresh, &library).expect("it can be renamed");
    library
}
