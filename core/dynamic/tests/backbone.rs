//! Backbones from libraries: the example in C against its formula in f64, and what a backbone may do wrong.

mod common;

use std::path::Path;
use std::thread;

use sconce_dynamic::{Library, load};
use sconce_sdk::serde_json::json;
use sconce_sdk::{Buffer, Choice, Cuda, CudaBuffer, CudaGradients, Gradients, Network, Noise, health};

fn mixer() -> &'static Library {
    let folder = common::scratch().join("examples");
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/plugins/backbone-c/mixer.c");
    let library = folder.join(common::dylib("mixer"));
    // Tests run together, and one of them may have it loaded.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| common::compile("cc", &source, &library, &["-std=c99"]));
    load(&library).unwrap_or_else(|e| panic!("{e}"))
}

const SIDES: [usize; 4] = [2, 3, 2, 2];
const WORDS: [usize; 3] = [2, 5, 4];
const WIDTH: usize = 6;

fn numbers(n: usize, seed: f64) -> Vec<f32> {
    (0..n).map(|i| ((i as f64 + seed) * 1.7).sin() as f32).collect()
}

/// The formula, in f64: parameters w1, b1, wt, wc, w2, b2; inputs x, time, context.
fn formula(p: &[Vec<f64>], inputs: &[Vec<f64>]) -> Vec<f64> {
    let ([batch, channels, h, w], [_, length, words]) = (SIDES, WORDS);
    let area = h * w;
    let mut y = vec![0.0; batch * channels * area];
    for b in 0..batch {
        let word = |d: usize| (0..length).map(|l| inputs[2][(b * length + l) * words + d]).sum::<f64>() / length as f64;
        for a in 0..area {
            let hidden = |k: usize| {
                let x: f64 =
                    (0..channels).map(|c| p[0][k * channels + c] * inputs[0][(b * channels + c) * area + a]).sum();
                let context: f64 = (0..words).map(|d| p[3][k * words + d] * word(d)).sum();
                (p[1][k] + x + p[2][k] * inputs[1][b] / 1000.0 + context).tanh()
            };
            let hidden: Vec<f64> = (0..WIDTH).map(hidden).collect();
            for c in 0..channels {
                let sum: f64 = (0..WIDTH).map(|k| p[4][c * WIDTH + k] * hidden[k]).sum();
                y[(b * channels + c) * area + a] = p[5][c] + sum;
            }
        }
    }
    y
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn products_are_those_of_the_formula_to_1e_5() {
    let table = json!({ "type": "mixer", "channels": 3, "width": WIDTH, "words": 4, "seed": 7 });
    mixer();
    let network = Choice::<dyn Network>::from_table(&table).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(network.table(), table);
    let about = network.about();
    assert_eq!((about.channels, about.side_multiple), (3, 1));
    assert_eq!((about.conditions[0].name.as_str(), &about.conditions[0].shape[..]), ("context", &[0, 4][..]));
    let level = Noise { alpha: 0.6, sigma: 0.8, d_alpha: -1.0, d_sigma: 0.75 };
    assert_eq!(network.time(0.25, &level), 250.0);

    let parameters = network.parameters();
    let shapes: Vec<String> = parameters.iter().map(|p| format!("{} {:?}", p.name, p.shape)).collect();
    assert_eq!(shapes, ["w1 [6, 3]", "b1 [6]", "wt [6]", "wc [6, 4]", "w2 [3, 6]", "b2 [3]"]);
    let values: Vec<Vec<f32>> = parameters
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let mut values = vec![0.0; p.elements()];
            network.read(i, &mut values).unwrap();
            values
        })
        .collect();
    assert!(values.iter().flatten().any(|x| *x != 0.0));

    let data = [numbers(24, 1.0), vec![120.0, 900.0], numbers(40, 3.0)];
    let inputs = [
        Buffer { name: "x", shape: &SIDES, data: &data[0] },
        Buffer { name: "time", shape: &[2], data: &data[1] },
        Buffer { name: "context", shape: &WORDS, data: &data[2] },
    ];
    let mut y = vec![0.0; 24];
    let mut tape = network.record(&inputs, &mut y).unwrap();
    let (p, x): (Vec<_>, Vec<_>) = (values.iter().map(|v| wide(v)).collect(), data.iter().map(|v| wide(v)).collect());
    let near = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-5 * (scale + a.abs());
    assert!(wide(&y).iter().zip(formula(&p, &x)).all(|(a, b)| near(*a, b, 1.0)));

    let d = numbers(24, 9.0);
    let mut d_inputs: Vec<Vec<f32>> = data.iter().map(|v| vec![f32::NAN; v.len()]).collect();
    let mut d_parameters: Vec<Vec<f32>> = values.iter().map(|v| vec![f32::NAN; v.len()]).collect();
    // The time trains nowhere.
    let inputs_wanted = d_inputs.iter_mut().enumerate().map(|(i, g)| (i != 1).then_some(g.as_mut_slice())).collect();
    let parameters_wanted = d_parameters.iter_mut().map(|g| Some(g.as_mut_slice())).collect();
    tape.backward(&d, &mut Gradients { inputs: inputs_wanted, parameters: parameters_wanted }).unwrap();
    assert!(d_inputs[1].iter().all(|g| g.is_nan()), "what is not wanted is not written");

    // Central differences of the formula, element by element.
    let slope = |p: &mut Vec<Vec<f64>>, x: &mut Vec<Vec<f64>>, parameter: bool, i: usize, j: usize| {
        const H: f64 = 1e-5;
        let mut at = |step: f64| {
            let of = if parameter { &mut p[i] } else { &mut x[i] };
            let kept = of[j];
            of[j] += step;
            let y = formula(p, x);
            (if parameter { &mut p[i] } else { &mut x[i] })[j] = kept;
            y.iter().zip(&d).map(|(y, d)| y * f64::from(*d)).sum::<f64>()
        };
        (at(H) - at(-H)) / (2.0 * H)
    };
    let (mut p, mut x) = (p, x);
    for (parameter, all) in [(true, &d_parameters), (false, &d_inputs)] {
        for (i, gradient) in all.iter().enumerate().filter(|(i, _)| parameter || *i != 1) {
            for (j, got) in gradient.iter().enumerate() {
                let want = slope(&mut p, &mut x, parameter, i, j);
                assert!(near(want, f64::from(*got), 1.0), "parameter {parameter}, {i}, {j}: {got}, not {want}");
            }
        }
    }
    assert_eq!(health::take(), None);
}

#[test]
fn the_laws_and_threads() {
    let checked = mixer().check_laws().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(checked[0].1.notes, Vec::<String>::new());
    // A tape outlives its network, and is freed by another thread.
    let network = Choice::<dyn Network>::from_table(&json!({ "type": "mixer", "channels": 3, "words": 4 })).unwrap();
    let (x, context) = (numbers(24, 1.0), numbers(40, 3.0));
    let inputs = [
        Buffer { name: "x", shape: &SIDES, data: &x },
        Buffer { name: "time", shape: &[2], data: &[1.0, 2.0] },
        Buffer { name: "context", shape: &WORDS, data: &context },
    ];
    let mut y = vec![0.0; 24];
    let mut tape = network.record(&inputs, &mut y).unwrap();
    drop(network);
    thread::spawn(move || {
        let wanted = &mut Gradients { inputs: vec![None, None, None], parameters: Vec::new() };
        let words = tape.backward(&[0.0; 24], wanted).unwrap_err();
        assert_eq!(words, "there are 3 inputs and 6 parameters to want gradients of or not");
    })
    .join()
    .unwrap();
}

#[test]
fn errors_name_the_library() {
    let library = mixer();
    let network = Choice::<dyn Network>::named("mixer").unwrap();
    let who = format!("the backbone `mixer` of mixer 0.1.0 ({})", library.path().display());
    let x = Buffer { name: "x", shape: &[1, 4, 1, 1], data: &[0.0; 4] };
    assert_eq!(
        network.forward(&[x], &mut [0.0; 4]),
        Err(format!("{who}: `forward` takes x, time and context, of the sides that it told"))
    );
    assert_eq!(network.write(9, &[0.0]), Err(format!("{who}: `write` there is no such parameter")));
    // What could run over is looked at before the library sees it.
    assert_eq!(
        network.forward(&[x], &mut [0.0; 3]),
        Err("the first input has not the 3 elements of the output".into())
    );
    let short = Buffer { name: "time", shape: &[7], data: &[0.0; 4] };
    assert_eq!(network.forward(&[x, short], &mut [0.0; 4]), Err("the input `time` has 4 elements for [7]".into()));
    let wrong = Choice::<dyn Network>::from_table(&json!({ "type": "mixer", "width": 0 })).unwrap_err();
    assert_eq!(wrong.to_string(), "`width`: must be a whole number, of 65536 at most");

    // A panic in Rust is such an error too, and a wrong gradient is found by the laws.
    load(&common::fixture().built_in).unwrap_or_else(|e| panic!("{e}"));
    let odd = load(&common::fixture().odd).unwrap_or_else(|e| panic!("{e}"));
    let network = Choice::<dyn Network>::named("odd-scales").unwrap();
    let x = Buffer { name: "x", shape: &[1000, 0, 1, 1], data: &[] };
    let context = Buffer { name: "context", shape: &[1000, 0, 4], data: &[] };
    let words = network.forward(&[x, Buffer { name: "time", shape: &[0], data: &[] }, context], &mut []).unwrap_err();
    let start =
        format!("the backbone `odd-scales` of fixture-odd 0.2.0 ({}): `forward` panicked at ", odd.path().display());
    assert!(words.starts_with(&start) && words.ends_with(": a batch of 1000"), "{words}");
    let wrong = Choice::<dyn Network>::from_table(&json!({ "type": "odd-scales", "wrong": 2.0 })).unwrap();
    let law = sconce_sdk::testkit::network(&*wrong).unwrap_err();
    assert!(law.starts_with("along the parameter `w` the gradient gives "), "{law}");
}

/// A tensor of a GPU whose addresses are of the machine's memory.
fn lent<'a>(name: &'a str, shape: &'a [usize], data: &'a mut [f32]) -> CudaBuffer<'a> {
    assert_eq!(shape.iter().product::<usize>(), data.len());
    // SAFETY: the plugin that it is for takes addresses as the machine's; each is used by one call at a time.
    unsafe { CudaBuffer::new(name, shape, data.as_mut_ptr() as u64) }
}

#[test]
fn tensors_of_a_gpu_cross_by_their_addresses() {
    load(&common::fixture().built_in).unwrap_or_else(|e| panic!("{e}"));
    let odd = load(&common::fixture().odd).unwrap_or_else(|e| panic!("{e}"));
    let network = Choice::<dyn Network>::named("odd-scales").unwrap();
    let at = Cuda { device: 7, context: 0x5c0, stream: 0 };
    // What works in the machine's memory alone says so, by what it lacks or by itself.
    mixer();
    assert!(Choice::<dyn Network>::named("mixer").unwrap().on_cuda(at).unwrap().is_none());
    assert!(network.on_cuda(Cuda { device: 0, ..at }).unwrap().is_none());
    let who = format!("the backbone `odd-scales` of fixture-odd 0.2.0 ({})", odd.path().display());
    let refused = network.on_cuda(Cuda { context: 0, ..at }).err();
    assert_eq!(refused, Some(format!("{who}: `on_cuda` has no context")));
    let on_cuda = network.on_cuda(at).unwrap().expect("it works there");

    let mut weights = vec![0.3, -0.7, 1.1];
    network.write(0, &weights).unwrap();
    on_cuda.write(0, lent("w", &[3], &mut weights)).unwrap();
    let mut data = [numbers(24, 1.0), vec![0.2, 0.9], numbers(40, 3.0)];
    let (mut y, mut there) = (vec![0.0; 24], vec![f32::NAN; 24]);
    let host = |data: &[Vec<f32>; 3], y: &mut [f32]| {
        let shapes = [("x", &SIDES[..]), ("time", &[2]), ("context", &WORDS)];
        let inputs: Vec<Buffer> =
            shapes.iter().zip(data).map(|((name, shape), data)| Buffer { name, shape, data }).collect();
        network.record(&inputs, y).unwrap()
    };
    let mut tape = host(&data, &mut y);
    let [x, time, context] = &mut data;
    let inputs = [lent("x", &SIDES, x), lent("time", &[2], time), lent("context", &WORDS, context)];
    on_cuda.forward(&inputs, lent("out", &SIDES, &mut there)).unwrap();
    assert_eq!(there, y);
    there.fill(f32::NAN);
    let mut tape_there = on_cuda.record(&inputs, lent("out", &SIDES, &mut there)).unwrap();
    assert_eq!(there, y);
    let words = on_cuda.forward(&inputs[1..], lent("out", &SIDES, &mut there)).unwrap_err();
    assert_eq!(words, "the first input has not the shape [2, 3, 2, 2] of the output");
    drop(on_cuda);

    // Those of x and of the parameter are wanted; of the others nothing is written.
    let (mut d, mut dx, mut dw) = (numbers(24, 9.0), [vec![0.0; 24], vec![0.0; 24]], [vec![0.0; 3], vec![0.0; 3]]);
    let [dx_host, dx_there] = &mut dx;
    let [dw_host, dw_there] = &mut dw;
    let mut wanted = Gradients { inputs: vec![Some(dx_host), None, None], parameters: vec![Some(dw_host)] };
    tape.backward(&d, &mut wanted).unwrap();
    let d_out = lent("out", &SIDES, &mut d);
    let (x, w) = (lent("x", &SIDES, dx_there), lent("w", &[3], dw_there));
    let wanted = |w| CudaGradients { inputs: vec![Some(x), None, None], parameters: vec![Some(w)] };
    tape_there.backward(d_out, &wanted(w)).unwrap();
    let words = tape_there.backward(d_out, &wanted(d_out)).unwrap_err();
    assert_eq!(words, "the gradient `out` is of [2, 3, 2, 2], not of [3]");
    let words = tape_there.backward(d_out, &CudaGradients::default()).unwrap_err();
    assert_eq!(words, "there are 3 inputs and 1 parameters to want gradients of or not");
    // A tape outlives its network, and is freed by another thread.
    drop(network);
    thread::spawn(move || drop(tape_there)).join().unwrap();
    assert!(dx[0] == dx[1] && dw[0] == dw[1] && dw[0].iter().all(|d| *d != 0.0), "{dx:?} {dw:?}");
}
