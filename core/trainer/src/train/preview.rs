//! Pictures of how far a run is, in one sheet.

use std::path::Path;

use candle_core::{DType, Error, Result, Tensor};
use image::{Rgb, RgbImage};

/// The gap between pictures on a sheet, in pixels.
const GAP: u32 = 2;

/// Writes rows of pictures (each B 3 H W in [-1, 1]) as one PNG.
pub(super) fn sheet(rows: &[Tensor], to: &Path) -> Result<()> {
    let rows: Vec<Vec<RgbImage>> = rows.iter().map(pictures).collect::<Result<_>>()?;
    let side = |f: &dyn Fn(&RgbImage) -> u32| rows.iter().flatten().map(f).max().unwrap_or(0) + GAP;
    let (w, h) = (side(&|p| p.width()), side(&|p| p.height()));
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let mut out = RgbImage::from_pixel(columns * w + GAP, rows.len() as u32 * h + GAP, Rgb([90, 90, 110]));
    for (y, row) in (0u32..).zip(&rows) {
        for (x, picture) in (0u32..).zip(row) {
            image::imageops::replace(&mut out, picture, i64::from(x * w + GAP), i64::from(y * h + GAP));
        }
    }
    let mut png = Vec::new();
    let encode = out.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png);
    encode.map_err(|e| Error::Msg(format!("{}: {e}", to.display())))?;
    sconce_nn::weights::write_atomic(to, |file| file.write_all(&png))
}

/// B 3 H W in [-1, 1] as 8-bit pictures.
fn pictures(batch: &Tensor) -> Result<Vec<RgbImage>> {
    let (b, _, h, w) = batch.dims4()?;
    let bytes = ((batch.detach().to_dtype(DType::F32)?.clamp(-1f32, 1f32)? + 1.0)? * 127.5)?.round()?;
    let bytes = bytes.to_dtype(DType::U8)?.permute((0, 2, 3, 1))?.contiguous()?;
    let one = |i| {
        let raw = bytes.get(i)?.flatten_all()?.to_vec1::<u8>()?;
        Ok(RgbImage::from_raw(w as u32, h as u32, raw).expect("three bytes a pixel"))
    };
    (0..b).map(one).collect()
}

/// The prompts of the recipe, sampled with the run's own schedule.
pub(super) fn draw(_job: &super::run::Job, _to: &Path) -> Result<()> {
    candle_core::bail!("the sampler is not linked yet")
}
