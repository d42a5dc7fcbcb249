//! Where a scalar distance meets tensors: one operation, whose gradient is the slope that the plugin gives. Latents are
//! small beside the network that made them, so the plugin is asked for each element in f64, on the CPU, once.

use candle_core::{DType, Device, Result, Tensor};
use sconce_nn::function::function;
use sconce_sdk::Distance;

use crate::step::Row;

/// How a run measures the error of an output.
pub struct Measure<'a> {
    /// How an element's error counts by its size.
    pub distance: &'a dyn Distance,
    /// How much each place counts, B 1 H W; `None`: all alike.
    pub mask: Option<&'a Tensor>,
}

impl Measure<'_> {
    /// The mean distance of each sample, B, in the graph. `difference` is B C H W.
    pub fn distance(&self, difference: &Tensor, rows: &[Row]) -> Result<Tensor> {
        if is_square(self.distance) {
            return self.mean(difference.sqr()?); // the same bits, and on the device
        }
        let widths: Vec<f64> = rows.iter().map(|r| self.distance.width(r.t, &r.noise)).collect();
        self.mean(distance(self.distance, difference, &widths)?)
    }

    /// The mean squared error of each sample, B, outside the graph.
    pub fn squared_error(&self, difference: &Tensor) -> Result<Tensor> {
        self.mean(difference.detach().sqr()?)
    }

    fn mean(&self, each: Tensor) -> Result<Tensor> {
        let each = self.mask.map_or(Ok(each.clone()), |mask| each.broadcast_mul(mask))?;
        each.flatten_from(1)?.mean(1)
    }
}

/// rho_c(difference), element by element, with one width c for each sample: B C H W to the same.
fn distance(of: &dyn Distance, difference: &Tensor, widths: &[f64]) -> Result<Tensor> {
    let (shape, dtype, device) = (difference.shape(), difference.dtype(), difference.device());
    let values = difference.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
    let each = (values.len() / widths.len().max(1)).max(1);
    let mut both = vec![[0.0; 2]; values.len()];
    for ((sample, &width), out) in values.chunks(each).zip(widths).zip(both.chunks_mut(each)) {
        of.at_each(sample, width, out);
    }
    let (rho, slope): (Vec<f64>, Vec<f64>) = both.into_iter().map(<(f64, f64)>::from).unzip();
    let tensor = |v: Vec<f64>| Tensor::from_vec(v, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device);
    let slope = tensor(slope)?;
    function("distance", &[difference], tensor(rho)?, move |dy| Ok(vec![Some((dy * &slope)?)]))
}

/// True if a distance is the squared error at any size and width, for which weightings are derived.
pub fn is_square(distance: &dyn Distance) -> bool {
    [1e-3, 0.1, 1.0, 30.0].iter().all(|&d| [0.01, 1.0].iter().all(|&c| distance.at(d, c) == [d * d, 2.0 * d]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;
    use sconce_nn::gradcheck::{check, pseudo_random};

    struct Square;
    impl Distance for Square {
        fn at(&self, d: f64, _: f64) -> [f64; 2] {
            [d * d, 2.0 * d]
        }
    }

    /// c²(sqrt(1 + (d/c)²) - 1).
    struct Robust;
    impl Distance for Robust {
        fn at(&self, d: f64, c: f64) -> [f64; 2] {
            [c * (d.hypot(c) - c), c * d / d.hypot(c)]
        }
    }

    #[test]
    fn gradients_match_finite_differences() -> Result<()> {
        let d = (pseudo_random(&[3, 2, 2, 2], 5)? * 3.0)?;
        for of in [&Square as &dyn Distance, &Robust] {
            let error = check(|x| distance(of, &x[0], &[0.1, 1.0, 7.0]), std::slice::from_ref(&d))?;
            assert!(error < 1e-7, "{error}");
        }
        Ok(())
    }

    /// Asking a plugin in f64 leaves not a bit of difference: recipes of before the distances train as they did.
    #[test]
    fn the_square_has_candles_own_bits() -> Result<()> {
        let d = (pseudo_random(&[2, 4, 8, 8], 9)? * 3.0)?.to_dtype(DType::F32)?;
        let run = |f: &dyn Fn(&Tensor) -> Result<Tensor>| -> Result<[Vec<f32>; 2]> {
            let d = Var::from_tensor(&d)?;
            let value = f(&d)?;
            let mean = (value.flatten_from(1)?.mean(1)? * 0.37)?.sum_all()?;
            let grad = mean.backward()?.remove(&d).expect("a gradient");
            Ok([value.flatten_all()?.to_vec1()?, grad.flatten_all()?.to_vec1()?])
        };
        assert_eq!(run(&|d| distance(&Square, d, &[1.0; 2]))?, run(&|d| d.sqr())?);
        assert!(is_square(&Square) && !is_square(&Robust));
        Ok(())
    }
}
