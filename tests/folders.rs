//! Diffusers folders in and out: the family is known, what the checkpoint says is read and told apart from what it leaves
//! out, and a saved folder says what the model was trained as.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use case::{CASES, Case, data, json, options};
use sconce_core::model::{Family, Model, Native, SaveModel};
use sconce_models::diffusers::weight_files;
use sconce_models::folder::scheduler::written as scheduler;
use sconce_nn::weights::{WeightFiles, read_metadata, save};
use sconce_plugins as _;
use sconce_sdk::{Choice, Schedule};
use serde_json::{Value, json};

const COMPONENTS: [&str; 4] = ["unet", "vae", "text_encoder", "text_encoder_2"];

fn family(name: &str) -> Choice<dyn Family> {
    Choice::named(name).unwrap()
}

fn whole(name: &str) -> Result<Case> {
    let count = if name.starts_with("sdxl") { 4 } else { 3 };
    Case::new(name, &COMPONENTS[..count])
}

fn native(name: &str) -> Result<Native> {
    family(name.split('-').next().unwrap()).native(&data(name, "model"))
}

#[test]
fn every_folder_is_of_one_family() -> Result<()> {
    for name in CASES {
        for candidate in ["sd1", "sd2", "sdxl"] {
            let is = family(candidate).detect(&data(name, "model"))?;
            assert_eq!(is, name.starts_with(&format!("{candidate}-")), "{name} as {candidate}");
        }
    }
    assert!(!family("sd1").detect(Path::new("/nonexistent"))?);
    Ok(())
}

#[test]
fn what_the_checkpoint_says_is_read() -> Result<()> {
    let scaled = json!({ "type": "scaled-linear", "beta_start": 0.00085, "beta_end": 0.012, "steps": 1000 });
    let pndm = native("sd1-a")?;
    assert_eq!(pndm.schedule, scaled);
    assert_eq!(pndm.objective, json!({ "type": "epsilon" }));
    assert_eq!(pndm.spacing, json!({ "type": "leading", "steps_offset": 1 }));
    assert_eq!(pndm.solver, json!({ "type": "ddim", "last": "first-point" }));
    assert_eq!(pndm.resolution_px, 128);
    let says = |native: &Native, field: &str, what: &str| {
        assert!(native.evidence[field].contains(what), "{field}: {}", native.evidence[field]);
    };
    says(&pndm, "objective", "prediction_type = epsilon (left out: the default of PNDMScheduler)");
    says(&pndm, "solver", "PNDMScheduler, for which ddim stands");

    let linear = native("sd1-c")?;
    assert_eq!(linear.schedule, json!({ "type": "linear", "beta_start": 0.0001, "beta_end": 0.02, "steps": 1000 }));
    let v = native("sd2-c")?;
    assert_eq!(v.schedule, json!({ "type": "zero-terminal", "of": scaled }));
    assert_eq!(v.objective, json!({ "type": "v" }));
    assert_eq!(v.spacing, json!({ "type": "trailing" }));
    says(&v, "objective", "scheduler/scheduler_config.json: prediction_type = v_prediction");
    says(&v, "schedule", "rescale_betas_zero_snr = true");
    let euler = native("sdxl-c")?;
    assert_eq!(euler.solver, json!({ "type": "euler" }));
    assert_eq!(euler.spacing, json!({ "type": "leading", "steps_offset": 1, "last": "first-point" }));
    Ok(())
}

#[test]
fn sizes_are_those_of_the_weights() -> Result<()> {
    for name in ["sd1-b", "sdxl-a"] {
        let shapes = family(name.split('-').next().unwrap()).shapes(&data(name, "model"))?;
        let sizes: BTreeMap<&str, usize> = shapes.iter().map(|s| (s.component(), s.elements())).collect();
        assert_eq!(shapes[0].component(), "unet", "the denoiser comes first");
        for (component, keys) in json(data(name, "keys.json")).as_object().unwrap() {
            let count = |shape: &Value| shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).product::<u64>();
            let expected: u64 = keys.as_object().unwrap().values().map(count).sum();
            assert_eq!(sizes[component.as_str()] as u64, expected, "{name} {component}");
        }
    }
    Ok(())
}

fn save_as(model: &dyn Model, to: &Path, trained_as: &Native, dtype: DType) -> Result<()> {
    let bias = Tensor::full(7f32, 4, &Device::Cpu)?;
    let weights = BTreeMap::from([("unet".to_owned(), BTreeMap::from([("conv_out.bias".to_owned(), bias)]))]);
    let scaling = json!({ "scaling_factor": 0.25 }).as_object().unwrap().clone();
    let configs = BTreeMap::from([("vae".to_owned(), scaling)]);
    let metadata = BTreeMap::from([("sconce.test".to_owned(), "é".to_owned())]);
    let what =
        SaveModel { weights: &weights, configs: &configs, dtype, trained_as, metadata: &metadata, shard_bytes: None };
    for path in model.save(to, &what)? {
        assert!(path.is_file(), "{}", path.display());
    }
    Ok(())
}

#[test]
fn a_saved_folder_is_the_model_again() -> Result<()> {
    for (name, other) in [("sd1-a", "sd2-c"), ("sd2-b", "sd2-b"), ("sdxl-a", "sdxl-b"), ("sdxl-b", "sd1-c")] {
        let (case, folder) = (whole(name)?, tempfile::tempdir()?);
        let family = family(name.split('-').next().unwrap());
        let model = family.load(case.path(), &options(DType::F32))?;
        let trained_as = native(other)?;
        save_as(&*model, folder.path(), &trained_as, DType::F32)?;

        let said = family.native(folder.path())?;
        assert_eq!(said.schedule, trained_as.schedule, "{name} as {other}");
        assert_eq!(said.objective, trained_as.objective, "{name} as {other}");
        assert_eq!(said.spacing, trained_as.spacing, "{name} as {other}");
        assert_eq!(said.solver, trained_as.solver, "{name} as {other}");

        let again = family.load(folder.path(), &options(DType::F32))?;
        for (old, new) in model.backbone().store().params().iter().zip(again.backbone().store().params()) {
            assert_eq!(old.name(), new.name());
            let (old, new) =
                (old.tensor()?.flatten_all()?.to_vec1::<f32>()?, new.tensor()?.flatten_all()?.to_vec1::<f32>()?);
            if new != old {
                assert_eq!(new, [7.0; 4]);
            }
        }
        let weights = folder.path().join("unet/diffusion_pytorch_model.safetensors");
        assert_eq!(read_metadata(&weights)?["sconce.test"], "é");
        assert_eq!(json(folder.path().join("vae/config.json"))["scaling_factor"], 0.25);
        assert_eq!(again.conditioner().token_ids("a cat")?, model.conditioner().token_ids("a cat")?);

        let bytes = std::fs::read(&weights)?;
        save_as(&*again, folder.path(), &trained_as, DType::F32)?;
        assert_eq!(bytes, std::fs::read(&weights)?, "equal weights are equal files");
    }
    Ok(())
}

#[test]
fn a_scheduler_that_cannot_say_it_gives_way_to_one_that_can() -> Result<()> {
    let (case, folder) = (whole("sd1-a")?, tempfile::tempdir()?);
    let model = family("sd1").load(case.path(), &options(DType::F32))?;
    let saved = |trained_as: &Native| -> Result<Value> {
        save_as(&*model, folder.path(), trained_as, DType::F16)?;
        let index = json(folder.path().join("model_index.json"));
        let scheduler = json(folder.path().join("scheduler/scheduler_config.json"));
        assert_eq!(index["scheduler"], json!(["diffusers", scheduler["_class_name"]]));
        Ok(scheduler)
    };
    let own = saved(model.native())?;
    assert_eq!(own["_class_name"], "PNDMScheduler");
    let v = Native { objective: json!({ "type": "v" }), ..model.native().clone() };
    assert_eq!(saved(&v)?["prediction_type"], "v_prediction");
    let zero = Native { schedule: json!({ "type": "zero-terminal", "of": { "type": "cosine" } }), ..v };
    let zero = saved(&zero)?;
    assert_eq!(
        (&zero["_class_name"], &zero["rescale_betas_zero_snr"], &zero["beta_schedule"]),
        (&json!("DDIMScheduler"), &json!(true), &json!("squaredcos_cap_v2"))
    );
    let flow = Native { schedule: json!({ "type": "rectified-flow", "shift": 3.0 }), ..model.native().clone() };
    assert_eq!(saved(&flow)?["_class_name"], "FlowMatchEulerDiscreteScheduler");
    let bent = json!({ "type": "cosine", "offset": 0.1 });
    let betas = saved(&Native { schedule: bent, ..model.native().clone() })?;
    assert_eq!(betas["trained_betas"].as_array().map(Vec::len), Some(1000));
    let weights = WeightFiles::open(&weight_files(&folder.path().join("unet"))?)?;
    assert_eq!(weights.info("conv_in.weight").unwrap().1, "f16");
    Ok(())
}

/// What the scheduler of a folder says, with these fields in it, and where a solver and a spacing are asked for.
fn said(fields: &Value, solver: Option<&str>, spacing: Option<&str>) -> Result<Native> {
    let case = Case::new("sdxl-a", &[])?;
    let config = case.path().join("scheduler/scheduler_config.json");
    let mut whole = json(config.clone());
    whole.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    std::fs::write(&config, whole.to_string())?;
    family("sdxl").native_with(case.path(), solver, spacing)
}

#[test]
fn a_schedulers_options_are_read() -> Result<()> {
    let leading = json!({ "type": "leading", "steps_offset": 1 });
    let cases = [
        (json!({ "_class_name": "DPMSolverMultistepScheduler" }), json!({ "type": "dpmpp-2m" }), leading.clone()),
        (
            json!({ "_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++",
                    "solver_type": "heun", "use_exponential_sigmas": true }),
            json!({ "type": "dpmpp-2m-sde", "solver_type": "heun" }),
            json!({ "type": "exponential" }),
        ),
        (
            json!({ "_class_name": "UniPCMultistepScheduler", "solver_type": "bh1", "solver_order": 3,
                    "use_beta_sigmas": true, "final_sigmas_type": "sigma_min" }),
            json!({ "type": "unipc-bh1", "order": 3 }),
            json!({ "type": "beta", "over": "ratio", "last": "first-point" }),
        ),
        (json!({ "_class_name": "UniPCMultistepScheduler" }), json!({ "type": "unipc", "order": 2 }), leading.clone()),
        (
            json!({ "_class_name": "DPMSolverSDEScheduler", "use_karras_sigmas": true }),
            json!({ "type": "dpmpp-sde" }),
            json!({ "type": "karras" }),
        ),
        (
            json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "use_karras_sigmas": true }),
            json!({ "type": "euler" }),
            json!({ "type": "karras", "over": "sigma" }),
        ),
    ];
    for (fields, solver, spacing) in cases {
        let native = said(&fields, None, None)?;
        assert_eq!((&native.solver, &native.spacing), (&solver, &spacing), "{fields}");
        assert!(!native.evidence["solver"].contains("stands"), "{}", native.evidence["solver"]);
    }
    Ok(())
}

#[test]
fn what_is_not_quite_a_schedulers_solver_only_stands_for_it() -> Result<()> {
    let multistep = |field: &str, value: Value| json!({ "_class_name": "DPMSolverMultistepScheduler", field: value });
    let unipc = |field: &str, value: Value| json!({ "_class_name": "UniPCMultistepScheduler", field: value });
    for (fields, solver, why) in [
        (multistep("algorithm_type", json!("dpmsolver")), "dpmpp-2m", "algorithm_type = dpmsolver"),
        (multistep("algorithm_type", json!("sde-dpmsolver")), "dpmpp-2m-sde", "algorithm_type = sde-dpmsolver"),
        (multistep("solver_order", json!(3)), "dpmpp-2m", "solver_order = 3"),
        (unipc("solver_order", json!(5)), "unipc", "solver_order = 5"),
        (multistep("lower_order_final", json!(false)), "dpmpp-2m", "lower_order_final = false"),
        (unipc("predict_x0", json!(false)), "unipc", "predict_x0 = false"),
        (unipc("disable_corrector", json!([0, 1])), "unipc", "disable_corrector = [0,1]"),
    ] {
        let native = said(&fields, None, None)?;
        let evidence = &native.evidence["solver"];
        assert_eq!(native.solver["type"], solver, "{fields}");
        assert!(evidence.contains(&format!("for which {solver} stands")) && evidence.contains(why), "{evidence}");
    }
    assert!(said(&multistep("algorithm_type", json!("other")), None, None).is_err());
    Ok(())
}

/// Programs swap schedulers by reading the file as another class would.
#[test]
fn another_solver_or_spacing_takes_from_the_file_what_it_can() -> Result<()> {
    let ends = json!({ "final_sigmas_type": "sigma_min", "use_karras_sigmas": true });
    let spacing = |name| Ok::<_, candle_core::Error>(said(&ends, None, Some(name))?.spacing);
    assert_eq!(spacing("karras")?, json!({ "type": "karras", "last": "first-point" }));
    assert_eq!(spacing("exponential")?, json!({ "type": "exponential", "last": "first-point" }));
    assert_eq!(spacing("beta")?, json!({ "type": "beta", "last": "first-point" }));
    assert_eq!(spacing("simple")?, json!({ "type": "simple", "last": "first-point" }));
    assert_eq!(spacing("leading")?, json!({ "type": "leading", "steps_offset": 1, "last": "first-point" }));
    assert_eq!(
        said(&json!({ "use_beta_sigmas": true }), None, Some("beta"))?.spacing,
        json!({ "type": "beta", "over": "ratio" })
    );
    for (solver, class) in [
        ("dpmpp-2m-sde", "DPMSolverMultistepScheduler"),
        ("unipc", "UniPCMultistepScheduler"),
        ("unipc-bh1", "UniPCMultistepScheduler"),
        ("dpmpp-sde", "DPMSolverSDEScheduler"),
    ] {
        // Without a word in the file, the class's own default counts.
        let native = said(&json!({ "timestep_spacing": null }), Some(solver), None)?;
        assert_eq!(
            (&native.solver["type"], &native.spacing),
            (&json!(solver), &json!({ "type": "linspace" })),
            "{class}"
        );
        let default = format!("left out: the default of {class}");
        assert!(native.evidence["spacing"].contains(&default), "{}", native.evidence["spacing"]);
    }
    Ok(())
}

#[test]
fn a_saved_scheduler_says_solver_and_spacing_again() -> Result<()> {
    let loaded = native("sdxl-a")?;
    let old = json(data("sdxl-a", "model").join("scheduler/scheduler_config.json"));
    let solvers = [
        json!({ "type": "euler" }),
        json!({ "type": "dpmpp-2m" }),
        json!({ "type": "dpmpp-2m", "solver_type": "heun" }),
        json!({ "type": "dpmpp-2m-sde" }),
        json!({ "type": "dpmpp-2m-sde", "solver_type": "heun" }),
        json!({ "type": "dpmpp-sde" }),
        json!({ "type": "unipc", "order": 2 }),
        json!({ "type": "unipc-bh1", "order": 3 }),
    ];
    let spacings = [
        json!({ "type": "trailing" }),
        json!({ "type": "karras" }),
        json!({ "type": "exponential", "last": "first-point" }),
        json!({ "type": "beta", "over": "ratio" }),
    ];
    let flow = json!({ "type": "rectified-flow", "shift": 1.0 });
    for (solver, spacing) in solvers.iter().flat_map(|a| spacings.iter().map(move |b| (a, b))) {
        let trained = Native { solver: solver.clone(), spacing: spacing.clone(), ..loaded.clone() };
        let saved = scheduler(old.as_object().unwrap(), &loaded, &trained)?;
        let again = said(&Value::Object(saved), None, None)?;
        assert_eq!((&again.solver, &again.spacing), (solver, spacing));
    }
    for (spacing, said_again) in [
        (json!({ "type": "normal" }), json!({ "type": "linspace" })),
        (json!({ "type": "ddim-uniform" }), json!({ "type": "leading", "steps_offset": 1 })),
        (json!({ "type": "simple" }), json!({ "type": "trailing" })),
        (json!({ "type": "beta" }), json!({ "type": "trailing" })),
    ] {
        let trained = Native { spacing, ..loaded.clone() };
        let saved = scheduler(old.as_object().unwrap(), &loaded, &trained)?;
        assert_eq!(said(&Value::Object(saved), None, None)?.spacing, said_again);
    }
    let spacing = json!({ "type": "beta", "over": "sigma" });
    let trained = Native { schedule: flow, objective: json!({ "type": "flow" }), spacing, ..loaded.clone() };
    let saved = scheduler(old.as_object().unwrap(), &loaded, &trained)?;
    assert_eq!(saved["_class_name"], "FlowMatchEulerDiscreteScheduler");
    assert_eq!(said(&Value::Object(saved), None, None)?.spacing, trained.spacing);
    Ok(())
}

#[test]
fn schedules_that_the_format_has_no_name_for_come_back_by_their_numbers() -> Result<()> {
    let (case, folder) = (whole("sd1-a")?, tempfile::tempdir()?);
    let (family, made) = (family("sd1"), |table: &Value| Choice::<dyn Schedule>::from_table(table).unwrap());
    let model = family.load(case.path(), &options(DType::F32))?;
    for schedule in [
        json!({ "type": "log-snr-shift", "of": { "type": "scaled-linear" }, "by": -1.0, "base_side": 32.0 }),
        json!({ "type": "table", "betas": [0.001, 0.02, 0.2, 0.6, 1.0] }),
        json!({ "type": "sigmoid" }),
        json!({ "type": "edm" }),
        json!({ "type": "rectified-flow-flux", "max_shift": 1.3 }),
        json!({ "type": "rectified-flow-sd3" }),
    ] {
        let trained_as = Native { schedule: schedule.clone(), ..model.native().clone() };
        save_as(&*model, folder.path(), &trained_as, DType::F32)?;
        let objective = json!({ "type": "edm", "sigma_data": 0.7 });
        let edm = Native { objective: objective.clone(), ..trained_as.clone() };
        let said = made(&family.native(folder.path())?.schedule);
        let side = (trained_as.resolution_px / trained_as.latent_px) as usize;
        let (said, own) = (said.sized(side, side), made(&schedule).sized(side, side));
        let points = said.grid().unwrap_or(10);
        for t in (1..=points).map(|i| i as f64 / points as f64) {
            let share = |s: &Choice<dyn Schedule>| s.at(t).alpha / s.at(t).alpha.hypot(s.at(t).sigma);
            assert!((share(&said) - share(&own)).abs() < 1e-9, "{schedule} at {t}: {} {}", share(&said), share(&own));
        }
        if said.grid().is_some() {
            save_as(&*model, folder.path(), &edm, DType::F32)?;
            assert_eq!(family.native(folder.path())?.objective, objective);
        }
    }
    Ok(())
}

#[test]
fn shards_and_variants_are_found() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path();
    let at = |name: &str| dir.join(name);
    let write = |name: &str| -> Result<()> {
        let tensor = BTreeMap::from([(name.to_owned(), Tensor::zeros(1, DType::F32, &Device::Cpu)?)]);
        save(&at(name), &tensor, &BTreeMap::new())
    };
    let fails = |what: &str| {
        let error = weight_files(dir).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    fails("no weights: expected diffusion_pytorch_model.safetensors or model.safetensors");
    std::fs::write(at("diffusion_pytorch_model.bin"), "")?;
    fails("pickled");
    write("diffusion_pytorch_model.non_ema.safetensors")?;
    assert_eq!(weight_files(dir)?, [at("diffusion_pytorch_model.non_ema.safetensors")]);
    write("diffusion_pytorch_model.fp16.safetensors")?;
    assert_eq!(weight_files(dir)?, [at("diffusion_pytorch_model.fp16.safetensors")]);
    let shards =
        ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"];
    for shard in shards {
        write(shard)?;
    }
    let index = |b: &str| json!({ "weight_map": { "a": shards[0], "b": b } }).to_string();
    std::fs::write(at("diffusion_pytorch_model.safetensors.index.json"), index(shards[1]))?;
    assert_eq!(weight_files(dir)?, shards.map(at));
    std::fs::write(at("diffusion_pytorch_model.safetensors.index.json"), index("../secret.safetensors"))?;
    fails("which is no file of this folder");
    Ok(())
}
