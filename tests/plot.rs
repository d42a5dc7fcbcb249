//! The numbers behind plots against what the papers say of them, and the pictures' structure.

#[allow(dead_code)] // the command line's tests use the rest
#[path = "common/program.rs"]
mod program;

use std::f64::consts::PI;
use std::fs;

use program::Place;
use sconce::core::compare::compare;
use sconce::core::curves::{Cell, Coverage, average, rate};
use sconce::core::recipe::{RecipeSource, Resolved, resolve_in};
use sconce::core::step::Process;
use sconce::plot::figure::{Axis, Figure, Line, Panel, Stroke};
use sconce::plot::{Format, draw};
use sconce::sdk::{Choice, EmaStrategy, Kind, LrSchedule, Objective, Schedule, TimestepSampler, Weighting};
use serde_json::{Value, json};

fn made<K: Kind + ?Sized>(table: Value) -> Choice<K> {
    Choice::from_table(&table).expect("a plugin")
}

fn coverage(schedule: Value, objective: &str, weighting: &str, timesteps: Value) -> Coverage {
    Coverage::of(&Process {
        schedule: &*made::<dyn Schedule>(schedule),
        objective: &*made::<dyn Objective>(json!(objective)),
        weighting: &*made::<dyn Weighting>(json!(weighting)),
        timesteps: &*made::<dyn TimestepSampler>(timesteps),
    })
    .expect("it has weight")
}

fn zero_terminal() -> Value {
    json!({ "type": "zero-terminal", "of": { "type": "scaled-linear" } })
}

/// Cells of a density, away from the ends.
fn inside(run: &Coverage) -> impl Iterator<Item = &Cell> {
    run.cells().iter().filter(|c| c.log_snr.abs() < 10.0)
}

fn close(found: f64, right: f64, tolerance: f64, what: &str) {
    assert!((found - right).abs() <= tolerance * right.abs(), "{what}: {found}, not {right}");
}

#[test]
fn rectified_flow_weighs_epsilon_by_the_root_of_the_noise() {
    // Kingma & Gao 2023, table 1: e^(-lambda/2), here of such a scale that the weight on v is sech(lambda/2)/(2 pi).
    let run = coverage(json!("rectified-flow"), "flow", "native", json!("uniform"));
    for cell in inside(&run) {
        close(cell.on_eps(), (-0.5 * cell.log_snr).exp() / PI, 1e-3, "w");
        close(cell.weight(), 0.5 / PI / (0.5 * cell.log_snr).cosh(), 1e-3, "weight");
    }
    assert!(run.peak().log_snr.abs() < 0.1);
}

#[test]
fn cosine_weighs_epsilon_by_a_hyperbolic_secant() {
    // Kingma & Gao 2023, table 1. The cosine schedule has an offset, which shows at the clean end.
    let run = coverage(json!("cosine"), "epsilon", "native", json!("uniform"));
    let scale = |cell: &Cell| cell.on_eps() * (0.5 * cell.log_snr).cosh();
    let middle: Vec<f64> = inside(&run).filter(|c| c.log_snr.abs() < 4.0).map(scale).collect();
    middle.iter().for_each(|&s| close(s, middle[0], 0.06, "w cosh(lambda/2)"));
}

#[test]
fn logit_normal_times_have_normal_log_snrs() {
    // lambda = -2 logit(t) on rectified flow, so its mean is -2 m and its deviation 2 s.
    let run =
        coverage(json!("rectified-flow"), "flow", "native", json!({ "type": "logit-normal", "mean": 0.5, "std": 0.8 }));
    for cell in inside(&run).filter(|c| (c.log_snr + 1.0).abs() < 5.0) {
        let z = (cell.log_snr + 1.0) / 1.6;
        close(cell.density(), (-0.5 * z * z).exp() / (1.6 * (2.0 * PI).sqrt()), 2e-3, "p");
    }
    close(run.quantile(0.5, |s| s.draws), -1.0, 0.05, "median");
}

#[test]
fn every_draw_and_all_weight_is_somewhere_also_without_signal() {
    for (weighting, noisy) in [("native", 0.1), ("min-snr", 0.0003)] {
        let run = coverage(zero_terminal(), "v", weighting, json!("uniform"));
        let all = run.between(f64::NEG_INFINITY, f64::INFINITY);
        [all.draws, all.loss, all.weight].iter().for_each(|&share| close(share, 1.0, 1e-9, "all"));
        close(run.above(0.9).weight, noisy, 0.1, weighting);
        let end = run.cells().last().expect("cells");
        assert_eq!((end.log_snr, end.density(), end.weight()), (f64::NEG_INFINITY, 0.0, 0.0));
        close(end.share.draws, 0.001, 1e-9, "draws without signal");
    }
}

#[test]
fn a_weighting_on_the_data_weighs_alike_with_every_objective() {
    let run = |objective| coverage(json!("scaled-linear"), objective, "min-snr", json!("uniform"));
    let (v, epsilon) = (run("v"), run("epsilon"));
    assert!(v.moved(&epsilon) < 1e-9);
    assert!(coverage(json!("scaled-linear"), "epsilon", "native", json!("uniform")).moved(&v) > 0.05);
}

#[test]
fn a_plain_average_is_as_wide_as_its_memory() {
    let ema = made::<dyn EmaStrategy>(json!({ "type": "constant", "decay": 0.99, "warmup_images": 0 }));
    let profile = average(&*ema, 40_000, 4).expect("an average");
    close(profile.age, 0.0099, 0.01, "age");
    close(profile.sigma_rel, 0.01, 0.01, "sigma_rel");
    let area: f64 = profile.density.iter().map(|(_, d)| d / profile.density.len() as f64).sum();
    close(area + profile.first, 1.0, 1e-9, "area");
    assert_eq!(average(&*made::<dyn EmaStrategy>(json!("none")), 40_000, 4), None);
    let lr = made::<dyn LrSchedule>(json!({ "type": "constant", "warmup_images": 400 }));
    let rates = rate(&*lr, 40_000, 4);
    assert_eq!((rates.first().map(|r| r.0), rates.last()), (Some(0), Some(&(39_996, 1.0))));
}

fn quickstart(set: &[&str]) -> Resolved {
    let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
    resolve_in(&RecipeSource::named("quickstart"), &set, std::iter::empty()).expect("it resolves")
}

#[test]
fn a_comparison_names_fields_beside_their_tables_and_finds_the_weight_that_moved() {
    let (a, b) = (quickstart(&[]), quickstart(&["weighting=min-snr", "data.source.0.flip=never"]));
    let names = || ["a".to_owned(), "b".to_owned()];
    let found = compare(names(), [&a, &b]);
    let fields: Vec<&str> = found.fields.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(fields, ["weighting.type", "weighting.gamma", "data.source.0.flip"]);
    assert_eq!(found.fields[1].values, [None, Some(json!(5.0))]);
    let noise = found.noise.expect("both have noise");
    assert!(noise.moved > 0.3 && noise.summary[1].noisy.weight < 0.001);
    let draws: f64 = noise.bins.iter().map(|bin| bin.shares[0].draws).sum();
    close(draws, 1.0, 1e-9, "draws in bins");
    let same = compare(names(), [&a, &a]);
    assert!(same.fields.is_empty() && same.noise.is_some_and(|n| n.moved == 0.0));
}

fn figure() -> Figure {
    let points = |f: fn(f64) -> f64| (0..=100).map(|i| f64::from(i) / 100.0).map(|x| (x * 1e5, f(x))).collect();
    let line = |of, f| Line { of, symbol: None, stroke: Stroke::Full, points: points(f) };
    let panel = |title: &str, y, lines| Panel {
        title: title.into(),
        x: Axis::linear("images", 0.0, 1e5),
        y,
        lines,
        beyond: None,
    };
    Figure {
        title: "a < b".into(),
        subtitle: "under".into(),
        names: vec!["one".into(), "two & more".into()],
        panels: vec![
            panel("first", Axis::linear("y", 0.0, 1.0), vec![line(0, |x| 2.0 * x), line(1, |x| x.ln())]),
            panel(
                "second",
                Axis::log("y", 1e-3, 1.0),
                vec![line(0, |x| x), line(1, |x| if x == 0.0 { f64::NEG_INFINITY } else { x })],
            ),
        ],
        notes: vec!["a note".into()],
    }
}

#[test]
fn an_svg_holds_everything_and_stays_in_its_frame() {
    let svg = draw::svg(&figure()).expect("drawn");
    assert_eq!(svg, draw::svg(&figure()).expect("drawn"), "the same every time");
    for text in ["a &lt; b", "under", "one", "two &amp; more", "first", "second", "a note", "100 000", "10⁻²", "−∞"]
    {
        assert!(svg.contains(&format!("{text}\n")), "{text} is in the picture");
    }
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    let head = svg.split("viewBox=\"0 0 ").nth(1).and_then(|rest| rest.split('"').next()).expect("a view box");
    let size: Vec<i32> = head.split(' ').map(|n| n.parse().expect("a number")).collect();
    for points in svg.split("points=\"").skip(1) {
        for pair in points.split('"').next().expect("closed").split_whitespace() {
            let (x, y) = pair.split_once(',').expect("x,y");
            let inside = |n: &str, most: i32| (0..=most).contains(&n.parse().expect("a number"));
            assert!(inside(x, size[0]) && inside(y, size[1]), "{pair}");
        }
    }
}

#[test]
fn a_png_is_a_picture_twice_as_large() {
    let png = figure().encode(Format::Png).expect("drawn");
    let picture = image::load_from_memory(&png).expect("a PNG").to_rgb8();
    let svg = draw::svg(&figure()).expect("drawn");
    assert!(svg.contains(&format!("width=\"{}\"", picture.width() / 2)));
    // The first colour is there, and the ground is white.
    assert!(picture.pixels().any(|p| p.0 == [0, 114, 178]) && picture.get_pixel(0, 0).0 == [255; 3]);
}

#[test]
fn the_program_writes_whole_files_and_nothing_beside_them() {
    let place = Place::new("sd1-a");
    let said = place.run(&["plot", "weighting", "native", "min-snr{gamma=1}", "--out", "w.svg"]);
    assert!(said.ends_with("\nw.svg\n-- exit 0 --\n"), "{said}");
    let first = fs::read_to_string(place.path("w.svg")).expect("a file");
    assert!(first.contains(">\nmin-snr{gamma=1}\n<"), "the legend");
    place.run(&["plot", "weighting", "native", "min-snr{gamma=1}"]);
    assert_eq!(first, fs::read_to_string(place.path("weighting.svg")).expect("the default name"));
    let changed = "quickstart{weighting=\"min-snr\"}";
    for command in [
        vec!["check", "quickstart", "--plot", "c.svg", "--with", changed],
        vec!["diff", "quickstart", changed, "--plot", "d.svg"],
        vec!["plot", "recipe", "quickstart", changed, "-o", "r.svg"],
    ] {
        let said = place.run(&command);
        assert!(said.ends_with("-- exit 0 --\n"), "{said}");
    }
    let [c, r] = ["c.svg", "r.svg"].map(|file| fs::read_to_string(place.path(file)).expect("a file"));
    assert_eq!(c, r);
    let mut files: Vec<String> = fs::read_dir(&place.0)
        .expect("the folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into())
        .collect();
    files.sort();
    assert_eq!(files, ["c.svg", "d.svg", "model", "pictures", "r.svg", "w.svg", "weighting.svg"]);
}

#[test]
fn numbers_behind_a_picture_are_json() {
    let place = Place::new("sd1-a");
    let said = place.run(&["plot", "schedule", "zero-terminal{of=\"scaled-linear\"}", "--json"]);
    let json: Value = serde_json::from_str(
        &said[said.find('{').and_then(|i| said[i + 1..].find("\n{").map(|j| i + 1 + j)).expect("JSON")
            ..said.rfind("-- exit").expect("an end")],
    )
    .expect("JSON");
    let log_snr = &json["panels"][1];
    assert_eq!(log_snr["title"], "Log-SNR");
    let points = log_snr["lines"][0]["points"].as_array().expect("points");
    assert_eq!((points.len(), &points[999]), (1000, &json!([1.0, "-inf"])));
    assert!(!place.path("schedule.svg").exists(), "nothing is drawn that was not asked for");
}
