//! Weights in few bits: blocks of neighbouring numbers share a scale, and each number is a code from a table. Every format is
//! a table and a size of blocks, so that unpacking is one look-up and one product on any device.

use std::str::FromStr;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::function::cpu_tensor;
use crate::kernels;
use crate::ops::on_cpu;

/// How a weight is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Whole numbers from -127 to 127, of the block's largest: 8.25 bits a weight.
    Int8,
    /// Four bits of exponent and three of fraction (E4M3), of the block's largest: 8.25 bits a weight.
    Fp8,
    /// The sixteen quantiles of a normal distribution (Dettmers et al. 2023, appendix E), of the block's largest: 4.25 bits.
    Nf4,
}

/// Numbers that share a scale.
pub const BLOCK: usize = 64;

/// NormalFloat's values: quantiles of the normal distribution, one of them 0, the outermost 1.
#[rustfmt::skip]
const NF4: [f32; 16] = [
    -1.0, -0.696_192_8, -0.525_073_05, -0.394_917_5, -0.284_441_38, -0.184_773_43, -0.091_050_036, 0.0,
    0.079_580_3, 0.160_930_2, 0.246_112_3, 0.337_915_24, 0.440_709_83, 0.562_617, 0.722_956_84, 1.0,
];

impl Format {
    /// Its name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
            Self::Nf4 => "nf4",
        }
    }

    /// Codes in a byte.
    fn codes_in_a_byte(self) -> usize {
        if self == Self::Nf4 { 2 } else { 1 }
    }

    /// Bytes of `count` weights, their scales included.
    pub fn bytes(self, count: usize) -> usize {
        count.div_ceil(self.codes_in_a_byte()) + 2 * count.div_ceil(BLOCK)
    }

    /// The value of every code, in [-1, 1].
    fn values(self) -> Vec<f32> {
        match self {
            Self::Int8 => (0..256).map(|code| (code - 128).max(-127) as f32 / 127.0).collect(),
            Self::Fp8 => (0..=255u8).map(|code| e4m3(code) / 448.0).collect(),
            Self::Nf4 => NF4.to_vec(),
        }
    }

    /// The values that a byte stands for, one byte a row: 256 k.
    fn table(self) -> Vec<f32> {
        let values = self.values();
        match self.codes_in_a_byte() {
            1 => values,
            _ => (0..256).flat_map(|byte| [values[byte >> 4], values[byte & 15]]).collect(),
        }
    }

    /// The codes by rising value, and the middles between neighbours.
    fn nearest(self) -> Nearest {
        let values = self.values();
        let mut codes: Vec<u8> = (0..values.len()).map(|code| code as u8).collect();
        codes.sort_by(|&a, &b| values[usize::from(a)].total_cmp(&values[usize::from(b)]));
        codes.dedup_by_key(|code| values[usize::from(*code)].to_bits());
        let middle = |pair: &[u8]| 0.5 * (values[usize::from(pair[0])] + values[usize::from(pair[1])]);
        Nearest { middles: codes.windows(2).map(middle).collect(), codes }
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [Self::Int8, Self::Fp8, Self::Nf4];
        let found = all.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| format!("{text:?} is no format of weights: there are int8, fp8 and nf4"))
    }
}

/// The value of a code of E4M3 (Micikevicius et al. 2022, table 1); its two not-a-numbers count as zero here.
fn e4m3(code: u8) -> f32 {
    let sign = if code & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    match (exponent, code & 7) {
        (15, 7) => 0.0,
        (0, _) => sign * fraction / 8.0 * 2f32.powi(-6),
        _ => sign * (1.0 + fraction / 8.0) * 2f32.powi(exponent - 7),
    }
}

struct Nearest {
    codes: Vec<u8>,
    middles: Vec<f32>,
}

impl Nearest {
    fn code(&self, x: f32) -> u8 {
        self.codes[self.middles.partition_point(|&middle| middle < x)]
    }
}

/// A packed weight, where it computes or on the host.
#[derive(Clone)]
pub struct Packed {
    format: Format,
    shape: Shape,
    /// What it unpacks to.
    dtype: DType,
    /// U8: one or two codes each.
    codes: Tensor,
    /// A block's largest number over that of the whole weight, f16; and that of the whole.
    scales: Tensor,
    largest: f32,
    /// 256 k, f32.
    table: Tensor,
}

impl Packed {
    /// Packs a weight and puts it on `device`; it will unpack to `dtype`. A number that is not finite is an error.
    pub fn new(weight: &Tensor, format: Format, dtype: DType, device: &Device) -> Result<Self> {
        let shape = weight.shape().clone();
        let values = on_cpu(weight)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let largest_of = |block: &[f32]| block.iter().fold(0f32, |most, x| most.max(x.abs()));
        let most: Vec<f32> = values.par_chunks(BLOCK).map(largest_of).collect();
        let largest = largest_of(&most);
        if !largest.is_finite() || values.par_iter().any(|x| x.is_nan()) {
            bail!("a weight {shape:?} with numbers that are not finite cannot be packed as {}", format.name());
        }
        // What is packed is divided by the scale as it will be read.
        let scales: Vec<f16> = most.iter().map(|m| f16::from_f32(m / largest.max(f32::MIN_POSITIVE))).collect();
        let (nearest, per_byte) = (format.nearest(), format.codes_in_a_byte());
        let mut codes = vec![0u8; values.len().div_ceil(per_byte)];
        let blocks = codes.par_chunks_mut(BLOCK / per_byte).zip(values.par_chunks(BLOCK)).zip(&scales);
        blocks.for_each(|((codes, values), scale)| {
            let scale = scale.to_f32() * largest;
            let over = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let code = |x: &f32| nearest.code(x * over);
            match per_byte {
                1 => codes.iter_mut().zip(values).for_each(|(byte, x)| *byte = code(x)),
                _ => codes.iter_mut().zip(values.chunks(2)).for_each(|(byte, pair)| {
                    *byte = code(&pair[0]) << 4 | pair.get(1).map_or(7, code);
                }),
            }
        });
        let table = Tensor::from_vec(format.table(), (256, per_byte), device)?;
        let (count, blocks) = (codes.len(), scales.len());
        let codes = Tensor::from_vec(codes, count, device)?;
        Ok(Self { format, shape, dtype, codes, scales: Tensor::from_vec(scales, blocks, device)?, largest, table })
    }

    /// The same on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        Ok(Self {
            codes: self.codes.to_device(device)?,
            scales: self.scales.to_device(device)?,
            table: self.table.to_device(device)?,
            ..self.clone()
        })
    }

    /// The weight, as near as the format holds it.
    pub fn unpack(&self) -> Result<Tensor> {
        let count = self.shape.elem_count();
        let (codes, scales, table) = (&self.codes, &self.scales, &self.table);
        if let Some(values) = kernels::unpack(codes, scales, table, self.largest, &self.shape, self.dtype)? {
            return Ok(values);
        }
        if !self.codes.device().is_cpu() {
            let values = self.table.index_select(&self.codes, 0)?.flatten_all()?; // rounded up to whole bytes
            let blocks = self.scales.dim(0)?;
            let values = values.pad_with_zeros(0, 0, blocks * BLOCK - values.dim(0)?)?.reshape((blocks, BLOCK))?;
            let scales = (self.scales.to_dtype(DType::F32)? * f64::from(self.largest))?.unsqueeze(1)?;
            let values = values.broadcast_mul(&scales)?.to_dtype(self.dtype)?;
            return values.flatten_all()?.narrow(0, 0, count)?.reshape(&self.shape);
        }
        let (codes, scales) = (self.codes.to_vec1::<u8>()?, self.scales.to_vec1::<f16>()?);
        match self.dtype {
            DType::BF16 => cpu_tensor(self.values(&codes, &scales, bf16::from_f32), &self.shape),
            DType::F16 => cpu_tensor(self.values(&codes, &scales, f16::from_f32), &self.shape),
            DType::F64 => cpu_tensor(self.values(&codes, &scales, f64::from), &self.shape),
            _ => cpu_tensor(self.values(&codes, &scales, |x| x), &self.shape),
        }
    }

    fn values<T: Copy + Default + Send + Sync>(
        &self,
        codes: &[u8],
        scales: &[f16],
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Vec<T> {
        let mut out = vec![T::default(); self.shape.elem_count()];
        let per_byte = self.format.codes_in_a_byte();
        let table = self.format.values();
        let blocks = out.par_chunks_mut(BLOCK).zip(codes.par_chunks(BLOCK / per_byte)).zip(scales);
        blocks.for_each(|((out, codes), scale)| {
            let scale = scale.to_f32() * self.largest;
            match per_byte {
                1 => out.iter_mut().zip(codes).for_each(|(out, &code)| *out = narrow(table[usize::from(code)] * scale)),
                _ => out.chunks_mut(2).zip(codes).for_each(|(out, &byte)| {
                    for (out, code) in out.iter_mut().zip([byte >> 4, byte & 15]) {
                        *out = narrow(table[usize::from(code)] * scale);
                    }
                }),
            }
        });
        out
    }

    /// The weight's shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What it unpacks to.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where it is.
    pub fn device(&self) -> &Device {
        self.codes.device()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.codes.elem_count() + 2 * self.scales.elem_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    const ALL: [Format; 3] = [Format::Int8, Format::Fp8, Format::Nf4];

    fn weight(shape: &[usize]) -> Tensor {
        (Stream::new(1, "weight").normal(shape, &Device::Cpu).unwrap() * 0.02).unwrap()
    }

    fn relative(a: &Tensor, b: &Tensor) -> f32 {
        let norm = |t: Tensor| t.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
        norm((a - b).unwrap()) / norm(b.clone())
    }

    #[test]
    fn errors_are_those_of_the_formats() {
        let w = weight(&[96, 128]);
        for (format, low, high, bits) in
            [(Format::Int8, 0.003, 0.008, 8.25), (Format::Fp8, 0.02, 0.03, 8.25), (Format::Nf4, 0.08, 0.11, 4.25)]
        {
            let packed = Packed::new(&w, format, DType::F32, &Device::Cpu).unwrap();
            let error = relative(&packed.unpack().unwrap(), &w);
            assert!((low..high).contains(&error), "{format:?}: {error}");
            assert_eq!(packed.bytes() as f64 * 8.0 / w.elem_count() as f64, bits);
            assert_eq!(packed.bytes(), format.bytes(w.elem_count()));
        }
    }

    #[test]
    fn what_a_format_holds_comes_back_to_the_bit() {
        for format in ALL {
            for shape in [&[64usize, 2][..], &[3, 43], &[1, 1]] {
                let once = Packed::new(&weight(shape), format, DType::F32, &Device::Cpu).unwrap().unpack().unwrap();
                let twice = Packed::new(&once, format, DType::F32, &Device::Cpu).unwrap().unpack().unwrap();
                assert!(relative(&twice, &once) < 1e-3, "{format:?} {shape:?}");
                let zeros = once.zeros_like().unwrap();
                let packed = Packed::new(&zeros, format, DType::BF16, &Device::Cpu).unwrap().unpack().unwrap();
                assert_eq!(packed.dtype(), DType::BF16);
                assert_eq!(
                    packed.to_dtype(DType::F32).unwrap().abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap(),
                    0.0
                );
            }
        }
    }

    #[test]
    fn every_number_gets_its_nearest_code() {
        for format in ALL {
            let (values, nearest) = (format.values(), format.nearest());
            for i in -1000..=1000 {
                let x = i as f32 / 1000.0;
                let got = (values[usize::from(nearest.code(x))] - x).abs();
                let best = values.iter().map(|v| (v - x).abs()).fold(f32::INFINITY, f32::min);
                assert!(got <= best * 1.0001 + 1e-7, "{format:?} {x}: {got} {best}");
            }
        }
    }

    #[test]
    fn codes_of_fp8_are_those_of_the_standard() {
        for (code, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x3c, 1.5),
            (0x7e, 448.0),
            (0xb8, -1.0),
        ] {
            assert_eq!(e4m3(code), value, "{code:#x}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let w = Tensor::new(&[1f32, f32::NAN], &Device::Cpu).unwrap();
        assert!(Packed::new(&w, Format::Nf4, DType::F32, &Device::Cpu).is_err());
        assert!("q8".parse::<Format>().unwrap_err().contains("nf4"));
    }
}
