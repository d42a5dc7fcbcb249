//! The names of layers in the original code of Stable Diffusion 3 (`joint_blocks.0.x_block.attn.qkv`) and FLUX.1
//! (`double_blocks.0.img_attn.qkv`), from those of diffusers. Where diffusers has a layer each for queries, keys and values,
//! the originals have one whose rows are theirs, one after the other.

use sconce_nn::weights::Form;

use super::Place;

/// What an original layer holds of one of diffusers'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Original {
    /// The original layer.
    pub name: String,
    /// Its place among the layers whose rows the original holds.
    pub part: usize,
    /// The originals have a modulation's shift first, diffusers its scale.
    pub form: Form,
}

/// The original of a parameter, in a transformer of this width.
pub(super) fn parameter(name: &str, shape: &[usize], width: usize, sd3: bool) -> Option<Place> {
    let plain = |key: String| Some(Place { key, part: 0, form: Form::Same });
    if name == "pos_embed.pos_embed" {
        return plain("pos_embed".to_owned());
    }
    if let Some(key) = norm(name, sd3) {
        return plain(key);
    }
    let (layer, end) = name.rsplit_once('.')?;
    let Original { name, part, form } = original(layer, sd3, width, *shape.first()?)?;
    Some(Place { key: format!("{name}.{end}"), part, form })
}

/// The original of a norm of queries or keys.
fn norm(name: &str, sd3: bool) -> Option<String> {
    let layer = name.strip_suffix(".weight")?;
    let (place, inner) = layer.split_once(".attn")?;
    let (kind, block) = place.split_once('.')?;
    let (stream, what) = match inner {
        ".norm_q" => (0, "q"),
        ".norm_k" => (0, "k"),
        ".norm_added_q" => (1, "q"),
        ".norm_added_k" => (1, "k"),
        "2.norm_q" => (2, "q"),
        "2.norm_k" => (2, "k"),
        _ => return None,
    };
    if sd3 {
        let stream = ["x_block.attn", "context_block.attn", "x_block.attn2"][stream];
        return Some(format!("joint_blocks.{block}.{stream}.ln_{what}.weight"));
    }
    let what = if what == "q" { "query_norm" } else { "key_norm" };
    Some(match kind {
        "single_transformer_blocks" => format!("single_blocks.{block}.norm.{what}.scale"),
        _ => format!("double_blocks.{block}.{}.norm.{what}.scale", ["img_attn", "txt_attn"].get(stream)?),
    })
}

/// The original of a transformer's layer. `sd3`: of Stable Diffusion 3, else of FLUX.1; `outputs` and `inputs`: its size.
pub(crate) fn original(path: &str, sd3: bool, inputs: usize, outputs: usize) -> Option<Original> {
    let form = match path {
        "norm_out.linear" => Form::Halved,
        // The last block's text ends there, and has no more than a shift and a scale.
        _ if path.ends_with(".norm1_context.linear") && outputs == 2 * inputs => Form::Halved,
        _ => Form::Same,
    };
    let (name, part) = if sd3 { of_sd3(path)? } else { of_flux(path)? };
    Some(Original { name, part, form })
}

fn of_sd3(path: &str) -> Option<(String, usize)> {
    let whole = match path {
        "pos_embed.proj" => "x_embedder.proj",
        "context_embedder" => "context_embedder",
        "time_text_embed.timestep_embedder.linear_1" => "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2" => "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1" => "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2" => "y_embedder.mlp.2",
        "norm_out.linear" => "final_layer.adaLN_modulation.1",
        "proj_out" => "final_layer.linear",
        _ => {
            let (block, layer) = path.strip_prefix("transformer_blocks.")?.split_once('.')?;
            let (inner, part) = match layer {
                "attn2.to_q" => ("x_block.attn2.qkv", 0),
                "attn2.to_k" => ("x_block.attn2.qkv", 1),
                "attn2.to_v" => ("x_block.attn2.qkv", 2),
                "attn2.to_out.0" => ("x_block.attn2.proj", 0),
                "norm1.linear" => ("x_block.adaLN_modulation.1", 0),
                "norm1_context.linear" => ("context_block.adaLN_modulation.1", 0),
                "ff.net.0.proj" => ("x_block.mlp.fc1", 0),
                "ff.net.2" => ("x_block.mlp.fc2", 0),
                "ff_context.net.0.proj" => ("context_block.mlp.fc1", 0),
                "ff_context.net.2" => ("context_block.mlp.fc2", 0),
                _ => joint(
                    layer,
                    ["x_block.attn.qkv", "x_block.attn.proj"],
                    ["context_block.attn.qkv", "context_block.attn.proj"],
                )?,
            };
            return Some((format!("joint_blocks.{block}.{inner}"), part));
        }
    };
    Some((whole.to_owned(), 0))
}

fn of_flux(path: &str) -> Option<(String, usize)> {
    let whole = match path {
        "x_embedder" => "img_in",
        "context_embedder" => "txt_in",
        "time_text_embed.timestep_embedder.linear_1" => "time_in.in_layer",
        "time_text_embed.timestep_embedder.linear_2" => "time_in.out_layer",
        "time_text_embed.guidance_embedder.linear_1" => "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_2" => "guidance_in.out_layer",
        "time_text_embed.text_embedder.linear_1" => "vector_in.in_layer",
        "time_text_embed.text_embedder.linear_2" => "vector_in.out_layer",
        "norm_out.linear" => "final_layer.adaLN_modulation.1",
        "proj_out" => "final_layer.linear",
        _ => {
            if let Some(rest) = path.strip_prefix("single_transformer_blocks.") {
                let (block, layer) = rest.split_once('.')?;
                let (inner, part) = match layer {
                    "attn.to_q" => ("linear1", 0),
                    "attn.to_k" => ("linear1", 1),
                    "attn.to_v" => ("linear1", 2),
                    "proj_mlp" => ("linear1", 3),
                    "proj_out" => ("linear2", 0),
                    "norm.linear" => ("modulation.lin", 0),
                    _ => return None,
                };
                return Some((format!("single_blocks.{block}.{inner}"), part));
            }
            let (block, layer) = path.strip_prefix("transformer_blocks.")?.split_once('.')?;
            let (inner, part) = match layer {
                "norm1.linear" => ("img_mod.lin", 0),
                "norm1_context.linear" => ("txt_mod.lin", 0),
                "ff.net.0.proj" => ("img_mlp.0", 0),
                "ff.net.2" => ("img_mlp.2", 0),
                "ff_context.net.0.proj" => ("txt_mlp.0", 0),
                "ff_context.net.2" => ("txt_mlp.2", 0),
                _ => joint(layer, ["img_attn.qkv", "img_attn.proj"], ["txt_attn.qkv", "txt_attn.proj"])?,
            };
            return Some((format!("double_blocks.{block}.{inner}"), part));
        }
    };
    Some((whole.to_owned(), 0))
}

/// The layers of a joint attention: its projections in, and the one out, of the picture and of the text.
fn joint(
    layer: &str,
    [picture, picture_out]: [&'static str; 2],
    [text, text_out]: [&'static str; 2],
) -> Option<(&'static str, usize)> {
    Some(match layer {
        "attn.to_q" => (picture, 0),
        "attn.to_k" => (picture, 1),
        "attn.to_v" => (picture, 2),
        "attn.to_out.0" => (picture_out, 0),
        "attn.add_q_proj" => (text, 0),
        "attn.add_k_proj" => (text, 1),
        "attn.add_v_proj" => (text, 2),
        "attn.to_add_out" => (text_out, 0),
        _ => return None,
    })
}
