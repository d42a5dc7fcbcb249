//! `sconce new plugin`: a crate with a plugin that builds, keeps its laws and works in a recipe, to be changed from there.

use std::path::{Path, PathBuf};

use sconce_nn::weights::write_atomic;
use sconce_sdk::registry;

use super::source::Source;
use super::{Failure, print};

/// Start something new.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start a plugin crate.
    ///
    /// Writes a crate with one plugin: its documented parameters, its formula, its registration and the test of its laws. It builds
    /// and passes as it is; put your own formula in.
    #[command(after_help = "\
Examples:
  sconce new plugin my-weighting --kind weighting
  cd my-weighting && cargo test
  sconce build --with my-weighting=. --out my-sconce       a program that has it

  sconce new plugin my-weighting --kind weighting --dynamic
  cd my-weighting && cargo build --release
  sconce plugin add target/release/libmy_weighting.so      this program has it from now on")]
    Plugin {
        /// The name: of the crate and of its folder, and of the plugin in recipes.
        #[arg(value_name = "NAME")]
        name: String,

        /// What it decides: weighting, schedule, objective, timesteps, distance, ema, lr or spacing.
        #[arg(long, value_name = "KIND")]
        kind: String,

        /// Also a library, which `--plugin` and `sconce plugin add` take.
        #[arg(long)]
        dynamic: bool,

        /// The source of sconce. Default: where this program was built from, else the registry.
        #[arg(long, value_name = "DIR")]
        sconce: Option<PathBuf>,
    },
}

const TEMPLATES: [(&str, &str); 8] = [
    ("weighting", include_str!("weighting.rs.txt")),
    ("schedule", include_str!("schedule.rs.txt")),
    ("objective", include_str!("objective.rs.txt")),
    ("timesteps", include_str!("timesteps.rs.txt")),
    ("distance", include_str!("distance.rs.txt")),
    ("ema", include_str!("ema.rs.txt")),
    ("lr", include_str!("lr.rs.txt")),
    ("spacing", include_str!("spacing.rs.txt")),
];

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let Command::Plugin { name, kind, dynamic, sconce } = args.command;
    let Some((_, template)) = TEMPLATES.iter().find(|(known, _)| *known == kind) else {
        return Err(no_template(&kind));
    };
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(plain) || name.ends_with('-') {
        let failure = Failure::usage(format!("`{name}` is no name for a plugin"));
        return Err(failure.help("names are of small letters, digits and `-`, such as my-weighting"));
    }
    if let Ok(there) = registry::find(&kind, &name) {
        let failure = Failure::usage(format!("there is a {kind} `{name}` already, by {}", there.owner()));
        return Err(failure.help("take another name: two plugins of one name cannot be in one program"));
    }
    let folder = Path::new(&name);
    if folder.exists() {
        return Err(Failure::usage(format!("`{name}` is there already")).help("take another name, or remove it first"));
    }
    let source = Source::find(sconce.as_deref())?;
    let put = |file: &str, text: &str| {
        write_atomic(&folder.join(file), |out| out.write_all(text.as_bytes())).map_err(Failure::run)
    };
    let export = if dynamic { "export!();\n" } else { "" };
    let text = template
        .replace("PLUGIN", &type_name(&name))
        .replace("EXPORT\n", &format!("{export}\n"))
        .replace("\"KIND\"", &format!("{kind:?}"))
        .replace("\"NAME\"", &format!("{name:?}"));
    put("src/lib.rs", &text)?;
    put("Cargo.toml", &manifest(&name, &kind, dynamic, &source))?;
    put(".gitignore", "target\n")?;
    let library = if dynamic {
        let file =
            format!("{}{}{}", std::env::consts::DLL_PREFIX, name.replace('-', "_"), std::env::consts::DLL_SUFFIX);
        format!("  cargo build --release && sconce plugin add target/release/{file}\n")
    } else {
        format!("  sconce build --with {name}=. --out my-sconce\n")
    };
    print(&format!(
        "wrote {name}: a {kind} in {} lines\n\n  cd {name}\n  cargo test\n{library}\nand in a recipe:\n\n  [{kind}]\n  type = \"{name}\"\n",
        text.lines().count()
    ))
}

fn no_template(kind: &str) -> Failure {
    let known: Vec<&str> = TEMPLATES.iter().map(|(kind, _)| *kind).collect();
    let is_kind = registry::all().is_ok_and(|all| all.iter().any(|p| p.kind == kind));
    let failure = match is_kind {
        true => Failure::usage(format!("a {kind} works on tensors, and there is no crate to start it from")),
        false => Failure::usage(format!("there is no kind `{kind}`")),
    };
    failure.help(format!(
        "there are crates to start from for {}; the others are written as those in sconce's own plugins folder, against sconce-core",
        known.join(", ")
    ))
}

/// `my-weighting` as `MyWeighting`.
fn type_name(name: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    name.split('-').map(word).collect()
}

fn manifest(name: &str, kind: &str, dynamic: bool, source: &Source) -> String {
    let library = match dynamic {
        true => {
            "\n[lib]\n# The first is linked into a program, the second is loaded by one.\ncrate-type = [\"rlib\", \"cdylib\"]\n"
        }
        false => "",
    };
    format!(
        "[workspace]\n\n[package]\nname = {name:?}\ndescription = \"A {kind} for sconce\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{library}\n\
         [dependencies]\n{}schemars = \"1\"\nserde = {{ version = \"1\", features = [\"derive\"] }}\n",
        source.dependency("sconce-sdk", "core/sdk")
    )
}
