//! `sconce schema`: the JSON Schema of recipes.

use sconce_core::recipe;

use super::{Failure, print_json};

/// Print the JSON Schema of recipes, for editors.
///
/// Made from the tables and from every registered plugin. With it, an editor completes fields, shows their
/// documentation and marks mistakes: in TOML by a first line `#:schema schema.json` (taplo), in YAML by
/// `# yaml-language-server: $schema=schema.json`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sconce schema > schema.json")]
pub struct Args {}

/// Runs the command.
pub fn run(_: Args) -> Result<(), Failure> {
    print_json(&recipe::schema().map_err(Failure::plugin)?)
}
