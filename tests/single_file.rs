//! Single files, in and out: nothing changes on the way, a file without our header is known by its keys, and what a file
//! says of itself is believed, unless it says two things.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/work.rs"]
mod work;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use case::{Case, json};
use sconce_core::model::Family;
use sconce_models::original::{Whole, published, single};
use sconce_models::text::{ClipTokenizer, clip_vocabulary};
use sconce_nn::weights::{WeightFiles, read_metadata, save};
use sconce_sdk::Choice;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use work::{Work, text};

/// Every tensor of a folder's components, in its stored type.
fn tensors(dir: &Path) -> BTreeMap<String, Tensor> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        let files: Vec<PathBuf> =
            std::fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|e| e.path()).collect();
        for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "safetensors")) {
            let weights = WeightFiles::open(&[file]).expect("weights");
            for key in weights.keys() {
                let name = format!("{}/{key}", entry.file_name().to_string_lossy());
                all.insert(name, weights.stored(key, &Device::Cpu).expect("a tensor"));
            }
        }
    }
    all
}

#[track_caller]
fn same(a: &BTreeMap<String, Tensor>, b: &BTreeMap<String, Tensor>) {
    assert!(
        a.keys().eq(b.keys()),
        "{:?}",
        a.keys().filter(|k| !b.contains_key(*k)).chain(b.keys().filter(|k| !a.contains_key(*k))).collect::<Vec<_>>()
    );
    for (key, value) in a {
        assert_eq!(value.dtype(), b[key].dtype(), "{key}");
        assert_eq!(value.dims(), b[key].dims(), "{key}");
        let bits = |t: &Tensor| sconce_nn::weights::bytes_of(t).expect("bytes");
        assert!(bits(value) == bits(&b[key]), "{key} has changed");
    }
}

fn components(name: &str) -> Vec<String> {
    json(case::data(name, "keys.json")).as_object().expect("components").keys().cloned().collect()
}

#[test]
fn a_model_comes_back_from_a_single_file_as_it_was() -> Result<()> {
    for name in
        ["sd1-a", "sd1-c", "sd2-a", "sd2-b", "sd2-c", "sdxl-a", "sdxl-b", "sd3-a", "sd3-b", "sd3-c", "flux-a", "flux-b"]
    {
        let place = Work::new();
        let all = components(name);
        let case = Case::new(name, &all.iter().map(String::as_str).collect::<Vec<_>>())?;
        place.good(&["convert", text(case.path()), "whole.safetensors"]);
        let mut back = vec!["convert".to_owned(), "whole.safetensors".into(), "back".into()];
        for tokenizer in ["tokenizer", "tokenizer_2", "tokenizer_3"].iter().filter(|t| case.path().join(t).is_dir()) {
            back.extend(["--file".into(), format!("{tokenizer}={}", text(&case.path().join(tokenizer)))]);
        }
        place.good(&back.iter().map(String::as_str).collect::<Vec<_>>());
        same(&tensors(case.path()), &tensors(&place.path("back")));
        for file in
            ["scheduler/scheduler_config.json", "unet/config.json", "transformer/config.json", "vae/config.json"]
        {
            let (was, is) = (case.path().join(file), place.path("back").join(file));
            assert_eq!(was.is_file(), is.is_file(), "{name}: {file}");
            if was.is_file() {
                assert_eq!(json(was), json(is), "{name}: {file}");
            }
        }
        // And a second time, which is the same file to the byte.
        place.good(&["convert", "back", "again.safetensors"]);
        let read = |file: &str| std::fs::read(place.path(file)).expect("a file");
        assert!(read("whole.safetensors") == read("again.safetensors"), "{name}");
        let half = ["convert", "back", "half.safetensors", "--dtype", "f16"];
        place.good(&half);
        assert!(read("half.safetensors").len() * 10 < read("whole.safetensors").len() * 6, "{name}");
    }
    Ok(())
}

/// A safetensors file of these shapes in f16, whose values are a hole in the file.
fn hollow(path: &Path, shapes: &BTreeMap<String, Vec<usize>>) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (key, shape) in shapes {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(key.clone(), json!({ "dtype": "F16", "shape": shape, "data_offsets": [start, end] }));
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = std::fs::File::create(path).expect("a file");
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
    file.write_all(&header).expect("written");
    file.set_len(8 + header.len() as u64 + end as u64).expect("a hole");
}

/// The keys of the original code for published full-size models, from `tests/fixtures/single.py`.
fn original_keys(model: &str) -> BTreeMap<String, Vec<usize>> {
    let path = case::data("single", &format!("{model}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let line = |line: &str| {
        let mut words = line.split(' ');
        let (key, shape) = (words.next().expect("a key"), words.next().expect("a shape"));
        let sides = shape.split(',').filter(|s| !s.is_empty()).map(|side| side.parse().expect("a side"));
        (key.to_owned(), sides.collect())
    };
    text.lines().map(line).collect()
}

/// The lists were held against diffusers' own converters by `tests/fixtures/single.py`.
#[test]
fn the_keys_of_published_models_are_those_that_diffusers_reads() -> Result<()> {
    for (name, model) in published() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |file: &str, json: &serde_json::Map<String, Value>| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, Value::Object(json.clone()).to_string()).expect("a file");
        };
        write("model_index.json", &model.index);
        write("scheduler/scheduler_config.json", &model.scheduler);
        for (component, config) in &model.components {
            write(&format!("{component}/config.json"), config);
            // The published config is the fixture's, but for what says who wrote it.
            let full = case::data("full", name).join(component).join("config.json");
            if full.is_file() {
                let full = json(full);
                assert!(config.iter().all(|(field, value)| full[field] == *value), "{name}: {component}");
            }
        }
        let family = Choice::<dyn Family>::named(&model.family).expect("a family");
        assert!(family.detect(dir.path())?, "{name}");
        let wholes = single(&model.family, &family.shapes(dir.path())?)?;
        let line = |(key, whole): (&String, &Whole)| {
            let sides: Vec<String> = whole.stored_shape().iter().map(usize::to_string).collect();
            let rows: Vec<String> =
                whole.rows.iter().map(|(component, name, _)| format!("{component}/{name}")).collect();
            format!("{key} {} {:?} {}\n", sides.join(","), whole.form, rows.join(","))
        };
        let (list, path) = (wholes.iter().map(line).collect::<String>(), case::data("single", &format!("{name}.txt")));
        if std::env::var_os("SCONCE_UPDATE_SNAPSHOTS").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(&path, &list).expect("a list");
        }
        assert!(std::fs::read_to_string(&path).expect("a list") == list, "{name}: the keys have changed");
    }
    Ok(())
}

#[test]
fn published_models_are_known_by_their_keys() {
    let expected = [
        ("sd15", "sd1", "epsilon"),
        ("sdxl", "sdxl", "epsilon"),
        ("sd3-medium", "sd3", "flow"),
        ("sd35-medium", "sd3", "flow"),
        ("sd35-large", "sd3", "flow"),
        ("flux-dev", "flux", "flow"),
        ("flux-schnell", "flux", "flow"),
    ];
    for (model, family, objective) in expected {
        let place = Work::new();
        hollow(&place.path("model.safetensors"), &original_keys(model));
        let said: Value = serde_json::from_str(&place.good(&["inspect", "model.safetensors", "--json"])).expect("JSON");
        assert_eq!(said["family"], family, "{model}");
        assert_eq!(said["native"]["objective"]["type"], objective, "{model}");
        for component in said["parameters"].as_object().expect("components").keys() {
            let full = case::data("full", model).join(component).join("config.json");
            assert!(!full.is_file() || json(full).is_object(), "{model}: {component}");
        }
    }
}

/// The quickstart's model goes in as a file, and what is trained comes out as one.
#[test]
fn a_run_reads_and_writes_single_files() -> Result<()> {
    let place = Work::new();
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart/model");
    place.good(&["convert", text(&quickstart), "one.safetensors"]);
    let tokenizer = |name: &str| format!("model.files.{name}='{}'", text(&quickstart.join(name)));
    let (one, two) = (tokenizer("tokenizer"), tokenizer("tokenizer_2"));
    let layouts = "output.model_layouts=[\"single-file\", \"diffusers\"]";
    let mut words = vec!["train", "quickstart", "--out", "run"];
    for field in
        ["model.path=one.safetensors", &one, &two, "train.images=16", "preview=false", "validation=false", layouts]
    {
        words.extend(["--set", field]);
    }
    place.good(&words);
    place.good(&["convert", "run/model", "again.safetensors"]);
    let [file, folder] = ["run/model.safetensors", "again.safetensors"].map(|f| WeightFiles::open(&[place.path(f)]));
    let (file, folder) = (file?, folder?);
    assert!(file.keys().eq(folder.keys()) && file.info("v_pred").is_some() && file.info("ztsnr").is_some());
    for key in file.keys() {
        let bits = |from: &WeightFiles| sconce_nn::weights::bytes_of(&from.stored(key, &Device::Cpu)?);
        assert!(bits(&file)? == bits(&folder)?, "{key}");
    }
    let said: Value =
        serde_json::from_str(&place.good(&["inspect", "run/model.safetensors", "--json", "--hash"])).expect("JSON");
    let bytes = std::fs::read(place.path("run/model.safetensors")).expect("a file");
    let hash: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!((&said["sha256"], &said["layout"]), (&json!(hash), &json!("single-file")));
    assert!(said["dtypes"]["f32"]["parameters"].as_u64().is_some_and(|n| n > 1_000_000), "{said}");
    let metadata = read_metadata(&place.path("run/model.safetensors"))?;
    assert!(metadata["sconce.recipe"].contains("one.safetensors") && metadata["modelspec.prediction_type"] == "v");
    Ok(())
}

/// A small model of SDXL as a single file with more in it.
fn marked(place: &Work, name: &str, markers: &[&str], header: &[(&str, &str)]) -> Result<()> {
    let all = components("sdxl-a");
    let case = Case::new("sdxl-a", &all.iter().map(String::as_str).collect::<Vec<_>>())?;
    let _ = std::fs::remove_file(place.path("made.safetensors"));
    place.good(&["convert", text(case.path()), "made.safetensors"]);
    let plain = WeightFiles::open(&[place.path("made.safetensors")])?;
    let mut tensors: BTreeMap<String, Tensor> =
        plain.keys().map(|k| Ok((k.to_owned(), plain.stored(k, &Device::Cpu)?))).collect::<Result<_>>()?;
    for marker in markers {
        tensors.insert((*marker).to_owned(), Tensor::zeros(0, DType::F32, &Device::Cpu)?);
    }
    let mut metadata = read_metadata(&place.path("made.safetensors"))?;
    metadata.extend(header.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    save(&place.path(name), &tensors, &metadata)
}

#[test]
fn what_a_file_says_of_itself_is_believed_unless_it_says_two_things() -> Result<()> {
    let place = Work::new();
    marked(&place, "plain.safetensors", &[], &[])?;
    let native = |file: &str| -> Value {
        let said: Value = serde_json::from_str(&place.good(&["inspect", file, "--json"])).expect("JSON");
        said["native"].clone()
    };
    marked(&place, "v.safetensors", &["v_pred", "ztsnr"], &[])?;
    assert_eq!(native("v.safetensors")["objective"]["type"], "v");
    assert_eq!(native("v.safetensors")["schedule"]["type"], "zero-terminal");
    marked(&place, "spec.safetensors", &[], &[("modelspec.prediction_type", "v")])?;
    assert_eq!(native("spec.safetensors")["objective"]["type"], "v");
    marked(&place, "two.safetensors", &["v_pred"], &[("modelspec.prediction_type", "epsilon")])?;
    let said = place.bad(&["inspect", "two.safetensors"]);
    assert!(
        said.contains("the tensor `v_pred` says v_prediction") && said.contains("modelspec.prediction_type"),
        "{said}"
    );
    marked(&place, "edm.safetensors", &["edm_vpred.sigma_max"], &[])?;
    assert!(place.bad(&["inspect", "edm.safetensors"]).contains("EDM"));
    // And it goes on into what is written.
    let tokenizers = Case::new("sdxl-a", &[])?;
    let file = |name: &str| format!("{name}={}", text(&tokenizers.path().join(name)));
    let (one, two) = (file("tokenizer"), file("tokenizer_2"));
    place.good(&["convert", "v.safetensors", "folder", "--file", &one, "--file", &two]);
    let scheduler = json(place.path("folder/scheduler/scheduler_config.json"));
    assert_eq!(
        (&scheduler["prediction_type"], &scheduler["rescale_betas_zero_snr"]),
        (&json!("v_prediction"), &json!(true))
    );
    place.good(&["convert", "folder", "again.safetensors"]);
    let again = WeightFiles::open(&[place.path("again.safetensors")])?;
    assert!(again.info("v_pred").is_some() && again.info("ztsnr").is_some());
    Ok(())
}

/// The vocabulary of every published CLIP, in which the paper's own example has these ids.
#[test]
fn a_single_file_comes_with_the_tokenizer_that_it_leaves_out() -> Result<()> {
    let dir = tempfile::tempdir().expect("a folder");
    for (bang, pad) in [(false, 49407), (true, 0)] {
        for (file, text) in clip_vocabulary(bang) {
            std::fs::write(dir.path().join(file), text).expect("a file");
        }
        let tokenizer = ClipTokenizer::load(dir.path())?;
        assert_eq!(tokenizer.chunks("A photo of a cat", 8)?, [[49406, 320, 1125, 539, 320, 2368, 49407, pad]]);
    }
    Ok(())
}

/// A file's header is somebody else's word.
#[test]
fn a_hostile_header_writes_nothing_outside_and_builds_nothing_huge() -> Result<()> {
    let place = Work::new();
    marked(&place, "plain.safetensors", &[], &[])?;
    let header = read_metadata(&place.path("plain.safetensors"))?;
    let changed = |change: &dyn Fn(&mut Value)| -> String {
        let mut configs: Value = serde_json::from_str(&header["sconce.configs"]).expect("JSON");
        change(&mut configs);
        configs.to_string()
    };
    let outside =
        changed(&|c| c["model_index"]["tokenizer/../../../../outside"] = json!(["transformers", "CLIPTokenizer"]));
    marked(&place, "outside.safetensors", &[], &[("sconce.configs", &outside)])?;
    place.good(&["inspect", "outside.safetensors"]);
    let names = |dir: PathBuf| {
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.file_name()).collect::<Vec<_>>()
    };
    for dir in [place.path(""), place.path("home"), place.path("home/sconce"), place.path("home/sconce/single")] {
        assert!(names(dir).iter().all(|name| name != "outside"));
    }
    let huge = changed(&|c| c["components"]["text_encoder"]["num_hidden_layers"] = json!(2_000_000_000u64));
    marked(&place, "huge.safetensors", &[], &[("sconce.configs", &huge)])?;
    let said = place.bad(&["inspect", "huge.safetensors"]);
    assert!(said.contains("num_hidden_layers") && said.contains("no network has more"), "{said}");
    let stray = changed(&|c| c["family"] = json!("../../sdxl"));
    marked(&place, "stray.safetensors", &[], &[("sconce.configs", &stray)])?;
    assert!(place.bad(&["inspect", "stray.safetensors"]).contains("no single-file layout"));
    marked(&place, "broken.safetensors", &[], &[("sconce.configs", "{")])?;
    assert!(place.bad(&["inspect", "broken.safetensors"]).contains("sconce.configs"));
    Ok(())
}

#[test]
fn what_is_not_whole_is_refused_by_name() -> Result<()> {
    let place = Work::new();
    marked(&place, "plain.safetensors", &["model.diffusion_model.input_blocks.0.0.more"], &[])?;
    let said = place.bad(&["inspect", "plain.safetensors"]);
    assert!(said.contains("input_blocks.0.0.more") && said.contains("no place in `unet`"), "{said}");

    let mut keys = original_keys("sd15");
    keys.remove("model.diffusion_model.time_embed.0.weight");
    hollow(&place.path("cut.safetensors"), &keys);
    let said = place.bad(&["inspect", "cut.safetensors"]);
    assert!(said.contains("`model.diffusion_model.time_embed.0.weight` is missing"), "{said}");

    let mut keys = original_keys("sd15");
    keys.insert("model.diffusion_model.input_blocks.0.0.weight".into(), vec![320, 9, 3, 3]);
    hollow(&place.path("inpainting.safetensors"), &keys);
    let said = place.bad(&["inspect", "inpainting.safetensors"]);
    assert!(said.contains("9 channels") && said.contains("inpainting"), "{said}");

    // A denoiser by itself, as FLUX.1 was published: the rest is named.
    let keys = original_keys("flux-dev");
    let part = |prefix: &str| -> BTreeMap<String, Vec<usize>> {
        keys.iter().filter_map(|(k, s)| Some((k.strip_prefix(prefix)?.to_owned(), s.clone()))).collect()
    };
    hollow(&place.path("bare.safetensors"), &part("model.diffusion_model."));
    let said = place.bad(&["inspect", "bare.safetensors"]);
    assert!(said.contains("holds no autoencoder") && said.contains("model.files.vae"), "{said}");
    for (name, prefix) in [("vae", "vae."), ("clip", "text_encoders.clip_l.transformer.")] {
        hollow(&place.path(&format!("{name}.safetensors")), &part(prefix));
    }
    let named = ["--file", "vae=vae.safetensors", "--file", "text_encoder=clip.safetensors"];
    let sample = ["sample", "--model", "bare.safetensors", "--prompt", "a cat"];
    let said = place.bad(&[&sample[..], &named].concat());
    assert!(said.contains("text_encoder_2") && said.contains("--without"), "{said}");
    let wrong = ["--file", "vae=clip.safetensors"];
    let said = place.bad(&[&sample[..], &wrong].concat());
    assert!(said.contains("the component `vae` is not whole"), "{said}");

    std::fs::write(place.path("model.gguf"), b"GGUF").expect("a file");
    let said = place.bad(&["sample", "--model", "model.gguf", "--prompt", "a cat"]);
    assert!(said.contains("is no model"), "{said}");
    let said = place.bad(&["convert", "cut.safetensors", "cut.safetensors"]);
    assert!(said.contains("is there already"), "{said}");
    Ok(())
}

/// ComfyUI's scaled FP8: matrices as 8-bit numbers, each with the number that they are multiplied by.
#[test]
fn scaled_weights_of_eight_bits_are_read() -> Result<()> {
    for (beside, marks) in [("scale_weight", true), ("weight_scale", false)] {
        let place = Work::new();
        let all = components("flux-a");
        let case = Case::new("flux-a", &all.iter().map(String::as_str).collect::<Vec<_>>())?;
        place.good(&["convert", text(case.path()), "whole.safetensors", "--dtype", "bf16"]);
        let whole = std::fs::read(place.path("whole.safetensors")).expect("a file");
        let (file, (_, header)) = (
            safetensors::SafeTensors::deserialize(&whole).expect("a file"),
            safetensors::SafeTensors::read_metadata(&whole).expect("a header"),
        );
        // 1.5 is 0x3c in E4M3, whose sum with its mirror is nothing; a matrix of it is scaled to 0.375.
        let packed = |key: &str| key.starts_with("model.diffusion_model.double_blocks") && key.ends_with(".weight");
        let matrices: Vec<(String, Vec<usize>)> = file
            .tensors()
            .into_iter()
            .filter(|(key, t)| packed(key) && t.shape().len() == 2)
            .map(|(key, t)| (key, t.shape().to_vec()))
            .collect();
        assert!(matrices.len() > 4);
        let bytes: Vec<Vec<u8>> = matrices.iter().map(|(_, dims)| vec![0x3c; dims.iter().product()]).collect();
        let (scale, none) = (0.25f32.to_le_bytes(), vec![0u8; 2]);
        use safetensors::tensor::{Dtype, TensorView};
        let mut tensors: Vec<(String, TensorView)> =
            file.tensors().into_iter().filter(|(key, _)| !matrices.iter().any(|(k, _)| k == key)).collect();
        for ((key, dims), bytes) in matrices.iter().zip(&bytes) {
            let view = |dtype, dims: Vec<usize>, bytes| TensorView::new(dtype, dims, bytes).expect("a view");
            tensors.push((key.clone(), view(Dtype::F8_E4M3, dims.clone(), bytes)));
            let layer = key.trim_end_matches("weight");
            tensors.push((format!("{layer}{beside}"), view(Dtype::F32, if marks { vec![1] } else { vec![] }, &scale)));
            if marks {
                tensors.push((format!("{layer}scale_input"), view(Dtype::F32, vec![1], &scale)));
            }
        }
        if marks {
            let mark = TensorView::new(Dtype::F8_E4M3, vec![2], &none).expect("a view");
            tensors.push(("model.diffusion_model.scaled_fp8".to_owned(), mark));
        }
        let to = place.path("scaled.safetensors");
        safetensors::serialize_to_file(tensors, header.metadata().clone(), &to).expect("written");
        let mut back = vec!["convert".to_owned(), "scaled.safetensors".into(), "back".into()];
        for tokenizer in ["tokenizer", "tokenizer_2"] {
            back.extend(["--file".into(), format!("{tokenizer}={}", text(&case.path().join(tokenizer)))]);
        }
        place.good(&back.iter().map(String::as_str).collect::<Vec<_>>());
        let weights =
            WeightFiles::open(&[place.path("back/transformer/diffusion_pytorch_model.safetensors")]).expect("weights");
        let (mut scaled, mut others) = (0, 0);
        for key in weights.keys() {
            let values = weights.tensor(key, DType::F32, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
            match values.iter().all(|value| *value == 0.375) {
                true => scaled += 1,
                false => others += 1,
            }
        }
        assert!(scaled >= matrices.len() && others > 4, "{scaled} scaled, {others} others");
    }
    Ok(())
}

/// In shards with an index, as diffusers has them, and back.
#[test]
fn a_folder_in_shards_is_the_same_model() -> Result<()> {
    let place = Work::new();
    let all = components("sdxl-a");
    let case = Case::new("sdxl-a", &all.iter().map(String::as_str).collect::<Vec<_>>())?;
    let was = tensors(case.path());
    place.good(&["convert", text(case.path()), "shards", "--shard-mb", "1"]);
    let unet = place.path("shards/unet");
    let index = json(unet.join("diffusion_pytorch_model.safetensors.index.json"));
    let map = index["weight_map"].as_object().expect("a map");
    let files: std::collections::BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    assert!(files.len() > 1, "{files:?}");
    let sizes = files.iter().map(|file| std::fs::metadata(unet.join(file)).expect("a shard").len());
    let largest = sizes.max().expect("a shard");
    let tensor = was.values().map(|t| 4 * t.elem_count() as u64).max().expect("a tensor");
    assert!(largest < 1_000_000.max(tensor) + 100_000, "{largest} bytes");
    let total: usize = was.iter().filter(|(k, _)| k.starts_with("unet/")).map(|(_, t)| 4 * t.elem_count()).sum();
    assert_eq!(index["metadata"]["total_size"], json!(total));
    same(&was, &tensors(&place.path("shards")));
    place.good(&["convert", "shards", "whole.safetensors"]);
    place.good(&["convert", text(case.path()), "direct.safetensors"]);
    let read = |file: &str| std::fs::read(place.path(file)).expect("a file");
    assert!(read("whole.safetensors") == read("direct.safetensors"));
    Ok(())
}
