//! Autoencoders between pictures and latents: the KL-regularised one of every Stable Diffusion checkpoint, and the tiny
//! distilled one for previews.

pub mod kl;
pub mod tiny;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Error, Result, bail};
use sconce_core::model::{Autoencoder, LoadOptions};
use sconce_nn::Store;
use sconce_nn::store::Source;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::diffusers;

/// Loads the autoencoder in `dir`, a component's folder: an `AutoencoderKL` or `AutoencoderTiny` with its `config.json`,
/// or the two bare files of a tiny one (`taesd_encoder.safetensors` and `taesd_decoder.safetensors`).
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Arc<dyn Autoencoder>> {
    if !dir.join("config.json").is_file() {
        let (encoder, decoder) = tiny::bare_files(dir)?;
        return Ok(Arc::new(tiny::AutoencoderTiny::load_bare(&encoder, &decoder, options)?));
    }
    Ok(match diffusers::config(dir)?.get("_class_name").and_then(Value::as_str) {
        Some("AutoencoderKL") => Arc::new(kl::AutoencoderKl::load(dir, options)?),
        Some("AutoencoderTiny") => Arc::new(tiny::AutoencoderTiny::load(dir, options)?),
        other => bail!(
            "{}: `_class_name` is {}, expected AutoencoderKL or AutoencoderTiny",
            dir.join("config.json").display(),
            other.unwrap_or("missing")
        ),
    })
}

/// The parameters of the autoencoder in `dir` without their values.
pub fn shapes(dir: &Path) -> Result<Arc<Store>> {
    Ok(match diffusers::config(dir)?.get("_class_name").and_then(Value::as_str) {
        Some("AutoencoderTiny") => tiny::AutoencoderTiny::shapes(dir)?,
        _ => {
            let store = Store::new(diffusers::component(dir)?, Source::Shapes, DType::F32, &Device::Cpu);
            kl::AutoencoderKl::new(&store, kl::Config::read(dir)?)?;
            store
        }
    })
}

/// A `config.json` as `T`: fields that begin with `_` are the format's own, `null` stands for a field left out.
fn config<T: DeserializeOwned>(dir: &Path) -> Result<T> {
    let fields = diffusers::config(dir)?.into_iter().filter(|(key, value)| !key.starts_with('_') && !value.is_null());
    serde_json::from_value(Value::Object(fields.collect()))
        .map_err(|e| Error::Msg(format!("{}: {e}", dir.join("config.json").display())))
}

/// The type that an autoencoder computes in. Activations of most exceed f16's largest number (65,504), and f16 then
/// gives NaN pictures; unless the config denies it (`force_upcast: false`), f16 becomes f32. bf16 has the range.
fn compute_type(asked: DType, force_upcast: bool) -> DType {
    if asked == DType::F16 && force_upcast { DType::F32 } else { asked }
}
