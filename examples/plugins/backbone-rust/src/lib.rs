//! A backbone as a crate of its own, with an engine of its own: plain loops over plain memory, which sconce trains through the
//! gradients that it gives. Linked into a program by `use sconce_patch_mlp as _;`, or built as a library and loaded by
//! `--plugin`; a recipe says `[backbone] type = "patch-mlp"`.

mod matrix;

use std::sync::{Arc, OnceLock, RwLock};

use sconce_sdk::network::{About, Buffer, Condition, Gradients, Network, Parameter, Tape};
use sconce_sdk::prelude::*;

use crate::matrix::{Matrix, column_sums, multiply};

/// A perceptron over each square of the latents, which knows the time and the mean of the prompt's words: for the square u, the
/// time t and the mean m, h = tanh(b + W u + w t + V m) and y = c + O h.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PatchMlp {
    /// Channels of the latents.
    pub channels: usize,
    /// The side of a square.
    pub patch: usize,
    /// Hidden units.
    pub width: usize,
    /// Numbers of a word of the prompt.
    pub words: usize,
    #[serde(skip)]
    values: OnceLock<RwLock<Values>>,
}

impl Default for PatchMlp {
    fn default() -> Self {
        Self { channels: 4, patch: 2, width: 64, words: 768, values: OnceLock::new() }
    }
}

/// The values of all parameters. A pass keeps those that it was of.
type Values = Arc<Vec<Vec<f32>>>;

/// The parameters, in their order.
const NAMES: [&str; 6] = ["square.weight", "time.weight", "words.weight", "hidden.bias", "out.weight", "out.bias"];
const W: usize = 0;
const TIME: usize = 1;
const WORDS: usize = 2;
const B: usize = 3;
const OUT: usize = 4;
const C: usize = 5;

impl PatchMlp {
    /// Numbers of a square.
    fn square(&self) -> usize {
        self.channels * self.patch * self.patch
    }

    fn values(&self) -> &RwLock<Values> {
        let first = |p: &Parameter| {
            let scale = 1.0 / (*p.shape.last().expect("each has a shape") as f32).sqrt();
            let mut state = p.name.bytes().fold(1u64, |state, byte| state.wrapping_mul(31) + u64::from(byte));
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                scale * ((state >> 33) as f32 / (1u64 << 30) as f32 - 1.0)
            };
            (0..p.elements()).map(|_| next()).collect()
        };
        self.values.get_or_init(|| RwLock::new(Arc::new(self.parameters().iter().map(first).collect())))
    }

    /// The numbers of each square, row by row: from latents, or back to them.
    fn squares(&self, shape: &[usize], mut each: impl FnMut(usize, usize)) {
        let (p, rows, columns) = (self.patch, shape[2] / self.patch, shape[3] / self.patch);
        let mut number = 0;
        for place in 0..shape[0] * rows * columns {
            let (image, row, column) = (place / (rows * columns), place / columns % rows, place % columns);
            for inside in 0..self.square() {
                let (channel, y, x) = (inside / (p * p), inside / p % p, inside % p);
                let line = (image * self.channels + channel) * shape[2] + row * p + y;
                each(number, line * shape[3] + column * p + x);
                number += 1;
            }
        }
    }
}

impl Network for PatchMlp {
    fn about(&self) -> About {
        let context = Condition { name: "context".to_owned(), shape: vec![0, self.words] };
        About {
            channels: self.channels,
            side_multiple: self.patch,
            conditions: vec![context],
            native: Default::default(),
        }
    }

    fn parameters(&self) -> Vec<Parameter> {
        let (square, width) = (self.square(), self.width);
        let shapes =
            [vec![width, square], vec![width], vec![width, self.words], vec![width], vec![square, width], vec![square]];
        NAMES.into_iter().zip(shapes).map(|(name, shape)| Parameter { name: name.to_owned(), shape }).collect()
    }

    fn read(&self, parameter: usize, out: &mut [f32]) -> Result<(), String> {
        let all = self.values().read().map_err(|e| e.to_string())?;
        match all.get(parameter).filter(|values| values.len() == out.len()) {
            Some(values) => out.copy_from_slice(values),
            None => return Err(format!("there is no parameter {parameter} of {} numbers", out.len())),
        }
        Ok(())
    }

    fn write(&self, parameter: usize, values: &[f32]) -> Result<(), String> {
        let mut all = self.values().write().map_err(|e| e.to_string())?;
        match Arc::make_mut(&mut all).get_mut(parameter).filter(|old| old.len() == values.len()) {
            Some(old) => old.copy_from_slice(values),
            None => return Err(format!("there is no parameter {parameter} of {} numbers", values.len())),
        }
        Ok(())
    }

    fn record(&self, inputs: &[Buffer], out: &mut [f32]) -> Result<Box<dyn Tape>, String> {
        let [x, time, context] = inputs else { return Err("takes x, time and context".into()) };
        let values = self.values().read().map_err(|e| e.to_string())?.clone();
        let (batch, width, square) = (x.shape[0], self.width, self.square());
        let (places, length) = (x.data.len() / square, context.shape[1]);
        let mut u = vec![0.0; places * square];
        self.squares(x.shape, |number, at| u[number] = x.data[at]);
        let mut mean = vec![0.0; batch * self.words];
        for (i, word) in context.data.iter().enumerate() {
            mean[i / (length * self.words) * self.words + i % self.words] += word / length as f32;
        }
        let mut start = vec![0.0; batch * width]; // b + w t + V m
        multiply(Matrix::rows(&mean, self.words), Matrix::columns(&values[WORDS], self.words), &mut start);
        for (i, start) in start.iter_mut().enumerate() {
            *start += values[B][i % width] + values[TIME][i % width] * time.data[i / width];
        }
        let mut h = vec![0.0; places * width];
        multiply(Matrix::rows(&u, square), Matrix::columns(&values[W], square), &mut h);
        for (i, h) in h.iter_mut().enumerate() {
            *h = (*h + start[i / (places / batch * width) * width + i % width]).tanh();
        }
        let mut y = vec![0.0; places * square];
        multiply(Matrix::rows(&h, width), Matrix::columns(&values[OUT], width), &mut y);
        self.squares(x.shape, |number, at| out[at] = y[number] + values[C][number % square]);
        let of = Self { values: OnceLock::new(), ..*self };
        Ok(Box::new(Pass { of, values, shape: x.shape.to_vec(), length, u, time: time.data.to_vec(), mean, h }))
    }
}

/// What a pass keeps.
struct Pass {
    of: PatchMlp,
    values: Values,
    shape: Vec<usize>,
    length: usize,
    u: Vec<f32>,
    time: Vec<f32>,
    mean: Vec<f32>,
    h: Vec<f32>,
}

impl Tape for Pass {
    fn backward(&mut self, d_out: &[f32], wanted: &mut Gradients) -> Result<(), String> {
        let (batch, width, square, words) = (self.shape[0], self.of.width, self.of.square(), self.of.words);
        let mut dy = vec![0.0; self.u.len()];
        self.of.squares(&self.shape, |number, at| dy[number] = d_out[at]);
        let mut dh = vec![0.0; self.h.len()];
        multiply(Matrix::rows(&dy, square), Matrix::rows(&self.values[OUT], width), &mut dh);
        dh.iter_mut().zip(&self.h).for_each(|(d, h)| *d *= 1.0 - h * h);
        let sums: Vec<f32> = dh.chunks(dh.len() / batch).flat_map(|image| column_sums(image, width)).collect(); // B W

        for (i, out) in wanted.parameters.iter_mut().enumerate() {
            let Some(out) = out else { continue };
            match i {
                W => multiply(Matrix::columns(&dh, width), Matrix::rows(&self.u, square), out),
                TIME => multiply(Matrix::columns(&sums, width), Matrix::rows(&self.time, 1), out),
                WORDS => multiply(Matrix::columns(&sums, width), Matrix::rows(&self.mean, words), out),
                B => out.copy_from_slice(&column_sums(&dh, width)),
                OUT => multiply(Matrix::columns(&dy, square), Matrix::rows(&self.h, width), out),
                C => out.copy_from_slice(&column_sums(&dy, square)),
                _ => return Err(format!("there is no parameter {i}")),
            }
        }
        let [dx, dt, dc] = &mut wanted.inputs[..] else { return Err("has three inputs".into()) };
        if let Some(dx) = dx {
            let mut du = vec![0.0; self.u.len()];
            multiply(Matrix::rows(&dh, width), Matrix::rows(&self.values[W], square), &mut du);
            self.of.squares(&self.shape, |number, at| dx[at] = du[number]);
        }
        if let Some(dt) = dt {
            multiply(Matrix::rows(&sums, width), Matrix::rows(&self.values[TIME], 1), dt);
        }
        if let Some(dc) = dc {
            let mut dm = vec![0.0; batch * words];
            multiply(Matrix::rows(&sums, width), Matrix::rows(&self.values[WORDS], words), &mut dm);
            for (i, d) in dc.iter_mut().enumerate() {
                *d = dm[i / (self.length * words) * words + i % words] / self.length as f32;
            }
        }
        Ok(())
    }
}

register!(Network, "patch-mlp", PatchMlp, aliases = ["patch_mlp"]);
export!();

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_sdk::testkit;

    #[test]
    fn keeps_the_laws() {
        for (channels, patch, width, words) in [(4, 2, 8, 6), (3, 1, 5, 2), (1, 4, 3, 1)] {
            let network = PatchMlp { channels, patch, width, words, values: OnceLock::new() };
            testkit::network(&network).unwrap();
        }
    }
}
