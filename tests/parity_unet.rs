//! The UNet against diffusers: outputs and every parameter's gradient, on nine configs that differ in all that configs
//! can vary, with the weights of the formula read from a weight file.

#[path = "common/formula.rs"]
mod formula;

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::{DType, Device, Result, Tensor};
use sconce_core::Cond;
use sconce_core::model::{Backbone, LoadOptions, Recompute};
use sconce_models::sd::unet::UNet;
use sconce_nn::checkpoint::{backward, on_big_stack};
use sconce_nn::weights::{WeightFiles, save};
use serde_json::Value;

const CASES: [&str; 9] =
    ["sd1-a", "sd1-b", "sd1-c", "sd2-a", "sd2-b", "sd2-c", "sdxl-a", "sdxl-b", "sdxl-c"];
const PROBES: usize = 4;

struct Case {
    name: &'static str,
    expected: WeightFiles,
    text: Value,
    unet: UNet,
}

fn data(name: &str, file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/data", name, file].iter().collect()
}

fn json(path: PathBuf) -> Value {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

impl Case {
    fn load(name: &'static str, dtype: DType) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let unet = folder.path().join("unet");
        let mut weights = BTreeMap::new();
        for (key, shape) in json(data(name, "keys.json"))["unet"].as_object().unwrap() {
            let shape: Vec<usize> = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
            let values = formula::fill("unet", key, &shape);
            weights.insert(key.clone(), Tensor::from_vec(values, shape, &Device::Cpu)?);
        }
        save(&unet.join("diffusion_pytorch_model.safetensors"), &weights, &BTreeMap::new())?;
        std::fs::copy(data(name, "model/unet/config.json"), unet.join("config.json"))?;
        let options = LoadOptions { device: Device::Cpu, dtype, random: None };
        Ok(Self {
            name,
            expected: WeightFiles::open(&[data(name, "expected.safetensors")])?,
            text: json(data(name, "expected.json")),
            unet: UNet::load(&unet, 1000, &options)?,
        })
    }

    fn expected(&self, key: &str) -> Result<Tensor> {
        self.expected.tensor(key, DType::F32, &Device::Cpu)
    }

    /// The UNet's output for the inputs stored under `label`.
    fn call(&self, label: &str) -> Result<Tensor> {
        let get = |key: &str| self.expected(&format!("{label}.{key}"));
        let mut cond = Cond::default();
        for key in ["context", "pooled", "time_ids"] {
            if key == "context" || self.unet.config().added.is_some() {
                cond = cond.with(key, get(key)?);
            }
        }
        self.unet.forward(&get("x")?, &get("t")?, &cond)
    }

    /// Trains every parameter on the fixtures' loss and compares the loss, and each gradient's norm and products with
    /// the probes, relative to the norm.
    fn check_gradients(&self) -> Result<()> {
        let vars = self.unet.store().params();
        for param in &vars {
            param.train()?;
        }
        let loss = (self.call("unet")? - self.expected("grad.target")?)?.sqr()?.mean_all()?;
        let error = relative(&loss.reshape(1)?, &self.expected("unet.loss")?)?;
        assert!(error < 1e-4, "{}: the loss differs by {error:.1e}", self.name);
        let grads = backward(&loss)?;

        let keys: Vec<&str> =
            self.text["gradients"]["unet"]["keys"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
        assert_eq!(keys.len(), vars.len(), "{}: the number of parameters", self.name);
        let expected: Vec<Vec<f32>> = self.expected("unet.grad64")?.to_vec2()?;
        let floor = 1e-5 * expected.iter().map(|row| f64::from(row[0]).powi(2)).sum::<f64>().sqrt();
        let (mut worst, mut at) = (0.0, "");
        for (key, row) in keys.into_iter().zip(expected) {
            let param = vars.iter().find(|p| p.name() == key).unwrap_or_else(|| panic!("no parameter {key}"));
            let var = param.var().unwrap();
            let grad = grads.get(&var).unwrap_or_else(|| panic!("{}: {key} has no gradient", self.name));
            let values: Vec<f32> = grad.flatten_all()?.to_vec1()?;
            let scale = f64::from(row[0]).max(floor);
            let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let probes = (0..PROBES).map(|i| {
                let probe = formula::probe(&format!("probe{i}"), key, grad.dims());
                values.iter().zip(probe).map(|(v, p)| f64::from(*v) * f64::from(p)).sum::<f64>()
            });
            for (got, want) in std::iter::once(norm).chain(probes).zip(row) {
                let error = (got - f64::from(want)).abs() / scale;
                if error > worst || error.is_nan() {
                    (worst, at) = (error, key);
                }
            }
        }
        println!("{}: gradients within {worst:.1e} ({at})", self.name);
        assert!(worst < 1e-3, "{}: the gradient of {at} differs by {worst:.1e}", self.name);
        Ok(())
    }
}

fn relative(a: &Tensor, b: &Tensor) -> Result<f32> {
    assert_eq!(a.dims(), b.dims());
    let norm = |t: &Tensor| -> Result<f32> { t.detach().sqr()?.sum_all()?.sqrt()?.to_scalar() };
    Ok(norm(&(a.detach() - b.detach())?)? / norm(b)?)
}

#[test]
fn outputs_are_those_of_diffusers() -> Result<()> {
    for name in CASES {
        let case = Case::load(name, DType::F32)?;
        for label in ["unet", "unet_b"] {
            let error = relative(&case.call(label)?, &case.expected(&format!("{label}.out"))?)?;
            println!("{name} {label}: within {error:.1e}");
            assert!(error < 1e-4, "{name} {label}: differs by {error:.1e}");
        }
    }
    Ok(())
}

#[test]
fn gradients_are_those_of_pytorch() -> Result<()> {
    on_big_stack(|| CASES.into_iter().try_for_each(|name| Case::load(name, DType::F32)?.check_gradients()))
}

#[test]
fn gradients_are_the_same_when_blocks_are_recomputed() -> Result<()> {
    on_big_stack(|| {
        ["sd1-b", "sdxl-a"].into_iter().try_for_each(|name| {
            let case = Case::load(name, DType::F32)?;
            case.unet.recompute(Recompute::Blocks);
            case.check_gradients()
        })
    })
}

#[test]
fn half_precision_stays_near() -> Result<()> {
    for (dtype, tolerance) in [(DType::BF16, 0.05), (DType::F16, 0.01)] {
        let case = Case::load("sdxl-a", dtype)?;
        let out = case.call("unet")?;
        assert_eq!(out.dtype(), dtype);
        let error = relative(&out.to_dtype(DType::F32)?, &case.expected("unet.out")?)?;
        println!("sdxl-a in {dtype:?}: within {error:.1e}");
        assert!(error < tolerance, "{dtype:?} differs by {error:.1e}");
    }
    Ok(())
}
