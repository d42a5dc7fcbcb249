//! Eight bits for a number of a tensor: blocks of 256 numbers share their largest magnitude, and each is the nearest of
//! 256 values in [-1, 1] times that. The values are those of the dynamic map (Dettmers et al. 2022, "8-bit optimizers via
//! block-wise quantization", section 1.3): seven decades, of which each has twice as many values as the one below it.

use std::sync::LazyLock;

use candle_core::{D, DType, Device, Result, Tensor, Var};

/// Numbers that share a scale.
pub(super) const BLOCK: usize = 256;

/// The map of numbers of either sign.
pub(super) static SIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(&[-1.0, 1.0], 2));
/// The map of numbers from zero up.
pub(super) static UNSIGNED: LazyLock<Map> = LazyLock::new(|| Map::new(&[1.0], 1));

/// 256 values, rising.
pub(super) struct Map {
    values: Vec<f32>,
    /// The middle between each value and the next: above it the next is nearer.
    middles: Vec<f32>,
    /// The code of the least number that begins with these 16 bits. The map is coarse enough that at most one middle lies
    /// among the numbers of one beginning.
    codes: Vec<u8>,
}

impl Map {
    fn new(signs: &[f32], share: usize) -> Self {
        const DECADES: i32 = 7;
        let mut values = vec![0.0, 1.0];
        for decade in 0..DECADES {
            let scale = 10f64.powi(decade + 1 - DECADES) as f32;
            let count = (2 << decade) / share;
            // In f32 and from both ends, as the reference makes them.
            let step = 0.9f32 / count as f32;
            let edge =
                |i: usize| if i < count.div_ceil(2) { 0.1 + step * i as f32 } else { 1.0 - step * (count - i) as f32 };
            let middles = (0..count).map(|i| scale * ((edge(i) + edge(i + 1)) / 2.0));
            values.extend(middles.flat_map(|m| signs.iter().map(move |sign| sign * m)));
        }
        values.sort_by(f32::total_cmp);
        let middles: Vec<f32> = values.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).collect();
        let code = |head: u32| {
            let ends = [f32::from_bits(head << 16), f32::from_bits(head << 16 | 0xffff)];
            let least = if ends[0].is_sign_negative() { ends[1] } else { ends[0] };
            middles.partition_point(|&middle| middle < least) as u8
        };
        let codes = (0..1 << 16).map(code).collect();
        Self { values, middles, codes }
    }

    /// The number of a code, as a share of the block's largest magnitude.
    pub fn value(&self, code: u8) -> f32 {
        self.values[usize::from(code)]
    }

    /// The code of the nearest value to `x` in [-1, 1].
    pub fn code(&self, x: f32) -> u8 {
        let code = self.codes[(x.to_bits() >> 16) as usize];
        code + u8::from(self.middles.get(usize::from(code)).is_some_and(|&middle| x > middle))
    }

    /// Writes a block's numbers as codes, and gives their largest magnitude.
    pub fn write(&self, numbers: &[f32], codes: &mut [u8]) -> f32 {
        let largest = numbers.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let inverse = if largest > 0.0 { 1.0 / largest } else { 0.0 };
        for (code, x) in codes.iter_mut().zip(numbers) {
            *code = self.code(x * inverse);
        }
        largest
    }

    /// What `codes` and the blocks' magnitudes stand for, with the device's own operations.
    pub fn read_on(&self, codes: &Var, largest: &Var) -> Result<Tensor> {
        let device = codes.device();
        let count = codes.elem_count();
        let values = Tensor::from_slice(&self.values, self.values.len(), device)?;
        let numbers = values.index_select(&codes.flatten_all()?.to_dtype(DType::U32)?, 0)?;
        let numbers = blocks(&numbers)?.broadcast_mul(&largest.as_tensor().unsqueeze(1)?)?;
        numbers.flatten_all()?.narrow(0, 0, count)?.reshape(codes.shape())
    }

    /// [`Map::write`] for a whole tensor, with the device's own operations: eight halvings find each place among the
    /// middles.
    pub fn write_on(&self, numbers: &Tensor, codes: &Var, largest: &Var) -> Result<()> {
        let (device, count) = (numbers.device(), numbers.elem_count());
        let numbers = blocks(&numbers.detach().flatten_all()?)?; // blocks BLOCK
        let most = numbers.abs()?.max(D::Minus1)?;
        let shares = numbers.broadcast_div(&most.maximum(f32::MIN_POSITIVE)?.unsqueeze(1)?)?.flatten_all()?;
        let middles = Tensor::from_slice(&self.middles, self.middles.len(), device)?;
        let mut place = Tensor::zeros(shares.elem_count(), DType::U32, device)?;
        for half in (0..8).map(|i| 128u32 >> i) {
            let next = (&place + Tensor::full(half, place.shape(), device)?)?;
            let middle = middles.index_select(&(&next - Tensor::ones_like(&next)?)?, 0)?;
            place = shares.gt(&middle)?.where_cond(&next, &place)?;
        }
        codes.set(&place.narrow(0, 0, count)?.to_dtype(DType::U8)?.reshape(codes.shape())?.contiguous()?)?;
        largest.set(&most)
    }
}

/// The two tensors that stand for numbers of this shape, at zero: codes and the blocks' largest magnitudes.
pub(super) fn zeros(like: &Var) -> Result<[Tensor; 2]> {
    let device: &Device = like.device();
    let codes = Tensor::zeros(like.shape(), DType::U8, device)?;
    Ok([codes, Tensor::zeros(like.elem_count().div_ceil(BLOCK), DType::F32, device)?])
}

fn blocks(flat: &Tensor) -> Result<Tensor> {
    let count = flat.elem_count();
    let missing = count.next_multiple_of(BLOCK) - count;
    flat.pad_with_zeros(0, 0, missing)?.reshape(((), BLOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_gets_its_nearest_value() {
        for map in [&SIGNED, &UNSIGNED] {
            assert_eq!(map.values.len(), 256);
            for i in -200_000..=200_000i32 {
                let x = (f64::from(i) / 200_000.0).powi(3) as f32;
                if x < 0.0 && map.values[0] >= 0.0 {
                    continue;
                }
                let distance = |code: usize| (f64::from(map.values[code]) - f64::from(x)).abs();
                let best = (0..256).map(distance).fold(f64::INFINITY, f64::min);
                let got = distance(map.code(x).into());
                assert!(got <= best + 1e-9, "{x}: {got} away, the nearest {best}");
            }
        }
    }

    #[test]
    fn blocks_are_written_and_read_alike_on_every_path() -> Result<()> {
        let count = 2 * BLOCK + 9;
        let numbers: Vec<f32> = (0..count).map(|i| ((i * i) as f32).sin() * 10f32.powi(-(i as i32 % 9))).collect();
        let x = Tensor::from_slice(&numbers, count, &Device::Cpu)?;
        let [codes, largest] = zeros(&Var::from_tensor(&x)?)?;
        let (codes, largest) = (Var::from_tensor(&codes)?, Var::from_tensor(&largest)?);
        SIGNED.write_on(&x, &codes, &largest)?;
        let (on, scale) = (codes.to_vec1::<u8>()?, largest.to_vec1::<f32>()?);
        for (i, block) in numbers.chunks(BLOCK).enumerate() {
            let mut own = vec![0; block.len()];
            assert_eq!(SIGNED.write(block, &mut own), scale[i]);
            let differing = own.iter().zip(&on[i * BLOCK..]).filter(|(a, b)| a != b).count();
            assert!(differing <= 1, "{differing} codes of block {i} differ");
        }
        let read = SIGNED.read_on(&codes, &largest)?.to_vec1::<f32>()?;
        for (i, (read, number)) in read.iter().zip(&numbers).enumerate() {
            assert!((read - number).abs() <= 0.008 * scale[i / BLOCK], "{number} is read as {read}");
        }
        Ok(())
    }
}
