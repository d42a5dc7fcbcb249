//! A model folder made of another, whose weights may lie elsewhere, without loading the model.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use sconce_nn::Store;
use sconce_nn::weights::WeightFiles;

use super::native::SCHEDULER;
use super::{copy_tokenizers, index};
use crate::diffusers::{self, read_json, save_weights, write_json};

/// What becomes of a parameter on its way from one layout into another: component, name, value.
pub type Edit<'a> = &'a dyn Fn(&str, &str, Tensor) -> Result<Tensor>;

/// How a model is written again.
pub struct Writing<'a> {
    /// The type of its tensors; as each is stored, where there is none.
    pub dtype: Option<DType>,
    /// The header of its weight files.
    pub metadata: &'a BTreeMap<String, String>,
    /// What becomes of its parameters.
    pub edit: Edit<'a>,
    /// The largest weight file of a folder, in bytes.
    pub shard_bytes: Option<u64>,
}

impl<'a> Writing<'a> {
    /// Just as it is, but for the header.
    pub fn as_it_is(metadata: &'a BTreeMap<String, String>) -> Self {
        Self { dtype: None, metadata, edit: &|_, _, value| Ok(value), shard_bytes: None }
    }
}

/// The type to write a tensor in that is to stay as it is; `None` where there is no such tensor.
pub(crate) fn stored(files: &WeightFiles, name: &str) -> Option<DType> {
    let (_, dtype) = files.info(name)?;
    Some(match dtype.as_str() {
        "f64" => DType::F64,
        "f16" => DType::F16,
        "bf16" | "f8_e4m3" | "f8_e5m2" => DType::BF16, // which holds all that eight bits hold
        "i64" | "i32" => DType::I64,
        _ => DType::F32,
    })
}

/// Writes a model folder from another, tensor by tensor: what a single file is made into.
///
/// # Errors
/// If a tensor cannot be read.
pub fn copy(dir: &Path, stores: &[Arc<Store>], to: &Path, how: &Writing) -> Result<()> {
    for store in stores {
        let component = store.component();
        let files = diffusers::weights(&dir.join(component))?;
        let names = store.params().into_iter().map(|p| p.name().to_owned()).chain(store.buffers());
        let mut plan = BTreeMap::new();
        for name in names {
            let Some(own) = stored(&files, &name) else { continue };
            let shape = files.info(&name).map(|(shape, _)| shape.to_vec()).unwrap_or_default();
            plan.insert(name, (if own == DType::I64 { own } else { how.dtype.unwrap_or(own) }, shape));
        }
        save_weights(to, component, &plan, how.metadata, how.shard_bytes, |name| {
            let dtype = plan[name].0;
            (how.edit)(component, name, files.tensor(name, dtype, &Device::Cpu)?)?.to_dtype(dtype)
        })?;
        write_json(&to.join(component).join("config.json"), &diffusers::config(&dir.join(component))?)?;
    }
    copy_tokenizers(dir, to)?;
    let scheduler = read_json(&dir.join(SCHEDULER))?;
    write_json(&to.join(SCHEDULER), &scheduler)?;
    let has = |name: &str| stores.iter().any(|s| s.component() == name) || to.join(name).is_dir();
    let index = index(dir, &scheduler, &has)?;
    write_json(&to.join("model_index.json"), &index)?; // last: it is what makes the folder a model
    Ok(())
}
