//! What a run trains: the tensors with their groups, and the adapters they belong to.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor, bail};
use sconce_nn::rng::Stream;
use sconce_nn::{Adapted, Param, Store};

use super::tokens::{self, Taught};
use crate::adapter::{self, Adapter, Attached, Saved};
use crate::model::Model;
use crate::optimizer::Trained;
use crate::recipe::{GroupTable, Recipe, Task};

/// The trained tensors, in one order for the whole run.
pub struct Weights {
    /// One each.
    pub params: Vec<Trained>,
    /// The adapters that they belong to; none in a full fine-tune.
    pub adapters: Vec<Attached>,
    /// The words that the text encoders were taught.
    pub words: Vec<Taught>,
}

impl Weights {
    /// Makes the recipe's components train, or puts its adapter on them, and teaches its words.
    pub fn prepare(recipe: &Recipe, model: &dyn Model) -> Result<Self> {
        let stores = &model.stores();
        let (mut adapters, mut params) = (Vec::new(), Vec::new());
        let (kept_as, seed) = (recipe.train.weights.dtype(), recipe.train.seed);
        let mut from: BTreeMap<String, Saved> = BTreeMap::new();
        if let Some(file) = &recipe.train.adapter_from {
            for saved in adapter::read(stores, Path::new(file))? {
                if let Some(other) = from.insert(saved.place(), saved) {
                    bail!(
                        "train.adapter_from: `{file}` has two adapters on {}, and a run goes on with one",
                        other.place()
                    );
                }
            }
        }
        for Part { store, lr_factor, layers } in parts(recipe, stores)? {
            match &recipe.adapter {
                None => params.extend(full(&store, lr_factor, kept_as)?),
                Some(adapter) => {
                    let (attached, trained) =
                        adapted(&**adapter, &store, &layers, lr_factor, kept_as, seed, &mut from)?;
                    adapters.extend(attached);
                    params.extend(trained);
                }
            }
        }
        if let Some(idle) = from.keys().next() {
            let file = recipe.train.adapter_from.as_deref().unwrap_or_default();
            bail!(
                "train.adapter_from: `{file}` adapts {idle}, which the recipe does not train: {} layers in all",
                from.len()
            );
        }
        let (words, trained) = tokens::teach(recipe, model)?;
        params.extend(trained);
        group(&mut params, &recipe.train.group)?;
        Ok(Self { params, adapters, words })
    }

    /// The number of scalars that train.
    pub fn elements(&self) -> usize {
        self.params.iter().map(|p| p.var.elem_count()).sum()
    }

    /// The values by component and parameter name, for saving a full fine-tune. Call under [`Averages::swapped`](super::averages::Averages::swapped).
    pub fn by_component(&self) -> BTreeMap<String, BTreeMap<String, Tensor>> {
        let mut out: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
        for p in self.params.iter().filter(|p| !tokens::is_word(&p.name)) {
            if let Some((component, name)) = p.name.split_once('/') {
                let value = p.var.as_tensor().detach();
                out.entry(component.to_owned()).or_default().insert(name.to_owned(), value);
            }
        }
        out
    }

    /// The adapters' values, for saving. Call under [`Averages::swapped`](super::averages::Averages::swapped).
    pub fn saved_adapters(&self) -> Result<Vec<Saved>> {
        let trained = |(k, p): (&String, &Param)| (k.clone(), p.var().expect("an adapter's parameters train").detach());
        let value = |a: &Attached| a.saved(a.params.iter().map(trained).collect(), a.constants.clone());
        self.adapters.iter().map(value).collect()
    }
}

/// What trains, with each component's factor on the learning rate. The first of the stores is the denoiser's.
fn components(recipe: &Recipe, stores: &[Arc<Store>]) -> BTreeMap<String, f64> {
    if recipe.train.components.is_empty() {
        if recipe.adapter.is_none() && !recipe.train.token.is_empty() {
            return BTreeMap::new();
        }
        let component = match recipe.train.task {
            Task::Denoiser => stores.first().map_or("", |denoiser| denoiser.component()),
            Task::Autoencoder => "vae",
        };
        return BTreeMap::from([(component.to_owned(), 1.0)]);
    }
    recipe.train.components.clone()
}

/// A component that trains.
pub struct Part {
    /// Its parameters.
    pub store: Arc<Store>,
    /// Factor on the learning rate.
    pub lr_factor: f64,
    /// Its layers that the recipe's adapter is for; all of it trains where there is none.
    pub layers: Vec<Adapted>,
}

/// What of a model trains. `stores`: the denoiser's first.
///
/// # Errors
/// If a component is not there or gets no gradient, or trains in a form that cannot, or a pattern matches no layer.
pub fn parts(recipe: &Recipe, stores: &[Arc<Store>]) -> Result<Vec<Part>> {
    let (mut parts, mut paths) = (Vec::new(), Vec::new());
    for (component, lr_factor) in components(recipe, stores) {
        let Some(store) = stores.iter().find(|s| s.component() == component) else {
            let names: Vec<&str> = stores.iter().map(|s| s.component()).collect();
            bail!("train.components: this model has no `{component}`, it has {}", names.join(", "));
        };
        if (component == "vae") != (recipe.train.task == Task::Autoencoder) {
            bail!("train.components: `{component}` gets no gradient under train.task = {:?}", recipe.train.task);
        }
        let mut layers = Vec::new();
        match &recipe.adapter {
            Some(adapter) => {
                layers = store.layers();
                if layers.is_empty() {
                    bail!(
                        "adapter: `{component}` has no layers that adapters could go to: leave out [adapter], and its parameters \
                         train themselves"
                    );
                }
                layers.retain(|layer| {
                    let path = format!("{component}.{}", layer.path());
                    let wanted = adapter.targets().iter().any(|t| matches(t, &path));
                    paths.push(path);
                    wanted
                });
                if layers.is_empty() {
                    let targets = adapter.targets().join(", ");
                    bail!(
                        "train.components: no layer of `{component}` matches adapter.targets = {targets}{}",
                        like(&paths)
                    );
                }
            }
            None if recipe.model.quantise.get(&component).is_some_and(|how| how.format().is_some()) => bail!(
                "model.quantise: `{component}` trains in full, and what trains is not kept in few bits: train an \
                 adapter, or take it out of model.quantise"
            ),
            None if recipe.model.swap_blocks > 0 && Arc::ptr_eq(store, &stores[0]) => bail!(
                "model.swap_blocks: `{component}` trains in full, and what trains stays on the device: train an \
                 adapter, or take it out"
            ),
            None => {}
        }
        parts.push(Part { store: store.clone(), lr_factor, layers });
    }
    let mut targets = recipe.adapter.iter().flat_map(|a| a.patterns());
    if let Some(idle) = targets.find(|t| !paths.iter().any(|p| matches(t, p))) {
        bail!("adapter: no layer of the components that train matches `{idle}`{}", like(&paths));
    }
    Ok(parts)
}

/// How the layers of a network are named: two from its middle.
fn like(paths: &[String]) -> String {
    let Some(one) = paths.get(paths.len() / 2) else { return String::new() };
    format!("; they are named like `{one}`, `{}`", paths[(paths.len() / 2 + 1) % paths.len()])
}

fn full(store: &Arc<Store>, lr_factor: f64, kept_as: DType) -> Result<Vec<Trained>> {
    store.recall()?;
    let trained = |p: sconce_nn::Param| {
        let exact = store.exact(&p)?.to_dtype(kept_as)?;
        let var = p.train_as(kept_as)?;
        var.set(&exact)?;
        let name = format!("{}/{}", store.component(), p.name());
        Ok(Trained { lr_factor, ..Trained::new(name, var) })
    };
    store.params().into_iter().map(trained).collect()
}

fn adapted(
    adapter: &dyn Adapter,
    store: &Store,
    layers: &[Adapted],
    lr_factor: f64,
    kept_as: DType,
    seed: u64,
    from: &mut BTreeMap<String, Saved>,
) -> Result<(Vec<Attached>, Vec<Trained>)> {
    let (mut all, mut trained, component) = (Vec::new(), Vec::new(), store.component());
    for layer in layers {
        let place = format!("{component}.{}", layer.path());
        let init = Stream::new(seed, &format!("adapter {place}"));
        let attached = match from.remove(&place) {
            Some(from) => adapter.start(store, layer, &init, &from).map_err(|e| e.context("train.adapter_from"))?,
            None => adapter.build(store, layer, &init)?,
        };
        for (short, param) in &attached.params {
            let name = format!("{component}/{}", param.name());
            let lr_factor = lr_factor * adapter.lr_factor(short);
            trained.push(Trained { name, var: param.train_as(kept_as)?, lr_factor, weight_decay: None });
        }
        layer.attach(attached.layer.clone());
        all.push(attached);
    }
    Ok((all, trained))
}

/// What the recipe's groups say about each parameter: the first that matches it counts.
fn group(params: &mut [Trained], groups: &[GroupTable]) -> Result<()> {
    let paths: Vec<String> = params.iter().map(|p| p.name.replacen('/', ".", 1)).collect();
    let mut targets = groups.iter().flat_map(|g| &g.targets);
    if let Some(idle) = targets.find(|t| !paths.iter().any(|p| matches(t, p))) {
        let example = paths.first().map_or("", String::as_str);
        bail!("train.group: no parameter that trains matches `{idle}`; they are named like `{example}`");
    }
    for (p, path) in params.iter_mut().zip(&paths) {
        if let Some(group) = groups.iter().find(|g| g.targets.iter().any(|t| matches(t, path))) {
            p.lr_factor *= group.lr_factor;
            p.weight_decay = group.weight_decay.or(p.weight_decay);
        }
    }
    Ok(())
}

/// True if `path` is `pattern` with any text for each `*`.
pub fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = path.strip_prefix(parts.next().unwrap_or("")) else { return false };
    let Some(last) = pattern.rsplit('*').next().filter(|_| pattern.contains('*')) else { return rest.is_empty() };
    let middle: Vec<&str> = parts.collect();
    for part in &middle[..middle.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn the_first_group_that_matches_a_parameter_counts() {
        let one = |name: &str, dims: &[usize]| {
            let var = Var::zeros(dims, DType::F32, &Device::Cpu).expect("a small tensor");
            Trained { lr_factor: 0.5, ..Trained::new(name, var) }
        };
        let table = |target: &str, lr_factor, weight_decay| GroupTable {
            targets: vec![target.to_owned()],
            lr_factor,
            weight_decay,
        };
        let mut params =
            [one("unet/a.to_q.weight", &[2, 2]), one("unet/a.norm.bias", &[2]), one("unet/b.weight", &[2, 2])];
        let groups = [table("unet.a.*.weight", 0.1, None), table("unet.a.*", 4.0, Some(0.3))];
        group(&mut params, &groups).expect("both match something");
        let said: Vec<_> = params.iter().map(|p| (p.lr_factor, p.weight_decay)).collect();
        assert_eq!(said, [(0.05, None), (2.0, Some(0.3)), (0.5, None)]);
        let error = group(&mut params, &[table("unet.c.*", 1.0, None)]).expect_err("an idle pattern").to_string();
        assert!(error.contains("unet.c.*") && error.contains("unet.a.to_q.weight"), "{error}");
    }

    #[test]
    fn stars_stand_for_any_text() {
        let path = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
        for yes in ["*", "unet.*", "*.to_q", "unet.*.attn*.to_q", "*attn1*", path] {
            assert!(matches(yes, path), "{yes}");
        }
        for no in ["", "unet", "*.to_k", "vae.*", "unet.*.attn2.to_q", "unet.down_blocks"] {
            assert!(!matches(no, path), "{no}");
        }
    }
}
