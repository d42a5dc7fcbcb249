//! The tiny autoencoder with its author's weights, on a photograph. The weights are not part of the project: the test
//! looks for `taef2_encoder.safetensors` and `taef2_decoder.safetensors` in `shared/data` beside the checkout, and does
//! nothing without them.

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use sconce_core::model::{Autoencoder, LoadOptions};
use sconce_models::vae::tiny::AutoencoderTiny;

#[test]
fn a_photograph_comes_back() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let [encoder, decoder] =
        ["taef2_encoder.safetensors", "taef2_decoder.safetensors"].map(|file| root.join("../shared/data").join(file));
    if !encoder.is_file() || !decoder.is_file() {
        println!("skipped: no taef2 weights in shared/data beside the checkout");
        return Ok(());
    }
    let photo = image::open(root.join("tests/fixtures/photo/seeding.jpg")).unwrap().into_rgb8();
    let (width, height) = photo.dimensions();
    let pixels: Vec<f32> = photo.into_raw().into_iter().map(|p| f32::from(p) / 127.5 - 1.0).collect();
    let x = Tensor::from_vec(pixels, (1, height as usize, width as usize, 3), &Device::Cpu)?;
    let x = x.permute((0, 3, 1, 2))?.contiguous()?; // B 3 H W
    for dtype in [DType::F32, DType::BF16] {
        let options = LoadOptions::new(Device::Cpu, dtype);
        let vae = AutoencoderTiny::load_bare(&encoder, &decoder, &options)?;
        let z = vae.encode(&x)?.mean;
        assert_eq!(z.dims(), [1, vae.channels(), height as usize / vae.factor(), width as usize / vae.factor()]);
        let back = vae.decode(&z)?.clamp(-1.0, 1.0)?;
        let error = ((back - &x)?.sqr()?.mean_all()?.to_scalar::<f32>()? / 4.0).log10();
        let psnr = -10.0 * error;
        println!("{dtype:?}: {psnr:.2} dB");
        assert!(psnr > 33.3, "{dtype:?}: {psnr} dB, the author's implementation gives 33.5 in f32");
    }
    Ok(())
}
