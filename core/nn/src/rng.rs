//! Random numbers as a pure function of what they are for: (seed, purpose, images seen, rank, element). There is no
//! generator state, so nothing has to be saved for a resumed run to be the same run, threads cannot change a result,
//! and one purpose never shifts the numbers of another. The generator is Philox4x32-10 (Salmon et al. 2011, "Parallel
//! random numbers: as easy as 1, 2, 3").

use candle_core::{Device, Result, Shape, Tensor};
use rayon::prelude::*;

/// The numbers for one purpose at one point of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Seed and purpose.
    name: u64,
    images_seen: u64,
    rank: u64,
}

/// A bijection of 64 bits that changes about half of them for any change (SplitMix64, Steele et al. 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Stream {
    /// The stream of `purpose` (any name, such as "noise") under `seed`, at the start of a run, on rank 0.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let name = purpose.bytes().fold(mix(seed), |name, byte| mix(name ^ u64::from(byte)));
        Self { name: mix(name ^ purpose.len() as u64), images_seen: 0, rank: 0 }
    }

    /// The stream after `images_seen` images, on the process `rank`.
    pub fn at(&self, images_seen: u64, rank: u64) -> Self {
        Self { name: self.name, images_seen, rank }
    }

    /// Numbers `[2 block]` and `[2 block + 1]`, of 64 random bits each.
    fn block(&self, block: u64) -> [u64; 2] {
        let halves = |x: u64| [x as u32, (x >> 32) as u32];
        let ([c0, c1], [c2, c3]) = (halves(block), halves(self.images_seen));
        let [a, b, c, d] = philox([c0, c1, c2, c3], halves(mix(self.name ^ mix(self.rank)))).map(u64::from);
        [a << 32 | b, c << 32 | d]
    }

    /// `n` times 64 random bits.
    pub fn words(&self, n: usize) -> Vec<u64> {
        self.fill(n, |bits| bits)
    }

    /// `n` numbers, uniform in [0, 1) with 53 random bits.
    pub fn uniform(&self, n: usize) -> Vec<f64> {
        self.fill(n, |bits| bits.map(unit))
    }

    /// Standard normal numbers in `f32`.
    pub fn normal(&self, shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
        let shape = shape.into();
        Tensor::from_vec(self.normals(shape.elem_count()), shape, device)
    }

    /// `n` standard normal numbers (Box & Muller 1958, in `f64`: up to 8.6 deviations).
    pub fn normals(&self, n: usize) -> Vec<f32> {
        self.fill(n, |[a, b]| {
            let radius = (-2.0 * (1.0 - unit(a)).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * unit(b)).sin_cos();
            [(radius * cos) as f32, (radius * sin) as f32]
        })
    }

    fn fill<T: Copy + Default + Send + Sync>(&self, n: usize, pair: impl Fn([u64; 2]) -> [T; 2] + Sync) -> Vec<T> {
        const PAIRS: usize = 2048;
        let mut out = vec![T::default(); n];
        out.par_chunks_mut(2 * PAIRS).enumerate().for_each(|(chunk, out)| {
            for (i, out) in out.chunks_mut(2).enumerate() {
                let two = pair(self.block((chunk * PAIRS + i) as u64));
                out.copy_from_slice(&two[..out.len()]);
            }
        });
        out
    }
}

/// 53 of 64 bits as a number in [0, 1).
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Ten rounds of Philox4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        assert_eq!(philox(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn normal_numbers_have_the_moments_of_the_normal_distribution() {
        const N: usize = 1_000_000;
        let x = Stream::new(1, "noise").at(17, 3).normals(N);
        let moment = |k: i32| x.iter().map(|&x| f64::from(x).powi(k)).sum::<f64>() / N as f64;
        for (k, want, spread) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
            let error = (moment(k) - want).abs();
            assert!(error < 4.0 * f64::sqrt(spread / N as f64), "moment {k} is off by {error}");
        }
        assert!(x.iter().all(|x| x.is_finite() && x.abs() < 9.0));
    }

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        const N: usize = 1_000_000;
        let mut bins = [0f64; 100];
        for u in Stream::new(1, "time").uniform(N) {
            assert!((0.0..1.0).contains(&u));
            bins[(u * 100.0) as usize] += 1.0;
        }
        let want = N as f64 / 100.0;
        let chi2: f64 = bins.iter().map(|n| (n - want).powi(2) / want).sum();
        assert!((50.0..160.0).contains(&chi2), "chi squared with 99 degrees of freedom is {chi2}");
    }

    #[test]
    fn every_part_of_the_name_makes_other_and_uncorrelated_numbers() {
        const N: usize = 100_000;
        let base = Stream::new(42, "noise");
        let others = [
            Stream::new(43, "noise"),
            Stream::new(42, "noisf"),
            Stream::new(42, ""),
            base.at(1, 0),
            base.at(0, 1),
            base.at(1 << 32, 0),
        ];
        let x = base.normals(N);
        assert_eq!(x, base.at(0, 0).normals(N));
        for other in others {
            let y = other.normals(N);
            let correlation = x.iter().zip(&y).map(|(a, b)| f64::from(a * b)).sum::<f64>() / N as f64;
            assert!(correlation.abs() < 4.5 / f64::sqrt(N as f64), "{other:?}: correlation {correlation}");
        }
    }

    #[test]
    fn neither_length_nor_threads_change_a_number() {
        let stream = Stream::new(7, "crop").at(1000, 0);
        let long = stream.normals(50_001);
        assert_eq!(long[..9_999], stream.normals(9_999));
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(long, alone.install(|| stream.normals(50_001)));
        assert_eq!(stream.uniform(5)[..3], stream.uniform(3));
    }
}
