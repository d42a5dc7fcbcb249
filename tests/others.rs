//! Files that other programs' own code wrote: merged here they change the weights that those programs change, by as much
//! (`tests/fixtures/README.md`, data/others; `tests/yardsticks` wrote them).

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/work.rs"]
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use case::{Case, data, json};
use sconce_nn::weights::WeightFiles;
use serde_json::Value;
use work::{Work, text};

/// A folder's tensors by `component/key`.
fn folder(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(path)? {
        let part = entry?.path();
        let component = part.file_name().unwrap().to_string_lossy().into_owned();
        let Ok(files) = std::fs::read_dir(&part) else { continue };
        let weights: Vec<PathBuf> = files.map(|f| f.unwrap().path()).collect();
        for file in weights.iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors")) {
            let file = WeightFiles::open(&[file])?;
            for key in file.keys() {
                all.insert(format!("{component}/{key}"), file.tensor(key, DType::F32, &Device::Cpu)?);
            }
        }
    }
    Ok(all)
}

/// A change's norm, and its products with four probes.
fn measured(key: &str, change: &Tensor) -> Result<[f64; 5]> {
    let short = key.split_once('/').expect("a component").1;
    let values = change.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt();
    let product = |i: usize| {
        let probe = formula::probe(&format!("probe{i}"), short, change.dims());
        values.iter().zip(probe).map(|(v, p)| v * f64::from(p)).sum::<f64>()
    };
    Ok([norm, product(0), product(1), product(2), product(3)])
}

#[test]
fn what_other_programs_wrote_changes_what_it_changes_there() -> Result<()> {
    let expected = json(data("others", "expected.json"));
    let expected = expected.as_object().expect("files");
    let mut models: BTreeMap<&str, (Case, BTreeMap<String, Tensor>)> = BTreeMap::new();
    for (name, told) in expected {
        let model = told["case"].as_str().expect("a case");
        if !models.contains_key(model) {
            let parts = json(data(model, "keys.json"));
            let parts: Vec<&str> = parts.as_object().expect("components").keys().map(String::as_str).collect();
            let case = Case::new(model, &parts)?;
            let weights = folder(case.path())?;
            models.insert(model, (case, weights));
        }
        let (case, before) = &models[model];
        let mut file = data("others", name).join("adapter_model.safetensors");
        if !file.exists() {
            file = data("others", &format!("{name}.safetensors"));
        }
        let work = Work::new();
        work.good(&["merge", text(case.path()), "merged", "--lora", text(&file), "--dtype", "f32"]);
        let after = folder(&work.path("merged"))?;
        let rows = told["changes"].as_object().expect("tensors");
        assert!(rows.keys().all(|key| after.contains_key(key)), "{name}: {rows:?}");
        let mut worst = 0f64;
        for (key, was) in before {
            let change = (&after[key] - was)?;
            let got = measured(key, &change)?;
            let Some(want) = rows.get(key).and_then(Value::as_array) else {
                assert!(got[0] == 0.0, "{name}: {key} changes, and not in that program");
                continue;
            };
            for (got, want) in got.iter().zip(want) {
                let want = want.as_f64().expect("a number");
                worst = worst.max((got - want).abs() / rows[key][0].as_f64().expect("a norm"));
            }
        }
        println!("{name}: {} tensors, within {worst:.1e}", rows.len());
        assert!(worst < 1e-4, "{name}: off by {worst:.1e}");
    }
    assert!(expected.len() >= 18, "{} files", expected.len());
    Ok(())
}

/// A half-saved start is refused, and what is only read is not written.
#[test]
fn what_cannot_be_right_is_told() -> Result<()> {
    let work = Work::new();
    let theirs = data("others", "peft-lora-expressions");
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        std::fs::copy(theirs.join(file), work.path(file))?;
    }
    let config = work.path("adapter_config.json");
    let told = std::fs::read_to_string(&config)?;
    let parts = json(data("sd1-a", "keys.json"));
    let parts: Vec<&str> = parts.as_object().expect("components").keys().map(String::as_str).collect();
    let case = Case::new("sd1-a", &parts)?;
    let model = text(case.path());
    let merge = |out: &str| ["merge", model, out, "--lora", "adapter_model.safetensors"].map(str::to_owned);
    let run = |words: [String; 5]| work.bad(&words.each_ref().map(String::as_str));
    std::fs::write(&config, told.replace("\"init_lora_weights\": true", "\"init_lora_weights\": \"pissa_niter_4\""))?;
    let said = run(merge("a"));
    assert!(said.contains("pissa_niter_4") && said.contains("path_initial_model_for_weight_conversion"), "{said}");
    std::fs::write(&config, told.replace("attn2", "(attn2"))?;
    let said = run(merge("b"));
    assert!(said.contains("no expression that is understood"), "{said}");
    let rotations = data("others", "peft-oft").join("adapter_model.safetensors");
    for layout in ["peft", "kohya"] {
        let convert = ["convert", text(&rotations), "out.safetensors", "--model", model, "--to", layout];
        let said = work.bad(&convert);
        assert!(said.contains("read and merged, not written"), "{said}");
    }
    // Norms are merged; a run that draws with the file says so.
    let norms = data("others", "lycoris-sd1-norms.safetensors");
    let said = work.bad(&["sample", "--model", model, "--prompt", "a cat", "--lora", text(&norms)]);
    assert!(said.contains("sconce merge"), "{said}");
    Ok(())
}
