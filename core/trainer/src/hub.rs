//! Paths that lead to the Hub: `hf://owner/name[@revision][/file]` wherever a recipe or a command takes a path. What is asked
//! for is fetched into the cache that the Python client shares, and no more than that; a recipe names the commit once it is
//! resolved, so that the same run can be had again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use candle_core::{Error, Result, bail};
use sconce_hub::{Hub, Listing, Progress, Reference};

use crate::data::split;

/// What of a repository is needed.
#[derive(Clone, Copy, Debug)]
pub enum Needs<'a> {
    /// Of a model, what tells of it: its configs and tokenizers, no weights. A single file is told by its header, and comes whole.
    Configs,
    /// A model, without these components.
    Model(&'a [String]),
    /// One safetensors file: the one that is named, or the only one.
    Weights,
    /// One split of a dataset in Parquet files.
    Split(&'a str),
    /// Everything.
    All,
}

/// Whether a path leads to the Hub.
pub fn leads(path: &str) -> bool {
    Reference::is(path)
}

/// Whether a path is a recipe's address elsewhere, on the Hub or not.
pub fn is_elsewhere(path: &str) -> bool {
    leads(path) || sconce_hub::is_address(path)
}

/// The text of a recipe at an address that is not the Hub's.
///
/// # Errors
/// If it is not reached, or is no short text.
pub fn text(url: &str) -> Result<String> {
    hub()?.text(url).map_err(plain)
}

static LISTENER: Mutex<Option<Box<dyn Progress + Send>>> = Mutex::new(None);

/// Who hears of transfers, from now on. Nobody does at first.
pub fn tell(listener: Box<dyn Progress + Send>) {
    *LISTENER.lock().expect("no holder panics") = Some(listener);
}

/// A transfer's listener, if there is one.
struct Told;

impl Told {
    fn listener(hear: impl FnOnce(&mut dyn Progress)) {
        if let Some(listener) = LISTENER.lock().expect("no holder panics").as_deref_mut() {
            hear(listener);
        }
    }
}

impl Progress for Told {
    fn begin(&mut self, file: &str, bytes: u64) {
        Self::listener(|l| l.begin(file, bytes));
    }

    fn advance(&mut self, bytes: u64) {
        Self::listener(|l| l.advance(bytes));
    }

    fn end(&mut self) {
        Self::listener(|l| l.end());
    }

    fn notice(&mut self, text: &str) {
        Self::listener(|l| l.notice(text));
    }
}

fn plain(e: sconce_hub::Error) -> Error {
    Error::Msg(e.to_string())
}

/// The Hub that the environment names.
pub fn hub() -> Result<&'static Hub> {
    static HUB: OnceLock<Hub> = OnceLock::new();
    if let Some(hub) = HUB.get() {
        return Ok(hub);
    }
    let made = Hub::from_env().map_err(plain)?;
    Ok(HUB.get_or_init(|| made))
}

/// The same path at the commit that its revision is now.
///
/// # Errors
/// If it is malformed, or the Hub does not have it.
pub fn pinned(path: &str) -> Result<String> {
    let place: Reference = path.parse().map_err(plain)?;
    let listing = hub()?.files(&place, &mut Told).map_err(plain)?;
    Ok(place.pinned(&listing.commit).map_err(plain)?.to_string())
}

/// Where what is needed of a path lies on the disk, once it is there.
///
/// # Errors
/// If it is malformed, the Hub does not have it, or it is not what is needed.
pub fn fetched(path: &str, needs: Needs) -> Result<PathBuf> {
    let place: Reference = path.parse().map_err(plain)?;
    let listing = hub()?.files(&place, &mut Told).map_err(plain)?;
    let place = place.pinned(&listing.commit).map_err(plain)?;
    let own = place.path().unwrap_or_default();
    let is_file = listing.files.iter().any(|file| file.path == own);
    let inside = |file: &str| file.strip_prefix(own).map_or(file.to_owned(), |f| f.trim_start_matches('/').to_owned());
    let mut only = None;
    if !is_file {
        match needs {
            Needs::Configs | Needs::Model(_) if !has(&listing, own, "model_index.json") => {
                bail!("{path}: there is no model_index.json in it; {}", files_in_it(path, &listing))
            }
            Needs::Weights => {
                let mut weights = listing.files.iter().map(|f| &f.path).filter(|f| f.ends_with(".safetensors"));
                match (weights.next(), weights.next()) {
                    (Some(one), None) => only = Some(one.clone()),
                    _ => bail!("{path}: one safetensors file is needed; {}", files_in_it(path, &listing)),
                }
            }
            _ => {}
        }
    }
    let wants = |file: &str| match needs {
        _ if is_file => file == own,
        Needs::All => true,
        Needs::Split(wanted) => file.ends_with(".parquet") && split(Path::new(file)) == wanted,
        Needs::Configs => of_model(&inside(file), &[]) && !file.ends_with(".safetensors"),
        Needs::Model(without) => of_model(&inside(file), without),
        Needs::Weights => only.as_deref() == Some(file),
    };
    let snapshot = hub()?.fetch(&place, &wants, &mut Told).map_err(plain)?;
    if let (Needs::Weights, true) = (needs, is_file) {
        beside(&place, own);
    }
    Ok(match only {
        Some(file) => snapshot.folder.join(file),
        None => snapshot.folder.join(own),
    })
}

/// A path as it is, or where what is needed of a place on the Hub lies once it is fetched.
///
/// # Errors
/// Those of [`fetched`].
pub fn here(path: &Path, needs: Needs) -> Result<PathBuf> {
    match path.to_str().filter(|path| leads(path)) {
        Some(place) => fetched(place, needs),
        None => Ok(path.to_owned()),
    }
}

/// The configuration that PEFT leaves beside an adapter's file, where there is one.
fn beside(place: &Reference, file: &str) {
    const NAME: &str = "adapter_config.json";
    let Some(folder) = place.to_string().strip_suffix(file).map(|f| f.trim_end_matches('/').to_owned()) else { return };
    let (Ok(hub), Ok(folder)) = (hub(), folder.parse::<Reference>()) else { return };
    let wanted = match file.rsplit_once('/') {
        Some((dir, _)) => format!("{dir}/{NAME}"),
        None => NAME.to_owned(),
    };
    // A repository without one is the common case, and is told by its listing.
    let _ = hub.fetch(&folder, &|f| f == wanted, &mut Told);
}

fn has(listing: &Listing, folder: &str, name: &str) -> bool {
    let wanted = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    listing.files.iter().any(|file| file.path == wanted)
}

/// The weight files that there are to name instead.
fn files_in_it(path: &str, listing: &Listing) -> String {
    let whole: Vec<String> = listing
        .files
        .iter()
        .filter(|f| f.path.ends_with(".safetensors"))
        .take(6)
        .map(|f| format!("`{}`", f.path))
        .collect();
    match whole.is_empty() {
        true => "and it has no safetensors file either".to_owned(),
        false => format!("name a file of it behind {path}, such as {}", whole.join(", ")),
    }
}

/// Whether a file of a diffusers folder is needed: configs and tokenizers of the components that are trained and sampled with,
/// and their weights in full precision.
pub(crate) fn of_model(file: &str, without: &[String]) -> bool {
    const COMPONENTS: [&str; 11] = [
        "backbone",
        "unet",
        "transformer",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
        "tokenizer",
        "tokenizer_2",
        "tokenizer_3",
        "scheduler",
    ];
    let path = Path::new(file);
    let (Some(folder), Some(name)) = (path.parent().and_then(Path::to_str), path.file_name().and_then(|n| n.to_str()))
    else {
        return false;
    };
    if folder.is_empty() {
        return name == "model_index.json";
    }
    if !COMPONENTS.contains(&folder) || without.iter().any(|component| component == folder) {
        return false;
    }
    let Some((stem, kind)) = name.rsplit_once('.') else { return false };
    match kind {
        "json" | "txt" => true,
        // `model.fp16.safetensors` is the same weights again, of fewer bits.
        "safetensors" => !stem.contains('.'),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_repository_only_what_is_needed_comes() {
        let yes = [
            "model_index.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "transformer/diffusion_pytorch_model-00001-of-00003.safetensors",
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            "tokenizer/merges.txt",
            "scheduler/scheduler_config.json",
        ];
        let no = [
            "README.md",
            "sd_xl_base_1.0.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "unet/model.onnx",
            "safety_checker/model.safetensors",
            "text_encoder_3/model.safetensors",
        ];
        let without = ["text_encoder_3".to_owned()];
        assert_eq!(yes.into_iter().filter(|f| !of_model(f, &without)).collect::<Vec<_>>(), [] as [&str; 0]);
        assert_eq!(no.into_iter().filter(|f| of_model(f, &without)).collect::<Vec<_>>(), [] as [&str; 0]);
        assert!(leads("hf://a/b") && !leads("models/hf"));
    }
}
