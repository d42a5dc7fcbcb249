//! kohya's layout, which ComfyUI, Forge and A1111 load: `lora_unet_<path with _>.lora_down.weight`, `lora_up.weight` and
//! `alpha`. The text encoders are `lora_te_`, or `lora_te1_` and `lora_te2_` where there are two, and T5 `lora_te3_`; SDXL's
//! UNet and the transformers go by their original names (`input_blocks_4_1_…`, `double_blocks_0_img_attn_qkv`). Of an
//! original layer whose rows are several of ours there is one addition, whose rank is the sum of theirs.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor, bail};
use sconce_core::adapter::{AdapterLayout, Saved};
use sconce_nn::layers::Shape;
use sconce_nn::store::Source;
use sconce_nn::weights::{Form, WeightFiles};
use sconce_nn::{Adapted, Linear, Store};
use sconce_sdk::prelude::*;

use super::{
    ALPHA, BIAS_DIFFERENCE, BLOCKS, DIFFERENCE, DORA_SCALE, DOWN, FACTORS, LESS_ONE, MAGNITUDE, ON_INPUT, ON_INPUTS,
    PARTS, RESCALE, SKEW, SKEW_SCALED, UP, WEIGHT_ALONE,
};
use crate::original::{mmdit, unet};

/// kohya's layout, which ComfyUI, Forge and A1111 load.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kohya {}

impl AdapterLayout for Kohya {
    fn write(&self, stores: &[Arc<Store>], adapters: &[Saved]) -> Result<BTreeMap<String, Tensor>> {
        let (names, layers) = (Names::of(stores), super::layers(stores));
        let mut wholes: BTreeMap<&str, Vec<(&Saved, &Rows)>> = BTreeMap::new();
        for a in adapters {
            let Some((name, rows)) = names.written.get(&(a.component.clone(), a.path.clone())) else {
                bail!("{}.{}: the model has no such layer", a.component, a.path)
            };
            wholes.entry(name).or_default().push((a, rows));
        }
        let mut out = BTreeMap::new();
        for (name, parts) in wholes {
            if parts.iter().all(|(a, _)| a.tensors.keys().all(|short| short == DOWN || short == UP)) {
                let [down, up, alpha] = joined(&parts)?;
                out.insert(format!("{name}.lora_down.weight"), down);
                out.insert(format!("{name}.lora_up.weight"), up);
                out.insert(format!("{name}.alpha"), alpha);
                continue;
            }
            if parts.iter().all(|(a, _)| a.tensors.keys().all(|short| short == DIFFERENCE || short == BIAS_DIFFERENCE))
            {
                for short in [DIFFERENCE, BIAS_DIFFERENCE] {
                    out.extend(difference(&parts, short)?.map(|whole| (format!("{name}.{short}"), whole)));
                }
                continue;
            }
            for (a, rows) in parts {
                // No other adapter of some of a layer's rows is one of all of them: such layers go by their names here.
                let whole = if rows.count == rows.of { in_order(a, &rows.form)? } else { None };
                let layer = &layers[&(a.component.clone(), a.path.clone())];
                match whole {
                    Some(whole) => spelt(&whole, layer, name, &mut out)?,
                    None => spelt(a, layer, &spell("lycoris", &a.path), &mut out)?,
                }
            }
        }
        Ok(out)
    }

    fn carries(&self, short: &str) -> bool {
        // Nobody draws with IA3 in this layout; `sconce convert` writes it where that is exact.
        [DOWN, UP, MAGNITUDE].contains(&short) || (super::PLAIN.contains(&short) && short != FACTORS)
    }

    fn read(&self, stores: &[Arc<Store>], file: &WeightFiles) -> Result<Option<Vec<Saved>>> {
        let names = Names::of(stores);
        // A key that begins like none of these is of another layout, or of no adapter.
        let ia3 = |key: &str| {
            let (name, end) = key.rsplit_once('.')?;
            [LESS_ONE, ON_INPUT].into_iter().find(|short| *short == end).map(|short| (name.to_owned(), short))
        };
        let begins = |(name, _): &(String, &'static str)| {
            BEGINS.iter().any(|b| name.starts_with(b)) || names.known(name).is_some()
        };
        let parse = |key: &str| super::tensor(key).or_else(|| ia3(key)).filter(begins);
        let known = |name: &str| Some((String::new(), names.known(name)?));
        let Some(wholes) = super::grouped(file, parse, known)? else { return Ok(None) };
        let mut found = Vec::new();
        for whole in &wholes {
            found.extend(parted(whole, &names.read[&whole.path])?);
        }
        Ok(Some(found))
    }
}

/// A layer's tensors by the names that LyCORIS gives them.
fn spelt(saved: &Saved, layer: &Adapted, name: &str, out: &mut BTreeMap<String, Tensor>) -> Result<()> {
    super::writable(saved)?;
    let outputs = layer.weight().shape().dims()[0];
    let mut saved = saved.clone();
    bounded(&mut saved, outputs)?;
    for (short, value) in &saved.tensors {
        match short.as_str() {
            DOWN => out.insert(format!("{name}.lora_down.weight"), value.clone()),
            UP => out.insert(format!("{name}.lora_up.weight"), value.clone()),
            MAGNITUDE => {
                // Of the weight's number of dimensions.
                let flat = value.elem_count();
                let conv = saved.tensors.get(DOWN).is_some_and(|down| down.rank() == 4);
                let more = vec![1; if conv { 2 } else { 0 }];
                let sides = if value.rank() == 1 { [flat, 1] } else { [1, flat] };
                out.insert(format!("{name}.{DORA_SCALE}"), value.reshape([&sides, more.as_slice()].concat())?)
            }
            FACTORS => {
                let by_input = saved.constants.contains_key(ON_INPUTS)
                    || if value.rank() == 2 { value.dim(0)? == 1 } else { value.dim(1)? != outputs };
                if layer.bias().is_some() && !by_input && !saved.constants.contains_key(WEIGHT_ALONE) {
                    bail!(
                        "{}: its factors are on the bias too, and LyCORIS's are not: write it for PEFT",
                        saved.place()
                    );
                }
                let value = if value.rank() == 2 { value.flatten_all()? } else { value.clone() };
                out.insert(format!("{name}.{ON_INPUT}"), Tensor::new(i64::from(by_input), &Device::Cpu)?);
                out.insert(format!("{name}.{LESS_ONE}"), (value - 1.0)?)
            }
            other => out.insert(format!("{name}.{other}"), value.clone()),
        };
    }
    if let Some(alpha) = saved.constants.get(ALPHA) {
        out.insert(format!("{name}.alpha"), Tensor::new(*alpha as f32, &Device::Cpu)?);
    }
    Ok(())
}

/// What layers' names begin with: kohya's, also of its rotations, OneTrainer's, SimpleTuner's, ComfyUI's.
const BEGINS: [&str; 7] =
    ["lora_unet_", "oft_unet_", "lora_te", "lora_transformer_", "lycoris_", "diffusion_model.", "text_encoders."];

/// A layer by component and path.
type Layer = (String, String);

/// Which rows of a layer in a file a layer of the model is.
#[derive(Clone, Debug)]
struct Rows {
    start: usize,
    count: usize,
    /// Rows of the whole.
    of: usize,
    form: Form,
}

/// A layer's path as a word of a name.
fn spell(prefix: &str, path: &str) -> String {
    format!("{prefix}_{}", path.replace('.', "_"))
}

/// What a layer of the i-th of `count` text encoders is called: written, and read too, as ComfyUI calls it and under the number
/// that OneTrainer gives FLUX.1's T5.
fn encoder(path: &str, i: usize, count: usize) -> (String, Vec<String>) {
    let t5 = path.starts_with("encoder.") || path.starts_with("shared");
    let (written, own): (String, &[&str]) = match count {
        _ if t5 => ("lora_te3".to_owned(), &["t5xxl"]),
        1 => ("lora_te".to_owned(), &["clip_l", "clip_h"]),
        _ => (format!("lora_te{}", i + 1), if i == 0 { &["clip_l"] } else { &["clip_g"] }),
    };
    let comfy = own.iter().map(|program| format!("text_encoders.{program}.transformer.{path}"));
    (spell(&written, path), comfy.chain([spell(&format!("lora_te{}", i + 1), path)]).collect())
}

/// The layers' names in this layout, both ways.
struct Names {
    written: BTreeMap<Layer, (String, Rows)>,
    read: BTreeMap<String, Vec<(Layer, Rows)>>,
}

impl Names {
    fn of(stores: &[Arc<Store>]) -> Self {
        let encoders: Vec<&str> = stores.iter().skip(2).map(|s| s.component()).collect();
        let layers = super::layers(stores);
        let paths: Vec<String> = stores[0].layers().iter().map(|l| l.path().to_owned()).collect();
        let blocks = unet::Blocks::of(&paths);
        let is_unet = paths.iter().any(|path| path.starts_with("down_blocks."));
        let sd3 = paths.iter().any(|path| path == "pos_embed.proj");
        let mut names = Self { written: BTreeMap::new(), read: BTreeMap::new() };
        let mut originals: BTreeMap<String, Vec<(usize, Layer, usize, Form)>> = BTreeMap::new();
        for (layer, adapted) in layers {
            let (component, path) = &layer;
            let (inputs, outputs) = match adapted.shape() {
                Shape::Linear { input, output } | Shape::Conv { input, output, .. } => (input, output),
            };
            if let Some(i) = encoders.iter().position(|e| e == component) {
                let alone = vec![(0, layer.clone(), outputs, Form::Same)];
                let (written, read) = encoder(path, i, encoders.len());
                read.into_iter().for_each(|name| names.read_as(name, alone.clone()));
                names.write(written, alone);
                continue;
            }
            let alone = vec![(0, layer.clone(), outputs, Form::Same)];
            for prefix in ["lora_transformer", "lycoris"] {
                names.read_as(spell(prefix, path), alone.clone());
            }
            // SimpleTuner's, for ComfyUI: its beginning, diffusers' path.
            names.read_as(format!("diffusion_model.{path}"), alone.clone());
            let original = match is_unet {
                true => unet::original(path, &blocks).map(|name| (name, 0, Form::Same)),
                false => mmdit::original(path, sd3, inputs, outputs).map(|o| (o.name, o.part, o.form)),
            };
            names.write(spell("lora_unet", path), alone);
            if let Some((name, part, form)) = original {
                originals.entry(name).or_default().push((part, layer, outputs, form));
            }
        }
        // Norms and tables are read alone.
        for (layer, rows) in super::plain(stores) {
            let (component, path) = &layer;
            let alone = vec![(0, layer.clone(), rows, Form::Same)];
            let mut all: Vec<String> = Vec::new();
            if let Some(i) = encoders.iter().position(|e| e == component) {
                let (written, read) = encoder(path, i, encoders.len());
                all = [vec![written], read].concat();
            } else {
                all.extend(["lora_unet", "lora_transformer", "lycoris"].map(|prefix| spell(prefix, path)));
                if let Some(name) = is_unet.then(|| unet::original(path, &blocks)).flatten() {
                    all.extend([format!("diffusion_model.{name}"), spell("lora_unet", &name)]);
                }
            }
            all.into_iter().for_each(|name| names.read_as(name, alone.clone()));
        }
        // Both spellings are read; the original is written, but for the UNets that kohya names as diffusers does.
        let plain = is_unet && encoders.len() == 1;
        for (name, parts) in originals {
            names.read_as(format!("diffusion_model.{name}"), parts.clone());
            match plain {
                true => names.read_as(spell("lora_unet", &name), parts),
                false => names.write(spell("lora_unet", &name), parts),
            }
        }
        names
    }

    /// A layer's name as it is read, from the ways in which programs begin it: with another word, or with none.
    fn known(&self, name: &str) -> Option<String> {
        let rotation = name.strip_prefix("oft_unet_").map(|rest| format!("lora_unet_{rest}"));
        let whole = name.strip_prefix("model.").map(str::to_owned);
        let tried = [Some(name.to_owned()), rotation, whole, Some(format!("diffusion_model.{name}"))];
        tried.into_iter().flatten().find(|name| self.read.contains_key(name))
    }

    /// A layer of the file, made of these of the model: place, layer, rows and their order. A later name of a layer is the
    /// one that is written.
    fn write(&mut self, name: String, parts: Vec<(usize, Layer, usize, Form)>) {
        self.read_as(name.clone(), parts);
        for (layer, rows) in &self.read[&name] {
            self.written.insert(layer.clone(), (name.clone(), rows.clone()));
        }
    }

    /// The same, for reading alone.
    fn read_as(&mut self, name: String, mut parts: Vec<(usize, Layer, usize, Form)>) {
        parts.sort();
        let of = parts.iter().map(|(_, _, count, _)| count).sum();
        let mut start = 0;
        let row = |(_, layer, count, form)| {
            let rows = Rows { start, count, of, form };
            start += count;
            (layer, rows)
        };
        self.read.insert(name, parts.into_iter().map(row).collect());
    }
}

/// One addition of several: the ranks one after the other, each acting on its own rows. A, B and alpha.
fn joined(parts: &[(&Saved, &Rows)]) -> Result<[Tensor; 3]> {
    let (mut downs, mut ups, mut scales) = (Vec::new(), Vec::new(), Vec::new());
    for (saved, rows) in parts {
        let (down, up, scale) = super::factors(saved)?;
        scales.push(scale);
        downs.push(down.clone());
        ups.push(rows.form.stored(up)?.pad_with_zeros(0, rows.start, rows.of - rows.start - rows.count)?);
    }
    // One alpha speaks for all; where they differ, each is in its B.
    let scale = if scales.iter().all(|s| *s == scales[0]) { scales[0] } else { 1.0 };
    for (up, own) in ups.iter_mut().zip(&scales) {
        if *own != scale {
            *up = (&*up * (own / scale))?;
        }
    }
    let (down, up) = (Tensor::cat(&downs, 0)?, Tensor::cat(&ups, 1)?);
    let alpha = Tensor::new((scale * down.dim(0)? as f64) as f32, &Device::Cpu)?;
    Ok([down, up, alpha])
}

/// One difference of several: each of its own rows.
fn difference(parts: &[(&Saved, &Rows)], short: &str) -> Result<Option<Tensor>> {
    let mut whole: Option<Tensor> = None;
    for (saved, rows) in parts {
        let Some(own) = saved.tensors.get(short) else { continue };
        let own = rows.form.stored(own)?.pad_with_zeros(0, rows.start, rows.of - rows.start - rows.count)?;
        whole = Some(match whole {
            Some(other) => (other + own)?,
            None => own,
        });
    }
    Ok(whole)
}

/// An adapter of a layer whose rows a file has in another order, with its own in that order; `None` where it has none such.
fn in_order(saved: &Saved, form: &Form) -> Result<Option<Saved>> {
    let mut whole = saved.clone();
    if *form == Form::Same {
        return Ok(Some(whole));
    }
    for (short, t) in &mut whole.tensors {
        match along(saved, short, t) {
            Some(Along::Inputs) => {}
            Some(Along::Outputs) => *t = form.stored(t)?,
            Some(Along::Blocks) if t.dim(0)?.is_multiple_of(2) => *t = form.stored(t)?,
            _ => return Ok(None),
        }
    }
    Ok(Some(whole))
}

/// And back: to each layer of the model its rows of what is on the whole.
fn parted(whole: &Saved, parts: &[(Layer, Rows)]) -> Result<Vec<Saved>> {
    if whole.tensors.keys().all(|short| short == DOWN || short == UP) {
        return parted_lora(whole, parts);
    }
    if whole.tensors.keys().any(|short| PARTS.contains(&short.as_str())) {
        return rotations(whole, parts);
    }
    if let [((component, path), Rows { form: Form::Same, .. })] = parts {
        return Ok(vec![Saved { component: component.clone(), path: path.clone(), ..whole.clone() }]);
    }
    let place = &whole.path;
    let mut whole = whole.clone();
    if whole.tensors.keys().all(|short| short.starts_with("lokr_")) {
        whole.tensors = BTreeMap::from([("diff".to_owned(), kronecker(&whole)?)]);
    }
    bounded(&mut whole, parts.first().map_or(0, |(_, rows)| rows.of))?;
    if let Some((other, _)) = whole.tensors.iter().find(|(short, t)| along(&whole, short, t).is_none()) {
        bail!("{place}: it is {} layers of this model in one, and its `{other}` cannot be taken apart", parts.len());
    }
    let mut found = Vec::new();
    for ((component, path), rows) in parts {
        let part = |(short, t): (&String, &Tensor)| {
            let (side, along) = match along(&whole, short, t) {
                Some(Along::Blocks) => (t.dim(1)?, Along::Blocks),
                Some(along) => (1, along),
                None => (1, Along::Inputs),
            };
            if along == Along::Inputs {
                return Ok((short.clone(), t.clone()));
            }
            if t.dim(0)? * side != rows.of {
                bail!("{place}: `{short}` is {:?}, this model has {} rows: it was made for another", t.dims(), rows.of);
            }
            let halves = if rows.form == Form::Same { 1 } else { 2 };
            let whole = rows.start.is_multiple_of(side) && rows.count.is_multiple_of(side * halves);
            if along == Along::Blocks && !whole {
                bail!("{place}: {path} is {} of its rows from {}, and its blocks have {side}", rows.count, rows.start);
            }
            let own = t.narrow(0, rows.start / side, rows.count / side)?.contiguous()?;
            Ok((short.clone(), rows.form.seen(&own)?))
        };
        let tensors = whole.tensors.iter().map(part).collect::<Result<_>>()?;
        let constants = whole.constants.clone();
        found.push(Saved { component: component.clone(), path: path.clone(), tensors, constants });
    }
    Ok(found)
}

/// What a tensor of an adapter goes along.
#[derive(Clone, Copy, PartialEq)]
enum Along {
    Outputs,
    Inputs,
    /// Blocks of outputs.
    Blocks,
}

/// What is of outputs is the rows of it, and of rotations those blocks that are of no other layer's rows; what is of inputs is the
/// same for all. A norm of inputs is of all rows together.
fn along(saved: &Saved, short: &str, t: &Tensor) -> Option<Along> {
    match short {
        UP | "hada_w1_a" | "hada_w2_a" | DIFFERENCE | BIAS_DIFFERENCE | RESCALE => Some(Along::Outputs),
        DOWN | "hada_w1_b" | "hada_w2_b" | SKEW | SKEW_SCALED => Some(Along::Inputs),
        MAGNITUDE if t.rank() == 1 => Some(Along::Outputs),
        FACTORS if saved.constants.contains_key(ON_INPUTS) || t.dims()[0] == 1 => Some(Along::Inputs),
        FACTORS => Some(Along::Outputs),
        BLOCKS if t.rank() == 3 => Some(Along::Blocks),
        _ => None,
    }
}

/// Rotations whose bound is in them: it is on all of them together, and programs read it in different ways.
fn bounded(whole: &mut Saved, outputs: usize) -> Result<()> {
    let Some(blocks) = whole.tensors.get_mut(BLOCKS) else { return Ok(()) };
    let bound = whole.constants.insert(ALPHA.to_owned(), 0.0).unwrap_or(0.0) * outputs as f64;
    let free = blocks.to_dtype(DType::F32)?;
    let skew = (&free - free.transpose(D::Minus1, D::Minus2)?)?;
    let norm = f64::from(skew.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>()?);
    if bound > 0.0 && norm > bound {
        *blocks = (free * (bound / norm))?.to_dtype(blocks.dtype())?;
    }
    Ok(())
}

/// Rotations that a file has for each part by itself.
fn rotations(whole: &Saved, parts: &[(Layer, Rows)]) -> Result<Vec<Saved>> {
    let place = &whole.path;
    if let Some(other) = whole.tensors.keys().find(|short| !PARTS.contains(&short.as_str())) {
        bail!("{place}: beside rotations of its parts it has `{other}`");
    }
    if parts.iter().any(|(_, rows)| rows.form != Form::Same) || whole.tensors.len() != parts.len() {
        bail!("{place}: it has {} rotations, and is {} layers of this model", whole.tensors.len(), parts.len());
    }
    let part = |((component, path), blocks): (&Layer, &Tensor)| Saved {
        component: component.clone(),
        path: path.clone(),
        tensors: BTreeMap::from([(BLOCKS.to_owned(), blocks.clone())]),
        constants: whole.constants.clone(),
    };
    Ok(parts.iter().map(|(layer, _)| layer).zip(whole.tensors.values()).map(part).collect())
}

/// What a Kronecker product adds to a linear layer, by the adapter that makes it.
fn kronecker(whole: &Saved) -> Result<Tensor> {
    let side = |axis: usize| -> Result<usize> {
        let half = |n: usize| -> Result<usize> {
            let [full, part] = [format!("lokr_w{n}"), format!("lokr_w{n}_{}", ["a", "b"][axis])];
            match (whole.tensors.get(&full), whole.tensors.get(&part)) {
                (Some(t), _) | (None, Some(t)) if t.rank() == 2 => t.dim(axis),
                _ => bail!("{}: its tensors are not those of a Kronecker product on a linear layer", whole.path),
            }
        };
        Ok(half(1)? * half(2)?)
    };
    let (output, input) = (side(0)?, side(1)?);
    let store = Store::new("whole", Source::Shapes, DType::F32, &Device::Cpu);
    Linear::no_bias(&store.root().at("layer"), input, output)?;
    let layer = &store.layers()[0];
    let zeros = Tensor::zeros((output, input), DType::F32, &Device::Cpu)?;
    Ok(super::restored(whole, layer, 1.0)?.merged(&zeros, None)?.0)
}

/// A LoRA's rows, with those of the ranks that act on them.
fn parted_lora(whole: &Saved, parts: &[(Layer, Rows)]) -> Result<Vec<Saved>> {
    let get = |name: &str| match whole.tensors.get(name) {
        Some(t) => Ok(t.clone()),
        None => bail!("the LoRA file has no `{name}` for {}", whole.path),
    };
    let (down, up) = (get(DOWN)?, get(UP)?);
    let (rank, alpha) = (down.dim(0)?, whole.constants.get(ALPHA).copied());
    let mut found = Vec::new();
    for ((component, path), rows) in parts {
        let (mut down, mut up, mut kept) = (down.clone(), up.clone(), rank);
        if parts.len() > 1 {
            if up.dim(0)? != rows.of || up.dim(1)? != rank {
                bail!(
                    "{}: B is {:?}, the layers of this model ask for {:?}: it was made for another model",
                    whole.path,
                    up.dims(),
                    [rows.of, rank]
                );
            }
            up = up.narrow(0, rows.start, rows.count)?;
            let acts: Vec<f32> = up.abs()?.max(0)?.to_vec1()?;
            let acting: Vec<u32> = (0u32..).zip(&acts).filter(|(_, a)| **a > 0.0).map(|(i, _)| i).collect();
            if acting.is_empty() {
                continue;
            }
            kept = acting.len();
            let acting = Tensor::new(acting, up.device())?;
            (down, up) = (down.index_select(&acting, 0)?, up.contiguous()?.index_select(&acting, 1)?);
        }
        let up = rows.form.seen(&up)?;
        let scale = alpha.map_or(1.0, |alpha| alpha / rank as f64);
        found.push(Saved {
            component: component.clone(),
            path: path.clone(),
            tensors: BTreeMap::from([(DOWN.to_owned(), down), (UP.to_owned(), up)]),
            constants: BTreeMap::from([(ALPHA.to_owned(), scale * kept as f64)]),
        });
    }
    Ok(found)
}

register!(AdapterLayout, "kohya", Kohya);

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(path: &str, outputs: usize, rank: usize, alpha: f64) -> Result<Saved> {
        let stream = sconce_nn::rng::Stream::new(1, path);
        let normal = |dims: [usize; 2]| stream.normal(dims.as_slice(), &Device::Cpu);
        let tensors =
            BTreeMap::from([(DOWN.to_owned(), normal([rank, 5])?), (UP.to_owned(), normal([outputs, rank])?)]);
        let constants = BTreeMap::from([(ALPHA.to_owned(), alpha)]);
        Ok(Saved { component: "transformer".into(), path: path.into(), tensors, constants })
    }

    /// What is added to the layer's matrix.
    fn product(saved: &Saved) -> Result<Vec<Vec<f32>>> {
        let (down, up) = (&saved.tensors[DOWN], &saved.tensors[UP]);
        (up.matmul(down)? * (saved.constants[ALPHA] / down.dim(0)? as f64))?.to_vec2()
    }

    #[test]
    fn layers_that_are_rows_of_one_come_back_by_themselves() -> Result<()> {
        let rows = |start, count| Rows { start, count, of: 11, form: Form::Same };
        let all = [("q", rows(0, 3)), ("k", rows(3, 3)), ("mlp", rows(6, 5))];
        // Of different ranks and scales, and one that is not adapted.
        let [q, mlp] = [saved("q", 3, 2, 1.0)?, saved("mlp", 5, 3, 3.0)?];
        let [down, up, alpha] = joined(&[(&q, &all[0].1), (&mlp, &all[2].1)])?;
        assert_eq!((down.dims(), up.dims()), (&[5, 5][..], &[11, 5][..]));
        let whole = Saved {
            component: String::new(),
            path: "linear1".into(),
            tensors: BTreeMap::from([(DOWN.to_owned(), down), (UP.to_owned(), up)]),
            constants: BTreeMap::from([(ALPHA.to_owned(), f64::from(alpha.to_scalar::<f32>()?))]),
        };
        let parts = all.map(|(path, rows)| (("transformer".to_owned(), path.to_owned()), rows));
        let found = parted(&whole, &parts)?;
        assert_eq!(found.iter().map(|s| s.path.as_str()).collect::<Vec<_>>(), ["q", "mlp"]);
        for (found, was) in found.iter().zip([&q, &mlp]) {
            assert_eq!(found.tensors[UP].dims(), was.tensors[UP].dims());
            let pairs =
                product(found)?.into_iter().flatten().zip(product(was)?.into_iter().flatten()).collect::<Vec<_>>();
            assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-6), "{pairs:?}");
        }
        let mut other = parts;
        other.iter_mut().for_each(|(_, rows)| rows.of = 12);
        let error = parted(&whole, &other).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("another model"), "{error}");
        Ok(())
    }

    #[test]
    fn the_vectors_of_a_modulation_change_places() -> Result<()> {
        let up = Tensor::new(&[[1f32], [2.0], [3.0], [4.0]], &Device::Cpu)?;
        assert_eq!(Form::Halved.seen(&up)?.flatten_all()?.to_vec1::<f32>()?, [3.0, 4.0, 1.0, 2.0]);
        assert!(mmdit::original("norm_out.linear", false, 4, 8).is_some_and(|o| o.form == Form::Halved));
        let last = mmdit::original("transformer_blocks.23.norm1_context.linear", true, 4, 8);
        assert!(last.is_some_and(
            |o| o.form == Form::Halved && o.name == "joint_blocks.23.context_block.adaLN_modulation.1"
        ));
        Ok(())
    }
}
