//! `conv2d` and `upsample_nearest`: values against candle and a direct sum, gradients against finite differences on
//! every class of shape, and no gradient for what is frozen.

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_nn::gradcheck::{check, pseudo_random};
use sconce_nn::ops::{Conv, conv2d, upsample_nearest};

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
    difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// candle's own forward, on an image that is padded beforehand.
fn reference(x: &Tensor, weight: &Tensor, conv: Conv) -> Result<Tensor> {
    let [top, bottom, left, right] = conv.padding;
    let x = x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?.contiguous()?;
    x.conv2d(&weight.contiguous()?, 0, conv.stride, 1, 1)
}

#[test]
fn gradients_on_every_class_of_shape() -> Result<()> {
    for (batch, size) in [(1, [4, 4]), (3, [5, 4]), (1, [7, 6]), (2, [4, 7])] {
        for kernel in [1, 3, 4, 7] {
            for stride in [1, 2, 3] {
                for padding in [[0; 4], [1; 4], [0, 1, 0, 1], [3, 2, 1, 3]] {
                    let conv = Conv { stride, padding };
                    let fits =
                        size[0] + padding[0] + padding[1] >= kernel && size[1] + padding[2] + padding[3] >= kernel;
                    let inputs = [
                        pseudo_random(&[batch, 2, size[0], size[1]], 1)?,
                        pseudo_random(&[3, 2, kernel, kernel], 2)?,
                        pseudo_random(&[3], 3)?,
                    ];
                    if !fits {
                        assert!(conv2d(&inputs[0], &inputs[1], None, conv).is_err());
                        continue;
                    }
                    let y = conv2d(&inputs[0], &inputs[1], None, conv)?;
                    let what = format!("B{batch} {size:?} kernel {kernel} {conv:?}");
                    assert!(worst(&y, &reference(&inputs[0], &inputs[1], conv)?) < 1e-12, "{what}");
                    let error = check(|x| conv2d(&x[0], &x[1], Some(&x[2]), conv), &inputs)?;
                    assert!(error < 1e-7, "{what}: {error}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn oblong_kernels_and_views() -> Result<()> {
    let conv = Conv { stride: 2, padding: [1, 0, 0, 2] };
    let inputs = [pseudo_random(&[2, 5, 6, 3], 1)?, pseudo_random(&[2, 3, 3, 4], 2)?];
    // The image has its channels last in memory, the weight its outputs second.
    let views = |x: &[Tensor]| conv2d(&x[0].permute((0, 3, 1, 2))?, &x[1].transpose(0, 1)?, None, conv);
    let error = check(views, &[inputs[0].clone(), inputs[1].transpose(0, 1)?.contiguous()?])?;
    assert!(error < 1e-7, "{error}");
    let projection = |x: &[Tensor]| conv2d(&x[0].permute((0, 3, 1, 2))?, &x[1], None, Conv::default());
    assert!(check(projection, &[inputs[0].clone(), pseudo_random(&[4, 3, 1, 1], 3)?])? < 1e-7);
    Ok(())
}

#[test]
fn single_precision_agrees_with_double_on_larger_images() -> Result<()> {
    for (batch, channels, size, stride) in [(1, 64, 32, 1), (16, 33, 8, 1), (2, 40, 17, 2), (1, 3, 40, 2)] {
        let conv = Conv::padded(1).strided(stride);
        let x = pseudo_random(&[batch, channels, size, size + 3], 1)?;
        let weight = pseudo_random(&[48, channels, 3, 3], 2)?;
        let grads = |dtype| -> Result<Vec<Tensor>> {
            let (x, weight) = (Var::from_tensor(&x.to_dtype(dtype)?)?, Var::from_tensor(&weight.to_dtype(dtype)?)?);
            let y = conv2d(x.as_tensor(), weight.as_tensor(), None, conv)?;
            let grads = y.sqr()?.mean_all()?.backward()?;
            Ok(vec![y.detach(), grads.get(&x).unwrap().clone(), grads.get(&weight).unwrap().clone()])
        };
        for (narrow, wide) in grads(DType::F32)?.iter().zip(&grads(DType::F64)?) {
            let scale = wide.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
            assert!(worst(narrow, wide) < 1e-5 * scale);
        }
    }
    Ok(())
}

#[test]
fn frozen_weights_get_no_gradient_and_half_precision_computes_in_single() -> Result<()> {
    let weight = pseudo_random(&[3, 2, 3, 3], 2)?.to_dtype(DType::BF16)?;
    let x = Var::from_tensor(&pseudo_random(&[1, 2, 5, 5], 1)?.to_dtype(DType::F32)?)?;
    let y = conv2d(x.as_tensor(), &weight, None, Conv::padded(1))?;
    let want = reference(x.as_tensor(), &weight.to_dtype(DType::F32)?, Conv::padded(1))?;
    assert!(y.dtype() == DType::F32 && worst(&y, &want) < 1e-5);
    let grads = y.sum_all()?.backward()?;
    assert!(grads.get(&x).is_some() && grads.get(&weight).is_none());

    let (x, weight) = (x.detach().to_dtype(DType::BF16)?, Var::from_tensor(&weight)?);
    let y = conv2d(&x, weight.as_tensor(), None, Conv::padded(1))?;
    assert_eq!(y.dtype(), DType::BF16);
    let grads = y.sum_all()?.backward()?;
    assert!(grads.get(&x).is_none());
    assert_eq!(grads.get(&weight).unwrap().dtype(), DType::BF16);
    assert!(!conv2d(&x, &weight.detach(), None, Conv::padded(1))?.track_op(), "inference builds no graph");
    Ok(())
}

#[test]
fn misfits_are_refused() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let (x, weight) = (zeros(&[1, 4, 5, 5]), zeros(&[6, 2, 3, 3]));
    assert!(conv2d(&x, &weight, None, Conv::default()).is_err(), "groups");
    assert!(conv2d(&x, &zeros(&[6, 4, 3, 3]), None, Conv { stride: 0, padding: [0; 4] }).is_err());
    assert!(conv2d(&x, &zeros(&[6, 4, 3, 3]), Some(&zeros(&[4])), Conv::default()).is_err());
}

#[test]
fn upsampling_to_any_size() -> Result<()> {
    for (from, to) in [([3, 4], [6, 8]), ([3, 4], [5, 7]), ([2, 5], [2, 11]), ([5, 3], [4, 1])] {
        let x = pseudo_random(&[2, 3, from[0], from[1]], 1)?;
        let error = check(|x| upsample_nearest(&x[0], to[0], to[1]), std::slice::from_ref(&x))?;
        assert!(error < 1e-7, "{from:?} to {to:?}: {error}");
        let turned = |x: &[Tensor]| upsample_nearest(&x[0].permute((0, 3, 1, 2))?, to[0], to[1]);
        assert!(check(turned, &[pseudo_random(&[2, from[0], from[1], 3], 1)?])? < 1e-7);
    }
    let x = pseudo_random(&[1, 2, 4, 4], 1)?;
    assert!(worst(&upsample_nearest(&x, 8, 8)?, &x.upsample_nearest2d(8, 8)?) == 0.0);
    assert!(upsample_nearest(&x, 0, 8).is_err());
    Ok(())
}

#[test]
fn an_upsampled_tensor_with_a_second_consumer() -> Result<()> {
    let both = |x: &[Tensor]| {
        let doubled = upsample_nearest(&x[0], 6, 6)?;
        let direct = x[0].sqr()?.sum_all()?;
        doubled.sqr()?.broadcast_add(&direct)
    };
    assert!(check(both, &[pseudo_random(&[1, 2, 3, 3], 1)?])? < 1e-7);
    Ok(())
}
