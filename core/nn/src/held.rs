//! How a weight that does not train is kept between its uses: as it is, packed into few bits, or on the host, from where it
//! visits the device. Whatever the form, a use materialises it for the time of one operation, and the graph keeps the form
//! and not the matrix.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::quant::{Format, Packed};

/// A weight that does not train.
#[derive(Clone)]
pub enum Held {
    /// As it is.
    Dense(Tensor),
    /// In few bits.
    Packed(Packed),
    /// On the host; each use takes it to the device.
    Hosted(Box<Held>, Device),
    /// Nowhere: its store let go of it.
    Released(Released),
}

/// What is left of a weight that its store let go of.
#[derive(Clone)]
pub struct Released {
    shape: Shape,
    dtype: DType,
    device: Device,
}

impl Held {
    /// The matrix, outside any graph.
    ///
    /// # Errors
    /// If the store has let go of it.
    pub fn tensor(&self) -> Result<Tensor> {
        match self {
            Self::Dense(tensor) => Ok(tensor.detach()),
            Self::Packed(packed) => packed.unpack(),
            Self::Hosted(held, device) => match &**held {
                Self::Packed(packed) => packed.to_device(device)?.unpack(),
                other => other.tensor()?.to_device(device),
            },
            Self::Released(Released { shape, .. }) => {
                bail!("a weight {shape:?} was let go of and is used: recall its store first")
            }
        }
    }

    /// Packed, if it is not.
    pub fn packed(self, format: Format) -> Result<Self> {
        Ok(match self {
            Self::Dense(tensor) => Self::Packed(Packed::new(&tensor, format, tensor.dtype(), tensor.device())?),
            other => other,
        })
    }

    /// A weight that is not there yet.
    pub(crate) fn absent(shape: &Shape, dtype: DType, device: &Device) -> Self {
        Self::Released(Released { shape: shape.clone(), dtype, device: device.clone() })
    }

    /// Nothing but what it was.
    pub(crate) fn released(&self) -> Self {
        Self::absent(self.shape(), self.dtype(), self.device())
    }

    /// The weight's shape.
    pub fn shape(&self) -> &Shape {
        match self {
            Self::Dense(tensor) => tensor.shape(),
            Self::Packed(packed) => packed.shape(),
            Self::Hosted(held, _) => held.shape(),
            Self::Released(released) => &released.shape,
        }
    }

    /// The type of the matrix.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(tensor) => tensor.dtype(),
            Self::Packed(packed) => packed.dtype(),
            Self::Hosted(held, _) => held.dtype(),
            Self::Released(released) => released.dtype,
        }
    }

    /// Where it is used.
    pub fn device(&self) -> &Device {
        match self {
            Self::Dense(tensor) => tensor.device(),
            Self::Packed(packed) => packed.device(),
            Self::Hosted(_, device) => device,
            Self::Released(released) => &released.device,
        }
    }

    /// Bytes that it takes where it is used, and on the host beside that.
    pub fn bytes(&self) -> [usize; 2] {
        match self {
            Self::Dense(tensor) => [tensor.elem_count() * tensor.dtype().size_in_bytes(), 0],
            Self::Packed(packed) => [packed.bytes(), 0],
            Self::Hosted(held, _) => [0, held.bytes()[0]],
            Self::Released(_) => [0, 0],
        }
    }
}
