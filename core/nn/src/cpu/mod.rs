//! Kernels on slices: no tensor, no graph. Each is written for `f32` and `f64` alike (the second for gradient checks)
//! and splits its work over the rayon pool. Half-precision operands are widened while they are packed.
//!
//! A thread outside of that pool wakes one of it for each operation, and waits. [`work_here`] makes a program's own thread one
//! of the pool instead.

pub mod attention;
pub mod conv;
pub mod elementwise;
pub mod gemm;
pub mod modulate;
pub mod norm;
pub mod rotary;
pub mod softmax;

/// Makes the calling thread one of those that the work is split over, so that an operation begins on it at once. For the one
/// thread that a program computes from, before anything was computed; it must not end before the program does. `threads` are
/// as many as `RAYON_NUM_THREADS` says, or as there are cores, where it is `None`.
pub fn work_here(threads: Option<usize>) {
    let asked = || std::env::var("RAYON_NUM_THREADS").ok().and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.or_else(asked).unwrap_or_else(cores);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    // Alone it would leave the work of other threads undone for as long as it does something else.
    let pool = if threads > 1 { pool.use_current_thread() } else { pool };
    // Where the pool is there already, it stays as it is.
    let _ = pool.build_global();
}
