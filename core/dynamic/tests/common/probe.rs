//! What every registered scalar plugin answers, to the bit, as text: run by a program that links the plugins, and by one
//! that loads them.

use std::fmt::Write;

use sconce_sdk::testkit::instances;
use sconce_sdk::{
    Buffer, Choice, Distance, EmaStrategy, Gradients, Kind, Learned, Level, LrSchedule, Network, Noise, Objective,
    Observation, Plugin, Schedule, Spacing, TimestepSampler, Weighting, registry,
};

const TIMES: [f64; 9] = [0.0, 1e-4, 0.013, 0.25, 0.5, 0.7, 0.987, 0.9999, 1.0];
const LOG_SNRS: [f64; 7] = [f64::NEG_INFINITY, -11.0, -1.3, 0.0, 2.7, 9.0, f64::INFINITY];

/// Every answer, a line for each table.
pub fn everything() -> String {
    let mut text = String::new();
    let crosses = |plugin: &&Plugin| sconce_sdk::abi::crossing(plugin.kind).is_some();
    for plugin in registry::all().expect("no name is taken twice").into_iter().filter(crosses) {
        let (kind, name, about, aliases) = (plugin.kind, plugin.name, plugin.about, plugin.aliases);
        let schema = (plugin.schema)().to_value();
        let _ = writeln!(text, "{kind} {name} {aliases:?} ({about}): {schema}");
    }
    let frames =
        ["rectified-flow", "edm", "scaled-linear", "cosine-continuous"].map(|name| Choice::named(name).unwrap());
    let levels: Vec<Noise> = frames.iter().flat_map(|f: &Choice<dyn Schedule>| TIMES.map(|t| f.at(t))).collect();

    each::<dyn Schedule>(&mut text, |schedule, out| {
        answers(&**schedule, out);
        for (height, width) in [(16, 16), (96, 64)] {
            match schedule.at_size(height, width) {
                Some(sized) => answers(&*sized, out),
                None => out.push(-1.0),
            }
        }
    });
    each::<dyn Objective>(&mut text, |objective, out| {
        for level in &levels {
            out.extend(objective.target(level));
            out.push(objective.input_scale(level));
        }
    });
    each::<dyn Weighting>(&mut text, |weighting, out| {
        out.extend(LOG_SNRS.map(|x| weighting.on_x0(x)));
        for n in &levels {
            for target in [[1.0, 0.0], [0.0, 1.0], [-n.sigma, n.alpha], [n.d_alpha, n.d_sigma]] {
                out.push(weighting.on_output(n, target));
            }
        }
        let (Some(mut state), Some(mut fresh)) = (weighting.start(), weighting.start()) else { return out.push(-1.0) };
        learn(&mut *state, &mut *fresh, out);
        out.extend(LOG_SNRS.map(|x| state.log_loss(x)));
        out.extend(LOG_SNRS.map(|x| fresh.log_loss(x)));
    });
    each::<dyn TimestepSampler>(&mut text, |sampler, out| {
        for frame in &frames {
            for x in TIMES {
                out.push(sampler.quantile(x.min(0.999_999), &**frame));
                out.push(sampler.cumulative(x, &**frame));
                out.push(sampler.density(x, &**frame));
            }
        }
        let (Some(mut state), Some(mut fresh)) = (sampler.start(), sampler.start()) else { return out.push(-1.0) };
        learn(&mut *state, &mut *fresh, out);
        out.extend(TIMES.iter().flat_map(|u| state.map(*u)));
        out.extend(TIMES.iter().flat_map(|u| fresh.map(*u)));
    });
    each::<dyn Distance>(&mut text, |distance, out| {
        for (t, level) in TIMES.iter().cycle().zip(&levels) {
            let width = distance.width(*t, level);
            let differences = [-3.0, -0.1, 0.0, 1e-9, 0.4, 20.0];
            out.push(width);
            out.extend(differences.iter().flat_map(|d| distance.at(*d, width)));
            let mut together = [[0.0; 2]; 6];
            distance.at_each(&differences, width, &mut together);
            out.extend(together.as_flattened());
        }
    });
    each::<dyn EmaStrategy>(&mut text, |ema, out| {
        let tracks = ema.tracks();
        out.extend(tracks.iter().map(|track| track.profile.map_or(-1.0, |p| p.gamma)));
        for track in 0..tracks.len() {
            for images_seen in [0, 3, 1000, 99_999] {
                out.extend([1, 16].map(|batch| ema.decay(track, images_seen, batch)));
            }
        }
        for total in [1, 1000, 1_000_000] {
            let snapshots = ema.snapshots(total);
            out.push(snapshots.map_or(-1.0, |s| s.every_images as f64 + f64::from(s.dtype as u8) / 4.0));
        }
    });
    each::<dyn LrSchedule>(&mut text, |lr, out| {
        for total in [0, 10, 1000, 100_000] {
            out.extend([0, 1, 9, 500, 1000, 99_999].map(|seen| lr.factor(seen, total)));
        }
    });
    each::<dyn Spacing>(&mut text, |spacing, out| {
        for frame in &frames {
            for steps in [1, 2, 9, 30] {
                let all = [spacing.levels(&**frame, steps), spacing.levels_counting_last(&**frame, steps)].concat();
                for Level { t, noise } in all {
                    out.extend([t, noise.alpha, noise.sigma, noise.d_alpha, noise.d_sigma]);
                }
            }
        }
    });
    each::<dyn Network>(&mut text, |network, out| {
        let about = network.about();
        assert_eq!((about.channels, about.conditions.len()), (3, 1), "the only one that there is");
        let inputs = [(vec![2, 3, 4, 2], 48), (vec![2], 2), (vec![2, 5, 4], 40)];
        let data = inputs.clone().map(|(_, n)| (0..n).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>());
        let buffer = |(name, i): (&'static str, usize)| Buffer { name, shape: &inputs[i].0, data: &data[i] };
        let buffers = [("x", 0), ("time", 1), ("context", 2)].map(buffer);
        let mut y = vec![0.0; 48];
        let mut tape = network.record(&buffers, &mut y).expect("it answers");
        let mut gradients = [48, 40, 3].map(|n| vec![0.0; n]);
        let [dx, dc, dw] = &mut gradients;
        let wanted = &mut Gradients { inputs: vec![Some(dx), None, Some(dc)], parameters: vec![Some(dw)] };
        tape.backward(&data[0], wanted).expect("it answers");
        network.write(0, &[9.0, 8.0, 7.0]).expect("it takes it");
        let mut weights = [0.0; 3];
        network.read(0, &mut weights).expect("it gives it");
        out.push(network.time(0.3, &levels[3]));
        out.extend(y.iter().chain(gradients.iter().flatten()).chain(&weights).map(|x| f64::from(*x)));
        network.forward(&buffers, &mut y).expect("it answers");
        out.extend(y.iter().map(|x| f64::from(*x)));
        let parameters = network.parameters();
        out.extend(parameters.iter().flat_map(|p| [p.shape[0], p.shape.len(), p.name.len()]).map(|n| n as f64));
    });
    text
}

fn each<K: Kind + ?Sized>(text: &mut String, ask: impl Fn(&Choice<K>, &mut Vec<f64>)) {
    for choice in instances::<K>().expect("everything can be made") {
        let mut out = Vec::new();
        ask(&choice, &mut out);
        let _ = write!(text, "{} {}:", K::NAME, choice.table());
        for answer in out {
            // The sign of NaN, and what it carries, are nobody's to rely on.
            let bits = if answer.is_nan() { f64::NAN.to_bits() } else { answer.to_bits() };
            let _ = write!(text, " {bits:x}");
        }
        text.push('\n');
    }
}

fn answers(schedule: &dyn Schedule, out: &mut Vec<f64>) {
    out.push(schedule.grid().map_or(-1.0, |n| n as f64));
    out.extend(LOG_SNRS.map(|x| schedule.t_of(x)));
    for n in TIMES.map(|t| schedule.at(t)) {
        out.extend([n.alpha, n.sigma, n.d_alpha, n.d_sigma]);
    }
}

/// Tells a state, takes it over into a fresh one, tells both, and keeps what they save.
fn learn<S: Learned + ?Sized>(state: &mut S, fresh: &mut S, out: &mut Vec<f64>) {
    let picture = |i: usize| {
        let quantile = (i as f64 * 0.618) % 1.0;
        let (weight, error) = (1.0 + quantile, 0.1 + quantile * quantile);
        let log_snr = if i == 0 { f64::INFINITY } else { 8.0 - 16.0 * quantile };
        let (loss, log_loss, importance) = (weight * error, 0.25 - quantile, 0.5 + quantile);
        Observation { quantile, log_snr, weight, error, loss, log_loss, importance }
    };
    let seen: Vec<Observation> = (0..40).map(picture).collect();
    seen[..20].chunks(4).for_each(|part| state.observe(part));
    let saved = state.save();
    fresh.restore(&saved).expect("it fits");
    seen[20..].chunks(4).for_each(|part| {
        state.observe(part);
        fresh.observe(part);
    });
    out.extend(saved);
    out.extend(state.save());
    out.extend(fresh.save());
    out.push(f64::from(u8::from(fresh.restore(&[0.5; 3]).is_ok())));
}
