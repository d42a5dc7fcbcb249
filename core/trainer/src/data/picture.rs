//! One picture, from its file to a tensor: decoded within limits, turned as its EXIF says, put on a ground where it is
//! transparent, resized and cropped.

use std::io::Cursor;
use std::path::Path;

use candle_core::{Device, Error, Result, Tensor};
use image::imageops::FilterType;
use image::{DynamicImage, GrayImage, ImageBuffer, ImageDecoder, ImageReader, Limits, Luma, Pixel, Rgb, RgbImage};
use sha2::{Digest, Sha256};

use crate::model::Geometry;

/// What a file gives, or why it gives nothing.
pub(super) type Outcome<T> = std::result::Result<T, String>;

/// The most memory that decoding one picture may take.
const DECODE_BYTES: u64 = 1 << 30;

/// How a picture is brought to its bucket's size: resized to cover it, then cropped from the middle. In pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// Height and width in the file.
    pub original: (u32, u32),
    /// Height and width after resizing.
    pub resized: (u32, u32),
    /// Top and left of the crop.
    pub crop: (u32, u32),
    /// Height and width of the crop: the bucket.
    pub target: (u32, u32),
}

impl Framing {
    /// From a picture's size to a bucket.
    pub fn new(original: (u32, u32), target: (u32, u32)) -> Self {
        let (h, w) = (f64::from(original.0), f64::from(original.1));
        let scale = (f64::from(target.0) / h).max(f64::from(target.1) / w);
        let side = |s: f64, least: u32| ((s * scale).round() as u32).max(least);
        let resized = (side(h, target.0), side(w, target.1));
        let crop = ((resized.0 - target.0) / 2, (resized.1 - target.1) / 2);
        Self { original, resized, crop, target }
    }

    /// The share of the picture that the crop takes away.
    pub fn cropped(&self) -> f64 {
        let area = |(h, w): (u32, u32)| f64::from(h) * f64::from(w);
        1.0 - area(self.target) / area(self.resized)
    }

    /// True if the picture is smaller than its bucket.
    pub fn enlarged(&self) -> bool {
        self.resized.0 > self.original.0
    }

    /// What size conditioning is told.
    pub fn geometry(&self, mirrored: Mirrored) -> Geometry {
        let left = match mirrored {
            Mirrored::No => self.crop.1,
            Mirrored::Yes => self.resized.1 - self.target.1 - self.crop.1,
        };
        Geometry {
            original: [self.original.0, self.original.1],
            crop: [self.crop.0, left],
            target: [self.target.0, self.target.1],
        }
    }
}

/// Whether left and right are swapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mirrored {
    /// As it is.
    No,
    /// Swapped.
    Yes,
}

/// Everything that decides a picture's pixels.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Size and crop.
    pub framing: Framing,
    /// The colour behind transparency.
    pub ground: [u8; 3],
    /// Left and right swapped.
    pub mirrored: Mirrored,
}

/// What a file says before it is decoded.
pub(super) struct Probe {
    /// Height and width as seen, after EXIF rotation.
    pub size: (u32, u32),
    /// SHA-256 of the file.
    pub hash: [u8; 32],
    /// Whether parts of it may be transparent.
    pub alpha: bool,
}

/// Reads size and hash; the pixels are not decoded.
pub(super) fn probe(path: &Path) -> Outcome<Probe> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let mut decoder = reader(&bytes)?.into_decoder().map_err(|e| e.to_string())?;
    let orientation = decoder.orientation().map_err(|e| e.to_string())?;
    let (w, h) = decoder.dimensions();
    let needed = decoder.total_bytes();
    if needed > DECODE_BYTES {
        return Err(format!(
            "{w}x{h} pixels take {} MiB to decode, the limit is {} MiB: make it smaller",
            needed >> 20,
            DECODE_BYTES >> 20
        ));
    }
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    let turned = matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH);
    let size = if turned { (w, h) } else { (h, w) };
    Ok(Probe { size, hash: Sha256::digest(&bytes).into(), alpha: decoder.color_type().has_alpha() })
}

/// The pixels, 3 H W in [-1, 1].
pub(super) fn load(path: &Path, frame: &Frame) -> Result<Tensor> {
    let fail = |e: String| Error::Msg(format!("{}: {e}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let picture = decode(&bytes).map_err(fail)?;
    to_tensor(&framed(on_ground(&picture, frame.ground), frame, FilterType::Lanczos3))
}

fn reader(bytes: &[u8]) -> Outcome<ImageReader<Cursor<&[u8]>>> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| e.to_string())?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(DECODE_BYTES);
    reader.limits(limits);
    Ok(reader)
}

fn decode(bytes: &[u8]) -> Outcome<DynamicImage> {
    let mut decoder = reader(bytes)?.into_decoder().map_err(|e| e.to_string())?;
    let orientation = decoder.orientation().map_err(|e| e.to_string())?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// A picture's mask from 0 to 1, as means over squares of `factor` pixels, 1 h w: brought to size, cropped and mirrored
/// with the picture. It is the file's alpha channel, or its brightness.
pub(super) fn load_mask(path: &Path, of: MaskOf, frame: &Frame, factor: usize) -> Result<Tensor> {
    let fail = |e: String| Error::Msg(format!("{}: {e}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
    let picture = decode(&bytes).map_err(fail)?;
    let grey = match of {
        MaskOf::Brightness => picture.to_luma8(),
        MaskOf::Alpha => {
            let rgba = picture.to_rgba8();
            GrayImage::from_fn(rgba.width(), rgba.height(), |x, y| Luma([rgba.get_pixel(x, y).0[3]]))
        }
    };
    // Lanczos rings: beside an edge, a mask would leave its range.
    let grey = framed(grey, frame, FilterType::Triangle);
    let (w, h) = (grey.width() as usize, grey.height() as usize);
    let values: Vec<f32> = grey.as_raw().iter().map(|&v| f32::from(v) / 255.0).collect();
    let pixels = Tensor::from_vec(values, (1, h / factor, factor, w / factor, factor), &Device::Cpu)?;
    pixels.mean((2, 4))
}

/// What of a file is a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MaskOf {
    /// How bright it is.
    Brightness,
    /// How opaque it is.
    Alpha,
}

fn framed<P>(flat: ImageBuffer<P, Vec<u8>>, frame: &Frame, filter: FilterType) -> ImageBuffer<P, Vec<u8>>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let Framing { resized, crop, target, .. } = frame.framing;
    let sized = if flat.dimensions() == (resized.1, resized.0) {
        flat
    } else {
        image::imageops::resize(&flat, resized.1, resized.0, filter)
    };
    let mut out = image::imageops::crop_imm(&sized, crop.1, crop.0, target.1, target.0).to_image();
    if frame.mirrored == Mirrored::Yes {
        image::imageops::flip_horizontal_in_place(&mut out);
    }
    out
}

/// The picture in front of a plain colour.
fn on_ground(picture: &DynamicImage, ground: [u8; 3]) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.to_rgb8();
    }
    let rgba = picture.to_rgba8();
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        let a = u32::from(a);
        let over = |c: u8, back: u8| ((u32::from(c) * a + u32::from(back) * (255 - a) + 127) / 255) as u8;
        Rgb([over(r, ground[0]), over(g, ground[1]), over(b, ground[2])])
    })
}

fn to_tensor(picture: &RgbImage) -> Result<Tensor> {
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    let values: Vec<f32> = picture.as_raw().iter().map(|&v| f32::from(v) / 127.5 - 1.0).collect();
    Tensor::from_vec(values, (h, w, 3), &Device::Cpu)?.permute((2, 0, 1))?.contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_covers_the_bucket_and_crops_the_middle() {
        let f = Framing::new((600, 1000), (512, 768));
        assert_eq!((f.resized, f.crop), ((512, 853), (0, 42)));
        assert!((f.cropped() - (1.0 - 768.0 / 853.0)).abs() < 1e-9);
        assert_eq!(f.geometry(Mirrored::Yes).crop, [0, 43]);
    }

    /// White on the left, black on the right, 24 x 16: the middle 16 x 16 are kept, two latent pixels to a side.
    #[test]
    fn a_mask_is_cropped_and_mirrored_with_its_picture() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("mask.png");
        let mask = GrayImage::from_fn(24, 16, |x, _| Luma([if x < 10 { 255 } else { 0 }]));
        mask.save(&path).map_err(Error::wrap)?;
        let framing = Framing::new((16, 24), (16, 16));
        assert_eq!(framing.crop, (0, 4));
        let load = |mirrored| {
            let frame = Frame { framing, ground: [0; 3], mirrored };
            load_mask(&path, MaskOf::Brightness, &frame, 8)?.flatten_all()?.to_vec1::<f32>()
        };
        // Of the columns 4 to 20, six are white.
        assert_eq!(load(Mirrored::No)?, [0.75, 0.0, 0.75, 0.0]);
        assert_eq!(load(Mirrored::Yes)?, [0.0, 0.75, 0.0, 0.75]);
        Ok(())
    }

    #[test]
    fn an_alpha_channel_is_a_mask() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("picture.png");
        let rgba = image::RgbaImage::from_fn(8, 8, |_, y| image::Rgba([9, 9, 9, if y < 4 { 255 } else { 51 }]));
        rgba.save(&path).map_err(Error::wrap)?;
        let frame = Frame { framing: Framing::new((8, 8), (8, 8)), ground: [0; 3], mirrored: Mirrored::No };
        let mask = load_mask(&path, MaskOf::Alpha, &frame, 4)?;
        assert_eq!(mask.dims(), [1, 2, 2]);
        let rounded = (mask.flatten_all()? * 100.0)?.round()?.to_vec1::<f32>()?;
        assert_eq!(rounded, [100.0, 100.0, 20.0, 20.0]);
        Ok(())
    }

    #[test]
    fn transparency_shows_the_ground() {
        let clear = DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(2, 2, image::Rgba([9, 9, 9, 0])));
        assert_eq!(on_ground(&clear, [10, 200, 30]).get_pixel(1, 1).0, [10, 200, 30]);
    }
}
