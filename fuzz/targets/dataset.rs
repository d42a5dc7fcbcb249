//! Any bytes as a picture, and as a Parquet file of pictures.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sconce_core::data::{Mirrored, Set};
use sconce_core::recipe::DataTable;

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let folder = sconce_fuzz::folder().join("set");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the folder can be written");
    let name = ["a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "train.parquet"][usize::from(first % 6)];
    std::fs::write(folder.join(name), rest).expect("the folder can be written");
    let table = serde_json::json!({ "batch": 1, "source": [{ "path": folder, "smallest_px": 1 }] });
    let table: DataTable = serde_json::from_value(table).expect("a table of data");
    if let Ok(set) = Set::open(&table, &folder, 64, 8, 0.0) {
        let _ = set.pixels(0, Mirrored::No);
    }
    let _ = std::fs::remove_dir_all(sconce_fuzz::folder().join("cache/sconce/parquet"));
});
