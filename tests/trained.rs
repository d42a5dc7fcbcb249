//! What the program trains, in diffusers: LoRA files in both layouts and whole folders that `tests/fixtures/trained.py`
//! made with this program, and what diffusers sampled with them. A fresh training must write files of the same make, so
//! that the committed ones keep standing for what the program writes.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Result, Tensor};
use case::{Case, data, json, relative};
use run::Bench;
use sconce_nn::weights::{WeightFiles, save};
use serde_json::Value;

const CASES: [&str; 2] = ["sd1-a", "sdxl-a"];
/// Of flow models there are LoRA files alone.
const FLOW: [&str; 2] = ["sd3-c", "flux-a"];
const LAYOUTS: [&str; 2] = ["peft", "kohya"];

/// A case's model with weights, pictures, and one of its recipes, in one folder; and what is expected there.
struct Trained {
    name: &'static str,
    bench: Bench,
    text: Value,
    expected: WeightFiles,
}

impl Trained {
    fn new(name: &'static str, recipe: &str) -> Result<Self> {
        let components: &[&str] = match name {
            "sd1-a" => &["unet", "vae", "text_encoder"],
            "sdxl-a" => &["unet", "vae", "text_encoder", "text_encoder_2"],
            "flux-a" => &["transformer", "vae", "text_encoder", "text_encoder_2"],
            _ => &["transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"],
        };
        let bench = Bench::of(&fs::read_to_string(Self::data(name, recipe))?);
        case::copy(Case::new(name, components)?.path(), &bench.path("model"))?;
        let expected = WeightFiles::open(&[Self::data(name, "expected.safetensors")])?;
        Ok(Self { name, bench, text: json(Self::data(name, "expected.json")), expected })
    }

    fn data(name: &str, file: &str) -> PathBuf {
        data("trained", &format!("{name}/{file}"))
    }

    /// Samples with the program from the case's noise, and holds the latents against those stored as `key`.
    fn check(&self, key: &str, more: &[&str]) -> Result<Tensor> {
        let expected = self.expected.tensor(key, DType::F32, &Device::Cpu)?;
        let noise =
            Tensor::from_vec(formula::unit("input", "sample.init", expected.dims()), expected.dims(), &Device::Cpu)?;
        save(&self.bench.path("init.safetensors"), &BTreeMap::from([("latents".to_owned(), noise)]), &BTreeMap::new())?;
        let word = |field: &str| self.text[field].as_str().map_or_else(|| self.text[field].to_string(), str::to_owned);
        let (prompt, negative, steps, cfg) = (word("prompt"), word("negative"), word("steps"), word("cfg"));
        let words = ["sample", "--model", "model", "--prompt", &prompt, "--negative", &negative];
        let run = ["--steps", &steps, "--cfg", &cfg, "--init-latents", "init.safetensors"];
        let told = ["guidance", "max_sequence_length"].map(|field| (format!("--{}", field.replace('_', "-")), field));
        let told: Vec<String> = told
            .into_iter()
            .filter(|(_, field)| self.text.get(field).is_some_and(Value::is_number))
            .flat_map(|(flag, field)| [flag, word(field)])
            .collect();
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let all = [&words[..], &run, &told, &["--save-latents", "latents.safetensors"], more].concat();
        let output = self.bench.sconce(&all).output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let got = WeightFiles::open(&[self.bench.path("latents.safetensors")])?;
        let got = got.tensor("latents", DType::F32, &Device::Cpu)?;
        let error = relative(&got, &expected)?;
        println!("{} {key}: within {error:.1e}", self.name);
        assert!(error < 1e-3, "{} {key}: differs by {error:.1e}", self.name);
        Ok(got)
    }
}

#[test]
fn a_lora_draws_what_it_draws_in_diffusers() -> Result<()> {
    for name in CASES.into_iter().chain(FLOW) {
        let trained = Trained::new(name, "lora.toml")?;
        let solver = ["--solver", trained.text["solver"].as_str().unwrap()];
        let bare = trained.check("bare", &solver)?;
        for layout in LAYOUTS {
            let file = Trained::data(name, &format!("lora-{layout}.safetensors"));
            let lora = format!("{}:{}", file.display(), trained.text["scale"]);
            // diffusers reads no kohya file of Stable Diffusion 3: it must do here what the other one does.
            let key = if trained.expected.info(layout).is_some() { layout } else { "peft" };
            let drawn = trained.check(key, &[&solver[..], &["--lora", &lora]].concat())?;
            assert!(relative(&drawn, &bare)? > 0.05, "{name} {layout}: the LoRA does nothing");
        }
    }
    Ok(())
}

#[test]
fn a_fresh_lora_is_written_as_the_committed_one() -> Result<()> {
    for name in CASES.into_iter().chain(FLOW) {
        let trained = Trained::new(name, "lora.toml")?;
        trained.bench.train("run", &[]);
        for layout in LAYOUTS {
            let file = format!("lora-{layout}.safetensors");
            let [fresh, committed] = [trained.bench.path("run").join(&file), Trained::data(name, &file)];
            assert_eq!(make(&fresh)?, make(&committed)?, "{name} {layout}");
        }
    }
    Ok(())
}

/// Each key of a LoRA file with its shape and type, and its value where it is an alpha.
fn make(file: &PathBuf) -> Result<BTreeMap<String, String>> {
    let weights = WeightFiles::open(&[file])?;
    let about = |key: &str| {
        let (shape, dtype) = weights.info(key).expect("it is one of the keys");
        let alpha = match key.ends_with(".alpha") {
            true => weights.tensor(key, DType::F32, &Device::Cpu)?.to_string(),
            false => String::new(),
        };
        Ok((key.to_owned(), format!("{dtype} {shape:?} {alpha}")))
    };
    weights.keys().map(about).collect()
}

#[test]
fn a_saved_folder_samples_by_its_own_config_as_in_diffusers() -> Result<()> {
    for name in CASES {
        let trained = Trained::new(name, "full.toml")?;
        trained.bench.train("run", &[]);
        for (file, place) in [("model_index.json", ""), ("scheduler_config.json", "scheduler")] {
            let written = fs::read_to_string(trained.bench.path("run/model").join(place).join(file))?;
            let committed = fs::read_to_string(Trained::data(name, file))?;
            assert_eq!(written, committed, "{name} {file}: if it is right, make the fixtures again");
            fs::write(trained.bench.path("model").join(place).join(file), committed)?;
        }
        trained.check("full", &[])?;
    }
    Ok(())
}
