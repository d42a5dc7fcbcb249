//! Texts that no program wrote: each gets an error that says what is wrong, in time, and no recipe.

#[allow(dead_code)]
mod common;

use common::{alone, data};

fn error(text: &str) -> String {
    alone(text).map(|m| panic!("a recipe:\n{}", m.recipe)).unwrap_or_else(|e| e.to_string())
}

#[test]
fn what_is_no_configuration_is_told() {
    assert!(error("").contains("it is empty"));
    assert!(error("  \n\u{feff}").contains("empty") || error(" \n").contains("empty"));
    assert!(error("hello, world").contains("no TOML"));
    assert!(error("{ \"a\": 1 }").contains("without the fields of OneTrainer"));
    assert!(error("{ \"a\": ").contains("no JSON"));
    assert!(error("[1, 2]").contains("a list in JSON"));
    assert!(error("[package]\nname = \"x\"").contains("none of its fields (`package`"));
    assert!(error("a = 1\na = 2").contains("no TOML"));
    assert!(error("{ \"pretrained_model_name_or_path\": \"x\", \"LoRA_type\": \"Standard\" }").contains("GUI"));
}

#[test]
fn wrong_types_name_the_field() {
    let base = "pretrained_model_name_or_path = \"m\"\n";
    assert_eq!(
        error(&format!("{base}train_batch_size = \"many\"")),
        "`train_batch_size` is many, where a number is expected"
    );
    assert_eq!(error(&format!("{base}learning_rate = [1]")), "`learning_rate` is [1], where a number is expected");
    assert_eq!(
        error(&format!("{base}learning_rate = nan")),
        "`learning_rate` is NaN, where a finite number is expected"
    );
    assert_eq!(
        error(&format!("{base}shuffle_caption = \"perhaps\"")),
        "`shuffle_caption` is perhaps, where true or false is expected"
    );
    assert_eq!(
        error("{ \"model_type\": \"STABLE_DIFFUSION_15\", \"batch_size\": {\"a\": [] } , \"epochs\": [1] }"),
        "`epochs` is [1], where a number is expected"
    );
    assert!(
        error("{ \"model_type\": \"STABLE_DIFFUSION_15\", \"training_method\": \"DREAM\" }")
            .contains("training_method")
    );
}

#[test]
fn large_and_deep_texts_are_refused() {
    assert!(error(&"a = 1\n".repeat(400_000)).contains("more than"));
    let deep = format!("pretrained_model_name_or_path = \"m\"\nx = {}{}", "[".repeat(5000), "]".repeat(5000));
    assert!(error(&deep).contains("no TOML"));
    assert!(error(&format!("{{\"model_type\": {}", "[".repeat(100_000))).contains("no JSON"));
    let wide: String = (0..30_000).map(|i| format!("k{i} = 1\n")).collect();
    assert!(error(&format!("pretrained_model_name_or_path = \"m\"\n{wide}")).contains("more than 20000 fields"));
    let folders = "[[directory]]\npath = \"x\"\n".repeat(40);
    let sizes: Vec<String> = (0..100).map(|i| (i + 100).to_string()).collect();
    assert!(error(&format!("resolutions = [{}]\n{folders}", sizes.join(","))).contains("more than 1000 folders"));
}

#[test]
fn strange_words_stay_words() {
    let text = "pretrained_model_name_or_path = \"a\\u001b[31m\\n[train]\\nimages = 1\"\noutput_name = \"\\\"\\\\ '''\"\n\"new\\nline\" = 1\nseed = -3\n\
                max_train_steps = 1e300\ntrain_batch_size = 0\nlr_warmup_steps = -5\nresolution = \"0,-1\"\nnetwork_module = \"networks.lora\"\nnetwork_dim = -4";
    let migration = alone(text).expect("the types are right");
    let recipe = data(&migration.recipe);
    assert_eq!(recipe["model"]["path"], "a\u{1b}[31m\n[train]\nimages = 1");
    assert_eq!(recipe["output"]["title"], "\"\\ '''");
    assert!(!migration.report.to_string().contains('\u{1b}'));
    assert!(migration.report.entries.iter().any(|e| e.field == "new\nline"));
}

#[test]
fn commands_that_end_early_are_read_as_far_as_they_go() {
    for text in [
        "accelerate launch train_network.py --",
        "accelerate launch train_network.py --seed",
        "train_network.py '",
        "train_network.py --network_args --seed 1",
    ] {
        let _ = alone(text);
    }
    assert!(error("accelerate launch").contains("without a script"));
    assert!(error("--seed=1").contains("without a script"));
}

#[test]
fn damaged_configurations_do_no_harm() {
    // Knuth's constants: the same damage in every run.
    let mut state = 1u64;
    let mut draw = |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most.max(1)
    };
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    for entry in std::fs::read_dir(folder).expect("the cases are there") {
        let text = std::fs::read_to_string(entry.expect("a file").path()).expect("a text");
        for _ in 0..60 {
            let mut letters: Vec<char> = text.chars().collect();
            for _ in 0..=draw(4) {
                let (at, length) = (draw(letters.len()), draw(12));
                let end = (at + length).min(letters.len());
                match draw(3) {
                    0 => drop(letters.drain(at..end)),
                    1 => letters.insert(at, ['"', '\'', '[', '{', '=', '-', '$', '\\', '\n', '0', 'e'][draw(11)]),
                    _ => letters.extend_from_within(at..end),
                }
            }
            if let Ok(migration) = alone(&letters.into_iter().collect::<String>()) {
                data(&migration.recipe);
            }
        }
    }
}
