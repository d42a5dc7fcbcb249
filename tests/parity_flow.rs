//! Stable Diffusion 3 and Flux against diffusers and transformers, on three configs of each that differ in what configs can
//! vary: token ids, embeddings, the denoiser, the autoencoder, whole runs, and every parameter's gradient.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/sampled.rs"]
mod sampled;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use case::{Case, FLOW_CASES, data, device, json, options, strings};
use sampled::sampled;
use sconce_core::Cond;
use sconce_core::model::{LoadOptions, Model, PromptUse, Recompute};
use sconce_core::recipe::family;
use sconce_models::text::unigram::T5Tokenizer;
use sconce_nn::Store;
use sconce_nn::checkpoint::on_big_stack;

use sconce as _;

/// The whole model of a case, with prompts as long as the fixture's.
fn load(name: &str, dtype: DType) -> Result<(Case, Box<dyn Model>)> {
    let keys = json(data(name, "keys.json"));
    let components: Vec<&str> = keys.as_object().unwrap().keys().map(String::as_str).collect();
    let case = Case::new(name, &components)?;
    let tokens = case.text["max_sequence_length"].as_u64().map(|n| n as usize);
    let options = LoadOptions { max_tokens: tokens, ..options(dtype) };
    let model = family(case.path(), None).unwrap().load(case.path(), &options)?;
    Ok((case, model))
}

fn captions<'a>(texts: &[&'a str]) -> Vec<(&'a str, PromptUse)> {
    texts.iter().map(|text| (*text, PromptUse::Caption)).collect()
}

/// The prompts whose embeddings are recorded.
fn chosen(case: &Case) -> Vec<&str> {
    let all = strings(&case.text["prompts"]);
    case.text["chosen"].as_array().unwrap().iter().map(|i| all[i.as_u64().unwrap() as usize]).collect()
}

/// The denoiser's output for the inputs stored under `label`, with some conditions in place of those stored.
fn call(case: &Case, model: &dyn Model, label: &str, cond: Cond) -> Result<Tensor> {
    let get = |key: &str| case.expected(&format!("{label}.{key}"));
    let mut all = Cond::default().with("context", get("context")?).with("pooled", get("pooled")?);
    if model.native().guidance.is_some() {
        all = all.with("guidance", get("guidance")?);
    }
    model.backbone().forward(&get("x")?, &get("t")?, &all.merge(cond))
}

fn each(test: impl Fn(&str) -> Result<()> + Sync) -> Result<()> {
    on_big_stack(|| FLOW_CASES.into_iter().try_for_each(|name| test(name).inspect_err(|e| println!("{name}: {e}"))))
}

#[test]
fn ids_of_t5_are_those_of_transformers() -> Result<()> {
    let tokenizer = T5Tokenizer::load(&data("tokenizer-t5", ""))?;
    for (text, ids) in json(data("tokenizer-t5", "ids.json")).as_object().unwrap() {
        let list = |key: &str| -> Vec<u32> { serde_json::from_value(ids[key].clone()).unwrap() };
        assert_eq!(tokenizer.ids(text)?, list("bare"), "{text:?}");
        assert_eq!(tokenizer.row(text, 40)?, list("ids"), "{text:?}");
    }
    Ok(())
}

#[test]
fn prompts_become_the_ids_of_each_tokenizer() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::F32)?;
        let parts: Vec<&str> = ["tokenizer", "tokenizer_2", "tokenizer_3"]
            .into_iter()
            .filter(|part| case.expected(&format!("prompts.{part}.ids")).is_ok())
            .collect();
        for (i, text) in strings(&case.text["prompts"]).into_iter().enumerate() {
            let ids = model.conditioner().token_ids(text)?;
            assert_eq!(ids.len(), parts.len(), "{name}");
            for (ids, part) in ids.iter().zip(&parts) {
                let expected: Vec<f32> =
                    case.expected(&format!("prompts.{part}.ids"))?.get(i)?.to_dtype(DType::F32)?.to_vec1()?;
                assert_eq!(ids[0].iter().map(|&id| id as f32).collect::<Vec<_>>(), expected, "{name} {part}: {text:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn prompts_are_encoded_as_by_diffusers() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::F32)?;
        let negative = case.text["negative"].as_str().unwrap();
        let mut calls = vec![("prompts", captions(&chosen(&case)))];
        if name.starts_with("sd3") {
            calls.push(("uncond", vec![("", PromptUse::Unconditional)]));
            calls.push(("negative", captions(&[negative])));
        }
        for (label, prompts) in calls {
            let cond = model.conditioner().encode(&prompts)?;
            for key in ["context", "pooled"] {
                case.check(&format!("{label}.{key}"), cond.get(key)?, 1e-4)?;
            }
        }
        // More tokens of T5 than the family gives it by itself.
        let longer = LoadOptions { max_tokens: Some(65), ..options(DType::F32) };
        let longer = family(case.path(), None).unwrap().load(case.path(), &longer)?;
        let context = longer.conditioner().encode(&captions(&chosen(&case)[2..3]))?.get("context")?.clone();
        let end = context.narrow(1, context.dim(1)? - 40, 40)?;
        match end.abs()?.sum_all()?.to_scalar::<f32>()? {
            0.0 => assert_eq!(case.expected("longer.context")?.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0, "{name}"),
            _ => case.check("longer.context", &end, 1e-4)?,
        }
        Ok(())
    })
}

#[test]
fn outputs_are_those_of_diffusers() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::F32)?;
        for label in ["transformer", "transformer_b"] {
            case.check(&format!("{label}.out"), &call(&case, &*model, label, Cond::default())?, 1e-4)?;
        }
        Ok(())
    })
}

#[test]
fn half_precision_stays_near() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::BF16)?;
        let out = call(&case, &*model, "transformer", Cond::default())?;
        assert_eq!(out.dtype(), DType::BF16);
        case.check("transformer.out", &out, 0.05)?;
        let context = model.conditioner().encode(&captions(&chosen(&case)))?.get("context")?.clone();
        case.check("prompts.context", &context, 0.03)
    })
}

#[test]
fn moments_and_pictures_are_those_of_diffusers() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::F32)?;
        let vae = model.autoencoder();
        let moments = vae.encode(&case.expected("vae.x")?)?;
        case.check("vae.mean", &moments.mean, 1e-4)?;
        case.check("vae.logvar", &moments.log_variance.unwrap(), 1e-4)?;
        let z = case.expected("vae.z")?;
        case.check("vae.decoded", &vae.decode(&z)?, 1e-4)?;
        let config = json(case.path().join("vae/config.json"));
        let number = |field: &str| config[field].as_f64().unwrap();
        assert_eq!([vae.scaling().factor, vae.scaling().shift], [number("scaling_factor"), number("shift_factor")]);
        Ok(())
    })
}

#[test]
fn final_latents_are_those_of_diffusers() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::F32)?;
        let config = case.path().join("scheduler/scheduler_config.json");
        let own = json(config.clone());
        for run in case.text["runs"].as_array().unwrap() {
            let mut changed = own.clone();
            for (field, value) in run["overrides"].as_object().unwrap() {
                changed[field] = value.clone();
            }
            std::fs::write(&config, changed.to_string())?;
            let native = family(case.path(), None).unwrap().native_with(case.path(), run["solver"].as_str(), None)?;
            let latents = sampled(&case, &*model, &native, run)?;
            case.check(run["tensor"].as_str().unwrap(), &latents, 1e-3)?;
        }
        Ok(())
    })
}

fn train(store: &Arc<Store>) -> Result<()> {
    store.params().iter().try_for_each(|param| param.train().map(drop))
}

/// The mean squared error of the denoiser's output under some conditions.
fn loss(case: &Case, model: &dyn Model, cond: Cond) -> Result<Tensor> {
    (call(case, model, "transformer", cond)? - case.expected("grad.target")?)?.sqr()?.mean_all()
}

#[test]
fn gradients_of_the_denoiser_are_those_of_pytorch_whether_blocks_are_recomputed_or_not() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::F32)?;
        let store = model.backbone().store();
        train(store)?;
        for what in [Recompute::Nothing, Recompute::Blocks] {
            model.backbone().recompute(what);
            case.check_gradients("transformer", &store.params(), &loss(&case, &*model, Cond::default())?)?;
        }
        Ok(())
    })
}

#[test]
fn gradients_of_the_text_encoders_are_those_of_pytorch() -> Result<()> {
    each(|name| {
        for store in load(name, DType::F32)?.1.conditioner().stores() {
            let (case, model) = load(name, DType::F32)?;
            let stores = model.conditioner().stores();
            let store = stores.iter().find(|s| s.component() == store.component()).unwrap();
            train(store)?;
            let all = strings(&case.text["prompts"]);
            let cond = model.conditioner().encode(&captions(&[all[0], all[4]]))?;
            case.check_gradients(store.component(), &store.params(), &loss(&case, &*model, cond)?)?;
        }
        Ok(())
    })
}

#[test]
fn gradients_of_the_autoencoder_are_those_of_pytorch() -> Result<()> {
    each(|name| {
        let (case, model) = load(name, DType::F32)?;
        let vae = model.autoencoder();
        train(vae.store())?;
        let x = case.expected("vae.x")?;
        let loss = (vae.decode(&vae.encode(&x)?.mean)? - &x)?.sqr()?.mean_all()?;
        case.check_gradients("vae", &vae.store().params(), &loss)
    })
}

#[test]
fn an_encoder_that_is_left_out_is_zeros() -> Result<()> {
    for (name, without, tokens) in
        [("sd3-a", "text_encoder_3", 77..117), ("sd3-a", "text_encoder", 0..77), ("flux-a", "text_encoder_2", 0..40)]
    {
        let (case, model) = load(name, DType::F32)?;
        let bare = LoadOptions { max_tokens: Some(40), without: vec![without.to_owned()], ..options(DType::F32) };
        let bare = family(case.path(), None).unwrap().load(case.path(), &bare)?;
        let of = |model: &dyn Model| model.conditioner().encode(&captions(&["a photo of a cat"]));
        let (whole, bare) = (of(&*model)?, of(&*bare)?);
        for key in ["context", "pooled"] {
            assert_eq!(whole.get(key)?.dims(), bare.get(key)?.dims(), "{name} without {without}");
        }
        let part = |cond: &Cond| cond.get("context")?.narrow(1, tokens.start, tokens.len());
        let sum = |t: Tensor| t.abs()?.sum_all()?.to_scalar::<f32>();
        assert!(sum(part(&whole)?)? > sum(part(&bare)?)?, "{name} without {without}");
        assert!(without == "text_encoder" || sum(part(&bare)?)? == 0.0, "{name} without {without}");
        // A folder that is named and not there is no choice.
        std::fs::remove_dir_all(case.path().join(without))?;
        let error = family(case.path(), None).unwrap().load(case.path(), &options(DType::F32)).err().unwrap();
        assert!(error.to_string().contains("model.without"), "{error}");
    }
    Ok(())
}

#[test]
fn sizes_that_do_not_pack_are_refused() -> Result<()> {
    for (name, sides, words) in
        [("sd3-a", [5, 4], "squares of 2"), ("flux-a", [4, 3], "squares of 2"), ("sd3-a", [32, 8], "24 x 24")]
    {
        let (case, model) = load(name, DType::F32)?;
        let x = Tensor::zeros((2, model.autoencoder().channels(), sides[0], sides[1]), DType::F32, &device())?;
        let cond = Cond::default()
            .with("context", case.expected("transformer.context")?)
            .with("pooled", case.expected("transformer.pooled")?)
            .with("guidance", Tensor::ones(2, DType::F32, &device())?);
        let error = model.backbone().forward(&x, &case.expected("transformer.t")?, &cond).unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    }
    let (case, model) = load("flux-a", DType::F32)?;
    let cond = Cond::default()
        .with("context", case.expected("transformer.context")?)
        .with("pooled", case.expected("transformer.pooled")?);
    let x = case.expected("transformer.x")?;
    let error = model.backbone().forward(&x, &case.expected("transformer.t")?, &cond).unwrap_err().to_string();
    assert!(error.contains("told none"), "{error}");
    Ok(())
}
