//! CLIP's text encoder (Radford et al. 2021, section 2.4): a causal pre-norm transformer, with the layouts of all Stable
//! Diffusion encoders. It trains, and takes adapters on every projection.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Error, Result, Tensor, bail};
use sconce_core::model::LoadOptions;
use sconce_nn::ops::attention::attention_heads;
use sconce_nn::ops::{Mask, gelu, quick_gelu};
use sconce_nn::{Embedding, LayerNorm, Linear, Scope, Store};
use serde::Deserialize;
use serde_json::Value;

use crate::diffusers;

/// What `config.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    /// Tokens in the table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of each layer.
    pub num_attention_heads: usize,
    /// Most tokens at once.
    pub max_position_embeddings: usize,
    /// Nonlinearity of the feed-forward blocks.
    pub hidden_act: Activation,
    /// Epsilon of the norms.
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Width of the pooled projection.
    #[serde(default = "projection_dim")]
    pub projection_dim: usize,
    /// The end token. 2 stands for "not stated": configs written before it was read have that value.
    pub eos_token_id: Option<u32>,
}

fn layer_norm_eps() -> f64 {
    1e-5
}

fn projection_dim() -> usize {
    512
}

/// The nonlinearities that CLIP's text encoders have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// x sigmoid(1.702 x): OpenAI's.
    QuickGelu,
    /// x Phi(x): OpenCLIP's.
    Gelu,
}

impl Config {
    /// Reads `config.json` in an encoder's folder.
    pub fn read(dir: &Path) -> Result<Self> {
        let what = dir.join("config.json");
        let json = Value::Object(diffusers::config(dir)?);
        let config: Self = serde_json::from_value(json).map_err(|e| Error::Msg(format!("{}: {e}", what.display())))?;
        if config.num_attention_heads == 0 || config.hidden_size % config.num_attention_heads != 0 {
            bail!(
                "{}: {} heads do not divide hidden_size {}",
                what.display(),
                config.num_attention_heads,
                config.hidden_size
            );
        }
        Ok(config)
    }
}

/// Which hidden states condition the denoiser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The last layer's, through the final norm.
    Last,
    /// The last layer's but one, as they are.
    Penultimate,
}

/// What the encoder gives for B rows of L tokens.
pub struct Encoded {
    /// B L D.
    pub hidden: Tensor,
    /// B P: the final-normed state at the end token, projected where there is a projection; `None` where it is not asked for.
    pub pooled: Option<Tensor>,
}

/// The encoder.
pub struct ClipText {
    config: Config,
    eos: u32,
    tokens: Embedding,
    positions: Embedding,
    layers: Vec<Layer>,
    norm: LayerNorm,
    projection: Option<Linear>,
    head: Head,
    store: Arc<Store>,
}

/// What follows the transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Nothing: `CLIPTextModel`, asked for its hidden states alone.
    None,
    /// Nothing, and the end token's state is asked for: `CLIPTextModel` and its pooled output.
    Pooled,
    /// `CLIPTextModelWithProjection`.
    Projection,
}

impl ClipText {
    /// Loads the encoder in `dir`. `eos`: the end token of its tokenizer, for configs that do not state it.
    pub fn load(dir: &Path, head: Head, eos: u32, options: &LoadOptions) -> Result<Self> {
        let config = Config::read(dir)?;
        let store = diffusers::store(dir, options, options.dtype, |files| files.rename(published_key))?;
        let this = Self::new(&store, config, head, eos)?;
        store.finish()?;
        Ok(this)
    }

    /// The encoder with the parameters of `store`.
    pub fn new(store: &Arc<Store>, config: Config, head: Head, eos: u32) -> Result<Self> {
        let root = store.root();
        let model = root.at("text_model");
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let layers = model.at("encoder").at("layers");
        Ok(Self {
            eos: config.eos_token_id.filter(|&id| id != 2).unwrap_or(eos),
            tokens: Embedding::new(&model.at("embeddings").at("token_embedding"), config.vocab_size, width)?,
            positions: Embedding::new(
                &model.at("embeddings").at("position_embedding"),
                config.max_position_embeddings,
                width,
            )?,
            layers: (0..config.num_hidden_layers).map(|i| Layer::new(&layers.at(i), &config)).collect::<Result<_>>()?,
            norm: LayerNorm::new(&model.at("final_layer_norm"), width, eps)?,
            projection: match head {
                Head::None | Head::Pooled => None,
                Head::Projection => Some(Linear::no_bias(&root.at("text_projection"), width, config.projection_dim)?),
            },
            head,
            store: store.clone(),
            config,
        })
    }

    /// Encodes rows of token ids, all of one length.
    pub fn forward(&self, rows: &[Vec<u32>], hidden: Hidden) -> Result<Encoded> {
        self.store.recall()?;
        let mut x = self.embed(rows)?; // B L D
        let mut penultimate = None;
        for (i, layer) in self.layers.iter().enumerate() {
            if i + 1 == self.layers.len() && hidden == Hidden::Penultimate {
                if self.head == Head::None {
                    return Ok(Encoded { hidden: x, pooled: None });
                }
                penultimate = Some(x.clone());
            }
            x = layer.forward(&x)?;
        }
        // Only the end token's state is normed where no other is asked for.
        let at_end = || self.norm.forward(&self.at_end(&x, rows)?);
        let pooled = match &self.projection {
            Some(projection) => Some(projection.forward(&at_end()?)?),
            None => (self.head == Head::Pooled).then(at_end).transpose()?,
        };
        let hidden = match penultimate {
            Some(hidden) => hidden,
            None => self.norm.forward(&x)?,
        };
        Ok(Encoded { hidden, pooled })
    }

    fn embed(&self, rows: &[Vec<u32>]) -> Result<Tensor> {
        let length = rows.first().map_or(0, Vec::len);
        let ids: Vec<u32> = rows.concat();
        if length == 0 || length > self.config.max_position_embeddings || ids.len() != rows.len() * length {
            let (lengths, most) = (rows.iter().map(Vec::len), self.config.max_position_embeddings);
            bail!("rows of {:?} tokens: expected one length for all, 1 to {most}", lengths.collect::<Vec<_>>());
        }
        let tokens = self.rows(&ids)?.reshape((rows.len(), length, ()))?;
        let positions = Tensor::arange(0, length as u32, self.store.device())?;
        let dtype = self.store.dtype();
        tokens.to_dtype(dtype)?.broadcast_add(&self.positions.forward(&positions)?.to_dtype(dtype)?)
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

    /// B L D to B D: the state at each row's first end token, wherever added tokens or padding stand.
    fn at_end(&self, x: &Tensor, rows: &[Vec<u32>]) -> Result<Tensor> {
        let (batch, length, width) = x.dims3()?;
        let end = |(row, ids): (usize, &Vec<u32>)| match ids.iter().position(|&id| id == self.eos) {
            Some(i) => Ok((row * length + i) as u32),
            None => bail!("{}: a row has no end token {}", self.store.component(), self.eos),
        };
        let index = rows.iter().enumerate().map(end).collect::<Result<Vec<u32>>>()?;
        x.reshape((batch * length, width))?.index_select(&Tensor::from_vec(index, batch, x.device())?, 0)
    }

    /// What the config says.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The parameters.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The type that activations are computed in.
    pub fn dtype(&self) -> DType {
        self.store.dtype()
    }
}

/// The layers of a text encoder of CLIP.
pub(crate) fn layers(store: &Store) -> usize {
    let layer = |p: &str| p.strip_prefix("text_model.encoder.layers.")?.split('.').next()?.parse::<usize>().ok();
    store.layers().iter().filter_map(|l| layer(l.path())).max().map_or(0, |n| n + 1)
}

/// Keys as published checkpoints spell them: newer files leave `text_model.` out, older ones hold the positions'
/// indices as a tensor.
pub(crate) fn published_key(key: &str) -> Option<String> {
    match key {
        _ if key.ends_with("embeddings.position_ids") => None,
        _ if key.starts_with("text_model.") || key.starts_with("text_projection.") => Some(key.to_owned()),
        _ => Some(format!("text_model.{key}")),
    }
}

struct Layer {
    norm1: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl Layer {
    fn new(scope: &Scope, config: &Config) -> Result<Self> {
        let (width, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        let attention = |name: &str| Linear::new(&scope.at("self_attn").at(name), width, width);
        Ok(Self {
            norm1: LayerNorm::new(&scope.at("layer_norm1"), width, eps)?,
            q: attention("q_proj")?,
            k: attention("k_proj")?,
            v: attention("v_proj")?,
            out: attention("out_proj")?,
            heads: config.num_attention_heads,
            norm2: LayerNorm::new(&scope.at("layer_norm2"), width, eps)?,
            fc1: Linear::new(&scope.at("mlp").at("fc1"), width, inner)?,
            fc2: Linear::new(&scope.at("mlp").at("fc2"), inner, width)?,
            activation: config.hidden_act,
        })
    }

    /// B L D to the same.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.norm1.forward(x)?;
        let (q, k, v) = (self.q.forward(&h)?, self.k.forward(&h)?, self.v.forward(&h)?);
        let x = (x + self.out.forward(&attention_heads(&q, &k, &v, self.heads, &Mask::Causal)?)?)?;
        let h = self.fc1.forward(&self.norm2.forward(&x)?)?;
        let h = match self.activation {
            Activation::QuickGelu => quick_gelu(&h)?,
            Activation::Gelu => gelu(&h)?,
        };
        x + self.fc2.forward(&h)?
    }
}
