//! Resolution with plugins and a family of the tests' own: the core knows no real ones.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Result, bail};
use sconce_nn::Store;
use sconce_sdk::prelude::*;
use serde_json::json;

use super::*;
use crate::model::{Family, LoadOptions, Model, Native};
use crate::noise::{Batch, Drawn, NoiseSource};
use crate::optimizer::{Optimizer, OptimizerState, Trained};
use crate::solver::{Denoise, Solver};

macro_rules! double {
    ($kind:ident, $type:ident, $name:literal, { $($field:ident: $of:ty = $default:expr),* }, $body:item) => {
        /// A double.
        #[derive(Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        struct $type { $(#[doc = "A field."] $field: $of),* }
        impl Default for $type {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }
        $body
        register!($kind, $name, $type);
    };
}

fn straight(t: f64, last: f64) -> Noise {
    let sigma = t * (1.0 - last);
    Noise { alpha: 1.0 - sigma, sigma, d_alpha: last - 1.0, d_sigma: 1.0 - last }
}

double!(Schedule, Leaky, "leaky", { left: f64 = 0.1 }, impl Schedule for Leaky {
    fn at(&self, t: f64) -> Noise { straight(t, self.left) }
});
double!(Schedule, Clean, "clean", { of: Option<Choice<dyn Schedule>> = None }, impl Schedule for Clean {
    fn at(&self, t: f64) -> Noise { straight(t, 0.0) }
});
double!(Objective, Eps, "epsilon", {}, impl Objective for Eps {
    fn target(&self, _: &Noise) -> [f64; 2] { [0.0, 1.0] }
});
double!(Weighting, Plain, "native", {}, impl Weighting for Plain {
    fn on_x0(&self, l: f64) -> f64 { l.exp() }
});
double!(Weighting, Clamp, "clamp", { gamma: f64 = 5.0 }, impl Weighting for Clamp {
    fn on_x0(&self, l: f64) -> f64 { l.exp().min(self.gamma) }
});
double!(TimestepSampler, Even, "uniform", {}, impl TimestepSampler for Even {
    fn quantile(&self, u: f64, _: &dyn Schedule) -> f64 { u }
});
double!(Distance, Square, "mse", {}, impl Distance for Square {
    fn at(&self, d: f64, _: f64) -> [f64; 2] { [d * d, 2.0 * d] }
});
double!(NoiseSource, White, "gaussian", {}, impl NoiseSource for White {
    fn draw(&self, batch: &Batch) -> Result<Drawn> { batch.normal("noise").map(Drawn::plain) }
});
double!(EmaStrategy, NoEma, "none", {}, impl EmaStrategy for NoEma {
    fn tracks(&self) -> Vec<Track> { Vec::new() }
    fn decay(&self, _: usize, _: u64, _: u64) -> f64 { 0.0 }
});
double!(LrSchedule, Flat, "constant", {}, impl LrSchedule for Flat {
    fn factor(&self, _: u64, _: u64) -> f64 { 1.0 }
});
double!(Spacing, Leading, "leading", { offset: usize = 1 }, impl Spacing for Leading {
    fn levels(&self, s: &dyn Schedule, n: usize) -> Vec<Level> {
        (0..=n).rev().map(|i| i as f64 / (n + 1) as f64).map(|t| Level { t, noise: s.at(t) }).collect()
    }
});
double!(Spacing, Trailing, "trailing", {}, impl Spacing for Trailing {
    fn levels(&self, s: &dyn Schedule, n: usize) -> Vec<Level> {
        (0..=n).rev().map(|i| i as f64 / n as f64).map(|t| Level { t, noise: s.at(t) }).collect()
    }
});
double!(Solver, Step, "step", {}, impl Solver for Step {
    fn solve(&self, x: candle_core::Tensor, _: &[Level], _: &mut dyn Denoise) -> Result<candle_core::Tensor> { Ok(x) }
});
double!(Optimizer, Sgd, "sgd", { lr: f64 = 0.1 }, impl Optimizer for Sgd {
    fn lr(&self) -> f64 { self.lr }
    fn start(&self, _: Vec<Trained>) -> Result<Box<dyn OptimizerState>> { Ok(Box::new(Still)) }
});

/// Trains nothing.
struct Still;
impl OptimizerState for Still {
    fn update(&mut self, _: usize, _: &candle_core::Tensor, _: &crate::optimizer::At) -> Result<()> {
        Ok(())
    }
    fn save(&self) -> Result<std::collections::BTreeMap<String, candle_core::Tensor>> {
        Ok(Default::default())
    }
    fn restore(&mut self, _: &std::collections::BTreeMap<String, candle_core::Tensor>) -> Result<()> {
        Ok(())
    }
}

double!(Family, Toy, "toy", {}, impl Family for Toy {
    fn detect(&self, path: &Path) -> Result<bool> { Ok(path.join("toy").exists()) }
    fn native(&self, _: &Path) -> Result<Native> {
        Ok(Native {
            family: "toy".into(),
            architecture: "toy".into(),
            base_version: "toy".into(),
            schedule: json!({"type": "leaky", "left": 0.25}),
            objective: json!({"type": "epsilon"}),
            spacing: json!({"type": "leading", "offset": 3}),
            solver: json!({"type": "step"}),
            steps: None,
            cfg: None,
            guidance: None,
            denoiser: "unet".into(),
            replaced: None,
            resolution_px: 64,
            latent_px: 8,
            untrained: false,
            evidence: BTreeMap::from([("schedule".into(), "scheduler_config.json: left".into())]),
        })
    }
    fn shapes(&self, _: &Path) -> Result<Vec<Arc<Store>>> { Ok(Vec::new()) }
    fn backbone(&self, _: &Path, _: &LoadOptions) -> Result<Arc<dyn crate::model::Backbone>> { bail!("a double does not load") }
    fn around(&self, _: &Path, _: Arc<dyn crate::model::Backbone>, _: &LoadOptions) -> Result<Box<dyn Model>> {
        bail!("a double does not load")
    }
});

inventory::submit! {
    BuiltinRecipe { name: "toy-base", text: "[train]\nimages = 8\nseed = 5\n[optimizer]\ntype = 'sgd'\nlr = 0.5\n" }
}

const WHOLE: &str =
    "extends = 'toy-base'\n[model]\npath = 'model'\n[data]\nbatch = 2\n[[data.source]]\npath = 'pictures'\n";

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = tempfile::tempdir().expect("a folder");
        fs::create_dir(place.path().join("model")).expect("a folder");
        fs::write(place.path().join("model/toy"), "").expect("a file");
        Self(place)
    }

    fn write(&self, name: &str, text: &str) -> RecipeSource {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("a file");
        RecipeSource::File(path)
    }

    fn resolve(&self, text: &str, set: &[&str]) -> std::result::Result<Resolved, RecipeError> {
        let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
        resolve_in(&self.write("recipe.toml", text), &set, std::iter::empty())
    }

    fn errors(&self, text: &str, set: &[&str]) -> String {
        let error = self.resolve(text, set).expect_err("a bad recipe");
        error.to_string().replace(&format!("{}/", self.0.path().display()), "")
    }
}

#[test]
fn layers_stand_in_their_order() {
    let place = Place::new();
    let source = place.write("recipe.toml", WHOLE);
    let environment = [("SCONCE_TRAIN__IMAGES".to_owned(), "16".to_owned())];
    let set = ["optimizer.lr=0.25".to_owned()];
    let r = resolve_in(&source, &set, environment.into_iter()).expect("resolves");
    assert_eq!(r.recipe.train.images, 16, "environment over extends");
    assert_eq!(r.recipe.train.seed, 5, "extends");
    assert_eq!(r.recipe.optimizer.table(), json!({"type": "sgd", "lr": 0.25}), "--set over extends");
    assert_eq!(r.recipe.schedule.table(), json!({"type": "leaky", "left": 0.25}), "native");
    assert_eq!(r.recipe.weighting.name(), "native", "default");
    assert_eq!(r.recipe.train.components, BTreeMap::from([("unet".into(), 1.0)]));
    assert_eq!(r.recipe.data.source[0].resolution_px, Some(64));
    assert_eq!(r.name, "recipe");
    assert!(Path::new(&r.recipe.data.source[0].path).is_absolute());
    assert_eq!(r.origins["schedule.left"].to_string(), "the checkpoint's own (scheduler_config.json: left)");
    assert_eq!(r.origins["train.seed"].to_string(), "built-in recipe toy-base:3:8");
    assert_eq!(r.origins["train.images"].to_string(), "environment variable SCONCE_TRAIN__IMAGES");
}

#[test]
fn another_schedule_takes_nothing_of_the_checkpoints() {
    let r = Place::new().resolve(&format!("schedule = 'clean'\n{WHOLE}"), &[]);
    let r = r.map_err(|e| e.to_string()).expect("resolves");
    assert_eq!(r.recipe.schedule.table(), json!({"type": "clean", "of": null}));
    assert_eq!(r.recipe.sampling.spacing.name(), "trailing", "leading never starts at pure noise");
    let r = Place::new().resolve(&format!("schedule = 'clean'\n{WHOLE}[sampling]\nspacing = {{ offset = 7 }}\n"), &[]);
    assert_eq!(r.expect("resolves").recipe.sampling.spacing.table(), json!({"type": "leading", "offset": 7}));
}

#[test]
fn a_resolved_recipe_resolves_to_itself() {
    let place = Place::new();
    let first =
        place.resolve(&format!("schedule = 'clean'\n{WHOLE}[preview]\nprompts = ['a \"b\"']\n"), &[]).expect("good");
    let second = place.resolve(&first.to_toml(), &[]).expect("resolves again");
    assert_eq!(first.to_toml(), second.to_toml());
    assert_eq!(first.tables(), second.tables());
    assert!(first.portable_toml().contains("path = \"model\""), "{}", first.portable_toml());
}

#[test]
fn errors_name_the_place_the_field_and_the_nearest_name() {
    let place = Place::new();
    let bad = "extends = 'toy-base'\n[model]\npath = 'model'\n[data]\nbatch = 'two'\n[[data.source]]\npath = 'p'\nrepeat = 2\n\
               [weighting]\ntype = 'clamp'\ngama = 5\n[ema]\ntype = 'nome'\n[optimiser]\nlr = 1\n";
    assert_eq!(
        place.errors(bad, &["train.images=many", "objective.type=eps"]),
        "recipe.toml:14:2: `optimiser`: unknown field `optimiser`\n  help: did you mean `optimizer`?\n\
         recipe.toml:11:1: `weighting.gama`: unknown field `gama`, expected `gamma`\n  help: did you mean `gamma`?\n\
         recipe.toml:13:8: `ema.type`: there is no ema `nome`\n  help: did you mean `none`?\n\
         recipe.toml:5:9: `data.batch`: invalid type: the text \"two\", expected a whole number from 0 up\n\
         --set train.images=many: `train.images`: invalid type: the text \"many\", expected a whole number from 0 up\n\
         --set objective.type=eps: `objective.type`: there is no objective `eps`\n  help: there are: epsilon"
    );
}

#[test]
fn missing_things_and_limits_are_named() {
    let place = Place::new();
    let missing = place.errors("[model]\npath = 'nowhere'\n[train]\nseed = 1\n", &[]);
    assert!(missing.contains("recipe.toml:2:8: `model.path`: there is no `nowhere`"), "{missing}");
    assert!(missing.contains("recipe.toml: `optimizer`: the recipe has no [optimizer] table"), "{missing}");
    assert!(missing.contains("recipe.toml:3:1: `train`: missing field `images`"), "{missing}");
    let limits = place.errors(WHOLE, &["data.batch=0"]);
    assert_eq!(limits, "--set data.batch=0: `data.batch`: must be 1 or more");
}

#[test]
fn circles_and_unknown_parents_are_refused() {
    let place = Place::new();
    place.write("other.toml", "extends = 'recipe.toml'\n");
    assert!(
        place
            .errors("extends = 'other.toml'\n", &[])
            .starts_with("other.toml:1:11: `extends`: the recipes extend each")
    );
    let unknown = place.errors("extends = 'toy-bas'\n", &[]);
    assert!(unknown.contains("recipe.toml:1:11: `extends`: there is no file `toy-bas`"), "{unknown}");
    assert!(unknown.ends_with("did you mean `toy-base`?"), "{unknown}");
}
