//! `sconce ema`: averages rebuilt from a run's snapshots.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use indicatif::ProgressBar;
use sconce_core::recipe::{RecipeSource, resolve_in};
use sconce_core::train::{self, Event, History, Observer, Options, Rebuilt, Start};
use sconce_sdk::Profile;
use serde::Serialize;

use super::args::DeviceArg;
use super::{Failure, print, print_json};

/// Rebuild an average of any width from a run's snapshots.
///
/// A run whose recipe says `ema = "post-hoc"` tracks two averages of its weights and writes them down as it goes. From
/// these snapshots this command makes the average that the run would have had with another width (Karras et al. 2024),
/// and writes what `sconce train` writes: a model folder, or adapter files.
///
/// The table's third column is how far the snapshots' sum is from the wanted profile, 0 being exact. More snapshots bring
/// it down (`ema.snapshot_every_images`).
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "\
Examples:
  sconce ema runs/my --scan 0.03..0.25 --validate       which width has the lowest validation loss?
  sconce ema runs/my --sigma-rel 0.07                   write it: runs/my/ema-0.07
  sconce ema runs/my --sigma-rel 0.07 --at 40000        as it was after 40,000 images
  sconce ema runs/my --scan 0.03..0.25                  how near the snapshots come, without loading the model
  sconce ema runs/my --scan 0.03..0.25 --json | jq '.averages[].error'"
)]
pub struct Args {
    /// The run's folder.
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The average's width: the standard deviation of its memory as a share of the run, above 0 and up to 0.2886.
    #[arg(long, value_name = "WIDTH", group = "what")]
    sigma_rel: Option<Width>,

    /// Look at widths between two, and write nothing.
    #[arg(long, value_name = "FROM..TO", group = "what")]
    scan: Option<Scan>,

    /// How many widths are looked at.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=1000))]
    points: u32,

    /// Take the run's validation loss with each average, and say which is lowest.
    #[arg(long)]
    validate: bool,

    /// The snapshot's time that the average is rebuilt at, in images seen. Default: the newest.
    #[arg(long, value_name = "IMAGES")]
    at: Option<u64>,

    /// Use this one of the tracked averages alone. May be repeated. Default: all of them.
    #[arg(long = "from", value_name = "WIDTH")]
    from: Vec<Width>,

    /// Write a LoRA of this rank, which may be up to two more than twice the trained one. Default: the trained one.
    ///
    /// The average of a LoRA is that of the products B A, which is of a higher rank than each of them. How much of it the
    /// rank leaves out is told.
    #[arg(long, value_name = "RANK", conflicts_with = "scan")]
    rank: Option<usize>,

    /// The folder to write into. Default: `ema-WIDTH` in the run's folder.
    #[arg(long, value_name = "DIR", conflicts_with = "scan")]
    out: Option<PathBuf>,

    /// Print the table as JSON.
    #[arg(long)]
    json: bool,

    /// Where to compute: `cpu`, `cuda:0`, `cuda:1` …
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: DeviceArg,
}

/// The width of a profile, as written.
#[derive(Clone, Copy, Debug)]
struct Width(f64, Profile);

impl FromStr for Width {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let width = text.parse().ok().and_then(|s| Some(Self(s, Profile::of_width(s)?)));
        width.ok_or_else(|| "a width is a number above 0 and up to 0.2886, that of the plain mean".into())
    }
}

/// Two widths, the second the larger.
#[derive(Clone, Copy, Debug)]
struct Scan(f64, f64);

impl FromStr for Scan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once("..").ok_or("write two widths: 0.03..0.25")?;
        let (Width(from, _), Width(to, _)) = (from.parse()?, to.parse()?);
        if from < to { Ok(Self(from, to)) } else { Err("the second width must be the larger one".into()) }
    }
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let recipe = args.run.join("recipe.toml");
    if !recipe.is_file() {
        let failure =
            Failure::files(format!("`{}` is not the folder of a run: it has no recipe.toml", args.run.display()));
        return Err(failure.help("give the folder that `sconce train` wrote into, runs/NAME if not said otherwise"));
    }
    let history = open(&args)?;
    // As the run resolved it: this command line's environment is not the run's.
    let mut resolved = resolve_in(&RecipeSource::File(recipe), &[], std::iter::empty())?;
    history.run().clone_into(&mut resolved.name);
    let widths: Vec<Width> = match (args.sigma_rel, args.scan) {
        (Some(width), _) => vec![width],
        (None, Some(Scan(from, to))) => {
            let step = (to - from) / f64::from(args.points - 1);
            let at = |i| from + f64::from(i) * step;
            (0..args.points).filter_map(|i| Some(Width(at(i), Profile::of_width(at(i).min(to))?))).collect()
        }
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let profiles: Vec<Profile> = widths.iter().map(|w| w.1).collect();
    let all = history.nearest(&profiles);
    let (averages, snapshots) = history.counts();
    eprintln!("at {} images, from {averages} averages in {snapshots} snapshots", history.images());

    let options = Options {
        out: args.run.clone(),
        device: args.device.open()?,
        start: Start::Resume,
        stop: Arc::new(AtomicBool::new(false)),
        lock: None,
    };
    let row = |(Width(width, _), rebuilt): (&Width, &Rebuilt)| Row {
        sigma_rel: *width,
        gamma: rebuilt.profile.gamma,
        error: rebuilt.mix.error,
        loss: None,
    };
    let mut table = Table { averages: widths.iter().zip(&all).map(row).collect(), weights: None };
    if args.validate {
        let bar = ProgressBar::new(all.len() as u64);
        let mut done = |i: usize, values: &[(String, f64)]| {
            let loss = values.first().map(|(_, loss)| *loss);
            match table.averages.get_mut(i) {
                Some(row) => row.loss = loss,
                None => table.weights = loss,
            }
            bar.inc(1);
        };
        let validated = train::validate(&resolved, &options, &history, &all, &mut Quiet, &mut done);
        bar.finish_and_clear();
        validated?;
    }
    match args.json {
        true => print_json(&table)?,
        false => print(&table.text())?,
    }
    if let (Some(best), Some(_)) = (table.ranks().first(), args.scan) {
        let width = widths[*best].0;
        eprintln!("lowest at {width:.4}: sconce ema {} --sigma-rel {width:.4}", args.run.display());
    }
    if let (Some(Width(width, _)), [rebuilt]) = (args.sigma_rel, all.as_slice()) {
        let at = args.at.map(|at| format!("-at-{at}")).unwrap_or_default();
        let out = args.out.unwrap_or_else(|| args.run.join(format!("ema-{width}{at}")));
        let written = train::rebuild(&resolved, &options, &history, rebuilt, args.rank, &out)?;
        match written.left_out {
            Some(0.0) => eprintln!("the LoRA has the highest rank that the snapshots tell of"),
            Some(share) => eprintln!("the LoRA's rank leaves out {share:.1e} of the average"),
            None => {}
        }
        written.files.iter().try_for_each(|file| print(&format!("wrote {}\n", file.display())))?;
    }
    Ok(())
}

/// The snapshots that the command line asks for.
fn open(args: &Args) -> Result<History, Failure> {
    let none = "only a recipe with ema = \"post-hoc\" leaves snapshots, the first after ema.snapshot_every_images";
    let mut history = History::open(&args.run).map_err(|e| Failure::files(e).help(none))?;
    if let Some(images) = args.at {
        history = history.until(images).map_err(Failure::usage)?;
    }
    if !args.from.is_empty() {
        let widths: Vec<f64> = args.from.iter().map(|w| w.0).collect();
        history = history.only(&widths).map_err(Failure::usage)?;
    }
    Ok(history)
}

/// What averages come to.
#[derive(Serialize)]
struct Table {
    averages: Vec<Row>,
    /// The validation loss of the weights themselves at that time; `None` where they were not kept or not validated.
    weights: Option<f64>,
}

/// An average.
#[derive(Serialize)]
struct Row {
    sigma_rel: f64,
    gamma: f64,
    /// How far the snapshots' sum is from the wanted profile.
    error: f64,
    /// The run's validation loss with it.
    loss: Option<f64>,
}

impl Table {
    /// The validated rows, the lowest loss first.
    fn ranks(&self) -> Vec<usize> {
        let loss = |i: &usize| self.averages[*i].loss;
        let mut ranks: Vec<usize> = (0..self.averages.len()).filter(|i| loss(i).is_some()).collect();
        ranks.sort_by(|a, b| loss(a).unwrap_or_default().total_cmp(&loss(b).unwrap_or_default()));
        ranks
    }

    /// One line a width; with losses, their rank.
    fn text(&self) -> String {
        let ranks = self.ranks();
        let validated = if ranks.is_empty() { "" } else { "       loss  rank" };
        let mut out = format!("sigma_rel    gamma    error{validated}\n");
        for (i, row) in self.averages.iter().enumerate() {
            out += &format!("{:9.4} {:8.3} {:8.1e}", row.sigma_rel, row.gamma, row.error);
            if let (Some(loss), Some(rank)) = (row.loss, ranks.iter().position(|&r| r == i)) {
                out += &format!("  {loss:9.6}  {:4}", rank + 1);
            }
            out += "\n";
        }
        if let Some(loss) = self.weights {
            out += &format!("the weights themselves      {loss:9.6}\n");
        }
        out
    }
}

/// Nothing to tell: pictures and captions are in the run's cache.
struct Quiet;

impl Observer for Quiet {
    fn see(&mut self, _: &Event) -> candle_core::Result<()> {
        Ok(())
    }
}
