//! kohya's sd-scripts: one set of arguments, given on a command line or in a TOML file whose sections mean nothing, and a
//! dataset in a TOML file of its own. What a script is for (which family, adapter or whole) is in its name alone, so for a
//! TOML file it is told from the fields that only some scripts have.

mod adapter;
mod command;
mod components;
mod data;
mod dataset;
mod model;
mod network;
mod noise;
mod optimizer;
mod output;
mod run;
mod sample;
mod script;
mod times;
mod weighting;

use serde_json::{Map, Value};

pub(crate) use command::is_command;

use crate::case::{Case, Learns};
use crate::family::Family;
use crate::rule::{Field, Rule};
use crate::value;
use crate::{Error, Migration, Program, Read, Wanted};

/// All fields, by what they are about.
pub(crate) static RULES: &[&[Rule]] = &[
    model::RULES,
    noise::RULES,
    times::RULES,
    weighting::RULES,
    network::RULES,
    optimizer::RULES,
    data::RULES,
    run::RULES,
    sample::RULES,
    output::RULES,
];

/// The scripts: their names, the family, and what they train.
const SCRIPTS: &[(&str, Option<Family>, Learns)] = &[
    ("train_network", None, Learns::Adapter),
    ("sdxl_train_network", Some(Family::Sdxl), Learns::Adapter),
    ("flux_train_network", Some(Family::Flux), Learns::Adapter),
    ("sd3_train_network", Some(Family::Sd3), Learns::Adapter),
    ("train_db", None, Learns::Whole),
    ("fine_tune", None, Learns::Whole),
    ("sdxl_train", Some(Family::Sdxl), Learns::Whole),
    ("flux_train", Some(Family::Flux), Learns::Whole),
    ("sd3_train", Some(Family::Sd3), Learns::Whole),
    ("train_textual_inversion", None, Learns::Word),
    ("sdxl_train_textual_inversion", Some(Family::Sdxl), Learns::Word),
];

/// Arguments whose values are lists of `name=value`.
const LISTS: &[&str] = &["network_args", "optimizer_args", "lr_scheduler_args"];

/// Fields that only sd-scripts has.
const OURS: &[&str] = &[
    "pretrained_model_name_or_path",
    "network_module",
    "network_dim",
    "train_data_dir",
    "dataset_config",
    "train_batch_size",
    "max_train_steps",
    "max_train_epochs",
    "optimizer_type",
    "learning_rate",
    "output_name",
];

/// True if a TOML file has fields of sd-scripts, in sections or not.
pub(crate) fn is_config(config: &Map<String, Value>) -> bool {
    let ours = |key: &String| OURS.contains(&key.as_str());
    config.iter().any(|(key, value)| ours(key) || value.as_object().is_some_and(|section| section.keys().any(ours)))
}

/// A `--config_file`.
pub(crate) fn toml(config: Map<String, Value>, read: &mut Read) -> Result<Migration, Error> {
    let mut fields = Vec::new();
    flatten(config, "", 0, &mut fields);
    migrate(None, fields, Vec::new(), read)
}

/// A command line.
pub(crate) fn command(text: &str, read: &mut Read) -> Result<Migration, Error> {
    let command::Command { script, mut fields, mut warnings } = command::parse(text)?;
    let config =
        fields.iter().find(|f| f.key == "config_file").map(|f| f.value.as_str().unwrap_or_default().to_owned());
    if let Some(name) = config {
        let name = if name.ends_with(".toml") { name } else { name + ".toml" };
        match read(Wanted::Config, &name) {
            Ok(text) => flatten(value::toml(&text)?, &format!("{name}: "), 0, &mut fields),
            Err(why) => warnings.push(format!("cannot read `{name}`, so that what it says is missing: {why}")),
        }
    }
    migrate(Some(&script), fields, warnings, read)
}

/// A `--dataset_config` without the rest.
pub(crate) fn dataset_alone(config: Map<String, Value>) -> Result<Migration, Error> {
    let mut case = case(dataset::fields(config, "")?, None)?;
    case.warnings.push(
        "this is the dataset of sd-scripts alone: migrate the command or the configuration that \
             names it, and the rest of the recipe comes with it"
            .into(),
    );
    let entries = case.run();
    case.draft.only("data");
    case.draft.ask("train.images", "pictures in the whole run");
    case.draft.ask("optimizer.lr", "the learning rate");
    Ok(case.done(entries))
}

/// The fields of a file, of which sections are dropped; those of `rank` 0 are overruled by the command line's.
fn flatten(config: Map<String, Value>, prefix: &str, rank: u8, fields: &mut Vec<Field>) {
    for (key, value) in config {
        match value {
            Value::Object(section) => {
                let inner = section.into_iter();
                fields.extend(
                    inner.map(|(name, v)| Field { rank, ..Field::new(format!("{prefix}{key}.{name}"), name, v) }),
                );
            }
            value => fields.push(Field { rank, ..Field::new(format!("{prefix}{key}"), key, value) }),
        }
    }
}

fn migrate(
    script: Option<&str>,
    mut fields: Vec<Field>,
    mut warnings: Vec<String>,
    read: &mut Read,
) -> Result<Migration, Error> {
    fields = fields.into_iter().flat_map(itemised).collect();
    let named = |key: &str| fields.iter().rev().find(|f| f.key == key).map(|f| f.value.clone());
    let mut unread = false;
    let [dataset, prompts] = ["dataset_config", "sample_prompts"].map(named);
    if let Some(Value::String(name)) = dataset {
        match read(Wanted::Dataset, &name) {
            Ok(text) => fields.extend(dataset::fields(value::toml(&text)?, &format!("{name}: "))?),
            Err(why) => {
                unread = true;
                warnings.push(format!("cannot read the dataset `{name}`, so that the recipe asks for it: {why}"));
            }
        }
    }
    if let Some(Value::String(name)) = prompts {
        match read(Wanted::Prompts, &name) {
            Ok(text) => fields.extend(sample::fields(&text, &name)),
            Err(why) => {
                warnings.push(format!("cannot read the prompts in `{name}`, so that the recipe asks for them: {why}"))
            }
        }
    }
    let mut case = case(fields, script)?;
    case.unread = unread;
    case.warnings.splice(..0, warnings);
    let entries = case.run();
    run::missing(&mut case);
    Ok(case.done(entries))
}

/// A field of a list of arguments as one field for each of them.
fn itemised(field: Field) -> Vec<Field> {
    let (true, Value::Array(items)) = (LISTS.contains(&field.key.as_str()), &field.value) else { return vec![field] };
    let one = |item: &Value| {
        let text = item.as_str()?;
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let (name, value) = (name.trim(), value.trim().trim_matches(['"', '\'']));
        let shown = format!("{}: {name}", field.shown);
        Some(Field { rank: field.rank, ..Field::new(shown, format!("{}.{name}", field.key), value.into()) })
    };
    match items.iter().map(one).collect::<Option<Vec<_>>>().filter(|fields| !fields.is_empty()) {
        Some(fields) => fields,
        None => vec![field],
    }
}

/// The configuration, with what its rules need to know of all of it.
fn case(fields: Vec<Field>, script: Option<&str>) -> Result<Case, Error> {
    let folders = fields.iter().filter_map(|f| f.sources.as_ref().map(|s| s.end)).max();
    let mut case = Case::new(Program::SdScripts, RULES, fields)?;
    let known = SCRIPTS.iter().find(|(name, ..)| Some(*name) == script);
    let (family, learns) = known.map_or((None, script::learns(&case)), |(_, family, learns)| (*family, *learns));
    case.learns = learns;
    case.family = match family {
        Some(family) => family,
        None => script::family(&mut case, known.is_some()),
    };
    case.schnell = case.text("pretrained_model_name_or_path").contains("schnell");
    case.folders = folders.unwrap_or(1);
    case.batch = case.given("batch_size").and_then(Field::number).or(case.number("train_batch_size")).unwrap_or(1.0);
    case.accumulate = case.number("gradient_accumulation_steps").unwrap_or(1.0);
    case.side_px = data::side(&case.value("resolution")).map_or(512.0, |(side, _)| side);
    Ok(case)
}

/// How a rule takes its value, for the command line.
fn takes_list(key: &str) -> bool {
    LISTS.contains(&key) || RULES.iter().any(|rules| rules.iter().any(|r| r.key == key && r.is_list()))
}

/// True if an argument is a flag, which takes no value.
fn takes_nothing(key: &str) -> bool {
    RULES.iter().any(|rules| rules.iter().any(|r| r.key == key && r.is_flag()))
}
