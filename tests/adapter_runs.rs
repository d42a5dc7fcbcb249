//! Every adapter through the program: a run trains it, its file is read again, merged into the model it draws what it draws
//! beside it, and another run goes on from it.

#[path = "common/run.rs"]
mod run;

use run::Bench;

/// The adapter's table, and the layout that its file is asked for in.
const EVERY: [(&str, &str); 8] = [
    ("type = \"lora\"\nrank = 4\nscaling = \"root-rank\"\nlayers = [{ targets = [\"*.to_v\"], rank = 2 }]", "peft"),
    ("type = \"loha\"\nrank = 2", "kohya"),
    ("type = \"lokr\"\nrank = 2", "kohya"),
    ("type = \"dora\"\nof = { type = \"lora\", rank = 3, targets = [\"*.attn*.to_*\", \"*.conv1\"] }", "kohya"),
    ("type = \"oft\"\nblock = 8", "kohya"),
    ("type = \"boft\"\nblock = 8\nrescale = true", "kohya"),
    ("type = \"ia3\"", "peft"),
    ("type = \"full-difference\"", "kohya"),
];

/// The mean difference of two pictures, in levels.
fn apart(bench: &Bench, a: &str, b: &str) -> f64 {
    let [a, b] = [a, b].map(|name| image::open(bench.path(name)).expect("a picture").to_rgb8());
    let sum: f64 = a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
    sum / a.as_raw().len() as f64
}

fn good(bench: &Bench, arguments: &[&str]) -> String {
    let output = bench.sconce(arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_a_run_trained_is_read_merged_and_gone_on_with() {
    // A model with weights, so that there is something to adapt.
    let base = Bench::new("");
    base.train("base", &[]);
    let model = base.path("base/model").display().to_string();
    for (table, layout) in EVERY {
        let name = table.split('"').nth(1).expect("a type");
        let recipe = |more: &str| {
            format!(
                "[model]\npath = {model:?}\n[optimizer]\ntype = \"adamw\"\nlr = 2e-2\n[data]\nbatch = 2\n\
                 [[data.source]]\npath = \"pictures\"\n[train]\nimages = 12\nseed = 5\n{more}\n[adapter]\n{table}\n\
                 [output]\nadapter_layouts = [\"{layout}\"]\ndtype = \"f32\"\n"
            )
        };
        let bench = Bench::of(&recipe(""));
        bench.train("run", &[]);
        let file = format!("run/{name}-{layout}.safetensors");

        let draw = |model: &str, more: &[&str], out: &str| {
            let draw = ["sample", "--model", model, "--prompt", "cat", "--steps", "3", "--seed", "1", "--out", out];
            good(&bench, &[&draw[..], more].concat());
        };
        draw(&model, &[], "plain.png");
        draw(&model, &["--lora", &file], "beside.png");
        good(&bench, &["merge", &model, "merged", "--lora", &file, "--dtype", "f32"]);
        draw("merged", &[], "merged.png");
        assert!(apart(&bench, "plain.png", "beside.png") > 0.5, "{name}: it draws nothing of its own");
        let off = apart(&bench, "merged.png", "beside.png");
        assert!(off < 0.02, "{name}: merged it is {off} levels off");

        // From where it ended, with a rate of nothing, it is what it was.
        std::fs::write(bench.path("recipe.toml"), recipe(&format!("adapter_from = \"{file}\""))).expect("a recipe");
        bench.train("on", &["--set", "optimizer.lr=0"]);
        draw(&model, &["--lora", &file.replace("run/", "on/")], "on.png");
        let off = apart(&bench, "on.png", "beside.png");
        assert!(off < 0.02, "{name}: started from its file it is {off} levels off");
    }
}

#[test]
fn a_layout_without_names_for_an_adapter_is_refused_before_the_run() {
    let bench = Bench::new("[adapter]\ntype = \"oft\"\n");
    let output = bench.command("run", &[]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("output.adapter_layouts.0") && said.contains("oft_blocks"), "{said}");
    let other = Bench::new("adapter_from = \"missing.safetensors\"\n[adapter]\ntype = \"lora\"\n");
    let said = other.command("run", &[]).output().expect("the program starts");
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("missing.safetensors"));
}

#[test]
fn a_pissa_run_resumes_and_its_file_is_the_change() {
    let more = "[adapter]\ntype = \"lora\"\nrank = 3\ninit = \"pissa\"\n[ema]\ntype = \"constant\"\ndecay = 0.5\n";
    let bench = Bench::new(more);
    bench.train("whole", &[]);
    bench.train("half", &["--set", "train.images=12"]);
    bench.train("half", &["--resume", "--changed"]);
    assert_eq!(bench.weights("whole"), bench.weights("half"));
    let file = sconce_nn::weights::WeightFiles::open(&[bench.path("whole/lora-peft.safetensors")]).expect("a LoRA");
    let ranks = file.keys().filter(|k| k.ends_with("lora_A.weight")).map(|k| file.info(k).expect("a tensor").0[0]);
    assert!(ranks.collect::<Vec<_>>().iter().all(|rank| *rank == 6));
}
