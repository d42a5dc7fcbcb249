//! The table of places: for each square of a large picture, waves of its column and of its row. A smaller picture takes the
//! middle of it (Esser et al. 2024, section 5.3.2).

use candle_core::{Device, Result, Tensor};

/// The longest period of the waves, over 2 pi.
const MAX_PERIOD: f64 = 10_000.0;

/// 1 side² width: sines and cosines of the column in the first half of each row, of the row in the second. Places are
/// `trained` apart over the whole side, as many as the model was trained on first.
pub fn table(side: usize, trained: usize, width: usize) -> Result<Tensor> {
    let quarter = width / 4;
    let step = trained as f32 / side as f32;
    let waves = |place: usize| {
        let at = place as f32 * step;
        let angle = move |i: usize| f64::from(at) / MAX_PERIOD.powf(i as f64 / quarter as f64);
        let sines = (0..quarter).map(move |i| angle(i).sin() as f32);
        sines.chain((0..quarter).map(move |i| angle(i).cos() as f32)).collect::<Vec<f32>>()
    };
    let waves: Vec<Vec<f32>> = (0..side).map(waves).collect();
    let mut all = Vec::with_capacity(side * side * width);
    for row in &waves {
        for column in &waves {
            all.extend_from_slice(column);
            all.extend_from_slice(row);
        }
    }
    Tensor::from_vec(all, (1, side * side, width), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_waves_is_where_it_should_be() {
        let table = table(6, 2, 8).unwrap().get(0).unwrap();
        let at = |row: usize, column: usize| table.get(row * 6 + column).unwrap().to_vec1::<f32>().unwrap();
        let want = |place: f64| [place.sin(), (place / 100.0).sin(), place.cos(), (place / 100.0).cos()];
        for (got, want) in at(2, 5).iter().zip(want(5.0 / 3.0).into_iter().chain(want(2.0 / 3.0))) {
            assert!((f64::from(*got) - want).abs() < 1e-6, "{got} {want}");
        }
    }
}
