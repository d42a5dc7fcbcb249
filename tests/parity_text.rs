//! Tokenizers and text encoders against transformers: ids, hidden and pooled states, every parameter's gradient.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;

use std::sync::Arc;

use candle_core::{DType, Result, Tensor};
use case::{CASES, Case, data, json, options, relative, strings};
use sconce_core::model::{Backbone, Conditioner, Geometry, LoadOptions, PromptUse};
use sconce_models::sd::unet::UNet;
use sconce_models::text::clip::{Head, Hidden};
use sconce_models::text::{ClipText, ClipTokenizer, SdConditioner};
use sconce_nn::checkpoint::on_big_stack;

const ENCODERS: [&str; 2] = ["text_encoder", "text_encoder_2"];

fn with_encoders(name: &str) -> Result<(Case, Arc<dyn Conditioner>)> {
    with_parts(name, &[])
}

/// With the weights of the encoders and of `more`.
fn with_parts(name: &str, more: &[&str]) -> Result<(Case, Arc<dyn Conditioner>)> {
    let encoders = if name.starts_with("sdxl") { &ENCODERS[..] } else { &ENCODERS[..1] };
    let case = Case::new(name, &[encoders, more].concat())?;
    let conditioner = SdConditioner::load(case.path(), &options(DType::F32))?;
    Ok((case, conditioner))
}

fn captions<'a>(texts: &[&'a str]) -> Vec<(&'a str, PromptUse)> {
    texts.iter().map(|text| (*text, PromptUse::Caption)).collect()
}

#[test]
fn ids_are_those_of_transformers() -> Result<()> {
    for files in [&["vocab.json", "merges.txt"][..], &["tokenizer.json"]] {
        let folder = tempfile::tempdir()?;
        for file in files {
            std::fs::copy(data("tokenizer", file), folder.path().join(file))?;
        }
        let tokenizer = ClipTokenizer::load(folder.path())?;
        for (text, ids) in json(data("tokenizer", "ids.json")).as_object().unwrap() {
            let list = |key: &str| -> Vec<u32> { serde_json::from_value(ids[key].clone()).unwrap() };
            assert_eq!(tokenizer.ids(text)?, list("bare"), "{text:?} from {files:?}");
            assert_eq!(tokenizer.chunks(text, 77)?[0], list("ids"), "{text:?} from {files:?}");
        }
    }
    Ok(())
}

#[test]
fn special_tokens_of_a_folder_are_heeded() -> Result<()> {
    for name in CASES {
        let (case, conditioner) = with_encoders(name)?;
        for (i, text) in strings(&case.text["prompts"]).into_iter().enumerate() {
            for (ids, part) in conditioner.token_ids(text)?.iter().zip(["tokenizer", "tokenizer_2"]) {
                let expected: Vec<f32> =
                    case.expected(&format!("prompts.{part}.ids"))?.get(i)?.to_dtype(DType::F32)?.to_vec1()?;
                let first: Vec<f32> = ids[0].iter().map(|&id| id as f32).collect();
                assert_eq!(first, expected, "{name} {part}: {text:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn a_long_prompt_goes_on_in_further_chunks() -> Result<()> {
    let (_, conditioner) = with_encoders("sdxl-a")?;
    let text = "cat ".repeat(160);
    let (ids, one) = (conditioner.token_ids(&text)?, conditioner.token_ids("cat")?);
    for ((rows, one), pad) in ids.iter().zip(&one).zip([2013, 0]) {
        assert!(rows.len() > 2 && rows.iter().all(|row| row.len() == 77 && row[0] == 2012 && row.contains(&2013)));
        assert_eq!(rows.last().unwrap().last(), Some(&pad));
        let words = |rows: &[Vec<u32>]| -> Vec<u32> {
            rows.concat().into_iter().filter(|id| ![2012, 2013, pad].contains(id)).collect()
        };
        assert_eq!(words(rows), words(one).repeat(160), "no token is lost");
    }
    // All prompts of a batch get as many chunks, and the first is the same as alone.
    let alone = conditioner.encode(&captions(&["a photo of a cat"]))?;
    let both = conditioner.encode(&captions(&["a photo of a cat", &text]))?;
    let chunks = ids[0].len();
    assert_eq!(both.get("context")?.dims(), [2, 77 * chunks, alone.get("context")?.dim(2)?]);
    let first = both.get("context")?.narrow(0, 0, 1)?.narrow(1, 0, 77)?;
    assert!(relative(&first, alone.get("context")?)? < 1e-6);
    assert!(relative(&both.get("pooled")?.narrow(0, 0, 1)?, alone.get("pooled")?)? < 1e-6);
    Ok(())
}

#[test]
fn prompts_are_encoded_as_by_diffusers() -> Result<()> {
    for name in CASES {
        let (case, conditioner) = with_encoders(name)?;
        let negative = case.text["negative"].as_str().unwrap().to_owned();
        let prompts = captions(&strings(&case.text["prompts"]));
        let calls = [
            ("prompts", prompts),
            ("uncond", vec![("", PromptUse::Unconditional)]),
            ("negative", captions(&[&negative])),
        ];
        for (label, prompts) in calls {
            let cond = conditioner.encode(&prompts)?;
            // transformers cuts a long prompt, which goes on in further chunks here.
            case.check_or_zero(&format!("{label}.context"), &cond.get("context")?.narrow(1, 0, 77)?)?;
            assert_eq!(cond.get("pooled").is_ok(), case.is_xl(), "{name}");
            if case.is_xl() {
                case.check_or_zero(&format!("{label}.pooled"), cond.get("pooled")?)?;
            }
        }
    }
    Ok(())
}

impl Case {
    fn check_or_zero(&self, key: &str, got: &Tensor) -> Result<()> {
        if self.expected(key)?.abs()?.sum_all()?.to_scalar::<f32>()? > 0.0 {
            return self.check(key, got, 1e-4);
        }
        assert_eq!(got.dims(), self.expected(key)?.dims());
        assert_eq!(got.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0, "{} {key} should be zeros", self.name);
        Ok(())
    }
}

#[test]
fn an_absent_prompt_is_zeros_beside_one_that_is_not() -> Result<()> {
    let (_, conditioner) = with_encoders("sdxl-a")?;
    let alone = conditioner.encode(&captions(&["a cat"]))?;
    let both = conditioner.encode(&[("", PromptUse::Unconditional), ("a cat", PromptUse::Caption)])?;
    for key in ["context", "pooled"] {
        let both = both.get(key)?;
        assert_eq!(both.get(0)?.abs()?.sum_all()?.to_scalar::<f32>()?, 0.0);
        assert!(relative(&both.narrow(0, 1, 1)?, alone.get(key)?)? < 1e-6);
    }
    // An empty caption is a caption.
    let caption = conditioner.encode(&captions(&[""]))?;
    assert!(caption.get("context")?.abs()?.sum_all()?.to_scalar::<f32>()? > 0.0);
    Ok(())
}

#[test]
fn pooling_is_at_the_end_token_whatever_stands_beyond_it() -> Result<()> {
    let case = Case::new("sdxl-c", &["text_encoder_2"])?;
    let ids: Vec<Vec<f32>> = case.expected("added.ids")?.to_dtype(DType::F32)?.to_vec2()?;
    let rows: Vec<Vec<u32>> = ids.iter().map(|row| row.iter().map(|&id| id as u32).collect()).collect();
    let dir = case.path().join("text_encoder_2");
    let encoder = ClipText::load(&dir, Head::Projection, 2013, &options(DType::F32))?;
    let encoded = encoder.forward(&rows, Hidden::Penultimate)?;
    case.check("added.context", &encoded.hidden, 1e-4)?;
    case.check("added.pooled", &encoded.pooled.unwrap(), 1e-4)?;

    // The same where the config states no end token (2): then the tokenizer's counts.
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path)?;
    assert!(text.contains("\"eos_token_id\": 2013"));
    std::fs::write(&path, text.replace("\"eos_token_id\": 2013", "\"eos_token_id\": 2"))?;
    let encoder = ClipText::load(&dir, Head::Projection, 2013, &options(DType::F32))?;
    case.check("added.pooled", &encoder.forward(&rows, Hidden::Last)?.pooled.unwrap(), 1e-4)
}

#[test]
fn geometry_is_six_numbers_in_sdxl_alone() -> Result<()> {
    let picture = Geometry { original: [1024, 1536], crop: [12, 345], target: [768, 640] };
    let (_, xl) = with_encoders("sdxl-b")?;
    let ids: Vec<Vec<f32>> = xl.geometry(&[picture, Geometry::plain(64, 96)])?.get("time_ids")?.to_vec2()?;
    assert_eq!(ids, [[1024.0, 1536.0, 12.0, 345.0, 768.0, 640.0], [64.0, 96.0, 0.0, 0.0, 64.0, 96.0]]);
    let (_, sd1) = with_encoders("sd1-a")?;
    assert!(sd1.geometry(&[picture])?.0.is_empty());
    Ok(())
}

#[test]
fn gradients_through_the_encoders_are_those_of_pytorch() -> Result<()> {
    on_big_stack(|| CASES.into_iter().try_for_each(check_gradients))
}

/// The denoiser's loss as a function of the encoders, for each of which every parameter's gradient is checked.
fn check_gradients(name: &str) -> Result<()> {
    let (case, conditioner) = with_parts(name, &["unet"])?;
    let unet = UNet::load(&case.path().join("unet"), 1000, &options(DType::F32))?;
    let prompts = strings(&case.text["prompts"]);
    for store in conditioner.stores() {
        for param in store.params() {
            param.train()?;
        }
        let mut cond = conditioner.encode(&captions(&[prompts[0], prompts[2]]))?;
        if case.is_xl() {
            cond = cond.with("time_ids", case.expected("unet.time_ids")?);
        }
        let out = unet.forward(&case.expected("unet.x")?, &case.expected("unet.t")?, &cond)?;
        let loss = (out - case.expected("grad.target")?)?.sqr()?.mean_all()?;
        case.check_gradients(store.component(), &store.params(), &loss)?;
    }
    Ok(())
}

#[test]
fn every_projection_is_a_place_for_adapters() -> Result<()> {
    let (_, conditioner) = with_encoders("sd2-a")?;
    let [store] = &conditioner.stores()[..] else { panic!("one encoder") };
    assert_eq!(store.layers().len(), 3 * 6);
    Ok(())
}

#[test]
fn half_precision_stays_near() -> Result<()> {
    for (dtype, tolerance) in [(DType::BF16, 0.03), (DType::F16, 0.005)] {
        let case = Case::new("sdxl-a", &ENCODERS)?;
        let conditioner = SdConditioner::load(case.path(), &options(dtype))?;
        let cond = conditioner.encode(&captions(&strings(&case.text["prompts"])))?;
        assert_eq!(cond.get("context")?.dtype(), dtype);
        case.check("prompts.context", &cond.get("context")?.narrow(1, 0, 77)?, tolerance)?;
        case.check("prompts.pooled", cond.get("pooled")?, tolerance)?;
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let case = Case::new("sd1-a", &["text_encoder"])?;
    let load = || SdConditioner::load(case.path(), &LoadOptions { random: Some(1), ..options(DType::F32) });
    load()?;
    let refused = |file: &str, from: &str, to: &str| -> Result<String> {
        let path = case.path().join(file);
        let text = std::fs::read_to_string(&path)?;
        assert!(text.contains(from), "{file} has no {from}");
        std::fs::write(&path, text.replacen(from, to, 1))?;
        let error = load().err().unwrap_or_else(|| panic!("{to} was accepted")).to_string();
        std::fs::write(&path, text)?;
        Ok(error)
    };
    let index = "model_index.json";
    assert!(refused(index, "CLIPTextModel", "T5EncoderModel")?.contains("T5EncoderModel"));
    assert!(refused(index, "CLIPTokenizer", "T5Tokenizer")?.contains("T5Tokenizer"));
    let config = "text_encoder/config.json";
    assert!(refused(config, "quick_gelu", "relu")?.contains("relu"));
    assert!(refused("tokenizer/merges.txt", "i n\n", "i n\nqqq zzz\n")?.contains("merges"));
    Ok(())
}
