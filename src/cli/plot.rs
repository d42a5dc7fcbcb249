//! `sconce plot`: pictures of plugins and recipes.

use std::path::{Path, PathBuf};

use sconce_core::curves::{self, Coverage};
use sconce_core::recipe::{RecipeSource, Resolved, Task, resolve};
use sconce_core::step::Process;
use sconce_nn::weights::write_atomic;
use sconce_sdk::{
    Choice, Distance, EmaStrategy, Kind, LrSchedule, Objective, Schedule, Spacing, TimestepSampler, Weighting, registry,
};
use serde_json::Value;

use super::list::{self, RECIPE};
use super::{Failure, args, print, print_json};
use crate::plot::figure::Panel;
use crate::plot::text::text;
use crate::plot::{Figure, Format, draw, panels};

/// Draw what plugins do, or recipes: several of a kind in one picture.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A plugin is its name, with fields in braces as TOML: 'min-snr{gamma=1}'. Quote it, or the shell
may take the braces. A recipe is a file or a built-in recipe's name, with changes in braces.

What a plugin does depends on the others of its run: those of --schedule, --objective,
--weighting and --timesteps. The effective weight is w(lambda)/(1 + e^-lambda), of area 1: the
weight on the error of v over lambda = log-SNR. w(lambda), which is drawn too, is the weight on the
error of epsilon (Kingma & Gao 2023), in the same scale.

Examples:
  sconce plot weighting native min-snr 'min-snr{gamma=1}' debiased
  sconce plot schedule scaled-linear 'zero-terminal{of=\"scaled-linear\"}' 'rectified-flow{shift=3}'
  sconce plot timesteps uniform logit-normal --schedule rectified-flow --objective flow --out t.png
  sconce plot spacing trailing leading karras --steps 20
  sconce plot recipe my.toml 'my.toml{timesteps=\"logit-normal\"}' --json")]
pub struct Args {
    /// A kind that has a picture: schedule, objective, weighting, timesteps, distance, spacing, lr, ema, recipe.
    #[arg(value_name = "KIND")]
    kind: String,

    /// What to draw, at most seven: plugins of that kind (`sconce list KIND`), or recipes.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,

    /// The picture, .svg or .png. Default: KIND.svg
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Print the numbers behind the picture as JSON, and draw only with --out.
    #[arg(long)]
    json: bool,

    /// The schedule around other kinds.
    #[arg(long, value_name = "PLUGIN", default_value = "scaled-linear")]
    schedule: String,

    /// The objective around other kinds.
    #[arg(long, value_name = "PLUGIN", default_value = "v")]
    objective: String,

    /// The weighting around other kinds.
    #[arg(long, value_name = "PLUGIN", default_value = "native")]
    weighting: String,

    /// The timesteps around other kinds.
    #[arg(long, value_name = "PLUGIN", default_value = "uniform")]
    timesteps: String,

    /// Steps of a sampler, for spacings.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    steps: u64,

    /// Images of the run, for lr and ema.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    images: u64,

    /// Images of an update, for lr and ema.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    batch: u64,

    /// Change one field of every recipe, as in `sconce train`.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    let out = args.out.clone().or((!args.json).then(|| format!("{}.svg", args.kind).into()));
    out.as_deref().map(format).transpose()?;
    let figure = args.figure()?;
    if args.json {
        print_json(&figure)?;
    }
    if let Some(out) = out {
        save(&figure, &out)?;
        if !args.json {
            print(&format!("{}\n", out.display()))?;
        }
    }
    Ok(())
}

/// Writes a figure in the format of the file's name.
pub(super) fn save(figure: &Figure, out: &Path) -> Result<(), Failure> {
    let bytes = figure.encode(format(out)?).map_err(Failure::run)?;
    write_atomic(out, |file| file.write_all(&bytes)).map_err(Failure::run)
}

/// The first panel of a plugin's picture as text, of the plugin as it is written on a command line: nothing for a kind that has
/// none, or a plugin that needs to be told more.
pub(super) fn in_text(kind: &str, plugin: &str) -> Option<String> {
    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        args: Args,
    }
    let figure = <Alone as clap::Parser>::try_parse_from(["plot", kind, plugin]).ok()?.args.figure().ok()?;
    figure.panels.first().map(text)
}

/// A picture's format.
pub(super) fn format(out: &Path) -> Result<Format, Failure> {
    Format::of(out).ok_or_else(|| {
        let failure = Failure::usage(format!("{}: a plot is an .svg or a .png", out.display()));
        failure.help("let the file's name end in .svg or .png")
    })
}

/// A recipe on the command line, with its label: a file or a name, with changes in braces.
pub(super) fn recipe(text: &str, set: &[String]) -> Result<(String, Resolved), Failure> {
    let (name, changes) = args::braces(text).unwrap_or((text, "{}"));
    let Value::Object(changes) = sconce_core::recipe::inline(changes).map_err(Failure::usage)? else {
        return Err(Failure::usage(format!("{text}: what follows the name is no table")));
    };
    let mut set = set.to_vec();
    for (field, value) in &changes {
        assign(field, value, &mut set).map_err(|field| {
            let failure = Failure::usage(format!("{text}: {field} is a list of tables, which braces cannot change"));
            failure.help("write a recipe that extends this one")
        })?;
    }
    let resolved = resolve(&RecipeSource::named(name), &set)?;
    let label =
        if changes.is_empty() { resolved.name.clone() } else { format!("{}{}", resolved.name, &text[name.len()..]) };
    Ok((label, resolved))
}

/// `--set` arguments for a value, each of its fields one.
fn assign(field: &str, value: &Value, set: &mut Vec<String>) -> Result<(), String> {
    match value {
        Value::Object(map) => map.iter().try_for_each(|(name, value)| assign(&format!("{field}.{name}"), value, set)),
        Value::Array(items) if items.iter().any(Value::is_object) => Err(field.to_owned()),
        value => {
            set.push(format!("{field}={value}"));
            Ok(())
        }
    }
}

/// The picture of recipes under their labels.
pub(super) fn recipes(title: &str, all: &[(String, Resolved)]) -> Result<Figure, Failure> {
    at_most(all.len())?;
    if let Some((name, _)) = all.iter().find(|(_, r)| r.recipe.train.task == Task::Autoencoder) {
        return Err(Failure::usage(format!("`{name}` trains an autoencoder: it has no noise to draw"))
            .help("draw recipes whose train.task is \"denoiser\""));
    }
    let each = || all.iter().map(|(_, resolved)| &resolved.recipe);
    let coverages = all.iter().map(|(name, resolved)| {
        let (recipe, schedule) = (&resolved.recipe, resolved.schedule(resolved.side_px()));
        cover(name, &recipe.process(&*schedule))
    });
    let coverages = coverages.collect::<Result<Vec<_>, _>>()?;
    let levels: Vec<_> = all
        .iter()
        .map(|(_, resolved)| {
            let sampling = &resolved.recipe.sampling;
            let schedule = resolved.schedule(resolved.native.resolution_px);
            sampling.solver.levels(&*sampling.spacing, &*schedule, sampling.steps)
        })
        .collect();
    let batch = |r: &sconce_core::recipe::Recipe| (r.data.batch * r.train.accumulate) as u64;
    let rates: Vec<_> = each().map(|r| curves::rate(&*r.lr, r.train.images, batch(r))).collect();
    let averages: Vec<_> = each().map(|r| curves::average(&*r.ema, r.train.images, batch(r))).collect();
    let [sampled, _] = panels::levels(&levels);
    let schedules: Vec<_> = all.iter().map(|(_, resolved)| resolved.schedule(resolved.side_px())).collect();
    let mut all_panels: Vec<Panel> = panels::schedules(schedules.iter().map(|schedule| &**schedule)).into();
    all_panels.extend(panels::coverages(&coverages));
    all_panels.extend([sampled, panels::rates(&rates)]);
    all_panels.extend(panels::averages(&averages));
    let decisions = each().map(|r| {
        [r.schedule.table(), r.objective.table(), r.weighting.table(), r.timesteps.table(), r.sampling.spacing.table()]
    });
    let decisions: Vec<_> = decisions.collect();
    let alike = (0..5).filter(|&i| decisions.iter().all(|d| d[i] == decisions[0][i]));
    let words = ["schedule", "objective", "weighting", "timesteps", "spacing"];
    let alike: Vec<String> =
        alike.map(|i| format!("{} {}", words[i], sconce_core::check::in_one_line(&decisions[0][i]))).collect();
    let subtitle = match (all.len(), alike.is_empty()) {
        (1, _) => alike.join(" · "),
        (_, true) => String::new(),
        _ => format!("alike: {}", alike.join(" · ")),
    };
    Ok(finish(title, subtitle, all.iter().map(|(name, _)| name.clone()).collect(), all_panels, true))
}

impl Args {
    fn figure(&self) -> Result<Figure, Failure> {
        at_most(self.names.len())?;
        match self.kind.as_str() {
            RECIPE => {
                let all = self.names.iter().map(|name| recipe(name, &self.set)).collect::<Result<Vec<_>, _>>()?;
                let title = if let [(name, _)] = all.as_slice() { name.clone() } else { "Recipes".into() };
                recipes(&title, &all)
            }
            <dyn Schedule>::NAME => self.schedules(),
            <dyn Objective>::NAME => self.objectives(),
            <dyn Weighting>::NAME => self.weightings(),
            <dyn Distance>::NAME => self.distances(),
            <dyn TimestepSampler>::NAME => self.timesteps(),
            <dyn Spacing>::NAME => self.spacings(),
            <dyn LrSchedule>::NAME => {
                let all = self.plugins::<dyn LrSchedule>()?;
                let rates: Vec<_> = all.iter().map(|lr| curves::rate(&**lr, self.images, self.batch)).collect();
                Ok(self.finish("Learning rates", vec![self.run()], vec![panels::rates(&rates)], false))
            }
            <dyn EmaStrategy>::NAME => {
                let all = self.plugins::<dyn EmaStrategy>()?;
                let kept: Vec<_> = all.iter().map(|ema| curves::average(&**ema, self.images, self.batch)).collect();
                let panel = panels::averages(&kept).ok_or_else(|| {
                    Failure::usage("none of these keeps an average").help("`sconce list ema` shows those that do")
                })?;
                Ok(self.finish("Averages of the weights", vec![self.run()], vec![panel], false))
            }
            other => Err(no_picture(other)),
        }
    }

    fn schedules(&self) -> Result<Figure, Failure> {
        let all = self.plugins::<dyn Schedule>()?;
        let around = self.around()?;
        let processes: Vec<_> =
            all.iter().map(|schedule| Process { schedule: &**schedule, ..around.process() }).collect();
        let mut all_panels: Vec<Panel> = panels::schedules(all.iter().map(|s| &**s)).into();
        all_panels.extend(self.covered(&processes)?);
        Ok(self.finish("Schedules", around.words(0), all_panels, true))
    }

    fn objectives(&self) -> Result<Figure, Failure> {
        let all = self.plugins::<dyn Objective>()?;
        let around = self.around()?;
        let processes: Vec<_> =
            all.iter().map(|objective| Process { objective: &**objective, ..around.process() }).collect();
        let each: Vec<&dyn Objective> = all.iter().map(|o| &**o).collect();
        let mut all_panels: Vec<Panel> = panels::objectives(&each, &*around.schedule).into();
        let [_, _, weight, on_eps] = self.covered(&processes)?;
        all_panels.extend([weight, on_eps]);
        Ok(self.finish("Objectives", around.words(1), all_panels, true))
    }

    fn weightings(&self) -> Result<Figure, Failure> {
        let all = self.plugins::<dyn Weighting>()?;
        let around = self.around()?;
        let processes: Vec<_> =
            all.iter().map(|weighting| Process { weighting: &**weighting, ..around.process() }).collect();
        let each: Vec<&dyn Weighting> = all.iter().map(|w| &**w).collect();
        let [_, _, weight, on_eps] = self.covered(&processes)?;
        let mut all_panels: Vec<Panel> = panels::weightings(&each, &*around.schedule, &*around.objective).into();
        all_panels.extend([weight, on_eps]);
        Ok(self.finish("Weightings", around.words(2), all_panels, true))
    }

    fn distances(&self) -> Result<Figure, Failure> {
        let all = self.plugins::<dyn Distance>()?;
        let around = self.around()?;
        let each: Vec<&dyn Distance> = all.iter().map(|d| &**d).collect();
        let words = vec![around.words(3).swap_remove(0), "at t = 0.5".to_owned()];
        Ok(self.finish("Distances", words, panels::distances(&each, &*around.schedule).into(), false))
    }

    fn timesteps(&self) -> Result<Figure, Failure> {
        let all = self.plugins::<dyn TimestepSampler>()?;
        let around = self.around()?;
        let processes: Vec<_> =
            all.iter().map(|timesteps| Process { timesteps: &**timesteps, ..around.process() }).collect();
        let all_panels = self.covered(&processes)?;
        Ok(self.finish("Timesteps", around.words(3), all_panels.into(), true))
    }

    fn spacings(&self) -> Result<Figure, Failure> {
        let all = self.plugins::<dyn Spacing>()?;
        let around = self.around()?;
        let levels: Vec<_> = all.iter().map(|spacing| spacing.levels(&*around.schedule, self.steps as usize)).collect();
        let words = vec![around.words(3).swap_remove(0), format!("{} steps", self.steps)];
        Ok(self.finish("Spacings", words, panels::levels(&levels).into(), false))
    }

    fn plugins<K: Kind + ?Sized>(&self) -> Result<Vec<Choice<K>>, Failure> {
        self.names.iter().map(|name| args::plugin(name)).collect()
    }

    fn around(&self) -> Result<Around, Failure> {
        Ok(Around {
            schedule: args::plugin(&self.schedule)?,
            objective: args::plugin(&self.objective)?,
            weighting: args::plugin(&self.weighting)?,
            timesteps: args::plugin(&self.timesteps)?,
        })
    }

    fn covered(&self, processes: &[Process]) -> Result<[Panel; 4], Failure> {
        let all = self.names.iter().zip(processes).map(|(name, process)| cover(name, process));
        Ok(panels::coverages(&all.collect::<Result<Vec<_>, _>>()?))
    }

    fn run(&self) -> String {
        format!("{} images, {} an update", self.images, self.batch)
    }

    fn finish(&self, title: &str, words: Vec<String>, panels: Vec<Panel>, weighed: bool) -> Figure {
        finish(title, words.join(" · "), self.names.clone(), panels, weighed)
    }
}

/// The other plugins of a run.
struct Around {
    schedule: Choice<dyn Schedule>,
    objective: Choice<dyn Objective>,
    weighting: Choice<dyn Weighting>,
    timesteps: Choice<dyn TimestepSampler>,
}

impl Around {
    fn process(&self) -> Process<'_> {
        Process {
            schedule: &*self.schedule,
            objective: &*self.objective,
            weighting: &*self.weighting,
            timesteps: &*self.timesteps,
        }
    }

    /// All but the one that is drawn.
    fn words(&self, drawn: usize) -> Vec<String> {
        let tables = [self.schedule.table(), self.objective.table(), self.weighting.table(), self.timesteps.table()];
        let words = ["schedule", "objective", "weighting", "timesteps"];
        let others = words.into_iter().zip(&tables).enumerate().filter(|(i, _)| *i != drawn);
        others.map(|(_, (word, table))| format!("{word} {}", sconce_core::check::in_one_line(table))).collect()
    }
}

fn cover(name: &str, process: &Process) -> Result<Coverage, Failure> {
    Coverage::of(process).map_err(|e| {
        Failure::usage(format!("`{name}` has no effective weight here: {e}"))
            .help("take another schedule, objective or weighting around it: epsilon, say, cannot be had without signal")
    })
}

fn finish(title: &str, subtitle: String, names: Vec<String>, panels: Vec<Panel>, weighed: bool) -> Figure {
    let several = (names.len() > 1).then(|| panels::ALTERNATE_NOTE.to_owned());
    let notes = weighed.then(|| panels::COVERAGE_NOTE.to_owned()).into_iter().chain(several).collect();
    Figure { title: title.to_owned(), subtitle, names, panels, notes }
}

fn at_most(count: usize) -> Result<(), Failure> {
    if count <= draw::MOST {
        return Ok(());
    }
    let failure =
        Failure::usage(format!("{count} in one picture: more than {} colours cannot be told apart", draw::MOST));
    Err(failure.help("draw fewer at a time"))
}

fn no_picture(kind: &str) -> Failure {
    const DRAWN: [&str; 9] =
        ["schedule", "objective", "weighting", "timesteps", "distance", "spacing", "lr", "ema", RECIPE];
    let all = registry::all().unwrap_or_default();
    match all.iter().any(|p| p.kind == kind) {
        true => Failure::usage(format!("a {kind} has no picture"))
            .help(format!("there are pictures of: {}", DRAWN.join(", "))),
        false => {
            list::known(kind, &DRAWN).err().unwrap_or_else(|| Failure::usage(format!("there is no kind `{kind}`")))
        }
    }
}
