//! The program with the plugins of other crates linked in: what `sconce build --with` writes, by hand.

use sconce_conv_mixer as _;
use sconce_patch_mlp as _;

// A step asks for much memory of a few sizes: with the system's allocator it may take twice the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    sconce::cli::main()
}
