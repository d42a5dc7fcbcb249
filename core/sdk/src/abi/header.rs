//! Writes `sconce_plugin.h` from the declarations of the structs, so that it cannot differ from them:
//! `cargo run -p sconce-sdk --example header > core/sdk/include/sconce_plugin.h`.

use std::fmt::Write;

use super::{
    ABI_MAJOR, ABI_MINOR, Described, Description, ENTRY, SCONCE_F32, SCONCE_FAILED, SCONCE_MEMORY_CUDA,
    SCONCE_MEMORY_HOST, SCONCE_OK, SCONCE_PANICKED, SconceBackbone, SconceCuda, SconceCudaBackbone, SconceDistance,
    SconceEma, SconceError, SconceHost, SconceLevel, SconceLibrary, SconceLr, SconceNoise, SconceNumbers, SconceObject,
    SconceObjective, SconceObservation, SconcePlugin, SconceSamplerState, SconceSchedule, SconceSpacing, SconceStr,
    SconceTensor, SconceTensors, SconceText, SconceTimesteps, SconceWeighting, SconceWeightingState,
};

/// The header as it is committed.
pub const HEADER: &str = include_str!("../../include/sconce_plugin.h");

/// Every struct of the ABI, each after those that it holds.
pub const STRUCTS: [Description; 26] = [
    SconceStr::DESCRIPTION,
    SconceText::DESCRIPTION,
    SconceNumbers::DESCRIPTION,
    SconceError::DESCRIPTION,
    SconceObject::DESCRIPTION,
    SconceTensor::DESCRIPTION,
    SconceTensors::DESCRIPTION,
    SconceNoise::DESCRIPTION,
    SconceLevel::DESCRIPTION,
    SconceObservation::DESCRIPTION,
    SconceSchedule::DESCRIPTION,
    SconceObjective::DESCRIPTION,
    SconceWeighting::DESCRIPTION,
    SconceTimesteps::DESCRIPTION,
    SconceDistance::DESCRIPTION,
    SconceEma::DESCRIPTION,
    SconceLr::DESCRIPTION,
    SconceSpacing::DESCRIPTION,
    SconceSamplerState::DESCRIPTION,
    SconceWeightingState::DESCRIPTION,
    SconceBackbone::DESCRIPTION,
    SconceCuda::DESCRIPTION,
    SconceCudaBackbone::DESCRIPTION,
    SconceHost::DESCRIPTION,
    SconcePlugin::DESCRIPTION,
    SconceLibrary::DESCRIPTION,
];

const INTRODUCTION: &str = "\
/* The C ABI of sconce's plugins. Generated from sconce-sdk: do not edit.

   A plugin is a shared library with one function, sconce_plugin, that returns a SconceLibrary. Build it with this header
   alone: `cc -shared -fPIC -o libmine.so mine.c`. Then `sconce --plugin ./libmine.so ...` uses it.

   - Every table begins with its size, sizeof as the writer's header has it. Read no field beyond the size that a table
     of the program's says, and leave null what you do not have: each function says what null means.
   - A function returns SCONCE_OK, or after it told `error` why another status. No C++ exception may leave a function.
   - Text and arrays that are arguments are valid until the call returns. What goes into a sink (SconceText,
     SconceNumbers, SconceError) is copied. Tables, and the text in them, live for ever: a library is never unloaded.
   - Functions of a plugin may be called from several threads at once; those of a state or a tape by one thread
     at a time, not always the same.
   - Answer in numbers: NaN for numbers that have an answer is an error that names the plugin.

   t = 0 is data and t = 1 is noise. log-SNR is ln(alpha^2 / sigma^2). */
";

const HELPERS: &str = "\
/* A text from a C string. */
static inline SconceStr sconce_str(const char *text) {
    SconceStr view = {text, 0};
    while (text && text[view.length]) view.length++;
    return view;
}

/* Tells `error` why, and gives the status to return: `return sconce_fail(error, \"alpha is negative\");` */
static inline SconceStatus sconce_fail(const SconceError *error, const char *why) {
    if (error && error->message) error->message(error->context, sconce_str(why));
    return SCONCE_FAILED;
}
";

/// The header.
pub fn text() -> String {
    let mut h = INTRODUCTION.to_owned();
    h += "#ifndef SCONCE_PLUGIN_H\n#define SCONCE_PLUGIN_H\n\n#include <stddef.h>\n#include <stdint.h>\n\n";
    h += "#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n";
    let _ = writeln!(h, "#define SCONCE_ABI_MAJOR {ABI_MAJOR}\n#define SCONCE_ABI_MINOR {ABI_MINOR}\n");
    h += "/* 0 where a call did what it should. */\ntypedef int32_t SconceStatus;\n";
    let _ = writeln!(h, "#define SCONCE_OK {SCONCE_OK}\n#define SCONCE_FAILED {SCONCE_FAILED}");
    h += "/* The same, where what it was called on may be broken: an exception, a panic. */\n";
    let _ = writeln!(h, "#define SCONCE_PANICKED {SCONCE_PANICKED}\n");
    h += "/* Types of numbers, and kinds of memory, in a SconceTensor. */\n";
    let _ = writeln!(h, "#define SCONCE_F32 {SCONCE_F32}");
    let _ = writeln!(h, "#define SCONCE_MEMORY_HOST {SCONCE_MEMORY_HOST}");
    let _ = writeln!(h, "#define SCONCE_MEMORY_CUDA {SCONCE_MEMORY_CUDA}\n");
    for s in &STRUCTS {
        let _ = writeln!(h, "typedef struct {0} {0};", s.name);
    }
    for s in &STRUCTS {
        let _ = write!(h, "\n{}struct {} {{\n", comment("", s.about), s.name);
        for field in s.fields {
            let _ = writeln!(h, "{}    {};", comment("    ", field.about), declaration(field.rust, field.name));
        }
        h += "};\n";
    }
    let _ = write!(h, "\n{HELPERS}\n");
    h += "#if defined(_WIN32)\n#define SCONCE_EXPORT __declspec(dllexport)\n#else\n";
    h += "#define SCONCE_EXPORT __attribute__((visibility(\"default\")))\n#endif\n\n";
    h += "/* What the library is; null after a failure, with its reason in `error`. It may be called more than once. */\n";
    let _ =
        writeln!(h, "SCONCE_EXPORT const SconceLibrary *{ENTRY}(const SconceHost *host, const SconceError *error);\n");
    h += "#ifdef __cplusplus\n}\n#endif\n\n#endif\n";
    h
}

fn comment(indent: &str, lines: &[&str]) -> String {
    let mut text = String::new();
    for (i, line) in lines.iter().enumerate() {
        let start = if i == 0 { "/*" } else { "  " };
        let end = if i + 1 == lines.len() { " */" } else { "" };
        let _ = writeln!(text, "{}", format!("{indent}{start}{line}{end}").trim_end());
    }
    text
}

/// A field, or a parameter, in C.
fn declaration(rust: &str, name: &str) -> String {
    let rust = normal(rust);
    let function = rust.strip_prefix("Option<").and_then(|t| t.strip_suffix('>'));
    let Some(signature) = function.and_then(|t| t.strip_prefix("unsafe extern \"C\" fn(")) else {
        return spaced(&c_type(&rust), name);
    };
    let (parameters, answer) = signature.rsplit_once(')').unwrap_or((signature, ""));
    let answer = answer.trim().strip_prefix("->").map_or("void".to_owned(), |t| c_type(t.trim()));
    let parameters: Vec<String> = parameters
        .split(',')
        .filter_map(|p| p.split_once(':'))
        .map(|(name, rust)| spaced(&c_type(rust.trim()), name.trim()))
        .collect();
    let mut lines = vec![format!("{answer} (*{name})(")];
    for (i, parameter) in parameters.iter().enumerate() {
        let end = if i + 1 < parameters.len() { "," } else { ")" };
        let line = lines.last_mut().expect("the first is there");
        let space = if i > 0 { " " } else { "" };
        match line.len() + parameter.len() <= 106 {
            true => line.extend([space, parameter, end]),
            false => lines.push(format!("        {parameter}{end}")),
        }
    }
    lines.join("\n")
}

/// A type with the spaces that one writes: inside of macros the compiler's own text has others.
fn normal(rust: &str) -> String {
    let mut text = rust.split_whitespace().collect::<Vec<_>>().join(" ");
    for (from, to) in [("* ", "*"), (" : ", ": "), (" , ", ", "), ("Option < ", "Option<"), (") >", ")>")] {
        text = text.replace(from, to);
    }
    // The last one closes the option.
    text.strip_suffix(" >").map_or(text.clone(), |head| format!("{head}>"))
}

fn spaced(c: &str, name: &str) -> String {
    if c.ends_with('*') { format!("{c}{name}") } else { format!("{c} {name}") }
}

fn c_type(rust: &str) -> String {
    if let Some(inner) = rust.strip_prefix("*const ") {
        return match inner.starts_with('*') {
            true => format!("{}const *", c_type(inner)),
            false => format!("const {}", pointer(&c_type(inner))),
        };
    }
    if let Some(inner) = rust.strip_prefix("*mut ") {
        return pointer(&c_type(inner));
    }
    match rust {
        "usize" => "size_t",
        "f64" => "double",
        "f32" => "float",
        "u64" => "uint64_t",
        "u32" => "uint32_t",
        "c_void" => "void",
        "c_char" => "char",
        other => other,
    }
    .to_owned()
}

fn pointer(c: &str) -> String {
    if c.ends_with('*') { format!("{c}*") } else { format!("{c} *") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_header_is_what_the_declarations_say() {
        assert!(
            HEADER == text(),
            "core/sdk/include/sconce_plugin.h is not of these declarations: \
             cargo run -p sconce-sdk --example header > core/sdk/include/sconce_plugin.h"
        );
    }

    #[test]
    fn types_are_written_as_c_has_them() {
        assert_eq!(declaration("*mut *mut c_void", "handle"), "void **handle");
        assert_eq!(declaration("*const *const SconcePlugin", "p"), "const SconcePlugin *const *p");
        for function in [
            "Option<unsafe extern \"C\" fn(handle: *mut c_void, n: usize) -> SconceStatus>",
            "Option < unsafe extern \"C\" fn(handle : * mut c_void, n : usize) -> SconceStatus >",
        ] {
            assert_eq!(declaration(function, "f"), "SconceStatus (*f)(void *handle, size_t n)");
        }
        assert_eq!(declaration("Option<unsafe extern \"C\" fn(n: usize)>", "f"), "void (*f)(size_t n)");
    }
}
