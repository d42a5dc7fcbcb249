//! What OneTrainer's and diffusion-pipe's fields mean, where it is not what their words say; and recipes of sconce itself.

#[allow(dead_code)]
mod common;

use common::{alone, recipe, verdict, warns};
use serde_json::{Value, json};

fn one(fields: Value) -> String {
    let mut all =
        json!({ "training_method": "LORA", "model_type": "STABLE_DIFFUSION_XL_10_BASE", "base_model_name": "/m/sdxl" });
    all.as_object_mut().expect("an object").extend(fields.as_object().cloned().unwrap_or_default());
    all.to_string()
}

fn pipe(kind: &str, lines: &str) -> String {
    format!(
        "dataset = \"d.toml\"\nmax_steps = 10\n[model]\ntype = \"{kind}\"\ndiffusers_path = \"/m/x\"\ndtype = \"bfloat16\"\n{lines}"
    )
}

#[test]
fn distributions_of_onetrainer() {
    let times = |fields: Value| recipe(&one(fields)).get("timesteps").cloned().unwrap_or_default();
    assert_eq!(times(json!({})), Value::Null);
    let kinds = [
        ("LOGIT_NORMAL", json!({ "type": "logit-normal", "mean": 0.3, "std": 1.5 })),
        ("HEAVY_TAIL", json!({ "type": "mode", "scale": 0.5 })),
        ("COS_MAP", json!({ "type": "cosmap" })),
        ("BETA", json!({ "type": "beta", "alpha": 0.5, "beta": 0.3 })),
    ];
    for (kind, table) in kinds {
        let fields = json!({ "timestep_distribution": kind, "noising_weight": 0.5, "noising_bias": 0.3 });
        assert_eq!(times(fields), table, "{kind}");
    }
    for kind in ["SIGMOID", "INVERTED_PARABOLA"] {
        assert!(
            verdict(&one(json!({ "timestep_distribution": kind })), "timestep_distribution").starts_with("NO PLACE")
        );
    }
    let ranged = times(json!({ "min_noising_strength": 0.2, "max_noising_strength": 0.8 }));
    assert_eq!(ranged, json!({ "type": "range", "from": 0.2, "to": 0.8, "of": { "type": "uniform" } }));
}

#[test]
fn flows_of_onetrainer_are_shifted_once() {
    let times = |fields: Value| {
        let mut all = fields;
        all["model_type"] = json!("STABLE_DIFFUSION_35");
        recipe(&one(all))["timesteps"].clone()
    };
    assert_eq!(times(json!({})), json!({ "type": "shift", "shift": 0.3333, "of": { "type": "uniform" } }));
    assert_eq!(times(json!({ "timestep_shift": 3.0 })), json!({ "type": "uniform" }));
    let error = alone(&one(json!({ "model_type": "CHROMA_1" }))).expect_err("there is no Chroma");
    assert!(error.to_string().contains("CHROMA_1"));
}

#[test]
fn weights_and_noises_of_onetrainer() {
    let weighting = |fields: Value| recipe(&one(fields))["weighting"].clone();
    assert_eq!(
        weighting(json!({ "loss_weight_fn": "P2", "loss_weight_strength": 1.0 })),
        json!({ "type": "p2", "gamma": 1.0 })
    );
    let v = json!({ "loss_weight_fn": "DEBIASED_ESTIMATION", "force_v_prediction": true });
    assert_eq!(weighting(v), json!({ "type": "debiased", "snr_offset": 1.0 }));
    let terminal =
        one(json!({ "rescale_noise_scheduler_to_zero_terminal_snr": true, "loss_weight_fn": "MIN_SNR_GAMMA" }));
    assert_eq!(
        (&recipe(&terminal)["objective"]["type"], &recipe(&terminal)["schedule"]["type"]),
        (&json!("v"), &json!("zero-terminal"))
    );
    assert!(warns(&terminal, "noisiest"));
    assert!(warns(&one(json!({ "perturbation_noise_weight": 0.1 })), "as well"));
    assert_eq!(recipe(&one(json!({ "log_cosh_strength": 1.0, "mse_strength": 0.0 })))["distance"]["type"], "log-cosh");
    assert!(verdict(&one(json!({ "mae_strength": 0.5 })), "mae_strength").contains("one distance"));
}

#[test]
fn steps_of_onetrainer_are_batches() {
    let text = one(
        json!({ "batch_size": 4, "gradient_accumulation_steps": 8, "learning_rate_warmup_steps": 100, "save_every": 50, "save_every_unit": "STEP" }),
    );
    assert_eq!(recipe(&text)["lr"]["warmup_images"], 400);
    assert_eq!(recipe(&text)["train"]["save_every_images"], 200);
    assert!(verdict(&one(json!({ "backup_after": 10 })), "backup_after").contains("by the clock"));
}

#[test]
fn parts_of_onetrainer() {
    // Text encoders train unless they are told not to.
    assert_eq!(
        recipe(&one(json!({})))["train"]["components"],
        json!({ "unet": 1.0, "text_encoder": 1.0, "text_encoder_2": 1.0 })
    );
    let fields = json!({ "learning_rate": 1e-4, "text_encoder": { "learning_rate": 5e-5 }, "text_encoder_2": { "train": false } });
    assert_eq!(recipe(&one(fields))["train"]["components"], json!({ "unet": 1.0, "text_encoder": 0.5 }));
    let whole = json!({ "training_method": "FINE_TUNE", "unet": { "weight_dtype": "BFLOAT_16" }, "optimizer": { "optimizer": "ADAFACTOR", "fused_back_pass": true } });
    let whole = recipe(&one(whole));
    assert_eq!(
        (&whole["train"]["weights"], &whole["train"]["gradients"]),
        (&json!("bf16-stochastic"), &json!("released"))
    );
    assert_eq!(whole["optimizer"]["scale"], "absolute");
    assert!(whole.get("adapter").is_none());
}

#[test]
fn words_of_onetrainer() {
    let fields =
        json!({ "training_method": "EMBEDDING", "model_type": "STABLE_DIFFUSION_15", "embedding_learning_rate": 1e-3 });
    let recipe = recipe(&one(fields));
    assert_eq!(recipe["train"]["token"], json!([{ "text": "<embedding>", "start": "*" }]));
    assert_eq!(recipe["optimizer"]["lr"], 1e-3);
    assert!(recipe.get("adapter").is_none() && recipe["train"].get("components").is_none());
}

#[test]
fn times_of_diffusion_pipe() {
    let times = |lines: &str| {
        recipe(&pipe("sd3", &format!("{lines}\n[optimizer]\ntype = \"adamw\"\nlr = 1e-4")))["timesteps"].clone()
    };
    let normal = |std: f64| json!({ "type": "logit-normal", "mean": 0.0, "std": std });
    assert_eq!(times("shift = 3.0\nsigmoid_scale = 1.3"), normal(1.3));
    assert_eq!(times(""), json!({ "type": "shift", "shift": 0.3333, "of": normal(1.0) }));
    assert_eq!(times("timestep_sample_method = \"uniform\"\nshift = 3"), json!({ "type": "uniform" }));
    let flux = recipe(&pipe("flux", "flux_shift = true\nguidance = 3.5"));
    assert_eq!((&flux["timesteps"], &flux["train"]["guidance"]), (&normal(1.0), &json!(3.5)));
}

#[test]
fn diffusion_pipe_trains_the_text_encoders_of_sdxl() {
    let text = "max_steps = 5\n[model]\ntype = \"sdxl\"\ncheckpoint_path = \"/m/a.safetensors\"\ndtype = \"bfloat16\"\nv_pred = true\n[optimizer]\ntype = \"adamw\"\nlr = 1e-5";
    assert_eq!(recipe(text)["train"]["components"], json!({ "unet": 1.0, "text_encoder": 1.0, "text_encoder_2": 1.0 }));
    assert_eq!(recipe(text)["schedule"]["type"], "zero-terminal");
    assert!(warns(text, "also changes the schedule"));
    let error = alone("[model]\ntype = \"wan\"\ndtype = \"bfloat16\"").expect_err("there is no video");
    assert!(error.to_string().contains("`wan`"));
}

#[test]
fn optimizers_of_diffusion_pipe() {
    let optimizer = |lines: &str| recipe(&pipe("flux", &format!("[optimizer]\n{lines}")))["optimizer"].clone();
    assert_eq!(optimizer("type = \"adamw_optimi\"\nlr = 1e-4\nbetas = [0.9, 0.95]")["beta2"], 0.95);
    let half = optimizer("type = \"adamw\"\nlr = 1e-4\nbeta2_half_life = 1.0\nbetas = [0.9, 0.95]");
    assert_eq!(half["beta2"], 0.5);
    assert!(verdict(&pipe("flux", "[optimizer]\ntype = \"automagic\""), "optimizer.type").starts_with("NO PLACE"));
}

#[test]
fn a_recipe_stays_a_recipe() {
    let text = "extends = \"sdxl-lora\" # mine\n[model]\npath = \"m\"\n";
    assert_eq!(alone(text).map(|m| m.recipe), Ok(text.to_owned()));
    let error = alone("extends = \"sdxl-lora\"\n[needs]\nsconce = \">=99.0\"\n").expect_err("it is newer");
    assert!(error.to_string().contains("update sconce"), "{error}");
}
