//! The program with the plugins of other crates linked in: what `sconce build --with` writes, by hand.

use sconce_conv_mixer as _;
use sconce_patch_mlp as _;

fn main() -> std::process::ExitCode {
    sconce::cli::main()
}
