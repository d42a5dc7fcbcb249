//! A fixture's run through the sampler, for any family.

use candle_core::{Result, Tensor};
use sconce_core::model::{Geometry, Model, Native};
use sconce_core::network::Network;
use sconce_core::recipe::SamplingTable;
use sconce_core::sample::Sampler;
use sconce_nn::rng::Stream;
use sconce_sdk::{Choice, Objective, Schedule};
use serde_json::Value;

use super::case::Case;

/// The final latents of a run of the fixture, from its own noise, as `native` says.
pub fn sampled(case: &Case, model: &dyn Model, native: &Native, run: &Value) -> Result<Tensor> {
    let schedule = Choice::<dyn Schedule>::from_table(&native.schedule).unwrap();
    let objective = Choice::<dyn Objective>::from_table(&native.objective).unwrap();
    let sampling = SamplingTable {
        solver: Choice::from_table(&native.solver).unwrap(),
        spacing: Choice::from_table(&native.spacing).unwrap(),
        steps: run["steps"].as_u64().unwrap() as usize,
        cfg: run["guidance"].as_f64().unwrap(),
        guidance: run.get("told").and_then(Value::as_f64),
        cfg_rescale: run.get("guidance_rescale").map_or(0.0, |share| share.as_f64().unwrap()),
        negative: run["negative"].as_str().map(str::to_owned),
    };
    let network = Network::plain(&**model.backbone());
    let sampler = Sampler { network, schedule: &*schedule, objective: &*objective, sampling: &sampling };
    let noise = case.expected("sample.init")?;
    let side = |field: &str| run[field].as_u64().unwrap() as u32;
    let pictures = vec![Geometry::plain(side("height"), side("width")); noise.dim(0)?];
    let prompts = vec![run["prompt"].as_str().unwrap(); pictures.len()];
    let cond = sampler.condition(&**model.conditioner(), &prompts, &pictures)?;
    sampler.sample(&noise, &cond, &Stream::new(0, "unused"), &mut |_, _| Ok(()))
}
