//! `sconce schema`: the JSON Schema of recipes.

use sconce_core::recipe::{self, Editor};

use super::{Failure, print_json};

/// Print the JSON Schema of recipes, for editors.
///
/// Made from the tables and from every registered plugin. With it, an editor completes fields, shows their
/// documentation and marks mistakes: in TOML by a first line `#:schema ./schema.json`, in YAML by
/// `# yaml-language-server: $schema=./schema.json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce schema > schema.json
  sconce schema --yaml > schema.json")]
pub struct Args {
    /// For editors of YAML: the same rules, with faults and texts placed as they show them best.
    #[arg(long)]
    yaml: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let editor = if args.yaml { Editor::Yaml } else { Editor::Toml };
    print_json(&recipe::schema(editor).map_err(Failure::plugin)?)
}
