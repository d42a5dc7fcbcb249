//! Whole runs against the pipelines of diffusers: prompts, guidance, spacings and solvers together, each read from the
//! scheduler's config with the run's changes in it, as a swapped scheduler reads it there.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/sampled.rs"]
mod sampled;

use candle_core::{DType, Result};
use case::{CASES, Case, json, options};
use sampled::sampled;
use sconce_core::recipe::family;
use sconce_nn::checkpoint::on_big_stack;

use sconce as _;

#[test]
fn final_latents_are_those_of_diffusers() {
    on_big_stack(|| {
        for name in CASES {
            runs(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    });
}

fn runs(name: &str) -> Result<()> {
    let components = if name.starts_with("sdxl") {
        &["unet", "vae", "text_encoder", "text_encoder_2"][..]
    } else {
        &["unet", "vae", "text_encoder"]
    };
    let case = Case::new(name, components)?;
    let family = family(case.path(), None).unwrap();
    let model = family.load(case.path(), &options(DType::F32))?;
    let config = case.path().join("scheduler/scheduler_config.json");
    let own = json(config.clone());
    for run in case.text["runs"].as_array().unwrap() {
        let mut changed = own.clone();
        for (field, value) in run["overrides"].as_object().unwrap() {
            changed[field] = value.clone();
        }
        if run["zero_terminal"] == true {
            // Only a class that knows the field may say how the model was trained.
            changed["_class_name"] = run["scheduler"].clone();
        }
        std::fs::write(&config, changed.to_string())?;
        let native = family.native_with(case.path(), run["solver"].as_str(), None)?;
        let tensor = run["tensor"].as_str().unwrap();
        case.check(tensor, &sampled(&case, &*model, &native, run)?, 1e-3)?;
    }
    Ok(())
}
