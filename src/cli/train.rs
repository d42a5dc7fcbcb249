//! `sconce train`: runs a recipe.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use sconce_core::recipe::{RecipeSource, Resolved, resolve};
use sconce_core::train::{self, Ended, Event, GroundLuminance, Observer, Options, Start};

use super::args::DeviceArg;
use super::{Failure, lock, print};

/// Run a recipe.
///
/// Resolves the recipe, refuses what cannot work, then trains. Everything is written into the run's folder: logs,
/// previews, checkpoints, and at the end the model or the adapter files. Ctrl-C saves a checkpoint and stops.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce train quickstart
  sconce train my.toml
  sconce train my.toml --set train.images=200 --set optimizer.lr=5e-5
  sconce train my.toml --resume
  sconce train sdxl-lora --set model.path=models/sdxl --set data.source.0.path=pictures

A recipe's fields can also come from the environment: SCONCE_TRAIN__IMAGES=200 is
train.images = 200. Strongest first: --set, the environment, the recipe, what it extends,
the checkpoint's own settings, the defaults.")]
pub struct Args {
    /// A recipe file (.toml, .yaml, .json), or a built-in recipe's name (`sconce list recipe`).
    #[arg(value_name = "RECIPE")]
    pub recipe: String,

    /// Change one field of the recipe; the value is TOML, or plain text.
    ///
    /// A table that names a plugin can be given by the name alone: `--set schedule=cosine`. `--set adapter=false`,
    /// `validation=false` or `preview=false` takes that table away. May be repeated; the last one wins.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    pub set: Vec<String>,

    /// Go on from the newest checkpoint in the run's folder; the result is that of a run never stopped, bit for bit.
    #[arg(long)]
    pub resume: bool,

    /// With --resume: go on although the recipe or the pictures have changed since. From there on it is another run.
    #[arg(long, requires = "resume")]
    pub changed: bool,

    /// The lock to hold the run to (`sconce lock`). Default: the one beside the recipe's file, where there is one.
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,

    /// Take no notice of the lock beside the recipe.
    #[arg(long, conflicts_with = "lock")]
    pub unlocked: bool,

    /// The run's folder. Default: the recipe's `output.dir`, else `runs/` and the recipe's name.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Where to compute: `cpu`, `cuda:0`, `cuda:1` …
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceArg,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let source = RecipeSource::named(&args.recipe);
    let resolved = resolve(&source, &args.set)?;
    let lock = match (&args.lock, lock::beside(&source)) {
        (Some(file), _) => Some(lock::read(file)?),
        (None, Some(file)) if file.is_file() && !args.unlocked => Some(lock::read(&file)?),
        _ => None,
    };
    let report = sconce_core::check::without_pictures(&resolved);
    if !report.refusals.is_empty() {
        return Err(Failure::refused(&report.refusals));
    }
    for note in &report.warnings {
        eprintln!("warning: {}\n  help: {}", note.message, note.help);
    }
    let own = || resolved.recipe.output.dir.clone().unwrap_or_else(|| Path::new("runs").join(&resolved.name));
    let options = Options {
        out: args.out.clone().unwrap_or_else(own),
        device: args.device.open()?,
        start: match (args.resume, args.changed) {
            (false, _) => Start::Fresh,
            (true, false) => Start::Resume,
            (true, true) => Start::Changed,
        },
        stop: Arc::new(AtomicBool::new(false)),
        lock,
    };
    let files = complete(&resolved, &options)?;
    files.iter().try_for_each(|file| print(&format!("wrote {}\n", file.display())))
}

/// Runs a resolved recipe to its end, in sight of the user. Gives what it wrote.
pub(super) fn complete(resolved: &Resolved, options: &Options) -> Result<Vec<PathBuf>, Failure> {
    let stop = options.stop.clone();
    // A second Ctrl-C ends the program at once: the newest checkpoint is whole in any case.
    let handler = move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step, with a checkpoint; again to stop at once");
    };
    ctrlc::set_handler(handler).map_err(Failure::run)?;
    let mut screen = Screen::default();
    match train::run(resolved, options, &mut screen) {
        Ok(Ended::Whole(files)) => {
            screen.finish();
            print(&screen.grounds())?;
            Ok(files)
        }
        Ok(Ended::Stopped(checkpoint)) => {
            screen.finish();
            let message = format!("saved {}; go on with --resume", checkpoint.display());
            Err(Failure::interrupted(message))
        }
        Err(error) => {
            screen.finish();
            Err(error.into())
        }
    }
}

/// What a run looks like in a terminal: a bar, and a line for each thing that happens beside it.
#[derive(Default)]
struct Screen {
    bar: Option<ProgressBar>,
    /// The loss as shown: an average over about 50 updates.
    loss: Option<f64>,
    measured: Vec<(u64, Vec<GroundLuminance>)>,
}

impl Observer for Screen {
    fn see(&mut self, event: &Event) -> candle_core::Result<()> {
        match event {
            Event::Loaded(native, trains, all) => {
                self.line(&format!(
                    "model      {}, {} of {} parameters train",
                    native.family,
                    count(*trains),
                    count(*all)
                ));
            }
            Event::Remark(remark) => self.line(&format!("           {remark}")),
            Event::Data(report) => self.line(&format!("data       {}", report.to_string().trim_end())),
            Event::Encoding(done, total) => {
                self.bar("encoding pictures and captions", *total as u64, *done as u64);
            }
            Event::Resumed(images, changed) => {
                self.line(&format!("resumed at {images} images"));
                changed.iter().for_each(|what| self.line(&format!("           {what}")));
            }
            Event::Step(r) => {
                let loss = self.loss.map_or(r.loss, |l| l + 0.02 * (r.loss - l));
                self.loss = Some(loss);
                let text = format!("loss {loss:.4}  {:.1} images/s  lr {:.1e}", r.images_per_sec, r.lr);
                self.bar(&text, r.images_total, r.images.min(r.images_total));
            }
            Event::Validated(images, values) => {
                let all: Vec<String> = values.iter().map(|(name, v)| format!("{name} {v:.4}")).collect();
                self.line(&format!("{images:>9}  validation: {}", all.join("  ")));
            }
            Event::Drawn(images, path) => self.line(&format!("{images:>9}  drew {}", path.display())),
            Event::Measured(images, grounds) => self.measured.push((*images, grounds.to_vec())),
            Event::Snapshot(images, path) => self.line(&format!("{images:>9}  snapshot {}", path.display())),
            Event::Saved(images, path) => self.line(&format!("{images:>9}  saved {}", path.display())),
        }
        Ok(())
    }
}

impl Screen {
    fn bar(&mut self, text: &str, length: u64, position: u64) {
        let bar = self.bar.get_or_insert_with(|| {
            let style = "{bar:30} {pos}/{len} images  {msg}  {eta} left";
            ProgressBar::new(length).with_style(ProgressStyle::with_template(style).expect("the template is right"))
        });
        if bar.length() != Some(length) {
            bar.set_length(length);
            bar.reset();
        }
        bar.set_message(text.to_owned());
        bar.set_position(position);
    }

    /// A line above the bar, on standard error: standard output is for what was written.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// The luminance of grounds before and after, beside the data's own.
    fn grounds(&self) -> String {
        let [(0, first), .., (_, last)] = self.measured.as_slice() else {
            return String::new();
        };
        let mut out =
            String::from("mean luminance in the corners of drawn pictures\nground     before   after    data\n");
        for (before, after) in first.iter().zip(last) {
            out += &format!("{:8} {:8.3} {:7.3} {:7.3}\n", after.ground, before.drawn, after.drawn, after.data);
        }
        out
    }
}

/// A count with a unit: `6.98 M`.
fn count(n: usize) -> String {
    match n as f64 {
        n if n >= 1e9 => format!("{:.2} B", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n => format!("{:.1} k", n / 1e3),
    }
}
