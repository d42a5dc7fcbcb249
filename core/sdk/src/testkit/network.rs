//! The laws of a backbone over plain memory.

use super::{Law, holds};
use crate::network::{Buffer, Gradients, Network};

/// Numbers without a pattern, of about the size of 1, the same for the same seed.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() + next()).collect()
}

/// Inputs of a batch of two, of the smallest sizes that the network takes.
struct Asked {
    names: Vec<String>,
    shapes: Vec<Vec<usize>>,
    data: Vec<Vec<f32>>,
}

impl Asked {
    fn of(network: &dyn Network) -> Self {
        let about = network.about();
        let side = 2 * about.side_multiple.max(1);
        let mut names = vec!["x".to_owned(), "time".to_owned()];
        let mut shapes = vec![vec![2, about.channels, side, side], vec![2]];
        for condition in about.conditions {
            names.push(condition.name);
            shapes
                .push(std::iter::once(2).chain(condition.shape.iter().map(|n| if *n == 0 { 3 } else { *n })).collect());
        }
        let count = |shape: &Vec<usize>| shape.iter().product();
        let mut data: Vec<Vec<f32>> = shapes.iter().zip(1..).map(|(shape, seed)| numbers(count(shape), seed)).collect();
        data[1] = [0.3, 0.8].map(|t| network.time(t, &crate::Noise::preserving(0.8, 0.6, 1.0)) as f32).to_vec();
        Self { names, shapes, data }
    }

    fn inputs(&self) -> Vec<Buffer<'_>> {
        let all = self.names.iter().zip(&self.shapes).zip(&self.data);
        all.map(|((name, shape), data)| Buffer { name, shape, data }).collect()
    }

    fn answer(&self, network: &dyn Network) -> Result<Vec<f32>, String> {
        let mut out = vec![0.0; self.data[0].len()];
        network.forward(&self.inputs(), &mut out)?;
        Ok(out)
    }

    /// <d, y>, in f64.
    fn product(&self, network: &dyn Network, d: &[f32]) -> Result<f64, String> {
        let y = self.answer(network)?;
        Ok(y.iter().zip(d).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum())
    }
}

/// Asks a backbone one question, for a measure of its time.
pub fn ask_network(network: &dyn Network) -> Law {
    Asked::of(network).answer(network).map(drop)
}

/// The laws of a backbone: the same answer to the same question, with a tape and without; what is written is read; and the
/// products are those of differences, for each input and each parameter.
pub fn network(network: &dyn Network) -> Law {
    let mut asked = Asked::of(network);
    let parameters = network.parameters();
    holds(!asked.data[0].is_empty(), || format!("it takes latents of {:?}", asked.shapes[0]))?;
    let y = asked.answer(network)?;
    holds(y.iter().all(|y| y.is_finite()), || "its answer is not finite".to_owned())?;

    let mut taped = vec![0.0; y.len()];
    let mut tape = network.record(&asked.inputs(), &mut taped)?;
    let d = numbers(y.len(), 77);
    let mut d_inputs: Vec<Vec<f32>> = asked.data.iter().map(|x| vec![f32::NAN; x.len()]).collect();
    let mut d_parameters: Vec<Vec<f32>> = parameters.iter().map(|p| vec![f32::NAN; p.elements()]).collect();
    let inputs = d_inputs.iter_mut().map(|g| Some(g.as_mut_slice())).collect();
    let wanted = d_parameters.iter_mut().map(|g| Some(g.as_mut_slice())).collect();
    tape.backward(&d, &mut Gradients { inputs, parameters: wanted })?;
    let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
    let same = bits(&taped) == bits(&y) && bits(&asked.answer(network)?) == bits(&y);
    holds(same, || "asked the same, it answers something else".to_owned())?;
    let mut again = vec![f32::NAN; y.len()];
    let mut inputs: Vec<Option<&mut [f32]>> = asked.data.iter().map(|_| None).collect();
    inputs[0] = Some(&mut again);
    tape.backward(&d, &mut Gradients { inputs, parameters: parameters.iter().map(|_| None).collect() })?;
    let same = bits(&again) == bits(&d_inputs[0]);
    holds(same, || "the gradient of x is another one where no other is wanted".to_owned())?;
    drop(tape);

    for (i, gradient) in d_inputs.iter().enumerate() {
        let (kept, way) = (asked.data[i].clone(), numbers(gradient.len(), 100 + i as u64));
        let mut at = |step: f32| {
            asked.data[i] = kept.iter().zip(&way).map(|(x, v)| x + step * v).collect();
            asked.product(network, &d)
        };
        let slopes = differences(&mut at)?;
        asked.data[i] = kept;
        agree(&slopes, gradient, &way, &format!("the input `{}`", asked.names[i]))?;
    }
    for (i, (parameter, gradient)) in parameters.iter().zip(&d_parameters).enumerate() {
        let mut kept = vec![0.0; parameter.elements()];
        network.read(i, &mut kept)?;
        let way = numbers(kept.len(), 200 + i as u64);
        let slopes = differences(&mut |step| {
            let moved: Vec<f32> = kept.iter().zip(&way).map(|(x, v)| x + step * v).collect();
            network.write(i, &moved)?;
            let mut read = vec![f32::NAN; moved.len()];
            network.read(i, &mut read)?;
            holds(bits(&read) == bits(&moved), || format!("`{}` is not what was written", parameter.name))?;
            asked.product(network, &d)
        });
        network.write(i, &kept)?;
        agree(&slopes?, gradient, &way, &format!("the parameter `{}`", parameter.name))?;
    }
    let back = bits(&asked.answer(network)?) == bits(&y);
    holds(back, || "with its parameters as they were, it answers something else".to_owned())
}

/// Central differences of two steps, whose difference says how far they can be trusted.
fn differences(at: &mut dyn FnMut(f32) -> Result<f64, String>) -> Result<[f64; 2], String> {
    let mut slope = |step: f32| Ok::<f64, String>((at(step)? - at(-step)?) / (2.0 * f64::from(step)));
    Ok([slope(2e-3)?, slope(4e-3)?])
}

fn agree([fine, coarse]: &[f64; 2], gradient: &[f32], way: &[f32], what: &str) -> Law {
    let product: f64 = gradient.iter().zip(way).map(|(g, v)| f64::from(*g) * f64::from(*v)).sum();
    let doubt = 2.0 * (fine - coarse).abs() + 1e-2 * fine.abs() + 1e-2;
    let right = (product - fine).abs() <= doubt;
    holds(right, || format!("along {what} the gradient gives {product}, the differences {fine} and {coarse}"))
}
