//! A plugin crate from `sconce new plugin` to a run that uses it, and libraries that are installed, pinned, changed and removed.
//! The crates are outside the workspace and see the SDK alone; they are built by cargo, all into one folder.

#[path = "common/cargo.rs"]
mod cargo;
#[path = "common/run.rs"]
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use run::Bench;

/// What can be a library. Crates of the other kinds are compiled and tested in tests/templates.rs.
const KINDS: [&str; 9] =
    ["weighting", "schedule", "objective", "timesteps", "distance", "ema", "lr", "spacing", "backbone"];

/// Runs cargo in a crate, with the lock file's versions where they fit.
fn build(folder: &Path, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
    cargo::cargo(folder, arguments);
}

fn said(bench: &Bench, arguments: &[&str], code: i32) -> String {
    let output =
        bench.sconce(arguments).env("SCONCE_PLUGINS", bench.path("installed")).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

/// A crate that was just begun, as a library.
fn made(bench: &Bench, kind: &str) -> PathBuf {
    let name = format!("my-{kind}");
    said(bench, &["new", "plugin", &name, "--kind", kind, "--dynamic"], 0);
    build(&bench.path(&name), &["build"]);
    cargo::library("debug", &name)
}

#[test]
fn every_kind_begins_with_a_crate_that_builds_and_keeps_its_laws() {
    let bench = Bench::new("");
    let mut arguments = vec!["list".to_owned(), "--check-plugins".into()];
    for kind in KINDS {
        arguments.extend(["--plugin".to_owned(), made(&bench, kind).display().to_string()]);
    }
    let text = said(&bench, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), 0);
    for kind in KINDS {
        assert!(text.contains(&format!("{kind} my-{kind}: keeps the laws")), "{text}");
        assert!(text.contains(&format!("[my-{kind} 0.1.0")), "{text}");
    }
    // Its own tests are the laws, too.
    build(&bench.path("my-schedule"), &["test"]);
    build(&bench.path("my-backbone"), &["test"]);
    for (arguments, needle) in [
        (["new", "plugin", "my-weighting", "--kind", "weighting"], "there already"),
        (["new", "plugin", "min-snr", "--kind", "weighting"], "there is a weighting `min-snr` already"),
        (["new", "plugin", "euler", "--kind", "solver"], "there is a solver `euler` already"),
        (["new", "plugin", "x", "--kind", "family"], "no crate to begin a plugin of the kind `family`"),
        (["new", "plugin", "x", "--kind", "weight"], "no kind `weight`"),
        (["new", "plugin", "../x", "--kind", "weighting"], "no name for a plugin"),
    ] {
        assert!(said(&bench, &arguments, 2).contains(needle), "{needle}");
    }
}

/// What works on tensors is begun to be linked in, and only so; the recipe's lines are those that choose it.
#[test]
fn kinds_on_tensors_begin_with_crates_that_are_linked_in() {
    let bench = Bench::new("");
    for (kind, lines) in [
        ("noise", "[noise]\n  type = \"my-noise\""),
        ("solver", "[sampling]\n  solver = { type = \"my-solver\" }"),
        ("optimizer", "[optimizer]\n  type = \"my-optimizer\""),
        ("adapter", "[adapter]\n  type = \"my-adapter\""),
        ("backbone", "[backbone]\n  type = \"my-backbone\""),
    ] {
        let name = format!("my-{kind}");
        if kind != "backbone" {
            let text = said(&bench, &["new", "plugin", &name, "--kind", kind, "--dynamic"], 2);
            assert!(text.contains("two copies of candle") && text.contains("--with"), "{text}");
            assert!(!bench.path(&name).exists());
        }
        let text = said(&bench, &["new", "plugin", &name, "--kind", kind], 0);
        assert!(text.contains(lines) && text.contains(&format!("sconce build --with {name}=.")), "{text}");
        let lib = fs::read_to_string(bench.path(&name).join("src/lib.rs")).expect("a file");
        assert!(!["PLUGIN", "EXPORT", "\"NAME\""].iter().any(|word| lib.contains(word)), "{lib}");
        said(&bench, &["build", "--with", &format!("{name}=./{name}"), "--generate", &format!("with-{kind}")], 0);
    }
}

/// The weighting that a crate begins with is min-SNR: from a library it gives the bits that the built-in one gives.
#[test]
fn a_library_trains_the_same_weights_as_a_plugin_that_is_linked_in() {
    let bench = Bench::new("[adapter]\ntype = \"lora\"\nrank = 2\n[weighting]\ntype = \"min-snr\"\n");
    let file = made(&bench, "weighting").display().to_string();
    bench.train("linked", &[]);
    bench.train("loaded", &["--set", "weighting=my-weighting", "--plugin", &file]);
    let file = "lora-peft.safetensors";
    assert!(bench.tensors("linked", file) == bench.tensors("loaded", file));
    // Without it the recipe says what it cannot find; nothing of it is loaded by the recipe itself.
    let text = said(&bench, &["train", "loaded/recipe.toml", "--out", "again"], 3);
    assert!(text.contains("no weighting `my-weighting`"), "{text}");
}

#[test]
fn an_installed_library_is_the_same_file_or_none() {
    let bench = Bench::new("[adapter]\ntype = \"lora\"\nrank = 2\n[weighting]\ntype = \"my-weighting\"\n");
    let file = made(&bench, "weighting");
    let path = file.display().to_string();
    assert!(said(&bench, &["plugin", "list"], 0).contains("no library is installed"));
    assert!(
        said(&bench, &["plugin", "add", &path], 0).contains("installed my-weighting 0.1.0: weighting my-weighting")
    );
    let listed = said(&bench, &["plugin", "list"], 0);
    let hash = listed.split("sha256 ").nth(1).expect("a hash")[..64].to_owned();
    assert!(said(&bench, &["show", "weighting", "my-weighting"], 0).contains("Upper bound on the SNR"));
    said(&bench, &["train", "recipe.toml", "--out", "run"], 0);

    // A recipe that asks for another file does not take it.
    let needs =
        |hash: &str| format!("[[needs.plugin]]\nname = \"my-weighting\"\nversion = \"^0.1\"\nsha256 = \"{hash}\"\n");
    let recipe = fs::read_to_string(bench.path("recipe.toml")).expect("the recipe");
    fs::write(bench.path("recipe.toml"), format!("{recipe}{}", needs(&hash))).expect("a recipe");
    said(&bench, &["check", "recipe.toml"], 0);
    fs::write(bench.path("recipe.toml"), format!("{recipe}{}", needs(&"0".repeat(64)))).expect("a recipe");
    assert!(said(&bench, &["check", "recipe.toml"], 3).contains("needs.plugin.0"));
    let wrong = format!("{path}#{}", "0".repeat(64));
    assert!(said(&bench, &["list", "weighting", "--plugin", &wrong], 4).contains("sha256"));
    // The same plugin twice is told, with both places.
    assert!(said(&bench, &["list", "weighting", "--plugin", &path], 4).contains("my-weighting"));

    // What was changed since it was installed is not loaded.
    let stored = fs::read_dir(bench.path("installed")).expect("the folder").flatten().map(|e| e.path());
    let stored = stored.into_iter().find(|p| p.extension().is_some_and(|e| e != "json")).expect("the library");
    let mut bytes = fs::read(&stored).expect("the library");
    bytes.push(0);
    fs::write(&stored, bytes).expect("a file");
    let text = said(&bench, &["list", "weighting"], 0);
    assert!(
        text.contains("warning: the installed plugin `my-weighting` is not loaded") && text.contains("sha256"),
        "{text}"
    );
    assert!(said(&bench, &["plugin", "remove", "my-weighting"], 0).contains("removed my-weighting"));
    assert!(said(&bench, &["plugin", "remove", "my-weighting"], 2).contains("no library `my-weighting`"));
    fs::write(bench.path("broken.so"), "not a library").expect("a file");
    said(&bench, &["plugin", "add", "broken.so"], 4);
}

#[test]
fn a_crate_with_plugins_linked_in_is_written_for_cargo() {
    let bench = Bench::new("");
    said(&bench, &["new", "plugin", "my-lr", "--kind", "lr"], 0);
    let text = said(&bench, &["build", "--with", "my-lr=./my-lr", "--generate", "crate"], 0);
    assert!(text.contains("cargo build --release"), "{text}");
    let main = fs::read_to_string(bench.path("crate/src/main.rs")).expect("a file");
    assert!(main.contains("use my_lr as _;") && main.contains("sconce::cli::main()"), "{main}");
    // Every version is that of the lock file that sconce is tested with.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--format-version", "1", "--manifest-path"]).arg(bench.path("crate/Cargo.toml"));
    let output = metadata.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = said(&bench, &["build", "--with", "nothing=../nowhere", "--generate", "other"], 2);
    assert!(text.contains("there is no crate in"), "{text}");
}
