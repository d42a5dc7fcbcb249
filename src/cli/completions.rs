//! `sconce completions`: completion scripts.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, Failure, print};

/// Print the completion script of a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce completions bash > ~/.local/share/bash-completion/completions/sconce
  sconce completions zsh > \"${fpath[1]}/_sconce\"
  sconce completions fish > ~/.config/fish/completions/sconce.fish")]
pub struct Args {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "sconce", &mut script);
    print(&String::from_utf8_lossy(&script))
}
