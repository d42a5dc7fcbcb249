//! A denoiser with an engine of its own that works in the memory of a GPU: the calls of [`Network`](crate::Network) on addresses
//! of CUDA's, for a program that trains there and an engine that is on the same context, so that no tensor goes by the machine's
//! memory.
//!
//! Whoever calls has made the context current in its thread. Work is queued on the stream of [`Cuda`], in whose order the program
//! wrote the tensors, reads the answers and frees both; or it is done when the function returns.

/// Where a program computes: a GPU, as CUDA's driver knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cuda {
    /// The GPU's number among those that the process sees.
    pub device: u32,
    /// Its `CUcontext`. The program's is the GPU's primary one, which CUDA's runtime uses too.
    pub context: usize,
    /// The `CUstream` that the program's work is queued on; 0 is the context's default one.
    pub stream: usize,
}

/// A tensor in the memory of a GPU: row-major, f32.
#[derive(Clone, Copy, Debug)]
pub struct CudaBuffer<'a> {
    name: &'a str,
    shape: &'a [usize],
    address: u64,
}

impl<'a> CudaBuffer<'a> {
    /// A tensor at an address (a `CUdeviceptr`).
    ///
    /// # Safety
    /// As many f32 as the sides' product are there, in the memory that it is passed on as being in, until work that is queued
    /// while `'a` lasts is done; and they may be written to where they are passed on for that.
    pub unsafe fn new(name: &'a str, shape: &'a [usize], address: u64) -> Self {
        Self { name, shape, address }
    }

    /// What it is: `x`, `time`, the name of a condition or of a parameter.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Its sides, the batch first.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// Where it begins: a `CUdeviceptr`.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The number of its elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A network on one GPU. Its parameters are those of the network that it is of, in the same order; there they are written, before
/// the first pass and whenever they changed.
pub trait CudaNetwork: Send + Sync {
    /// Sets the values of a parameter.
    fn write(&self, parameter: usize, values: CudaBuffer) -> Result<(), String>;

    /// The output for `x` (B C H W), `time` (B), and the conditions in their order, into `out`, which has the shape of `x`; and
    /// what the backward pass needs.
    fn record(&self, inputs: &[CudaBuffer], out: CudaBuffer) -> Result<Box<dyn CudaTape>, String>;

    /// The same with nothing kept.
    fn forward(&self, inputs: &[CudaBuffer], out: CudaBuffer) -> Result<(), String> {
        self.record(inputs, out).map(drop)
    }
}

/// What a network kept of one pass.
pub trait CudaTape: Send {
    /// From the gradient of the output to those that are wanted, each of which is overwritten. The parameters are still those
    /// of the pass.
    fn backward(&mut self, d_out: CudaBuffer, wanted: &CudaGradients) -> Result<(), String>;
}

/// Room for gradients; `None` where none is wanted.
#[derive(Debug, Default)]
pub struct CudaGradients<'a> {
    /// In the inputs' order.
    pub inputs: Vec<Option<CudaBuffer<'a>>>,
    /// In the parameters' order.
    pub parameters: Vec<Option<CudaBuffer<'a>>>,
}
