//! A fixture as a whole diffusers folder, and what is expected of it. `tests/fixtures/README.md` says what the tensors are.
//! Not every test uses every function.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{DType, Device, Result, Tensor};
use sconce_core::model::LoadOptions;
use sconce_nn::checkpoint::backward;
use sconce_nn::kernels::open;
use sconce_nn::store::Param;
use sconce_nn::weights::{WeightFiles, save};
use serde_json::Value;

use super::formula;

/// The nine models of the fixtures.
pub const CASES: [&str; 9] = ["sd1-a", "sd1-b", "sd1-c", "sd2-a", "sd2-b", "sd2-c", "sdxl-a", "sdxl-b", "sdxl-c"];
/// The six flow models.
pub const FLOW_CASES: [&str; 6] = ["sd3-a", "sd3-b", "sd3-c", "flux-a", "flux-b", "flux-c"];
const PROBES: usize = 4;

/// A fixture.
pub struct Case {
    pub name: String,
    pub text: Value,
    expected: WeightFiles,
    folder: tempfile::TempDir,
}

pub fn data(name: &str, file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/data", name, file].iter().collect()
}

pub fn json(path: PathBuf) -> Value {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Where the tests compute: the CPU, or the device that SCONCE_TEST_DEVICE names (`cuda:0`).
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    let name = std::env::var("SCONCE_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    DEVICE.get_or_init(|| open(&name).expect("the device that SCONCE_TEST_DEVICE names")).clone()
}

pub fn options(dtype: DType) -> LoadOptions {
    LoadOptions::new(device(), dtype)
}

pub fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect()
}

/// The weights of a component by the formula.
pub fn weights(name: &str, component: &str) -> Result<BTreeMap<String, Tensor>> {
    let mut weights = BTreeMap::new();
    for (key, shape) in json(data(name, "keys.json"))[component].as_object().unwrap() {
        let shape: Vec<usize> = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        let values = formula::fill(component, key, &shape);
        weights.insert(key.clone(), Tensor::from_vec(values, shape, &device())?);
    }
    Ok(weights)
}

/// |a - b| / |b|.
pub fn relative(a: &Tensor, b: &Tensor) -> Result<f32> {
    assert_eq!(a.dims(), b.dims());
    let norm = |t: &Tensor| -> Result<f32> { t.detach().to_dtype(DType::F32)?.sqr()?.sum_all()?.sqrt()?.to_scalar() };
    Ok(norm(&(a.detach() - b.detach())?)? / norm(b)?)
}

impl Case {
    /// The folder with the weights of these components.
    pub fn new(name: &str, components: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        copy(&data(name, "model"), folder.path())?;
        let text = json(data(name, "expected.json"));
        let index = json(folder.path().join("model_index.json"));
        for part in ["tokenizer", "tokenizer_2", "tokenizer_3"].into_iter().filter(|part| index[part][1].is_string()) {
            let to = folder.path().join(part);
            if index[part][1].as_str().is_some_and(|class| class.starts_with("T5")) {
                copy(&data("tokenizer-t5", ""), &to)?;
                continue;
            }
            for file in strings(&text["tokenizer_files"]) {
                std::fs::copy(data("tokenizer", file), to.join(file))?;
            }
        }
        for component in components {
            let stem = if component.starts_with("text") { "model" } else { "diffusion_pytorch_model" };
            let path = folder.path().join(component).join(format!("{stem}.safetensors"));
            save(&path, &weights(name, component)?, &BTreeMap::new())?;
        }
        let expected = WeightFiles::open(&[data(name, "expected.safetensors")])?;
        Ok(Self { name: name.to_owned(), text, expected, folder })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn is_xl(&self) -> bool {
        self.name.starts_with("sdxl")
    }

    pub fn expected(&self, key: &str) -> Result<Tensor> {
        self.expected.tensor(key, DType::F32, &device())
    }

    /// Holds a tensor against the expected one of this key.
    pub fn check(&self, key: &str, got: &Tensor, tolerance: f32) -> Result<()> {
        let error = relative(&got.to_dtype(DType::F32)?, &self.expected(key)?)?;
        println!("{} {key}: within {error:.1e}", self.name);
        // Convolutions of f32 run in TF32 on a GPU, here as in PyTorch.
        let tolerance = if device().is_cpu() { tolerance } else { tolerance.max(3e-3) };
        assert!(error < tolerance, "{} {key}: differs by {error:.1e}", self.name);
        Ok(())
    }

    /// Holds a loss and its gradients with regard to `params`, all of which must be variables, against those stored under
    /// `label`: each gradient's norm and products with the probes, relative to the norm.
    pub fn check_gradients(&self, label: &str, params: &[Param], loss: &Tensor) -> Result<()> {
        self.check(&format!("{label}.loss"), &loss.reshape(1)?, 1e-4)?;
        let grads = backward(loss)?;
        let about = &self.text["gradients"][label];
        let (keys, unused, zero) = (strings(&about["keys"]), strings(&about["unused"]), strings(&about["zero"]));
        assert_eq!(keys.len(), params.len(), "{} {label}: the number of parameters", self.name);
        let expected: Vec<Vec<f32>> = self.expected(&format!("{label}.grad64"))?.to_vec2()?;
        let whole = expected.iter().map(|row| f64::from(row[0]).powi(2)).sum::<f64>().sqrt();
        let (mut worst, mut at) = (0.0, "");
        for (key, row) in keys.into_iter().zip(expected) {
            let param = params.iter().find(|p| p.name() == key).unwrap_or_else(|| panic!("no parameter {key}"));
            let Some(grad) = grads.get(&param.var().unwrap()) else {
                assert!(unused.contains(&key), "{} {label}: {key} has no gradient", self.name);
                continue;
            };
            let values: Vec<f32> = grad.flatten_all()?.to_vec1()?;
            let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            if unused.contains(&key) || zero.contains(&key) {
                assert!(
                    norm < 1e-6 * whole,
                    "{} {label}: {key} should have no gradient, its norm is {norm:.1e}",
                    self.name
                );
                continue;
            }
            let probes = (0..PROBES).map(|i| {
                let probe = formula::probe(&format!("probe{i}"), key, grad.dims());
                values.iter().zip(probe).map(|(v, p)| f64::from(*v) * f64::from(p)).sum::<f64>()
            });
            let scale = f64::from(row[0]);
            for (got, want) in std::iter::once(norm).chain(probes).zip(row) {
                let error = (got - f64::from(want)).abs() / scale;
                if error > worst || error.is_nan() {
                    (worst, at) = (error, key);
                }
            }
        }
        println!("{} {label}: gradients within {worst:.1e} ({at})", self.name);
        let most = if device().is_cpu() { 1e-3 } else { 2e-2 };
        assert!(worst < most, "{} {label}: the gradient of {at} differs by {worst:.1e}", self.name);
        Ok(())
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
