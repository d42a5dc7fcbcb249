//! What differs between the model families where recipes name parts of them: components, and the layers that other trainers
//! adapt when they are told nothing.

/// A model family that sconce trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Family {
    /// Stable Diffusion 1.
    #[default]
    Sd1,
    /// Stable Diffusion 2.
    Sd2,
    /// Stable Diffusion XL.
    Sdxl,
    /// Stable Diffusion 3 and 3.5.
    Sd3,
    /// FLUX.1.
    Flux,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sd1 => "Stable Diffusion 1",
            Self::Sd2 => "Stable Diffusion 2",
            Self::Sdxl => "Stable Diffusion XL",
            Self::Sd3 => "Stable Diffusion 3",
            Self::Flux => "FLUX.1",
        })
    }
}

impl Family {
    /// The component that denoises.
    pub fn denoiser(self) -> &'static str {
        if self.flows() { "transformer" } else { "unet" }
    }

    /// True for rectified flows.
    pub fn flows(self) -> bool {
        matches!(self, Self::Sd3 | Self::Flux)
    }

    /// The CLIP encoders.
    pub fn clips(self) -> &'static [&'static str] {
        match self {
            Self::Sd1 | Self::Sd2 | Self::Flux => &["text_encoder"],
            Self::Sdxl | Self::Sd3 => &["text_encoder", "text_encoder_2"],
        }
    }

    /// T5, where there is one.
    pub fn t5(self) -> Option<&'static str> {
        match self {
            Self::Sd3 => Some("text_encoder_3"),
            Self::Flux => Some("text_encoder_2"),
            _ => None,
        }
    }

    /// All text encoders.
    pub fn encoders(self) -> Vec<&'static str> {
        self.clips().iter().copied().chain(self.t5()).collect()
    }

    /// All layers of the denoiser's transformers.
    pub fn transformers(self) -> Vec<String> {
        let all: &[&str] = match self {
            Self::Sd3 => &["transformer.transformer_blocks.*"],
            Self::Flux => &["transformer.transformer_blocks.*", "transformer.single_transformer_blocks.*"],
            _ => &["unet.*.attentions.*"],
        };
        all.iter().map(|&t| t.to_owned()).collect()
    }

    /// The convolutional blocks of a UNet.
    pub fn convolutions(self) -> Vec<String> {
        let all: &[&str] =
            if self.flows() { &[] } else { &["unet.*.resnets.*", "unet.*.downsamplers.*", "unet.*.upsamplers.*"] };
        all.iter().map(|&t| t.to_owned()).collect()
    }

    /// Attention and feed-forward layers of a text encoder.
    pub fn encoder_layers(self, encoder: &str) -> Vec<String> {
        match self.t5() == Some(encoder) {
            true => vec![format!("{encoder}.*")],
            false => vec![format!("{encoder}.*.self_attn.*"), format!("{encoder}.*.mlp.*")],
        }
    }

    /// What the checkpoint's own schedule shifts its times by at pictures of this side: a in a t/(1 + (a - 1) t).
    pub fn own_shift(self, side_px: f64) -> f64 {
        match self {
            Self::Sd3 => 3.0,
            Self::Flux => flux_shift(side_px),
            _ => 1.0,
        }
    }
}

/// FLUX.1-dev's shift: e^mu, mu linear in the number of tokens, 0.5 at 256 and 1.15 at 4096 of 16 x 16 pixels.
pub(crate) fn flux_shift(side_px: f64) -> f64 {
    let tokens = (side_px / 16.0).powi(2);
    (0.5 + (tokens - 256.0) * (1.15 - 0.5) / (4096.0 - 256.0)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shift_of_flux_is_that_of_its_pipeline() {
        assert!((flux_shift(1024.0) - 1.15f64.exp()).abs() < 1e-12);
        assert!((flux_shift(256.0) - 0.5f64.exp()).abs() < 1e-12);
    }

    #[test]
    fn every_family_has_its_parts() {
        assert_eq!(Family::Sd3.encoders(), ["text_encoder", "text_encoder_2", "text_encoder_3"]);
        assert_eq!((Family::Flux.denoiser(), Family::Sdxl.denoiser()), ("transformer", "unet"));
        assert_eq!(Family::Flux.encoder_layers("text_encoder_2"), ["text_encoder_2.*"]);
    }
}
