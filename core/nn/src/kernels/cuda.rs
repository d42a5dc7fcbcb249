//! The kernels' side of Rust: their arguments, their grids, and the memory they write to.

use std::sync::OnceLock;

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, LaunchConfig, PushKernelArg, sys};
use candle_core::cuda_backend::cudarc::nvrtc::{CompileOptions, compile_ptx_with_opts};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, DType, Device, Error, Result, Shape, Storage, Tensor, bail};

use super::{Act, AdamW, Norm, Plus, Sees};

type Maybe<T> = Result<Option<T>>;

/// Threads of a block, and the most blocks of a pointwise kernel.
const THREADS: u32 = 256;
const BLOCKS: u32 = 132 * 16;

/// An argument of a kernel.
enum Arg {
    Pointer(u64),
    Float(f32),
    Int(i32),
    Word(u32),
    Long(u64),
}

/// The kernels' names end in the type that they read and write.
fn suffix(x: &Tensor) -> Option<&'static str> {
    let named = match x.dtype() {
        DType::F32 => "f32",
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        _ => return None,
    };
    (x.device().is_cuda() && x.elem_count() > 0).then_some(named)
}

fn device(x: &Tensor) -> Result<&CudaDevice> {
    match x.device() {
        Device::Cuda(device) => Ok(device),
        other => bail!("a kernel of the GPU was given a tensor on {:?}", other.location()),
    }
}

/// Where the numbers of a contiguous tensor begin. They stay there until work that is queued before their release is done.
fn pointer(x: &Tensor) -> Result<Arg> {
    address(x).map(Arg::Pointer)
}

/// True if a tensor can be read and written eight numbers at a time, in units of 16 bytes.
fn in_packs(x: &Tensor) -> Result<bool> {
    Ok(x.is_contiguous() && x.elem_count() % 8 == 0 && address(x)? % 16 == 0)
}

/// The address (a `CUdeviceptr`) of the first number of a tensor without gaps in a GPU's memory. It is freed in the order of the
/// device's stream.
pub fn address(x: &Tensor) -> Result<u64> {
    if !x.is_contiguous() {
        bail!("a kernel was given a view: {:?}", x.layout());
    }
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cuda(cuda) = &*storage else { bail!("a kernel of the GPU was given a tensor elsewhere") };
    macro_rules! start {
        ($slice:expr) => {
            $slice.device_ptr($slice.stream()).0
        };
    }
    let start = match &cuda.slice {
        CudaStorageSlice::F32(slice) => start!(slice),
        CudaStorageSlice::BF16(slice) => start!(slice),
        CudaStorageSlice::F16(slice) => start!(slice),
        CudaStorageSlice::U8(slice) => start!(slice),
        _ => bail!("a kernel was given a tensor of {:?}", x.dtype()),
    };
    Ok(start + (layout.start_offset() * x.dtype().size_in_bytes()) as u64)
}

fn maybe(x: Option<&Tensor>) -> Result<Arg> {
    x.map_or(Ok(Arg::Pointer(0)), pointer)
}

/// Memory for a result, which a kernel fills.
fn empty(shape: impl Into<Shape>, dtype: DType, like: &Tensor) -> Result<Tensor> {
    // SAFETY: every kernel here writes each element of its result before anything reads it.
    unsafe { Tensor::empty(shape, dtype, like.device()) }
}

/// The code of all kernels, compiled once a process for the card at hand.
fn code(device: &CudaDevice) -> Result<&'static str> {
    static CODE: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compile = || -> std::result::Result<String, String> {
        let context = device.cuda_stream().context().clone();
        let capability = |of| context.attribute(of).map_err(|e| e.to_string());
        let major = capability(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = capability(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let options = vec![format!("--gpu-architecture=compute_{major}{minor}")];
        let options = CompileOptions { options, ..CompileOptions::default() };
        let ptx = compile_ptx_with_opts(include_str!("kernels.cu"), options).map_err(|e| format!("{e:?}"))?;
        Ok(ptx.to_src())
    };
    CODE.get_or_init(compile)
        .as_deref()
        .map_err(|e| Error::Msg(format!("the kernels do not compile on this card: {e}")))
}

fn launch(name: &str, like: &Tensor, grid: [u32; 2], block: [u32; 2], args: &[Arg]) -> Result<()> {
    let device = device(like)?;
    let function = device.get_or_load_custom_func(name, "sconce", code(device)?)?;
    let mut builder = function.builder();
    for arg in args {
        match arg {
            Arg::Pointer(x) | Arg::Long(x) => builder.arg(x),
            Arg::Float(x) => builder.arg(x),
            Arg::Int(x) => builder.arg(x),
            Arg::Word(x) => builder.arg(x),
        };
    }
    let config =
        LaunchConfig { grid_dim: (grid[0], grid[1], 1), block_dim: (block[0], block[1], 1), shared_mem_bytes: 0 };
    // SAFETY: the arguments are those that the kernel of this name declares, in its order, and its results are as large as
    // its grid writes.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}

/// A kernel that goes over `count` elements.
fn each(name: &str, like: &Tensor, count: usize, args: &[Arg]) -> Result<()> {
    let blocks = count.div_ceil(THREADS as usize).min(BLOCKS as usize) as u32;
    launch(name, like, [blocks, 1], [THREADS, 1], args)
}

/// Threads for a row of `width`: whole warps, no more than it has numbers for.
fn threads(width: usize) -> u32 {
    (width.div_ceil(4).next_multiple_of(32) as u32).clamp(32, 1024)
}

fn word(n: usize) -> Arg {
    Arg::Word(n as u32)
}

fn long(n: usize) -> Arg {
    Arg::Long(n as u64)
}

pub(crate) fn keep_memory(device: &Device) -> Result<()> {
    let Device::Cuda(cuda) = device else { return Ok(()) };
    let context = cuda.cuda_stream().context().clone();
    let mut pool = std::ptr::null_mut();
    let mut threshold = u64::MAX;
    // SAFETY: both calls are given the device's own pool and a number that they copy.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()).result().w()?;
        let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result().w()?;
    }
    Ok(())
}

pub(crate) fn act(kind: Act, x: &Tensor) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, n) = (x.contiguous()?, x.elem_count());
    let y = empty(x.shape(), x.dtype(), &x)?;
    each(&format!("act_forward_{of}"), &x, n, &[pointer(&y)?, pointer(&x)?, Arg::Int(kind as i32), long(n)])?;
    Ok(Some(y))
}

pub(crate) fn act_grad(kind: Act, x: &Tensor, dy: &Tensor) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, dy, n) = (x.contiguous()?, dy.to_dtype(x.dtype())?.contiguous()?, x.elem_count());
    let dx = empty(x.shape(), x.dtype(), &x)?;
    let args = [pointer(&dx)?, pointer(&x)?, pointer(&dy)?, Arg::Int(kind as i32), long(n)];
    each(&format!("act_backward_{of}"), &x, n, &args)?;
    Ok(Some(dx))
}

pub(crate) fn geglu(x: &Tensor) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, mut dims) = (x.contiguous()?, x.dims().to_vec());
    let width = dims[dims.len() - 1] / 2;
    dims.splice(dims.len() - 1.., [width]);
    let y = empty(dims, x.dtype(), &x)?;
    let n = y.elem_count();
    each(&format!("geglu_forward_{of}"), &x, n, &[pointer(&y)?, pointer(&x)?, word(width), long(n)])?;
    Ok(Some(y))
}

pub(crate) fn geglu_grad(x: &Tensor, dy: &Tensor) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, dy) = (x.contiguous()?, dy.to_dtype(x.dtype())?.contiguous()?);
    let (width, n) = (x.dims()[x.rank() - 1] / 2, dy.elem_count());
    let dx = empty(x.shape(), x.dtype(), &x)?;
    let args = [pointer(&dx)?, pointer(&x)?, pointer(&dy)?, word(width), long(n)];
    each(&format!("geglu_backward_{of}"), &x, n, &args)?;
    Ok(Some(dx))
}

/// The threads that hold a row of this width, eight numbers each; `None` where they cannot.
fn holders(width: usize, rows: &[&Tensor]) -> Result<Option<u32>> {
    let whole = width % 8 == 0 && (256..=8192).contains(&width);
    for row in rows {
        if !whole || !in_packs(row)? {
            return Ok(None);
        }
    }
    Ok(Some((width / 8).next_multiple_of(32) as u32))
}

pub(crate) fn softmax(x: &Tensor, sees: Sees) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, width) = (x.contiguous()?, x.dims()[x.rank() - 1]);
    let y = empty(x.shape(), x.dtype(), &x)?;
    let (causal, rows, first) = match sees {
        Sees::All => (0, 1, 0),
        Sees::UpTo { rows, first } => (1, rows, first),
    };
    let args = [pointer(&y)?, pointer(&x)?, word(width), Arg::Int(causal), word(rows), word(first)];
    let rows = (x.elem_count() / width) as u32;
    if let (Sees::All, Some(threads)) = (sees, holders(width, &[&x, &y])?) {
        launch(&format!("softmax_forward_held_{of}"), &x, [rows, 1], [threads, 1], &args[..3])?;
        return Ok(Some(y));
    }
    launch(&format!("softmax_forward_{of}"), &x, [rows, 1], [threads(width), 1], &args)?;
    Ok(Some(y))
}

pub(crate) fn softmax_grad(p: &Tensor, dp: &Tensor, scale: f64) -> Maybe<Tensor> {
    let Some(of) = suffix(p) else { return Ok(None) };
    let (p, dp, width) = (p.contiguous()?, dp.to_dtype(p.dtype())?.contiguous()?, p.dims()[p.rank() - 1]);
    let dx = empty(p.shape(), p.dtype(), &p)?;
    let args = [pointer(&dx)?, pointer(&p)?, pointer(&dp)?, word(width), Arg::Float(scale as f32)];
    let rows = (p.elem_count() / width) as u32;
    if let Some(threads) = holders(width, &[&p, &dp, &dx])? {
        launch(&format!("softmax_backward_held_{of}"), &p, [rows, 1], [threads, 1], &args)?;
        return Ok(Some(dx));
    }
    launch(&format!("softmax_backward_{of}"), &p, [rows, 1], [threads(width), 1], &args)?;
    Ok(Some(dx))
}

/// Scale or shift as the kernels read them.
fn single(param: Option<&Tensor>) -> Result<Option<Tensor>> {
    param.map(|p| p.detach().to_dtype(DType::F32)?.contiguous()).transpose()
}

/// The normalised tensor, and mean and reciprocal deviation of each slab.
pub(crate) fn norm(x: &Tensor, by: Norm, w: Option<&Tensor>, b: Option<&Tensor>) -> Maybe<(Tensor, Tensor)> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, w, b) = (x.contiguous()?, single(w)?, single(b)?);
    let slabs = x.elem_count() / by.size;
    let (y, stats) = (empty(x.shape(), x.dtype(), &x)?, empty((slabs, 2), DType::F32, &x)?);
    let args = [
        pointer(&y)?,
        pointer(&stats)?,
        pointer(&x)?,
        maybe(w.as_ref())?,
        maybe(b.as_ref())?,
        word(by.size),
        word(by.spatial),
        word(by.slabs),
        Arg::Float(by.eps as f32),
        Arg::Int(by.centred.into()),
        Arg::Int(by.silu.into()),
    ];
    launch(&format!("norm_forward_{of}"), &x, [slabs as u32, 1], [threads(by.size), 1], &args)?;
    Ok(Some((y, stats)))
}

pub(crate) fn norm_grad(
    x: &Tensor,
    dy: &Tensor,
    stats: &Tensor,
    by: Norm,
    w: Option<&Tensor>,
    b: Option<&Tensor>,
) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, dy, w, b) = (x.contiguous()?, dy.to_dtype(x.dtype())?.contiguous()?, single(w)?, single(b)?);
    let dx = empty(x.shape(), x.dtype(), &x)?;
    let args = [
        pointer(&dx)?,
        pointer(&x)?,
        pointer(&dy)?,
        pointer(stats)?,
        maybe(w.as_ref())?,
        maybe(b.as_ref())?,
        word(by.size),
        word(by.spatial),
        word(by.slabs),
        Arg::Int(by.centred.into()),
        Arg::Int(by.silu.into()),
    ];
    let slabs = (x.elem_count() / by.size) as u32;
    launch(&format!("norm_backward_{of}"), &x, [slabs, 1], [threads(by.size), 1], &args)?;
    Ok(Some(dx))
}

/// The gradients of scale and shift, in f32.
pub(crate) fn norm_params_grad(
    x: &Tensor,
    dy: &Tensor,
    stats: &Tensor,
    by: Norm,
    w: Option<&Tensor>,
    b: Option<&Tensor>,
) -> Maybe<(Tensor, Tensor)> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, dy, w, b) = (x.contiguous()?, dy.to_dtype(x.dtype())?.contiguous()?, single(w)?, single(b)?);
    let channels = by.size / by.spatial * by.slabs;
    let (dw, db) = (empty(channels, DType::F32, &x)?, empty(channels, DType::F32, &x)?);
    let mut args = vec![pointer(&dw)?, pointer(&db)?, pointer(&x)?, pointer(&dy)?, pointer(stats)?];
    if by.spatial == 1 && by.slabs == 1 {
        args.extend([word(x.elem_count() / by.size), word(by.size)]);
        let grid = [channels.div_ceil(32) as u32, 1];
        launch(&format!("row_norm_params_{of}"), &x, grid, [32, 8], &args)?;
    } else {
        let batch = x.elem_count() / (channels * by.spatial);
        args.extend([maybe(w.as_ref())?, maybe(b.as_ref())?, word(batch), word(channels), word(by.slabs)]);
        args.extend([word(by.spatial), Arg::Int(by.silu.into())]);
        let block = [threads(by.spatial), 1];
        launch(&format!("group_norm_params_{of}"), &x, [channels as u32, 1], block, &args)?;
    }
    Ok(Some((dw, db)))
}

/// x (offset + factor) + what is added, as x's type.
pub(crate) fn scaled(x: &Tensor, factor: &Tensor, offset: f64, plus: Plus) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (_, length, width) = x.dims3()?;
    let like = |t: &Tensor| t.detach().to_dtype(x.dtype())?.contiguous();
    let (kind, added) = match plus {
        Plus::Nothing => (0, None),
        Plus::Vector(t) => (1, Some(like(t)?)),
        Plus::Rows(t) => (2, Some(like(t)?)),
    };
    let (factor, x, n) = (like(factor)?, x.contiguous()?, x.elem_count());
    let y = empty(x.shape(), x.dtype(), &x)?;
    let args = [
        pointer(&y)?,
        pointer(&x)?,
        pointer(&factor)?,
        maybe(added.as_ref())?,
        Arg::Float(offset as f32),
        Arg::Int(kind),
        word(length),
        word(width),
        long(n),
    ];
    each(&format!("scaled_{of}"), &x, n, &args)?;
    Ok(Some(y))
}

/// The sum over L of a b, or of a alone: `B D`.
pub(crate) fn summed(a: &Tensor, b: Option<&Tensor>) -> Maybe<Tensor> {
    let Some(of) = suffix(a) else { return Ok(None) };
    let (batch, length, width) = a.dims3()?;
    let (a, b) = (a.contiguous()?, b.map(|b| b.detach().to_dtype(a.dtype())?.contiguous()).transpose()?);
    let out = empty((batch, width), a.dtype(), &a)?;
    let args = [pointer(&out)?, pointer(&a)?, maybe(b.as_ref())?, word(length), word(width)];
    launch(&format!("summed_{of}"), &a, [width.div_ceil(32) as u32, batch as u32], [32, 8], &args)?;
    Ok(Some(out))
}

/// Adds a bias to a result that nothing else holds: `.. C` (spatial 1) or `B C ..` (spatial the rest). True if it did.
pub(crate) fn add_bias(y: &Tensor, bias: &Tensor, spatial: usize) -> Result<bool> {
    let Some(of) = suffix(y).filter(|_| y.is_contiguous()) else { return Ok(false) };
    let (bias, n) = (bias.detach().to_dtype(y.dtype())?.contiguous()?, y.elem_count());
    let args = [pointer(y)?, pointer(&bias)?, word(bias.elem_count()), word(spatial), long(n)];
    each(&format!("add_bias_{of}"), y, n, &args)?;
    Ok(true)
}

/// Adds `x` to a result that nothing else holds. True if it did.
pub(crate) fn add_onto(y: &Tensor, x: &Tensor) -> Result<bool> {
    let Some(of) = suffix(y).filter(|_| x.dtype() == y.dtype() && x.dims() == y.dims()) else { return Ok(false) };
    if !in_packs(y)? || !in_packs(x)? {
        return Ok(false);
    }
    let packs = y.elem_count() / 8;
    each(&format!("add_onto_{of}"), y, packs, &[pointer(y)?, pointer(x)?, long(packs)])?;
    Ok(true)
}

/// `B A C D` to `B C A D`, contiguous.
pub(crate) fn swapped(x: &Tensor) -> Maybe<Tensor> {
    let Some(_) = suffix(x) else { return Ok(None) };
    let (b, a, c, d) = x.dims4()?;
    let bytes = d * x.dtype().size_in_bytes();
    let x = x.contiguous()?;
    if bytes % 16 != 0 || address(&x)? % 16 != 0 {
        return Ok(None);
    }
    let (y, width) = (empty((b, c, a, d), x.dtype(), &x)?, bytes / 16);
    let n = b * a * c * width;
    each("swapped", &x, n, &[pointer(&y)?, pointer(&x)?, word(a), word(c), word(width), long(n)])?;
    Ok(Some(y))
}

/// The sum of the squares of all numbers, a scalar in f32.
pub(crate) fn square_sum(x: &Tensor) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (x, n) = (x.detach().contiguous()?, x.elem_count());
    let blocks = n.div_ceil(16 * THREADS as usize).clamp(1, 1024);
    let (parts, sum) = (empty(blocks, DType::F32, &x)?, empty((), DType::F32, &x)?);
    let args = [pointer(&parts)?, pointer(&x)?, long(n)];
    launch(&format!("squares_{of}"), &x, [blocks as u32, 1], [THREADS, 1], &args)?;
    launch("total", &x, [1, 1], [THREADS, 1], &[pointer(&sum)?, pointer(&parts)?, word(blocks)])?;
    Ok(Some(sum))
}

pub(crate) fn rotary(x: &Tensor, cos: &Tensor, sin: &Tensor, turn: f64) -> Maybe<Tensor> {
    let Some(of) = suffix(x) else { return Ok(None) };
    let (_, length, row) = x.dims3()?;
    let table = |t: &Tensor| t.to_dtype(DType::F32)?.contiguous();
    let (x, cos, sin, n) = (x.contiguous()?, table(cos)?, table(sin)?, x.elem_count() / 2);
    let y = empty(x.shape(), x.dtype(), &x)?;
    let args = [
        pointer(&y)?,
        pointer(&x)?,
        pointer(&cos)?,
        pointer(&sin)?,
        Arg::Float(turn as f32),
        word(length),
        word(row),
        word(cos.dim(1)?),
        long(n),
    ];
    each(&format!("rotary_{of}"), &x, n, &args)?;
    Ok(Some(y))
}

/// Codes (U8), scales (f16) and a table (f32, 256 k) to numbers.
pub(crate) fn unpack(
    codes: &Tensor,
    scales: &Tensor,
    table: &Tensor,
    largest: f32,
    shape: &Shape,
    dtype: DType,
) -> Maybe<Tensor> {
    if !codes.device().is_cuda() {
        return Ok(None);
    }
    let (y, n) = (empty(shape, dtype, codes)?, shape.elem_count());
    let Some(of) = suffix(&y) else { return Ok(None) };
    let args = [
        pointer(&y)?,
        pointer(codes)?,
        pointer(scales)?,
        pointer(table)?,
        Arg::Float(largest),
        word(table.dim(1)?),
        long(n),
    ];
    each(&format!("unpack_{of}"), &y, n, &args)?;
    Ok(Some(y))
}

pub(crate) fn update_adamw(w: &Tensor, m: &Tensor, v: &Tensor, g: &Tensor, by: &AdamW) -> Result<bool> {
    let g = g.detach().to_dtype(DType::F32)?.contiguous()?;
    if [w, m, v, &g].iter().any(|t| suffix(t) != Some("f32") || !t.is_contiguous()) {
        return Ok(false);
    }
    let AdamW { new1, new2, eps, kept, rate, root } = *by;
    let mut args = vec![pointer(w)?, pointer(m)?, pointer(v)?, pointer(&g)?];
    args.extend([new1, new2, eps, kept, rate, root].map(Arg::Float));
    args.push(long(w.elem_count()));
    each("adamw", w, w.elem_count(), &args)?;
    Ok(true)
}
