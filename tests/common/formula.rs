//! The weights and inputs of the parity fixtures, as a pure function of their names: the twin of
//! `tests/fixtures/formula.py`, so that no weight needs to be committed. `data/formula.txt` holds both to the same bits.
//! Not every test uses every function.
#![allow(dead_code)]

/// `count` numbers in [-1, 1), each a multiple of 2^-23: splitmix64 at fnv1a64("component/key") + i.
pub fn raw(component: &str, key: &str, count: usize) -> impl Iterator<Item = f64> {
    let name = component.bytes().chain([b'/']).chain(key.bytes());
    let seed = name.fold(0xCBF2_9CE4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
    (0..count as u64).map(move |i| (splitmix64(seed.wrapping_add(i)) >> 40) as f64 / 8_388_608.0 - 1.0)
}

fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// (center, scale) of a weight: norms near 1, biases near 0, matrices such that variance is kept (gain 1).
fn spread(key: &str, shape: &[usize]) -> (f64, f64) {
    match shape {
        [_] if key.ends_with(".weight") => (1.0, 0.1),
        [_] => (0.0, 0.05),
        _ if ["token_embedding.weight", "position_embedding.weight"].iter().any(|e| key.ends_with(e)) => (0.0, 0.5),
        [_, fan_in @ ..] => (0.0, (3.0 / fan_in.iter().product::<usize>() as f64).sqrt()),
        [] => panic!("{key}: a weight has at least one dimension"),
    }
}

/// A weight named `key` in `component` (`unet`, `vae`, `text_encoder` …), row-major.
pub fn fill(component: &str, key: &str, shape: &[usize]) -> Vec<f32> {
    let (center, scale) = spread(key, shape);
    raw(component, key, shape.iter().product()).map(|r| (center + scale * r) as f32).collect()
}

/// An input of unit variance.
pub fn unit(component: &str, key: &str, shape: &[usize]) -> Vec<f32> {
    raw(component, key, shape.iter().product()).map(|r| (3.0_f64.sqrt() * r) as f32).collect()
}

/// The plain numbers in [-1, 1), which f32 holds exactly.
pub fn probe(component: &str, key: &str, shape: &[usize]) -> Vec<f32> {
    raw(component, key, shape.iter().product()).map(|r| r as f32).collect()
}

#[test]
fn both_twins_give_the_same_bits() {
    let vectors = include_str!("../fixtures/data/formula.txt");
    for line in vectors.lines() {
        let mut words = line.split(' ');
        let mut next = || words.next().expect("function, component, key, shape, bits");
        let (function, component, key, shape) = (next(), next(), next(), next());
        let shape: Vec<usize> = shape.split(',').map(|n| n.parse().expect("a size")).collect();
        let values = match function {
            "fill" => fill(component, key, &shape),
            "unit" => unit(component, key, &shape),
            "probe" => probe(component, key, &shape),
            other => panic!("unknown function {other}"),
        };
        let got: Vec<String> = values.iter().map(|v| format!("{:08x}", v.to_bits())).collect();
        assert_eq!(got.join(" "), words.collect::<Vec<_>>().join(" "), "{function} {component}/{key}");
    }
    assert_eq!(vectors.lines().count(), 7);
}
