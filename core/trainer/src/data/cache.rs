//! Latents and text embeddings on disk, keyed by everything that decides them: the file's content, its framing, and the
//! identity of the encoder. An edited image, another crop or other encoder weights have another key, so a stale entry
//! is never read. Entries are computed one by one, so that their bits do not depend on what shares a batch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Result, Tensor};
use sconce_nn::Store;
use sconce_nn::weights::{WeightFiles, bytes_of, save};
use sha2::{Digest, Sha256};

use super::Use;
use super::picture::{self, Frame};
use super::set::Set;
use crate::cond::Cond;
use crate::model::{Autoencoder, Conditioner, PromptUse};

/// A folder of encoded pictures and captions.
pub struct Cache {
    folder: PathBuf,
    pictures: String,
    captions: String,
}

/// The encoder's Gaussian for one picture, C h w.
#[derive(Clone)]
pub struct Encoded {
    /// Mean of the raw latents.
    pub mean: Tensor,
    /// Their log-variance, where the encoder gives one.
    pub log_variance: Option<Tensor>,
}

impl Cache {
    /// The cache in `folder` for these encoders, which it knows by the content of their weights.
    pub fn new(folder: &Path, autoencoder: &dyn Autoencoder, conditioner: &dyn Conditioner) -> Result<Self> {
        let pictures = identity(&[autoencoder.store().as_ref()])?;
        let stores = conditioner.stores();
        let captions = identity(&stores.iter().map(AsRef::as_ref).collect::<Vec<_>>())?;
        Ok(Self { folder: folder.to_owned(), pictures, captions })
    }

    /// The latents of one use of an item; computed and kept if they are not there.
    pub fn picture(&self, set: &Set, used: &Use, autoencoder: &dyn Autoencoder) -> Result<Encoded> {
        let item = &set.items[used.item];
        let file = &set.files[item.picture];
        let frame = Frame { framing: item.framing, ground: item.ground, mirrored: used.mirrored };
        let key = key(&[&self.pictures, &hex(&file.hash), &format!("{frame:?}")]);
        let path = self.path("pictures", &key);
        let tensors = match read(&path) {
            Some(tensors) => tensors,
            None => {
                let device = autoencoder.store().device().clone();
                let pixels = picture::load(&file.path, &frame)?.unsqueeze(0)?.to_device(&device)?;
                let moments = autoencoder.encode(&pixels)?;
                let mut tensors = BTreeMap::from([("mean".to_owned(), on_cpu(&moments.mean)?)]);
                if let Some(v) = moments.log_variance {
                    tensors.insert("log_variance".to_owned(), on_cpu(&v)?);
                }
                write(&path, &tensors)?;
                tensors
            }
        };
        let get = |name: &str| tensors.get(name).map(|t| t.squeeze(0)).transpose();
        let mean = get("mean")?.ok_or_else(|| candle_core::Error::Msg(format!("{}: no mean", path.display())))?;
        Ok(Encoded { mean, log_variance: get("log_variance")? })
    }

    /// The embedding of one prompt, batch of 1; computed and kept if it is not there.
    pub fn caption(&self, prompt: &str, what: PromptUse, conditioner: &dyn Conditioner) -> Result<Cond> {
        let path = self.path("captions", &key(&[&self.captions, &format!("{what:?}"), prompt]));
        if let Some(tensors) = read(&path) {
            return Ok(Cond(tensors));
        }
        let cond = conditioner.encode(&[(prompt, what)])?.map(on_cpu_whole)?;
        write(&path, &cond.0)?;
        Ok(cond)
    }

    fn path(&self, kind: &str, key: &str) -> PathBuf {
        self.folder.join(kind).join(&key[..2]).join(format!("{key}.safetensors"))
    }
}

/// An entry, if it is there and whole: a torn one is computed again.
fn read(path: &Path) -> Option<BTreeMap<String, Tensor>> {
    let files = WeightFiles::open(&[path]).ok()?;
    files.keys().map(|k| Some((k.to_owned(), files.tensor(k, DType::F32, &Device::Cpu).ok()?))).collect()
}

fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    save(path, tensors, &BTreeMap::new())
}

fn on_cpu(t: &Tensor) -> Result<Tensor> {
    t.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)
}

fn on_cpu_whole(t: &Tensor) -> Result<Tensor> {
    on_cpu(t)?.contiguous()
}

/// SHA-256 over the names and values of all parameters.
fn identity(stores: &[&Store]) -> Result<String> {
    let mut hash = Sha256::new();
    for store in stores {
        for param in store.params() {
            hash.update(param.name().as_bytes());
            hash.update(bytes_of(&param.tensor())?);
        }
    }
    Ok(hex(&hash.finalize()))
}

fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
