//! Writes the C header of the ABI: `cargo run -p sconce-sdk --example header > core/sdk/include/sconce_plugin.h`.

fn main() {
    print!("{}", sconce_sdk::abi::header::text());
}
