//! Datasets in Parquet files, as the Hugging Face hub has them: a column of pictures, each the bytes of an image file, and one of
//! captions. They are unpacked once into the user's cache, as a folder of images with a `metadata.jsonl`, and from there on they
//! are a folder like any other. A few rows at a time are in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{Error, Result, bail};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::json;

use crate::embedded::{cache_home, identity, once};
use crate::recipe::SourceTable;

/// Rows that are read at once.
const ROWS: usize = 8;
/// What columns of captions are called, where the recipe does not say.
const CAPTIONS: [&str; 3] = ["text", "caption", "prompt"];

/// The folder that a source's Parquet files are unpacked to; `None` where the path leads to none of them.
///
/// # Errors
/// If a file is damaged, its columns are not told apart, or several splits are there and none is chosen.
pub(super) fn unpacked(source: &SourceTable, path: &Path) -> Result<Option<PathBuf>> {
    let mut files = Vec::new();
    if path.is_file() && is_parquet(path) {
        files.push(path.to_owned());
    } else if path.is_dir() {
        find(path, &mut files)?;
        files.sort();
    }
    if files.is_empty() {
        let fields = [&source.split, &source.image_column, &source.caption_column];
        if let Some(name) = fields.into_iter().flatten().next() {
            bail!(
                "{}: there is no Parquet file, so `{name}` says nothing: take data.source.split, image_column and                  caption_column out, or give the folder that has them",
                path.display()
            );
        }
        return Ok(None);
    }
    let files = of_split(files, source.split.as_deref(), path)?;
    let columns = format!("{:?} {:?}", source.image_column, source.caption_column);
    let mut same = vec![columns];
    for file in &files {
        same.extend(identity(file)?);
    }
    let stem = path.file_stem().map_or_else(|| "parquet".into(), |s| s.to_string_lossy().into_owned());
    once(&cache_home()?.join("sconce/parquet"), &stem, &same, |to| unpack(source, &files, to)).map(Some)
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
}

fn find(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |e: std::io::Error| Error::Msg(format!("{}: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if is_parquet(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// The split that a file's name tells: `train` of `train-00000-of-00002.parquet`, or else its folder's name.
pub(crate) fn split(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let numbered = stem.split_once('-').filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()));
    let folder = || file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    match numbered {
        Some((split, _)) => split.to_owned(),
        None if stem.bytes().all(|b| b.is_ascii_digit()) => folder(),
        None => stem.into_owned(),
    }
}

fn of_split(files: Vec<PathBuf>, wanted: Option<&str>, path: &Path) -> Result<Vec<PathBuf>> {
    let splits: BTreeSet<String> = files.iter().map(|file| split(file)).collect();
    let there = || splits.iter().cloned().collect::<Vec<_>>().join(", ");
    match wanted {
        Some(wanted) if !splits.contains(wanted) => {
            bail!("{}: there is no split `{wanted}` (data.source.split), there is: {}", path.display(), there())
        }
        None if splits.len() > 1 => {
            bail!("{}: it has the splits {}: choose one with data.source.split", path.display(), there())
        }
        _ => Ok(files.into_iter().filter(|file| wanted.is_none_or(|wanted| split(file) == wanted)).collect()),
    }
}

fn unpack(source: &SourceTable, files: &[PathBuf], to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| Error::Msg(format!("{}: {e}", to.display())))?;
    let mut lines = Vec::new();
    for (number, file) in files.iter().enumerate() {
        let wrong = |e: parquet::errors::ParquetError| {
            Error::Msg(format!("{}: not a whole Parquet file that can be read ({e})", file.display()))
        };
        let opened = File::open(file).map_err(|e| Error::Msg(format!("{}: {e}", file.display())))?;
        let reader = SerializedFileReader::new(opened).map_err(wrong)?;
        let columns = Columns::of(source, &reader, file)?;
        let mut row = 0;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(wrong)?;
            let column = |leaf: Option<Leaf>| match leaf.map(|leaf| (leaf, group.get_column_reader(leaf.index))) {
                None => Ok(None),
                Some((leaf, Ok(ColumnReader::ByteArrayColumnReader(reader)))) => {
                    Ok(Some(Values { reader, defined: leaf.defined }))
                }
                Some((_, Ok(_))) => bail!("{}: a column is not of bytes in one of its parts", file.display()),
                Some((_, Err(e))) => Err(wrong(e)),
            };
            let (images, captions) = (column(Some(columns.image))?, column(columns.caption)?);
            let Some(mut images) = images else { continue };
            let mut captions = captions;
            let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
            for first in (0..rows).step_by(ROWS) {
                let count = ROWS.min(rows - first);
                let pictures = images.next(count).map_err(wrong)?;
                let texts = captions.as_mut().map(|c| c.next(count)).transpose().map_err(wrong)?;
                if pictures.len() != count || texts.as_ref().is_some_and(|texts| texts.len() != count) {
                    bail!("{}: it has fewer rows than it says: it is damaged", file.display());
                }
                for (i, picture) in pictures.into_iter().enumerate() {
                    // A row without a picture is an empty file, which the report tells of.
                    let bytes = picture.as_ref().map_or(&[][..], |picture| picture.data());
                    let name = format!("{number:03}-{:07}.{}", row + i, ending(bytes));
                    write(&to.join(&name), bytes)?;
                    if let Some(text) = texts.as_ref().and_then(|texts| texts[i].as_ref()) {
                        let Ok(text) = std::str::from_utf8(text.data()) else {
                            bail!("{}: the caption of row {} is not UTF-8", file.display(), row + i);
                        };
                        lines.push(json!({ "file_name": name, "text": text }).to_string());
                    }
                }
                row += count;
            }
        }
    }
    let lines: String = lines.into_iter().map(|line| line + "\n").collect();
    write(&to.join("metadata.jsonl"), lines.as_bytes())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = File::create(path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|e| Error::Msg(format!("{}: {e}", path.display())))
}

/// How an image file of these bytes is named. What is none is named as one all the same, and told of when it is opened.
fn ending(bytes: &[u8]) -> &'static str {
    let known = image::guess_format(bytes).ok().and_then(|format| format.extensions_str().first().copied());
    known.filter(|e| super::source::IMAGES.contains(e)).unwrap_or("png")
}

/// A column whose values are bytes.
#[derive(Clone, Copy)]
struct Leaf {
    index: usize,
    /// The level at which a value is there.
    defined: i16,
}

struct Columns {
    image: Leaf,
    caption: Option<Leaf>,
}

impl Columns {
    fn of(source: &SourceTable, reader: &SerializedFileReader<File>, file: &Path) -> Result<Self> {
        let schema = reader.metadata().file_metadata().schema_descr();
        let mut all: BTreeMap<String, Leaf> = BTreeMap::new();
        for (index, column) in schema.columns().iter().enumerate() {
            if column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0 {
                all.insert(column.path().string(), Leaf { index, defined: column.max_def_level() });
            }
        }
        let names = || all.keys().cloned().collect::<Vec<_>>().join(", ");
        let image = match &source.image_column {
            Some(name) => all.get(&format!("{name}.bytes")).or_else(|| all.get(name)).ok_or_else(|| {
                Error::Msg(format!("{}: there is no column `{name}` of pictures; {}", file.display(), names()))
            })?,
            None => {
                let mut pictures = all.iter().filter(|(name, _)| name.ends_with(".bytes"));
                match (pictures.next(), pictures.next()) {
                    (Some((_, one)), None) => one,
                    _ => bail!(
                        "{}: which of its columns holds the pictures is not plain: name it with data.source.image_column; \
                         columns of bytes are: {}",
                        file.display(),
                        names()
                    ),
                }
            }
        };
        let caption = match &source.caption_column {
            Some(name) => Some(*all.get(name).ok_or_else(|| {
                Error::Msg(format!("{}: there is no column `{name}` of texts; {}", file.display(), names()))
            })?),
            None => {
                let there: Vec<&str> = CAPTIONS.into_iter().filter(|name| all.contains_key(*name)).collect();
                if there.len() > 1 {
                    bail!(
                        "{}: captions could be in {}: choose one with data.source.caption_column",
                        file.display(),
                        there.join(" or in ")
                    );
                }
                there.first().and_then(|name| all.get(*name)).copied()
            }
        };
        Ok(Self { image: *image, caption })
    }
}

/// The values of a column in one row group.
struct Values {
    reader: ColumnReaderImpl<ByteArrayType>,
    defined: i16,
}

impl Values {
    /// The next `count`, fewer at the end; nothing where a row has none.
    fn next(&mut self, count: usize) -> parquet::errors::Result<Vec<Option<ByteArray>>> {
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let known = if self.defined > 0 { Some(&mut levels) } else { None };
        let (records, _, _) = self.reader.read_records(count, known, None, &mut values)?;
        if self.defined == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        let row = |level: &i16| if *level == self.defined { values.next() } else { None };
        Ok(levels.iter().take(records).map(row).collect())
    }
}
