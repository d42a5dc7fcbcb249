//! The program and the Hub, which is a server on the loopback here: models, pictures, adapters and recipes by `hf://`, only what is
//! needed of them, named by their commits from then on; without the network from the cache; and a run's result back.

#[path = "common/run.rs"]
mod run;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use run::Bench;
use sconce_hub::testkit::{Fault, Server};

const TOKEN: &str = "hf_abcdefSECRETabcdef";

/// A model with weights, made once.
fn base() -> &'static Bench {
    static BASE: OnceLock<Bench> = OnceLock::new();
    BASE.get_or_init(|| {
        let bench = Bench::new("");
        bench.train("base", &["--set", "train.images=6"]);
        bench
    })
}

fn each(dir: &Path, before: &str, take: &mut dyn FnMut(String, Vec<u8>)) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = format!("{before}{}", path.file_name().expect("a name").to_string_lossy());
        match path.is_dir() {
            true => each(&path, &format!("{name}/"), take),
            false => take(name, std::fs::read(&path).expect("a file")),
        }
    }
}

/// A Hub with a model, among files that nobody needs, and pictures.
fn hub() -> Server {
    let server = Server::start().expect("a port");
    each(&base().path("base/model"), "", &mut |name, content| {
        if name.ends_with(".safetensors") {
            server.add_large("them/model", &name, content)
        } else {
            server.add("them/model", &name, content)
        }
    });
    for name in [
        "README.md",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "all.safetensors",
    ] {
        server.add_large("them/model", name, "nothing that loads");
    }
    each(&base().path("pictures"), "train/", &mut |name, content| server.add("datasets/them/pictures", &name, content));
    server
}

const RECIPE: &str = "[model]\npath = \"hf://them/model\"\n[optimizer]\ntype = \"adamw\"\nlr = 1e-2\n[data]\nbatch = 2\n\
                      [[data.source]]\npath = \"hf://datasets/them/pictures/train\"\n[train]\nimages = 8\nseed = 5\n\
                      [adapter]\ntype = \"lora\"\nrank = 2\n";

fn sconce(server: &Server, bench: &Bench, arguments: &[&str]) -> Command {
    let mut command = bench.sconce(arguments);
    command.env("HF_ENDPOINT", server.url()).env("HF_HOME", bench.path("hf")).env("HF_TOKEN", TOKEN);
    for other in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE"] {
        command.env_remove(other);
    }
    command
}

#[track_caller]
fn good(mut command: Command) -> Output {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("SECRET"), "{said}");
    output
}

#[test]
fn a_run_takes_model_and_pictures_from_the_hub_and_brings_its_result_back() {
    let server = hub();
    let bench = Bench::of(RECIPE);
    good(sconce(&server, &bench, &["check", "recipe.toml"]));
    let asked =
        |end: &str| server.seen().iter().filter(|s| s.target.contains("/resolve/") && s.target.ends_with(end)).count();
    assert!(asked("unet/config.json") > 0);
    assert_eq!(asked(".safetensors"), 0, "a check fetches no weights");

    good(sconce(&server, &bench, &["train", "recipe.toml", "--out", "run"]));
    assert!(asked("unet/diffusion_pytorch_model.safetensors") > 0);
    for none in [".bin", ".fp16.safetensors", "all.safetensors", "README.md"] {
        assert_eq!(asked(none), 0, "{none} is not needed");
    }
    let resolved = std::fs::read_to_string(bench.path("run/recipe.toml")).expect("a recipe");
    let commit = |repo| server.commit(repo).expect("a commit");
    assert!(resolved.contains(&format!("hf://them/model@{}", commit("them/model"))), "{resolved}");
    assert!(resolved.contains(&format!("hf://datasets/them/pictures@{}/train", commit("datasets/them/pictures"))));

    // A model that moved on is another; the resolved recipe still means the old one. And without network it is in the cache.
    server.add("them/model", "unet/config.json", "{}");
    std::fs::copy(bench.path("run/recipe.toml"), bench.path("again.toml")).expect("a recipe");
    let mut offline = sconce(&server, &bench, &["train", "again.toml", "--out", "again"]);
    offline.env("HF_HUB_OFFLINE", "1");
    let before = server.seen().len();
    good(offline);
    assert_eq!(server.seen().len(), before, "nothing is asked of the network");
    let lora = |run: &str| std::fs::read(bench.path(run).join("lora-kohya.safetensors")).expect("a LoRA");
    let weights = |bytes: Vec<u8>| {
        let header = u64::from_le_bytes(bytes[..8].try_into().expect("a length")) as usize;
        bytes[8 + header..].to_vec()
    };
    assert_eq!(weights(lora("run")), weights(lora("again")));

    let pushed = good(sconce(&server, &bench, &["push", "run", "hf://me/lora", "--private"]));
    assert!(String::from_utf8_lossy(&pushed.stdout).contains("me/lora"));
    assert_eq!(server.is_private("me/lora"), Some(true));
    assert_eq!(server.content("me/lora", "lora-kohya.safetensors").expect("the weights"), lora("run"));
    let card = String::from_utf8(server.content("me/lora", "README.md").expect("a card")).expect("text");
    assert!(card.contains("base_model: \"them/model\"") && card.contains("rank = 2"), "{card}");
    assert!(server.content("me/lora", "recipe.toml").is_some());

    let draw = |lora: &str, out: &str| {
        let model = format!("hf://them/model@{}", model_commit(&resolved));
        good(sconce(
            &server,
            &bench,
            &["sample", "--model", &model, "--prompt", "cat", "--steps", "2", "--lora", lora, "--out", out],
        ));
        image::open(bench.path(out)).expect("a picture").to_rgb8()
    };
    let [here, there] =
        [draw("run/lora-peft.safetensors", "a.png"), draw("hf://me/lora/lora-peft.safetensors:1", "b.png")];
    assert!(here == there, "the same adapter draws the same");
    good(sconce(&server, &bench, &["inspect", "hf://me/lora/lora-peft.safetensors"]));
}

/// The commit that a resolved recipe names its model by.
fn model_commit(resolved: &str) -> &str {
    &resolved.split_once("hf://them/model@").expect("a pinned model").1[..40]
}

#[test]
fn a_recipe_of_the_hub_runs_with_pictures_of_ones_own() {
    let server = hub();
    server.add("them/recipes", "style.toml", RECIPE);
    let bench = Bench::of("extends = \"hf://them/recipes/style.toml\"\n[train]\nimages = 4\n");
    let own = ["--set", "data.source.0.path=pictures", "--set", "train.images=4"];
    good(sconce(&server, &bench, &[&["train", "hf://them/recipes/style.toml", "--out", "run"], &own[..]].concat()));
    good(sconce(&server, &bench, &[&["train", "recipe.toml", "--out", "extended"], &own[..]].concat()));
    let weights = |run: &str| {
        sconce_nn::weights::WeightFiles::open(&[bench.path(run).join("lora-peft.safetensors")]).expect("a LoRA")
    };
    let (a, b) = (weights("run"), weights("extended"));
    let cpu = sconce_nn::candle::Device::Cpu;
    for key in a.keys() {
        let read = |of: &sconce_nn::weights::WeightFiles| {
            of.stored(key, &cpu).and_then(|t| t.flatten_all()?.to_vec1::<f32>()).expect("f32")
        };
        assert_eq!(read(&a), read(&b), "{key}");
    }
}

#[test]
fn what_the_hub_refuses_is_told_and_the_token_is_not() {
    let server = hub();
    let bench = Bench::of(RECIPE);
    let refused = |arguments: &[&str], told: &[&str]| {
        let output = sconce(&server, &bench, arguments).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && told.iter().all(|t| said.contains(t)), "{arguments:?}: {said}");
        assert!(!said.contains("SECRET") && !said.contains("panicked"), "{said}");
    };
    refused(
        &["check", "recipe.toml", "--set", "model.path=hf://them/other"],
        &["model.path", "hf://them/other", "no such repository"],
    );
    refused(&["check", "recipe.toml", "--set", "model.path=hf://them"], &["an owner and a name"]);
    refused(&["check", "recipe.toml", "--set", "model.path=hf://them/../x"], &["hf://them/../x"]);
    refused(&["check", "recipe.toml", "--set", "model.path=hf://them/model@nothing"], &["nothing"]);
    refused(&["check", "recipe.toml", "--set", "data.source.0.path=hf://datasets/them/none"], &["data.source.0.path"]);
    refused(&["push", "pictures", "hf://me/x"], &["no run that has ended"]);
    server.add_large("them/two", "a.safetensors", "a");
    server.add_large("them/two", "b.safetensors", "b");
    refused(&["sample", "--model", "hf://them/two", "--prompt", "x"], &["model_index.json", "a.safetensors"]);
    server.gate("them/model");
    server.fail("them/model", 9, Fault::Status(403, vec![("x-error-code", "GatedRepo".to_owned())]));
    refused(&["check", "recipe.toml"], &["licen"]);
}
