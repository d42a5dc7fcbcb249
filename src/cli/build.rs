//! `sconce build`: a sconce with plugins of others linked in.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use sconce_core::embedded::cache_home;
use sconce_nn::weights::write_atomic;

use super::source::{Source, VERSION};
use super::{Failure, print};

/// Build a sconce with plugin crates linked in.
///
/// Writes a small crate that depends on sconce and on the plugins, with a lock file of its own, and builds it with cargo. The
/// result is a program like this one that knows the plugins too, whatever their kind.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce build --with my-plugin --out my-sconce
  sconce build --with my-plugin=1.2 --with other=../other
  sconce build --with my-plugin --generate my-sconce-crate     the crate alone, to be built by hand")]
pub struct Args {
    /// A plugin crate: of the registry, with a version or without, or in a folder. May be repeated.
    #[arg(long, value_name = "NAME[=VERSION|FOLDER]", required = true)]
    with: Vec<With>,

    /// The program to write.
    #[arg(long, value_name = "FILE", default_value = if cfg!(windows) { "sconce.exe" } else { "sconce" })]
    out: PathBuf,

    /// Write the crate into this folder, and build nothing.
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    generate: Option<PathBuf>,

    /// Features of sconce: `cuda`. May be repeated.
    #[arg(long, value_name = "FEATURE")]
    feature: Vec<String>,

    /// The source of sconce. Default: where this program was built from, else the registry.
    #[arg(long, value_name = "DIR")]
    sconce: Option<PathBuf>,
}

/// A plugin crate.
#[derive(Clone, Debug)]
struct With {
    name: String,
    from: Place,
}

/// Where it comes from.
#[derive(Clone, Debug)]
enum Place {
    Any,
    Version(String),
    Folder(PathBuf),
}

impl FromStr for With {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, from) = match text.split_once('=') {
            None => (text, Place::Any),
            Some((name, place))
                if place.contains(['/', '\\', '.']) && Path::new(place).join("Cargo.toml").is_file() =>
            {
                (name, Place::Folder(place.into()))
            }
            Some((_, place)) if place.contains(['/', '\\']) => return Err(format!("there is no crate in `{place}`")),
            Some((name, version)) => (name, Place::Version(version.to_owned())),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("`{name}` is no name of a crate"));
        }
        Ok(Self { name: name.to_owned(), from })
    }
}

/// The package that is built, and its program: not by sconce's own name, beside which it may come to lie.
const BUILT: &str = "sconce-with-plugins";

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let source = Source::find(args.sconce.as_deref())?;
    let folder = match &args.generate {
        Some(folder) => folder.clone(),
        None => cache_home().map_err(Failure::run)?.join("sconce/build"),
    };
    let text = manifest(&source, &args.with, &args.feature)?;
    let put =
        |name: &str, text: &[u8]| write_atomic(&folder.join(name), |out| out.write_all(text)).map_err(Failure::run);
    put("Cargo.toml", text.as_bytes())?;
    put("src/main.rs", main_file(&args.with).as_bytes())?;
    // From the lock file that sconce is tested with; cargo adds what the plugins need.
    if let Source::Folder(root) = &source
        && let Ok(lock) = std::fs::read(root.join("Cargo.lock"))
    {
        put("Cargo.lock", &lock)?;
    }
    if args.generate.is_some() {
        return print(&format!("wrote {}: `cargo build --release` in it builds the program\n", folder.display()));
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--manifest-path"]).arg(folder.join("Cargo.toml"));
    // What a checkout has built already is not built again.
    let target = match &source {
        Source::Folder(root) if root.join("target/release").is_dir() => root.join("target"),
        _ => folder.join("target"),
    };
    cargo.arg("--target-dir").arg(&target);
    let status = cargo.status().map_err(|e| {
        Failure::run(format!("cargo cannot be run: {e}")).help("install Rust (rustup.rs), which plugins are built by")
    })?;
    if !status.success() {
        return Err(Failure::run("cargo could not build the program; what it said is above"));
    }
    let built = target.join("release").join(format!("{BUILT}{}", std::env::consts::EXE_SUFFIX));
    let bytes = std::fs::read(&built).map_err(|e| Failure::run(format!("{}: {e}", built.display())))?;
    write_atomic(&args.out, |out| out.write_all(&bytes)).map_err(Failure::run)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&args.out, std::fs::Permissions::from_mode(0o755)).map_err(Failure::run)?;
    }
    print(&format!("wrote {}: a sconce with {}\n", args.out.display(), names(&args.with).join(", ")))
}

fn names(with: &[With]) -> Vec<&str> {
    with.iter().map(|with| with.name.as_str()).collect()
}

fn manifest(source: &Source, with: &[With], features: &[String]) -> Result<String, Failure> {
    let mut text = format!(
        "# Made by `sconce build`, of sconce {VERSION}.\n[workspace]\n\n[package]\nname = {BUILT:?}\nversion = \"0.0.0\"\n\
         edition = \"2024\"\npublish = false\n\n[dependencies]\nmimalloc = {{ version = \
         \"0.1\", default-features = false }}\n"
    );
    text += &source.dependency("sconce", "");
    for With { name, from } in with {
        match from {
            Place::Any => text += &format!("{name} = \"*\"\n"),
            Place::Version(version) => text += &format!("{name} = {version:?}\n"),
            Place::Folder(folder) => {
                let folder = std::path::absolute(folder).map_err(|e| Failure::files(e.to_string()))?;
                text += &format!("{name} = {{ path = {:?} }}\n", folder.display().to_string());
            }
        }
    }
    if !features.is_empty() {
        let features: Vec<String> = features.iter().map(|f| format!("\"sconce/{f}\"")).collect();
        let _ = write!(text, "\n[features]\ndefault = [{}]\n", features.join(", "));
    }
    text += "\n[profile.release]\ndebug = 0\ncodegen-units = 16\nstrip = \"debuginfo\"\n";
    Ok(text)
}

/// The program: sconce's own, with the plugins named once, for a crate that nothing names is not linked.
fn main_file(with: &[With]) -> String {
    let uses: String = names(with).iter().map(|name| format!("use {} as _;\n", name.replace('-', "_"))).collect();
    format!(
        "//! A sconce with plugins linked in.\n\n{uses}\n#[global_allocator]\nstatic ALLOCATOR: mimalloc::MiMalloc = \
         mimalloc::MiMalloc;\n\nfn main() -> std::process::ExitCode {{\n    sconce::cli::main()\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_names_each_plugin_twice() -> Result<(), String> {
        let with: Vec<With> = ["my-plugin=1.2", "other", concat!("third=", env!("CARGO_MANIFEST_DIR"))]
            .map(str::parse)
            .into_iter()
            .collect::<Result<_, _>>()?;
        let text = manifest(&Source::Registry, &with, &["cuda".to_owned()]).map_err(|e| e.to_string())?;
        for line in ["my-plugin = \"1.2\"", "other = \"*\"", "third = { path = ", "default = [\"sconce/cuda\"]"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(main_file(&with).contains("use my_plugin as _;\nuse other as _;\nuse third as _;\n"));
        assert!("a b".parse::<With>().is_err() && "a=../nowhere".parse::<With>().is_err());
        Ok(())
    }
}
