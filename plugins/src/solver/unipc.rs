//! The predictor-corrector that asks once a step.

use candle_core::{Result, Tensor};
use sconce_core::solver::{Denoise, Solver};
use sconce_sdk::prelude::*;
use serde::Deserializer;
use serde::de::{Error, Unexpected};

use super::{combine, lambdas, noise_left};

/// UniPC (Zhao et al. 2023, algorithms 1 and 2) with B(h) = e^h - 1, on x0, as diffusers runs it (`bh2`): what the network
/// says at the end of a step corrects that step before the next begins. ComfyUI takes order 3.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UniPc {
    /// Order of the predictor, 1 to 3: 2 under guidance, 3 without. The first and the last steps are of lower order.
    #[serde(deserialize_with = "order")]
    pub order: usize,
}

impl Default for UniPc {
    fn default() -> Self {
        Self { order: 2 }
    }
}

pub(super) fn order<'de, D: Deserializer<'de>>(d: D) -> std::result::Result<usize, D::Error> {
    match usize::deserialize(d)? {
        n @ 1..=3 => Ok(n),
        n => Err(D::Error::invalid_value(Unexpected::Unsigned(n as u64), &"1, 2 or 3")),
    }
}

/// A run: where it goes and by which method.
struct Run<'a> {
    levels: &'a [Level],
    lambda: Vec<f64>,
    order: usize,
    /// B, as a function of -h.
    scale: fn(f64) -> f64,
}

impl Run<'_> {
    /// x after step k, from `x` before it. `data`: x0 at the levels up to the k-th. `end`: x0 at the next level, where the
    /// step is corrected by it.
    fn step(&self, k: usize, x: &Tensor, data: &[Tensor], end: Option<&Tensor>) -> Result<Tensor> {
        let (from, to) = (&self.levels[k].noise, &self.levels[k + 1].noise);
        let h = self.lambda[k + 1] - self.lambda[k];
        let order = self.order.min(self.levels.len() - 1 - k).min(k + 1);
        // Each x0 but the one at the beginning, by its place in the step.
        let earlier = (1..order).map(|back| ((self.lambda[k - back] - self.lambda[k]) / h, &data[k - back]));
        let others: Vec<(f64, &Tensor)> = earlier.chain(end.map(|x0| (1.0, x0))).collect();
        let (here, scale) = (&data[k], (self.scale)(-h));
        let mut x = combine(x, to.sigma / from.sigma, here, to.alpha * (1.0 - noise_left(from, to)))?;
        let places: Vec<f64> = others.iter().map(|(place, _)| *place).collect();
        for ((place, x0), weight) in others.iter().zip(weights(h, scale, &places)) {
            let by = -to.alpha * scale * weight / place;
            x = (x + combine(x0, by, here, -by)?)?;
        }
        Ok(x)
    }
}

/// The weights of the divided differences at these places in a step of length h: the sum of weight_k place_k^i is that of the
/// exact integral for each power i (Zhao et al. 2023, theorem 3.1). For a single place it does not matter which: 1/2.
fn weights(h: f64, scale: f64, places: &[f64]) -> Vec<f64> {
    let n = places.len();
    if n <= 1 {
        return vec![0.5; n];
    }
    let (mut phi, mut factorial) = ((-h).exp_m1() / -h - 1.0, 1.0);
    let row = |i: usize| {
        let right = phi * factorial / scale;
        factorial *= (i + 2) as f64;
        phi = phi / -h - 1.0 / factorial;
        places.iter().map(|place| place.powi(i as i32)).chain([right]).collect()
    };
    solved((0..n).map(row).collect())
}

/// The solution of a small linear system, each row with its right-hand side last.
fn solved(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let n = rows.len();
    for k in 0..n {
        let largest = (k..n).max_by(|&i, &j| rows[i][k].abs().total_cmp(&rows[j][k].abs())).expect("k < n");
        rows.swap(k, largest);
        for i in (0..n).filter(|&i| i != k) {
            let factor = rows[i][k] / rows[k][k];
            for j in k..=n {
                rows[i][j] -= factor * rows[k][j];
            }
        }
    }
    (0..n).map(|k| rows[k][n] / rows[k][k]).collect()
}

/// The solver of an order, with B as a function of -h.
pub(super) fn solve(
    mut x: Tensor,
    levels: &[Level],
    model: &mut dyn Denoise,
    order: usize,
    scale: fn(f64) -> f64,
) -> Result<Tensor> {
    let run = Run { levels, lambda: lambdas(levels), order, scale };
    // x0 at each level so far, and x before the last step.
    let (mut data, mut before): (Vec<Tensor>, Option<Tensor>) = (Vec::new(), None);
    for (k, level) in levels[..levels.len() - 1].iter().enumerate() {
        let x0 = model.denoise(&x, level)?.x0;
        if let Some(before) = &before {
            x = run.step(k - 1, before, &data, Some(&x0))?;
        }
        data.push(x0);
        let after = run.step(k, &x, &data, None)?;
        before = Some(std::mem::replace(&mut x, after));
        model.stepped(k, &x)?;
    }
    Ok(x)
}

impl Solver for UniPc {
    fn solve(&self, x: Tensor, levels: &[Level], model: &mut dyn Denoise) -> Result<Tensor> {
        solve(x, levels, model, self.order, f64::exp_m1)
    }

    fn levels(&self, spacing: &dyn Spacing, schedule: &dyn Schedule, steps: usize) -> Vec<Level> {
        spacing.levels_counting_last(schedule, steps)
    }
}

register!(Solver, "unipc", UniPc, aliases = ["uni_pc_bh2", "UniPCMultistepScheduler"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_systems_are_solved() {
        let found = solved(vec![vec![0.0, 2.0, 1.0, 7.0], vec![1.0, 1.0, 1.0, 6.0], vec![2.0, 0.0, -1.0, -1.0]]);
        assert!(found.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }

    #[test]
    fn orders_are_one_to_three() {
        assert!(serde_json::from_str::<UniPc>(r#"{ "order": 3 }"#).is_ok());
        let message = serde_json::from_str::<UniPc>(r#"{ "order": 4 }"#).unwrap_err().to_string();
        assert!(message.contains("expected 1, 2 or 3"), "{message}");
    }
}
