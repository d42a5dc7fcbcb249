//! All pictures of a recipe, sized, grounded and split, and the report of what became of each file.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::{Result, Tensor, bail};
use rayon::prelude::*;

use super::bucket::Buckets;
use super::parquet;
use super::picture::{self, Frame, Framing, MaskOf, Mirrored, Probe};
use super::source::{self, Captioned, is_named_mask};
use crate::digest::Digest;
use crate::embedded;
use crate::hub::{self, Needs};
use crate::recipe::{Aspect, DataTable, Flip, MaskFrom, SourceTable};

/// One thing to train on: a picture on a ground, with its caption.
#[derive(Clone, Debug)]
pub struct Item {
    /// Index of the file among the set's pictures.
    pub picture: usize,
    /// Its size and crop.
    pub framing: Framing,
    /// The colour behind transparency.
    pub ground: [u8; 3],
    /// The caption, template filled in.
    pub caption: String,
    /// Whether it is mirrored at times.
    pub flip: Flip,
}

impl Item {
    /// How its pixels are made of its file's.
    pub(super) fn frame(&self, mirrored: Mirrored) -> Frame {
        Frame { framing: self.framing, ground: self.ground, mirrored }
    }
}

/// A file that is not used, and why.
#[derive(Clone, Debug)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// What became of the files.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Image files found.
    pub found: usize,
    /// Files that are not used.
    pub skipped: Vec<Skipped>,
    /// Files without a caption: they train the empty prompt.
    pub uncaptioned: Vec<PathBuf>,
    /// Pictures by size (height, width).
    pub buckets: BTreeMap<(u32, u32), usize>,
    /// Pictures that lose more than a twentieth of their area to the crop.
    pub cropped: usize,
    /// The largest share that a crop takes away.
    pub largest_crop: f64,
    /// Pictures smaller than their bucket.
    pub enlarged: usize,
    /// Pictures with a mask.
    pub masked: usize,
    /// Files named as masks that are not used, since the source's `mask` says so.
    pub idle_masks: usize,
    /// Things to train on in one pass: pictures times grounds times repeats.
    pub training: usize,
    /// Things that the validation loss is measured on.
    pub held_out: usize,
}

/// The pictures of a recipe.
pub struct Set {
    /// The image files.
    pub(super) files: Vec<File>,
    /// Everything that can be in a batch.
    pub items: Vec<Item>,
    /// Indices of the items to train on, repeats included.
    pub train: Vec<usize>,
    /// Indices of the items held out.
    pub held_out: Vec<usize>,
    /// What became of the files.
    pub report: Report,
}

/// An image file.
pub(super) struct File {
    pub path: PathBuf,
    pub hash: [u8; 32],
    pub mask: Option<MaskFile>,
}

/// A picture's mask.
pub(super) struct MaskFile {
    pub path: PathBuf,
    pub hash: [u8; 32],
    pub of: MaskOf,
}

impl Set {
    /// Reads the sources of a recipe. `side_px` is the model's own resolution, `step_px` what sides are multiples of,
    /// `share` the part of the pictures held out, `base` the folder that relative paths start from.
    pub fn open(data: &DataTable, base: &Path, side_px: u32, step_px: u32, share: f64) -> Result<Self> {
        let mut set = Self { files: vec![], items: vec![], train: vec![], held_out: vec![], report: Report::default() };
        for source in &data.source {
            let folder = match &source.split {
                Some(split) if hub::leads(&source.path) => hub::fetched(&source.path, Needs::Split(split))?,
                _ => embedded::locate(&source.path, base)?,
            };
            set.add(source, &folder, side_px, step_px, share)?;
        }
        set.report.training = set.train.len();
        set.report.held_out = set.held_out.len();
        if set.train.is_empty() {
            let why = set.report.skipped.first().map(|s| format!("; the first: {}: {}", s.path.display(), s.why));
            bail!(
                "no picture to train on: {} found, {} skipped, {} held out{}",
                set.report.found,
                set.report.skipped.len(),
                set.held_out.len(),
                why.unwrap_or_default()
            );
        }
        Ok(set)
    }

    fn add(&mut self, source: &SourceTable, folder: &Path, side_px: u32, step_px: u32, share: f64) -> Result<()> {
        let side = source.resolution_px.unwrap_or(side_px);
        let smallest = source.smallest_px.unwrap_or(side / 4).max(1);
        let buckets = match source.aspect {
            Aspect::Buckets => Buckets::new(side, step_px),
            Aspect::Square => Buckets::square(side, step_px),
        };
        let unpacked = parquet::unpacked(source, folder)?;
        let found = source::scan(unpacked.as_deref().unwrap_or(folder))?;
        self.report.found += found.len();
        let probes: Vec<_> = found.par_iter().map(|c| probe(source, c)).collect();
        let sized = |p: (Probe, Option<MaskFile>)| {
            let (h, w) = p.0.size;
            if h.min(w) < smallest {
                return Err(format!("{w}x{h} pixels; the smaller side must have {smallest} (smallest_px)"));
            }
            Ok(p)
        };
        for (captioned, probe) in found.into_iter().zip(probes) {
            match probe.and_then(sized) {
                Ok((probe, mask)) => self.take(source, captioned, probe, mask, &buckets, share),
                Err(why) => self.report.skipped.push(Skipped { path: captioned.path, why }),
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        source: &SourceTable,
        captioned: Captioned,
        probe: Probe,
        mask: Option<MaskFile>,
        buckets: &Buckets,
        share: f64,
    ) {
        let framing = Framing::new(probe.size, buckets.nearest(probe.size.0, probe.size.1));
        let report = &mut self.report;
        *report.buckets.entry(framing.target).or_default() += 1;
        report.cropped += usize::from(framing.cropped() > 0.05);
        report.largest_crop = report.largest_crop.max(framing.cropped());
        report.enlarged += usize::from(framing.enlarged());
        report.masked += usize::from(mask.is_some());
        report.idle_masks += usize::from(source.mask != MaskFrom::File && captioned.mask.is_some());
        if captioned.caption.is_none() {
            report.uncaptioned.push(captioned.path.clone());
        }
        let caption = captioned.caption.unwrap_or_default();
        let picture = self.files.len();
        let held_out = is_held_out(&probe.hash, share);
        self.files.push(File { path: captioned.path, hash: probe.hash, mask });
        // An opaque picture shows no ground: it is one item, and its caption does not speak of any.
        let grounds: Vec<(Option<&str>, [u8; 3])> = match source.grounds.as_slice() {
            some if probe.alpha && !some.is_empty() => some.iter().map(|g| (Some(g.name.as_str()), g.rgb)).collect(),
            _ => vec![(None, [255; 3])],
        };
        for (name, ground) in grounds {
            let caption = match name {
                None if !source.grounds.is_empty() => caption.clone(),
                name => source.caption.replace("{caption}", &caption).replace("{ground}", name.unwrap_or_default()),
            };
            let index = self.items.len();
            self.items.push(Item { picture, framing, ground, caption, flip: source.flip });
            if held_out {
                self.held_out.push(index);
            } else {
                self.train.extend(std::iter::repeat_n(index, source.repeats));
            }
        }
    }

    /// An item's pixels, 3 H W in [-1, 1], on the CPU.
    pub fn pixels(&self, item: usize, mirrored: Mirrored) -> Result<Tensor> {
        let item = &self.items[item];
        picture::load(&self.files[item.picture].path, &item.frame(mirrored))
    }

    /// The identity of everything that a batch is made of: the files' contents, sizes, crops, grounds, captions, and what
    /// is held out. Where the files are does not matter.
    pub fn identity(&self) -> String {
        let mut digest = Digest::default();
        for item in &self.items {
            let made = (item.framing, item.ground, item.flip);
            let file = &self.files[item.picture];
            digest = digest.part(&file.hash).part(format!("{made:?}").as_bytes()).part(item.caption.as_bytes());
            if let Some(mask) = &file.mask {
                digest = digest.part(&mask.hash).part(format!("{:?}", mask.of).as_bytes());
            }
        }
        digest.part(format!("{:?} {:?}", self.train, self.held_out).as_bytes()).hex()
    }

    /// The file of an item's picture.
    pub fn path(&self, item: usize) -> &Path {
        &self.files[self.items[item].picture].path
    }

    /// Every caption, once.
    pub fn captions(&self) -> BTreeSet<&str> {
        self.items.iter().map(|i| i.caption.as_str()).collect()
    }
}

/// What a picture's file and that of its mask say before they are decoded.
fn probe(source: &SourceTable, captioned: &Captioned) -> picture::Outcome<(Probe, Option<MaskFile>)> {
    let probe = picture::probe(&captioned.path)?;
    let mask = match (source.mask, &captioned.mask) {
        (MaskFrom::File, _) if is_named_mask(&captioned.path) => return Err("a mask without its picture".into()),
        (MaskFrom::File, Some(path)) => {
            let mask = picture::probe(path).map_err(|e| format!("its mask {}: {e}", path.display()))?;
            let ((h, w), (mask_h, mask_w)) = (probe.size, mask.size);
            if probe.size != mask.size {
                return Err(format!("{w}x{h} pixels, its mask {} {mask_w}x{mask_h}: make them alike", path.display()));
            }
            Some(MaskFile { path: path.clone(), hash: mask.hash, of: MaskOf::Brightness })
        }
        (MaskFrom::Alpha, _) if probe.alpha => {
            Some(MaskFile { path: captioned.path.clone(), hash: probe.hash, of: MaskOf::Alpha })
        }
        _ => None,
    };
    Ok((probe, mask))
}

/// Held out by its content: the same picture is always on the same side, whatever else is in the folder.
fn is_held_out(hash: &[u8; 32], share: f64) -> bool {
    let [a, b, c, d, ..] = *hash;
    f64::from(u32::from_le_bytes([a, b, c, d])) < share * f64::from(u32::MAX)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.found - self.skipped.len();
        writeln!(
            f,
            "{used} of {} pictures used; {} to train on in a pass, {} held out",
            self.found, self.training, self.held_out
        )?;
        for ((h, w), n) in &self.buckets {
            writeln!(f, "  {w}x{h} px: {n}")?;
        }
        if self.cropped > 0 {
            writeln!(
                f,
                "  {} lose more than 5 % to the crop, at most {:.0} %",
                self.cropped,
                100.0 * self.largest_crop
            )?;
        }
        if self.enlarged > 0 {
            writeln!(f, "  {} are smaller than their bucket and enlarged", self.enlarged)?;
        }
        if self.masked > 0 {
            writeln!(f, "  {} have a mask", self.masked)?;
        }
        if self.idle_masks > 0 {
            writeln!(
                f,
                "  {} masks beside pictures are not used (data.source.mask = \"file\" uses them)",
                self.idle_masks
            )?;
        }
        if let Some(first) = self.uncaptioned.first() {
            writeln!(
                f,
                "  {} have no caption and train the empty prompt, the first: {}",
                self.uncaptioned.len(),
                first.display()
            )?;
        }
        for s in &self.skipped {
            writeln!(f, "  skipped {}: {}", s.path.display(), s.why)?;
        }
        Ok(())
    }
}
