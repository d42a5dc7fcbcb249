//! Tensors of any names, types and shapes, with any header, as a single-file checkpoint.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sconce_core::embedded::locate_model;
use sconce_core::hub::Needs;
use sconce_core::recipe::family;

fuzz_target!(|data: &[u8]| {
    let Some(bytes) = sconce_fuzz::tensors(data) else { return };
    let path = sconce_fuzz::file("checkpoint.safetensors", &bytes);
    let Ok(folder) = locate_model(&path.display().to_string(), &BTreeMap::new(), Path::new(""), Needs::All) else {
        return;
    };
    assert!(folder.starts_with(sconce_fuzz::folder()), "{} is outside the cache", folder.display());
    if let Ok(family) = family(&folder, None) {
        let _ = family.native(&folder);
        let _ = family.shapes(&folder);
    }
    let _ = std::fs::remove_dir_all(folder);
});
