//! The UNet's names in the original latent-diffusion code (`input_blocks.4.1`, `middle_block.1`, `output_blocks.0.1`),
//! from those of diffusers (`down_blocks.1.attentions.0`). An encoder block of n residual layers takes n + 1 numbers (the
//! last is its downsampling), and so does a decoder block, whose upsampling shares the number of its last layer.

use sconce_nn::weights::Form;

use super::Place;

/// The original of a parameter.
pub(super) fn parameter(name: &str, depth: usize, paths: &[String]) -> Option<Place> {
    let (layer, end) = name.rsplit_once('.')?;
    Some(Place { key: format!("{}.{end}", original(layer, depth, paths)?), part: 0, form: Form::Same })
}

/// Residual layers in an encoder block, from the paths of a UNet's layers.
pub(crate) fn layers_per_block(paths: &[String]) -> usize {
    let index = |p: &String| p.strip_prefix("down_blocks.0.resnets.")?.split('.').next()?.parse::<usize>().ok();
    paths.iter().filter_map(index).max().map_or(1, |n| n + 1)
}

/// The original name of a layer; `None` for one that the original UNet does not have.
pub(crate) fn original(path: &str, depth: usize, paths: &[String]) -> Option<String> {
    let whole = match path {
        "conv_in" => Some("input_blocks.0.0"),
        "conv_norm_out" => Some("out.0"),
        "conv_out" => Some("out.2"),
        "time_embedding.linear_1" => Some("time_embed.0"),
        "time_embedding.linear_2" => Some("time_embed.2"),
        "add_embedding.linear_1" => Some("label_emb.0.0"),
        "add_embedding.linear_2" => Some("label_emb.0.2"),
        _ => None,
    };
    if let Some(name) = whole {
        return Some(name.to_owned());
    }
    let parts: Vec<&str> = path.split('.').collect();
    let number = |s: &str| s.parse::<usize>().ok();
    let (place, kind, rest) = match parts[..] {
        ["mid_block", "attentions", _, ref rest @ ..] => ("middle_block.1".to_owned(), "attentions", rest),
        ["mid_block", "resnets", j, ref rest @ ..] => (format!("middle_block.{}", 2 * number(j)?), "resnets", rest),
        [side, i, kind, j, ref rest @ ..] => {
            let (i, j) = (number(i)?, number(j)?);
            let has_attention = paths.iter().any(|p| p.starts_with(&format!("{side}.{i}.attentions.")));
            let sub = usize::from(kind == "attentions");
            let place = match (side, kind) {
                ("down_blocks", "downsamplers") => format!("input_blocks.{}.0", (depth + 1) * (i + 1)),
                ("down_blocks", _) => format!("input_blocks.{}.{sub}", (depth + 1) * i + j + 1),
                ("up_blocks", "upsamplers") => {
                    format!("output_blocks.{}.{}", (depth + 1) * i + depth, 1 + usize::from(has_attention))
                }
                ("up_blocks", _) => format!("output_blocks.{}.{sub}", (depth + 1) * i + j),
                _ => return None,
            };
            (place, kind, rest)
        }
        _ => return None,
    };
    let inner = match (kind, rest) {
        ("resnets", ["norm1"]) => "in_layers.0".to_owned(),
        ("resnets", ["norm2"]) => "out_layers.0".to_owned(),
        ("resnets", ["conv1"]) => "in_layers.2".to_owned(),
        ("resnets", ["conv2"]) => "out_layers.3".to_owned(),
        ("resnets", ["time_emb_proj"]) => "emb_layers.1".to_owned(),
        ("resnets", ["conv_shortcut"]) => "skip_connection".to_owned(),
        ("downsamplers", ["conv"]) => "op".to_owned(),
        _ => rest.join("."),
    };
    Some(format!("{place}.{inner}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sdxl_layers_have_their_known_names() {
        let paths: Vec<String> = [
            "down_blocks.0.resnets.1.conv1",
            "down_blocks.1.attentions.0.proj_in",
            "up_blocks.1.attentions.0.proj_in",
            "up_blocks.0.attentions.0.proj_in",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(layers_per_block(&paths), 2);
        let to = |p: &str| original(p, 2, &paths).expect("a UNet layer");
        assert_eq!(
            to("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
            "input_blocks.4.1.transformer_blocks.0.attn1.to_q"
        );
        assert_eq!(to("down_blocks.2.attentions.1.proj_in"), "input_blocks.8.1.proj_in");
        assert_eq!(to("down_blocks.0.downsamplers.0.conv"), "input_blocks.3.0.op");
        assert_eq!(to("mid_block.attentions.0.proj_out"), "middle_block.1.proj_out");
        assert_eq!(to("mid_block.resnets.1.conv1"), "middle_block.2.in_layers.2");
        assert_eq!(to("up_blocks.0.attentions.2.proj_in"), "output_blocks.2.1.proj_in");
        assert_eq!(to("up_blocks.0.upsamplers.0.conv"), "output_blocks.2.2.conv");
        assert_eq!(to("up_blocks.2.resnets.0.conv_shortcut"), "output_blocks.6.0.skip_connection");
        assert_eq!(to("conv_in"), "input_blocks.0.0");
    }
}
