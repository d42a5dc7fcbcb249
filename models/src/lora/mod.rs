//! Adapter files: how the layers of a model are named in the layouts that programs exchange, and putting a file's
//! adapters on a model. A layout is known by its keys, never by the file's name, and a key that fits no layer is an
//! error: an adapter that is half taken up draws wrong pictures without a word.

pub mod extract;
mod first;
mod kohya;
mod peft;
mod peft_config;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, bail};
pub use sconce_core::adapter::read;
use sconce_core::adapter::{Saved, of_tensors};
use sconce_core::model::Model;
use sconce_core::words::{self, Word};
use sconce_nn::layers::LayerAdapter;
use sconce_nn::weights::WeightFiles;
use sconce_nn::{Adapted, Param, Store};

pub use first::First;
pub use kohya::Kohya;
pub use peft::Peft;

/// What a file brought to a model.
pub struct Brought {
    /// Layers adapted.
    pub layers: usize,
    /// Words that its text encoders know from now on.
    pub words: Vec<String>,
}

/// Puts a file's adapters on a model, their effect multiplied by `scale`, and teaches it the words that stand beside them.
pub fn attach(model: &dyn Model, path: &Path, scale: f64) -> Result<Brought> {
    let stores = model.stores();
    let layers = layers(&stores);
    let found = read(&stores, path)?;
    for saved in &found {
        match layers.get(&(saved.component.clone(), saved.path.clone())) {
            Some(layer) => layer.attach(restored(saved, layer, scale)?),
            None if nothing(saved)? => {}
            None => bail!(
                "{}: {} is no layer that an adapter goes on, and the file adds to it: merge the file (`sconce merge`)",
                path.display(),
                saved.place()
            ),
        }
    }
    let words = words::bundled(&model.conditioner().vocabularies(), path)?;
    Ok(Brought { layers: found.len(), words: teach(model, words)? })
}

/// Teaches a model's text encoders words. Gives them.
pub fn teach(model: &dyn Model, words: Vec<Word>) -> Result<Vec<String>> {
    let vocabularies = model.conditioner().vocabularies();
    let teach = |word: Word| {
        for vocabulary in &vocabularies {
            if let Some(rows) = word.rows.get(vocabulary.component()) {
                vocabulary.add(&word.text, Param::new(word.text.as_str(), rows.to_device(vocabulary.device())?))?;
            }
        }
        Ok(word.text)
    };
    words.into_iter().map(teach).collect()
}

/// What a file's adapter does on a layer, by the registered adapter that its tensors are of.
fn restored(saved: &Saved, layer: &Adapted, scale: f64) -> Result<Arc<dyn LayerAdapter>> {
    let device = layer.weight().device();
    let tensors = saved.tensors.iter().map(|(k, t)| Ok((k.clone(), t.to_device(&device)?))).collect::<Result<_>>()?;
    Ok(of_tensors(saved)?.restore(&saved.component, layer, &tensors, &saved.constants, scale)?.layer)
}

/// A and B of a LoRA, in the types that they are kept in, and alpha / rank.
fn factors(saved: &Saved) -> Result<(&Tensor, &Tensor, f64)> {
    let (Some(down), Some(up)) = (saved.tensors.get(DOWN), saved.tensors.get(UP)) else {
        bail!("{}.{}: a LoRA has `{DOWN}` and `{UP}`, and this has not", saved.component, saved.path)
    };
    if let Some(more) = saved.tensors.keys().find(|short| *short != DOWN && *short != UP) {
        bail!("{}: this is for plain LoRAs, and beside its factors it has `{more}`", saved.place());
    }
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

/// What a file adds to a parameter that is no layer's at full strength, in its shape: to a norm or a table, `weight` or `bias`.
fn added(saved: &Saved, which: &str, shape: &[usize]) -> Result<Option<Tensor>> {
    let short = if which == "bias" { BIAS_DIFFERENCE } else { DIFFERENCE };
    let value = match saved.tensors.get(short) {
        Some(value) => value.to_dtype(DType::F32)?,
        None if which == "weight" && saved.tensors.contains_key(DOWN) => product(saved, shape)?,
        None => return Ok(None),
    };
    if value.dims() != shape {
        bail!(
            "{}: {:?} is added to its {which}, which is {shape:?}: made for another model",
            saved.place(),
            value.dims()
        );
    }
    Ok(Some(value))
}

/// Whether a file adds nothing: programs that write every difference write those that are none.
fn nothing(saved: &Saved) -> Result<bool> {
    let differences = saved.tensors.iter().filter(|(short, _)| short.as_str() != DOWN);
    let mut all = differences.map(|(_, t)| t.to_dtype(DType::F32)?.abs()?.max_all()?.to_scalar::<f32>());
    all.try_fold(true, |none, largest| Ok(none && largest? == 0.0))
}

/// What adapter files do to a model's weights, each by its strength: for writing the model with them merged.
pub struct Merge {
    layers: BTreeMap<(String, String), (Adapted, Vec<Arc<dyn LayerAdapter>>)>,
    /// What is added to parameters that are no layer's, and its strength.
    others: BTreeMap<(String, String), Vec<(Saved, f64)>>,
}

impl Merge {
    /// Of these files.
    pub fn of(stores: &[Arc<Store>], files: &[(&Path, f64)]) -> Result<Self> {
        let all = layers(stores);
        let mut merged: BTreeMap<(String, String), (Adapted, Vec<Arc<dyn LayerAdapter>>)> = BTreeMap::new();
        let mut others: BTreeMap<(String, String), Vec<(Saved, f64)>> = BTreeMap::new();
        for (file, scale) in files {
            for saved in read(stores, file)? {
                let key = (saved.component.clone(), saved.path.clone());
                let Some(layer) = all.get(&key) else {
                    others.entry(key).or_default().push((saved, *scale));
                    continue;
                };
                let (_, on_it) = merged.entry(key).or_insert_with(|| (layer.clone(), Vec::new()));
                on_it.push(restored(&saved, layer, *scale)?);
            }
        }
        Ok(Self { layers: merged, others })
    }

    /// How many layers change, with the norms and tables.
    pub fn layers(&self) -> usize {
        self.layers.len() + self.others.len()
    }

    /// A parameter as the adapters leave it, computed in f32.
    pub fn edit(&self, component: &str, name: &str, value: Tensor) -> Result<Tensor> {
        let Some((path, which)) = name.rsplit_once('.') else { return Ok(value) };
        let key = (component.to_owned(), path.to_owned());
        if let Some(others) = self.others.get(&key) {
            let mut own = value.to_dtype(DType::F32)?;
            for (saved, scale) in others {
                if let Some(added) = added(saved, which, own.dims())? {
                    own = (own + (added * *scale)?)?;
                }
            }
            return Ok(own);
        }
        let Some((layer, adapters)) = self.layers.get(&key) else { return Ok(value) };
        let mut own = value.to_dtype(DType::F32)?;
        for adapter in adapters {
            own = match which {
                "weight" => {
                    let (weight, bias) = adapter.merged(&own, None)?;
                    if bias.is_some() && layer.bias().is_none() {
                        bail!("{component}.{path}: a bias is added to it, and it has none to merge that into");
                    }
                    weight
                }
                "bias" => {
                    // What becomes of a bias is told by the adapter alone.
                    let weight = Tensor::ones(layer.weight().shape(), DType::F32, own.device())?;
                    adapter.merged(&weight, Some(&own))?.1.unwrap_or(own)
                }
                _ => own,
            };
        }
        Ok(own)
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

/// What files add to though no adapter goes on it, norms and tables of words: paths, and how many rows their weights have.
fn plain(stores: &[Arc<Store>]) -> BTreeMap<(String, String), usize> {
    let layers = layers(stores);
    let of = |s: &Arc<Store>| {
        let component = s.component().to_owned();
        let params = s.params().into_iter();
        params.filter_map(move |p| {
            let path = p.name().strip_suffix(".weight")?.to_owned();
            Some(((component.clone(), path), *p.shape().dims().first()?))
        })
    };
    adaptable(stores).flat_map(of).filter(|(key, _)| !layers.contains_key(key)).collect()
}

/// The name of a layer in a file, and the short name of one of its tensors: the ways in which programs spell them.
fn tensor(key: &str) -> Option<(String, &'static str)> {
    const SPELT: [(&str, &str); 19] = [
        (".lora_A.weight", DOWN),
        (".lora_B.weight", UP),
        (".lora_A.default.weight", DOWN),
        (".lora_B.default.weight", UP),
        (".lora_down.weight", DOWN),
        (".lora_up.weight", UP),
        (".lora_linear_layer.down.weight", DOWN),
        (".lora_linear_layer.up.weight", UP),
        (".lora_mid.weight", MIDDLE),
        (".lora_magnitude_vector.weight", MAGNITUDE),
        (".lora_magnitude_vector.default.weight", MAGNITUDE),
        (".dora_scale", DORA_SCALE),
        (".alpha", ALPHA),
        (".lora_B.bias", UP_BIAS),
        (".w_norm", DIFFERENCE),
        (".b_norm", BIAS_DIFFERENCE),
        (".oft_R.weight", SKEW),
        (".oft_R.default.weight", SKEW),
        (".oft_R.scaled_oft", SKEW_SCALED),
    ];
    if let Some((name, short)) = SPELT.iter().find_map(|(end, short)| Some((key.strip_suffix(end)?, *short))) {
        return Some((name.to_owned(), short));
    }
    // Those of the other adapters are spelt alike everywhere.
    if let Some((name, end)) = key.rsplit_once('.')
        && let Some(short) =
            PLAIN.into_iter().chain([MAGNITUDE, BUTTERFLY, BUTTERFLY_SCALE]).find(|short| *short == end)
    {
        return Some((name.to_owned(), short));
    }
    // kohya's rotations for FLUX.1, one of each part of a layer's rows: `oft_blocks.0`, `oft_blocks.1` …
    if let Some((name, part)) = key.split_once(".oft_blocks.") {
        let short = PARTS.into_iter().find(|short| short.strip_prefix("oft_blocks.") == Some(part))?;
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
/// Tucker's core of a LoRA on a convolution, of which A is made when it is read (LyCORIS).
const MIDDLE: &str = "lora_mid";
/// DoRA's magnitudes: `O`, or of the inputs `1 I`. PEFT gives a convolution's four dimensions, LyCORIS the weight's number.
const MAGNITUDE: &str = "lora_magnitude_vector";
const DORA_SCALE: &str = "dora_scale";
/// IA3's factors. LyCORIS has them less 1, and says beside them on which side they are.
const FACTORS: &str = "ia3_l";
/// And they leave the bias as it is, where PEFT's are on the whole output.
const WEIGHT_ALONE: &str = "weight_alone";
const ON_INPUTS: &str = "on_inputs";
const LESS_ONE: &str = "weight";
const ON_INPUT: &str = "on_input";
/// PEFT's rotations of a layer's inputs: OFT's, where OneTrainer says of some that they are scaled, and BOFT's with its
/// factors for the outputs.
const SKEW: &str = "oft_R";
const SKEW_SCALED: &str = "oft_R.scaled_oft";
const BUTTERFLY: &str = "boft_R";
const BUTTERFLY_SCALE: &str = "boft_s";
/// Its settings, from the configuration beside it.
const NEUMANN_TERMS: &str = "neumann_terms";
const BOUND: &str = "bound";
/// Rotations of a layer's outputs, and factors for them beside.
const BLOCKS: &str = "oft_blocks";
const RESCALE: &str = "rescale";
/// Rotations of parts of a layer's rows.
const PARTS: [&str; 4] = ["oft_blocks.0", "oft_blocks.1", "oft_blocks.2", "oft_blocks.3"];
/// Differences of a weight and of its bias, which norms have too.
const DIFFERENCE: &str = "diff";
const BIAS_DIFFERENCE: &str = "diff_b";
/// What a LoRA adds to the output beside its product.
const UP_BIAS: &str = "lora_B.bias";
/// Short names that are the keys' own.
const PLAIN: [&str; 18] = [
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "hada_t1",
    "hada_t2",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "lokr_t2",
    FACTORS,
    BLOCKS,
    RESCALE,
    DIFFERENCE,
    BIAS_DIFFERENCE,
];

/// Refuses to write what is only read.
fn writable(saved: &Saved) -> Result<()> {
    match saved.tensors.keys().find(|short| [SKEW, BUTTERFLY].contains(&short.as_str())) {
        Some(short) => bail!("{}: rotations of inputs (`{short}`) are read and merged, not written", saved.place()),
        None => Ok(()),
    }
}

/// A layer's tensors as the adapters know them, from what programs make of them.
fn tidied(mut saved: Saved) -> Result<Saved> {
    let place = saved.place();
    let tensors = &mut saved.tensors;
    if let Some(middle) = tensors.remove(MIDDLE) {
        let Some(down) = tensors.get(DOWN) else { bail!("{place}: a core of a LoRA with no factor to go with it") };
        let (r, s, k, _) = middle.dims4()?;
        let inputs = down.flatten_from(1)?; // S I
        let by_place = middle.permute((0, 2, 3, 1))?.contiguous()?.reshape((r * k * k, s))?;
        let whole = by_place.matmul(&inputs)?.reshape((r, k, k, inputs.dim(1)?))?;
        tensors.insert(DOWN.to_owned(), whole.permute((0, 3, 1, 2))?.contiguous()?);
    }
    // OneTrainer has those of a convolution as convolutions.
    for (_, t) in tensors.iter_mut().filter(|(short, t)| short.starts_with("hada_w") && t.rank() == 4) {
        *t = t.flatten_from(1)?;
    }
    if let Some(scale) = tensors.remove(DORA_SCALE) {
        let by_input = scale.rank() > 1 && scale.dim(0)? == 1 && scale.elem_count() > 1;
        let flat = scale.flatten_all()?;
        tensors.insert(MAGNITUDE.to_owned(), if by_input { flat.unsqueeze(0)? } else { flat });
    } else if let Some(magnitude) = tensors.get_mut(MAGNITUDE) {
        *magnitude = magnitude.flatten_all()?;
    }
    if let Some(on_input) = tensors.remove(ON_INPUT) {
        let Some(less) = tensors.remove(LESS_ONE) else { bail!("{place}: `on_input` stands without factors") };
        let by_input = on_input.to_dtype(DType::F32)?.flatten_all()?.get(0)?.to_scalar::<f32>()? != 0.0;
        let factors = (less + 1.0)?;
        let factors = match (factors.rank(), by_input) {
            (1, true) => factors.unsqueeze(0)?,
            (1, false) => factors.unsqueeze(1)?,
            _ => factors,
        };
        tensors.insert(FACTORS.to_owned(), factors);
        saved.constants.insert(if by_input { ON_INPUTS } else { WEIGHT_ALONE }.into(), 1.0);
    }
    Ok(saved)
}

/// Groups a file's keys by layer. `parse` splits a key into the layer's name in the file and the tensor's short name;
/// `None` means that the key is not of this layout, which makes the whole file not of it. `find` gives the layer.
fn grouped(
    file: &WeightFiles,
    parse: impl Fn(&str) -> Option<(String, &'static str)>,
    find: impl Fn(&str) -> Option<(String, String)>,
) -> Result<Option<Vec<Saved>>> {
    let mut all: BTreeMap<(String, String), Saved> = BTreeMap::new();
    let mut strange: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
    for key in file.keys() {
        if words::is_bundled(key) {
            continue; // a learned word is no layer's
        }
        let Some((name, short)) = parse(key) else { return Ok(None) };
        let Some((component, path)) = find(&name) else {
            strange.entry(name).or_default().push((key, short));
            continue;
        };
        // A mark is there or not, and its type is none of weights.
        let value = match short {
            SKEW_SCALED => Tensor::ones((), DType::F32, &Device::Cpu)?,
            _ => file.tensor(key, DType::F32, &Device::Cpu)?,
        };
        let saved = all.entry((component.clone(), path.clone())).or_insert_with(|| Saved {
            component,
            path,
            tensors: BTreeMap::new(),
            constants: BTreeMap::new(),
        });
        match short {
            ALPHA => {
                let value = value.to_dtype(DType::F32)?.flatten_all()?.get(0)?.to_scalar::<f32>()?;
                saved.constants.insert(ALPHA.into(), f64::from(value));
            }
            _ => {
                saved.tensors.insert(short.to_owned(), value);
            }
        }
    }
    // ComfyUI has a projection where the model has none, and writes that nothing is added to it.
    let mut unmatched: Vec<&str> = Vec::new();
    for keys in strange.values() {
        let mut adds = keys.iter().all(|(_, short)| *short == DOWN || *short == ALPHA);
        for (key, _) in keys.iter().filter(|(_, short)| *short != DOWN && *short != ALPHA) {
            let value = file.tensor(key, DType::F32, &Device::Cpu)?;
            adds |= value.elem_count() == 0 || value.abs()?.max_all()?.to_scalar::<f32>()? != 0.0;
        }
        unmatched.extend(keys.iter().filter(|_| adds).map(|(key, _)| *key));
    }
    if !unmatched.is_empty() {
        let path = file.paths().first().map(|p| p.display().to_string()).unwrap_or_default();
        bail!(
            "{path}: {} of {} keys fit no layer of this model, the first: {}. The adapter was made for another model",
            unmatched.len(),
            file.keys().count(),
            unmatched.iter().take(5).copied().collect::<Vec<_>>().join(", ")
        );
    }
    let found = all.into_values().map(tidied).collect::<Result<Vec<_>>>()?;
    let found: Vec<Saved> = found.into_iter().flat_map(apart).collect();
    Ok((!found.is_empty()).then_some(found))
}

/// A layer's adapters, where a file has a difference beside another one: they stack.
fn apart(mut saved: Saved) -> Vec<Saved> {
    let difference = |short: &str| short == DIFFERENCE || short == BIAS_DIFFERENCE;
    if saved.tensors.keys().all(|short| difference(short)) || !saved.tensors.keys().any(|short| difference(short)) {
        return vec![saved];
    }
    let own = saved.tensors.clone();
    let (beside, rest) = own.into_iter().partition(|(short, _)| difference(short));
    saved.tensors = rest;
    let other = Saved { tensors: beside, constants: BTreeMap::new(), ..saved.clone() };
    vec![saved, other]
}
