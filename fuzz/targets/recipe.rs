//! Any text as a recipe, in each syntax.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sconce_core::recipe::{RecipeSource, Syntax, resolve_in};

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    sconce_fuzz::folder();
    let syntax = [Syntax::Toml, Syntax::Json, Syntax::Yaml][usize::from(first % 3)];
    let source = RecipeSource::Text { name: "recipe".into(), text: text.to_owned(), syntax };
    match resolve_in(&source, &[], std::iter::empty()) {
        Ok(resolved) => drop(resolved.to_toml()),
        Err(e) => drop(e.to_string()),
    }
});
