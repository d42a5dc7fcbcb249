//! Whole runs against the pipelines of diffusers: prompts, guidance, spacings and solvers together, each read from the
//! scheduler's config with the run's changes in it, as a swapped scheduler reads it there.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;

use candle_core::{DType, Result};
use case::{CASES, Case, json, options};
use sconce_core::model::{Geometry, Model, Native};
use sconce_core::recipe::{SamplingTable, family};
use sconce_core::sample::Sampler;
use sconce_nn::checkpoint::on_big_stack;
use sconce_nn::rng::Stream;
use sconce_sdk::{Choice, Objective, Schedule};
use serde_json::Value;

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
        case.check(tensor, &sample(&case, &*model, &native, run)?, 1e-3)?;
    }
    Ok(())
}

fn sample(case: &Case, model: &dyn Model, native: &Native, run: &Value) -> Result<candle_core::Tensor> {
    let schedule = Choice::<dyn Schedule>::from_table(&native.schedule).unwrap();
    let objective = Choice::<dyn Objective>::from_table(&native.objective).unwrap();
    let sampling = SamplingTable {
        solver: Choice::from_table(&native.solver).unwrap(),
        spacing: Choice::from_table(&native.spacing).unwrap(),
        steps: run["steps"].as_u64().unwrap() as usize,
        cfg: run["guidance"].as_f64().unwrap(),
        guidance: None,
        cfg_rescale: run["guidance_rescale"].as_f64().unwrap(),
        negative: run["negative"].as_str().map(str::to_owned),
    };
    let backbone = &**model.backbone();
    let sampler = Sampler { backbone, schedule: &*schedule, objective: &*objective, sampling: &sampling };
    let noise = case.expected("sample.init")?;
    let side = |field: &str| run[field].as_u64().unwrap() as u32;
    let pictures = vec![Geometry::plain(side("height"), side("width")); noise.dim(0)?];
    let prompts = vec![run["prompt"].as_str().unwrap(); pictures.len()];
    let cond = sampler.condition(&**model.conditioner(), &prompts, &pictures)?;
    sampler.sample(&noise, &cond, &Stream::new(0, "unused"), &mut |_, _| Ok(()))
}
