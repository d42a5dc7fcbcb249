//! The embedding table, and rows that go on where it ends: those of words that were learned.

use std::sync::{Arc, RwLock};

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::store::{Init, Param, Scope};

/// Rows of a table, chosen by integer ids. Clones are the same table.
#[derive(Clone)]
pub struct Embedding {
    weight: Param,
    /// Further rows, `N D` each, in f32.
    more: Arc<RwLock<Vec<Param>>>,
}

impl Embedding {
    /// `count` rows of `size` values.
    pub fn new(scope: &Scope, count: usize, size: usize) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", (count, size), Init::Normal(0.02))?, more: Arc::default() })
    }

    /// Ids `.. ` (integers) of the table's own rows to `.. D`, as the table's type.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let weight = self.weight.tensor()?;
        let mut dims = ids.dims().to_vec();
        dims.push(weight.dim(1)?);
        weight.index_select(&ids.flatten_all()?.contiguous()?, 0)?.reshape(dims)
    }

    /// The rows of ids, which may be of those that go on: `N D`, as the table's type.
    ///
    /// # Errors
    /// If there is no such row.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        let own = self.weight.shape().dims()[0] as u32;
        let device = self.weight.device();
        let more: Vec<Tensor> =
            self.more.read().expect("no writer panics").iter().map(Param::tensor).collect::<Result<_>>()?;
        let all = own as usize + more.iter().map(|rows| rows.dims()[0]).sum::<usize>();
        if let Some(id) = ids.iter().find(|id| **id as usize >= all) {
            bail!("token {id} is not among the {all} of the table");
        }
        let pick = |of: &Tensor, id: &dyn Fn(u32) -> u32| {
            of.index_select(&Tensor::from_iter(ids.iter().map(|i| id(*i)), &device)?, 0)
        };
        let known = pick(&self.weight.tensor()?, &|id| if id < own { id } else { 0 })?;
        if ids.iter().all(|id| *id < own) {
            return Ok(known);
        }
        let learned = pick(&Tensor::cat(&more, 0)?, &|id| id.saturating_sub(own))?.to_dtype(known.dtype())?;
        let of_table: Vec<f32> = ids.iter().map(|id| f32::from(u8::from(*id < own))).collect();
        let of_table =
            Tensor::from_vec(of_table, (ids.len(), 1), &Device::Cpu)?.to_dtype(known.dtype())?.to_device(&device)?;
        known.broadcast_mul(&of_table)? + learned.broadcast_mul(&of_table.affine(-1.0, 1.0)?)?
    }

    /// Further rows, `N D`: their ids go on where those before them end.
    ///
    /// # Errors
    /// If they are of another width.
    pub fn go_on(&self, rows: Param) -> Result<()> {
        let (shape, width) = (rows.shape(), self.weight.shape().dims()[1]);
        if shape.rank() != 2 || shape.dims()[1] != width || rows.tensor()?.dtype() != DType::F32 {
            bail!("rows of {:?} do not go on a table of {width} numbers a row, in f32", shape.dims());
        }
        self.more.write().expect("no writer panics").push(rows);
        Ok(())
    }

    /// The table, `count D`.
    pub fn weight(&self) -> &Param {
        &self.weight
    }
}
