//! Tensors across the border: views of the caller's memory, for the length of a call.

use std::ffi::c_void;

use super::basic::SconceStr;
use super::declare::c_struct;
use super::table::{Table, read};
use crate::cuda::CudaBuffer;
use crate::registry::ParamError;

/// The machine's own memory.
pub const SCONCE_MEMORY_HOST: u32 = 0;
/// A GPU's, at a CUdeviceptr.
pub const SCONCE_MEMORY_CUDA: u32 = 1;
/// 32-bit floats.
pub const SCONCE_F32: u32 = 0;

c_struct! {
    /// A tensor in memory of the caller's: row-major, without gaps. It is the caller's, for the length of the call.
    pub struct SconceTensor {
        /// sizeof(SconceTensor), as its writer knows it.
        pub size: usize,
        /// What it is: "x", "time", the name of a condition or of a parameter.
        pub name: SconceStr,
        /// The type of its numbers: SCONCE_F32. Later versions may have others: fail for what you do not know.
        pub dtype: u32,
        /// Where `data` is: SCONCE_MEMORY_HOST, or for a SconceCudaBackbone SCONCE_MEMORY_CUDA. Later versions may have
        /// others: fail for what you do not know.
        pub memory: u32,
        /// The number of its sides.
        pub rank: usize,
        /// Its sides, the batch first.
        pub shape: *const usize,
        /// Its numbers. An argument's are read only, but where the function is to write them.
        pub data: *mut c_void,
    }
}

c_struct! {
    /// Takes descriptions of tensors, one by one.
    pub struct SconceTensors {
        /// sizeof(SconceTensors), as the caller knows it.
        pub size: usize,
        /// What `put` takes first.
        pub context: *mut c_void,
        /// Copies the name and the shape of a tensor to the end of the list; `data` is not looked at.
        pub put: Option<unsafe extern "C" fn(context: *mut c_void, tensor: *const SconceTensor)>,
    }
}

impl Table for SconceTensor {
    const LEAST: usize = size_of::<Self>();
}
impl Table for SconceTensors {
    const LEAST: usize = size_of::<Self>();
}

/// More sides than this are a number that was read from the wrong place.
const MOST_SIDES: usize = 16;

/// A tensor of the other side's, looked at.
pub(super) struct View<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    elements: usize,
    memory: u32,
    data: *mut f32,
}

impl SconceTensor {
    /// A view of ours for the other side, of a name, a shape and memory that outlive it: it holds their places. What it may
    /// write to must be memory that we may write to.
    pub(super) fn of(name: &str, shape: &[usize], data: *mut f32) -> Self {
        Self {
            size: size_of::<Self>(),
            name: SconceStr::of(name),
            dtype: SCONCE_F32,
            memory: SCONCE_MEMORY_HOST,
            rank: shape.len(),
            shape: shape.as_ptr(),
            data: data.cast(),
        }
    }

    /// The same of memory of a GPU's.
    pub(super) fn on_cuda(buffer: &CudaBuffer) -> Self {
        let data = std::ptr::without_provenance_mut(buffer.address() as usize);
        Self { memory: SCONCE_MEMORY_CUDA, ..Self::of(buffer.name(), buffer.shape(), data) }
    }

    /// Name and shape of a tensor; its data is looked at by [`View::numbers`] and [`View::room`] alone, and lent by
    /// [`View::buffer`].
    ///
    /// # Safety
    /// `tensor` is null, or points to a view of any version of the ABI's whose name, shape and data live for `'a`.
    pub(super) unsafe fn view<'a>(tensor: *const Self) -> Result<View<'a>, ParamError> {
        // SAFETY: by this function's contract.
        let tensor = unsafe { read(tensor)? };
        // SAFETY: by this function's contract.
        let name = unsafe { tensor.name.read("a tensor's name")? };
        let wrong = |what: String| Err(ParamError::new(format!("the tensor `{name}` {what}")));
        if tensor.rank > MOST_SIDES || (tensor.rank > 0 && tensor.shape.is_null()) {
            return wrong(format!("cannot have {} sides at {:?}", tensor.rank, tensor.shape));
        }
        let shape = match tensor.rank {
            0 => &[],
            // SAFETY: not null, and by this function's contract there are that many.
            rank => unsafe { std::slice::from_raw_parts(tensor.shape, rank) },
        };
        let elements =
            shape.iter().try_fold(1usize, |n, side| n.checked_mul(*side)).filter(|n| *n <= isize::MAX as usize / 4);
        let Some(elements) = elements else { return wrong(format!("cannot have the shape {shape:?}")) };
        if tensor.dtype != SCONCE_F32 || tensor.memory > SCONCE_MEMORY_CUDA {
            return wrong(format!(
                "is of type {} in memory {}, which this version does not know",
                tensor.dtype, tensor.memory
            ));
        }
        if elements > 0 && !tensor.data.cast::<f32>().is_aligned() {
            return wrong("is at an address that is not aligned for its numbers".into());
        }
        Ok(View { name, shape, elements, memory: tensor.memory, data: tensor.data.cast() })
    }
}

/// Tensors of ours in a list for the other side, for the length of a call.
pub(super) struct Lent {
    pointers: Vec<*const SconceTensor>,
    /// Where these point to.
    _tensors: Vec<Option<SconceTensor>>,
}

impl Lent {
    /// Null stands for those that there are none of.
    pub fn of(tensors: impl Iterator<Item = Option<SconceTensor>>) -> Self {
        let tensors: Vec<Option<SconceTensor>> = tensors.collect();
        let pointers = tensors.iter().map(|t| t.as_ref().map_or(std::ptr::null(), std::ptr::from_ref)).collect();
        Self { pointers, _tensors: tensors }
    }

    /// How many there are.
    pub fn n(&self) -> usize {
        self.pointers.len()
    }

    /// The list.
    pub fn list(&self) -> *const *const SconceTensor {
        self.pointers.as_ptr()
    }
}

impl<'a> View<'a> {
    /// Where its numbers are, which must be in this memory; `None` where there are none.
    fn place(&self, memory: u32, what: &str) -> Result<Option<*mut f32>, ParamError> {
        let wrong = |why: String| Err(ParamError::new(format!("the tensor `{}` {why}", self.name)));
        match (self.elements, self.data.is_null()) {
            _ if self.memory != memory => wrong(format!("is in memory {}, not in memory {memory}", self.memory)),
            (0, _) => Ok(None),
            (_, true) => wrong(format!("has no {what}")),
            (_, false) => Ok(Some(self.data)),
        }
    }

    /// Its numbers.
    ///
    /// # Safety
    /// The data lives for `'a`, and nobody writes to it.
    pub unsafe fn numbers(&self) -> Result<&'a [f32], ParamError> {
        let data = self.place(SCONCE_MEMORY_HOST, "data")?;
        // SAFETY: not null, aligned, and by this function's contract there are that many.
        Ok(data.map_or(&[], |data| unsafe { std::slice::from_raw_parts(data, self.elements) }))
    }

    /// Room for its numbers, which are set to 0.
    ///
    /// # Safety
    /// The data lives for `'a`, and nobody else reads it or writes to it.
    pub unsafe fn room(&self) -> Result<&'a mut [f32], ParamError> {
        let Some(data) = self.place(SCONCE_MEMORY_HOST, "room")? else { return Ok(&mut []) };
        // SAFETY: not null, aligned, and by this function's contract there is room for that many.
        unsafe {
            data.write_bytes(0, self.elements);
            Ok(std::slice::from_raw_parts_mut(data, self.elements))
        }
    }

    /// The tensor in a GPU's memory.
    ///
    /// # Safety
    /// As for [`CudaBuffer::new`].
    pub unsafe fn buffer(&self) -> Result<CudaBuffer<'a>, ParamError> {
        let address = self.place(SCONCE_MEMORY_CUDA, "data")?.map_or(0, |data| data.addr() as u64);
        // SAFETY: by this function's contract.
        Ok(unsafe { CudaBuffer::new(self.name, self.shape, address) })
    }
}
