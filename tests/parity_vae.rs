//! The autoencoders against diffusers: moments, pictures, and every parameter's gradient.

#[path = "common/case.rs"]
mod case;
#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor};
use case::{CASES, Case, data, options, relative, weights};
use sconce_models::vae;
use sconce_nn::checkpoint::on_big_stack;
use sconce_nn::weights::{WeightFiles, save};

#[test]
fn moments_and_pictures_are_those_of_diffusers() -> Result<()> {
    for name in CASES {
        let case = Case::new(name, &["vae"])?;
        let vae = vae::load(&case.path().join("vae"), &options(DType::F32))?;
        let moments = vae.encode(&case.expected("vae.x")?)?;
        case.check("vae.mean", &moments.mean, 1e-4)?;
        case.check("vae.logvar", &moments.log_variance.unwrap(), 1e-4)?;
        let z = case.expected("vae.z")?;
        case.check("vae.decoded", &vae.decode(&z)?, 1e-4)?;
        assert_eq!(vae.channels(), z.dim(1)?);
        assert_eq!(vae.factor(), case.expected("vae.x")?.dim(2)? / moments.mean.dim(2)?);
        assert!(relative(&vae.scaling().unscale(&vae.scaling().scale(&z)?)?, &z)? < 1e-6);
    }
    Ok(())
}

#[test]
fn scaling_is_the_configs() -> Result<()> {
    for (name, factor) in [("sd1-a", 0.18215), ("sd1-b", 0.5), ("sdxl-a", 0.13025)] {
        let vae = vae::load(&Case::new(name, &["vae"])?.path().join("vae"), &options(DType::F32))?;
        let one = vae.scaling().scale(&Tensor::ones((1, 4, 1, 1), DType::F32, &Device::Cpu)?)?;
        assert!((one.mean_all()?.to_scalar::<f32>()? - factor).abs() < 1e-6, "{name}");
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_pytorch() -> Result<()> {
    on_big_stack(|| {
        CASES.into_iter().try_for_each(|name| {
            let case = Case::new(name, &["vae"])?;
            let vae = vae::load(&case.path().join("vae"), &options(DType::F32))?;
            for param in vae.store().params() {
                param.train()?;
            }
            let x = case.expected("vae.x")?;
            let loss = (vae.decode(&vae.encode(&x)?.mean)? - &x)?.sqr()?.mean_all()?;
            case.check_gradients("vae", &vae.store().params(), &loss)
        })
    })
}

#[test]
fn half_precision_stays_near_and_f16_becomes_f32_where_it_overflows() -> Result<()> {
    for (name, asked, computes, tolerance) in [
        ("sdxl-a", DType::BF16, DType::BF16, 0.1),
        ("sdxl-a", DType::F16, DType::F32, 1e-3),
        ("sd2-c", DType::F16, DType::F16, 0.02),
    ] {
        let case = Case::new(name, &["vae"])?;
        let vae = vae::load(&case.path().join("vae"), &options(asked))?;
        assert_eq!(vae.store().dtype(), computes);
        case.check("vae.mean", &vae.encode(&case.expected("vae.x")?)?.mean, tolerance)?;
        case.check("vae.decoded", &vae.decode(&case.expected("vae.z")?)?, tolerance)?;
    }
    Ok(())
}

#[test]
fn older_keys_and_shapes_of_attention_are_read() -> Result<()> {
    let case = Case::new("sd1-a", &["vae"])?;
    let mut old = BTreeMap::new();
    for (key, value) in weights("sd1-a", "vae")? {
        let attention = key.contains(".attentions.0.to_");
        let names = [("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")];
        let key = names.iter().fold(key, |key, (new, old)| {
            key.replace(&format!(".attentions.0.{new}."), &format!(".attentions.0.{old}."))
        });
        let value = match value.dims() {
            &[o, i] if attention => value.reshape((o, i, 1, 1))?,
            _ => value,
        };
        old.insert(key, value);
    }
    save(&case.path().join("vae/diffusion_pytorch_model.safetensors"), &old, &BTreeMap::new())?;
    let vae = vae::load(&case.path().join("vae"), &options(DType::F32))?;
    case.check("vae.mean", &vae.encode(&case.expected("vae.x")?)?.mean, 1e-4)?;
    case.check("vae.decoded", &vae.decode(&case.expected("vae.z")?)?, 1e-4)
}

#[test]
fn the_tiny_one_is_that_of_diffusers() -> Result<()> {
    for name in ["taesd-a", "taesd-b"] {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("vae");
        save(&dir.join("diffusion_pytorch_model.safetensors"), &weights(name, "vae")?, &BTreeMap::new())?;
        std::fs::copy(data(name, "config.json"), dir.join("config.json"))?;
        let expected = WeightFiles::open(&[data(name, "expected.safetensors")])?;
        let expected = |key: &str| expected.tensor(key, DType::F32, &Device::Cpu);
        let vae = vae::load(&dir, &options(DType::F32))?;
        let moments = vae.encode(&expected("x")?)?;
        assert!(moments.log_variance.is_none());
        for (key, got) in [("encoded", moments.mean), ("decoded", vae.decode(&expected("z")?)?)] {
            let error = relative(&got, &expected(key)?)?;
            println!("{name} {key}: within {error:.1e}");
            assert!(error < 1e-4, "{name} {key}: differs by {error:.1e}");
        }
        for param in vae.store().params() {
            param.train()?;
        }
        let x = expected("x")?;
        let loss = vae.decode(&vae.encode(&x)?.mean)?.sqr()?.mean_all()?;
        let grads = loss.backward()?;
        let reached = |p: &sconce_nn::Param| grads.get(&p.var().unwrap()).is_some();
        assert!(vae.store().params().iter().all(reached), "{name}: a parameter has no gradient");
    }
    Ok(())
}

#[test]
fn what_would_be_another_network_is_refused() -> Result<()> {
    let case = Case::new("sd1-a", &["vae"])?;
    let path = case.path().join("vae/config.json");
    let text = std::fs::read_to_string(&path)?;
    for (from, to, why) in [
        ("\"silu\"", "\"relu\"", "act_fn"),
        ("DownEncoderBlock2D", "AttnDownEncoderBlock2D", "down_block_types"),
        ("\"in_channels\"", "\"something_new\": 1, \"in_channels\"", "something_new"),
        ("\"in_channels\"", "\"latents_mean\": [1.0], \"in_channels\"", "latents_mean"),
        ("\"AutoencoderKL\"", "\"VQModel\"", "VQModel"),
        ("\"latent_channels\": 4", "\"latent_channels\": 5", "shape"),
        ("\"layers_per_block\": 2", "\"layers_per_block\": 1", "no place"),
    ] {
        assert!(text.contains(from), "the config has no {from}");
        std::fs::write(&path, text.replacen(from, to, 1))?;
        let error = vae::load(&case.path().join("vae"), &options(DType::F32)).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains(why)), "{to}: {error:?}");
    }
    Ok(())
}
