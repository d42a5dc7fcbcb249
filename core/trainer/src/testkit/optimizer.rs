//! The laws of optimizers.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_nn::weights::{WeightFiles, save};

use super::{Checked, Law, bits, finite, holds, law, product, random};
use crate::optimizer::{At, Needs, Optimizer, OptimizerState, Trained};

const CPU: &Device = &Device::Cpu;

/// The laws of an optimizer: N updates, a checkpoint and N more are 2N to the bit; parameters that are updated apart may come in
/// any order; one without a gradient stays; the state is as large as `check` estimates; and a quadratic goes downhill.
pub fn optimizer(optimizer: &dyn Optimizer) -> Law {
    law(resumes(optimizer, DType::F32), || "in f32".to_owned())?;
    law(resumes(optimizer, DType::BF16), || "in bf16".to_owned())?;
    for check in [in_any_order, stays_without_gradient, keeps_what_it_says, goes_downhill] {
        law(check(optimizer), String::new)?;
    }
    Ok(())
}

/// Tensors of every form that an optimizer treats in its own way.
fn model(dtype: DType) -> Result<Vec<Trained>> {
    let shapes: [(&str, &[usize]); 6] = [
        ("scalar", &[]),
        ("bias", &[7]),
        ("matrix", &[5, 6]),
        ("kernel", &[3, 4, 3, 3]),
        ("large", &[70, 80]),
        ("time_embedding.weight", &[4, 4]),
    ];
    let one = |(seed, (name, shape)): (usize, &(&str, &[usize]))| {
        let value = (random(shape, 1 + seed as u64)? * 0.5)?;
        Ok(Trained::new(format!("unet/{name}"), Var::from_tensor(&value.to_dtype(dtype)?)?))
    };
    shapes.iter().enumerate().map(one).collect()
}

/// Gradients of changing size, which keep a direction, and are 0 in places.
fn gradients(params: &[Trained], update: usize) -> Result<Vec<Option<Tensor>>> {
    let one = |(i, p): (usize, &Trained)| {
        let (dims, seed) = (p.var.dims(), 100 * (1 + i as u64));
        let sum = (random(dims, seed)? + (random(dims, seed + 1 + update as u64)? * 0.5)?)?;
        let some: Vec<f32> = (0..p.var.elem_count()).map(|i| f32::from(i % 11 != 3)).collect();
        let scale = 10f64.powi(update as i32 % 3 - 2) * (4 + i) as f64;
        let grad = ((sum * Tensor::from_vec(some, dims, CPU)?)? * scale)?;
        Ok(Some(grad.to_dtype(p.var.dtype())?))
    };
    params.iter().enumerate().map(one).collect()
}

fn at(optimizer: &dyn Optimizer, update: usize) -> At {
    let factor = [0.25, 1.0, 0.75, 0.5][update % 4];
    At { lr: optimizer.lr() * factor, seed: 7, images_seen: 4 * update as u64 }
}

fn values(params: &[Trained]) -> Result<Vec<Vec<u32>>> {
    params.iter().map(|p| bits(p.var.as_tensor())).collect()
}

/// Through a file, as a checkpoint is.
fn saved(state: &dyn OptimizerState) -> Result<BTreeMap<String, Tensor>> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("optimizer.safetensors");
    save(&path, &state.save()?, &BTreeMap::new())?;
    let file = WeightFiles::open(&[path])?;
    file.keys().map(|k| Ok((k.to_owned(), file.stored(k, CPU)?))).collect()
}

fn resumes(optimizer: &dyn Optimizer, dtype: DType) -> Checked {
    let whole = model(dtype)?;
    let mut state = optimizer.start(whole.clone())?;
    for update in 0..10 {
        state.step(&gradients(&whole, update)?, &at(optimizer, update))?;
    }
    let halves = model(dtype)?;
    let mut state = optimizer.start(halves.clone())?;
    for update in 0..5 {
        state.step(&gradients(&halves, update)?, &at(optimizer, update))?;
    }
    let kept = saved(&*state)?;
    // A resumed run starts from what it began with, and takes weights and state back.
    let resumed = model(dtype)?;
    let mut state = optimizer.start(resumed.clone())?;
    for (p, from) in resumed.iter().zip(&halves) {
        p.var.set(&from.var.as_tensor().detach().copy()?)?;
    }
    state.restore(&kept)?;
    for update in 5..10 {
        state.step(&gradients(&resumed, update)?, &at(optimizer, update))?;
    }
    let (whole, start) = (values(&whole)?, values(&model(dtype)?)?);
    holds(whole != start, || "ten updates move nothing".to_owned())?;
    holds(whole == values(&resumed)?, || {
        "five updates, save, restore and five more are not ten: something that it goes on from is not saved".to_owned()
    })?;
    let missing = optimizer.start(model(dtype)?)?.restore(&BTreeMap::new());
    let told = missing.is_err_and(|e| e.to_string().contains("no optimizer state"));
    holds(told, || {
        "it takes back a checkpoint without its state, with no error that there is `no optimizer state`".to_owned()
    })
}

fn in_any_order(optimizer: &dyn Optimizer) -> Checked {
    let (together, apart) = (model(DType::F32)?, model(DType::F32)?);
    let (mut all, mut one) = (optimizer.start(together.clone())?, optimizer.start(apart.clone())?);
    for update in 0..4 {
        let (grads, at) = (gradients(&together, update)?, at(optimizer, update));
        all.step(&grads, &at)?;
        for (i, grad) in grads.iter().enumerate().rev() {
            let done = one.update(i, grad.as_ref().expect("each has one"), &at);
            holds(done.is_ok() == (optimizer.needs() == Needs::OwnGradient), || {
                format!("it needs {:?}, and to update one parameter is {done:?}", optimizer.needs())
            })?;
        }
    }
    let same = optimizer.needs() == Needs::AllGradients || values(&together)? == values(&apart)?;
    holds(same, || "updated one by one in another order, parameters get other values".to_owned())
}

fn stays_without_gradient(optimizer: &dyn Optimizer) -> Checked {
    let params = model(DType::F32)?;
    let mut state = optimizer.start(params.clone())?;
    state.step(&gradients(&params, 0)?, &at(optimizer, 0))?;
    let before = values(&params)?;
    let mut grads = gradients(&params, 1)?;
    grads[2] = None;
    state.step(&grads, &at(optimizer, 1))?;
    holds(before[2] == values(&params)?[2], || "a parameter that gets no gradient moves".to_owned())
}

fn keeps_what_it_says(optimizer: &dyn Optimizer) -> Checked {
    let params = model(DType::F32)?;
    let estimated: usize = params.iter().map(|p| optimizer.state_bytes(p.var.dims())).sum::<Result<_>>()?;
    let mut state = optimizer.start(params.clone())?;
    state.step(&gradients(&params, 1)?, &at(optimizer, 1))?;
    let kept: usize = state.save()?.values().map(|t| t.elem_count() * t.dtype().size_in_bytes()).sum();
    // Counters aside.
    let near = kept.abs_diff(estimated) <= 48 * params.len();
    holds(near, || format!("its state has {kept} bytes after an update, {estimated} by `state_bytes`"))
}

/// Sum of h/2 (w - c)² with h from 0.5 to 1.5, at the recipe's own rate.
fn goes_downhill(optimizer: &dyn Optimizer) -> Checked {
    const UPDATES: u64 = 100;
    let params = model(DType::F32)?;
    let part = |i: usize, p: &Trained| -> Result<[Tensor; 2]> {
        let dims = p.var.dims();
        Ok([((random(dims, 31 + i as u64)? * 0.5)? + 1.0)?, (random(dims, 51 + i as u64)? * 2.0)?])
    };
    let parts: Vec<[Tensor; 2]> = params.iter().enumerate().map(|(i, p)| part(i, p)).collect::<Result<_>>()?;
    let loss = |weights: &[Tensor]| -> Result<f64> {
        let one = |(w, [h, c]): (&Tensor, &[Tensor; 2])| product(&(h * 0.5)?, &(w - c)?.sqr()?);
        weights.iter().zip(&parts).map(one).sum()
    };
    let now = |params: &[Trained]| params.iter().map(|p| p.var.as_tensor().detach()).collect::<Vec<_>>();
    let first = loss(&now(&params))?;
    let mut state = optimizer.start(params.clone())?;
    for update in 0..UPDATES {
        let grad = |(w, [h, c]): (&Tensor, &[Tensor; 2])| Ok(Some((h * (w - c)?)?));
        let grads: Vec<_> = now(&params).iter().zip(&parts).map(grad).collect::<Result<_>>()?;
        state.step(&grads, &At { lr: optimizer.lr(), seed: 7, images_seen: update })?;
    }
    let weights = now(&params);
    for (p, weight) in params.iter().zip(&weights) {
        holds(finite(weight)?, || format!("on a quadratic `{}` is not finite after {UPDATES} updates", p.name))?;
    }
    let last = loss(&state.averaged()?.unwrap_or(weights))?;
    holds(last < first, || format!("on a quadratic the loss goes from {first:.6} to {last:.6} in {UPDATES} updates"))
}
