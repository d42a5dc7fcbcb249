//! Stable Diffusion 1, 2 and XL: one latent diffusion UNet with text conditioning, in three sizes.

pub mod family;
pub mod unet;
