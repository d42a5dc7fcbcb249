//! A folder of captioned pictures: each image with a `.txt` beside it, or all of them in `metadata.jsonl`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{Result, bail};
use serde::Deserialize;

/// One image file and its caption.
#[derive(Clone, Debug)]
pub(super) struct Captioned {
    pub path: PathBuf,
    /// `None` where there is no caption at all, which differs from an empty one.
    pub caption: Option<String>,
    /// The file of its mask, where there is one.
    pub mask: Option<PathBuf>,
}

pub(super) const IMAGES: [&str; 7] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif"];

/// A line of `metadata.jsonl`, the image-folder convention of the Hugging Face hub.
#[derive(Deserialize)]
struct Line {
    file_name: String,
    text: String,
    mask: Option<String>,
}

/// How the name of a mask ends that lies beside its picture.
const MASK: &str = ".mask.png";

/// True if a file is named as a mask.
pub(super) fn is_named_mask(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().ends_with(MASK))
}

/// Every image of a folder and its subfolders, sorted by path. The masks of others are none of their own.
pub(super) fn scan(folder: &Path) -> Result<Vec<Captioned>> {
    if !folder.is_dir() {
        bail!("{}: no such folder of images (data.source.path)", folder.display());
    }
    let mut images = Vec::new();
    walk(folder, &mut images)?;
    images.sort();
    if images.is_empty() {
        bail!("{}: no image in this folder; png, jpg, webp, bmp and gif are read", folder.display());
    }
    let metadata = folder.join("metadata.jsonl");
    let masks = take_masks(&mut images);
    let mut all = if metadata.is_file() { with_metadata(folder, &metadata, images)? } else { with_text_files(images)? };
    for captioned in all.iter_mut().filter(|c| c.mask.is_none()) {
        captioned.mask = masks.get(&captioned.path).cloned();
    }
    Ok(all)
}

/// Takes the files out that are named as masks of other images, and gives each by the image's path.
fn take_masks(images: &mut Vec<PathBuf>) -> BTreeMap<PathBuf, PathBuf> {
    let mask_of = |image: &PathBuf| {
        let mut name = image.file_stem()?.to_owned();
        name.push(MASK);
        Some(image.with_file_name(name))
    };
    let masks: BTreeMap<PathBuf, PathBuf> = images
        .iter()
        .filter_map(|image| Some((image.clone(), mask_of(image)?)))
        .filter(|(_, mask)| images.binary_search(mask).is_ok())
        .collect();
    images.retain(|image| !masks.values().any(|mask| mask == image));
    masks
}

fn walk(folder: &Path, images: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(folder).map_err(|e| candle_core::Error::Msg(format!("{}: {e}", folder.display())))?;
    for entry in entries {
        let path = entry.map_err(|e| candle_core::Error::Msg(format!("{}: {e}", folder.display())))?.path();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        if path.is_dir() {
            walk(&path, images)?;
        } else if IMAGES.contains(&extension.as_str()) {
            images.push(path);
        }
    }
    Ok(())
}

fn with_text_files(images: Vec<PathBuf>) -> Result<Vec<Captioned>> {
    let caption = |path: &Path| match std::fs::read_to_string(path.with_extension("txt")) {
        Ok(text) => Ok(Some(text.trim_start_matches('\u{feff}').trim().to_owned())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => bail!("{}: {e}; captions are UTF-8", path.with_extension("txt").display()),
    };
    images.into_iter().map(|path| Ok(Captioned { caption: caption(&path)?, path, mask: None })).collect()
}

fn with_metadata(folder: &Path, file: &Path, mut images: Vec<PathBuf>) -> Result<Vec<Captioned>> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| candle_core::Error::Msg(format!("{}: cannot read: {e}", file.display())))?;
    let (mut captions, mut masks) = (BTreeMap::new(), BTreeMap::new());
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|e| {
            candle_core::Error::Msg(format!(
                "{}:{}: {e}; a line is {{\"file_name\": …, \"text\": …}}",
                file.display(),
                number + 1
            ))
        })?;
        let inside = |name: &str| match folder.join(name) {
            path if path.is_file() => Ok(path),
            _ => bail!("{}:{}: `{name}` is not in the folder", file.display(), number + 1),
        };
        let image = inside(&line.file_name)?;
        if let Some(mask) = line.mask {
            masks.insert(image.clone(), inside(&mask)?);
        }
        captions.insert(image, line.text);
    }
    images.retain(|image| captions.contains_key(image) || !masks.values().any(|mask| mask == image));
    let captioned = |path: PathBuf| {
        let (caption, mask) = (captions.get(&path).cloned(), masks.get(&path).cloned());
        Captioned { path, caption, mask }
    };
    Ok(images.into_iter().map(captioned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(files: &[&str], metadata: Option<&str>) -> Vec<(String, Option<String>)> {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            std::fs::write(dir.path().join(file), "").expect("a file");
        }
        if let Some(text) = metadata {
            std::fs::write(dir.path().join("metadata.jsonl"), text).expect("a file");
        }
        let name = |p: &Path| p.file_name().expect("a name").to_string_lossy().into_owned();
        let found = scan(dir.path()).expect("a folder of images");
        found.iter().map(|c| (name(&c.path), c.mask.as_deref().map(name))).collect()
    }

    fn pair(picture: &str, mask: Option<&str>) -> (String, Option<String>) {
        (picture.to_owned(), mask.map(str::to_owned))
    }

    #[test]
    fn masks_lie_beside_their_pictures_and_are_none() {
        let found = scanned(&["a.jpg", "a.mask.png", "b.png", "c.mask.png"], None);
        let want = [pair("a.jpg", Some("a.mask.png")), pair("b.png", None), pair("c.mask.png", None)];
        assert_eq!(found, want, "a mask without its picture is left for the caller to name");
    }

    #[test]
    fn metadata_names_masks() {
        let lines = "{\"file_name\": \"a.png\", \"text\": \"x\", \"mask\": \"m.png\"}\n\
                     {\"file_name\": \"b.png\", \"text\": \"y\"}\n";
        let found = scanned(&["a.png", "b.png", "b.mask.png", "m.png"], Some(lines));
        assert_eq!(found, [pair("a.png", Some("m.png")), pair("b.png", Some("b.mask.png"))]);
    }
}
