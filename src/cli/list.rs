//! `sconce list`: what there is.

use std::fmt::Write;

use sconce_core::recipe::builtins;
use sconce_sdk::names::nearest;
use sconce_sdk::{Origin, Plugin, registry};

use super::{Failure, print};

/// The word for built-in recipes among the kinds.
pub(super) const RECIPE: &str = "recipe";

/// List the plugins, or those of one kind.
///
/// A kind is a decision of a training run, and the word of its table in a recipe; its plugins are the ways to decide.
/// `recipe` lists the built-in recipes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce list
  sconce list weighting
  sconce list recipe")]
pub struct Args {
    /// A kind: `schedule`, `objective`, `weighting` …
    #[arg(value_name = "KIND")]
    kind: Option<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let plugins = registry::all().map_err(Failure::plugin)?;
    let mut kinds: Vec<&str> = plugins.iter().map(|p| p.kind).chain([RECIPE]).collect();
    kinds.dedup();
    if let Some(kind) = args.kind {
        kinds = vec![known(&kind, &kinds)?];
    }
    let blocks: Vec<String> = kinds.into_iter().map(|kind| block(kind, &plugins)).collect();
    print(&blocks.join("\n"))
}

/// The kind of this name, or advice.
pub(super) fn known<'a>(kind: &str, kinds: &[&'a str]) -> Result<&'a str, Failure> {
    kinds.iter().copied().find(|k| *k == kind).ok_or_else(|| {
        let help = match nearest(kind, kinds.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", kinds.join(", ")),
        };
        Failure::usage(format!("there is no kind `{kind}`")).help(help)
    })
}

fn block(kind: &str, plugins: &[&Plugin]) -> String {
    let entries: Vec<(&str, String)> = match kind {
        RECIPE => builtins().iter().map(|r| (r.name, title(r.text))).collect(),
        _ => plugins.iter().filter(|p| p.kind == kind).map(|p| (p.name, sentence(&about(p)) + &from(p))).collect(),
    };
    let what = plugins.iter().find(|p| p.kind == kind).map_or("the recipes inside the program", |p| p.about);
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    entries.iter().fold(format!("{kind}: {what}\n"), |mut block, (name, about)| {
        let _ = writeln!(block, "  {name:width$}  {about}");
        block
    })
}

/// Where a plugin is from that does not come with sconce.
fn from(plugin: &Plugin) -> String {
    let own = plugin.origin == Origin::Linked && OWN.contains(&plugin.krate);
    if own { String::new() } else { format!("   [{}]", plugin.owner()) }
}

/// The crates of sconce that have plugins.
const OWN: [&str; 3] = ["sconce-plugins", "sconce-models", "sconce-expr"];

/// A plugin's documentation.
pub(super) fn about(plugin: &Plugin) -> String {
    let schema = (plugin.schema)().to_value();
    schema.get("description").and_then(|d| d.as_str()).unwrap_or_default().to_owned()
}

/// The first sentence, in one line.
fn sentence(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut depth = 0;
    for (i, c) in line.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            // "et al. 2022" goes on.
            '.' if depth == 0 && line[i + 1..].trim_start().starts_with(char::is_uppercase) => {
                return line[..i].to_owned();
            }
            ':' | ';' if depth == 0 && line[i + 1..].starts_with(' ') => return line[..i].to_owned(),
            _ => {}
        }
    }
    line.trim_end_matches('.').to_owned()
}

/// The first comment of a recipe that is no directive to an editor.
fn title(recipe: &str) -> String {
    let comment = recipe.lines().find_map(|l| l.strip_prefix("# ")).unwrap_or_default();
    sentence(comment)
}
