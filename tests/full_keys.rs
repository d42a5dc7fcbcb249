//! The published full-size models, from their public configs and without weights: every key and shape of their weight
//! files has its place in the networks built here, and nothing is left over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result};
use sconce_models::flux::{self, Flux};
use sconce_models::sd::unet::{self, UNet};
use sconce_models::sd3::{self, Mmdit};
use sconce_models::text::clip::{self, ClipText, Head};
use sconce_models::text::t5::{self, T5Encoder};
use sconce_models::vae::kl::{self, AutoencoderKl};
use sconce_nn::Store;
use sconce_nn::store::Source;

type Shapes = BTreeMap<String, Vec<usize>>;

fn folder(model: &str, component: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/data/full", model, component].iter().collect()
}

fn published(dir: &Path) -> Shapes {
    let text = std::fs::read_to_string(dir.join("keys.txt")).unwrap();
    let line = |line: &str| {
        let (key, shape) = line.split_once(' ').unwrap();
        (key.to_owned(), shape.split(',').map(|side| side.parse().unwrap()).collect())
    };
    text.lines().map(line).collect()
}

fn built(store: &Store) -> Result<Shapes> {
    let params = store.params().into_iter().map(|p| Ok((p.name().to_owned(), p.shape().dims().to_vec())));
    let buffers = store.buffers().into_iter().map(|name| Ok((name.clone(), store.buffer(&name)?.dims().to_vec())));
    params.chain(buffers).collect()
}

fn check(model: &str, component: &str, parameters: usize) -> Result<()> {
    let dir = folder(model, component);
    let store = Store::new(component, Source::Shapes, DType::F32, &Device::Cpu);
    let class = std::fs::read_to_string(dir.join("config.json"))?;
    match component {
        "transformer" if class.contains("Flux") => _ = Flux::new(store.clone(), flux::Config::read(&dir)?)?,
        "transformer" => _ = Mmdit::new(store.clone(), sd3::Config::read(&dir)?)?,
        _ if class.contains("T5") => _ = T5Encoder::new(&store, t5::Config::read(&dir)?)?,
        _ if class.contains("WithProjection") => {
            _ = ClipText::new(&store, clip::Config::read(&dir)?, Head::Projection, 49407)?
        }
        "unet" => _ = UNet::new(store.clone(), unet::Config::read(&dir)?, 1000)?,
        "vae" => _ = AutoencoderKl::new(&store, kl::Config::read(&dir)?)?,
        _ => _ = ClipText::new(&store, clip::Config::read(&dir)?, Head::None, 49407)?,
    }
    let (ours, theirs) = (built(&store)?, published(&dir));
    let missing: Vec<&String> = theirs.keys().filter(|key| !ours.contains_key(*key)).collect();
    let unused: Vec<&String> = ours.keys().filter(|key| !theirs.contains_key(*key)).collect();
    assert!(missing.is_empty(), "{model} {component}: no place for {missing:?}");
    assert!(unused.is_empty(), "{model} {component}: the weight file does not have {unused:?}");
    for (key, shape) in &theirs {
        assert_eq!(&ours[key], shape, "{model} {component}: {key}");
    }
    assert_eq!(store.elements(), parameters, "{model} {component}: scalars");
    Ok(())
}

#[test]
fn stable_diffusion_1_5() -> Result<()> {
    check("sd15", "unet", 859_520_964)?;
    check("sd15", "vae", 83_653_863)?;
    check("sd15", "text_encoder", 123_060_480)
}

#[test]
fn stable_diffusion_2_1() -> Result<()> {
    check("sd21", "unet", 865_910_724)?;
    check("sd21", "vae", 83_653_863)?;
    check("sd21", "text_encoder", 340_387_840)
}

#[test]
fn stable_diffusion_xl() -> Result<()> {
    check("sdxl", "unet", 2_567_463_684)?;
    check("sdxl", "vae", 83_653_863)?;
    check("sdxl", "text_encoder", 123_060_480)?;
    check("sdxl", "text_encoder_2", 694_659_840)
}

#[test]
fn stable_diffusion_3() -> Result<()> {
    check("sd3-medium", "transformer", 2_028_328_000)?;
    check("sd3-medium", "vae", 83_819_683)?;
    check("sd3-medium", "text_encoder", 123_650_304)?;
    check("sd3-medium", "text_encoder_2", 694_659_840)?;
    check("sd3-medium", "text_encoder_3", 4_762_310_656)
}

#[test]
fn stable_diffusion_3_5() -> Result<()> {
    check("sd35-medium", "transformer", 2_243_171_520)?;
    check("sd35-large", "transformer", 8_056_627_520)
}

#[test]
fn flux_1() -> Result<()> {
    check("flux-dev", "transformer", 11_901_408_320)?;
    check("flux-dev", "vae", 83_819_683)?;
    check("flux-dev", "text_encoder", 123_060_480)?;
    check("flux-dev", "text_encoder_2", 4_762_310_656)?;
    check("flux-schnell", "transformer", 11_891_178_560)
}
