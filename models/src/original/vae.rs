//! The autoencoder's names in the original latent-diffusion code, from those of diffusers. The decoder's levels are counted
//! from the picture there, and from the latents in diffusers; the attention's projections are kernels of 1 x 1 there.

use super::{Form, Place};

/// The original of a parameter; `levels`: how many the autoencoder has.
pub(super) fn original(name: &str, levels: usize) -> Option<Place> {
    let (layer, end) = name.rsplit_once('.')?;
    let parts: Vec<&str> = layer.split('.').collect();
    let number = |s: &str| s.parse::<usize>().ok();
    let residual = |inner: &str| Some(if inner == "conv_shortcut" { "nin_shortcut" } else { inner }.to_owned());
    let mut form = Form::Same;
    let path = match parts[..] {
        ["quant_conv" | "post_quant_conv"] => layer.to_owned(),
        [_, "conv_in" | "conv_out"] => layer.to_owned(),
        [side, "conv_norm_out"] => format!("{side}.norm_out"),
        [side, "mid_block", "resnets", j, inner] => format!("{side}.mid.block_{}.{}", number(j)? + 1, residual(inner)?),
        [side, "mid_block", "attentions", "0", ref rest @ ..] => {
            let inner = match rest {
                ["group_norm"] => "norm",
                ["to_q"] => "q",
                ["to_k"] => "k",
                ["to_v"] => "v",
                ["to_out", "0"] => "proj_out",
                _ => return None,
            };
            if inner != "norm" && end == "weight" {
                form = Form::Kernel;
            }
            format!("{side}.mid.attn_1.{inner}")
        }
        ["encoder", "down_blocks", i, "resnets", j, inner] => {
            format!("encoder.down.{i}.block.{j}.{}", residual(inner)?)
        }
        ["encoder", "down_blocks", i, "downsamplers", "0", "conv"] => format!("encoder.down.{i}.downsample.conv"),
        ["decoder", "up_blocks", i, "resnets", j, inner] => {
            format!("decoder.up.{}.block.{j}.{}", levels.checked_sub(number(i)? + 1)?, residual(inner)?)
        }
        ["decoder", "up_blocks", i, "upsamplers", "0", "conv"] => {
            format!("decoder.up.{}.upsample.conv", levels.checked_sub(number(i)? + 1)?)
        }
        _ => return None,
    };
    Some(Place { key: format!("{path}.{end}"), part: 0, form })
}
