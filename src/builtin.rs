//! The recipes inside the program: the files of `configs/`, by name.

use sconce_core::recipe::BuiltinRecipe;
use sconce_sdk::inventory;

macro_rules! builtin {
    ($($name:literal)*) => {$(
        inventory::submit! {
            BuiltinRecipe { name: $name, text: include_str!(concat!("../configs/", $name, ".toml")) }
        }
    )*};
}

builtin! {
    "flow-quickstart"
    "flux-dev-lora"
    "flux-schnell-lora"
    "quickstart"
    "sd15-lora"
    "sd15-lora-formulas"
    "sd2-v"
    "sd3-lora"
    "sd35-full"
    "sd35-lora"
    "sdxl-lora"
    "sdxl-vpred-ztsnr"
    "sdxl-vpred-ztsnr-lora"
}
