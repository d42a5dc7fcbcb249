//! Kernels of our own on a GPU. Each function gives `None` where there is none for the tensors at hand (another device, double
//! precision, a build without CUDA), and the caller composes the operation of candle's own. All work on detached tensors.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
mod none;

use candle_core::{DType, Device, Result, Tensor, bail};

#[cfg(feature = "cuda")]
pub use cuda::address;
#[cfg(feature = "cuda")]
pub(crate) use cuda::*;
#[cfg(not(feature = "cuda"))]
pub(crate) use none::*;

/// A nonlinearity, as the kernels count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Silu = 0,
    Gelu = 1,
    GeluTanh = 2,
    QuickGelu = 3,
}

/// Which keys a query sees in a softmax over rows of scores.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "read by the kernels alone"))]
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sees {
    /// All.
    All,
    /// Row r of each `rows` those up to `first + r`.
    UpTo { rows: usize, first: usize },
}

/// What is normalised together, and how.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "read by the kernels alone"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    /// Numbers with one mean and deviation.
    pub size: usize,
    /// Neighbouring numbers of one channel.
    pub spatial: usize,
    /// Slabs after which the channels begin anew.
    pub slabs: usize,
    pub eps: f64,
    /// Whether the mean is taken off.
    pub centred: bool,
    /// Whether a SiLU follows.
    pub silu: bool,
}

/// What is added to scaled rows.
#[derive(Clone, Copy)]
pub(crate) enum Plus<'a> {
    Nothing,
    Vector(&'a Tensor),
    Rows(&'a Tensor),
}

/// The scalars of an update of AdamW.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// 1 - beta1.
    pub new1: f32,
    /// 1 - beta2.
    pub new2: f32,
    /// Added to the root.
    pub eps: f32,
    /// What weight decay leaves.
    pub kept: f32,
    /// The rate over the first correction.
    pub rate: f32,
    /// One over the root of the second correction.
    pub root: f32,
}

/// Opens a GPU, with memory that is kept for the next step rather than given back after each.
///
/// # Errors
/// If there is none of this number, or the build is without CUDA.
pub fn open_cuda(index: usize) -> Result<Device> {
    let device = Device::new_cuda(index)?;
    keep_memory(&device)?;
    Ok(device)
}

/// The device that `cpu` or `cuda:0` names.
///
/// # Errors
/// If it names none, or the GPU is not there.
pub fn open(name: &str) -> Result<Device> {
    match name.strip_prefix("cuda:").map(str::parse) {
        None if name == "cpu" => Ok(Device::Cpu),
        Some(Ok(index)) => open_cuda(index),
        _ => bail!("{name:?} names no device: expected `cpu` or `cuda:0`"),
    }
}

/// The sum of the squares of all numbers of a tensor on a GPU, a scalar in f32 that stays there; composed of candle's operations
/// where there is no kernel.
///
/// # Errors
/// If the tensor is not of a floating type.
pub fn sum_of_squares(x: &Tensor) -> Result<Tensor> {
    match square_sum(x)? {
        Some(sum) => Ok(sum),
        None => x.detach().to_dtype(DType::F32)?.sqr()?.sum_all(),
    }
}

/// An update of AdamW in one pass over a weight and its moments (f32, contiguous) on a GPU; false where there is no kernel.
///
/// # Errors
/// If the shapes differ.
pub fn adamw(weight: &Tensor, mean: &Tensor, square: &Tensor, grad: &Tensor, by: &AdamW) -> Result<bool> {
    if [mean, square, grad].iter().any(|t| t.shape() != weight.shape()) {
        bail!("AdamW: the weight is {:?}, its gradient {:?}", weight.shape(), grad.shape());
    }
    update_adamw(weight, mean, square, grad, by)
}
