//! What checkpointing is for: the most memory that a step holds at once, counted in the allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use sconce_nn::checkpoint::{backward, checkpoint};
use sconce_nn::ops::{gelu, layer_norm};
use sconce_nn::rng::Stream;
use sconce_nn::{DType, Device, Result, Tensor, Var};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A transformer's feed-forward block, `N D` to the same.
fn block(x: &Tensor, wide: &Var, narrow: &Var) -> Result<Tensor> {
    x + gelu(&layer_norm(x, None, None, 1e-5)?.matmul(wide)?)?.matmul(narrow)?
}

#[test]
fn checkpointed_blocks_hold_their_inputs_and_one_graph() -> Result<()> {
    const DEPTH: usize = 12;
    const SIZE: usize = 64;
    let noise = |name: &str, rows, cols| Stream::new(0, name).normal((rows, cols), &Device::Cpu)? * 0.05;
    let weights = (0..DEPTH).map(|i| {
        let wide = Var::from_tensor(&noise(&format!("wide {i}"), SIZE, 4 * SIZE)?)?;
        Ok((wide, Var::from_tensor(&noise(&format!("narrow {i}"), 4 * SIZE, SIZE)?)?))
    });
    let weights = weights.collect::<Result<Vec<_>>>()?;
    let x = noise("x", 512, SIZE)?;
    let step = |blocks: bool| -> Result<(usize, Vec<Tensor>)> {
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let mut h = x.clone();
        for (wide, narrow) in &weights {
            let (wide, narrow) = (wide.clone(), narrow.clone());
            h = match blocks {
                true => checkpoint(&[&h], move |x| block(&x[0], &wide, &narrow))?,
                false => block(&h, &wide, &narrow)?,
            };
        }
        let mut grads = backward(&h.sqr()?.mean_all()?)?;
        let grads = weights.iter().flat_map(|(a, b)| [grads.remove(a), grads.remove(b)]).flatten().collect();
        Ok((PEAK.load(Relaxed) - before, grads))
    };
    step(true)?; // thread pools and packing buffers
    let ((plain, want), (blocks, got)) = (step(false)?, step(true)?);
    assert_eq!(got.len(), 2 * DEPTH);
    for (want, got) in want.iter().zip(&got) {
        let distance = (want - got)?.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        assert_eq!(distance, 0.0);
    }
    println!("peak: plain {plain} bytes, checkpointed {blocks}");
    assert!(blocks * 2 < plain, "{blocks} bytes against {plain}");
    Ok(())
}
