//! LoRA files of every layout: whatever a file calls its layers, the same is added to the same weights; and merged into a model
//! they draw what they draw beside it.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;
#[path = "common/work.rs"]
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use case::{Case, json, relative};
use sconce_nn::weights::{WeightFiles, save};
use work::{Work, text};

const CASES: [&str; 4] = ["sd1-a", "sdxl-a", "sd3-c", "flux-a"];

type Tensors = BTreeMap<String, Tensor>;

/// A small model's folder, and a folder to work in.
struct Place {
    case: Case,
    work: Work,
}

impl Place {
    fn new(name: &str) -> Result<Self> {
        let all: Vec<String> =
            json(case::data(name, "keys.json")).as_object().expect("components").keys().cloned().collect();
        let case = Case::new(name, &all.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Self { case, work: Work::new() })
    }

    fn model(&self) -> &str {
        text(self.case.path())
    }

    /// What a file adds to each layer, by the layer's name in PEFT's layout.
    #[track_caller]
    fn added(&self, file: &Path) -> Result<Tensors> {
        let _ = std::fs::remove_file(self.work.path("as-peft.safetensors"));
        let file = text(file);
        self.work.good(&["convert", file, "as-peft.safetensors", "--model", self.model(), "--to", "peft"]);
        let factors = read(&self.work.path("as-peft.safetensors"))?;
        let product = |(key, down): (&String, &Tensor)| {
            let layer = key.strip_suffix(".lora_A.weight")?;
            let up = &factors[&format!("{layer}.lora_B.weight")];
            Some((layer.to_owned(), up.flatten_from(1).ok()?.matmul(&down.flatten_from(1).ok()?).ok()?))
        };
        Ok(factors.iter().filter_map(product).collect())
    }
}

fn committed(name: &str, layout: &str) -> PathBuf {
    case::data("trained", name).join(format!("lora-{layout}.safetensors"))
}

fn read(path: &Path) -> Result<Tensors> {
    let files = WeightFiles::open(&[path])?;
    files.keys().map(|k| Ok((k.to_owned(), files.tensor(k, DType::F32, &Device::Cpu)?))).collect()
}

#[track_caller]
fn same(got: &Tensors, want: &Tensors, about: &str) -> Result<()> {
    assert!(got.keys().eq(want.keys()), "{about}: {:?} and {:?}", got.keys().next(), want.keys().next());
    for (layer, want) in want {
        // What did not train adds nothing, in both.
        let nothing = |t: &Tensor| -> Result<bool> { Ok(t.sqr()?.sum_all()?.to_scalar::<f32>()? == 0.0) };
        if nothing(want)? && nothing(&got[layer])? {
            continue;
        }
        let off = relative(&got[layer], want)?;
        assert!(off < 1e-5, "{about}: {layer} is off by {off}");
    }
    Ok(())
}

/// The committed file under other names: of each layer in PEFT's layout (component, path), the keys of A, B and alpha.
fn respelled(name: &str, spell: impl Fn(&str, &str) -> Option<[String; 3]>) -> Result<Tensors> {
    let mut out = Tensors::new();
    for (key, value) in read(&committed(name, "peft"))? {
        let (layer, short) = key.split_once(".lora_").expect("a factor");
        let (component, path) = layer.split_once('.').expect("a component");
        let Some([a, b, alpha]) = spell(component, path) else { continue };
        if short == "A.weight" {
            out.insert(alpha, Tensor::new(value.dim(0)? as f32, &Device::Cpu)?);
        }
        out.insert(if short == "A.weight" { a } else { b }, value);
    }
    out.retain(|key, _| !key.is_empty());
    Ok(out)
}

#[test]
fn peft_and_kohya_become_each_other() -> Result<()> {
    for name in CASES {
        let place = Place::new(name)?;
        let want = place.added(&committed(name, "peft"))?;
        same(&place.added(&committed(name, "kohya"))?, &want, name)?;
        place.work.good(&[
            "convert",
            committed(name, "peft").to_str().unwrap(),
            "k.safetensors",
            "--model",
            place.model(),
            "--to",
            "kohya",
        ]);
        same(&place.added(&place.work.path("k.safetensors"))?, &want, name)?;
        let keys = |t: &Tensors| t.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&read(&place.work.path("k.safetensors"))?), keys(&read(&committed(name, "kohya"))?), "{name}");
    }
    Ok(())
}

#[test]
fn other_programs_files_add_the_same() -> Result<()> {
    let three =
        |stem: String| [format!("{stem}.lora_down.weight"), format!("{stem}.lora_up.weight"), format!("{stem}.alpha")];
    let flat = |path: &str| path.replace('.', "_");
    for name in CASES {
        let place = Place::new(name)?;
        let denoiser = if name.starts_with("sd1") || name.starts_with("sdxl") { "unet" } else { "transformer" };
        let mut want = place.added(&committed(name, "peft"))?;
        want.retain(|layer, _| layer.starts_with(denoiser));
        let only = |component: &str, names: [String; 3]| (component == denoiser).then_some(names);
        let mut spelled = vec![
            ("OneTrainer's", respelled(name, |c, p| only(c, three(format!("lora_transformer_{}", flat(p)))))?),
            ("SimpleTuner's", respelled(name, |c, p| only(c, three(format!("lycoris_{}", flat(p)))))?),
            (
                "PEFT's own",
                respelled(name, |c, p| {
                    let stem = format!("base_model.model.{p}");
                    only(c, [format!("{stem}.lora_A.weight"), format!("{stem}.lora_B.weight"), String::new()])
                })?,
            ),
        ];
        if denoiser == "unet" {
            spelled.push((
                "diffusers' before PEFT",
                respelled(name, |c, p| {
                    let (attention, layer) = p.rsplit_once(".to_")?;
                    let stem = format!("unet.{attention}.processor.to_{}_lora", layer.trim_end_matches(".0"));
                    only(c, [format!("{stem}.down.weight"), format!("{stem}.up.weight"), String::new()])
                })?,
            ));
        }
        for (whose, tensors) in spelled {
            if tensors.is_empty() {
                continue;
            }
            save(&place.work.path("theirs.safetensors"), &tensors, &BTreeMap::new())?;
            let got = place.added(&place.work.path("theirs.safetensors"))?;
            let mut want = want.clone();
            want.retain(|layer, _| got.contains_key(layer));
            assert!(want.len() * 3 >= tensors.len() && !want.is_empty(), "{name}: {whose}: {} layers", want.len());
            same(&got, &want, &format!("{name}: {whose}"))?;
        }
        // ComfyUI's: the original code's own names, dotted, where several of ours are rows of one.
        let kohya = read(&committed(name, "kohya"))?;
        let whole = dotted(&place)?;
        let mut comfy = Tensors::new();
        for (key, value) in &kohya {
            let (stem, end) = key.split_once('.').expect("a layer");
            if let Some(own) = whole.get(stem.trim_start_matches("lora_unet_")) {
                comfy.insert(format!("diffusion_model.{own}.{end}"), value.clone());
            }
        }
        if !comfy.is_empty() {
            save(&place.work.path("comfy.safetensors"), &comfy, &BTreeMap::new())?;
            let got = place.added(&place.work.path("comfy.safetensors"))?;
            let mut want = want.clone();
            want.retain(|layer, _| got.contains_key(layer));
            same(&got, &want, &format!("{name}: ComfyUI's"))?;
        }
    }
    Ok(())
}

/// The original names of the denoiser's layers, by themselves with `_` for `.`.
fn dotted(place: &Place) -> Result<BTreeMap<String, String>> {
    place.work.good(&["convert", place.model(), "whole.safetensors"]);
    let whole = WeightFiles::open(&[place.work.path("whole.safetensors")])?;
    let layer = |key: &str| {
        let layer = key.strip_prefix("model.diffusion_model.")?.strip_suffix(".weight")?;
        Some((layer.replace('.', "_"), layer.to_owned()))
    };
    Ok(whole.keys().filter_map(layer).collect())
}

/// Numbered layers, and a learned token beside them.
#[test]
fn the_first_repositorys_files_add_to_their_layers() -> Result<()> {
    let place = Place::new("sd1-a")?;
    let model = WeightFiles::open(&[place.case.path().join("unet/diffusion_pytorch_model.safetensors")])?;
    let shape = |path: &str| model.info(&format!("{path}.weight")).map(|(shape, _)| shape.to_vec()).expect("a layer");
    let mut tensors = Tensors::from([("<s1>".to_owned(), Tensor::zeros(8, DType::F32, &Device::Cpu)?)]);
    let mut want = Tensors::new();
    let mut blocks: Vec<&str> = model.keys().filter_map(|k| k.strip_suffix(".attn1.to_q.weight")).collect();
    // Down, up, then the middle.
    let place_of = |b: &str| ["down", "up", "mid"].iter().position(|side| b.starts_with(side));
    blocks.sort_by_key(|b| (place_of(b), b.to_string()));
    let mut number = 0;
    for block in blocks {
        let attention =
            |name: &str| ["to_q", "to_k", "to_v", "to_out.0"].map(|l| format!("{block}.{name}.{l}")).to_vec();
        for path in [attention("attn1"), vec![format!("{block}.ff.net.0.proj")], attention("attn2")].concat() {
            let shape = shape(&path);
            let fill = |short: &str, dims: [usize; 2]| {
                Tensor::from_vec(
                    formula::fill("lora", &format!("{path}.{short}"), &dims),
                    dims.as_slice(),
                    &Device::Cpu,
                )
            };
            let (down, up) = (fill("down", [2, shape[1]])?, fill("up", [shape[0], 2])?);
            want.insert(format!("unet.{path}"), up.matmul(&down)?);
            tensors.insert(format!("unet:{number}:down"), down);
            tensors.insert(format!("unet:{number}:up"), up);
            number += 1;
        }
    }
    save(&place.work.path("first.safetensors"), &tensors, &BTreeMap::new())?;
    same(&place.added(&place.work.path("first.safetensors"))?, &want, "numbered")
}

#[test]
fn merged_loras_draw_what_they_draw_beside_the_model() -> Result<()> {
    for name in CASES {
        let place = Place::new(name)?;
        let lora = committed(name, "peft");
        let lora = format!("{}:0.7", lora.display());
        let draw = |model: &str, to: &str, more: &[&str]| -> Result<Tensor> {
            let latents = format!("{to}.safetensors");
            let picture = format!("{to}.png");
            let base = [
                "sample",
                "--model",
                model,
                "--prompt",
                "a cat",
                "--steps",
                "3",
                "--save-latents",
                &latents,
                "--out",
                &picture,
            ];
            place.work.good(&[&base[..], more].concat());
            WeightFiles::open(&[place.work.path(&latents)])?.tensor("latents", DType::F32, &Device::Cpu)
        };
        let beside = draw(place.model(), "beside", &["--lora", &lora])?;
        let bare = draw(place.model(), "bare", &[])?;
        place.work.good(&["merge", place.model(), "merged", "--lora", &lora]);
        let merged = draw("merged", "inside", &[])?;
        assert!(relative(&bare, &beside)? > 1e-2, "{name}: the LoRA does nothing");
        let off = relative(&merged, &beside)?;
        println!("{name}: merged is off by {off:.1e}");
        assert!(off < 1e-4, "{name}: merged is off by {off}");
    }
    Ok(())
}

/// The square of a norm.
fn square(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.sqr()?.sum_all()?.to_scalar::<f32>()?))
}

/// The number in a line that the program said.
fn told(said: &str) -> f64 {
    let words = said.split("leaves out ").nth(1).expect("it is told");
    words.split_whitespace().next().expect("a number").parse().expect("a number")
}

#[test]
fn a_lora_comes_back_out_of_the_merged_model() -> Result<()> {
    for name in CASES {
        let place = Place::new(name)?;
        let lora = committed(name, "peft");
        place.work.good(&["merge", place.model(), "merged", "--lora", lora.to_str().unwrap(), "--dtype", "f32"]);
        let want = place.added(&lora)?;
        let want: Tensors = want.into_iter().filter(|(_, t)| square(t).is_ok_and(|s| s > 0.0)).collect();
        for (rank, whole) in [("16", true), ("1", false)] {
            let out = format!("rank-{rank}.safetensors");
            let extracted =
                place.work.sconce(&["extract", place.model(), "merged", &out, "--rank", rank, "--to", "kohya"]);
            let said = String::from_utf8_lossy(&extracted.stdout).into_owned();
            assert!(extracted.status.success(), "{name}: {}", String::from_utf8_lossy(&extracted.stderr));
            let got = place.added(&place.work.path(&out))?;
            let (mut all, mut off) = (0.0, 0.0);
            for (layer, want) in &want {
                all += square(want)?;
                off += square(&(&got[layer] - want)?)?;
            }
            let (off, told) = ((off / all).sqrt(), told(&said));
            println!("{name} at rank {rank}: off by {off:.1e}, told {told:.1e}");
            match whole {
                true => assert!(off < 1e-3 && told < 1e-3, "{name}: {off}, told {told}"),
                false => assert!((off / told - 1.0).abs() < 0.02, "{name}: {off}, told {told}"),
            }
            // A LoRA made smaller leaves out as much as one that is taken out at that rank.
            if !whole {
                let resized = [
                    "convert",
                    lora.to_str().unwrap(),
                    "smaller.safetensors",
                    "--model",
                    place.model(),
                    "--to",
                    "peft",
                    "--rank",
                    rank,
                ];
                let output = place.work.sconce(&resized);
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let smaller = place.added(&place.work.path("smaller.safetensors"))?;
                let mut off = 0.0;
                for (layer, want) in &want {
                    off += square(&(&smaller[layer] - want)?)?;
                }
                assert!(((off / all).sqrt() / told - 1.0).abs() < 0.02, "{name}: {}, told {told}", (off / all).sqrt());
            }
        }
    }
    Ok(())
}

#[test]
fn a_lora_of_another_model_is_refused_by_its_keys() -> Result<()> {
    let place = Place::new("sd1-a")?;
    let theirs = committed("flux-a", "kohya");
    let output = place.work.sconce(&["merge", place.model(), "merged", "--lora", theirs.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("fit no layer of this model"), "{said}");
    assert!(!place.work.path("merged").exists() && !place.work.path("merged.tmp").exists());
    Ok(())
}
