//! Adapter files: how the layers of a model are named in the layouts that programs exchange, and putting a file's
//! adapters on a model. A layout is known by its keys, never by the file's name, and a key that fits no layer is an
//! error: an adapter that is half taken up draws wrong pictures without a word.

mod kohya;
mod peft;

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Result, bail};
use sconce_core::adapter::{Adapter, AdapterLayout, Saved};
use sconce_core::model::Model;
use sconce_nn::weights::WeightFiles;
use sconce_nn::{Adapted, Store};
use sconce_sdk::{Choice, Kind, registry};

pub use kohya::Kohya;
pub use peft::Peft;

/// Reads an adapter file in whichever layout it is.
pub fn read(model: &dyn Model, path: &Path) -> Result<Vec<Saved>> {
    let file = WeightFiles::open(&[path])?;
    let fail = |e: sconce_sdk::ParamError| candle_core::Error::Msg(e.to_string());
    let mut known = Vec::new();
    for plugin in registry::of_kind(<dyn AdapterLayout as Kind>::NAME).map_err(fail)? {
        let layout = Choice::<dyn AdapterLayout>::named(plugin.name).map_err(fail)?;
        if let Some(found) = layout.read(model, &file)? {
            return Ok(found);
        }
        known.push(plugin.name);
    }
    let first: Vec<&str> = file.keys().take(3).collect();
    bail!("{}: no adapter file of a known layout ({}); its keys begin with {first:?}", path.display(), known.join(", "))
}

/// Puts a file's adapters on a model, their effect multiplied by `scale`. Gives the number of layers adapted.
pub fn attach(model: &dyn Model, path: &Path, scale: f64) -> Result<usize> {
    let adapter = Choice::<dyn Adapter>::named("lora").map_err(|e| candle_core::Error::Msg(e.to_string()))?;
    let layers = layers(model);
    let found = read(model, path)?;
    for saved in &found {
        let layer = &layers[&(saved.component.clone(), saved.path.clone())];
        let mut constants = saved.constants.clone();
        if let Some(alpha) = constants.get_mut("alpha") {
            *alpha *= scale;
        }
        let device = layer.weight().device();
        let tensors =
            saved.tensors.iter().map(|(k, t)| Ok((k.clone(), t.to_device(&device)?))).collect::<Result<_>>()?;
        layer.attach(adapter.restore(&saved.component, layer, &tensors, &constants)?.layer);
    }
    Ok(found.len())
}

/// The stores that adapters may be on: the denoiser's and the text encoders'.
fn stores(model: &dyn Model) -> Vec<std::sync::Arc<Store>> {
    let mut stores = vec![model.backbone().store().clone()];
    stores.extend(model.conditioner().stores());
    stores
}

/// Every adaptable layer by component and path.
fn layers(model: &dyn Model) -> BTreeMap<(String, String), Adapted> {
    let of = |s: std::sync::Arc<Store>| {
        let component = s.component().to_owned();
        s.layers().into_iter().map(move |l| ((component.clone(), l.path().to_owned()), l))
    };
    stores(model).into_iter().flat_map(of).collect()
}

/// Groups a file's keys by layer. `parse` splits a key into the layer's name in the file and the tensor's short name;
/// `None` means that the key is not of this layout, which makes the whole file not of it. `find` gives the layer.
fn grouped(
    file: &WeightFiles,
    parse: impl Fn(&str) -> Option<(String, &'static str)>,
    find: impl Fn(&str) -> Option<(String, String)>,
) -> Result<Option<Vec<Saved>>> {
    let mut all: BTreeMap<(String, String), Saved> = BTreeMap::new();
    let mut unmatched = Vec::new();
    for key in file.keys() {
        let Some((name, short)) = parse(key) else { return Ok(None) };
        let Some((component, path)) = find(&name) else {
            unmatched.push(key.to_owned());
            continue;
        };
        let value = file.tensor(key, candle_core::DType::F32, &candle_core::Device::Cpu)?;
        let saved = all.entry((component.clone(), path.clone())).or_insert_with(|| Saved {
            component,
            path,
            tensors: BTreeMap::new(),
            constants: BTreeMap::new(),
        });
        match short {
            "alpha" => {
                saved.constants.insert("alpha".into(), f64::from(value.flatten_all()?.get(0)?.to_scalar::<f32>()?));
            }
            _ => {
                saved.tensors.insert(short.to_owned(), value);
            }
        }
    }
    if !unmatched.is_empty() {
        let path = file.paths().first().map(|p| p.display().to_string()).unwrap_or_default();
        bail!(
            "{path}: {} of {} keys fit no layer of this model, the first: {}. The adapter was made for another model",
            unmatched.len(),
            file.keys().count(),
            unmatched.iter().take(5).cloned().collect::<Vec<_>>().join(", ")
        );
    }
    let mut found: Vec<Saved> = all.into_values().collect();
    for saved in &mut found {
        let rank = saved.tensors.get("lora_A.weight").map_or(Ok(0), |t| t.dim(0))?;
        saved.constants.entry("alpha".into()).or_insert(rank as f64);
    }
    Ok((!found.is_empty()).then_some(found))
}
