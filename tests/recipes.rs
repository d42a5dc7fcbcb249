//! Every recipe in `configs/` resolves for the family that it is for, is refused nothing, and stays itself when written
//! out; the committed schema is the generated one.

#[allow(dead_code)] // the command line's tests use the rest
#[path = "common/program.rs"]
mod program;

use std::fs;

use program::{Place, root};
use sconce::core::check;
use sconce::core::recipe::{Editor, RecipeSource, Resolved, resolve_in, schema};

/// The built-in recipes, each with a small model of its family.
const RECIPES: [(&str, &str); 11] = [
    ("flux-dev-lora", "flux-a"),
    ("flux-schnell-lora", "flux-b"),
    ("sd3-lora", "sd3-a"),
    ("sd35-full", "sd3-c"),
    ("sd35-lora", "sd3-c"),
    ("sd15-lora", "sd1-a"),
    ("sd15-lora-formulas", "sd1-a"),
    ("sd2-v", "sd2-a"),
    ("sdxl-lora", "sdxl-a"),
    ("sdxl-vpred-ztsnr", "sdxl-a"),
    ("sdxl-vpred-ztsnr-lora", "sdxl-a"),
];

fn resolved(source: &RecipeSource, set: &[String]) -> Resolved {
    resolve_in(source, set, std::iter::empty()).unwrap_or_else(|e| panic!("{source:?}: {e}"))
}

fn here(place: &Place) -> Vec<String> {
    vec![
        format!("model.path={:?}", place.path("model")),
        format!("data.source.0.path={:?}", place.path("pictures")),
        "data.source.0.smallest_px=8".into(),
        "data.source.0.resolution_px=128".into(),
    ]
}

#[test]
fn every_recipe_resolves_and_is_refused_nothing() {
    for (name, model) in RECIPES {
        let place = Place::new(model);
        let recipe = resolved(&RecipeSource::named(name), &here(&place));
        let report = check::explain(&recipe);
        assert!(report.refusals.is_empty(), "{name}: {report}");
        let noted: Vec<&str> = report.warnings.iter().map(|w| w.id).collect();
        assert!(noted.is_empty(), "{name}: {noted:?}");
    }
}

#[test]
fn a_recipe_written_out_is_the_same_recipe() {
    for (name, model) in RECIPES {
        let place = Place::new(model);
        let first = resolved(&RecipeSource::named(name), &here(&place));
        place.write("whole.toml", &first.to_toml());
        let second = resolved(&RecipeSource::File(place.path("whole.toml")), &[]);
        assert_eq!(first.to_toml(), second.to_toml(), "{name}");
        assert!(!first.portable_toml().contains(&place.0.path().display().to_string()), "{name}");
    }
}

#[test]
fn the_file_and_the_built_in_recipe_are_one() {
    for (name, model) in RECIPES {
        let place = Place::new(model);
        let set = here(&place);
        let file = resolved(&RecipeSource::File(root().join(format!("configs/{name}.toml"))), &set);
        assert_eq!(file.to_toml(), resolved(&RecipeSource::named(name), &set).to_toml(), "{name}");
    }
}

#[test]
fn every_line_of_a_recipe_says_why() {
    for (name, _) in RECIPES {
        let text = fs::read_to_string(root().join(format!("configs/{name}.toml"))).expect("the recipe is there");
        assert!(text.contains("# Needs about") && text.contains("GiB"), "{name} says what memory it needs");
    }
}

/// `sconce schema > configs/schema.json` writes it anew, and so does SCONCE_UPDATE_SNAPSHOTS=1.
#[test]
fn the_committed_schema_is_the_generated_one() {
    let generated = serde_json::to_string_pretty(&schema(Editor::Toml).expect("no plugin is registered twice"))
        .expect("JSON")
        + "\n";
    let path = root().join("configs/schema.json");
    if std::env::var_os("SCONCE_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, &generated).expect("written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "configs/schema.json is old: run `sconce schema > configs/schema.json`");
}

/// The shares of signal at t = 1 that the papers give.
#[test]
fn check_hits_the_known_facts() {
    let place = Place::new("sd1-a");
    for (schedule, low, high) in [
        ("{ type = \"scaled-linear\" }", 0.0682, 0.0684),
        ("{ type = \"linear\" }", 0.0062, 0.0064),
        ("{ type = \"cosine\" }", 4.5e-5, 5.5e-5),
        ("{ type = \"zero-terminal\", of = { type = \"scaled-linear\" } }", 0.0, 0.0),
    ] {
        let mut set = here(&place);
        set.extend([format!("schedule={schedule}"), "objective=v".into(), "model.convert=true".into()]);
        let report = check::explain(&resolved(&RecipeSource::named("sd15-lora"), &set));
        let fact = report.facts.iter().find(|f| f.topic == "schedule").expect("told");
        let left = fact.value["alpha_last"].as_f64().expect("a number");
        assert!((low..=high).contains(&left), "{schedule}: {left}");
    }
}

/// Min-SNR with v under zero terminal SNR leaves 0.03 % of the weight on t >= 900.
#[test]
fn check_computes_what_min_snr_leaves() {
    let place = Place::new("sdxl-a");
    let mut set = here(&place);
    set.push("weighting={ type = \"min-snr\", gamma = 5.0 }".into());
    let report = check::explain(&resolved(&RecipeSource::named("sdxl-vpred-ztsnr"), &set));
    let fact = report.facts.iter().find(|f| f.topic == "weighting").expect("told");
    let share = fact.value["above_0.9"].as_f64().expect("a number");
    assert!((2.5e-4..3.5e-4).contains(&share), "{share}");
    assert!(report.warnings.iter().any(|w| w.id == "starved-noise"));
}

#[test]
fn an_alias_and_a_name_are_one_plugin() {
    let place = Place::new("sdxl-a");
    let mut set = here(&place);
    set.extend(["weighting.type=min-snr", "weighting.gamma=3", "weighting.type=min_snr"].map(String::from));
    let recipe = resolved(&RecipeSource::named("sdxl-lora"), &set).recipe;
    assert_eq!(recipe.weighting.table()["gamma"], 3.0);
}

#[test]
fn a_formulas_numbers_are_set_as_any_field_is() {
    let place = Place::new("sd1-a");
    let set: Vec<String> = here(&place).into_iter().chain(["weighting.params.gamma=1".into()]).collect();
    let recipe = resolved(&RecipeSource::named("sd15-lora-formulas"), &set).recipe;
    assert_eq!(recipe.weighting.table()["params"]["gamma"], 1.0);
    assert_eq!(recipe.weighting.on_x0(f64::INFINITY), 1.0);
    // Nothing is left of the table below.
    assert!(recipe.weighting.table().get("gamma").is_none());
    let beyond: Vec<String> =
        set.into_iter().chain(["sampling.spacing={ type = \"expr\", sigma = \"9 * (1 - i / n)\" }".into()]).collect();
    let report = check::explain(&resolved(&RecipeSource::named("sd15-lora-formulas"), &beyond));
    assert!(report.refusals.iter().any(|r| r.id == "level-twice"), "{report}");
}

#[test]
fn another_solver_reads_the_checkpoint_as_its_own_class_would() {
    let place = Place::new("sd1-a");
    let sampled = |more: &[&str]| {
        let set = here(&place).into_iter().chain(more.iter().map(|s| s.to_string())).collect::<Vec<_>>();
        resolved(&RecipeSource::named("sd15-lora"), &set).recipe.sampling
    };
    // PNDM's file, as diffusers reads it for EulerDiscreteScheduler: the offset stays, the end is at no noise.
    let euler = sampled(&["sampling.solver=euler", "sampling.spacing=leading"]);
    assert_eq!(euler.spacing.table()["steps_offset"], 1);
    assert_eq!(euler.spacing.name(), "leading");
}

#[test]
fn the_readme_names_every_plugin() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README is there");
    let plugins = sconce::sdk::registry::all().expect("no name is taken twice");
    let missing: Vec<_> =
        plugins.iter().filter(|p| !readme.contains(&format!("`{}`", p.name))).map(|p| p.name).collect();
    assert!(missing.is_empty(), "README.md does not name {missing:?}");
}
