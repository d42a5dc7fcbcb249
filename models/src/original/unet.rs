//! The UNet's names in the original latent-diffusion code (`input_blocks.4.1`, `middle_block.1`, `output_blocks.0.1`),
//! from those of diffusers (`down_blocks.1.attentions.0`). An encoder block of n residual layers takes n + 1 numbers (the
//! last is its downsampling), a decoder block one for each of its layers, and its upsampling shares that of the last.

use sconce_nn::weights::Form;

use super::Place;

/// The original of a parameter.
pub(super) fn parameter(name: &str, blocks: &Blocks) -> Option<Place> {
    let (layer, end) = name.rsplit_once('.')?;
    Some(Place { key: format!("{}.{end}", original(layer, blocks)?), part: 0, form: Form::Same })
}

/// The blocks of a UNet: residual layers of each, and whether it has attentions.
pub(crate) struct Blocks {
    down: Vec<(usize, bool)>,
    up: Vec<(usize, bool)>,
}

impl Blocks {
    /// From the paths of its layers.
    pub(crate) fn of(paths: &[String]) -> Self {
        let side = |side: &str| {
            let mut blocks: Vec<(usize, bool)> = Vec::new();
            for path in paths {
                let parts: Vec<&str> = path.split('.').collect();
                let (Some(kind), Some(i), Some(j)) = (parts.get(2), number(parts.get(1)), number(parts.get(3))) else {
                    continue;
                };
                if parts[0] != side || i > 1_000 {
                    continue;
                }
                blocks.resize(blocks.len().max(i + 1), (0, false));
                match *kind {
                    "resnets" => blocks[i].0 = blocks[i].0.max(j + 1),
                    "attentions" => blocks[i].1 = true,
                    _ => {}
                }
            }
            blocks
        };
        Self { down: side("down_blocks"), up: side("up_blocks") }
    }

    /// The number of an encoder block's first layer.
    fn first_down(&self, i: usize) -> usize {
        1 + self.down.iter().take(i).map(|(layers, _)| layers + 1).sum::<usize>()
    }

    /// The number of a decoder block's first layer.
    fn first_up(&self, i: usize) -> usize {
        self.up.iter().take(i).map(|(layers, _)| layers).sum()
    }
}

fn number(text: Option<&&str>) -> Option<usize> {
    text?.parse().ok()
}

/// The original name of a layer; `None` for one that the original UNet does not have.
pub(crate) fn original(path: &str, blocks: &Blocks) -> Option<String> {
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
    let number = |s: &str| number(Some(&s));
    let (place, kind, rest) = match parts[..] {
        ["mid_block", "attentions", _, ref rest @ ..] => ("middle_block.1".to_owned(), "attentions", rest),
        ["mid_block", "resnets", j, ref rest @ ..] => (format!("middle_block.{}", 2 * number(j)?), "resnets", rest),
        [side, i, kind, j, ref rest @ ..] => {
            let (i, j) = (number(i)?, number(j)?);
            let sub = usize::from(kind == "attentions");
            let place = match (side, kind) {
                ("down_blocks", "downsamplers") => {
                    format!("input_blocks.{}.0", blocks.first_down(i) + blocks.down.get(i)?.0)
                }
                ("down_blocks", _) => format!("input_blocks.{}.{sub}", blocks.first_down(i) + j),
                ("up_blocks", "upsamplers") => {
                    let (layers, attends) = *blocks.up.get(i)?;
                    format!(
                        "output_blocks.{}.{}",
                        blocks.first_up(i) + layers.checked_sub(1)?,
                        1 + usize::from(attends)
                    )
                }
                ("up_blocks", _) => format!("output_blocks.{}.{sub}", blocks.first_up(i) + j),
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

    /// Layers of a UNet whose encoder blocks have so many residual layers, and its decoder blocks one more each.
    fn blocks(layers: &[usize], attends: &[bool]) -> Blocks {
        let side =
            |extra: usize, order: Vec<usize>| order.into_iter().map(|i| (layers[i] + extra, attends[i])).collect();
        Blocks { down: side(0, (0..layers.len()).collect()), up: side(1, (0..layers.len()).rev().collect()) }
    }

    #[test]
    fn sdxl_layers_have_their_known_names() {
        let paths: Vec<String> =
            ["down_blocks.0.resnets.1.conv1", "down_blocks.1.attentions.0.proj_in", "up_blocks.0.resnets.2.conv1"]
                .map(str::to_owned)
                .to_vec();
        let found = Blocks::of(&paths);
        assert_eq!((found.down, found.up), (vec![(2, false), (0, true)], vec![(3, false)]));
        let sdxl = blocks(&[2, 2, 2], &[false, true, true]);
        let to = |p: &str| original(p, &sdxl).expect("a UNet layer");
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

    #[test]
    fn blocks_of_unlike_depths_take_as_many_numbers_as_they_have_layers() {
        let unlike = blocks(&[1, 3], &[false, true]);
        let to = |p: &str| original(p, &unlike).expect("a UNet layer");
        assert_eq!(to("down_blocks.0.resnets.0.conv1"), "input_blocks.1.0.in_layers.2");
        assert_eq!(to("down_blocks.0.downsamplers.0.conv"), "input_blocks.2.0.op");
        assert_eq!(to("down_blocks.1.resnets.2.conv1"), "input_blocks.5.0.in_layers.2");
        assert_eq!(to("up_blocks.0.upsamplers.0.conv"), "output_blocks.3.2.conv");
        assert_eq!(to("up_blocks.1.resnets.0.conv1"), "output_blocks.4.0.in_layers.2");
    }
}
