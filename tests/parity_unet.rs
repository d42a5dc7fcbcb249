//! The UNet against diffusers: outputs and every parameter's gradient, on nine configs that differ in all that configs
//! can vary, with the weights of the formula read from a weight file.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;

use candle_core::{DType, Result, Tensor};
use case::{CASES, Case, options};
use sconce_core::Cond;
use sconce_core::model::{Backbone, Recompute};
use sconce_models::sd::unet::UNet;
use sconce_nn::checkpoint::on_big_stack;

fn load(case: &Case, dtype: DType) -> Result<UNet> {
    UNet::load(&case.path().join("unet"), 1000, &options(dtype))
}

/// The UNet's output for the inputs stored under `label`.
fn call(case: &Case, unet: &UNet, label: &str) -> Result<Tensor> {
    let get = |key: &str| case.expected(&format!("{label}.{key}"));
    let mut cond = Cond::default().with("context", get("context")?);
    if case.is_xl() {
        cond = cond.with("pooled", get("pooled")?).with("time_ids", get("time_ids")?);
    }
    unet.forward(&get("x")?, &get("t")?, &cond)
}

fn check_gradients(name: &str, what: Recompute) -> Result<()> {
    let case = Case::new(name, &["unet"])?;
    let unet = load(&case, DType::F32)?;
    unet.recompute(what);
    let params = unet.store().params();
    for param in &params {
        param.train()?;
    }
    let loss = (call(&case, &unet, "unet")? - case.expected("grad.target")?)?.sqr()?.mean_all()?;
    case.check_gradients("unet", &params, &loss)
}

#[test]
fn outputs_are_those_of_diffusers() -> Result<()> {
    for name in CASES {
        let case = Case::new(name, &["unet"])?;
        let unet = load(&case, DType::F32)?;
        for label in ["unet", "unet_b"] {
            case.check(&format!("{label}.out"), &call(&case, &unet, label)?, 1e-4)?;
        }
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_pytorch() -> Result<()> {
    on_big_stack(|| CASES.into_iter().try_for_each(|name| check_gradients(name, Recompute::Nothing)))
}

#[test]
fn gradients_are_the_same_when_blocks_are_recomputed() -> Result<()> {
    on_big_stack(|| ["sd1-b", "sdxl-a"].into_iter().try_for_each(|name| check_gradients(name, Recompute::Blocks)))
}

#[test]
fn half_precision_stays_near() -> Result<()> {
    let case = Case::new("sdxl-a", &["unet"])?;
    for (dtype, tolerance) in [(DType::BF16, 0.05), (DType::F16, 0.01)] {
        let out = call(&case, &load(&case, dtype)?, "unet")?;
        assert_eq!(out.dtype(), dtype);
        case.check("unet.out", &out, tolerance)?;
    }
    Ok(())
}
