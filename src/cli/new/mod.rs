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
  sconce plugin add target/release/libmy_weighting.so      this program has it from now on

  sconce new plugin my-solver --kind solver
  sconce build --with my-solver=./my-solver --out my-sconce    on tensors, it is linked in")]
    Plugin {
        /// The name: of the crate and of its folder, and of the plugin in recipes.
        #[arg(value_name = "NAME")]
        name: String,

        /// What it decides. In numbers: weighting, schedule, objective, timesteps, distance, ema, lr or spacing. On tensors:
        /// noise, solver, optimizer, adapter or backbone.
        #[arg(long, value_name = "KIND")]
        kind: String,

        /// Also a library, which `--plugin` and `sconce plugin add` take: for what works in numbers, and for a backbone, which
        /// then has an engine of its own over plain memory.
        #[arg(long)]
        dynamic: bool,

        /// The source of sconce. Default: where this program was built from, else the registry.
        #[arg(long, value_name = "DIR")]
        sconce: Option<PathBuf>,
    },
}

/// What a crate begins with.
struct Template {
    kind: &'static str,
    /// The table of a recipe of which it is a field; most have a table of their own.
    within: Option<&'static str>,
    text: &'static str,
}

/// The line of a template that can be a library, in place of which it says so.
const EXPORT: &str = "// EXPORT\n";

/// Of two of a kind, the first is on tensors and the second can be a library.
const TEMPLATES: [Template; 14] = [
    own_table("weighting", include_str!("weighting.rs.txt")),
    own_table("schedule", include_str!("schedule.rs.txt")),
    own_table("objective", include_str!("objective.rs.txt")),
    own_table("timesteps", include_str!("timesteps.rs.txt")),
    own_table("distance", include_str!("distance.rs.txt")),
    own_table("ema", include_str!("ema.rs.txt")),
    own_table("lr", include_str!("lr.rs.txt")),
    Template { kind: "spacing", within: Some("sampling"), text: include_str!("spacing.rs.txt") },
    own_table("noise", include_str!("noise.rs.txt")),
    Template { kind: "solver", within: Some("sampling"), text: include_str!("solver.rs.txt") },
    own_table("optimizer", include_str!("optimizer.rs.txt")),
    own_table("adapter", include_str!("adapter.rs.txt")),
    own_table("backbone", include_str!("backbone.rs.txt")),
    own_table("backbone", include_str!("network.rs.txt")),
];

const fn own_table(kind: &'static str, text: &'static str) -> Template {
    Template { kind, within: None, text }
}

impl Template {
    fn find(kind: &str, dynamic: bool) -> Result<&'static Self, Failure> {
        let of_kind = || TEMPLATES.iter().filter(|template| template.kind == kind);
        if of_kind().next().is_none() {
            return Err(no_template(kind));
        }
        of_kind().find(|template| !dynamic || template.text.contains(EXPORT)).ok_or_else(|| {
            let failure = Failure::usage(format!(
                "a library cannot have a plugin of the kind `{kind}`: it works on tensors, and those of two copies of candle do \
                 not know each other"
            ));
            failure.help("leave out --dynamic: it is linked in, by `sconce build --with`")
        })
    }

    /// Whether it sees the tensors of the program.
    fn on_tensors(&self) -> bool {
        self.text.contains("candle_core::")
    }

    /// The lines that choose it.
    fn in_recipe(&self, name: &str) -> String {
        match self.within {
            Some(table) => format!("  [{table}]\n  {} = {{ type = \"{name}\" }}\n", self.kind),
            None => format!("  [{}]\n  type = \"{name}\"\n", self.kind),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let Command::Plugin { name, kind, dynamic, sconce } = args.command;
    let template = Template::find(&kind, dynamic)?;
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
    let text = template
        .text
        .replace("PLUGIN", &type_name(&name, template.text))
        .replace(EXPORT, if dynamic { "export!();\n\n" } else { "\n" })
        .replace("\"KIND\"", &format!("{kind:?}"))
        .replace("\"NAME\"", &format!("{name:?}"));
    put("src/lib.rs", &text)?;
    put("Cargo.toml", &manifest(&name, template, dynamic, &source))?;
    put(".gitignore", "target\n")?;
    let library = if dynamic {
        let file =
            format!("{}{}{}", std::env::consts::DLL_PREFIX, name.replace('-', "_"), std::env::consts::DLL_SUFFIX);
        format!("  cargo build --release && sconce plugin add target/release/{file}\n")
    } else {
        format!("  sconce build --with {name}=. --out my-sconce\n")
    };
    let test = match template.on_tensors() {
        true => "cargo test --release      # candle is built with it the first time",
        false => "cargo test",
    };
    print(&format!(
        "wrote {name}: a plugin of the kind {kind} in {} lines\n\n  cd {name}\n  {test}\n{library}\nand in a recipe:\n\n{}",
        text.lines().count(),
        template.in_recipe(&name)
    ))
}

fn no_template(kind: &str) -> Failure {
    let mut known: Vec<&str> = TEMPLATES.iter().map(|template| template.kind).collect();
    known.dedup();
    let is_kind = registry::all().is_ok_and(|all| all.iter().any(|p| p.kind == kind));
    let failure = match is_kind {
        true => Failure::usage(format!("there is no crate to begin a plugin of the kind `{kind}` from")),
        false => Failure::usage(format!("there is no kind `{kind}`")),
    };
    failure.help(format!(
        "there are crates to start from for {}; others are written as those in sconce's own source, against sconce-core",
        known.join(", ")
    ))
}

/// `my-weighting` as `MyWeighting`; what the text has already gets another end.
fn type_name(name: &str, text: &str) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    };
    let words: String = name.split('-').map(word).collect();
    match text.split(|c: char| !c.is_ascii_alphanumeric()).any(|there| there == words) {
        true => words + "Plugin",
        false => words,
    }
}

/// The version of candle that this program is built with: its tensors are those of that one alone.
const CANDLE: &str = "0.11.1";

/// The crates of sconce that a plugin may use, and where they are in its source.
const CRATES: [(&str, &str); 3] =
    [("sconce-core", "core/trainer"), ("sconce-nn", "core/nn"), ("sconce-sdk", "core/sdk")];

fn manifest(name: &str, template: &Template, dynamic: bool, source: &Source) -> String {
    let library = match dynamic {
        true => {
            "\n[lib]\n# The first is linked into a program, the second is loaded by one.\ncrate-type = [\"rlib\", \"cdylib\"]\n"
        }
        false => "",
    };
    let candle = match template.on_tensors() {
        true => {
            format!(
                "# That of sconce, whose tensors are its own.\ncandle-core = {{ version = \"={CANDLE}\", default-features = false }}\n"
            )
        }
        false => String::new(),
    };
    let used = CRATES.iter().filter(|(name, _)| template.text.contains(&format!("{}::", name.replace('-', "_"))));
    let sconce: String = used.map(|(name, folder)| source.dependency(name, folder)).collect();
    format!(
        "[workspace]\n\n[package]\nname = {name:?}\ndescription = \"A plugin of the kind {} for sconce\"\nversion = \"0.1.0\"\n\
         edition = \"2024\"\n{library}\n[dependencies]\n{candle}{sconce}schemars = \"1\"\nserde = {{ version = \"1\", features = \
         [\"derive\"] }}\n",
        template.kind
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_depends_on_what_it_uses_and_on_the_candle_of_this_program() {
        let of = |kind, dynamic| match Template::find(kind, dynamic) {
            Ok(template) => manifest("my-own", template, dynamic, &Source::Registry),
            Err(_) => String::new(),
        };
        for (text, crates) in [
            (of("weighting", true), "schemars sconce-sdk serde"),
            (of("backbone", true), "schemars sconce-sdk serde"),
            (of("backbone", false), "candle-core schemars sconce-core sconce-nn sconce-sdk serde"),
            (of("noise", false), "candle-core schemars sconce-core sconce-sdk serde"),
        ] {
            let dependencies = text.split_once("[dependencies]\n").map(|(_, lines)| lines).unwrap_or_default();
            let named = dependencies.lines().filter_map(|line| line.split_once(" = "));
            let mut named: Vec<&str> = named.map(|(name, _)| name).collect();
            named.sort_unstable();
            assert_eq!(named.join(" "), crates, "{text}");
        }
        for kind in ["noise", "solver", "optimizer", "adapter"] {
            assert!(Template::find(kind, true).is_err() && Template::find(kind, false).is_ok());
        }
        let text = include_str!("solver.rs.txt");
        assert_eq!(["my-solver", "solver"].map(|name| type_name(name, text)), ["MySolver", "SolverPlugin"]);
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"candle-core\"\nversion = \"{CANDLE}\"\n")), "{CANDLE}");
    }
}
