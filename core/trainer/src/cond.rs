//! What conditions a denoiser, by name: `context` (B L D), `pooled` (B P), `time_ids` (B 6), whatever a family needs.
//! The trainer moves, caches and batches these tensors without knowing what they mean.

use std::collections::BTreeMap;

use candle_core::{Device, Result, Tensor, bail};

/// Named tensors with the batch first.
#[derive(Clone, Debug, Default)]
pub struct Cond(pub BTreeMap<String, Tensor>);

impl Cond {
    /// With one more tensor.
    pub fn with(mut self, name: &str, tensor: Tensor) -> Self {
        self.0.insert(name.to_owned(), tensor);
        self
    }

    /// The tensor `name`, or an error that names what is there.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        match self.0.get(name) {
            Some(t) => Ok(t),
            None => bail!("the conditioning has no `{name}`, it has {:?}", self.0.keys().collect::<Vec<_>>()),
        }
    }

    /// All of `self` and `other`; a name in both is taken from `other`.
    pub fn merge(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// One after the other along the batch. Token sequences (`B L D`) of different lengths are an error: pad first.
    pub fn cat(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else { bail!("no conditioning to join") };
        let join = |name: &String| {
            let tensors = parts.iter().map(|p| p.get(name)).collect::<Result<Vec<_>>>()?;
            Ok((name.clone(), Tensor::cat(&tensors, 0)?))
        };
        first.0.keys().map(join).collect::<Result<_>>().map(Self)
    }

    /// Applies `f` to every tensor.
    pub fn map(&self, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        self.0.iter().map(|(k, v)| Ok((k.clone(), f(v)?))).collect::<Result<_>>().map(Self)
    }

    /// On `device`. The type stays: a denoiser casts what it may, and sizes in pixels do not fit bf16.
    pub fn to(&self, device: &Device) -> Result<Self> {
        self.map(|t| t.to_device(device))
    }
}
