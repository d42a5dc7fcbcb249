//! The command line: flags say how to run, recipes say what to run. One file a command, each with its arguments, their
//! documentation and what it does.

pub mod args;
pub mod build;
pub mod check;
pub mod completions;
pub mod convert;
pub mod diff;
pub mod ema;
pub mod extract;
pub mod failure;
pub mod init;
pub mod inspect;
pub mod list;
pub mod lock;
pub mod merge;
pub mod migrate;
pub mod new;
pub mod plot;
pub mod plugin;
pub mod push;
pub mod recipe;
pub mod repro;
pub mod sample;
pub mod schema;
pub mod show;
mod source;
pub mod train;
mod transfer;

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use failure::Failure;

/// Fine-tunes text-to-image diffusion models from one recipe file.
///
/// A recipe says what to run: the model, the pictures, and each decision of the training as a named plugin. The
/// command line says how to run it.
#[derive(Debug, Parser)]
#[command(
    name = "sconce",
    version,
    max_term_width = 110,
    arg_required_else_help = true,
    after_help = "\
Start here:
  sconce train quickstart         fine-tune the model inside the program
  sconce init                     a few questions, and a recipe
  sconce show recipe sdxl-lora > my.toml
                                  a recipe to start from; every line says why it is there
  sconce check my.toml            what it means, before anything is loaded
  sconce train my.toml            run it; with --resume it goes on after a stop

Exit codes: 0 done, 1 the run failed, 2 wrong usage, 3 a bad or refused recipe,
4 a bad model or data file, 130 interrupted (after saving)."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    loaded: plugin::Loaded,
}

/// The commands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a few questions, and write a recipe.
    Init(init::Args),
    /// Run a recipe.
    Train(train::Args),
    /// Say what a recipe means, and what is wrong with it.
    Check(check::Args),
    /// Say what differs between two recipes.
    Diff(diff::Args),
    /// Draw what plugins and recipes do.
    Plot(plot::Args),
    /// Draw a picture.
    Sample(sample::Args),
    /// Rebuild an average of any width from a run's snapshots.
    Ema(ema::Args),
    /// List the plugins, or those of one kind.
    List(list::Args),
    /// Show one plugin: what it does, its fields and their defaults.
    Show(show::Args),
    /// Say what a weight file or a model folder holds.
    Inspect(inspect::Args),
    /// Turn a model, or a LoRA, from one layout into another.
    Convert(convert::Args),
    /// Merge LoRAs into a model.
    Merge(merge::Args),
    /// Take what a fine-tune changed as a LoRA.
    Extract(extract::Args),
    /// Pin everything that a run of a recipe depends on.
    Lock(lock::Args),
    /// Take the recipe out of a weight file.
    Recipe(recipe::Args),
    /// Run the recipe in a weight file's header again, and compare.
    Repro(repro::Args),
    /// Push a run's result to the Hub.
    Push(push::Args),
    /// Make a recipe of another trainer's configuration.
    Migrate(migrate::Args),
    /// Start a plugin crate.
    New(new::Args),
    /// Build a sconce with plugin crates linked in.
    Build(build::Args),
    /// Install, list or remove plugins that are libraries.
    Plugin(plugin::Args),
    /// Print the JSON Schema of recipes, for editors.
    Schema(schema::Args),
    /// Print the completion script of a shell.
    Completions(completions::Args),
}

/// The program: parses, runs, and tells errors.
pub fn main() -> ExitCode {
    // Candle's own threads wait for work by spinning, on the cores that the operations of sconce-nn would use: a step
    // takes up to three times as long beside them.
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
    crate::memory::keep();
    let Cli { command, loaded } = Cli::parse();
    sconce_core::hub::tell(Box::new(transfer::Bars::default()));
    // A deep network's backward pass recurses deeply.
    let done = sconce_nn::checkpoint::on_big_stack(|| {
        sconce_nn::cpu::work_here(None);
        loaded.load(&command)?;
        self::run(command)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Train(args) => train::run(args),
        Command::Check(args) => check::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Ema(args) => ema::run(args),
        Command::List(args) => list::run(args),
        Command::Show(args) => show::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Extract(args) => extract::run(args),
        Command::Lock(args) => lock::run(args),
        Command::Recipe(args) => recipe::run(args),
        Command::Repro(args) => repro::run(args),
        Command::Push(args) => push::run(args),
        Command::Migrate(args) => migrate::run(args),
        Command::Schema(args) => schema::run(args),
        Command::New(args) => new::run(args),
        Command::Build(args) => build::run(args),
        Command::Plugin(args) => plugin::run(args),
        Command::Completions(args) => completions::run(args),
    }
}

/// Prints to standard output. A reader that has had enough (`| head`) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Failure::run(format!("cannot write the output: {e}"))),
        _ => Ok(()),
    }
}

/// Prints JSON.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::run(format!("cannot write JSON: {e}")))?;
    print(&(text + "\n"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
