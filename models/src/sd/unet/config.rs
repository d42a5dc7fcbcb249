//! What a UNet's `config.json` says. Every field that changes the computation is either implemented or refused with its
//! name and value; a checkpoint is never run as something that it is not.

use std::path::Path;

use candle_core::{Error, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::diffusers;
use crate::embed::Waves;

/// One value for all levels, or one a level. A list is read as levels first: in `Each<Each<usize>>`, `[1, 2, 10]` is
/// three levels, not one value that is a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Each<T> {
    /// By level, the finest first.
    Levels(Vec<T>),
    /// For all levels.
    All(T),
}

impl<T: Clone> Each<T> {
    fn levels(&self, field: &str, count: usize) -> Result<Vec<T>> {
        match self {
            Self::All(value) => Ok(vec![value.clone(); count]),
            Self::Levels(values) if values.len() == count => Ok(values.clone()),
            Self::Levels(values) => bail!("`{field}` has {} values for {count} levels", values.len()),
        }
    }
}

/// The fields as they stand in the file, with the values that the format gives those left out.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    in_channels: usize,
    out_channels: usize,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    layers_per_block: Each<usize>,
    downsample_padding: usize,
    norm_num_groups: usize,
    norm_eps: f64,
    cross_attention_dim: Each<usize>,
    transformer_layers_per_block: Each<Each<usize>>,
    reverse_transformer_layers_per_block: Option<Vec<Each<usize>>>,
    attention_head_dim: Each<usize>,
    num_attention_heads: Option<Each<usize>>,
    use_linear_projection: bool,
    addition_embed_type: Option<String>,
    addition_time_embed_dim: Option<usize>,
    projection_class_embeddings_input_dim: Option<usize>,
    time_embedding_dim: Option<usize>,
    conv_in_kernel: usize,
    conv_out_kernel: usize,
}

impl Default for Fields {
    fn default() -> Self {
        let cross = |direction: &str| format!("CrossAttn{direction}Block2D");
        Self {
            in_channels: 4,
            out_channels: 4,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![cross("Down"), cross("Down"), cross("Down"), "DownBlock2D".into()],
            up_block_types: vec!["UpBlock2D".into(), cross("Up"), cross("Up"), cross("Up")],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: Each::All(2),
            downsample_padding: 1,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: Each::All(1280),
            transformer_layers_per_block: Each::All(Each::All(1)),
            reverse_transformer_layers_per_block: None,
            attention_head_dim: Each::All(8),
            num_attention_heads: None,
            use_linear_projection: false,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            projection_class_embeddings_input_dim: None,
            time_embedding_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
        }
    }
}

/// Fields of the format that mean other networks, each with the value that this one has.
fn plain() -> [(&'static str, Value); 22] {
    [
        ("act_fn", json!("silu")),
        ("attention_type", json!("default")),
        ("center_input_sample", json!(false)),
        ("class_embed_type", json!(null)),
        ("class_embeddings_concat", json!(false)),
        ("cross_attention_norm", json!(null)),
        ("dropout", json!(0)),
        ("dual_cross_attention", json!(false)),
        ("encoder_hid_dim", json!(null)),
        ("encoder_hid_dim_type", json!(null)),
        ("mid_block_only_cross_attention", json!(false)),
        ("mid_block_scale_factor", json!(1)),
        ("mid_block_type", json!("UNetMidBlock2DCrossAttn")),
        ("num_class_embeds", json!(null)),
        ("only_cross_attention", json!(false)),
        ("resnet_out_scale_factor", json!(1)),
        ("resnet_skip_time_act", json!(false)),
        ("resnet_time_scale_shift", json!("default")),
        ("time_cond_proj_dim", json!(null)),
        ("time_embedding_act_fn", json!(null)),
        ("time_embedding_type", json!("positional")),
        ("timestep_post_act", json!(null)),
    ]
}

/// Fields that say nothing about the computation: the training size, the heads of an embedding that is not there, and
/// whether scores are widened to f32, which attention does here always.
const SILENT: [&str; 3] = ["sample_size", "addition_embed_type_num_heads", "upcast_attention"];

/// What a UNet is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Latent channels in.
    pub in_channels: usize,
    /// Latent channels out.
    pub out_channels: usize,
    /// Side of the first convolution's kernel.
    pub conv_in_kernel: usize,
    /// Side of the last convolution's kernel.
    pub conv_out_kernel: usize,
    /// How times become waves.
    pub waves: Waves,
    /// Width of the time embedding.
    pub time_width: usize,
    /// SDXL's second embedding, of pooled text and picture geometry.
    pub added: Option<Added>,
    /// The levels, the finest first.
    pub levels: Vec<Level>,
    /// What all blocks share.
    pub common: Common,
}

/// SDXL's embedding of pooled text and picture geometry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Added {
    /// Width of each number's waves.
    pub wave_width: usize,
    /// Width of all waves and the pooled text together.
    pub input: usize,
}

/// One level of the UNet: a block on the way down, and its counterpart on the way up.
#[derive(Clone, Debug)]
pub struct Level {
    /// Channels.
    pub channels: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the context that its cross-attention reads.
    pub context: usize,
    /// Transformer layers after each resnet on the way down; 0 for none.
    pub down: Vec<usize>,
    /// And on the way up.
    pub up: Vec<usize>,
    /// Transformer layers where it is the middle.
    pub middle: usize,
    /// Whether a coarser level follows, for which it halves the resolution on the way down.
    pub halves: bool,
    /// Whether a finer level precedes, for which it doubles the resolution on the way up.
    pub doubles: bool,
}

/// What all blocks share.
#[derive(Clone, Copy, Debug)]
pub struct Common {
    /// Groups of the group norms.
    pub groups: usize,
    /// Epsilon of the resnets' norms.
    pub eps: f64,
    /// Whether transformers project by a linear (or else by a 1 x 1 convolution).
    pub linear_projection: bool,
    /// Padding of the downsampling convolutions; 0 pads below and to the right alone.
    pub downsample_padding: usize,
}

impl Config {
    /// Reads `config.json` in a UNet's folder.
    pub fn read(dir: &Path) -> Result<Self> {
        let json = diffusers::config(dir)?;
        Self::from_json(json).map_err(|e| Error::Msg(format!("{}: {e}", dir.join("config.json").display())))
    }

    /// Reads the fields of a `config.json`.
    pub fn from_json(json: Map<String, Value>) -> Result<Self> {
        let plain = plain();
        let mut fields = Map::new();
        for (field, value) in json {
            // `null` stands for a field left out, and private fields are notes.
            if value.is_null() || field.starts_with('_') || SILENT.contains(&field.as_str()) {
                continue;
            }
            match plain.iter().find(|(name, _)| *name == field) {
                Some((_, only)) if same(&value, only) => {}
                Some((_, only)) => bail!("`{field}` = {value} is not supported, only {only}"),
                None => _ = fields.insert(field, value),
            }
        }
        let fields: Fields = serde_json::from_value(Value::Object(fields)).map_err(|e| Error::Msg(e.to_string()))?;
        fields.config()
    }
}

/// Equal as numbers, or a list of nothing else.
fn same(value: &Value, only: &Value) -> bool {
    match (value, value.as_f64(), only.as_f64()) {
        (_, Some(a), Some(b)) => a == b,
        (Value::Array(values), ..) => values.iter().all(|v| same(v, only)),
        _ => value == only,
    }
}

impl Fields {
    fn config(self) -> Result<Config> {
        let levels = self.levels()?;
        let added = match (self.addition_embed_type.as_deref(), self.addition_time_embed_dim) {
            (None, _) => None,
            (Some("text_time"), Some(wave_width)) => match self.projection_class_embeddings_input_dim {
                Some(input) => Some(Added { wave_width, input }),
                None => bail!("`addition_embed_type` = \"text_time\" needs `projection_class_embeddings_input_dim`"),
            },
            (Some("text_time"), None) => bail!("`addition_embed_type` = \"text_time\" needs `addition_time_embed_dim`"),
            (Some(other), _) => bail!("`addition_embed_type` = {other:?} is not supported, only \"text_time\" or null"),
        };
        for (field, kernel) in [("conv_in_kernel", self.conv_in_kernel), ("conv_out_kernel", self.conv_out_kernel)] {
            if kernel % 2 == 0 {
                bail!("`{field}` = {kernel} is not supported, only odd kernels");
            }
        }
        if self.downsample_padding > 1 {
            bail!("`downsample_padding` = {} is not supported, only 0 and 1", self.downsample_padding);
        }
        Ok(Config {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            conv_in_kernel: self.conv_in_kernel,
            conv_out_kernel: self.conv_out_kernel,
            waves: Waves { cosine_first: self.flip_sin_to_cos, shift: self.freq_shift },
            time_width: self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0]),
            added,
            levels,
            common: Common {
                groups: self.norm_num_groups,
                eps: self.norm_eps,
                linear_projection: self.use_linear_projection,
                downsample_padding: self.downsample_padding,
            },
        })
    }

    fn levels(&self) -> Result<Vec<Level>> {
        let channels = &self.block_out_channels;
        let count = channels.len();
        if count == 0 || self.down_block_types.len() != count || self.up_block_types.len() != count {
            bail!(
                "`block_out_channels`, `down_block_types` and `up_block_types` have {count}, {} and {} values: they \
                 must have as many, and at least one",
                self.down_block_types.len(),
                self.up_block_types.len()
            );
        }
        // The format calls the number of heads `attention_head_dim`.
        let heads = self.num_attention_heads.as_ref().unwrap_or(&self.attention_head_dim);
        let heads = heads.levels("attention_head_dim", count)?;
        let contexts = self.cross_attention_dim.levels("cross_attention_dim", count)?;
        let resnets = self.layers_per_block.levels("layers_per_block", count)?;
        let depths = self.transformer_layers_per_block.levels("transformer_layers_per_block", count)?;
        let up_depths = match &self.reverse_transformer_layers_per_block {
            Some(reverse) => reverse.iter().rev().cloned().collect(),
            None => depths.clone(),
        };
        if up_depths.len() != count {
            bail!("`reverse_transformer_layers_per_block` has {} values for {count} levels", up_depths.len());
        }
        let mut levels = Vec::with_capacity(count);
        for i in 0..count {
            let (down, up) = (&self.down_block_types[i], &self.up_block_types[count - 1 - i]);
            let down_attends = attends("down_block_types", down, ["DownBlock2D", "CrossAttnDownBlock2D"])?;
            let up_attends = attends("up_block_types", up, ["UpBlock2D", "CrossAttnUpBlock2D"])?;
            let depths_of = |attends, depths: &Each<usize>, count| match attends {
                true => depths.levels("transformer_layers_per_block", count),
                false => Ok(vec![0; count]),
            };
            if (channels[i] == 0) || heads[i] == 0 || channels[i] % heads[i] != 0 {
                bail!("`block_out_channels` = {} does not divide into {} heads", channels[i], heads[i]);
            }
            if self.norm_num_groups == 0 || channels[i] % self.norm_num_groups != 0 {
                bail!("`block_out_channels` = {} does not divide into {} groups", channels[i], self.norm_num_groups);
            }
            levels.push(Level {
                channels: channels[i],
                heads: heads[i],
                context: contexts[i],
                down: depths_of(down_attends, &depths[i], resnets[i])?,
                up: depths_of(up_attends, &up_depths[i], resnets[i] + 1)?,
                halves: i + 1 < count,
                doubles: i > 0,
                middle: match &depths[i] {
                    Each::All(depth) => *depth,
                    Each::Levels(depths) => depths.first().copied().unwrap_or(0),
                },
            });
        }
        Ok(levels)
    }
}

fn attends(field: &str, block: &str, [plain, cross]: [&str; 2]) -> Result<bool> {
    match block {
        _ if block == cross => Ok(true),
        _ if block == plain => Ok(false),
        _ => bail!("`{field}`: {block:?} is not supported, only {plain:?} and {cross:?}"),
    }
}
