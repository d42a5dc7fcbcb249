//! Backbones of other crates in the place of a model's own: one with an engine of its own, linked in and loaded from a library,
//! and one in tensors. The crates are examples/plugins/backbone-rust and backbone-candle, outside the workspace.

#[path = "common/cargo.rs"]
mod cargo;
#[path = "common/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use run::Bench;
use sconce_conv_mixer as _;
use sconce_core::Cond;
use sconce_core::architecture::{Architecture, Start};
use sconce_core::model::{Backbone, Recompute};
use sconce_core::testkit;
use sconce_hub::testkit::Server;
use sconce_nn::Store;
use sconce_nn::checkpoint::backward;
use sconce_nn::rng::Stream;
use sconce_nn::store::Source;
use sconce_patch_mlp as _;
use sconce_sdk::Choice;
use serde_json::json;

const TABLE: &str = "backbone={type=\"patch-mlp\",width=24,words=192}";

fn backbone(table: serde_json::Value) -> (Arc<Store>, Arc<dyn Backbone>) {
    let choice = Choice::<dyn Architecture>::from_table(&table).unwrap_or_else(|e| panic!("{e}"));
    let source = match choice.start() {
        Start::Own(read) => Source::Own(read),
        Start::Seeded => Source::Random(1),
    };
    let store = Store::new("backbone", source, DType::F32, &Device::Cpu);
    (store.clone(), choice.build(store).expect("a network"))
}

/// The example's formula in candle's own operations, from squares of side 2.
fn formula(p: &BTreeMap<String, Tensor>, x: &Tensor, time: &Tensor, context: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (rows, columns) = (height / 2, width / 2);
    let squares = x.reshape(&[batch, channels, rows, 2, columns, 2][..])?.permute([0, 2, 4, 1, 3, 5])?;
    let squares = squares.reshape((batch, rows * columns, channels * 4))?; // B N K
    let linear = |x: &Tensor, w: &str| x.broadcast_matmul(&p[w].t()?);
    let known = (linear(&context.mean(1)?, "words.weight")?
        + time.reshape((batch, 1))?.broadcast_mul(&p["time.weight"].unsqueeze(0)?)?)?;
    let known = known.broadcast_add(&p["hidden.bias"])?.unsqueeze(1)?; // B 1 W
    let h = linear(&squares, "square.weight")?.broadcast_add(&known)?.tanh()?;
    let y = linear(&h, "out.weight")?.broadcast_add(&p["out.bias"])?;
    y.reshape(&[batch, rows, columns, channels, 2, 2][..])?.permute([0, 3, 1, 4, 2, 5])?.reshape(x.shape())
}

fn close(ours: &Tensor, theirs: &Tensor, what: &str) {
    let numbers = |t: &Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("numbers");
    let (ours, theirs) = (numbers(ours), numbers(theirs));
    let size = theirs.iter().fold(0f32, |most, v| most.max(v.abs()));
    let error = ours.iter().zip(&theirs).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(error <= 1e-5 * size, "{what}: {error} of {size}");
}

#[test]
fn gradients_are_those_of_the_same_network_in_the_graph() -> Result<()> {
    let (store, backbone) = backbone(json!({ "type": "patch-mlp", "width": 12, "words": 6, "channels": 3 }));
    let trained: Vec<Var> = store.params().iter().map(|p| p.train()).collect::<Result<_>>()?;
    let names: Vec<String> = store.params().iter().map(|p| p.name().to_owned()).collect();
    let of = |name: &str, shape: &[usize]| Var::from_tensor(&Stream::new(4, name).normal(shape, &Device::Cpu)?);
    let (x, time, context) = (of("x", &[2, 3, 4, 6])?, of("time", &[2])?, of("context", &[2, 5, 6])?);
    let weigh = Stream::new(4, "weigh").normal((2, 3, 4, 6), &Device::Cpu)?;
    let values = names.iter().cloned().zip(trained.iter().map(|v| v.as_tensor().clone())).collect();
    let theirs = formula(&values, &x, &time, &context)?;
    let their_grads = (&theirs * &weigh)?.sum_all()?.backward()?;
    for recompute in [Recompute::Nothing, Recompute::Blocks] {
        backbone.recompute(recompute);
        let cond = Cond::default().with("context", context.as_tensor().clone()).with("pooled", weigh.clone());
        let ours = backbone.forward(&x, &time, &cond)?;
        close(&ours, &theirs, "the output");
        let grads = backward(&(&ours * &weigh)?.sum_all()?)?;
        let inputs = [("x", &x), ("time", &time), ("context", &context)];
        let params = names.iter().map(String::as_str).zip(&trained);
        for (name, var) in params.chain(inputs) {
            close(grads.get(var).expect(name), their_grads.get(var).expect(name), name);
        }
    }
    // What changes in place is seen by the next pass; nothing is kept where nothing trains.
    trained[0].set(&trained[0].affine(2.0, 0.0)?)?;
    let values = names.into_iter().zip(trained.iter().map(|v| v.as_tensor().clone())).collect();
    let cond = Cond::default().with("context", context.detach());
    close(&backbone.forward(&x, &time, &cond)?, &formula(&values, &x, &time, &context)?, "after an update");
    Ok(())
}

/// In tensors, and with an engine of its own.
#[test]
fn backbones_obey_their_laws() {
    let words = Stream::new(4, "words").normal((2, 5, 6), &Device::Cpu).unwrap();
    let cond = Cond::default().with("context", words);
    for table in [
        json!({ "type": "conv-mixer", "width": 8, "blocks": 2, "words": 6 }),
        json!({ "type": "patch-mlp", "width": 12, "words": 6, "channels": 3 }),
    ] {
        let choice = Choice::<dyn Architecture>::from_table(&table).unwrap();
        testkit::backbone(&*choice, &cond).unwrap_or_else(|broken| panic!("{choice:?}: {broken}"));
    }
}

#[test]
fn what_does_not_fit_is_told() -> Result<()> {
    let (_, backbone) = backbone(json!({ "type": "patch-mlp", "width": 3, "words": 6 }));
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let cond = |words: usize| Ok::<_, candle_core::Error>(Cond::default().with("context", zeros(&[1, 5, words])?));
    for (x, cond, needle) in [
        (zeros(&[1, 4, 3, 4])?, cond(6)?, "multiples of 2"),
        (zeros(&[1, 3, 4, 4])?, cond(6)?, "4 channels"),
        (zeros(&[1, 4, 4, 4])?, cond(7)?, "[0, 6]"),
        (zeros(&[1, 4, 4, 4])?, Cond::default(), "no `context`"),
        ((zeros(&[1, 4, 4, 4])? + f64::NAN)?, cond(6)?, "its output is NaN"),
    ] {
        let error = backbone.forward(&x, &zeros(&[1])?, &cond).expect_err(needle).to_string();
        assert!(error.contains(needle), "{error}");
    }
    Ok(())
}

/// The program with both crates linked in: examples/with_plugins.rs.
fn linked(bench: &Bench, arguments: &[&str]) -> Command {
    let tests = std::env::current_exe().expect("this test");
    let program = tests.parent().and_then(Path::parent).expect("the target folder").join("examples/with_plugins");
    assert!(program.is_file(), "{}: build it: cargo build --release --example with_plugins", program.display());
    let mut command = Command::new(program);
    command.current_dir(bench.path("")).args(arguments).env("SCONCE_CACHE", bench.path("home"));
    command
}

fn done(command: &mut Command) -> String {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    said
}

fn refused(command: &mut Command, needle: &str) {
    let output = command.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains(needle), "{needle}: {said}");
}

fn library() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plugins/backbone-rust");
    cargo::cargo(&folder, &["build", "--release", "--locked"]);
    cargo::library("release", "sconce-patch-mlp")
}

#[test]
fn a_library_trains_the_weights_of_the_crate_linked_in_and_goes_on_exactly() {
    let bench = Bench::new("");
    let file = library().display().to_string();
    done(&mut linked(&bench, &["train", "recipe.toml", "--out", "linked", "--set", TABLE]));
    bench.train("loaded", &["--set", TABLE, "--plugin", &file]);
    let own = "model/backbone/diffusion_pytorch_model.safetensors";
    assert!(bench.tensors("linked", own) == bench.tensors("loaded", own), "the same weights");

    // Half of it, and the rest.
    let set = ["--set", TABLE, "--plugin", &file, "--set", "train.images=12"];
    bench.train("half", &set);
    bench.train("half", &["--set", TABLE, "--plugin", &file, "--resume", "--changed"]);
    assert!(bench.tensors("half", own) == bench.tensors("loaded", own), "the same after a stop");

    // The folder draws, and trains on, with the plugin alone.
    let draw = ["sample", "--model", "loaded/model", "--prompt", "a cat", "--steps", "2", "--out", "cat.png"];
    refused(&mut bench.sconce(&draw), "there is no backbone `patch-mlp`");
    done(bench.sconce(&draw).args(["--plugin", &file]));
    done(&mut linked(&bench, &draw));
    let more = ["train", "recipe.toml", "--set", "model.path=loaded/model", "--set", "train.images=6", "--out", "more"];
    done(&mut linked(&bench, &more));
    let other = "backbone={type=\"patch-mlp\",width=8,words=192}";
    refused(linked(&bench, &more).args(["--set", other]), "leave out [backbone]");
    let lora = ["train", "recipe.toml", "--set", TABLE, "--set", "adapter=lora", "--out", "lora"];
    refused(&mut linked(&bench, &lora), "no layers that adapters could go to");
    let single = ["check", "recipe.toml", "--set", TABLE, "--set", "output.model_layouts=[\"single-file\"]"];
    refused(&mut linked(&bench, &single), "no layout in a single file");
    let packed = ["check", "recipe.toml", "--set", TABLE, "--set", "model.quantise.backbone=int8"];
    refused(&mut linked(&bench, &packed), "no linear layers");
    let narrow = ["check", "recipe.toml", "--set", "backbone={type=\"patch-mlp\",width=8,words=64}"];
    refused(&mut linked(&bench, &narrow), "the text encoders give [0, 192]");
}

#[test]
fn of_a_model_on_the_hub_the_denoiser_that_is_replaced_does_not_come() {
    let bench = Bench::new("");
    bench.train("base", &["--set", "train.images=6"]);
    let server = Server::start().expect("a port");
    for name in walk(&bench.path("base/model")) {
        server.add("them/model", &name, std::fs::read(bench.path("base/model").join(&name)).expect("a file"));
    }
    let train = ["train", "recipe.toml", "--set", TABLE, "--set", "model.path=hf://them/model", "--out", "run"];
    let mut command = linked(&bench, &train);
    done(command.env("HF_ENDPOINT", server.url()).env("HF_HOME", bench.path("hf")).env_remove("HF_HUB_OFFLINE"));
    let asked = |file: &str| server.seen().iter().any(|seen| seen.target.ends_with(file));
    assert!(asked("vae/diffusion_pytorch_model.safetensors") && asked("unet/config.json"));
    assert!(!asked("unet/diffusion_pytorch_model.safetensors"));
    let lock = std::fs::read_to_string(bench.path("run/run.lock")).expect("a lock");
    assert!(lock.contains("vae/diffusion_pytorch_model") && !lock.contains("unet/diffusion_pytorch_model"), "{lock}");
}

/// The files of a folder and its folders, by their names in it.
fn walk(dir: &Path) -> Vec<String> {
    let entries = |dir: &Path| std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    let inside = entries(dir).flat_map(|path| if path.is_dir() { entries(&path).collect() } else { vec![path] });
    inside.map(|path| path.strip_prefix(dir).expect("in it").to_string_lossy().into_owned()).collect()
}

#[test]
fn a_backbone_in_tensors_trains_in_full_and_by_an_adapter() {
    let bench = Bench::new("");
    let table = "backbone={type=\"conv-mixer\",width=16,blocks=2,words=192}";
    done(&mut linked(&bench, &["train", "recipe.toml", "--out", "full", "--set", table]));
    let said = done(&mut linked(&bench, &["inspect", "full/model/backbone/diffusion_pytorch_model.safetensors"]));
    assert!(said.contains("conv-mixer"), "{said}");
    // Learned from there by a LoRA on all of its linear layers, over packed weights.
    let lora = "adapter={type=\"lora\",rank=2,targets=[\"*.known\",\"*.time.*\"]}";
    let more = ["--set", "model.path=full/model", "--set", "model.random_seed=3", "--out", "lora"];
    done(linked(&bench, &["train", "recipe.toml", "--set", lora]).args(more));
    done(&mut linked(&bench, &["merge", "--lora", "lora/lora-peft.safetensors", "full/model", "merged"]));
    refused(&mut linked(&bench, &["check", "recipe.toml", "--set", "backbone=conv-mixr"]), "conv-mixer");
}
