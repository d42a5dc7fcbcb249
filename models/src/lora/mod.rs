//! Adapter files: how the layers of a model are named in the layouts that programs exchange, and putting a file's
//! adapters on a model. A layout is known by its keys, never by the file's name, and a key that fits no layer is an
//! error: an adapter that is half taken up draws wrong pictures without a word.

pub mod extract;
mod first;
mod kohya;
mod peft;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Error, Result, Tensor, bail};
use sconce_core::adapter::{Adapter, AdapterLayout, Saved};
use sconce_core::model::Model;
use sconce_nn::weights::WeightFiles;
use sconce_nn::{Adapted, Store};
use sconce_sdk::{Choice, Kind, registry};

pub use first::First;
pub use kohya::Kohya;
pub use peft::Peft;

/// Reads an adapter file in whichever layout it is, for a model of these layers: as [`Model::stores`] gives them, or without
/// values as [`Family::shapes`](sconce_core::model::Family::shapes) does.
pub fn read(stores: &[Arc<Store>], path: &Path) -> Result<Vec<Saved>> {
    let file = WeightFiles::open(&[path])?;
    let mut known = Vec::new();
    for plugin in registry::of_kind(<dyn AdapterLayout as Kind>::NAME).map_err(plain)? {
        let layout = Choice::<dyn AdapterLayout>::named(plugin.name).map_err(plain)?;
        if let Some(found) = layout.read(stores, &file)? {
            return Ok(found);
        }
        known.push(plugin.name);
    }
    let first: Vec<&str> = file.keys().take(3).collect();
    bail!("{}: no adapter file of a known layout ({}); its keys begin with {first:?}", path.display(), known.join(", "))
}

fn plain(e: sconce_sdk::ParamError) -> Error {
    Error::Msg(e.to_string())
}

/// Puts a file's adapters on a model, their effect multiplied by `scale`. Gives the number of layers adapted.
pub fn attach(model: &dyn Model, path: &Path, scale: f64) -> Result<usize> {
    let adapter = Choice::<dyn Adapter>::named("lora").map_err(plain)?;
    let stores = model.stores();
    let layers = layers(&stores);
    let found = read(&stores, path)?;
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

/// A and B of a LoRA, in the types that they are kept in, and alpha / rank.
fn factors(saved: &Saved) -> Result<(&Tensor, &Tensor, f64)> {
    let (Some(down), Some(up)) = (saved.tensors.get(DOWN), saved.tensors.get(UP)) else {
        bail!("{}.{}: a LoRA has `{DOWN}` and `{UP}`, and this has not", saved.component, saved.path)
    };
    let rank = down.dim(0)? as f64;
    Ok((down, up, saved.constants.get(ALPHA).map_or(1.0, |alpha| alpha / rank)))
}

/// What a LoRA adds to a layer's weight at full strength, in the weight's shape: (alpha / rank) B A.
pub fn product(saved: &Saved, shape: &[usize]) -> Result<Tensor> {
    let (down, up, scale) = factors(saved)?;
    let (down, up) = (down.to_dtype(DType::F32)?, up.to_dtype(DType::F32)?);
    let whole = (up.flatten_from(1)?.matmul(&down.flatten_from(1)?)? * scale)?;
    if whole.elem_count() != shape.iter().product::<usize>() || whole.dim(0)? != shape[0] {
        bail!(
            "the LoRA does not fit {}.{}: it adds {:?}, the layer is {shape:?}: it was made for another model",
            saved.component,
            saved.path,
            whole.dims()
        );
    }
    whole.reshape(shape)
}

/// What LoRA files add to a model's weights, each by its strength: for writing the model with them merged.
pub struct Merge {
    added: BTreeMap<(String, String), Vec<(Saved, f64)>>,
}

impl Merge {
    /// Of these files.
    pub fn of(stores: &[Arc<Store>], files: &[(&Path, f64)]) -> Result<Self> {
        let mut added: BTreeMap<(String, String), Vec<(Saved, f64)>> = BTreeMap::new();
        for (file, scale) in files {
            for saved in read(stores, file)? {
                let weight = (saved.component.clone(), format!("{}.weight", saved.path));
                added.entry(weight).or_default().push((saved, *scale));
            }
        }
        Ok(Self { added })
    }

    /// How many weights change.
    pub fn layers(&self) -> usize {
        self.added.len()
    }

    /// A parameter with what is added to it, summed in f32.
    pub fn edit(&self, component: &str, name: &str, value: Tensor) -> Result<Tensor> {
        let Some(all) = self.added.get(&(component.to_owned(), name.to_owned())) else { return Ok(value) };
        let mut sum = value.to_dtype(DType::F32)?;
        for (saved, scale) in all {
            sum = (sum + (product(saved, value.dims())? * *scale)?)?;
        }
        Ok(sum)
    }
}

/// The stores that adapters may be on: the denoiser's and the text encoders'.
fn adaptable(stores: &[Arc<Store>]) -> impl Iterator<Item = &Arc<Store>> {
    stores.iter().take(1).chain(stores.iter().skip(2))
}

/// Every adaptable layer by component and path.
fn layers(stores: &[Arc<Store>]) -> BTreeMap<(String, String), Adapted> {
    let of = |s: &Arc<Store>| {
        let component = s.component().to_owned();
        s.layers().into_iter().map(move |l| ((component.clone(), l.path().to_owned()), l))
    };
    adaptable(stores).flat_map(of).collect()
}

/// The name of a layer in a file, and the short name of one of its tensors: the ways in which programs spell the two factors.
fn factor(key: &str) -> Option<(String, &'static str)> {
    const ENDS: [(&str, &str); 9] = [
        (".lora_A.weight", DOWN),
        (".lora_B.weight", UP),
        (".lora_A.default.weight", DOWN),
        (".lora_B.default.weight", UP),
        (".lora_down.weight", DOWN),
        (".lora_up.weight", UP),
        (".lora_linear_layer.down.weight", DOWN),
        (".lora_linear_layer.up.weight", UP),
        (".alpha", ALPHA),
    ];
    if let Some((name, short)) = ENDS.iter().find_map(|(end, short)| Some((key.strip_suffix(end)?, *short))) {
        return Some((name.to_owned(), short));
    }
    // An attention's processor, before diffusers had PEFT: `attn1.processor.to_out_lora.down.weight`.
    let (attention, rest) = key.split_once(".processor.")?;
    let (layer, end) = rest.split_once("_lora.")?;
    let layer = if layer == "to_out" { "to_out.0" } else { layer };
    let short = match end {
        "down.weight" => DOWN,
        "up.weight" => UP,
        _ => return None,
    };
    Some((format!("{attention}.{layer}"), short))
}

/// Short names of a LoRA's tensors and of its constant.
const DOWN: &str = "lora_A.weight";
const UP: &str = "lora_B.weight";
const ALPHA: &str = "alpha";

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
        if short == first::TOKEN {
            continue; // a learned token is no layer's; `sconce inspect` lists it
        }
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
