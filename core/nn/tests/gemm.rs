//! The matrix product on every instruction set of this machine, on awkward sizes, strides and float types.

use half::{bf16, f16};
use sconce_nn::cpu::gemm::{Data, Index, Init, Isa, Operand, Out, gemm_with};
use sconce_nn::gradcheck::pseudo_random;

fn values(len: usize, seed: u64) -> Vec<f64> {
    pseudo_random(&[len], seed).unwrap().to_vec1().unwrap()
}

/// C from the definition, with `at` giving the elements of A and B.
fn reference([m, n, k]: [usize; 3], a: impl Fn(usize, usize) -> f64, b: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    (0..m * n).map(|at| (0..k).map(|p| a(at / n, p) * b(p, at % n)).sum()).collect()
}

fn assert_close(got: &[f32], want: &[f64], what: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len());
    for (at, (&got, &want)) in got.iter().zip(want).enumerate() {
        assert!((got as f64 - want).abs() < 1e-4, "{what:?}: element {at} is {got}, not {want}");
    }
}

const SIZES: [usize; 7] = [1, 7, 13, 16, 31, 33, 65];

#[test]
fn every_kernel_agrees_with_the_definition() {
    for isa in Isa::available() {
        for m in SIZES {
            for n in SIZES {
                for k in [0, 1, 13, 64, 400] {
                    let (a, b): (Vec<f32>, Vec<f32>) = (
                        values(m * k, 1).iter().map(|&x| x as f32).collect(),
                        values(k * n, 2).iter().map(|&x| x as f32).collect(),
                    );
                    let want = reference([m, n, k], |i, p| a[i * k + p] as f64, |p, j| b[p * n + j] as f64);
                    let mut c = vec![f32::NAN; m * n];
                    let (left, right) = (Operand::left(&a, k, 1), Operand::right(&b, n, 1));
                    gemm_with(isa, [m, n, k], 1.0, left, right, Init::Zero, Out::new(&mut c, n));
                    assert_close(&c, &want, &(isa, m, n, k));
                }
            }
        }
    }
}

#[test]
fn transposed_operands_and_every_start_value() {
    let [m, n, k] = [33, 65, 50];
    for isa in Isa::available() {
        let (a, b) = (values(m * k, 3), values(k * n, 4));
        let (a32, b32): (Vec<f32>, Vec<f32>) =
            (a.iter().map(|&x| x as f32).collect(), b.iter().map(|&x| x as f32).collect());
        let product = reference([m, n, k], |i, p| a[p * m + i], |p, j| b[j * k + p]);
        let row: Vec<f32> = (0..m).map(|i| i as f32).collect();
        let col: Vec<f32> = (0..n).map(|j| j as f32).collect();
        let stride = n + 3;
        for (init, start) in [
            (Init::Zero, (|_, _| 0.0) as fn(usize, usize) -> f64),
            (Init::Keep, |_, _| 9.0),
            (Init::Row(&row), |i, _| i as f64),
            (Init::Col(&col), |_, j| j as f64),
        ] {
            let mut c = vec![9f32; m * stride];
            let (left, right) = (Operand::left(&a32, 1, m), Operand::right(&b32, 1, k));
            gemm_with(isa, [m, n, k], 0.5, left, right, init, Out::new(&mut c, stride));
            for i in 0..m {
                let want: Vec<f64> = (0..n).map(|j| start(i, j) + 0.5 * product[i * n + j]).collect();
                assert_close(&c[i * stride..][..n], &want, &(isa, init, i));
                assert!(c[i * stride + n..][..3].iter().all(|&gap| gap == 9.0), "written between the rows");
            }
        }
    }
}

#[test]
fn narrow_operands_are_widened_exactly() {
    let [m, n, k] = [19, 40, 33];
    let (a, b) = (values(m * k, 5), values(k * n, 6));
    let half_a: Vec<f16> = a.iter().map(|&x| f16::from_f64(x)).collect();
    let brain_b: Vec<bf16> = b.iter().map(|&x| bf16::from_f64(x)).collect();
    let want = reference([m, n, k], |i, p| half_a[i * k + p].to_f64(), |p, j| brain_b[p * n + j].to_f64());
    for isa in Isa::available() {
        let mut c = vec![0f32; m * n];
        let (left, right) = (Operand::left(&half_a, k, 1), Operand::right(&brain_b, n, 1));
        gemm_with(isa, [m, n, k], 1.0, left, right, Init::Zero, Out::new(&mut c, n));
        assert_close(&c, &want, &isa);
        let mut c = vec![0f64; m * n];
        gemm_with(isa, [m, n, k], 1.0, left, right, Init::Zero, Out::new(&mut c, n));
        assert!(c.iter().zip(&want).all(|(c, want)| (c - want).abs() < 1e-12));
    }
}

#[test]
fn every_half_precision_number_is_widened_exactly() {
    let one = [1f32];
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let halves: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
    let brains: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
    let copied = |data: Data| {
        let mut c = vec![0f32; all.len()];
        let (left, right) = (Operand::left(&one, 1, 1), Operand::right(data, 0, 1));
        gemm_with(Isa::best(), [1, all.len(), 1], 1.0, left, right, Init::Zero, Out::new(&mut c, all.len()));
        c
    };
    let same = |x: f32, y: f32| x == y || x.is_nan() && y.is_nan();
    assert!(copied((&halves).into()).iter().zip(&halves).all(|(&x, y)| same(x, y.to_f32())));
    assert!(copied((&brains).into()).iter().zip(&brains).all(|(&x, y)| same(x, y.to_f32())));
}

#[test]
fn tables_and_groups_address_every_element() {
    // B: lanes in runs of 5 with gaps; depth in runs of 17. C: groups of 9 columns.
    let [m, n, k] = [15, 45, 51];
    let b = values(20_000, 7);
    let lane: Vec<usize> = (0..n).map(|j| j / 5 * 7 + j % 5).collect();
    let depth: Vec<usize> = (0..k).map(|p| p / 17 * 5_000 + p % 17 * 100).collect();
    let a = values(m * k, 8);
    let want = reference([m, n, k], |i, p| a[i * k + p], |p, j| b[lane[j] + depth[p]]);
    for isa in Isa::available() {
        let mut c = vec![0f32; 5 * m * 9];
        let right = Operand { data: (&b).into(), lane: Index::Table(&lane), depth: Index::Table(&depth) };
        let out = Out::grouped(&mut c, 9, 9, m * 9);
        gemm_with(isa, [m, n, k], 1.0, Operand::left(&a, k, 1), right, Init::Zero, out);
        for j in 0..n {
            let column: Vec<f32> = (0..m).map(|i| c[j / 9 * m * 9 + i * 9 + j % 9]).collect();
            let want: Vec<f64> = (0..m).map(|i| want[i * n + j]).collect();
            assert_close(&column, &want, &(isa, j));
        }
    }
}

#[test]
fn large_products_cross_every_block_boundary() {
    let [m, n, k] = [2100, 70, 800];
    let (a, b): (Vec<f32>, Vec<f32>) =
        (values(m * k, 9).iter().map(|&x| x as f32).collect(), values(k * n, 10).iter().map(|&x| x as f32).collect());
    let run = |isa, size: [usize; 3], left, right| {
        let mut c = vec![0f32; size[0] * size[1]];
        gemm_with(isa, size, 1.0, left, right, Init::Zero, Out::new(&mut c, size[1]));
        c
    };
    let want = reference([m, n, k], |i, p| a[i * k + p] as f64, |p, j| b[p * n + j] as f64);
    let got = run(Isa::best(), [m, n, k], Operand::left(&a, k, 1), Operand::right(&b, n, 1));
    assert_close(&got, &want, &"tall");
    let turned = run(Isa::best(), [n, m, k], Operand::left(&b, 1, n), Operand::right(&a, 1, k));
    let want: Vec<f64> = (0..n * m).map(|at| want[at % m * n + at / m]).collect();
    assert_close(&turned, &want, &"wide");
}

#[test]
fn products_inside_parallel_tasks_do_not_share_buffers() {
    use rayon::prelude::*;
    let (m, n, k) = (128, 128, 128);
    let a: Vec<f32> = values(m * k, 11).iter().map(|&x| x as f32).collect();
    let run = || {
        let mut c = vec![0f32; m * n];
        let (left, right) = (Operand::left(&a, k, 1), Operand::right(&a, 1, k));
        gemm_with(Isa::best(), [m, n, k], 1.0, left, right, Init::Zero, Out::new(&mut c, n));
        c
    };
    let want = run();
    (0..64).into_par_iter().for_each(|_| assert_eq!(run(), want));
}

#[test]
#[should_panic(expected = "past its memory")]
fn an_operand_that_is_too_short_is_refused() {
    let (a, mut c) = ([0f32; 10], [0f32; 9]);
    let (left, right) = (Operand::left(&a, 4, 1), Operand::right(&a, 3, 1));
    gemm_with(Isa::best(), [3, 3, 4], 1.0, left, right, Init::Zero, Out::new(&mut c, 3));
}
