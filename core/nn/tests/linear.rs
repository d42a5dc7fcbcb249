//! `linear` and `matmul`: values, gradients against finite differences, mixed float types, and no gradient for what is
//! frozen.

use candle_core::{D, DType, Device, Result, Tensor, Var};
use sconce_nn::gradcheck::{check, pseudo_random};
use sconce_nn::ops::{linear, linear_onto, matmul};

fn worst(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let difference = (a.to_dtype(DType::F64).unwrap() - b.to_dtype(DType::F64).unwrap()).unwrap();
    difference.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn linear_gradients() -> Result<()> {
    for shape in [&[5][..], &[1, 5], &[7, 5], &[2, 3, 5], &[2, 1, 3, 5]] {
        let inputs = [pseudo_random(shape, 1)?, pseudo_random(&[4, 5], 2)?, pseudo_random(&[4], 3)?];
        assert!(check(|x| linear(&x[0], &x[1], Some(&x[2])), &inputs)? < 1e-7, "{shape:?}");
        assert!(check(|x| linear(&x[0], &x[1], None), &inputs[..2])? < 1e-7, "{shape:?}");
    }
    Ok(())
}

#[test]
fn linear_on_views() -> Result<()> {
    let inputs = [pseudo_random(&[3, 6, 4], 1)?, pseudo_random(&[6, 5], 2)?];
    let transposed = |x: &[Tensor]| linear(&x[0].transpose(1, 2)?, &x[1].t()?, None);
    assert!(check(transposed, &inputs)? < 1e-7);
    let copied = linear(&inputs[0].transpose(1, 2)?.contiguous()?, &inputs[1].t()?.contiguous()?, None)?;
    assert!(worst(&transposed(&inputs)?, &copied) < 1e-15);
    let narrowed =
        |x: &[Tensor]| linear(&x[0].narrow(2, 1, 3)?, &x[1].narrow(0, 2, 3)?.t()?.contiguous()?.t()?.t()?, None);
    assert!(check(narrowed, &[pseudo_random(&[3, 6, 4], 1)?, pseudo_random(&[6, 5], 2)?])? < 1e-7);
    Ok(())
}

#[test]
fn matmul_gradients() -> Result<()> {
    for (a, b) in [
        (&[3, 4][..], &[4, 5][..]),
        (&[2, 3, 4], &[2, 4, 5]),
        (&[2, 3, 4], &[4, 5]),
        (&[3, 4], &[2, 4, 5]),
        (&[2, 1, 3, 4], &[1, 3, 4, 2]),
    ] {
        let inputs = [pseudo_random(a, 1)?, pseudo_random(b, 2)?];
        assert!(check(|x| matmul(&x[0], &x[1]), &inputs)? < 1e-7, "{a:?} {b:?}");
        let want = inputs[0].broadcast_matmul(&inputs[1])?;
        assert!(worst(&matmul(&inputs[0], &inputs[1])?, &want) < 1e-12, "{a:?} {b:?}");
    }
    let turned = |x: &[Tensor]| matmul(&x[0].transpose(0, 1)?, &x[1].transpose(D::Minus2, D::Minus1)?);
    assert!(check(turned, &[pseudo_random(&[3, 2, 4], 1)?, pseudo_random(&[2, 5, 4], 2)?])? < 1e-7);
    Ok(())
}

#[test]
fn a_product_onto_a_base_is_their_sum() -> Result<()> {
    let inputs = [pseudo_random(&[2, 5, 7], 1)?, pseudo_random(&[2, 5, 3], 2)?, pseudo_random(&[7, 3], 3)?];
    let error = check(|x| linear_onto(&x[0], &x[1], &x[2]), &inputs)?;
    assert!(error < 1e-7, "{error}");
    for dtype in [DType::F32, DType::BF16] {
        let [base, x, w] = inputs.clone().map(|t| t.to_dtype(dtype).unwrap());
        let want = (&base + linear(&x, &w, None)?)?;
        let got = linear_onto(&base, &x, &w)?;
        assert_eq!(got.dtype(), dtype);
        let error = (got - want)?.to_dtype(DType::F64)?.abs()?.max_all()?.to_scalar::<f64>()?;
        assert!(error < if dtype == DType::F32 { 1e-6 } else { 0.03 }, "{error}");
    }
    assert!(linear_onto(&inputs[0], &inputs[0], &inputs[2]).is_err());
    Ok(())
}

#[test]
fn frozen_weights_get_no_gradient() -> Result<()> {
    let x = Var::from_tensor(&pseudo_random(&[2, 3], 1)?)?;
    let (weight, bias) = (pseudo_random(&[4, 3], 2)?, pseudo_random(&[4], 3)?);
    let grads = linear(x.as_tensor(), &weight, Some(&bias))?.sum_all()?.backward()?;
    assert!(grads.get(&x).is_some());
    assert!(grads.get(&weight).is_none() && grads.get(&bias).is_none());

    let weight = Var::from_tensor(&weight)?;
    let input = x.detach();
    let grads = linear(&input, weight.as_tensor(), Some(&bias))?.sum_all()?.backward()?;
    assert!(grads.get(&weight).is_some());
    assert!(grads.get(&input).is_none() && grads.get(&bias).is_none());
    assert!(!linear(&input, &weight.detach(), None)?.track_op(), "inference builds no graph");
    Ok(())
}

#[test]
fn half_precision_weights_and_inputs() -> Result<()> {
    let (x, weight) = (pseudo_random(&[5, 40], 1)?, pseudo_random(&[33, 40], 2)?);
    for dtype in [DType::BF16, DType::F16] {
        let narrow = weight.to_dtype(dtype)?;
        let want = x.to_dtype(DType::F32)?.matmul(&narrow.to_dtype(DType::F32)?.t()?)?;
        let y = linear(&x.to_dtype(DType::F32)?, &narrow, None)?;
        assert_eq!(y.dtype(), DType::F32);
        assert!(worst(&y, &want) < 1e-5);

        let (x, weight) = (Var::from_tensor(&x.to_dtype(dtype)?)?, Var::from_tensor(&weight.to_dtype(DType::F32)?)?);
        let y = linear(x.as_tensor(), weight.as_tensor(), None)?;
        assert_eq!(y.dtype(), dtype);
        let grads = y.sum_all()?.backward()?;
        assert_eq!((grads.get(&x).unwrap().dtype(), grads.get(&weight).unwrap().dtype()), (dtype, DType::F32));
    }
    Ok(())
}

#[test]
fn misfits_are_refused() {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert!(linear(&zeros(&[2, 3]), &zeros(&[4, 5]), None).is_err());
    assert!(linear(&zeros(&[2, 5]), &zeros(&[4, 5]), Some(&zeros(&[5]))).is_err());
    assert!(linear(&zeros(&[2, 5]).to_dtype(DType::U8).unwrap(), &zeros(&[4, 5]), None).is_err());
    assert!(matmul(&zeros(&[2, 3, 4]), &zeros(&[5, 4, 2])).is_err());
}
