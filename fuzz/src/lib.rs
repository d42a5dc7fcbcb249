//! What the targets share: a folder of their own in which a file lies, and the making of safetensors files whose header is what is
//! fuzzed and whose length fits, since a reader stops at one that does not.
#![cfg(feature = "tensors")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sconce_models as _;
use sconce_plugins as _;

/// The folder of this process, in memory where there is such a one. Nothing outside it may be written, and the caches are in it.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a temporary folder");
        // SAFETY: at the first input, before anything else runs.
        unsafe {
            std::env::set_var("SCONCE_CACHE", dir.path().join("cache"));
            std::env::set_var("HF_HUB_OFFLINE", "1");
        }
        dir
    });
    made.path()
}

/// A file of these bytes.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder().join(name);
    std::fs::write(&path, bytes).expect("the folder can be written");
    path
}

/// A safetensors file from a text of lines `dtype dim dim … key`, with values that are zeros: at most 64 KiB of them.
pub fn tensors(data: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(data).ok()?;
    let (mut header, mut end) = (serde_json::Map::new(), 0usize);
    for line in text.lines().take(64) {
        let mut words = line.split(' ');
        let (dtype, bytes) = match words.next()? {
            "f" => ("F32", 4),
            "h" => ("F16", 2),
            "b" => ("BF16", 2),
            "8" => ("F8_E4M3", 1),
            "i" => ("I64", 8),
            "u" => ("U8", 1),
            "m" => {
                let (key, value) = line.get(2..)?.split_once(' ')?;
                let meta = header.entry("__metadata__").or_insert_with(|| serde_json::json!({}));
                meta[key] = serde_json::json!(value);
                continue;
            }
            _ => return None,
        };
        let rest: Vec<&str> = words.collect();
        let dims: Vec<usize> = rest.iter().map_while(|w| w.parse().ok()).take(5).collect();
        let key = rest.get(dims.len()..)?.join(" ");
        let size = dims.iter().try_fold(bytes, |n: usize, d| n.checked_mul(*d))?;
        let start = end;
        end = start.checked_add(size).filter(|end| *end <= 1 << 16)?;
        header.insert(key, serde_json::json!({ "dtype": dtype, "shape": dims, "data_offsets": [start, end] }));
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + end, 0);
    Some(file)
}

/// A model of the fixtures: configs and shapes.
pub fn model(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../tests/fixtures/data", name, "model"].iter().collect()
}
