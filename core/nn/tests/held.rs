//! Weights that do not train, in every form: the same numbers come out as from the matrix that the form stands for, forward
//! and backward, and a store packs, hosts, lets go of and recalls them.

use candle_core::{DType, Device, Result, Tensor, Var};
use sconce_nn::gradcheck::{check, pseudo_random};
use sconce_nn::ops::{linear, linear_held};
use sconce_nn::quant::{Format, Packed};
use sconce_nn::store::{Init, Keep, Reads, Source};
use sconce_nn::{Held, Linear, Store};

const FORMATS: [Format; 3] = [Format::Int8, Format::Fp8, Format::Nf4];

fn forms(weight: &Tensor) -> Result<Vec<Held>> {
    let device = Device::Cpu;
    let mut all = vec![Held::Dense(weight.clone())];
    for format in FORMATS {
        all.push(Held::Packed(Packed::new(weight, format, weight.dtype(), &device)?));
    }
    let hosted: Vec<Held> = all.iter().map(|held| Held::Hosted(Box::new(held.clone()), device.clone())).collect();
    all.extend(hosted);
    Ok(all)
}

#[test]
fn gradients_match_finite_differences_in_every_form() -> Result<()> {
    let (x, bias) = (pseudo_random(&[3, 40], 1)?, pseudo_random(&[24], 2)?);
    for held in forms(&pseudo_random(&[24, 40], 3)?)? {
        let error = check(|x| linear_held(&x[0], &held, Some(&x[1])), &[x.clone(), bias.clone()])?;
        assert!(error < 1e-7, "{error}");
    }
    Ok(())
}

#[test]
fn a_form_computes_what_its_matrix_does() -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        let x = Var::from_tensor(&pseudo_random(&[5, 64], 1)?.to_dtype(dtype)?)?;
        for held in forms(&pseudo_random(&[48, 64], 2)?.to_dtype(dtype)?)? {
            let run = |y: Tensor| -> Result<[Vec<f32>; 2]> {
                let mut grads = y.sqr()?.sum_all()?.backward()?;
                let flat = |t: &Tensor| t.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>();
                Ok([flat(&y)?, flat(&grads.remove(&x).unwrap())?])
            };
            assert_eq!(run(linear_held(&x, &held, None)?)?, run(linear(&x, &held.tensor()?, None)?)?, "{dtype:?}");
        }
    }
    Ok(())
}

/// Two linear layers as two blocks, and a norm's weight.
fn network(keep: Keep) -> Result<(std::sync::Arc<Store>, [Linear; 2])> {
    let store = Store::keeping("net", Source::Random(7), DType::F32, &Device::Cpu, keep, Reads::AtOnce);
    let root = store.root();
    root.param("norm", 80, Init::Ones)?;
    let layer = |name: &str| Linear::new(&root.at(name).block(), 80, 80);
    Ok((store.clone(), [layer("a")?, layer("b")?]))
}

#[test]
fn a_store_keeps_matrices_as_it_is_told_and_nothing_else() -> Result<()> {
    let plain = network(Keep::default())?.0;
    let dense = 4 * (2 * 80 * 81 + 80);
    assert_eq!(plain.bytes(), [dense, 0]);
    let matrices = 2 * 80 * 80;
    for format in FORMATS {
        let (store, _) = network(Keep { packed: Some(format), hosted_blocks: 0 })?;
        assert_eq!(store.bytes(), [dense - 4 * matrices + 2 * format.bytes(matrices / 2), 0]);
        let (store, _) = network(Keep { packed: Some(format), hosted_blocks: 1 })?;
        assert_eq!(store.bytes()[1], format.bytes(matrices / 2));
    }
    let (store, [first, _]) = network(Keep { packed: None, hosted_blocks: 1 })?;
    assert_eq!([store.blocks(), store.bytes()[1]], [2, 4 * 80 * 80]);
    let x = pseudo_random(&[3, 80], 1)?.to_dtype(DType::F32)?;
    let same = (first.forward(&x)? - network(Keep::default())?.1[0].forward(&x)?)?.abs()?.max_all()?;
    assert_eq!(same.to_scalar::<f32>()?, 0.0);
    Ok(())
}

#[test]
fn what_is_let_go_of_comes_back_the_same() -> Result<()> {
    for keep in [Keep::default(), Keep { packed: Some(Format::Nf4), hosted_blocks: 1 }] {
        let (store, [layer, _]) = network(keep)?;
        let x = pseudo_random(&[3, 80], 1)?.to_dtype(DType::F32)?;
        let (before, bytes) = (layer.forward(&x)?.to_vec2::<f32>()?, store.bytes());
        let trained = store.params().into_iter().find(|p| p.name() == "b.bias").unwrap();
        let var = trained.train()?;
        store.release();
        assert_eq!(store.bytes(), [4 * var.elem_count(), 0], "what trains stays");
        let error = layer.forward(&x).unwrap_err().to_string();
        assert!(error.contains("let go of"), "{error}");
        var.set(&(var.as_tensor() + 1.0)?)?;
        store.recall()?;
        assert_eq!((layer.forward(&x)?.to_vec2::<f32>()?, store.bytes()), (before, bytes));
        assert_eq!(trained.tensor()?.to_vec1::<f32>()?, var.as_tensor().to_vec1::<f32>()?);
    }
    Ok(())
}
