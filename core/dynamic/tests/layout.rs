//! The structs as the C compiler lays them out from the header, and as Rust does: every size and every offset.

mod common;

use std::fmt::Write;
use std::fs;
use std::process::Command;

use sconce_sdk::abi::header::STRUCTS;

#[test]
fn both_compilers_agree_on_every_field() {
    let (mut source, mut rust) =
        ("#include <stdio.h>\n#include \"sconce_plugin.h\"\nint main(void) {\n".to_owned(), String::new());
    for s in &STRUCTS {
        let _ = writeln!(source, "printf(\"{0} %zu\\n\", sizeof({0}));", s.name);
        let _ = writeln!(rust, "{} {}", s.name, s.size);
        for field in s.fields {
            let _ = writeln!(source, "printf(\"{0}.{1} %zu\\n\", offsetof({0}, {1}));", s.name, field.name);
            let _ = writeln!(rust, "{}.{} {}", s.name, field.name, field.offset);
        }
    }
    source += "}\n";
    let folder = common::scratch().join("layout");
    fs::create_dir_all(&folder).unwrap();
    let include = format!("-I{}/../sdk/include", env!("CARGO_MANIFEST_DIR"));
    for (compiler, file, standard) in [("cc", "layout.c", "-std=c99"), ("c++", "layout.cpp", "-std=c++11")] {
        let (path, program) = (folder.join(file), folder.join(format!("{file}.out")));
        fs::write(&path, &source).unwrap();
        let flags = [standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-unused-function", &include, "-o"];
        let built = Command::new(compiler).args(flags).arg(&program).arg(&path).output();
        let built = built.unwrap_or_else(|e| panic!("`{compiler}` cannot be run ({e}): install gcc or clang"));
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let output = Command::new(&program).output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), rust, "by {compiler}");
    }
}
