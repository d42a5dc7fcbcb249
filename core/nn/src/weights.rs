//! Weight files: memory-mapped safetensors in, one tensor at a time, and safetensors out without ever leaving half a
//! file. Hostile or truncated headers are refused here, with the file's name in the error.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use candle_core::{DType, Device, Result, Tensor, bail};
use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Some weight files, seen as one table of named tensors.
pub struct WeightFiles {
    files: Vec<Mapped>,
    index: BTreeMap<String, Entry>,
}

struct Mapped {
    path: PathBuf,
    map: Mmap,
}

#[derive(Clone)]
struct Entry {
    file: usize,
    range: (usize, usize),
    dtype: Dtype,
    /// As it is seen.
    shape: Vec<usize>,
    form: Form,
    /// What its numbers are multiplied by.
    scale: f32,
}

/// How a tensor is seen in one that is stored (another program's layout).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The stored tensor.
    pub key: String,
    /// Of its rows these: the first, and how many. All of them where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<[usize; 2]>,
    /// What is done with them.
    #[serde(default)]
    pub form: Form,
    /// The stored tensor of one number that they are multiplied by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<String>,
}

/// How the values of a stored tensor lie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// As they are seen.
    #[default]
    Same,
    /// A matrix as a convolution's kernel of 1 x 1.
    Kernel,
    /// A matrix the other way round.
    Transposed,
    /// The second half of the rows before the first.
    Halved,
}

impl Form {
    /// A tensor as it is seen, from how it is stored.
    pub fn seen(self, stored: &Tensor) -> Result<Tensor> {
        match self {
            Self::Same => Ok(stored.clone()),
            Self::Kernel => stored.flatten_from(1),
            Self::Transposed => stored.t()?.contiguous(),
            Self::Halved => {
                let rows = stored.dim(0)?;
                Tensor::cat(&[stored.narrow(0, rows / 2, rows - rows / 2)?, stored.narrow(0, 0, rows / 2)?], 0)
            }
        }
    }

    /// A tensor as it is stored, from how it is seen.
    pub fn stored(self, seen: &Tensor) -> Result<Tensor> {
        match self {
            Self::Kernel => seen.unsqueeze(2)?.unsqueeze(3),
            Self::Same | Self::Transposed | Self::Halved => self.seen(seen),
        }
    }

    /// The shape that is seen of a stored one; `None` where there is no such view of it.
    fn shape(self, stored: &[usize]) -> Option<Vec<usize>> {
        match (self, stored) {
            (Self::Same, _) => Some(stored.to_vec()),
            (Self::Kernel, &[a, b, 1, 1]) => Some(vec![a, b]),
            (Self::Transposed, &[a, b]) => Some(vec![b, a]),
            (Self::Halved, &[rows, ..]) if rows % 2 == 0 => Some(stored.to_vec()),
            _ => None,
        }
    }

    /// The stored shape of a seen one.
    pub fn stored_shape(self, seen: &[usize]) -> Vec<usize> {
        match self {
            Self::Same | Self::Halved => seen.to_vec(),
            Self::Kernel => [seen, &[1, 1]].concat(),
            Self::Transposed => seen.iter().rev().copied().collect(),
        }
    }
}

impl WeightFiles {
    /// Maps safetensors files. The same key in two of them is an error.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self> {
        let mut this = Self { files: Vec::new(), index: BTreeMap::new() };
        for path in paths {
            this.add(path.as_ref())?;
        }
        Ok(this)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let what = path.display();
        let file = File::open(path).map_err(|e| msg(format!("{what}: cannot open the weight file: {e}")))?;
        // SAFETY: the map is only read. A file that another process shortens meanwhile would fault, which no reader of
        // mapped weights can prevent; the lengths are checked against the size at opening below.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| msg(format!("{what}: cannot map the weight file: {e}")))?;
        if map.starts_with(b"version https://git-lfs") {
            bail!("{what}: this is a pointer of Git LFS, not the weights: fetch them with `git lfs pull`");
        }
        let (header, meta) = SafeTensors::read_metadata(&map)
            .map_err(|e| msg(format!("{what}: not a whole safetensors file ({e}); download or export it again")))?;
        let whole = header + 8 + meta.data_len();
        if whole != map.len() {
            bail!("{what}: {} bytes, its header says {whole}: the file is cut or has something appended", map.len());
        }
        let file = self.files.len();
        for (name, info) in meta.tensors() {
            let entry = entry(file, header + 8, info);
            if let Some(old) = self.index.insert(name.clone(), entry) {
                bail!("{what}: tensor `{name}` is also in {}", self.files[old.file].path.display());
            }
        }
        self.files.push(Mapped { path: path.to_owned(), map });
        Ok(())
    }

    /// Renames keys (older layouts); what `rename` answers `None` to is left out of the table.
    pub fn rename(mut self, rename: impl Fn(&str) -> Option<String>) -> Self {
        self.index = self.index.into_iter().filter_map(|(name, e)| Some((rename(&name)?, e))).collect();
        self
    }

    /// Sees tensors in another shape of as many values (older layouts), where `shape` answers one.
    pub fn reshape(mut self, shape: impl Fn(&str, &[usize]) -> Option<Vec<usize>>) -> Self {
        for (name, entry) in &mut self.index {
            if let Some(shape) = shape(name, &entry.shape) {
                entry.shape = shape;
            }
        }
        self
    }

    /// The tensors that `views` see, by name, and no others.
    ///
    /// # Errors
    /// If one that is viewed is not there, or not of a shape that can be seen so.
    pub fn viewed(mut self, views: &BTreeMap<String, View>) -> Result<Self> {
        let mut index = BTreeMap::new();
        for (name, View { key, rows, form, scale }) in views {
            let Some(Entry { file, range, dtype, shape, .. }) = self.index.get(key) else {
                bail!("no tensor `{key}` in {:?}", self.paths());
            };
            let path = self.files[*file].path.display();
            let (mut range, mut shape) = (*range, shape.clone());
            if let Some([start, count]) = *rows {
                let all = shape.first().copied().unwrap_or(0);
                if start.checked_add(count).is_none_or(|end| end > all) || all == 0 {
                    bail!("{path}: `{key}` has {all} rows, `{name}` is {count} of them from {start}");
                }
                let row = (range.1 - range.0) / all;
                range = (range.0 + row * start, range.0 + row * (start + count));
                shape[0] = count;
            }
            let Some(seen) = form.shape(&shape) else {
                bail!("{path}: `{key}` has shape {shape:?}, in which `{name}` cannot be seen ({form:?})");
            };
            let scale = scale.as_deref().map_or(Ok(1.0), |scale| self.number(scale))?;
            index.insert(name.clone(), Entry { file: *file, range, dtype: *dtype, shape: seen, form: *form, scale });
        }
        self.index = index;
        Ok(self)
    }

    /// The only number of a tensor.
    fn number(&self, name: &str) -> Result<f32> {
        let value = self.tensor(name, DType::F32, &Device::Cpu)?;
        match (value.dtype(), value.elem_count()) {
            (DType::F32, 1) => value.flatten_all()?.get(0)?.to_scalar(),
            _ => bail!("{:?}: `{name}` is {:?}, where one number is needed", self.paths(), value.dims()),
        }
    }

    /// The tables of both, which must not share a key.
    pub fn merge(mut self, other: Self) -> Result<Self> {
        let offset = self.files.len();
        self.files.extend(other.files);
        for (name, entry) in other.index {
            let path = self.files[entry.file + offset].path.clone();
            if let Some(old) = self.index.insert(name.clone(), Entry { file: entry.file + offset, ..entry }) {
                bail!("{}: tensor `{name}` is also in {}", path.display(), self.files[old.file].path.display());
            }
        }
        Ok(self)
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.index.keys().map(String::as_str)
    }

    /// Shape and stored type of a tensor.
    pub fn info(&self, name: &str) -> Option<(&[usize], String)> {
        self.index.get(name).map(|e| (e.shape.as_slice(), format!("{:?}", e.dtype).to_lowercase()))
    }

    /// The file that holds `name`.
    pub fn path_of(&self, name: &str) -> Option<&Path> {
        self.index.get(name).map(|e| self.files[e.file].path.as_path())
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<&Path> {
        self.files.iter().map(|f| f.path.as_path()).collect()
    }

    /// Reads one tensor as `dtype` (any floating type; integers keep their own).
    pub fn tensor(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(e) = self.index.get(name) else { bail!("no tensor `{name}` in {:?}", self.paths()) };
        let Mapped { path, map } = &self.files[e.file];
        let data = &map[e.range.0..e.range.1];
        let shape = e.form.stored_shape(&e.shape);
        let shape = shape.as_slice();
        let cpu = match (e.dtype, dtype) {
            (Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F8_E4M3 | Dtype::F8_E5M2, _) if e.scale != 1.0 => {
                let scaled = widen(e.dtype, data).into_iter().map(|value| value * e.scale).collect();
                Tensor::from_vec::<_, f32>(scaled, shape, &Device::Cpu)?.to_dtype(dtype)?
            }
            (Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 | Dtype::F8_E4M3 | Dtype::F8_E5M2, DType::F32) => {
                Tensor::from_vec(widen(e.dtype, data), shape, &Device::Cpu)?
            }
            (Dtype::BF16, DType::BF16) => {
                Tensor::from_vec(read(data, |b: [u8; 2]| bf16::from_le_bytes(b)), shape, &Device::Cpu)?
            }
            (Dtype::F16, DType::F16) => {
                Tensor::from_vec(read(data, |b: [u8; 2]| f16::from_le_bytes(b)), shape, &Device::Cpu)?
            }
            (Dtype::F64, DType::F64) => Tensor::from_vec(read(data, f64::from_le_bytes), shape, &Device::Cpu)?,
            (Dtype::I64, _) => Tensor::from_vec(read(data, i64::from_le_bytes), shape, &Device::Cpu)?,
            (Dtype::I32, _) => Tensor::from_vec(read(data, |b| i64::from(i32::from_le_bytes(b))), shape, &Device::Cpu)?,
            (Dtype::U32, _) => Tensor::from_vec(read(data, u32::from_le_bytes), shape, &Device::Cpu)?,
            (Dtype::U8, _) => Tensor::from_vec(data.to_vec(), shape, &Device::Cpu)?,
            (Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64 | Dtype::F8_E4M3 | Dtype::F8_E5M2, _) => {
                Tensor::from_vec(widen(e.dtype, data), shape, &Device::Cpu)?.to_dtype(dtype)?
            }
            (other, _) => bail!("{}: tensor `{name}` is stored as {other:?}, which is no weight type", path.display()),
        };
        self.let_go(e);
        e.form.seen(&cpu)?.to_device(device)
    }

    /// Lets go of the memory that reading a large tensor has mapped: a whole file would otherwise stay resident beside the
    /// weights made of it.
    fn let_go(&self, Entry { file, range: (start, end), .. }: &Entry) {
        const LARGE: usize = 1 << 20;
        #[cfg(unix)]
        if end - start >= LARGE {
            // SAFETY: as in `release`.
            let _ = unsafe {
                self.files[*file].map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, *start, end - start)
            };
        }
    }

    /// Lets go of the memory that reading has mapped, for who goes through more files than fit in it.
    pub fn release(&self) {
        #[cfg(unix)]
        for Mapped { map, .. } in &self.files {
            // SAFETY: the map is of a file and only read, so a page that is let go is read from the file when it is needed.
            // Where the system declines, the pages just stay.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }

    /// Reads one tensor in the type that it is stored as.
    pub fn stored(&self, name: &str, device: &Device) -> Result<Tensor> {
        let dtype = match self.index.get(name).map(|e| e.dtype) {
            Some(Dtype::F64) => DType::F64,
            Some(Dtype::F16) => DType::F16,
            Some(Dtype::BF16) => DType::BF16,
            _ => DType::F32,
        };
        self.tensor(name, dtype, device)
    }
}

/// The `__metadata__` of a safetensors file.
pub fn read_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    let what = path.display();
    let file = File::open(path).map_err(|e| msg(format!("{what}: cannot open: {e}")))?;
    // SAFETY: read only; see `WeightFiles::add`.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| msg(format!("{what}: cannot map: {e}")))?;
    let (_, meta) =
        SafeTensors::read_metadata(&map).map_err(|e| msg(format!("{what}: not a whole safetensors file ({e})")))?;
    Ok(meta.metadata().clone().unwrap_or_default().into_iter().collect())
}

/// Writes tensors to `path` under a temporary name, syncs, and renames: a crash or a full disk leaves the old file.
/// The bytes depend on the content alone (keys and metadata are sorted), so equal weights have equal hashes. Memory: one
/// tensor beside those given.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>, metadata: &BTreeMap<String, String>) -> Result<()> {
    let plan = tensors.iter().map(|(name, t)| (name.clone(), (t.dtype(), t.dims().to_vec()))).collect();
    save_each(path, &plan, metadata, |name| Ok(tensors[name].clone()))
}

/// [`save`] for tensors that are made one by one: of each key the type and the shape beforehand, then the value. Memory: one
/// tensor.
pub fn save_each(
    path: &Path,
    plan: &BTreeMap<String, (DType, Vec<usize>)>,
    metadata: &BTreeMap<String, String>,
    mut value: impl FnMut(&str) -> Result<Tensor>,
) -> Result<()> {
    let mut header = serde_json::Map::new();
    let mut metadata = metadata.clone();
    if let Some(hash) = metadata.get_mut(TENSORS_HASH) {
        *hash = UNKNOWN.to_owned();
    }
    if !metadata.is_empty() {
        header.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut end = 0;
    for (name, (dtype, shape)) in plan {
        let (start, bytes) = (end, shape.iter().product::<usize>() * dtype.size_in_bytes());
        end = start + bytes;
        let info = serde_json::json!({ "dtype": stored_name(*dtype)?, "shape": shape, "data_offsets": [start, end] });
        header.insert(name.clone(), info);
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut hash = metadata.contains_key(TENSORS_HASH).then(Sha256::new);
    atomic(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for (name, (dtype, shape)) in plan {
            let tensor = value(name).map_err(std::io::Error::other)?;
            if (tensor.dtype(), tensor.dims()) != (*dtype, shape.as_slice()) {
                let (found, is) = (tensor.dims(), tensor.dtype());
                return Err(std::io::Error::other(format!("`{name}` is {is:?} {found:?}, not {dtype:?} {shape:?}")));
            }
            let bytes = bytes_of(&tensor).map_err(std::io::Error::other)?;
            if let Some(hash) = &mut hash {
                hash.update(&bytes);
            }
            out.write_all(&bytes)?;
        }
        if let Some(hash) = hash.take()
            && let Some(at) = header.windows(UNKNOWN.len()).position(|part| part == UNKNOWN.as_bytes())
        {
            let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            out.seek(SeekFrom::Start((8 + at) as u64))?;
            out.write_all(format!("0x{hex}").as_bytes())?;
        }
        Ok(())
    })
}

/// ModelSpec's field for the hash of the tensors' bytes. Where a header has it, it is filled in as the file is written.
pub const TENSORS_HASH: &str = "modelspec.hash_sha256";

/// What stands there until it is known, of the same length.
const UNKNOWN: &str = "0x????????????????????????????????????????????????????????????????";

/// Runs `write` on a temporary file beside `path`, syncs it, and renames it into place.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    atomic(path, |out| write(out))
}

fn atomic(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let what = path.display();
    // A name of its own for each writer: two runs may share a cache.
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let tmp = path.with_extension(format!("{extension}.{process}-{number}.tmp"));
    let run = || -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&tmp)?);
        write(&mut out)?;
        out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        std::fs::rename(&tmp, path)
    };
    run().map_err(|e| {
        let _ = std::fs::remove_file(&tmp);
        let full = matches!(e.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
        let advice = if full { "; make room there, or write elsewhere" } else { "" };
        msg(format!("{what}: cannot write: {e}{advice}. The previous file, if any, is untouched"))
    })
}

fn entry(file: usize, start: usize, info: &TensorInfo) -> Entry {
    let (a, b) = info.data_offsets;
    Entry {
        file,
        range: (start + a, start + b),
        dtype: info.dtype,
        shape: info.shape.clone(),
        form: Form::Same,
        scale: 1.0,
    }
}

fn msg(text: String) -> candle_core::Error {
    candle_core::Error::Msg(text)
}

fn read<const N: usize, T: Send>(data: &[u8], from: impl Fn([u8; N]) -> T + Sync) -> Vec<T> {
    data.par_chunks_exact(N).map(|b| from(b.try_into().expect("chunks of N"))).collect()
}

fn widen(dtype: Dtype, data: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => read(data, f32::from_le_bytes),
        Dtype::F16 => read(data, |b| f16::from_le_bytes(b).to_f32()),
        Dtype::BF16 => read(data, |b| bf16::from_le_bytes(b).to_f32()),
        Dtype::F64 => read(data, |b| f64::from_le_bytes(b) as f32),
        Dtype::F8_E4M3 => read(data, |[b]: [u8; 1]| f8(b, 3, 7)),
        Dtype::F8_E5M2 => read(data, |[b]: [u8; 1]| f8(b, 2, 15)),
        _ => unreachable!("the caller passes floating types only"),
    }
}

/// An 8-bit float with `mantissa` bits and exponent `bias` (OCP FP8: E4M3 has no infinity, E5M2 is a short half).
fn f8(bits: u8, mantissa: u32, bias: i32) -> f32 {
    let sign = if bits & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from((bits & 0x7f) >> mantissa);
    let fraction = f32::from(bits & ((1 << mantissa) - 1)) / (1u32 << mantissa) as f32;
    match (mantissa, bits & 0x7f) {
        (3, 0x7f) => f32::NAN,
        (2, m) if m > 0x7c => f32::NAN,
        (2, 0x7c) => sign * f32::INFINITY,
        _ if exponent == 0 => sign * fraction * 2f32.powi(1 - bias),
        _ => sign * (1.0 + fraction) * 2f32.powi(exponent - bias),
    }
}

fn stored_name(dtype: DType) -> Result<&'static str> {
    Ok(match dtype {
        DType::F32 => "F32",
        DType::F64 => "F64",
        DType::F16 => "F16",
        DType::BF16 => "BF16",
        DType::I64 => "I64",
        DType::U32 => "U32",
        DType::U8 => "U8",
        other => bail!("cannot write a tensor of type {other:?}"),
    })
}

/// The little-endian bytes of a tensor, row-major.
pub fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>> {
    fn bytes<T, const N: usize>(v: Vec<T>, to: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        v.into_iter().flat_map(to).collect()
    }
    let flat = tensor.detach().to_device(&Device::Cpu)?.flatten_all()?;
    Ok(match tensor.dtype() {
        DType::F32 => bytes(flat.to_vec1()?, f32::to_le_bytes),
        DType::F64 => bytes(flat.to_vec1()?, f64::to_le_bytes),
        DType::F16 => bytes(flat.to_vec1()?, f16::to_le_bytes),
        DType::BF16 => bytes(flat.to_vec1()?, bf16::to_le_bytes),
        DType::I64 => bytes(flat.to_vec1()?, i64::to_le_bytes),
        DType::U32 => bytes(flat.to_vec1()?, u32::to_le_bytes),
        DType::U8 => flat.to_vec1()?,
        other => bail!("cannot write a tensor of type {other:?}"),
    })
}
