//! The embedding table.

use candle_core::{Result, Tensor};

use crate::store::{Init, Param, Scope};

/// Rows of a table, chosen by integer ids.
#[derive(Clone)]
pub struct Embedding {
    weight: Param,
}

impl Embedding {
    /// `count` rows of `size` values.
    pub fn new(scope: &Scope, count: usize, size: usize) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", (count, size), Init::Normal(0.02))? })
    }

    /// Ids `.. ` (integers) to `.. D`, as the table's type.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let weight = self.weight.tensor()?;
        let mut dims = ids.dims().to_vec();
        dims.push(weight.dim(1)?);
        weight.index_select(&ids.flatten_all()?.contiguous()?, 0)?.reshape(dims)
    }

    /// The table, `count D`.
    pub fn weight(&self) -> &Param {
        &self.weight
    }
}
