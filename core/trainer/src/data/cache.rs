//! Latents and text embeddings on disk, keyed by everything that decides them: the file's content and framing or the
//! caption's tokens, and the encoder's config and weights. An edited image, another crop, tokenizer or encoder has another
//! key, so a stale entry is never read. Entries are computed one by one, so that their bits do not depend on what shares a batch.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Result, Tensor};
use sconce_nn::Store;
use sconce_nn::weights::{WeightFiles, bytes_of, save};

use super::Use;
use super::picture;
use super::set::{MaskFile, Set};
use crate::cond::Cond;
use crate::digest::Digest;
use crate::model::{Autoencoder, Conditioner, PromptUse};

/// A folder of encoded pictures and captions.
pub struct Cache {
    folder: PathBuf,
    /// Identity of the autoencoder.
    pictures: String,
    /// Identity of the text encoders, where they were needed: hashing gigabytes takes seconds.
    captions: OnceLock<String>,
}

/// Changes where an entry of the same key would hold something else than before.
const FORMAT: &str = "1";

/// The encoder's Gaussian for one picture, C h w.
#[derive(Clone)]
pub struct Encoded {
    /// Mean of the raw latents.
    pub mean: Tensor,
    /// Their log-variance, where the encoder gives one.
    pub log_variance: Option<Tensor>,
    /// The picture's mask, 1 h w, from 0 to 1, where it has one.
    pub mask: Option<Tensor>,
}

impl Cache {
    /// The cache in `folder` for pictures encoded by `autoencoder`, which it knows by its config and weights.
    pub fn new(folder: &Path, autoencoder: &dyn Autoencoder) -> Result<Self> {
        let pictures = identity(&autoencoder.definition(), &[autoencoder.store().clone()])?;
        Ok(Self { folder: folder.to_owned(), pictures, captions: OnceLock::new() })
    }

    /// The latents of one use of an item; computed and kept if they are not there.
    pub fn picture(&self, set: &Set, used: &Use, autoencoder: &dyn Autoencoder) -> Result<Encoded> {
        let item = &set.items[used.item];
        let file = &set.files[item.picture];
        let frame = item.frame(used.mirrored);
        let key = Digest::of(&[self.pictures.as_bytes(), &file.hash, format!("{frame:?}").as_bytes()]);
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
        let mask = self.mask(set, used, autoencoder.factor())?;
        Ok(Encoded { mean, log_variance: get("log_variance")?, mask })
    }

    /// The mask of one use of an item, 1 h w, in latent pixels of `factor` pixels a side.
    fn mask(&self, set: &Set, used: &Use, factor: usize) -> Result<Option<Tensor>> {
        let item = &set.items[used.item];
        let Some(MaskFile { path: file, hash, of }) = &set.files[item.picture].mask else { return Ok(None) };
        let frame = item.frame(used.mirrored);
        let path = self.path("masks", &Digest::of(&[hash, format!("{of:?} {frame:?} {factor}").as_bytes()]));
        if let Some(mask) = read(&path).and_then(|mut tensors| tensors.remove("mask")) {
            return Ok(Some(mask));
        }
        let mask = picture::load_mask(file, *of, &frame, factor)?;
        write(&path, &BTreeMap::from([("mask".to_owned(), mask.clone())]))?;
        Ok(Some(mask))
    }

    /// The embedding of one prompt, batch of 1; computed and kept if it is not there.
    pub fn caption(&self, prompt: &str, what: PromptUse, conditioner: &dyn Conditioner) -> Result<Cond> {
        let encoders = match self.captions.get() {
            Some(known) => known,
            None => {
                let found = identity(&conditioner.definition(), &conditioner.stores())?;
                self.captions.get_or_init(|| found)
            }
        };
        let asked = format!("{what:?} {:?} {prompt}", conditioner.token_ids(prompt)?);
        let path = self.path("captions", &Digest::of(&[encoders.as_bytes(), asked.as_bytes()]));
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

/// The hash of an encoder: what its config says, the type it computes in, and the names and values of all parameters.
fn identity(definition: &str, stores: &[Arc<Store>]) -> Result<String> {
    let mut hash = Digest::default().part(FORMAT.as_bytes()).part(definition.as_bytes());
    for store in stores {
        hash = hash.part(format!("{} {:?}", store.component(), store.dtype()).as_bytes());
        store.recall()?;
        for param in store.params() {
            hash = hash.part(param.name().as_bytes()).part(&bytes_of(&param.tensor()?)?);
        }
    }
    Ok(hash.hex())
}
