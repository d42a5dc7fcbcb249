//! Aspect-ratio buckets: the sizes that pictures are brought to, all of about one area, so that a batch is one tensor
//! and little of a picture that is not square is cropped.

/// The sizes for one area, as (height, width) in pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets(Vec<(u32, u32)>);

/// No bucket is longer than this times its width, or the other way round.
const LONGEST: f64 = 4.0;

impl Buckets {
    /// Sizes of at most `side`² pixels and sides that are multiples of `step`.
    pub fn new(side: u32, step: u32) -> Self {
        let area = f64::from(side).powi(2);
        let mut sizes: Vec<(u32, u32)> = (1..)
            .map(|n| n * step)
            .take_while(|&w| f64::from(w) <= f64::from(side) * LONGEST.sqrt() + 1e-6)
            .filter_map(|w| {
                let h = ((area / f64::from(w)) as u32 / step * step).min((f64::from(side) * LONGEST.sqrt()) as u32);
                let ratio = f64::from(w) / f64::from(h.max(1));
                (h > 0 && (1.0 / LONGEST..=LONGEST).contains(&ratio)).then_some((h, w))
            })
            .collect();
        let square = (side / step).max(1) * step;
        sizes.push((square, square));
        sizes.sort_unstable();
        sizes.dedup();
        Self(sizes)
    }

    /// The square alone.
    pub fn square(side: u32, step: u32) -> Self {
        let side = (side / step).max(1) * step;
        Self(vec![(side, side)])
    }

    /// The size whose shape is nearest to a picture's (in log aspect ratio; the larger area where two are as near).
    pub fn nearest(&self, height: u32, width: u32) -> (u32, u32) {
        let shape = |h: u32, w: u32| (f64::from(w) / f64::from(h)).ln();
        let off = |&(h, w): &(u32, u32)| (shape(h, w) - shape(height, width)).abs();
        let best = self.0.iter().min_by(|a, b| {
            off(a)
                .total_cmp(&off(b))
                .then_with(|| (u64::from(b.0) * u64::from(b.1)).cmp(&(u64::from(a.0) * u64::from(a.1))))
        });
        *best.expect("there is always the square")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_stay_below_the_square_and_near_it() {
        for (side, step) in [(1024, 64), (512, 64), (768, 32), (64, 16)] {
            for (h, w) in Buckets::new(side, step).0 {
                let share = f64::from(h) * f64::from(w) / f64::from(side).powi(2);
                assert!(h % step == 0 && w % step == 0 && share <= 1.0 && share >= 0.5, "{h}x{w}: {share}");
            }
        }
    }

    #[test]
    fn a_picture_goes_to_its_own_shape() {
        let b = Buckets::new(1024, 64);
        assert_eq!(b.nearest(1000, 1000), (1024, 1024));
        assert_eq!(b.nearest(1024, 1536), (832, 1216));
        assert_eq!(b.nearest(1536, 1024), (1216, 832));
        assert_eq!(b.nearest(10, 10_000), b.nearest(100, 400));
    }
}
