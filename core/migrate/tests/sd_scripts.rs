//! What sd-scripts' arguments mean, one by one: what each does to a recipe, and where its words are not what it does.

#[allow(dead_code)]
mod common;

use common::{alone, recipe, verdict, warns};
use serde_json::{Value, json};

/// A TOML with what every run has, and more lines.
fn with(lines: &str) -> String {
    format!("pretrained_model_name_or_path = \"/m/sd15\"\ncaption_extension = \".txt\"\nmax_train_steps = 100\n{lines}")
}

fn lora(lines: &str) -> String {
    with(&format!("network_module = \"networks.lora\"\n{lines}"))
}

fn flux(lines: &str) -> String {
    lora(&format!(
        "ae = \"/m/ae.safetensors\"\nresolution = 1024\nmodel_prediction_type = \"raw\"\nguidance_scale = 1.0\n{lines}"
    ))
}

fn sd3(lines: &str) -> String {
    lora(&format!("clip_g = \"/m/g.safetensors\"\nresolution = 1024\n{lines}"))
}

fn at(value: &Value, path: &str) -> Value {
    path.split('.').fold(value.clone(), |v, key| v.get(key).cloned().unwrap_or(Value::Null))
}

#[test]
fn updates_are_pictures() {
    let text = with(
        "train_batch_size = 4\ngradient_accumulation_steps = 2\nlr_scheduler = \"cosine\"\nlr_warmup_steps = 0.1\nsave_every_n_steps = 10",
    );
    let recipe = recipe(&text);
    assert_eq!(at(&recipe, "train.images"), 800);
    assert_eq!(at(&recipe, "lr.warmup_images"), 80);
    assert_eq!(at(&recipe, "train.save_every_images"), 80);
    assert_eq!(at(&recipe, "data.batch"), 4);
    assert_eq!(at(&recipe, "train.accumulate"), 2);
}

#[test]
fn passes_are_asked_for() {
    let migration = alone(&with("max_train_epochs = 3")).expect("a configuration");
    assert!(
        migration
            .report
            .asked
            .iter()
            .any(|(field, why)| field == "train.images" && why.starts_with("3 (max_train_epochs)"))
    );
    assert_eq!(verdict(&with("max_train_epochs = 3"), "max_train_steps"), "overruled by max_train_epochs");
}

#[test]
fn defaults_that_mean_something_are_said() {
    let recipe = recipe("pretrained_model_name_or_path = \"/m/sd15\"\nnetwork_module = \"networks.lora\"");
    assert_eq!(at(&recipe, "optimizer.lr"), 2e-6);
    assert_eq!(at(&recipe, "adapter.rank"), 4);
    assert_eq!(at(&recipe, "adapter.alpha"), 1.0);
    assert_eq!(at(&recipe, "train.images"), 1600);
    assert_eq!(at(&recipe, "model.dtype"), "f32");
    assert_eq!(at(&recipe, "data.source")[0]["aspect"], "square");
}

#[test]
fn weightings_keep_their_meaning_for_v() {
    let weighting = |lines: &str| at(&recipe(&lora(lines)), "weighting");
    assert_eq!(weighting("min_snr_gamma = 5"), json!({ "type": "min-snr", "gamma": 5.0 }));
    assert_eq!(weighting("min_snr_gamma = 5\nv_parameterization = true"), json!({ "type": "min-snr", "gamma": 5.0 }));
    assert_eq!(weighting("debiased_estimation_loss = true"), json!({ "type": "debiased" }));
    assert_eq!(
        weighting("debiased_estimation_loss = true\nv_parameterization = true"),
        json!({ "type": "p2", "gamma": 1.0, "k": 1e-6 })
    );
    let scaled = "scale_v_pred_loss_like_noise_pred = true\nv_parameterization = true";
    assert_eq!(weighting(scaled), json!({ "type": "p2", "gamma": 0.0 }));
    assert!(
        verdict(
            &lora("min_snr_gamma = 5\nscale_v_pred_loss_like_noise_pred = true"),
            "scale_v_pred_loss_like_noise_pred"
        )
        .contains("multiplies")
    );
    assert!(verdict(&lora("v_pred_like_loss = 0.5"), "v_pred_like_loss").starts_with("NO PLACE"));
}

#[test]
fn zero_terminal_snr_needs_v() {
    let both = lora("v_parameterization = true\nzero_terminal_snr = true\nmin_snr_gamma = 5");
    assert_eq!(at(&recipe(&both), "schedule.type"), "zero-terminal");
    assert_eq!(at(&recipe(&both), "objective.type"), "v");
    assert_eq!(at(&recipe(&both), "sampling.spacing"), "trailing");
    assert!(warns(&both, "defeats itself"));
    let epsilon = lora("zero_terminal_snr = true");
    assert_eq!(at(&recipe(&epsilon), "schedule"), Value::Null);
    assert!(verdict(&epsilon, "zero_terminal_snr").starts_with("NO PLACE: with epsilon"));
    assert!(alone(&both).is_ok_and(|m| m.report.asked.iter().any(|(field, _)| field == "model.convert")));
}

#[test]
fn noises_are_nested_as_they_are_added() {
    let noise = |lines: &str| at(&recipe(&lora(lines)), "noise");
    assert_eq!(noise("noise_offset = 0.1"), json!({ "type": "offset", "strength": 0.1 }));
    let all = noise(
        "ip_noise_gamma = 0.05\nnoise_offset = 0.1\nmultires_noise_iterations = 8\nmultires_noise_discount = 0.2",
    );
    let offset = json!({ "type": "offset", "strength": 0.1 });
    let pyramid = json!({ "type": "pyramid", "discount": 0.2, "levels": 7, "of": offset });
    assert_eq!(all, json!({ "type": "input-perturbation", "gamma": 0.05, "of": pyramid }));
    let terminal = lora("noise_offset = 0.1\nv_parameterization = true\nzero_terminal_snr = true");
    assert!(warns(&terminal, "makeshift"));
    for field in
        ["adaptive_noise_scale = 0.1", "noise_offset_random_strength = true", "ip_noise_gamma_random_strength = true"]
    {
        assert!(verdict(&lora(field), field.split(' ').next().unwrap_or_default()).starts_with("NO PLACE"), "{field}");
    }
}

#[test]
fn distances() {
    let distance = |lines: &str| at(&recipe(&lora(lines)), "distance");
    assert_eq!(distance("loss_type = \"huber\""), json!({ "type": "huber", "c": 0.1, "schedule": "snr" }));
    let constant = "loss_type = \"smooth_l1\"\nhuber_schedule = \"constant\"\nhuber_c = 0.5\nhuber_scale = 2.0";
    assert_eq!(distance(constant), json!({ "type": "smooth-l1", "c": 1.0, "schedule": "constant" }));
    assert!(verdict(&lora("loss_type = \"l1\""), "loss_type").contains("smooth-l1"));
    assert_eq!(distance("loss_type = \"l2\""), Value::Null);
}

#[test]
fn times_of_flux_are_those_of_the_noise_level() {
    let times = |lines: &str| at(&recipe(&flux(lines)), "timesteps");
    let own = 1.15f64.exp();
    assert_eq!(
        times("timestep_sampling = \"flux_shift\"\nsigmoid_scale = 0.8"),
        json!({ "type": "logit-normal", "mean": 0.0, "std": 0.8 })
    );
    for (kind, shift) in [("sigmoid", 1.0), ("shift", 2.0), ("uniform", 1.0)] {
        let table = times(&format!("timestep_sampling = \"{kind}\"\ndiscrete_flow_shift = 2.0"));
        assert_eq!(table["type"], "shift", "{kind}");
        assert!((table["shift"].as_f64().unwrap_or_default() - shift / own).abs() < 1e-4, "{kind}");
        assert_eq!(table["of"]["type"], if kind == "uniform" { "uniform" } else { "logit-normal" });
    }
    // A place in a list that begins with pure noise: the mean changes its sign.
    let sigma =
        times("timestep_sampling = \"sigma\"\nweighting_scheme = \"logit_normal\"\nlogit_mean = 0.5\nlogit_std = 0.9");
    assert_eq!(sigma["of"], json!({ "type": "logit-normal", "mean": -0.5, "std": 0.9 }));
    assert!(warns(&flux(""), "timestep_sampling is not said"));
    assert!(
        verdict(&flux("timestep_sampling = \"uniform\"\nsigmoid_scale = 2.0"), "sigmoid_scale").contains("ignores it")
    );
}

#[test]
fn flux_has_the_defaults_that_surprise() {
    let text = lora("ae = \"/m/ae.safetensors\"");
    assert_eq!(at(&recipe(&text), "train.guidance"), 3.5);
    assert!(warns(&text, "guidance_scale is 3.5") && warns(&text, "sigma_scaled"));
    assert!(
        verdict(&flux("weighting_scheme = \"cosmap\"\ntimestep_sampling = \"sigma\""), "weighting_scheme")
            .contains("ignores it")
    );
    assert!(verdict(&flux("min_snr_gamma = 5"), "min_snr_gamma").contains("ignores it"));
}

#[test]
fn times_of_sd3_undo_the_checkpoints_shift() {
    let times = |lines: &str| at(&recipe(&sd3(lines)), "timesteps");
    assert_eq!(times(""), json!({ "type": "shift", "shift": 0.3333, "of": { "type": "uniform" } }));
    assert_eq!(times("training_shift = 3.0\nweighting_scheme = \"mode\""), json!({ "type": "mode", "scale": 1.29 }));
    assert_eq!(at(&recipe(&sd3("weighting_scheme = \"sigma_sqrt\"")), "weighting.type"), "sigma-sqrt");
}

#[test]
fn rates_are_factors() {
    let recipe_of = |lines: &str| recipe(&lora(lines));
    let both = recipe_of("unet_lr = 1e-4\ntext_encoder_lr = 5e-5\nlearning_rate = 1e-3");
    assert_eq!(
        (at(&both, "optimizer.lr"), at(&both, "train.components")),
        (json!(1e-4), json!({ "unet": 1.0, "text_encoder": 0.5 }))
    );
    let only = recipe_of("network_train_unet_only = true\nlearning_rate = 1e-4");
    assert_eq!(at(&only, "train.components"), json!({ "unet": 1.0 }));
    let text = recipe_of("network_train_text_encoder_only = true\ntext_encoder_lr = 2e-5");
    assert_eq!(
        (at(&text, "optimizer.lr"), at(&text, "train.components")),
        (json!(2e-5), json!({ "text_encoder": 1.0 }))
    );
    let zero = recipe_of("text_encoder_lr = 0\nlearning_rate = 1e-4");
    assert_eq!(at(&zero, "train.components"), json!({ "unet": 1.0 }));
}

#[test]
fn networks_of_lycoris() {
    let kinds = [
        ("loha", "loha"),
        ("lokr", "lokr"),
        ("ia3", "ia3"),
        ("full", "full-difference"),
        ("diag-oft", "oft"),
        ("boft", "boft"),
        ("locon", "lora"),
    ];
    for (algo, kind) in kinds {
        let text = with(&format!(
            "network_module = \"lycoris.kohya\"\nnetwork_dim = 8\nnetwork_args = [\"algo={algo}\", \"preset=attn-mlp\"]"
        ));
        assert_eq!(at(&recipe(&text), "adapter.type"), kind);
    }
    let strange = with("network_module = \"lycoris.kohya\"\nnetwork_args = [\"algo=glora\"]");
    assert!(verdict(&strange, "network_args: algo").starts_with("NO PLACE"));
    let conv = lora("network_dim = 16\nnetwork_args = [\"conv_dim=4\", \"conv_alpha=2\"]");
    assert_eq!(at(&recipe(&conv), "adapter.layers")[0]["rank"], 4);
    let narrow = with(
        "network_module = \"lycoris.kohya\"\nnetwork_dim = 8\nnetwork_args = [\"preset=attn-mlp\", \"conv_dim=4\"]",
    );
    assert_eq!(at(&recipe(&narrow), "adapter.layers"), Value::Null);
    let dora = with(
        "network_module = \"lycoris.kohya\"\nnetwork_dim = 8\nnetwork_args = [\"algo=lora\", \"dora_wd=True\", \"rs_lora=True\"]",
    );
    assert_eq!(
        (at(&recipe(&dora), "adapter.type"), at(&recipe(&dora), "adapter.of.scaling")),
        (json!("dora"), json!("root-rank"))
    );
    assert!(verdict(&lora("network_args = [\"new_thing=1\"]"), "network_args: new_thing").starts_with("UNKNOWN"));
}

#[test]
fn optimizers_have_their_names_and_defaults() {
    let optimizer = |lines: &str| at(&recipe(&lora(lines)), "optimizer");
    assert_eq!(optimizer("use_8bit_adam = true")["type"], "adamw-8bit");
    assert_eq!(optimizer("optimizer_type = \"Lion8bit\"")["type"], "lion");
    let relative = optimizer("optimizer_type = \"Adafactor\"\nlearning_rate = 1e-3");
    assert_eq!((&relative["scale"], &relative["lr"]), (&json!("relative"), &json!(1.0)));
    let fixed =
        optimizer("optimizer_type = \"Adafactor\"\nlearning_rate = 1e-3\noptimizer_args = [\"relative_step=False\"]");
    assert_eq!((&fixed["scale"], &fixed["lr"]), (&json!("weight"), &json!(1e-3)));
    assert_eq!(optimizer("optimizer_type = \"DAdaptAdam\"")["type"], "prodigy");
    assert!(verdict(&lora("optimizer_type = \"SGDNesterov\""), "optimizer_type").starts_with("NO PLACE"));
    assert!(
        alone(&lora("optimizer_type = \"SGDNesterov\"")).is_ok_and(|m| m
            .report
            .asked
            .iter()
            .any(|(f, _)| f == "optimizer.type"))
    );
}

#[test]
fn courses_of_the_rate() {
    let lr = |lines: &str| at(&recipe(&with(lines)), "lr");
    assert_eq!(lr("lr_scheduler = \"cosine_with_restarts\""), json!({ "type": "cosine-restarts", "cycles": 1 }));
    assert_eq!(
        lr("lr_scheduler = \"polynomial\"\nlr_scheduler_power = 2"),
        json!({ "type": "polynomial", "power": 2 })
    );
    assert_eq!(
        lr("lr_scheduler = \"cosine_with_min_lr\"\nlr_scheduler_min_lr_ratio = 0.1"),
        json!({ "type": "cosine", "final_factor": 0.1 })
    );
    let stable = lr("lr_scheduler = \"warmup_stable_decay\"\nlr_decay_steps = 20");
    assert_eq!((&stable["type"], &stable["decay_share"]), (&json!("warmup-stable-decay"), &json!(0.2)));
    assert!(
        verdict(&with("lr_scheduler = \"constant\"\nlr_warmup_steps = 5"), "lr_warmup_steps").contains("no warm-up")
    );
}

#[test]
fn memory() {
    let kept = recipe(&flux(
        "fp8_base = true\nblocks_to_swap = 20\ngradient_checkpointing = true\nmixed_precision = \"bf16\"",
    ));
    assert_eq!(at(&kept, "model.quantise"), json!({ "transformer": "fp8" }));
    assert_eq!((at(&kept, "model.swap_blocks"), at(&kept, "train.recompute")), (json!(20), json!("blocks")));
    assert!(verdict(&with("fp8_base = true"), "fp8_base").starts_with("NO PLACE"));
    assert!(verdict(&with("full_bf16 = true"), "full_bf16").contains("train.weights"));
    for field in ["cache_latents", "cache_text_encoder_outputs_to_disk", "xformers", "lowram"] {
        assert!(verdict(&with(&format!("{field} = true")), field).starts_with("not needed"), "{field}");
    }
}

#[test]
fn captions_are_left_as_they_are() {
    for field in [
        "shuffle_caption = true",
        "caption_tag_dropout_rate = 0.1",
        "enable_wildcard = true",
        "secondary_separator = \";\"",
    ] {
        assert!(verdict(&with(field), field.split(' ').next().unwrap_or_default()).starts_with("NO PLACE"), "{field}");
    }
    assert!(verdict(&with("keep_tokens = 1"), "keep_tokens").starts_with("not needed"));
    assert!(warns("pretrained_model_name_or_path = \"/m\"", "`.caption`"));
    assert!(verdict(&with("caption_dropout_every_n_epochs = 4"), "caption_dropout_every_n_epochs").contains("0.250"));
    let affixes = recipe(&with("train_data_dir = \"/d\"\ncaption_prefix = \"a\"\ncaption_suffix = \"b\""));
    assert_eq!(at(&affixes, "data.source")[0]["caption"], "a {caption} b");
}

#[test]
fn secrets_are_not_shown() {
    let text = with("wandb_api_key = \"abc123\"\nhuggingface_token = \"abc123\"\nother_api_key = \"abc123\"");
    let migration = alone(&text).expect("a configuration");
    assert!(!migration.report.to_string().contains("abc123") && !migration.recipe.contains("abc123"));
}

#[test]
fn a_command_overrules_the_file_that_it_names() {
    let command = "accelerate launch sd-scripts/sdxl_train_network.py --config_file run --learning_rate 1e-4";
    let file =
        "[any]\nlearning_rate = 1e-5\nmax_train_steps = 10\npretrained_model_name_or_path = \"/m/x.safetensors\"\n";
    let migration = sconce_migrate::migrate(command, &mut |_, name| match name {
        "run.toml" => Ok(file.to_owned()),
        _ => Err("there is no such file".into()),
    });
    let migration = migration.expect("a command");
    let recipe = common::data(&migration.recipe);
    assert_eq!((at(&recipe, "optimizer.lr"), at(&recipe, "train.images")), (json!(1e-4), json!(10)));
    assert!(at(&recipe, "train.components").get("text_encoder_2").is_some(), "the script is SDXL's");
    let entry =
        migration.report.entries.iter().find(|e| e.field == "run.toml: any.learning_rate").expect("it is told of");
    assert_eq!(entry.verdict.to_string(), "overruled by learning_rate");
}

#[test]
fn prodigy_has_one_rate() {
    let text = lora("optimizer_type = \"Prodigy\"\nunet_lr = 1.0\ntext_encoder_lr = 0.5");
    assert_eq!(at(&recipe(&text), "train.components"), json!({ "unet": 1.0, "text_encoder": 1.0 }));
    assert!(warns(&text, "one rate"));
}

#[test]
fn a_script_of_another_model_is_refused_by_name() {
    let error = alone("accelerate launch lumina_train_network.py --seed 1").expect_err("there is no Lumina");
    assert!(error.to_string().contains("lumina_train_network.py"), "{error}");
}
