//! Any bytes as a safetensors file: every tensor of it is read, or it is refused.
#![no_main]

use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;
use sconce_nn::weights::{WeightFiles, read_metadata};

fuzz_target!(|data: &[u8]| {
    let path = sconce_fuzz::file("weights.safetensors", data);
    let _ = read_metadata(&path);
    let Ok(files) = WeightFiles::open(&[&path]) else { return };
    for key in files.keys() {
        let _ = files.tensor(key, DType::F32, &Device::Cpu);
        let _ = files.stored(key, &Device::Cpu);
    }
});
