//! The angles by which queries and keys are turned, from a place on several axes (Su et al. 2021; the text at the origin, a
//! picture's tokens at their row and column). Computed in f64 on the host, kept in f32 whatever the model's type.

use candle_core::{Device, Result, Tensor};

/// The period of the slowest pair, over 2 pi.
const THETA: f64 = 10_000.0;

/// Cosines and sines, L D/2 each.
#[derive(Clone)]
pub struct Rotary {
    /// Of the angles.
    pub cos: Tensor,
    /// Of the angles.
    pub sin: Tensor,
}

impl Rotary {
    /// For `text` tokens at the origin and then a picture of `rows` x `columns`; `axes`: how many of a head's numbers each
    /// axis has (index, row, column).
    pub fn new(axes: &[usize; 3], text: usize, rows: usize, columns: usize, device: &Device) -> Result<Self> {
        let half: usize = axes.iter().sum::<usize>() / 2;
        let frequency = |axis: usize, i: usize| THETA.powf(-2.0 * i as f64 / axis as f64);
        let frequencies = axes.map(|axis| (0..axis / 2).map(|i| frequency(axis, i)).collect::<Vec<f64>>());
        let places = (0..text).map(|_| [0, 0, 0]);
        let places = places.chain((0..rows * columns).map(|i| [0, i / columns, i % columns]));
        let mut angles = Vec::with_capacity((text + rows * columns) * half);
        for place in places {
            for (at, frequencies) in place.into_iter().zip(&frequencies) {
                angles.extend(frequencies.iter().map(|f| at as f64 * f));
            }
        }
        let table = |f: fn(f64) -> f64| {
            let values = angles.iter().map(|&angle| f(angle) as f32).collect();
            Tensor::from_vec(values, (text + rows * columns, half), device)
        };
        Ok(Self { cos: table(f64::cos)?, sin: table(f64::sin)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_turned_and_a_picture_by_row_and_column() {
        let rotary = Rotary::new(&[2, 4, 4], 2, 2, 3, &Device::Cpu).unwrap();
        let sin = rotary.sin.to_vec2::<f32>().unwrap();
        assert!(sin[0].iter().chain(&sin[1]).all(|&s| s == 0.0));
        let last = &sin[2 + 5]; // row 1, column 2
        let want = [0.0, 1f64.sin(), 0.01f64.sin(), 2f64.sin(), 0.02f64.sin()].map(|x| x as f32);
        assert_eq!(last[..], want);
    }
}
