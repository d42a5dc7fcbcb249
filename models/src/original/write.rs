//! Model folders as single-file checkpoints, written tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use candle_core::{DType, Device, Error, Result, Tensor, bail};
use sconce_core::model::Family;
use sconce_nn::weights::{WeightFiles, save_each};
use sconce_sdk::Choice;
use serde_json::json;

use super::file::{CONFIGS, Configs};
use super::{Names, parts, single};
use crate::diffusers::{self, read_json};
use crate::folder::copy::{Writing, stored};
use crate::folder::native::SCHEDULER;

/// Writes a model folder as a single file, tensor by tensor.
///
/// # Errors
/// If the folder is of no family that has such a layout, or a tensor cannot be read.
pub fn write(dir: &Path, family: &Choice<dyn Family>, to: &Path, how: &Writing) -> Result<()> {
    let stores = family.shapes(dir)?;
    let wholes = single(family.name(), &stores)?;
    let mut sources: BTreeMap<&str, WeightFiles> = BTreeMap::new();
    for store in &stores {
        let files = diffusers::weights(&dir.join(store.component()))?;
        sources.insert(store.component(), files);
    }
    let native = family.native(dir)?;
    let scheduler = read_json(&dir.join(SCHEDULER))?;
    let components =
        stores.iter().map(|s| Ok((s.component().to_owned(), diffusers::config(&dir.join(s.component()))?)));
    let configs = Configs {
        family: family.name().to_owned(),
        model_index: read_json(&dir.join("model_index.json"))?,
        scheduler: scheduler.clone(),
        components: components.collect::<Result<_>>()?,
    };
    let mut metadata = how.metadata.clone();
    metadata.insert(CONFIGS.to_owned(), serde_json::to_string(&configs).map_err(Error::wrap)?);

    let mut plan = BTreeMap::new();
    // What ComfyUI and Forge look for in a file of a UNet.
    let is_unet = parts(family.name())?.iter().any(|part| part.names == Names::Unet);
    let marks = [
        ("v_pred", is_unet && native.objective["type"] == "v"),
        ("ztsnr", scheduler.get("rescale_betas_zero_snr") == Some(&json!(true))),
    ];
    let markers: BTreeSet<&str> = marks.into_iter().filter_map(|(name, is)| is.then_some(name)).collect();
    plan.extend(markers.iter().map(|marker| ((*marker).to_owned(), (DType::F32, vec![0]))));
    for (key, whole) in &wholes {
        let Some(stored) =
            whole.rows.iter().map(|(c, name, _)| stored(&sources[c.as_str()], name)).collect::<Option<Vec<_>>>()
        else {
            continue; // a buffer that follows from the config
        };
        plan.insert(key.clone(), (how.dtype.unwrap_or(stored[0]), whole.stored_shape()));
    }
    save_each(to, &plan, &metadata, |key| {
        if markers.contains(key) {
            return Tensor::zeros(0, DType::F32, &Device::Cpu);
        }
        let (whole, dtype) = (&wholes[key], plan[key].0);
        let row = |(component, name, shape): &(String, String, Vec<usize>)| {
            let value = sources[component.as_str()].tensor(name, dtype, &Device::Cpu)?;
            if value.dims() != shape {
                bail!("{component}: `{name}` has shape {:?}, its config says {shape:?}", value.dims());
            }
            (how.edit)(component, name, value)?.to_dtype(dtype)
        };
        let rows = whole.rows.iter().map(row).collect::<Result<Vec<_>>>()?;
        whole.form.stored(&if rows.len() == 1 { rows[0].clone() } else { Tensor::cat(&rows, 0)? })
    })
}
