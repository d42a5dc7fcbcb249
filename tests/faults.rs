//! What goes wrong once a run has started: the error says what, where and what to do, each word for word in
//! `tests/snapshots/train-*.txt`, and what was good stays. See `common/program.rs` for how to update.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/program.rs"]
mod program;
#[path = "common/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use candle_core::{DType, Device, Tensor};
use case::Case;
use program::{root, snapshot};
use run::Bench;
use sconce_nn::weights::{WeightFiles, save};

/// What a command said: its arguments, both outputs and its exit code, the folder as `$DIR`, the repository as `$REPO`.
fn said(bench: &Bench, arguments: &[&str], output: &Output) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace(&bench.0.path().display().to_string(), "$DIR");
        text.replace(&root().display().to_string(), "$REPO")
    };
    let code = output.status.code().map_or("killed".to_owned(), |c| c.to_string());
    let shown = text(arguments.join(" ").as_bytes());
    format!("$ sconce {shown}\n{}-- stderr --\n{}-- exit {code} --\n", text(&output.stdout), text(&output.stderr))
}

/// Runs the program and holds what it says against a snapshot.
fn says(name: &str, bench: &Bench, arguments: &[&str]) {
    let output = bench.sconce(arguments).output().expect("it starts");
    snapshot(name, &said(bench, arguments, &output));
}

/// The arguments of a run of the bench's recipe.
fn train<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "recipe.toml", "--out", "run"], more].concat()
}

/// A bench with a small model that has weights.
fn with_weights() -> Bench {
    let bench = Bench::of(
        "[model]\npath = \"model\"\n[optimizer]\ntype = \"adamw\"\nlr = 1e-4\n[data]\nbatch = 2\n[[data.source]]\n\
         path = \"pictures\"\n[train]\nimages = 4\n",
    );
    let case = Case::new("sd1-a", &["unet", "vae", "text_encoder"]).expect("the fixture is there");
    case::copy(case.path(), &bench.path("model")).expect("a folder");
    bench
}

fn all(file: &Path) -> BTreeMap<String, Tensor> {
    let files = WeightFiles::open(&[file]).expect("a weight file");
    let tensor = |key: &str| files.tensor(key, DType::F32, &Device::Cpu).expect("a tensor");
    files.keys().map(|key| (key.to_owned(), tensor(key))).collect()
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_good_checkpoint() {
    // The rate explodes in the second update, after the first checkpoint and before the second.
    let bench = Bench::new("clip_norm = 0.0\n[lr]\ntype = \"linear\"\nfinal_factor = 1e30\n");
    let often = ["--set", "train.save_every_images=3"];
    says("train-no-number", &bench, &train(&often));
    assert!(!bench.path("run/model").exists(), "a broken model must not be written");
    let weights = |run: &str| fs::read(bench.path(run).join("checkpoints/000000000003/weights.safetensors")).ok();
    bench.train("short", &[&often[..], &["--set", "train.images=3"]].concat());
    assert!(weights("run").is_some() && weights("run") == weights("short"), "the checkpoint is that of a good run");
    bench.train("run", &["--resume", "--changed", "--set", "lr.final_factor=1.0", "--set", "train.images=9"]);
    assert!(bench.path("run/model").exists(), "the run goes on from there");
}

#[test]
fn a_model_that_gives_no_number_is_told_apart_from_a_run_that_breaks_it() {
    let bench = with_weights();
    let file = bench.path("model/unet/diffusion_pytorch_model.safetensors");
    let mut weights = all(&file);
    let bias = weights.get_mut("conv_out.bias").expect("every UNet has one");
    *bias = (bias.zeros_like().expect("zeros") / 0.0).expect("no numbers");
    save(&file, &weights, &BTreeMap::new()).expect("a weight file");
    says("train-no-number-at-first", &bench, &train(&[]));
}

#[test]
fn bad_pictures_are_reported_one_by_one_and_the_run_goes_on() {
    let bench = Bench::new("");
    let picture = |name: &str, bytes: &[u8]| fs::write(bench.path("pictures").join(name), bytes).expect("a file");
    picture("torn.png", b"\x89PNG\r\n\x1a\nnot much more");
    picture("empty.webp", b"");
    picture("text.jpg", b"not a picture at all");
    picture("huge.bmp", &huge_bmp());
    for (name, width, height) in [("dot.png", 1, 1), ("line.png", 30_000, 1), ("long.png", 30_000, 24)] {
        image::RgbImage::new(width, height).save(bench.path("pictures").join(name)).expect("a picture");
    }
    says("train-bad-pictures", &bench, &train(&["--set", "train.images=6"]));
}

#[test]
fn data_that_is_no_data_is_an_error() {
    let bench = Bench::new("");
    fs::write(bench.path("pictures/ant.txt"), b"caf\xe9").expect("a file");
    says("train-caption", &bench, &train(&[]));
    fs::write(
        bench.path("pictures/metadata.jsonl"),
        "{\"file_name\": \"ant.webp\", \"text\": \"ant\"}\n{\"image\": 1}\n",
    )
    .expect("a file");
    says("train-metadata", &bench, &train(&[]));
    fs::remove_dir_all(bench.path("pictures")).expect("it was there");
    fs::create_dir(bench.path("pictures")).expect("a folder");
    says("train-empty-folder", &bench, &train(&[]));
    image::RgbImage::new(1, 1).save(bench.path("pictures/dot.png")).expect("a picture");
    says("train-no-picture-left", &bench, &train(&[]));
    fs::remove_dir_all(bench.path("pictures")).expect("it was there");
    says("train-no-folder", &bench, &train(&[]));
}

/// A file that cannot grow stands for a full disk: both fail in `write`.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_no_half_written_file() {
    let bench = Bench::new("");
    let arguments = train(&[]);
    let program = env!("CARGO_BIN_EXE_sconce");
    let line = format!("trap '' XFSZ; ulimit -f 2000; exec {program} {}", arguments.join(" "));
    let mut shell = Command::new("bash");
    shell.args(["-c", &line]).current_dir(bench.0.path()).env("SCONCE_CACHE", bench.path("home"));
    let output = shell.output().expect("a shell");
    snapshot("train-full-disk", &said(&bench, &arguments, &output));
    assert!(!bench.path("run/model").exists());
    let left = fs::read_dir(bench.path("run/checkpoints")).into_iter().flatten().count();
    assert_eq!(left, 0, "a torn checkpoint is left");
}

#[test]
fn weights_that_are_not_the_models_are_refused() {
    let bench = with_weights();
    let file = bench.path("model/unet/diffusion_pytorch_model.safetensors");
    let good = fs::read(&file).expect("a weight file");
    let refuses = |name: &str, bytes: &[u8]| {
        fs::write(&file, bytes).expect("a file");
        says(name, &bench, &train(&[]));
    };
    refuses("train-weights-cut", &good[..good.len() / 2]);
    refuses("train-weights-longer", &[&good[..], b"more"].concat());
    refuses("train-weights-empty", b"");
    refuses("train-weights-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    refuses("train-weights-header", &[&u64::MAX.to_le_bytes()[..], b"{}"].concat());
    let tensor = |dtype: &str, shape: &str, end: usize| {
        let header =
            format!("{{\"conv_in.bias\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 64]].concat()
    };
    refuses("train-weights-offsets", &tensor("F32", "[16]", 1 << 40));
    refuses("train-weights-overflow", &tensor("F32", "[4611686018427387904,8]", 64));
    refuses("train-weights-disagree", &tensor("F32", "[1000]", 64));

    let changed = |name: &str, change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
        fs::write(&file, &good).expect("a file");
        let mut weights = all(&file);
        change(&mut weights);
        save(&file, &weights, &BTreeMap::new()).expect("a file");
        says(name, &bench, &train(&[]));
    };
    let integers = |t: &Tensor| t.to_dtype(DType::I64).expect("integers");
    changed("train-weights-integers", &|w| w.get_mut("conv_in.weight").into_iter().for_each(|t| *t = integers(t)));
    changed("train-weights-missing", &|w| w.retain(|key, _| key != "mid_block.resnets.0.conv1.bias"));
    changed("train-weights-stray", &|w| w.extend([("who.knows".to_owned(), w["conv_in.bias"].clone())]));
    fs::write(&file, &good).expect("a file");
    let config = bench.path("model/unet/config.json");
    let text = fs::read_to_string(&config).expect("a config");
    fs::write(&config, text.replace("\"cross_attention_dim\": 32", "\"cross_attention_dim\": 48")).expect("a file");
    says("train-weights-shape", &bench, &train(&[]));
    fs::write(&config, text).expect("a file");
    fs::remove_file(&file).expect("it was there");
    says("train-weights-absent", &bench, &train(&[]));
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let bench = with_weights();
    let lora = root().join("tests/fixtures/data/trained/sdxl-a/lora-peft.safetensors");
    let cut = bench.path("cut.safetensors");
    let bytes = fs::read(&lora).expect("the fixture is there");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("a file");
    let sample = |lora: &str| says_sample(&bench, lora);
    snapshot("sample-lora-of-another", &sample(&lora.display().to_string()));
    snapshot("sample-lora-cut", &sample("cut.safetensors"));
    snapshot("sample-lora-no-lora", &sample("model/unet/diffusion_pytorch_model.safetensors"));
}

fn says_sample(bench: &Bench, lora: &str) -> String {
    let arguments = ["sample", "--model", "model", "--prompt", "a fox", "--steps", "1", "--lora", lora];
    said(bench, &arguments, &bench.sconce(&arguments).output().expect("it starts"))
}

#[test]
fn a_recipe_must_be_its_checkpoints() {
    says("train-another-objective", &with_weights(), &train(&["--set", "objective.type=v"]));
    let bench = Bench::new("");
    bench.train("run", &["--set", "train.images=6"]);
    says(
        "train-another-recipe",
        &bench,
        &train(&["--resume", "--set", "train.images=6", "--set", "optimizer.lr=1e-4"]),
    );
    says("train-there-already", &bench, &train(&["--set", "train.images=6"]));
    let weights = bench.path("run/checkpoints/000000000006/weights.safetensors");
    let bytes = fs::read(&weights).expect("a checkpoint");
    fs::write(&weights, &bytes[..bytes.len() / 2]).expect("a file");
    says("train-checkpoint-cut", &bench, &train(&["--resume", "--set", "train.images=6"]));
}

/// The header of a 30,000 x 30,000 bitmap of 24 bits, and nothing behind it.
fn huge_bmp() -> Vec<u8> {
    let mut out = b"BM".to_vec();
    out.extend(54u32.to_le_bytes());
    out.extend([0; 4]);
    out.extend(54u32.to_le_bytes());
    out.extend(40u32.to_le_bytes());
    out.extend(30_000i32.to_le_bytes());
    out.extend(30_000i32.to_le_bytes());
    out.extend(1u16.to_le_bytes());
    out.extend(24u16.to_le_bytes());
    out.extend([0; 24]);
    out
}
