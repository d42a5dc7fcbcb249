//! Learned words: diffusers' files, conditions and gradients; and through the program, a run that learns a word alone, one that
//! learns it with an adapter, and pictures drawn with their files.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use case::{Case, data, options, relative};
use run::Bench;
use sconce_core::Cond;
use sconce_core::model::{Conditioner, LoadOptions, PromptUse};
use sconce_core::words::{self, Vocabulary, Word};
use sconce_models::dit::Guided;
use sconce_models::text::{FluxConditioner, Sd3Conditioner, SdConditioner};
use sconce_nn::Param;
use sconce_nn::checkpoint::backward;
use sconce_nn::weights::{WeightFiles, save};

const CASES: [&str; 5] = ["sd1-a", "sd2-a", "sdxl-a", "sd3-a", "flux-a"];
const PROMPT: &str = "a photo of <fox> in the snow, by <fox>";
/// Tokens of T5 in the fixtures.
const TOKENS: usize = 40;

fn conditioner(name: &str) -> Result<(Case, Arc<dyn Conditioner>)> {
    let encoders = ["text_encoder", "text_encoder_2", "text_encoder_3"];
    let count = match name.split('-').next() {
        Some("sd1" | "sd2") => 1,
        Some("sd3") => 3,
        _ => 2,
    };
    let case = Case::new(name, &encoders[..count])?;
    let options = LoadOptions { max_tokens: Some(TOKENS), ..options(DType::F32) };
    let conditioner = match name.split('-').next() {
        Some("sd3") => Sd3Conditioner::load(case.path(), &options)?,
        Some("flux") => FluxConditioner::load(case.path(), TOKENS, Guided::No, &options)?,
        _ => SdConditioner::load(case.path(), &options)?,
    };
    Ok((case, conditioner))
}

fn values(name: &str) -> Result<WeightFiles> {
    WeightFiles::open(&[data("words", &format!("{name}.values.safetensors"))])
}

/// Teaches every encoder its rows, which train. Gives them by component.
fn teach(vocabularies: &[&dyn Vocabulary], word: &Word) -> Result<BTreeMap<String, Param>> {
    let mut params = BTreeMap::new();
    for vocabulary in vocabularies {
        let rows = word.rows[vocabulary.component()].to_device(&case::device())?;
        let param = Param::new("word", rows);
        vocabulary.add(&word.text, param.clone())?;
        param.train()?;
        params.insert(vocabulary.component().to_owned(), param);
    }
    Ok(params)
}

#[test]
fn a_word_means_what_it_means_to_diffusers() -> Result<()> {
    for name in CASES {
        let (_case, conditioner) = conditioner(name)?;
        let vocabularies = conditioner.vocabularies();
        let file = data("words", &format!("{name}.safetensors"));
        let mut read = words::read(&vocabularies, &file)?;
        assert_eq!(read.len(), 1, "{name}");
        // A file for several encoders is named by itself alone.
        read[0].text = "<fox>".to_owned();
        let params = teach(&vocabularies, &read[0])?;
        let cond = conditioner.encode(&[(PROMPT, PromptUse::Caption)])?;
        let expected = values(name)?;
        let mut loss = Tensor::new(0f32, &case::device())?;
        for part in ["context", "pooled"].into_iter().filter(|part| expected.info(part).is_some()) {
            let got = cond.get(part)?;
            let error = relative(got, &expected.tensor(part, DType::F32, &case::device())?)?;
            assert!(error < 1e-4, "{name}: {part} differs by {error:.1e}");
            let probe = formula::probe("probe0", part, got.dims());
            let probe = Tensor::from_vec(probe, got.dims(), &case::device())?;
            loss = (loss + (got * probe)?.sum_all()?)?;
        }
        let gradients = backward(&loss)?;
        for (component, param) in params {
            let got = gradients.get(&param.var().expect("it trains")).expect("a gradient");
            let error = relative(got, &expected.tensor(&format!("grad.{component}"), DType::F32, got.device())?)?;
            println!("{name} {component}: gradient within {error:.1e}");
            assert!(error < 1e-3, "{name}: the gradient of {component} differs by {error:.1e}");
        }
    }
    Ok(())
}

#[test]
fn every_layout_of_a_words_file_is_the_same_word() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let rows = |seed: usize, width: usize| {
        let values: Vec<f32> = (0..2 * width).map(|i| ((i * 7 + seed) % 11) as f32).collect();
        Tensor::from_vec(values, (2, width), &Device::Cpu)
    };
    let header = |word: &str| BTreeMap::from([(words::SAID.to_owned(), word.to_owned())]);
    for (name, keys) in [
        ("sd1-a", vec![vec!["<Fox>"], vec!["emb_params"], vec!["*"], vec!["string_to_param.*"], vec!["clip_l"]]),
        (
            "sdxl-a",
            vec![
                vec!["clip_l", "clip_g"],
                vec!["text_encoders_0", "text_encoders_1"],
                vec!["text_encoder", "text_encoder_2"],
                vec!["bundle_emb.Fox.clip_l", "bundle_emb.Fox.clip_g"],
            ],
        ),
    ] {
        let (_case, conditioner) = conditioner(name)?;
        let vocabularies = conditioner.vocabularies();
        for keys in keys {
            let path = folder.path().join("Fox.safetensors");
            let tensors = keys.iter().zip(&vocabularies).enumerate();
            let tensors = tensors.map(|(i, (key, v))| Ok(((*key).to_owned(), rows(i, v.width())?)));
            save(&path, &tensors.collect::<Result<_>>()?, &BTreeMap::new())?;
            let read = words::read(&vocabularies, &path)?;
            assert_eq!(read.len(), 1, "{keys:?}");
            let named = if keys[0] == "<Fox>" { "<Fox>" } else { "Fox" };
            assert_eq!(read[0].text, named, "{keys:?}");
            for (i, v) in vocabularies.iter().enumerate() {
                assert_eq!(read[0].rows[v.component()].to_vec2::<f32>()?, rows(i, v.width())?.to_vec2::<f32>()?);
            }
            // And as it is written here.
            save(&path, &words::tensors(&vocabularies, &read[0]), &header("<other>"))?;
            let again = words::read(&vocabularies, &path)?;
            let own = if vocabularies.len() == 1 { named } else { "<other>" };
            assert_eq!(again[0].text, own);
        }
        let path = folder.path().join("wide.safetensors");
        save(&path, &BTreeMap::from([("emb_params".to_owned(), rows(0, 33)?)]), &BTreeMap::new())?;
        let said = words::read(&vocabularies, &path).expect_err("33 wide").to_string();
        assert!(said.contains("wide.safetensors") && said.contains("made for another model"), "{said}");
    }
    Ok(())
}

/// What a command said that ended well.
fn good(bench: &Bench, arguments: &[&str]) -> String {
    let output = bench.sconce(arguments).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

fn apart(bench: &Bench, a: &str, b: &str) -> f64 {
    let [a, b] = [a, b].map(|name| image::open(bench.path(name)).expect("a picture").to_rgb8());
    let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.as_raw().len() as f64
}

const RECIPE: &str = "[model]\npath = \"embedded:quickstart\"\n[optimizer]\ntype = \"adamw\"\nlr = 5e-2\n[data]\nbatch = 2\n\
                      [[data.source]]\npath = \"pictures\"\ncaption = \"<mine>, a picture of {caption}\"\n[train]\nimages = 8\n\
                      seed = 5\nsave_every_images = 4\n[[train.token]]\ntext = \"<mine>\"\nvectors = 3\nstart = \"white drawing\"\n";

#[test]
fn a_run_learns_a_word_alone() -> Result<()> {
    let bench = Bench::of(RECIPE);
    bench.train("run", &[]);
    assert_eq!(bench.weights("run").keys().collect::<Vec<_>>(), ["embeddings/mine.safetensors"]);
    let file = WeightFiles::open(&[bench.path("run/embeddings/mine.safetensors")])?;
    let rows = file.tensor("clip_l", DType::F32, &Device::Cpu)?;
    assert_eq!(rows.dim(0)?, 3);
    // Both started from the same text's rows, its first again: they have moved apart.
    let moved = (rows.get(0)? - rows.get(2)?)?.abs()?.sum_all()?.to_scalar::<f32>()?;
    assert!(moved > 0.0, "the rows are as they were");
    let inspected = good(&bench, &["inspect", "run/embeddings/mine.safetensors"]);
    assert!(inspected.contains("textual-inversion") && inspected.contains("<mine>"), "{inspected}");

    // It resumes to the bit.
    bench.train("half", &["--set", "train.images=4"]);
    bench.train("half", &["--resume", "--changed"]);
    assert_eq!(bench.weights("run"), bench.weights("half"));

    // Its file draws what the word draws, under any name; without it the prompt is plain text.
    let draw = |prompt: &str, more: &[&str], out: &str| {
        let draw = ["sample", "--model", "embedded:quickstart", "--prompt", prompt, "--steps", "3", "--out", out];
        good(&bench, &[&draw[..], more].concat())
    };
    let file = "run/embeddings/mine.safetensors";
    let said = draw("<mine>, a picture of a cat", &["--embedding", file], "own.png");
    assert!(said.contains("word       <mine>"), "{said}");
    draw("fox99, a picture of a cat", &["--embedding", &format!("{file}=fox99")], "named.png");
    draw("<mine>, a picture of a cat", &[], "plain.png");
    assert_eq!(apart(&bench, "own.png", "named.png"), 0.0);
    assert!(apart(&bench, "own.png", "plain.png") > 0.5);
    Ok(())
}

#[test]
fn a_word_and_an_adapter_learn_together_and_a_known_word_stays() -> Result<()> {
    let adapter = "[adapter]\ntype = \"lora\"\nrank = 2\n[output]\nadapter_layouts = [\"kohya\"]\ndtype = \"f32\"\n";
    let bench = Bench::of(&format!("{RECIPE}{adapter}"));
    bench.train("run", &["--set", "output.dtype=f32"]);
    let names: Vec<String> = bench.weights("run").into_keys().collect();
    assert_eq!(names, ["embeddings/mine.safetensors", "lora-kohya.safetensors"]);

    // A second run with the word as it is: it trains the adapter and writes no word.
    let known = RECIPE.replace(
        "vectors = 3\nstart = \"white drawing\"",
        "from = \"run/embeddings/mine.safetensors\"\nlr_factor = 0.0",
    );
    std::fs::write(bench.path("recipe.toml"), format!("{known}{adapter}"))?;
    bench.train("on", &[]);
    assert_eq!(bench.weights("on").into_keys().collect::<Vec<_>>(), ["lora-kohya.safetensors"]);

    // A third starts the word from the file.
    let from = RECIPE.replace("vectors = 3\nstart = \"white drawing\"", "from = \"run/embeddings/mine.safetensors\"");
    std::fs::write(bench.path("recipe.toml"), from)?;
    bench.train("again", &["--set", "optimizer.lr=0", "--set", "output.dtype=f32"]);
    let rows = |run: &str| {
        let file = WeightFiles::open(&[bench.path(&format!("{run}/embeddings/mine.safetensors"))])?;
        file.tensor("clip_l", DType::F32, &Device::Cpu)?.to_vec2::<f32>()
    };
    assert_eq!(rows("run")?, rows("again")?);
    Ok(())
}

#[test]
fn a_word_that_cannot_be_learned_is_refused() {
    let refused = |recipe: String, code: i32, needle: &str| {
        let bench = Bench::of(&recipe);
        let output = bench.command("run", &[]).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(needle), "{said}");
    };
    refused(RECIPE.replace("<mine>, a picture of ", ""), 4, "no caption says `<mine>`");
    refused(RECIPE.replace("start = \"white drawing\"", "start = \"\""), 4, "has no tokens");
    refused(RECIPE.replace("start = \"white drawing\"", ""), 3, "or `from`");
    refused(format!("{RECIPE}encoders = [\"text_encoder_9\"]\n"), 4, "text_encoder_9");
    refused(format!("{RECIPE}[[train.token]]\ntext = \"mine\"\nstart = \"a\"\n"), 3, "same file");
}

/// The word of a conditioner that does not know it is plain text.
#[test]
fn a_word_is_plain_text_until_it_is_taught() -> Result<()> {
    let (_case, conditioner) = conditioner("sd1-a")?;
    let ask = || -> Result<Cond> { conditioner.encode(&[("a <fox>", PromptUse::Caption)]) };
    let (before, ids) = (ask()?, conditioner.token_ids("a <fox>")?);
    let definition = conditioner.definition();
    let read = words::read(&conditioner.vocabularies(), &data("words", "sd1-a.safetensors"))?;
    teach(&conditioner.vocabularies(), &read[0])?;
    assert!(relative(ask()?.get("context")?, before.get("context")?)? > 1e-3);
    assert_ne!(conditioner.token_ids("a <FOX>")?, ids);
    assert_ne!(conditioner.definition(), definition, "caches are keyed by it");
    Ok(())
}
