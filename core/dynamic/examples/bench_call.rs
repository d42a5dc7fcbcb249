//! What a question to a plugin costs, linked in and loaded from a library:
//! `cargo run --release -p sconce-dynamic --example bench_call`.

#[path = "../tests/common/timing.rs"]
mod timing;

use std::error::Error;
use std::path::Path;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture");
    let target = std::env::temp_dir().join("sconce-bench-call");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release"]).current_dir(&fixture).env("CARGO_TARGET_DIR", &target);
    if !build.status()?.success() {
        return Err("the plugins are not built".into());
    }
    let built = target.join("release");
    let linked =
        Command::new(built.join(format!("fixture-linked{}", std::env::consts::EXE_SUFFIX))).arg("time").output()?;
    let linked = String::from_utf8(linked.stdout)?;
    let linked = linked
        .lines()
        .map(|line| line.parse::<f64>().map_err(Box::from))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;

    let (before, after) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    for name in ["fixture_built_in", "fixture_odd"] {
        sconce_dynamic::load(&built.join(format!("{before}{name}{after}")))?;
    }
    println!("{:>9} {:>9} {:>9}", "linked ns", "loaded ns", "more ns");
    for ((question, loaded), linked) in timing::timings().into_iter().zip(linked) {
        println!("{linked:9.1} {loaded:9.1} {:9.1}  {question}", loaded - linked);
    }
    Ok(())
}
