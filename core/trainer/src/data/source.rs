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
}

const IMAGES: [&str; 7] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif"];

/// A line of `metadata.jsonl`, the image-folder convention of the Hugging Face hub.
#[derive(Deserialize)]
struct Line {
    file_name: String,
    text: String,
}

/// Every image of a folder and its subfolders, sorted by path.
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
    if metadata.is_file() { with_metadata(folder, &metadata, &images) } else { with_text_files(images) }
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
    images.into_iter().map(|path| Ok(Captioned { caption: caption(&path)?, path })).collect()
}

fn with_metadata(folder: &Path, file: &Path, images: &[PathBuf]) -> Result<Vec<Captioned>> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| candle_core::Error::Msg(format!("{}: cannot read: {e}", file.display())))?;
    let mut captions = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|e| {
            candle_core::Error::Msg(format!(
                "{}:{}: {e}; a line is {{\"file_name\": …, \"text\": …}}",
                file.display(),
                number + 1
            ))
        })?;
        let image = folder.join(&line.file_name);
        if !image.is_file() {
            bail!("{}:{}: `{}` is not in the folder", file.display(), number + 1, line.file_name);
        }
        captions.insert(image, line.text);
    }
    Ok(images.iter().map(|p| Captioned { path: p.clone(), caption: captions.get(p).cloned() }).collect())
}
