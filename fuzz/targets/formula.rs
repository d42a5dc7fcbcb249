//! Any text as a formula: read, computed, differentiated. The first byte says as what: by itself, or as the fields of one of
//! the plugins `expr`, with a `;` between them, which no formula has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sconce_expr::engine::{Dual, Params, Reader};
use sconce_sdk::{
    Choice, Distance, EmaStrategy, Kind, LrSchedule, Noise, Objective, ParamError, Schedule, Spacing, TimestepSampler,
    Weighting,
};
use serde_json::{Value, json};

const NOISE: Noise = Noise { alpha: 0.6, sigma: 0.8, d_alpha: -0.8, d_sigma: 0.6 };

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let tried = match first % 16 {
        0..6 => return alone(text),
        6 => made(text, &["on_x0"]).map(|w: Choice<dyn Weighting>| _ = w.on_output(&NOISE, [-0.8, 0.6])),
        7 => made(text, &["on_output"]).map(|w: Choice<dyn Weighting>| _ = w.on_x0(0.3)),
        8 => made(text, &["alpha", "sigma"]).map(schedule),
        9 => made(text, &["log_snr", "alpha"]).map(schedule),
        10 => made(text, &["a", "b", "input_scale"]).map(|o: Choice<dyn Objective>| _ = o.target(&NOISE)),
        11 => made(text, &["quantile"]).map(times),
        12 => made(text, &["log_snr"]).map(times),
        13 => made(text, &["p"]).map(times),
        14 => made(text, &["rho", "width"]).map(distance),
        _ => {
            let spacing: Result<Choice<dyn Spacing>, _> = made(text, &["ratio"]);
            let ema: Result<Choice<dyn EmaStrategy>, _> = made(text, &["decay"]);
            let lr: Result<Choice<dyn LrSchedule>, _> = made(text, &["factor"]);
            spacing.map(drop).and(ema.map(drop)).and(lr.map(drop))
        }
    };
    if let Err(e) = tried {
        drop(e.to_string());
    }
});

fn made<K: Kind + ?Sized>(text: &str, fields: &[&str]) -> Result<Choice<K>, ParamError> {
    let mut table = json!({ "type": "expr" });
    fields.iter().zip(text.split(';')).for_each(|(field, part)| table[field] = Value::from(part));
    Choice::from_table(&table)
}

/// Values and derivatives of a formula by itself; the value is the same to the bit with a derivative and without.
fn alone(text: &str) {
    let params = Params::from([("k".to_owned(), 0.25)]);
    let mut reader = Reader::new(&params).expect("the numbers are right");
    let formula = match reader.read("f", text, &["x", "y"]) {
        Ok(formula) => formula,
        Err(e) => return drop(e.to_string()),
    };
    for x in [0.0, 0.25, -1.5, 1e300, f64::INFINITY, f64::NAN] {
        let value = formula.at(&[x, 2.0]);
        let both = formula.along(&[Dual::variable(x), Dual { value: 2.0, slope: 0.0 }]);
        assert!(value.to_bits() == both.value.to_bits() || value.is_nan() && both.value.is_nan(), "{text} at {x}");
    }
}

fn schedule(schedule: Choice<dyn Schedule>) {
    for t in [0.0, 0.3, 1.0] {
        schedule.t_of(schedule.at(t).log_snr());
    }
}

fn times(sampler: Choice<dyn TimestepSampler>) {
    let flow: Choice<dyn Schedule> = made("1 - t;t", &["alpha", "sigma"]).expect("the flow's");
    for u in [0.0, 1e-9, 0.4, 0.999_999] {
        let t = sampler.quantile(u, &**flow.object());
        assert!((0.0..=1.0).contains(&t), "{t} at {u}");
        sampler.cumulative(t, &**flow.object());
        sampler.density(t, &**flow.object());
    }
}

/// Many differences at once are the same as one by one, to the bit.
fn distance(distance: Choice<dyn Distance>) {
    let differences: Vec<f64> = (0..70).map(|i| f64::from(i - 35) * 0.07).collect();
    let mut all = vec![[0.0; 2]; differences.len()];
    let width = distance.width(0.4, &NOISE);
    distance.at_each(&differences, width, &mut all);
    for (d, [rho, slope]) in differences.iter().zip(all) {
        let [value, by] = distance.at(*d, width);
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        assert!(same(value, rho) && same(by, slope), "at {d}: {value}, {by} and {rho}, {slope}");
    }
}
