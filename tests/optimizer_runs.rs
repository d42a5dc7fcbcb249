//! What a recipe says about updates, as whole runs of the program show it: groups and LoRA+ set each parameter's rate,
//! schedule-free saves its average, and released gradients change no bit.

#[path = "common/run.rs"]
mod run;

use std::fs;

use candle_core::{DType, Device, Tensor};
use run::Bench;
use sconce_nn::weights::WeightFiles;

/// The largest magnitude in a tensor.
fn largest(t: &Tensor) -> f64 {
    f64::from(t.abs().and_then(|t| t.max_all()).and_then(|t| t.to_scalar::<f32>()).expect("numbers"))
}

/// The bytes of every tensor of a weight file.
fn tensors(bench: &Bench, name: &str) -> Vec<(String, Vec<u8>)> {
    let file = WeightFiles::open(&[bench.path(name)]).expect("a weight file");
    let bytes = |key: &str| file.stored(key, &Device::Cpu).and_then(|t| sconce_nn::weights::bytes_of(&t));
    file.keys().map(|key| (key.to_owned(), bytes(key).expect("a tensor"))).collect()
}

#[test]
fn released_gradients_change_no_bit() {
    for more in [
        "clip_norm = 0.0\nrecompute = \"blocks\"\ncomponents = { unet = 1.0, text_encoder = 0.5 }\n",
        "clip_norm = 0.0\n[adapter]\ntype = \"lora\"\nrank = 4\n",
    ] {
        let bench = Bench::new(more);
        bench.train("all", &[]);
        bench.train("released", &["--set", "train.gradients=released"]);
        // The files differ in their headers, which hold the recipe.
        for name in bench.weights("all").into_keys() {
            assert_eq!(tensors(&bench, &format!("all/{name}")), tensors(&bench, &format!("released/{name}")), "{name}");
        }
        assert_eq!(bench.log("all"), bench.log("released"));
    }
}

#[test]
fn what_released_gradients_cannot_go_with_is_refused() {
    let bench = Bench::new("gradients = \"released\"\n");
    for (set, word) in [
        ("train.accumulate=1", "clip_norm = 0"),
        ("train.accumulate=2", "accumulate = 1"),
        ("optimizer.type=prodigy", "needs all gradients"),
    ] {
        let output = bench.command("run", &["--set", set]).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("train.gradients") && said.contains(word), "{said}");
    }
    let more =
        ["--set", "train.gradients=all", "--set", "ema.type=constant", "--set", "optimizer.type=schedule-free-adamw"];
    let output = bench.command("run", &more).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("`ema`"), "{said}");
}

/// AdamW's first update moves every number by its rate, so that the rate can be read off: B starts at zero.
#[test]
fn groups_and_lora_plus_set_each_rate() {
    let bench = Bench::new(
        "clip_norm = 0.0\n[[train.group]]\ntargets = [\"unet.*.attn1.*\"]\nlr_factor = 0.5\n[adapter]\ntype = \"lora\"\nrank = 4\n\
         lora_plus_ratio = 16.0\n",
    );
    bench.train("run", &["--set", "train.images=3"]);
    let file = WeightFiles::open(&[bench.path("run/lora-peft.safetensors")]).expect("a LoRA");
    let (mut halved, mut whole) = (0, 0);
    for key in file.keys().filter(|k| k.contains("lora_B")) {
        let moved = largest(&file.tensor(key, DType::F32, &Device::Cpu).expect("a tensor"));
        let factor = if key.contains("attn1") { 0.5 } else { 1.0 };
        let want = 1e-3 * 16.0 * factor;
        assert!((moved / want - 1.0).abs() < 1e-2, "{key} moved by {moved}, wanted {want}");
        if factor < 1.0 { halved += 1 } else { whole += 1 }
    }
    assert!(halved > 0 && whole > 0, "both kinds of layer are adapted");
}

/// x = y + (1 - 1/beta1) (z - y), of the y and z in the last checkpoint, is what the saved model holds.
#[test]
fn schedule_free_saves_its_average() {
    let bench = Bench::new("");
    bench.train("run", &["--set", "optimizer.type=schedule-free-adamw", "--set", "optimizer.lr=1e-3"]);
    let checkpoints = fs::read_dir(bench.path("run/checkpoints")).expect("checkpoints").flatten();
    let last = checkpoints.map(|e| e.path()).max().expect("one");
    let open = |path| WeightFiles::open(&[path]).expect("a weight file");
    let (weights, state) = (open(last.join("weights.safetensors")), open(last.join("optimizer.safetensors")));
    let model = open(bench.path("run/model/unet/diffusion_pytorch_model.safetensors"));
    let read = |file: &WeightFiles, key: &str| file.tensor(key, DType::F32, &Device::Cpu).expect("a tensor");
    let mut away = 0f64;
    for key in model.keys() {
        let (y, z) = (read(&weights, &format!("unet/{key}")), read(&state, &format!("unet/{key}.z")));
        let x = (&y + ((z - &y).expect("shapes") * (1.0 - 1.0 / 0.9)).expect("shapes")).expect("shapes");
        let saved = read(&model, key);
        assert_eq!(largest(&(&x - &saved).expect("shapes")), 0.0, "{key}");
        away = away.max(largest(&(y - saved).expect("shapes")));
    }
    assert!(away > 1e-4, "the average is not what trains: {away}");
}
