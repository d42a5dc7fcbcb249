//! The layouts of the original code: a model's components in one file, under the names of the code that trained them
//! (`model.diffusion_model.input_blocks.4.1`, `first_stage_model.encoder.down.0`), as ComfyUI, Forge and A1111 load them.
//! Where the original has one matrix for several of ours, ours are its rows.

mod detect;
pub mod file;
pub(crate) mod mmdit;
mod openclip;
pub mod pickle;
pub(crate) mod unet;
mod vae;
pub mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, bail};
use sconce_nn::Store;
use sconce_nn::weights::{Form, View};

pub use detect::{Prediction, Published, detect, prediction, published};

/// Where a parameter of ours is in the original: the tensor, our place among those that are its rows, and how it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub key: String,
    pub part: usize,
    pub form: Form,
}

/// Whose names a component has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Unet,
    Sd3,
    Flux,
    Vae,
    OpenClip,
    /// Those of diffusers and transformers.
    Same,
}

/// A component in a single file.
struct Part {
    component: &'static str,
    /// What its keys begin with.
    prefix: &'static str,
    names: Names,
}

const fn part(component: &'static str, prefix: &'static str, names: Names) -> Part {
    Part { component, prefix, names }
}

const UNET: Part = part("unet", "model.diffusion_model.", Names::Unet);
const VAE: Part = part("vae", "first_stage_model.", Names::Vae);
const SD1: [Part; 3] = [UNET, VAE, part("text_encoder", "cond_stage_model.transformer.", Names::Same)];
const SD2: [Part; 3] = [UNET, VAE, part("text_encoder", "cond_stage_model.model.", Names::OpenClip)];
const SDXL: [Part; 4] = [
    UNET,
    VAE,
    part("text_encoder", "conditioner.embedders.0.transformer.", Names::Same),
    part("text_encoder_2", "conditioner.embedders.1.model.", Names::OpenClip),
];
const SD3: [Part; 5] = [
    part("transformer", "model.diffusion_model.", Names::Sd3),
    VAE,
    part("text_encoder", "text_encoders.clip_l.transformer.", Names::Same),
    part("text_encoder_2", "text_encoders.clip_g.transformer.", Names::Same),
    part("text_encoder_3", "text_encoders.t5xxl.transformer.", Names::Same),
];
const FLUX: [Part; 4] = [
    part("transformer", "model.diffusion_model.", Names::Flux),
    part("vae", "vae.", Names::Vae),
    part("text_encoder", "text_encoders.clip_l.transformer.", Names::Same),
    part("text_encoder_2", "text_encoders.t5xxl.transformer.", Names::Same),
];

/// The parts of a family's single files.
fn parts(family: &str) -> Result<&'static [Part]> {
    Ok(match family {
        "sd1" => &SD1,
        "sd2" => &SD2,
        "sdxl" => &SDXL,
        "sd3" => &SD3,
        "flux" => &FLUX,
        other => bail!("the family {other} has no single-file layout here"),
    })
}

/// A parameter or buffer, and its shape.
type Shaped = (String, Vec<usize>);

/// What a component holds.
fn shaped(store: &Store) -> Result<Vec<Shaped>> {
    let params = store.params().into_iter().map(|p| Ok((p.name().to_owned(), p.shape().into_dims())));
    let buffers = store.buffers().into_iter().map(|name| Ok((name.clone(), store.buffer(&name)?.dims().to_vec())));
    params.chain(buffers).collect()
}

/// The places of a component's parameters, without a prefix.
fn places(names: Names, all: &[Shaped]) -> Result<BTreeMap<String, Place>> {
    let layer = |name: &str| name.rsplit_once('.').map_or(name, |(layer, _)| layer).to_owned();
    let paths: Vec<String> = all.iter().map(|(name, _)| layer(name)).collect();
    let blocks = unet::Blocks::of(&paths);
    let level = |p: &String| p.strip_prefix("decoder.up_blocks.")?.split('.').next()?.parse::<usize>().ok();
    let levels = paths.iter().filter_map(level).max().map_or(1, |n| n + 1);
    let width = all.iter().find(|(name, _)| name == "proj_out.weight").map_or(0, |(_, shape)| shape[1]);
    let of = |(name, shape): &Shaped| {
        let place = match names {
            Names::Same => Some(Place { key: name.clone(), part: 0, form: Form::Same }),
            Names::Unet => unet::parameter(name, &blocks),
            Names::Sd3 => mmdit::parameter(name, shape, width, true),
            Names::Flux => mmdit::parameter(name, shape, width, false),
            Names::Vae => vae::original(name, levels),
            Names::OpenClip => openclip::original(name),
        };
        match place {
            Some(place) => Ok((name.clone(), place)),
            None => bail!("`{name}` has no place in the original layout"),
        }
    };
    all.iter().map(of).collect()
}

/// A tensor of a single file: ours whose rows it is, in order.
pub struct Whole {
    /// Component, name, shape.
    pub rows: Vec<(String, String, Vec<usize>)>,
    /// How they lie in it.
    pub form: Form,
}

impl Whole {
    /// Its shape in the file.
    pub fn stored_shape(&self) -> Vec<usize> {
        let mut shape = self.rows[0].2.clone();
        if self.rows.len() > 1 {
            shape[0] = self.rows.iter().map(|(_, _, shape)| shape[0]).sum();
        }
        self.form.stored_shape(&shape)
    }
}

/// The tensors of a component by their original keys.
fn wholes(store: &Store, names: Names, prefix: &str) -> Result<BTreeMap<String, Whole>> {
    let all = shaped(store)?;
    let places = places(names, &all)?;
    let mut sorted: Vec<(&Place, &Shaped)> = all.iter().map(|shaped| (&places[&shaped.0], shaped)).collect();
    sorted.sort_by_key(|(place, _)| place.part);
    let mut wholes: BTreeMap<String, Whole> = BTreeMap::new();
    for (place, (name, shape)) in sorted {
        let whole = wholes
            .entry(format!("{prefix}{}", place.key))
            .or_insert_with(|| Whole { rows: Vec::new(), form: place.form });
        whole.rows.push((store.component().to_owned(), name.clone(), shape.clone()));
    }
    Ok(wholes)
}

/// How a component is seen in tensors of other names, by our names.
fn views(wholes: &BTreeMap<String, Whole>) -> BTreeMap<String, View> {
    let mut views = BTreeMap::new();
    for (key, whole) in wholes {
        let mut start = 0;
        for (_, name, shape) in &whole.rows {
            let count = shape.first().copied().unwrap_or(1);
            let rows = (whole.rows.len() > 1).then_some([start, count]);
            start += count;
            views.insert(name.clone(), View { key: key.clone(), rows, form: whole.form, scale: None });
        }
    }
    views
}

/// The tensors of a model's single file, by key. `stores`: as [`Family::shapes`](sconce_core::model::Family::shapes) gives
/// them.
///
/// # Errors
/// If the family has no such layout.
pub fn single(family: &str, stores: &[Arc<Store>]) -> Result<BTreeMap<String, Whole>> {
    let mut all = BTreeMap::new();
    for part in parts(family)? {
        if let Some(store) = stores.iter().find(|store| store.component() == part.component) {
            all.extend(wholes(store, part.names, part.prefix)?);
        }
    }
    Ok(all)
}
