//! Tensors of any names and shapes as an adapter's file, and as that of a learned word, for models of four families.
#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use sconce_core::recipe::family;
use sconce_core::words;
use sconce_models::lora::Merge;
use sconce_nn::Store;

fn models() -> &'static [Vec<Arc<Store>>] {
    static MODELS: OnceLock<Vec<Vec<Arc<Store>>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let shapes = |name: &&str| {
            let folder = sconce_fuzz::model(name);
            family(&folder, None).expect("a family").shapes(&folder).expect("its shapes")
        };
        ["sd1-a", "sdxl-a", "sd3-a", "flux-a"].iter().map(shapes).collect()
    })
}

fuzz_target!(|data: &[u8]| {
    let Some(bytes) = sconce_fuzz::tensors(data) else { return };
    let path = sconce_fuzz::file("adapter.safetensors", &bytes);
    for stores in models() {
        let _ = Merge::of(stores, &[(&path, 1.0)]);
    }
    let _ = words::read(&[], &path);
});
