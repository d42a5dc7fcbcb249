//! Times convolution and linear: forward, the gradient of the input with a frozen weight, and the gradient of the
//! weight, for a comparison with `bench_ops.py`, which does the same in PyTorch. `RAYON_NUM_THREADS` sets the threads.
//! One line each: name, what, median and least time in milliseconds, and the rate of the least in GFLOP/s.

use std::time::Instant;

use sconce_nn::function::function;
use sconce_nn::gradcheck::pseudo_random;
use sconce_nn::ops::{Conv, conv2d, linear};
use sconce_nn::{DType, Result, Tensor, Var};

const SECONDS: f64 = 1.0;

fn noise(shape: &[usize]) -> Result<Tensor> {
    pseudo_random(shape, 1)?.to_dtype(DType::F32)
}

/// Times `run`, which gives the milliseconds that count.
fn report(name: &str, what: &str, flops: f64, mut run: impl FnMut() -> Result<f64>) -> Result<()> {
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed().as_secs_f64() < SECONDS || times.len() < 5 {
        times.push(run()?);
    }
    times.sort_by(f64::total_cmp);
    let (median, least) = (times[times.len() / 2], times[0]);
    println!("{name:32} {what:8} {median:9.3} {least:9.3} {:7.0}", flops / least * 1e-6);
    Ok(())
}

fn time(name: &str, x: &[usize], weight: &[usize], f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<()> {
    let (x, weight) = (noise(x)?, noise(weight)?);
    let y = f(&x, &weight)?;
    let dy = noise(y.dims())?;
    let flops = 2.0 * y.elem_count() as f64 * weight.elem_count() as f64 / weight.dim(0)? as f64;
    report(name, "forward", flops, || {
        let start = Instant::now();
        f(&x, &weight)?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    })?;
    let backward = |x: &Tensor, weight: &Tensor| {
        let (y, dy) = (f(x, weight)?, dy.clone());
        let zero = Tensor::zeros((), y.dtype(), y.device())?;
        let root = function("root", &[&y], zero, move |_| Ok(vec![Some(dy.clone())]))?;
        let start = Instant::now();
        root.backward()?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    let (variable_x, variable_weight) = (Var::from_tensor(&x)?, Var::from_tensor(&weight)?);
    report(name, "input", flops, || backward(&variable_x, &weight))?;
    report(name, "weight", flops, || backward(&x, &variable_weight))
}

fn main() -> Result<()> {
    for (batch, input, output, size, kernel, stride) in [
        (1, 320, 320, 64, 3, 1),
        (16, 64, 64, 16, 3, 1),
        (16, 128, 128, 8, 3, 1),
        (2, 640, 640, 32, 3, 1),
        (2, 320, 320, 64, 3, 2),
        (1, 128, 128, 256, 3, 1),
        (2, 320, 640, 32, 1, 1),
        (2, 4, 320, 64, 3, 1),
        (2, 320, 4, 64, 3, 1),
    ] {
        let name = format!("conv B{batch} {input}-{output} {size} k{kernel} s{stride}");
        let conv = Conv::padded(kernel / 2).strided(stride);
        time(&name, &[batch, input, size, size], &[output, input, kernel, kernel], |x, w| conv2d(x, w, None, conv))?;
    }
    for (rows, input, output) in [
        (4096, 640, 640),
        (2048, 2048, 2048),
        (256, 64, 64),
        (4096, 320, 1280),
        (4096, 64, 256),
        (154, 768, 640),
        (16, 256, 256),
        (1, 1280, 1280),
    ] {
        time(&format!("linear {rows} {input}-{output}"), &[rows, input], &[output, input], |x, w| linear(x, w, None))?;
    }
    Ok(())
}
