//! The inverse of many small matrices, as orthogonal adapters ask for. It is computed in f64 on the CPU, wherever the
//! matrices are: they are a few thousandths of what the layers beside them cost, and exact elimination leaves nothing to tune.

use candle_core::{DType, Device, Result, Tensor, bail};
use rayon::prelude::*;

use crate::function::function;

/// The inverse of each matrix: `.. N N`, f32 or f64.
///
/// # Errors
/// If the matrices are not square, or one of them is singular.
pub fn inverse(a: &Tensor) -> Result<Tensor> {
    let dims = a.dims().to_vec();
    let n = match dims[..] {
        [.., n, m] if n == m && n > 0 => n,
        _ => bail!("inverse: {dims:?} are no square matrices"),
    };
    let mut values: Vec<f64> =
        a.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    values.par_chunks_mut(n * n).try_for_each(|matrix| invert(matrix, n))?;
    let out = Tensor::from_vec(values, dims, &Device::Cpu)?.to_dtype(a.dtype())?.to_device(a.device())?;
    let kept = out.clone();
    // X A = 1, so dA = -Xᵀ dX Xᵀ.
    function("inverse", &[a], out, move |dx| {
        let turned = kept.t()?.contiguous()?;
        Ok(vec![Some(turned.matmul(&dx.contiguous()?)?.matmul(&turned)?.neg()?)])
    })
}

/// Gauss-Jordan elimination in place, by the largest pivot of each column.
fn invert(a: &mut [f64], n: usize) -> Result<()> {
    let mut swaps = Vec::with_capacity(n);
    for column in 0..n {
        let size = |row: &usize| a[row * n + column].abs();
        let pivot = (column..n).max_by(|i, j| size(i).total_cmp(&size(j))).unwrap_or(column);
        let value = a[pivot * n + column];
        if !(value.is_finite() && value.abs() > f64::MIN_POSITIVE) {
            bail!("inverse: a matrix of {n} by {n} is singular");
        }
        (0..n).for_each(|j| a.swap(column * n + j, pivot * n + j));
        swaps.push(pivot);
        a[column * n + column] = 1.0;
        (0..n).for_each(|j| a[column * n + j] /= value);
        for row in (0..n).filter(|row| *row != column) {
            let factor = std::mem::replace(&mut a[row * n + column], 0.0);
            (0..n).for_each(|j| a[row * n + j] -= factor * a[column * n + j]);
        }
    }
    // What was a change of rows is one of columns of the inverse, the last first.
    for (column, pivot) in swaps.into_iter().enumerate().rev() {
        (0..n).for_each(|row| a.swap(row * n + column, row * n + pivot));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{check, pseudo_random};

    #[test]
    fn the_product_with_the_inverse_is_one() -> Result<()> {
        // A zero in the corner, so that rows have to change places.
        let mask = Tensor::new(&[[0f64, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]], &Device::Cpu)?;
        let a = pseudo_random(&[2, 3, 3], 4)?.broadcast_mul(&mask)?;
        let one = inverse(&a)?.matmul(&a)?.broadcast_sub(&Tensor::eye(3, DType::F64, &Device::Cpu)?)?;
        assert!(one.abs()?.max_all()?.to_scalar::<f64>()? < 1e-12);
        assert!(inverse(&Tensor::zeros((2, 2), DType::F32, &Device::Cpu)?).is_err());
        assert!(inverse(&Tensor::zeros((2, 3), DType::F32, &Device::Cpu)?).is_err());
        Ok(())
    }

    #[test]
    fn its_gradient() -> Result<()> {
        let a =
            (pseudo_random(&[2, 4, 4], 7)? + Tensor::eye(4, DType::F64, &Device::Cpu)?.broadcast_as((2, 4, 4))? * 2.0)?;
        assert!(check(|x| inverse(&x[0]), &[a])? < 1e-6);
        Ok(())
    }
}
