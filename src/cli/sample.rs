//! `sconce sample`: draws a picture.

use std::path::PathBuf;

use super::Failure;
use super::args::{DeviceArg, DtypeArg, LoraArg};

/// Draw a picture.
///
/// What the command line does not say comes from the checkpoint: what it predicts, on which schedule, and how it is to
/// be sampled. The program prints what it took from there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sconce sample --model runs/my/model --prompt \"a red fox in the snow\"
  sconce sample --model models/sdxl --lora runs/my/peft.safetensors:0.8 --prompt \"a fox\" --steps 25 --solver dpmpp-2m
  sconce sample --model models/sdxl --prompt \"night sky\" --cfg 7 --cfg-rescale 0.7 --spacing trailing --out sky.png

Latents files hold one tensor, `latents`, N C H W. To hold this program against another: save the noise that the other
starts from (unit variance), give it here by --init-latents, and compare what --save-latents writes with the other's
final latents, before the autoencoder's scale and shift are undone.")]
pub struct Args {
    /// A diffusers folder, or `embedded:quickstart`.
    #[arg(long, value_name = "DIR")]
    pub model: String,

    /// An adapter file to add, with its strength after a colon. May be repeated.
    #[arg(long, value_name = "FILE[:SCALE]")]
    pub lora: Vec<LoraArg>,

    /// What to draw. May be longer than 77 tokens, and in any script.
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,

    /// What to steer away from. Default: the family's own rule for no text.
    #[arg(long, value_name = "TEXT")]
    pub negative: Option<String>,

    /// Steps.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub steps: u32,

    /// How to go from one noise level to the next (`sconce list solver`): a name, or a table such as
    /// `{ type = "euler-ancestral", eta = 0.5 }`. Default: the checkpoint's own.
    #[arg(long, value_name = "SOLVER")]
    pub solver: Option<String>,

    /// Where to put the noise levels (`sconce list spacing`): a name, or a table. Default: the checkpoint's own.
    #[arg(long, value_name = "SPACING")]
    pub spacing: Option<String>,

    /// Classifier-free guidance: 1 is none, more follows the prompt harder.
    #[arg(long, value_name = "SCALE", default_value_t = 5.0)]
    pub cfg: f64,

    /// Share, from 0 to 1, of the guided output that is rescaled to the deviation of the unguided: 0.7 keeps a
    /// zero-terminal model from oversaturating.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub cfg_rescale: f64,

    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,

    /// Width in pixels. Default: the model's own.
    #[arg(long, value_name = "PX")]
    pub width: Option<u32>,

    /// Height in pixels. Default: the model's own.
    #[arg(long, value_name = "PX")]
    pub height: Option<u32>,

    /// The picture's file.
    #[arg(long, value_name = "FILE", default_value = "out.png")]
    pub out: PathBuf,

    /// Start from this noise instead of the seed's: safetensors with one tensor `latents`, N C H W, of unit variance.
    #[arg(long, value_name = "FILE")]
    pub init_latents: Option<PathBuf>,

    /// Also write the final latents, as the denoiser keeps them.
    #[arg(long, value_name = "FILE")]
    pub save_latents: Option<PathBuf>,

    /// Type of weights and activations.
    #[arg(long, value_enum, value_name = "TYPE", default_value = "f32")]
    pub dtype: DtypeArg,

    /// Where to compute: `cpu`, `cuda:0`, `cuda:1` …
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: DeviceArg,
}

/// Runs the command.
pub fn run(args: Args) -> Result<(), Failure> {
    execute(args)
}

// ---- the sampling itself: filled in with the sampler ----

fn execute(_args: Args) -> Result<(), Failure> {
    Err(Failure::run("this build has no sampler"))
}
