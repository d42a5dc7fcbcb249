//! Times attention, the norms and the activations, forward and backward, for a comparison with `bench_attention.py`,
//! which does the same in PyTorch. `RAYON_NUM_THREADS` sets the threads. One line each: name, median and least time in
//! milliseconds.

use std::time::Instant;

use sconce_nn::ops::{self, Mask, norm};
use sconce_nn::rng::Stream;
use sconce_nn::{Device, Result, Tensor, Var};

fn noise(name: &str, shape: &[usize]) -> Result<Var> {
    Var::from_tensor(&Stream::new(0, name).normal(shape, &Device::Cpu)?)
}

/// Times `f` on variables of the given shapes until two seconds have gone.
fn time(name: &str, shapes: &[&[usize]], f: impl Fn(&[Var]) -> Result<Tensor>) -> Result<()> {
    let vars = shapes.iter().enumerate().map(|(i, shape)| noise(&i.to_string(), shape)).collect::<Result<Vec<_>>>()?;
    let dy = noise("dy", f(&vars)?.dims())?.detach();
    let (mut forward, mut both) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < 2.0 || both.len() < 5 {
        let start = Instant::now();
        let y = f(&vars)?;
        forward.push(start.elapsed().as_secs_f64() * 1e3);
        // The gradient of the output is dy: only the operation itself is timed.
        let dy = dy.clone();
        let zero = Tensor::zeros((), y.dtype(), y.device())?;
        let root = sconce_nn::function::function("root", &[&y], zero, move |_| Ok(vec![Some(dy.clone())]))?;
        root.backward()?;
        both.push(start.elapsed().as_secs_f64() * 1e3);
    }
    for (what, times) in [("forward", &mut forward), ("both", &mut both)] {
        times.sort_by(f64::total_cmp);
        println!("{name:32} {what:8} {:9.3} {:9.3}", times[times.len() / 2], times[0]);
    }
    Ok(())
}

fn main() -> Result<()> {
    for (batch, heads, queries, keys, width) in [
        (16, 2, 256, 256, 32),
        (2, 10, 1024, 1024, 64),
        (2, 20, 256, 256, 64),
        (2, 10, 1024, 77, 64),
        (16, 2, 256, 77, 32),
    ] {
        let (q, k) = ([batch, queries, heads * width], [batch, keys, heads * width]);
        time(&format!("attention {batch} {heads} {queries} {keys} {width}"), &[&q, &k, &k], |x| {
            ops::attention::attention_heads(&x[0], &x[1], &x[2], heads, &Mask::None)
        })?;
    }
    let image: &[usize] = &[2, 320, 64, 64];
    time("group_norm_silu 2 320 64 64", &[image, &[320], &[320]], |x| {
        norm::group_norm_silu(&x[0], 32, Some(&x[1]), Some(&x[2]), 1e-5)
    })?;
    time("group_norm 2 320 64 64", &[image, &[320], &[320]], |x| {
        norm::group_norm(&x[0], 32, Some(&x[1]), Some(&x[2]), 1e-5)
    })?;
    time("layer_norm 2 1024 640", &[&[2, 1024, 640], &[640], &[640]], |x| {
        ops::layer_norm(&x[0], Some(&x[1]), Some(&x[2]), 1e-5)
    })?;
    time("silu 2 320 64 64", &[image], |x| ops::silu(&x[0]))?;
    time("gelu 2 1024 2560", &[&[2, 1024, 2560]], |x| ops::gelu(&x[0]))?;
    time("geglu 2 1024 5120", &[&[2, 1024, 5120]], |x| ops::geglu(&x[0]))
}
