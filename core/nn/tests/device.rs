//! Every operation on the device that SCONCE_TEST_DEVICE names (`cuda:0`; by default the CPU), against the CPU in f64: values
//! and gradients, in f32 and bf16. On a machine with a GPU:
//!
//!     SCONCE_TEST_DEVICE=cuda:0 cargo test --release --features cuda -p sconce-nn --test device -- --nocapture

use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_nn::checkpoint::{backward, checkpoint, on_big_stack};
use sconce_nn::gradcheck::pseudo_random;
use sconce_nn::kernels::{open, sum_of_squares};
use sconce_nn::ops::{self, Conv, Mask};
use sconce_nn::quant::{Format, Packed};
use sconce_nn::rng::Stream;

fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let name = std::env::var("SCONCE_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    DEVICE.get_or_init(|| open(&name).expect("the device that SCONCE_TEST_DEVICE names")).clone()
}

type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

struct Case {
    name: String,
    shapes: Vec<Vec<usize>>,
    op: Op,
}

fn case(name: impl Into<String>, shapes: &[&[usize]], op: impl Fn(&[Tensor]) -> Result<Tensor> + 'static) -> Case {
    Case { name: name.into(), shapes: shapes.iter().map(|s| s.to_vec()).collect(), op: Box::new(op) }
}

fn cases() -> Vec<Case> {
    let row: &[&[usize]] = &[&[3, 50, 96]];
    let mut all = vec![
        case("linear", &[&[4, 77, 96], &[160, 96], &[160]], |x| ops::linear(&x[0], &x[1], Some(&x[2]))),
        case("linear, no bias, a view", &[&[96, 77], &[64, 96]], |x| ops::linear(&x[0].t()?, &x[1], None)),
        case("linear_onto", &[&[4, 77, 160], &[4, 77, 16], &[160, 16]], |x| ops::linear_onto(&x[0], &x[1], &x[2])),
        case("matmul", &[&[2, 3, 40, 24], &[2, 3, 24, 56]], |x| ops::matmul(&x[0], &x[1])),
        case("silu", row, |x| ops::silu(&x[0])),
        case("gelu", row, |x| ops::gelu(&x[0])),
        case("gelu_tanh", row, |x| ops::gelu_tanh(&x[0])),
        case("quick_gelu", row, |x| ops::quick_gelu(&x[0])),
        case("geglu", row, |x| ops::geglu(&x[0])),
        case("softmax", row, |x| ops::softmax(&x[0])),
        case("layer_norm", &[&[3, 50, 96], &[96], &[96]], |x| ops::layer_norm(&x[0], Some(&x[1]), Some(&x[2]), 1e-5)),
        case("layer_norm, bare", row, |x| ops::layer_norm(&x[0], None, None, 1e-6)),
        case("rms_norm", &[&[3, 50, 96], &[96]], |x| ops::rms_norm(&x[0], Some(&x[1]), 1e-6)),
        case("group_norm", &[&[2, 32, 9, 7], &[32], &[32]], |x| {
            ops::group_norm(&x[0], 8, Some(&x[1]), Some(&x[2]), 1e-5)
        }),
        case("group_norm_silu", &[&[2, 32, 9, 7], &[32], &[32]], |x| {
            ops::group_norm_silu(&x[0], 8, Some(&x[1]), Some(&x[2]), 1e-5)
        }),
        case("modulate", &[&[3, 50, 96], &[3, 96], &[3, 96]], |x| ops::modulate(&x[0], &x[1], &x[2])),
        case("gated_sum", &[&[3, 50, 96], &[3, 96], &[3, 50, 96]], |x| ops::gated_sum(&x[0], &x[1], &x[2])),
        case("upsample", &[&[2, 3, 5, 4]], |x| ops::upsample_nearest(&x[0], 9, 8)),
        case("rotary", &[&[2, 30, 4 * 16]], |x| {
            let angles = (pseudo_random(&[30, 8], 9)?.to_dtype(DType::F32)? * 3.0)?.to_device(x[0].device())?;
            ops::rotary(&x[0], &angles.cos()?, &angles.sin()?)
        }),
        case("checkpoint", &[&[4, 30, 48], &[48, 48]], |x| {
            let weight = x[1].clone();
            let h = checkpoint(&[&x[0]], move |x| ops::silu(&ops::linear(&x[0], &weight, None)?))?;
            ops::linear(&h, &x[1], None)
        }),
    ];
    for (kernel, stride, padding) in
        [(3, 1, [1; 4]), (3, 2, [1; 4]), (3, 2, [0, 1, 0, 1]), (1, 1, [0; 4]), (2, 2, [0; 4])]
    {
        let conv = Conv { stride, padding };
        let weight: &[usize] = &[24, 16, kernel, kernel];
        all.push(case(format!("conv2d {kernel} {conv:?}"), &[&[3, 16, 10, 14], weight, &[24]], move |x| {
            ops::conv2d(&x[0], &x[1], Some(&x[2]), conv)
        }));
    }
    for mask in [Mask::None, Mask::Causal] {
        // Rows of 264 and more that are whole packs of eight have kernels of their own.
        for (queries, keys) in [(70, 70), (33, 90), (40, 264), (300, 1040)] {
            let packed: [&[usize]; 3] = [&[2, queries, 3 * 40], &[2, keys, 3 * 40], &[2, keys, 3 * 40]];
            all.push(case(format!("attention_heads {mask:?} {queries} {keys}"), &packed, move |x| {
                ops::attention_heads(&x[0], &x[1], &x[2], 3, &mask)
            }));
            let split: [&[usize]; 3] = [&[2, 3, queries, 40], &[2, 3, keys, 40], &[2, 3, keys, 40]];
            all.push(case(format!("attention {mask:?} {queries} {keys}"), &split, move |x| {
                ops::attention(&x[0], &x[1], &x[2], &mask)
            }));
        }
    }
    all
}

/// The value, and the gradient of every input, in f64 on the CPU.
fn run(case: &Case, device: &Device, dtype: DType) -> Result<Vec<Tensor>> {
    let input = |(i, shape): (usize, &Vec<usize>)| {
        // As bf16 holds them, so that every type starts from the same numbers.
        let x = (pseudo_random(shape, i as u64 + 1)? * 1.5)?.to_dtype(DType::BF16)?;
        Var::from_tensor(&x.to_dtype(dtype)?.to_device(device)?)
    };
    let vars = case.shapes.iter().enumerate().map(input).collect::<Result<Vec<_>>>()?;
    let y = (case.op)(&vars.iter().map(|v| v.as_tensor().clone()).collect::<Vec<_>>())?;
    assert_eq!(y.dtype(), dtype, "{}", case.name);
    let dy = pseudo_random(y.dims(), 77)?.to_dtype(dtype)?.to_device(device)?;
    let grads = backward(&(&y * dy)?.to_dtype(DType::F32)?.sum_all()?)?;
    let grads = vars.iter().map(|v| grads.get(v).expect("a gradient of every input").clone());
    std::iter::once(y.clone()).chain(grads).map(|t| t.to_device(&Device::Cpu)?.to_dtype(DType::F64)).collect()
}

fn relative(a: &Tensor, b: &Tensor) -> Result<f64> {
    let norm = |t: &Tensor| -> Result<f64> { t.sqr()?.sum_all()?.sqrt()?.to_scalar() };
    Ok(norm(&(a - b)?)? / norm(b)?)
}

#[test]
fn operations_agree_with_the_cpu_in_double() -> Result<()> {
    on_big_stack(|| {
        let device = device();
        let mut wrong = Vec::new();
        for case in cases() {
            let exact = run(&case, &Device::Cpu, DType::F64)?;
            for (dtype, most) in [(DType::F32, 2e-5), (DType::BF16, 2e-2)] {
                let got = match run(&case, &device, dtype) {
                    Ok(got) => got,
                    Err(e) => {
                        wrong.push(format!("{} {dtype:?}: {e}", case.name));
                        continue;
                    }
                };
                let errors = got.iter().zip(&exact).map(|(a, b)| relative(a, b)).collect::<Result<Vec<_>>>()?;
                println!(
                    "{:40} {dtype:?} {}",
                    case.name,
                    errors.iter().map(|e| format!("{e:.1e} ")).collect::<String>()
                );
                if errors.iter().any(|e| *e > most || e.is_nan()) {
                    wrong.push(format!("{} {dtype:?}: {errors:?}", case.name));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    })
}

#[test]
fn packed_weights_unpack_to_the_same_numbers() -> Result<()> {
    let weight = (Stream::new(1, "weight").normal((30, 43), &Device::Cpu)? * 0.02)?;
    for format in [Format::Int8, Format::Fp8, Format::Nf4] {
        for (dtype, most) in [(DType::F32, 1e-6), (DType::BF16, 4e-3)] {
            let packed = Packed::new(&weight, format, dtype, &Device::Cpu)?;
            let (here, there) = (packed.unpack()?, packed.to_device(&device())?.unpack()?);
            assert_eq!(there.dtype(), dtype);
            let wide = |t: &Tensor| t.to_device(&Device::Cpu)?.to_dtype(DType::F64);
            let error = relative(&wide(&there)?, &wide(&here)?)?;
            assert!(error < most, "{format:?} {dtype:?}: {error}");
        }
    }
    Ok(())
}

#[test]
fn squares_are_summed_on_every_device() -> Result<()> {
    for count in [1usize, 255, 4097, 300_000] {
        let x = Stream::new(2, "gradient").normal(count, &Device::Cpu)?;
        let want: f64 = x.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar()?;
        for dtype in [DType::F32, DType::BF16] {
            let there = x.to_dtype(dtype)?.to_device(&device())?;
            let found = f64::from(sum_of_squares(&there)?.to_scalar::<f32>()?);
            let most = if dtype == DType::F32 { 1e-5 } else { 2e-2 };
            assert!((found / want - 1.0).abs() < most, "{count} {dtype:?}: {found}, not {want}");
        }
    }
    Ok(())
}

#[test]
fn random_numbers_are_the_same_on_every_device() -> Result<()> {
    let draw = |device: &Device| {
        Stream::new(5, "noise").at(1000, 0).normal((3, 4, 17), device)?.flatten_all()?.to_vec1::<f32>()
    };
    assert_eq!(draw(&device())?, draw(&Device::Cpu)?);
    Ok(())
}
