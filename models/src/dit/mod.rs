//! What the diffusion transformers of this crate are made of (Peebles & Xie 2023; Esser et al. 2024): the embedding of time,
//! guidance and pooled text; the modulation by it; attention over text and picture together; and the block with a stream of
//! weights for each.

mod attention;
mod double;
mod embedding;
mod feed_forward;
mod modulation;
mod rotary;

pub use attention::{Attends, Projections, QkNorm};
pub use double::{Alone, Double, Layout, Text};
pub use embedding::{Embedding, Guided};
pub use feed_forward::FeedForward;
pub use modulation::{Final, Modulation, norm};
pub use rotary::Rotary;

use candle_core::{Result, Tensor, bail};

/// Latents B C H W to one token for each square of `patch` x `patch`: B (H/p W/p) (C p p).
pub fn to_tokens(x: &Tensor, patch: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (rows, columns) = (height / patch, width / patch);
    if rows * patch != height || columns * patch != width || rows * columns == 0 {
        bail!("latents of {height} x {width} do not divide into squares of {patch}");
    }
    x.reshape((batch, channels, rows, patch, columns, patch))?.permute((0, 2, 4, 1, 3, 5))?.contiguous()?.reshape((
        batch,
        rows * columns,
        channels * patch * patch,
    ))
}

/// The order of the numbers in a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Channel, row, column: as [`to_tokens`] gives them.
    ChannelFirst,
    /// Row, column, channel.
    ChannelLast,
}

/// Tokens back to latents of `height` x `width`.
pub fn to_latents(tokens: &Tensor, patch: usize, height: usize, width: usize, order: Order) -> Result<Tensor> {
    let (batch, _, size) = tokens.dims3()?;
    let (rows, columns, channels) = (height / patch, width / patch, size / (patch * patch));
    let squares = match order {
        Order::ChannelFirst => {
            tokens.reshape((batch, rows, columns, channels, patch, patch))?.permute((0, 3, 1, 4, 2, 5))?
        }
        Order::ChannelLast => {
            tokens.reshape((batch, rows, columns, patch, patch, channels))?.permute((0, 5, 1, 3, 2, 4))?
        }
    };
    squares.contiguous()?.reshape((batch, channels, height, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_come_back_where_they_were() {
        let x = Tensor::arange(0u32, 2 * 3 * 4 * 6, &candle_core::Device::Cpu).unwrap().reshape((2, 3, 4, 6)).unwrap();
        let tokens = to_tokens(&x, 2).unwrap();
        assert_eq!(tokens.dims(), [2, 6, 12]);
        // The second token is the square at row 0, column 2: channels first, then its rows.
        let second = tokens.get(0).unwrap().get(1).unwrap().to_vec1::<u32>().unwrap();
        assert_eq!(second, [2, 3, 8, 9, 26, 27, 32, 33, 50, 51, 56, 57]);
        let back = to_latents(&tokens, 2, 4, 6, Order::ChannelFirst).unwrap();
        assert_eq!(
            back.flatten_all().unwrap().to_vec1::<u32>().unwrap(),
            x.flatten_all().unwrap().to_vec1::<u32>().unwrap()
        );
        let last = tokens.reshape((2, 6, 3, 4)).unwrap().transpose(2, 3).unwrap().contiguous().unwrap();
        let back = to_latents(&last.reshape((2, 6, 12)).unwrap(), 2, 4, 6, Order::ChannelLast).unwrap();
        assert_eq!(
            back.flatten_all().unwrap().to_vec1::<u32>().unwrap(),
            x.flatten_all().unwrap().to_vec1::<u32>().unwrap()
        );
        assert!(to_tokens(&x.narrow(3, 0, 5).unwrap(), 2).unwrap_err().to_string().contains("squares of 2"));
    }
}
