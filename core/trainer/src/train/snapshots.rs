//! Snapshots: the averages as they were at some time, one file each in the run's folder, from which averages of other
//! profiles are rebuilt afterwards. A snapshot is written before the checkpoint of the same time, and what a resumed run
//! finds beyond its checkpoint it removes and writes again: none is lost, and none is of another run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Error, Result, bail};
use sconce_nn::weights::{read_metadata, save};
use sconce_sdk::{EmaStrategy, Profile};

use super::averages::Averages;

/// The folder of a run's snapshots.
pub(super) struct Folder(PathBuf);

/// One snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its file.
    pub path: PathBuf,
    /// Pictures seen.
    pub images: u64,
    /// The run's name.
    pub run: String,
    /// The profile of each average in it, where it has one.
    pub profiles: Vec<Option<Profile>>,
    /// The relative precision of its values.
    pub precision: f64,
}

const IMAGES: &str = "sconce.images";
const GAMMAS: &str = "sconce.ema.gamma";
const PRECISION: &str = "sconce.ema.precision";
const RUN: &str = "sconce.run";

impl Folder {
    /// In `run`'s folder.
    pub fn new(run: &Path) -> Self {
        Self(run.join("snapshots"))
    }

    /// Writes one, in place of an older one of the same time.
    pub fn save(
        &self,
        images: u64,
        run: &str,
        averages: &Averages,
        ema: &dyn EmaStrategy,
        dtype: DType,
    ) -> Result<PathBuf> {
        let path = self.0.join(format!("{images:012}.safetensors"));
        let cast = |(name, t): (String, candle_core::Tensor)| Ok((name, t.to_dtype(dtype)?));
        let tensors = averages.named().into_iter().map(cast).collect::<Result<BTreeMap<_, _>>>()?;
        let gammas: Vec<Option<f64>> = ema.tracks().iter().map(|t| t.profile.map(|p| p.gamma)).collect();
        let header = BTreeMap::from([
            (IMAGES.to_owned(), images.to_string()),
            (GAMMAS.to_owned(), serde_json::json!(gammas).to_string()),
            (PRECISION.to_owned(), precision(dtype).to_string()),
            (RUN.to_owned(), run.to_owned()),
        ]);
        save(&path, &tensors, &header)?;
        Ok(path)
    }

    /// Removes those beyond `images`.
    pub fn cut(&self, images: u64) -> Result<()> {
        for (at, path) in self.files() {
            if at > images {
                std::fs::remove_file(&path).map_err(|e| Error::Msg(format!("{}: {e}", path.display())))?;
            }
        }
        Ok(())
    }

    /// The newest file.
    pub fn newest(&self) -> Option<PathBuf> {
        self.files().pop().map(|(_, path)| path)
    }

    /// All of them with their headers, oldest first.
    pub fn read(&self) -> Result<Vec<Snapshot>> {
        self.files().into_iter().map(|(_, path)| Snapshot::read(path)).collect()
    }

    /// Times and files, oldest first. Leftovers of a crash end in `.tmp` and do not count.
    fn files(&self) -> Vec<(u64, PathBuf)> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten().map(|e| e.path());
        let mut files: Vec<(u64, PathBuf)> = entries
            .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
            .filter_map(|p| Some((p.file_stem()?.to_str()?.parse().ok()?, p)))
            .collect();
        files.sort();
        files
    }
}

impl Snapshot {
    fn read(path: PathBuf) -> Result<Self> {
        let header = read_metadata(&path)?;
        let parsed = || {
            let gammas: Vec<Option<f64>> = serde_json::from_str(header.get(GAMMAS)?).ok()?;
            Some(Self {
                path: path.clone(),
                images: header.get(IMAGES)?.parse().ok()?,
                run: header.get(RUN)?.clone(),
                profiles: gammas.into_iter().map(|g| g.map(|gamma| Profile { gamma })).collect(),
                precision: header.get(PRECISION)?.parse().ok()?,
            })
        };
        match parsed() {
            Some(snapshot) => Ok(snapshot),
            None => bail!("{}: not a snapshot of a run: its header does not say of what it is", path.display()),
        }
    }
}

/// The unit roundoff: how far, relative to it, a number is from the nearest of this type at most.
fn precision(dtype: DType) -> f64 {
    match dtype {
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        _ => 2f64.powi(-24),
    }
}
