//! Argument types that several commands share.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::{DType, Device};
use clap::ValueEnum;
use sconce_core::embedded::locate_model;
use sconce_core::hub::{self, Needs};
use sconce_core::model::Family;
use sconce_core::recipe::Float;
use sconce_sdk::{Choice, Kind};
use serde_json::Value;

use super::Failure;

/// Where tensors live: `cpu`, `cuda:0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceArg {
    /// The processor.
    Cpu,
    /// A GPU by number.
    Cuda(usize),
}

impl DeviceArg {
    /// The device itself.
    pub fn open(self) -> Result<Device, Failure> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => sconce_nn::kernels::open_cuda(number).map_err(|e| {
                let failure = Failure::run(e).context(format!("cannot open the GPU cuda:{number}"));
                failure.help("use --device cpu, or a program built with `--features cuda` where there is such a GPU")
            }),
        }
    }
}

/// The first GPU in a build for GPUs, else the processor.
impl Default for DeviceArg {
    fn default() -> Self {
        if cfg!(feature = "cuda") { Self::Cuda(0) } else { Self::Cpu }
    }
}

impl std::fmt::Display for DeviceArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for DeviceArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| "a GPU is cuda:0, cuda:1 …".into()),
            _ => Err("a device is cpu, or cuda:0, cuda:1 …".into()),
        }
    }
}

/// A file of a learned word, with how a prompt says it: `penguin.safetensors`, `penguin.safetensors=<penguin>`.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingArg {
    /// The file.
    pub file: PathBuf,
    /// The word, where it is not the file's own.
    pub word: Option<String>,
}

impl FromStr for EmbeddingArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, word) = match text.split_once('=') {
            Some((file, word)) => (file, Some(word.to_owned())),
            None => (text, None),
        };
        if file.is_empty() || word.as_deref().is_some_and(|word| word.trim().is_empty()) {
            return Err("write FILE or FILE=WORD".into());
        }
        Ok(Self { file: file.into(), word })
    }
}

/// A floating type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DtypeArg {
    /// 32 bits.
    F32,
    /// bfloat16: the range of f32, 8 bits of precision.
    Bf16,
    /// IEEE half: 11 bits of precision, overflows at 65,504.
    F16,
}

impl From<DtypeArg> for Float {
    fn from(dtype: DtypeArg) -> Self {
        match dtype {
            DtypeArg::F32 => Self::F32,
            DtypeArg::Bf16 => Self::Bf16,
            DtypeArg::F16 => Self::F16,
        }
    }
}

impl From<DtypeArg> for DType {
    fn from(dtype: DtypeArg) -> Self {
        Float::from(dtype).into()
    }
}

/// An adapter file with its strength: `style.safetensors`, `style.safetensors:0.8`.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraArg {
    /// The file.
    pub file: PathBuf,
    /// Factor on what it adds.
    pub scale: f64,
}

impl FromStr for LoraArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, scale) = match text.rsplit_once(':') {
            // A colon may also be in a path (`C:\…`): what follows it is no number then.
            Some((file, scale)) if !file.is_empty() && scale.parse::<f64>().is_ok() => {
                (file, scale.parse().unwrap_or(1.0))
            }
            _ => (text, 1.0),
        };
        if file.is_empty() || !f64::is_finite(scale) {
            return Err("write FILE or FILE:SCALE".into());
        }
        Ok(Self { file: file.into(), scale })
    }
}

/// The family of a model folder.
pub fn family(path: &Path) -> Result<Choice<dyn Family>, Failure> {
    sconce_core::recipe::family(path, None).map_err(|e| {
        let failure = Failure::files(e.message);
        e.help.into_iter().fold(failure, Failure::help)
    })
}

/// A file on the command line: one of the Hub is fetched.
pub fn here(path: &str) -> Result<PathBuf, Failure> {
    hub::here(path.as_ref(), Needs::Weights).map_err(Failure::files)
}

/// Components beside a single file.
#[derive(Debug, Default, clap::Args)]
pub struct FilesArg {
    /// A component that a single file does not hold, or that takes the place of its own: `vae=ae.safetensors`,
    /// `text_encoder_2=t5xxl.safetensors`. May be repeated.
    #[arg(long, value_name = "COMPONENT=FILE", value_parser = component_file)]
    pub file: Vec<(String, PathBuf)>,
}

fn component_file(text: &str) -> Result<(String, PathBuf), String> {
    let (component, file) = text.split_once('=').ok_or("expected a component and a file: vae=ae.safetensors")?;
    Ok((component.to_owned(), file.into()))
}

impl FilesArg {
    /// The folder of a model that is given as a folder, as a single file, or as a place on the Hub.
    pub fn locate(&self, model: &str) -> Result<PathBuf, Failure> {
        let files = self.file.iter().cloned().collect();
        locate_model(model, &files, Path::new("."), Needs::Model(&[])).map_err(Failure::files)
    }
}

/// A plugin on the command line: its name, its name with fields (`karras{rho=5.0}`), or its table
/// (`{ type = "karras", rho = 5.0 }`).
pub fn plugin<K: Kind + ?Sized>(text: &str) -> Result<Choice<K>, Failure> {
    let inline = |text| sconce_core::recipe::inline(text).map_err(Failure::usage);
    let table = match braces(text) {
        Some(("", table)) => inline(table)?,
        Some((name, fields)) => {
            let mut table = inline(fields)?;
            if let Value::Object(map) = &mut table {
                map.insert("type".into(), name.into());
            }
            table
        }
        None => Value::String(text.to_owned()),
    };
    Choice::from_table(&table).map_err(Failure::plugin)
}

/// A name and the table in braces behind it: `min-snr{gamma=1}`.
pub fn braces(text: &str) -> Option<(&str, &str)> {
    let (name, table) = text.split_at(text.find('{')?);
    table.trim_end().ends_with('}').then_some((name.trim(), table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_loras_read_as_written() {
        assert_eq!("cuda:1".parse(), Ok(DeviceArg::Cuda(1)));
        assert!("gpu".parse::<DeviceArg>().is_err());
        let lora = |text: &str| text.parse::<LoraArg>().map(|l| (l.file.display().to_string(), l.scale));
        assert_eq!(lora("a.safetensors:0.5"), Ok(("a.safetensors".into(), 0.5)));
        assert_eq!(lora("C:\\a.safetensors"), Ok(("C:\\a.safetensors".into(), 1.0)));
        assert!(lora(":1").is_ok_and(|(file, _)| file == ":1"));
    }

    #[test]
    fn braces_part_a_name_from_its_fields() {
        assert_eq!(braces("min-snr{gamma=1}"), Some(("min-snr", "{gamma=1}")));
        assert_eq!(braces("{ type = \"x\" }"), Some(("", "{ type = \"x\" }")));
        assert_eq!((braces("min-snr"), braces("min-snr{gamma=1")), (None, None));
    }
}
