//! The laws of adapters.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_nn::checkpoint::backward;
use sconce_nn::layers::LayerAdapter;
use sconce_nn::ops::Conv;
use sconce_nn::rng::Stream;
use sconce_nn::store::Source;
use sconce_nn::{Adapted, Conv2d, Linear, Param, Store};

use super::{Checked, Law, distance, finite, holds, law, product, random};
use crate::adapter::{Adapter, Attached, of_tensors};

/// The laws of an adapter, on a linear layer and on convolutions: a fresh one changes nothing; it trains what it says; every
/// trained tensor gets the gradient that differences give; what it computes is what it merges to; half its strength is half its
/// effect; and its own file gives it back, through the registered adapter that knows the file.
pub fn adapter(adapter: &dyn Adapter) -> Law {
    adapter_with_constants(adapter, |_| false)
}

/// The same for one whose formula counts a part as constant that is none (DoRA its norm). `through_constants` says of which
/// tensors, by short name, the gradients are not those of differences for it.
pub fn adapter_with_constants(adapter: &dyn Adapter, through_constants: impl Fn(&str) -> bool) -> Law {
    for dims in [&[16, 12][..], &[16, 8, 3, 3], &[16, 16, 1, 1]] {
        for bias in [true, false] {
            let of = || format!("on a layer of {dims:?} {} bias", if bias { "with a" } else { "without" });
            law(obeys(adapter, dims, bias, &through_constants), of)?;
        }
    }
    Ok(())
}

/// A layer of these dimensions, called `proj`, of a component called `unet`.
fn layer(dims: &[usize], bias: bool) -> Result<(Arc<Store>, Adapted)> {
    let store = Store::new("unet", Source::Random(1), DType::F32, &Device::Cpu);
    let scope = store.root().at("proj");
    match (dims, bias) {
        (&[output, input], true) => drop(Linear::new(&scope, input, output)?),
        (&[output, input], false) => drop(Linear::no_bias(&scope, input, output)?),
        (&[output, input, kernel, ..], true) => {
            drop(Conv2d::new(&scope, input, output, kernel, Conv::padded(kernel / 2))?)
        }
        (&[output, input, kernel, ..], false) => {
            drop(Conv2d::no_bias(&scope, input, output, kernel, Conv::padded(kernel / 2))?)
        }
        _ => candle_core::bail!("a layer has two sides or more"),
    }
    let layer = store.layers().remove(0);
    Ok((store, layer))
}

/// A layer's output with an adapter alone on it.
///
/// # Errors
/// The layer's and the adapter's.
pub fn output(layer: &Adapted, acts: &Arc<dyn LayerAdapter>, x: &Tensor) -> Result<Tensor> {
    layer.detach();
    layer.attach(acts.clone());
    let y = layer.forward(x);
    layer.detach();
    y
}

/// The output of the plain layer with the adapter merged into it.
///
/// # Errors
/// The layer's and the adapter's.
pub fn merged_output(layer: &Adapted, acts: &Arc<dyn LayerAdapter>, x: &Tensor) -> Result<Tensor> {
    let bias = layer.bias().map(Param::tensor).transpose()?;
    let (weight, bias) = acts.merged(&layer.weight().tensor()?, bias.as_ref())?;
    layer.apply(x, &weight, bias.as_ref())
}

fn obeys(adapter: &dyn Adapter, dims: &[usize], bias: bool, through_constants: &dyn Fn(&str) -> bool) -> Checked {
    let (store, layer) = layer(dims, bias)?;
    let shape: &[usize] = if dims.len() == 2 { &[3, 5, dims[1]] } else { &[2, dims[1], 4, 5] };
    let x = random(shape, 5)?;
    let plain = layer.forward(&x)?;
    let attached = adapter.build(&store, &layer, &Stream::new(3, "test"))?;
    let (component, path) = (&attached.component, &attached.path);
    holds((component.as_str(), path.as_str()) == ("unet", "proj"), || {
        format!("it says that it is on `{component}.{path}`; the layer is `unet.proj`")
    })?;
    let fresh = distance(&output(&layer, &attached.layer, &x)?, &plain)?;
    holds(fresh < 2e-6, || format!("a fresh one changes the output by {fresh:.1e} of its size"))?;
    trains_what_it_says(adapter, &layer, &attached)?;

    let vars: Vec<Var> = attached.params.values().map(Param::train).collect::<Result<_>>()?;
    for (i, var) in vars.iter().enumerate() {
        var.set(&(var.as_tensor() + (random(var.dims(), i as u64)? * 0.2)?)?)?;
    }
    let y = output(&layer, &attached.layer, &x)?;
    let change = distance(&y, &plain)?;
    holds(change > 1e-3, || format!("with every trained tensor moved the output changes by {change:.1e} of its size"))?;
    let merged = distance(&merged_output(&layer, &attached.layer, &x)?, &y)?;
    holds(merged < 1e-5, || format!("merged into the weight it is {merged:.1e} off what it computes beside it"))?;
    gradients_are_right(&layer, &attached, &vars, &x, through_constants)?;
    comes_back_from_its_file(adapter, &store, &layer, &attached, [&x, &plain, &y])
}

fn trains_what_it_says(adapter: &dyn Adapter, layer: &Adapted, attached: &Attached) -> Checked {
    let trains: usize = attached.params.values().map(|p| p.shape().elem_count()).sum();
    let says = adapter.elements("unet.proj", layer.shape());
    // The shape does not tell of a bias, which may train.
    let bias = layer.bias().map_or(0, |bias| bias.shape().elem_count());
    holds(trains == says || trains == says + bias, || format!("it trains {trains} numbers, {says} by `elements`"))?;
    let names = adapter.tensors();
    let stray = attached.params.keys().find(|short| !names.contains(&short.as_str()));
    holds(stray.is_none(), || format!("it trains {stray:?}, and `tensors` has {names:?}"))
}

fn gradients_are_right(
    layer: &Adapted,
    attached: &Attached,
    vars: &[Var],
    x: &Tensor,
    through_constants: &dyn Fn(&str) -> bool,
) -> Checked {
    let input = Var::from_tensor(x)?;
    let y = output(layer, &attached.layer, input.as_tensor())?;
    let probe = random(y.dims(), 9)?;
    let loss = || product(&output(layer, &attached.layer, x)?.detach(), &probe);
    let grads = backward(&(&y * &probe)?.sum_all()?)?;
    holds(grads.get(input.as_tensor()).is_some(), || "no gradient goes on to the layer's input".to_owned())?;
    for (short, var) in attached.params.keys().zip(vars) {
        let Some(grad) = grads.get(var.as_tensor()) else {
            return holds(false, || format!("`{short}` gets no gradient: the graph is cut, or it is not used"));
        };
        holds(grad.dims() == var.dims() && finite(grad)?, || {
            format!("the gradient of `{short}` {:?} is of {:?}, or not finite", var.dims(), grad.dims())
        })?;
        if through_constants(short) {
            continue;
        }
        let (way, at) = (random(var.dims(), 21)?, var.as_tensor().copy()?);
        let moved = |step: f64| -> Result<f64> {
            var.set(&(&at + (&way * step)?)?)?;
            loss()
        };
        let slope = |step: f64| Ok::<f64, candle_core::Error>((moved(step)? - moved(-step)?) / (2.0 * step));
        let numeric = (4.0 * slope(1e-2)? - slope(2e-2)?) / 3.0;
        var.set(&at)?;
        let along = product(grad, &way)?;
        let error = (along - numeric).abs() / numeric.abs().max(1.0);
        holds(error < 5e-3, || format!("along `{short}` the gradient gives {along}, the differences {numeric}"))?;
    }
    Ok(())
}

fn comes_back_from_its_file(
    adapter: &dyn Adapter,
    store: &Store,
    layer: &Adapted,
    attached: &Attached,
    [x, plain, y]: [&Tensor; 3],
) -> Checked {
    let tensors = attached.params.iter().map(|(k, p)| Ok((k.clone(), p.tensor()?.detach()))).collect::<Result<_>>()?;
    let saved = attached.saved(tensors, attached.constants.clone())?;
    let names = || saved.tensors.keys().cloned().collect::<Vec<_>>().join(", ");
    holds(adapter.knows(&saved.tensors), || format!("it does not know its own file, of {}", names()))?;
    let known = of_tensors(&saved)?;
    for (who, by) in [("itself", adapter), (known.name(), &*known)] {
        let back = |strength| by.restore("unet", layer, &saved.tensors, &saved.constants, strength);
        let found = distance(&output(layer, &back(1.0)?.layer, x)?, y)?;
        holds(found < 1e-5, || format!("restored by {who} from its file, of {}, it is {found:.1e} off", names()))?;
        let (half, want) = (back(0.5)?.layer, ((plain + y)? * 0.5)?);
        let beside = distance(&output(layer, &half, x)?, &want)?;
        let merged = distance(&merged_output(layer, &half, x)?, &want)?;
        holds(beside < 1e-5 && merged < 1e-5, || {
            format!("at half its strength it is {beside:.1e} off half of its effect, {merged:.1e} merged")
        })?;
    }
    if attached.file.is_none() {
        let again = adapter.start(store, layer, &Stream::new(4, "test"), &saved)?;
        let found = distance(&output(layer, &again.layer, x)?, y)?;
        holds(found < 1e-5, || format!("started where its file ended it is {found:.1e} off"))?;
    }
    Ok(())
}
