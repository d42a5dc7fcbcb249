//! Every adapter against PEFT and LyCORIS: their files are read, and give the same outputs and gradients on the same layer;
//! what is merged computes what is not merged; and what is written again is read as the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_core::adapter::{Adapter, AdapterLayout, Attached, Saved, of_tensors, read};
use sconce_core::testkit::{self, merged_output, output};
use sconce_core::train::matches;
use sconce_nn::checkpoint::backward;
use sconce_nn::gradcheck::pseudo_random;
use sconce_nn::ops::Conv;
use sconce_nn::rng::Stream;
use sconce_nn::store::Source;
use sconce_nn::weights::{WeightFiles, save};
use sconce_nn::{Adapted, Conv2d, Linear, Store};
use sconce_sdk::{Choice, Kind, registry};
use serde_json::json;

use sconce as _;

/// One layer, called `proj`, of a component called `unet`.
struct Case {
    name: String,
    store: Arc<Store>,
    layer: Adapted,
    values: BTreeMap<String, Tensor>,
    saved: Saved,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data/adapters")
}

/// A layer of these dimensions, of some values or of a file's.
fn layer(source: Source, dims: &[usize], bias: bool, dtype: DType) -> Result<(Arc<Store>, Adapted)> {
    let store = Store::new("unet", source, dtype, &Device::Cpu);
    let scope = store.root().at("proj");
    match (dims, bias) {
        (&[output, input], true) => drop(Linear::new(&scope, input, output)?),
        (&[output, input], false) => drop(Linear::no_bias(&scope, input, output)?),
        (&[output, input, kernel, _], true) => {
            drop(Conv2d::new(&scope, input, output, kernel, Conv::padded(kernel / 2))?)
        }
        (&[output, input, kernel, _], false) => {
            drop(Conv2d::no_bias(&scope, input, output, kernel, Conv::padded(kernel / 2))?)
        }
        _ => unreachable!("a linear layer or a convolution"),
    }
    let layer = store.layers().remove(0);
    Ok((store, layer))
}

fn cases() -> Result<Vec<Case>> {
    let mut all = Vec::new();
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())?.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".values.safetensors") else { continue };
        let file = WeightFiles::open(&[&path])?;
        let keys: Vec<String> = file.keys().map(str::to_owned).collect();
        let values: BTreeMap<String, Tensor> = keys
            .into_iter()
            .map(|k| Ok((k.clone(), file.tensor(&k, DType::F32, &Device::Cpu)?)))
            .collect::<Result<_>>()?;
        let dir = tempfile::tempdir()?;
        let weights = dir.path().join("layer.safetensors");
        let own: BTreeMap<String, Tensor> =
            values.iter().filter_map(|(k, t)| Some((k.strip_prefix("layer.")?.to_owned(), t.clone()))).collect();
        save(&weights, &own, &BTreeMap::new())?;
        let dims = own["proj.weight"].dims().to_vec();
        let files = WeightFiles::open(&[&weights])?;
        let (store, layer) = layer(Source::Files(files), &dims, own.contains_key("proj.bias"), DType::F32)?;
        let mut found = read(&[store.clone()], &folder().join(format!("{name}.safetensors")))?;
        assert_eq!(found.len(), 1, "{name}");
        all.push(Case { name: name.to_owned(), store, layer, values, saved: found.remove(0) });
    }
    assert_eq!(all.len(), 49, "a case of every kind");
    Ok(all)
}

impl Case {
    fn restored(&self, strength: f64) -> Result<Attached> {
        let Saved { component, tensors, constants, .. } = &self.saved;
        of_tensors(&self.saved)?.restore(component, &self.layer, tensors, constants, strength)
    }
}

fn distance(a: &Tensor, b: &Tensor) -> Result<f64> {
    let largest = |t: &Tensor| t.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>();
    Ok(largest(&(a - b)?)? / largest(b)?.max(1e-3))
}

#[test]
fn files_of_other_programs_give_what_they_give_there() -> Result<()> {
    for case in cases()? {
        let (x, y) = (&case.values["x"], &case.values["y"]);
        let attached = case.restored(1.0)?;
        let found = distance(&output(&case.layer, &attached.layer, x)?, y)?;
        assert!(found < 1e-5, "{}: the output is {found:.1e} off", case.name);
        let found = distance(&merged_output(&case.layer, &attached.layer, x)?, y)?;
        assert!(found < 1e-5, "{}: the merged output is {found:.1e} off", case.name);

        let vars: BTreeMap<&String, Var> =
            attached.params.iter().map(|(short, p)| Ok((short, p.train()?))).collect::<Result<_>>()?;
        let input = Var::from_tensor(x)?;
        let y = output(&case.layer, &attached.layer, input.as_tensor())?;
        let grads = backward(&(y * &case.values["probe"])?.sum_all()?)?;
        let off = |got: &Tensor, want: &Tensor| distance(&got.flatten_all()?, &want.flatten_all()?);
        let want = &case.values["grad.x"];
        let found = off(grads.get(input.as_tensor()).expect("an input's gradient"), want)?;
        assert!(found < 1e-3, "{}: the input's gradient is {found:.1e} off", case.name);
        for (short, var) in vars {
            let got = grads.get(var.as_tensor()).unwrap_or_else(|| panic!("{}: no gradient of {short}", case.name));
            if let Some(want) = case.values.get(&format!("grad.{short}")) {
                let found = off(got, want)?;
                assert!(found < 1e-3, "{}: the gradient of {short} is {found:.1e} off", case.name);
            }
        }
        let stated = case.values.keys().filter(|k| k.starts_with("grad.") && *k != "grad.x").count();
        assert!(stated == 0 || stated == attached.params.len(), "{}: {stated} gradients", case.name);
    }
    Ok(())
}

#[test]
fn half_the_strength_is_half_the_change() -> Result<()> {
    for case in cases()? {
        let x = &case.values["x"];
        let plain = case.layer.forward(x)?;
        let (whole, half) = (case.restored(1.0)?.layer, case.restored(0.5)?.layer);
        let want = ((&plain + output(&case.layer, &whole, x)?)? * 0.5)?;
        for (how, y) in [("beside", output(&case.layer, &half, x)?), ("merged", merged_output(&case.layer, &half, x)?)]
        {
            let found = distance(&y, &want)?;
            assert!(found < 1e-5, "{} {how}: {found:.1e} off", case.name);
        }
    }
    Ok(())
}

#[test]
fn what_is_written_is_read_as_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut written = 0;
    for case in cases()? {
        for layout in ["kohya", "peft"] {
            let layout = Choice::<dyn AdapterLayout>::named(layout).unwrap();
            let by_input = case.saved.tensors.get("lora_magnitude_vector").is_some_and(|m| m.rank() > 1);
            let tucker = case.saved.tensors.keys().any(|k| k.contains("_t1") || k.contains("_t2"));
            let unlike = match layout.name() {
                "peft" => by_input || tucker || case.saved.constants.contains_key("weight_alone"),
                _ => case.name == "peft-ia3-linear" || case.name == "peft-ia3-conv",
            };
            if unlike {
                let error = layout.write(&[case.store.clone()], &[case.saved.clone()]).err().unwrap().to_string();
                assert!(error.contains("unet.proj"), "{}: {error}", case.name);
                continue;
            }
            if !case.saved.tensors.keys().all(|short| layout.carries(short) || short == "ia3_l") {
                continue;
            }
            let path = dir.path().join("written.safetensors");
            let stores = [case.store.clone()];
            save(&path, &layout.write(&stores, &[case.saved.clone()])?, &BTreeMap::new())?;
            let back = read(&stores, &path)?.remove(0);
            let acts = of_tensors(&back)?.restore("unet", &case.layer, &back.tensors, &back.constants, 1.0)?.layer;
            let found = distance(&output(&case.layer, &acts, &case.values["x"])?, &case.values["y"])?;
            assert!(found < 1e-5, "{} in {}: {found:.1e} off", case.name, layout.name());
            written += 1;
        }
    }
    assert!(written >= 70, "{written} files");
    Ok(())
}

/// PEFT's own folder: what the file leaves out is beside it.
#[test]
fn the_configuration_beside_a_file_counts() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let case = cases()?.into_iter().find(|case| case.name == "peft-lora-linear").unwrap();
    let file = dir.path().join("adapter_model.safetensors");
    let own = WeightFiles::open(&[folder().join("peft-lora-linear.safetensors")])?;
    let keys: Vec<String> = own.keys().map(str::to_owned).collect();
    let tensors =
        keys.iter().map(|k| Ok((k.clone(), own.tensor(k, DType::F32, &Device::Cpu)?))).collect::<Result<_>>()?;
    save(&file, &tensors, &BTreeMap::new())?;
    let alpha = |config: &str| -> Result<Option<f64>> {
        std::fs::write(dir.path().join("adapter_config.json"), config)?;
        Ok(read(&[case.store.clone()], &file)?.remove(0).constants.get("alpha").copied())
    };
    assert_eq!(alpha(r#"{ "r": 3, "lora_alpha": 6 }"#)?, Some(6.0));
    assert_eq!(alpha(r#"{ "r": 4, "lora_alpha": 6, "use_rslora": true }"#)?, Some(12.0));
    assert_eq!(alpha(r#"{ "r": 3, "lora_alpha": 6, "alpha_pattern": { "proj": 1, "oj": 2 } }"#)?, Some(1.0));
    assert!(alpha("[]").unwrap_err().to_string().contains("no JSON object"));
    // Patterns are expressions of the path's end.
    assert_eq!(alpha(r#"{ "r": 3, "lora_alpha": 6, "alpha_pattern": { "oj": 2, "p.oj$|x": 5 } }"#)?, Some(5.0));
    let error = alpha(r#"{ "r": 3, "lora_alpha": 6, "alpha_pattern": { "(proj": 1 } }"#).unwrap_err().to_string();
    assert!(error.contains("`(proj` is no expression"), "{error}");
    Ok(())
}

/// The tables of every registered adapter, and of what they compose to.
fn every() -> Vec<(String, Choice<dyn Adapter>)> {
    let plain = registry::of_kind(<dyn Adapter as Kind>::NAME).unwrap();
    let mut tables: Vec<_> = plain.iter().map(|p| json!({ "type": p.name })).collect();
    tables.extend([
        json!({ "type": "lora", "rank": 4, "scaling": "root-rank", "alpha": 2.0 }),
        json!({ "type": "lora", "rank": 3, "init": "pissa" }),
        json!({ "type": "lora", "rank": 2, "layers": [{ "targets": ["*proj"], "rank": 5, "alpha": 1.0 }] }),
        json!({ "type": "dora", "of": { "type": "loha", "rank": 2 } }),
        json!({ "type": "dora", "of": { "type": "lokr", "rank": 1, "factor": 2 } }),
        json!({ "type": "lokr", "rank": 1 }),
        json!({ "type": "oft", "block": 8, "rescale": true, "constraint": 1e-3 }),
        json!({ "type": "boft", "block": 4, "rescale": true }),
        json!({ "type": "ia3", "inputs": ["*proj"] }),
    ]);
    tables.iter().map(|t| (t.to_string(), Choice::from_table(t).unwrap())).collect()
}

fn built(adapter: &Choice<dyn Adapter>, store: &Arc<Store>, layer: &Adapted) -> Result<Attached> {
    adapter.build(store, layer, &Stream::new(3, "test"))
}

/// The laws of the kind, on every adapter that is registered. DoRA counts its norm as constant.
#[test]
fn adapters_obey_their_laws() {
    for (name, adapter) in every() {
        let through_norm = |short: &str| name.contains("dora") && short != "lora_magnitude_vector";
        testkit::adapter_with_constants(&*adapter, through_norm).unwrap_or_else(|broken| panic!("{name}: {broken}"));
    }
}

/// A LoRA at another rank: a higher one is the same at first, a lower one as near as it can be.
#[test]
fn a_lora_goes_on_at_another_rank() -> Result<()> {
    let lora =
        |rank| Choice::<dyn Adapter>::from_table(&json!({ "type": "lora", "rank": rank, "alpha": 2.0 })).unwrap();
    for dims in [&[16, 12][..], &[16, 8, 3, 3]] {
        let (store, layer) = layer(Source::Random(1), dims, true, DType::F32)?;
        let attached = built(&lora(3), &store, &layer)?;
        let up = &attached.params["lora_B.weight"];
        up.set(&pseudo_random(up.shape().dims(), 3)?.to_dtype(DType::F32)?)?;
        let tensors = attached.params.iter().map(|(k, p)| Ok((k.clone(), p.tensor()?))).collect::<Result<_>>()?;
        let saved = attached.saved(tensors, attached.constants.clone())?;
        let weight = layer.weight().tensor()?;
        let added = |acts: &Attached| acts.layer.merged(&weight, None)?.0 - &weight;
        let whole = added(&attached)?;
        let [same, higher, lower] =
            [3, 6, 1].map(|rank| lora(rank).start(&store, &layer, &Stream::new(9, "new"), &saved));
        let (same, higher, lower) = (same?, higher?, lower?);
        assert!(distance(&added(&same)?, &whole)? < 1e-5 && distance(&added(&higher)?, &whole)? < 1e-5);
        assert_eq!(higher.params["lora_A.weight"].shape().dims()[0], 6);
        let last = higher.params["lora_A.weight"].tensor()?.get(5)?.abs()?.max_all()?.to_scalar::<f32>()?;
        assert!(last > 0.0, "new rows are not dead");
        let rest = distance(&added(&lower)?, &whole)?;
        assert!(rest > 1e-3 && rest < 1.0, "{rest}");
    }
    Ok(())
}

/// What few bits lose of a weight is given back in part before anything trains, and is no part of the run's file.
#[test]
fn loftq_begins_nearer_to_the_published_weights() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("layer.safetensors");
    let weight = pseudo_random(&[64, 64], 8)?.to_dtype(DType::F32)?;
    let tensors = BTreeMap::from([("proj.weight".to_owned(), weight.clone())]);
    save(&path, &tensors, &BTreeMap::new())?;
    let of = |dtype| layer(Source::Files(WeightFiles::open(&[&path])?), &[64, 64], false, dtype);
    let lora = json!({ "type": "lora", "rank": 16, "init": "loftq", "targets": ["*"] });
    let adapter = Choice::<dyn Adapter>::from_table(&lora).unwrap();
    // bf16 loses eight bits of the file's.
    let (store, layer) = of(DType::BF16)?;
    let attached = built(&adapter, &store, &layer)?;
    let kept = layer.weight().tensor()?.to_dtype(DType::F32)?;
    let norm = |t: Tensor| t.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
    let (without, with) = (norm((&kept - &weight)?)?, norm((attached.layer.merged(&kept, None)?.0 - &weight)?)?);
    assert!(with < 0.9 * without, "{with} against {without}");
    let tensors = attached.params.iter().map(|(k, p)| Ok((k.clone(), p.tensor()?))).collect::<Result<_>>()?;
    let saved = attached.saved(tensors, attached.constants.clone())?;
    let file = adapter.restore("unet", &layer, &saved.tensors, &saved.constants, 1.0)?;
    assert_eq!(saved.tensors["lora_A.weight"].dim(0)?, 32);
    assert!(norm((file.layer.merged(&kept, None)?.0 - &kept)?)? < 1e-4 * without);

    let (store, layer) = of(DType::F32)?;
    let error = built(&adapter, &store, &layer).err().unwrap().to_string();
    assert!(error.contains("nothing is lost"), "{error}");
    Ok(())
}

#[test]
fn default_targets_are_layers_of_unets() {
    let unet = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_k";
    for (name, adapter) in every() {
        assert!(adapter.targets().iter().any(|t| matches(t, unet)), "{name}");
    }
}
