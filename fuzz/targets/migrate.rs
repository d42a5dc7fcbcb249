//! Any text as a configuration of another trainer. What it names is read from the parts of the input behind bytes 0xff, which
//! no text has: a dataset, prompts, more of the configuration.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sconce_migrate::migrate;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|b| *b == 0xff).map(std::str::from_utf8);
    let Some(Ok(text)) = parts.next() else { return };
    let mut next = |_, _: &str| match parts.next() {
        Some(Ok(part)) => Ok(part.to_owned()),
        _ => Err("there is no such file".to_owned()),
    };
    match migrate(text, &mut next) {
        Ok(made) => {
            let read = made.recipe.parse::<toml_edit::DocumentMut>();
            assert!(read.is_ok(), "{}\n{}", read.unwrap_err(), made.recipe);
            let report = made.report.to_string();
            assert!(!report.contains(|c: char| c.is_control() && c != '\n'), "{report:?}");
        }
        Err(e) => drop(e.to_string()),
    }
});
