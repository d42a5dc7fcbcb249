//! T5's encoder (Raffel et al. 2020), in the form of version 1.1 that the flow models have: pre-norms by root mean square, a
//! gated feed-forward, no biases, and a learned bias on the scores for each distance between two tokens. It trains, and
//! takes adapters on every projection.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Error, Result, Tensor, bail};
use sconce_core::model::LoadOptions;
use sconce_nn::{Embedding, Linear, RmsNorm, Scope, Store, ops};
use serde::Deserialize;
use serde_json::Value;

use crate::diffusers;

/// What `config.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Tokens in the table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of a head: not d_model over the heads in every size.
    pub d_kv: usize,
    /// Width inside the feed-forward blocks.
    pub d_ff: usize,
    /// Layers.
    pub num_layers: usize,
    /// Heads of each layer.
    pub num_heads: usize,
    /// Classes of distances.
    #[serde(default = "buckets")]
    pub relative_attention_num_buckets: usize,
    /// Distances from here on are one class.
    #[serde(default = "max_distance")]
    pub relative_attention_max_distance: usize,
    /// Epsilon of the norms.
    #[serde(default = "epsilon")]
    pub layer_norm_epsilon: f64,
    /// `gated-gelu` in version 1.1.
    #[serde(default)]
    pub feed_forward_proj: String,
}

fn buckets() -> usize {
    32
}
fn max_distance() -> usize {
    128
}
fn epsilon() -> f64 {
    1e-6
}

impl Config {
    /// Reads `config.json` in an encoder's folder; refuses what would be another network.
    pub fn read(dir: &Path) -> Result<Self> {
        let what = dir.join("config.json");
        let json = Value::Object(diffusers::config(dir)?);
        let config: Self = serde_json::from_value(json).map_err(|e| Error::Msg(format!("{}: {e}", what.display())))?;
        if config.feed_forward_proj != "gated-gelu" {
            let found = &config.feed_forward_proj;
            bail!("{}: `feed_forward_proj` is {found:?}, only T5 v1.1's \"gated-gelu\" is supported", what.display());
        }
        let (buckets, far) = (config.relative_attention_num_buckets, config.relative_attention_max_distance);
        if buckets < 4 || buckets % 4 != 0 || far <= buckets / 4 {
            bail!("{}: {buckets} classes of distances up to {far} cannot be", what.display());
        }
        Ok(config)
    }
}

/// The encoder.
pub struct T5Encoder {
    config: Config,
    tokens: Embedding,
    distances: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    store: Arc<Store>,
}

impl T5Encoder {
    /// Loads the encoder in `dir`.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let store = diffusers::store(dir, options, options.dtype, |files| files.rename(published_key))?;
        let this = Self::new(&store, Config::read(dir)?)?;
        store.finish()?;
        Ok(this)
    }

    /// The encoder with the parameters of `store`.
    pub fn new(store: &Arc<Store>, config: Config) -> Result<Self> {
        let root = store.root();
        let blocks = root.at("encoder").at("block");
        let distances = blocks.at(0).at("layer").at(0).at("SelfAttention").at("relative_attention_bias");
        Ok(Self {
            tokens: Embedding::new(&root.at("shared"), config.vocab_size, config.d_model)?,
            distances: Embedding::new(&distances, config.relative_attention_num_buckets, config.num_heads)?,
            layers: (0..config.num_layers)
                .map(|i| Layer::new(&blocks.at(i).at("layer"), &config))
                .collect::<Result<_>>()?,
            norm: RmsNorm::new(&root.at("encoder").at("final_layer_norm"), config.d_model, config.layer_norm_epsilon)?,
            store: store.clone(),
            config,
        })
    }

    /// Rows of token ids, all of one length, to their last states, B L D. Every token sees every other, padding too: the
    /// models that it conditions were trained so.
    pub fn forward(&self, rows: &[Vec<u32>]) -> Result<Tensor> {
        self.store.recall()?;
        let (batch, length) = (rows.len(), rows.first().map_or(0, Vec::len));
        let ids: Vec<u32> = rows.concat();
        if length == 0 || ids.len() != batch * length {
            bail!("rows of tokens of several lengths, or of none: expected one length for all");
        }
        // The sum over layers is kept in f32: it grows to thousands, where bf16 has steps of 8 and more.
        let tokens = self.rows(&ids)?.reshape((batch, length, ()))?;
        let mut x = tokens.to_dtype(sum_type(self.store.dtype()))?; // B L D
        let bias = self.bias(length)?; // 1 H L L
        for layer in &self.layers {
            x = layer.forward(&x, &bias, self.store.dtype())?;
        }
        self.norm.forward(&x)?.to_dtype(self.store.dtype())
    }

    /// The table's rows of token ids, N D.
    pub fn rows(&self, ids: &[u32]) -> Result<Tensor> {
        self.store.recall()?;
        let other = || format!("{}: the tokenizer is another model's", self.store.component());
        self.tokens.rows(ids).map_err(|e| e.context(other()))
    }

    /// The tokens' table.
    pub fn tokens(&self) -> &Embedding {
        &self.tokens
    }

    /// What is added to the scores, 1 H L L.
    fn bias(&self, length: usize) -> Result<Tensor> {
        let class = |i: usize| self.class(i / length, i % length);
        let classes = Tensor::from_iter((0..length * length).map(class), self.store.device())?;
        let all = self.distances.forward(&classes.reshape((length, length))?)?; // L L H
        all.permute((2, 0, 1))?.contiguous()?.unsqueeze(0)
    }

    /// The class of the distance from a query to a key: half of the classes for each direction, one a distance up to half of
    /// those, then logarithmically wider ones (Raffel et al. 2020, section 2.1). In f32, as the model was trained.
    fn class(&self, query: usize, key: usize) -> u32 {
        let half = self.config.relative_attention_num_buckets / 2;
        let (after, distance) = (if key > query { half } else { 0 }, query.abs_diff(key));
        let exact = half / 2;
        if distance < exact {
            return (after + distance) as u32;
        }
        let far = self.config.relative_attention_max_distance as f32 / exact as f32;
        let share = (distance as f32 / exact as f32).ln() / far.ln();
        let wide = exact + (share * (half - exact) as f32) as usize;
        (after + wide.min(half - 1)) as u32
    }

    /// What the config says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}

/// The type of the sum that runs through the layers.
fn sum_type(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Keys as published checkpoints spell them: the table may be there under its second name too, or a decoder beside it.
pub(crate) fn published_key(key: &str) -> Option<String> {
    match key {
        "encoder.embed_tokens.weight" => None,
        _ if key.starts_with("decoder.") || key == "lm_head.weight" => None,
        _ => Some(key.to_owned()),
    }
}

struct Layer {
    norm1: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: usize,
    norm2: RmsNorm,
    gate: Linear,
    value: Linear,
    out: Linear,
}

impl Layer {
    fn new(scope: &Scope, config: &Config) -> Result<Self> {
        let (width, inner, eps) = (config.d_model, config.num_heads * config.d_kv, config.layer_norm_epsilon);
        let attention = scope.at(0).at("SelfAttention");
        let feed = scope.at(1).at("DenseReluDense");
        Ok(Self {
            norm1: RmsNorm::new(&scope.at(0).at("layer_norm"), width, eps)?,
            q: Linear::no_bias(&attention.at("q"), width, inner)?,
            k: Linear::no_bias(&attention.at("k"), width, inner)?,
            v: Linear::no_bias(&attention.at("v"), width, inner)?,
            o: Linear::no_bias(&attention.at("o"), inner, width)?,
            heads: config.num_heads,
            norm2: RmsNorm::new(&scope.at(1).at("layer_norm"), width, eps)?,
            gate: Linear::no_bias(&feed.at("wi_0"), width, config.d_ff)?,
            value: Linear::no_bias(&feed.at("wi_1"), width, config.d_ff)?,
            out: Linear::no_bias(&feed.at("wo"), config.d_ff, width)?,
        })
    }

    /// B L D to the same, in the type of the sum; the layers compute in `dtype`.
    fn forward(&self, x: &Tensor, bias: &Tensor, dtype: DType) -> Result<Tensor> {
        let h = self.norm1.forward(x)?.to_dtype(dtype)?;
        let x = (x + self.attend(&h, bias)?.to_dtype(x.dtype())?)?;
        let h = self.norm2.forward(&x)?.to_dtype(dtype)?;
        let gated = (ops::gelu_tanh(&self.gate.forward(&h)?)? * self.value.forward(&h)?)?;
        &x + self.out.forward(&gated)?.to_dtype(x.dtype())?
    }

    /// Attention whose scores are not divided by anything.
    fn attend(&self, h: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (batch, length, _) = h.dims3()?;
        let split = |t: Tensor| t.reshape((batch, length, self.heads, ()))?.transpose(1, 2)?.contiguous(); // B H L D
        let (q, k, v) = (split(self.q.forward(h)?)?, split(self.k.forward(h)?)?, split(self.v.forward(h)?)?);
        let scores = ops::matmul(&q, &k.transpose(2, 3)?)?.to_dtype(bias.dtype())?;
        let p = ops::softmax(&scores.broadcast_add(bias)?)?.to_dtype(v.dtype())?;
        let out = ops::matmul(&p, &v)?.transpose(1, 2)?.contiguous()?; // B L H D
        self.o.forward(&out.flatten_from(2)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use sconce_nn::store::Source;

    #[test]
    fn distances_fall_into_the_classes_of_the_paper() {
        let store = Store::new("text_encoder_2", Source::Random(1), DType::F32, &Device::Cpu);
        let config = Config {
            vocab_size: 10,
            d_model: 8,
            d_kv: 4,
            d_ff: 16,
            num_layers: 1,
            num_heads: 2,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "gated-gelu".into(),
        };
        let t5 = T5Encoder::new(&store, config).unwrap();
        let of = |query, key| t5.class(query, key);
        assert_eq!([of(5, 5), of(5, 4), of(9, 2), of(8, 0), of(0, 1), of(0, 7)], [0, 1, 7, 8, 17, 23]);
        assert_eq!([of(0, 8), of(500, 0), of(0, 127), of(0, 128)], [24, 15, 31, 31]);
    }
}
