//! The one operation of this engine: the product of two matrices, summed in f64.

/// A matrix in memory.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    data: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Rows of so many numbers, one after the other.
    pub fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, shape: [data.len() / width, width], strides: [width, 1] }
    }

    /// The transpose of [`Matrix::rows`].
    pub fn columns(data: &'a [f32], width: usize) -> Self {
        Self { data, shape: [width, data.len() / width], strides: [1, width] }
    }
}

/// out = a b, row by row.
pub fn multiply(a: Matrix, b: Matrix, out: &mut [f32]) {
    assert_eq!(a.shape[1], b.shape[0], "the inner sides are one");
    let mut row = vec![0f64; b.shape[1]];
    for (i, out) in out.chunks_mut(b.shape[1]).enumerate() {
        row.fill(0.0);
        for k in 0..a.shape[1] {
            let factor = f64::from(a.data[i * a.strides[0] + k * a.strides[1]]);
            for (j, sum) in row.iter_mut().enumerate() {
                *sum += factor * f64::from(b.data[k * b.strides[0] + j * b.strides[1]]);
            }
        }
        out.iter_mut().zip(&row).for_each(|(out, sum)| *out = *sum as f32);
    }
}

/// The sum of all rows of `width` numbers.
pub fn column_sums(data: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0f64; width];
    data.iter().enumerate().for_each(|(i, value)| sums[i % width] += f64::from(*value));
    sums.into_iter().map(|sum| sum as f32).collect()
}
