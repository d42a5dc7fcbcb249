//! The block with two streams (MMDiT, Esser et al. 2024, section 4): picture and text have weights of their own and attend as
//! one sequence.

use std::sync::Arc;

use candle_core::{Result, Tensor};
use sconce_core::model::Recompute;
use sconce_nn::{Linear, Scope, ops};

use super::attention::{Attends, Projections};
use super::feed_forward::FeedForward;
use super::modulation::{Modulation, norm};
use super::rotary::Rotary;

/// What a block has beside the two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether the text goes on after the block.
    pub text: Text,
    /// Whether the picture also attends to itself alone (Stable Diffusion 3.5 medium).
    pub alone: Alone,
}

/// Whether the text goes on after a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// It does.
    GoesOn,
    /// It is read and not needed again: the last block.
    Ends,
}

/// Whether the picture also attends to itself alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// Beside the joint attention.
    Too,
    /// No.
    No,
}

/// A block.
pub struct Double {
    attends: Attends,
    picture: Stream,
    alone: Option<(Projections, Linear)>,
    text: TextStream,
}

/// What a stream of weights has.
struct Stream {
    modulation: Modulation,
    projections: Projections,
    out: Linear,
    feed: FeedForward,
}

enum TextStream {
    GoesOn(Stream),
    Ends { modulation: Modulation, projections: Projections },
}

impl Double {
    /// The block at `scope`.
    pub fn new(scope: &Scope, attends: Attends, layout: Layout) -> Result<Self> {
        let (width, attn) = (attends.width(), scope.at("attn"));
        let vectors = if layout.alone == Alone::Too { 9 } else { 6 };
        let picture = Stream {
            modulation: Modulation::new(&scope.at("norm1"), width, vectors)?,
            projections: Projections::own(&attn, width, &attends)?,
            out: Linear::new(&attn.at("to_out").at(0), width, width)?,
            feed: FeedForward::new(&scope.at("ff"), width)?,
        };
        let alone = || -> Result<_> {
            let attn = scope.at("attn2");
            Ok((Projections::own(&attn, width, &attends)?, Linear::new(&attn.at("to_out").at(0), width, width)?))
        };
        let projections = Projections::added(&attn, width, &attends)?;
        let text = match layout.text {
            Text::GoesOn => TextStream::GoesOn(Stream {
                modulation: Modulation::new(&scope.at("norm1_context"), width, 6)?,
                projections,
                out: Linear::new(&attn.at("to_add_out"), width, width)?,
                feed: FeedForward::new(&scope.at("ff_context"), width)?,
            }),
            Text::Ends => {
                TextStream::Ends { modulation: Modulation::new(&scope.at("norm1_context"), width, 2)?, projections }
            }
        };
        Ok(Self { attends, picture, alone: (layout.alone == Alone::Too).then(alone).transpose()?, text })
    }

    /// `x`: B N D, the picture; `text`: B T D; `embedding`: B D. Both afterwards, the text as it was where it ends.
    pub fn forward(
        &self,
        x: &Tensor,
        text: &Tensor,
        embedding: &Tensor,
        rotary: Option<&Rotary>,
    ) -> Result<(Tensor, Tensor)> {
        let tokens = text.dim(1)?;
        let of_picture = self.picture.modulation.forward(embedding)?;
        let normed = norm(x)?;
        let picture = ops::modulate(&normed, &of_picture[1], &of_picture[0])?;
        let (of_text, text_parts) = match &self.text {
            TextStream::GoesOn(stream) => {
                let vectors = stream.modulation.forward(embedding)?;
                let h = ops::modulate(&norm(text)?, &vectors[1], &vectors[0])?;
                (vectors, stream.projections.forward(&h)?)
            }
            TextStream::Ends { modulation, projections } => {
                // The scale comes first here.
                let vectors = modulation.forward(embedding)?;
                let h = ops::modulate(&norm(text)?, &vectors[0], &vectors[1])?;
                (vectors, projections.forward(&h)?)
            }
        };
        let parts = [text_parts, self.picture.projections.forward(&picture)?];
        let attended = self.attends.over(&parts, rotary)?; // B T+N D
        let mut x = self.picture.attended(x, &attended.narrow(1, tokens, x.dim(1)?)?, &of_picture)?;
        if let Some((projections, out)) = &self.alone {
            let h = ops::modulate(&normed, &of_picture[7], &of_picture[6])?;
            let attended = self.attends.over(&[projections.forward(&h)?], None)?;
            x = ops::gated_sum(&x, &of_picture[8], &out.forward(&attended)?)?;
        }
        x = self.picture.fed(&x, &of_picture)?;
        let text = match &self.text {
            TextStream::GoesOn(stream) => {
                let text = stream.attended(text, &attended.narrow(1, 0, tokens)?, &of_text)?;
                stream.fed(&text, &of_text)?
            }
            TextStream::Ends { .. } => text.clone(),
        };
        Ok((x, text))
    }

    /// [`Double::forward`], keeping all for the backward pass or its inputs only.
    pub fn run(
        self: &Arc<Self>,
        x: &Tensor,
        text: &Tensor,
        embedding: &Tensor,
        rotary: Option<&Rotary>,
        recompute: Recompute,
    ) -> Result<(Tensor, Tensor)> {
        if recompute == Recompute::Nothing {
            return self.forward(x, text, embedding, rotary);
        }
        let (block, rotary) = (self.clone(), rotary.cloned());
        let both = recompute.run(&[x, text, embedding], move |t| {
            let (x, text) = block.forward(&t[0], &t[1], &t[2], rotary.as_ref())?;
            Tensor::cat(&[text, x], 1)
        })?;
        let (tokens, places) = (text.dim(1)?, x.dim(1)?);
        Ok((both.narrow(1, tokens, places)?, both.narrow(1, 0, tokens)?))
    }
}

impl Stream {
    /// The sum after the attention; `vectors`: shift, scale and gate of the attention, then of the feed-forward.
    fn attended(&self, x: &Tensor, attended: &Tensor, vectors: &[Tensor]) -> Result<Tensor> {
        ops::gated_sum(x, &vectors[2], &self.out.forward(attended)?)
    }

    /// The sum after the feed-forward.
    fn fed(&self, x: &Tensor, vectors: &[Tensor]) -> Result<Tensor> {
        let h = ops::modulate(&norm(x)?, &vectors[4], &vectors[3])?;
        ops::gated_sum(x, &vectors[5], &self.feed.forward(&h)?)
    }
}
