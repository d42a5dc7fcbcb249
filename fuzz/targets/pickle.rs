//! Any bytes as an old checkpoint of PyTorch: a zip archive with a pickle in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sconce_models::original::pickle::unpickled;

fuzz_target!(|data: &[u8]| {
    let path = sconce_fuzz::file("model.ckpt", data);
    if let Ok(file) = unpickled(&path) {
        assert!(file.starts_with(sconce_fuzz::folder()), "{} is outside the cache", file.display());
        let _ = std::fs::remove_dir_all(file.parent().expect("a file is in a folder"));
    }
});
