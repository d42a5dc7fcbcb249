//! The laws of every kind of scalar plugin, on everything that is registered.

use proptest::prelude::*;
use sconce_core::noise::NoiseSource;
use sconce_plugins as _;
use sconce_sdk::testkit::{self, Law, instances};
use sconce_sdk::{
    Choice, Distance, EmaStrategy, Kind, LrSchedule, Noise, Objective, Observation, Schedule, Spacing, TimestepSampler,
    Weighting,
};

/// Everything registered of a kind, of which there must be something.
fn all<K: Kind + ?Sized>() -> Vec<Choice<K>> {
    let all = instances::<K>().unwrap();
    assert!(!all.is_empty(), "no {} is registered", K::NAME);
    all
}

fn check<K: Kind + ?Sized>(plugin: &Choice<K>, law: Law) -> Result<(), TestCaseError> {
    law.map_err(|e| TestCaseError::fail(format!("{plugin:?}: {e}")))
}

/// The times that training draws: the grid of a discrete schedule, anything of a continuous one.
fn drawn(schedule: &dyn Schedule, t: f64) -> Noise {
    schedule.at(schedule.grid().map_or(t, |n| (t * n as f64).ceil().max(1.0) / n as f64))
}

/// Every spacing, and those with something else to divide.
fn spaced() -> Vec<Choice<dyn Spacing>> {
    let others = ["karras", "exponential", "beta"].map(|name| serde_json::json!({ "type": name, "over": "sigma" }));
    let others = others.into_iter().chain([serde_json::json!({ "type": "beta", "over": "ratio" })]);
    all().into_iter().chain(others.map(|table| Choice::from_table(&table).unwrap())).collect()
}

/// Times that favour the ends, where the trouble is.
fn time() -> impl Strategy<Value = f64> {
    prop_oneof![Just(0.0), Just(1.0), 0.0..1.0, 0.0..1e-3, 0.999..1.0]
}

/// Log-SNRs, without signal or noise too.
fn any_log_snr() -> impl Strategy<Value = f64> {
    prop_oneof![8 => -15.0..15.0, 1 => Just(f64::INFINITY), 1 => Just(f64::NEG_INFINITY)]
}

/// What updates may show.
fn seen() -> impl Strategy<Value = Vec<Observation>> {
    let one = (0.0..1.0, any_log_snr(), 0.0..10.0, 0.0..4.0, 0.2..5.0);
    let one = one.prop_map(|(quantile, log_snr, weight, error, importance)| Observation {
        quantile,
        log_snr,
        weight,
        error,
        loss: weight * error,
        log_loss: 0.5 - quantile,
        importance,
    });
    proptest::collection::vec(one, 1..24)
}

/// A schedule of each frame, with a table and without.
fn frames() -> Vec<Choice<dyn Schedule>> {
    ["rectified-flow", "edm", "scaled-linear", "cosine-continuous"].map(|name| Choice::named(name).unwrap()).into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn schedules(a in time(), b in time(), height in 1usize..300, width in 1usize..300) {
        let (t, later) = (a.min(b), a.max(b));
        prop_assume!(later - t > 1e-6);
        for schedule in all::<dyn Schedule>() {
            check(&schedule, testkit::schedule(&*schedule, t, later))?;
            check(&schedule, testkit::schedule(&*schedule.sized(height, width), t, later))?;
        }
    }

    #[test]
    fn objectives(t in time(), x0 in -3.0..3.0, eps in -3.0..3.0) {
        for schedule in all::<dyn Schedule>() {
            for objective in all::<dyn Objective>() {
                check(&objective, testkit::objective(&*objective, &schedule.at(t), x0, eps))?;
            }
        }
    }

    #[test]
    fn weightings(t in time()) {
        for schedule in all::<dyn Schedule>() {
            let noise = drawn(&*schedule, t);
            let targets: Vec<[f64; 2]> = all::<dyn Objective>().iter().map(|o| o.target(&noise)).collect();
            for weighting in all::<dyn Weighting>() {
                for target in &targets {
                    check(&weighting, testkit::weighting(&*weighting, &noise, *target))?;
                }
                // `native`, and whatever starts from it, is meant to break this law.
                if !weighting.table().to_string().contains("\"native\"") {
                    check(&weighting, testkit::weighting_of_data(&*weighting, &noise, &targets))?;
                }
            }
        }
    }

    #[test]
    fn timestep_samplers(a in 0.0..1.0, b in 0.0..1.0) {
        for schedule in frames() {
            for sampler in all::<dyn TimestepSampler>() {
                check(&sampler, testkit::timesteps(&*sampler, &*schedule, f64::min(a, b), f64::max(a, b)))?;
            }
        }
    }

    #[test]
    fn distances(d in -5.0..5.0, further in -5.0..5.0, t in time()) {
        for schedule in all::<dyn Schedule>() {
            let noise = drawn(&*schedule, t);
            for distance in all::<dyn Distance>() {
                check(&distance, testkit::distance(&*distance, d, further, t, &noise))?;
            }
        }
    }

    #[test]
    fn what_samplers_learn(u in 0.0..1.0, seen in seen(), more in seen()) {
        let mut learners = 0;
        for sampler in all::<dyn TimestepSampler>() {
            let (Some(mut state), Some(mut fresh)) = (sampler.start(), sampler.start()) else { continue };
            learners += 1;
            check(&sampler, testkit::sampler_state(&*state, u))?;
            for part in seen.chunks(4) {
                state.observe(part);
            }
            check(&sampler, testkit::sampler_state(&*state, u))?;
            check(&sampler, testkit::learned(&mut *state, &mut *fresh, &more))?;
        }
        prop_assert!(learners > 0);
    }

    #[test]
    fn what_weightings_learn(log_snr in any_log_snr(), seen in seen(), more in seen()) {
        let mut learners = 0;
        for weighting in all::<dyn Weighting>() {
            let (Some(mut state), Some(mut fresh)) = (weighting.start(), weighting.start()) else { continue };
            learners += 1;
            for part in seen.chunks(4) {
                state.observe(part);
                prop_assert!(state.log_loss(log_snr).is_finite());
            }
            check(&weighting, testkit::learned(&mut *state, &mut *fresh, &more))?;
            prop_assert_eq!(state.log_loss(log_snr).to_bits(), fresh.log_loss(log_snr).to_bits());
        }
        prop_assert!(learners > 0);
    }

    #[test]
    fn averages(images_seen in 0u64..10_000_000, batch in 1u64..5_000) {
        for ema in all::<dyn EmaStrategy>() {
            check(&ema, testkit::ema(&*ema, images_seen, batch))?;
        }
    }

    #[test]
    fn learning_rates(images_seen in 0u64..2_000, images_total in 0u64..1_000, warmup_images in 0u64..2_000) {
        for lr in all::<dyn LrSchedule>() {
            check(&lr, testkit::lr(&*lr, images_seen, images_total))?;
            let mut table = lr.table();
            table["warmup_images"] = warmup_images.into();
            let warmed = Choice::<dyn LrSchedule>::from_table(&table).unwrap();
            check(&warmed, testkit::lr(&*warmed, images_seen, images_total))?;
        }
    }

    #[test]
    fn spacings(steps in prop_oneof![39 => 1usize..60, 1 => 998usize..1003]) {
        for schedule in all::<dyn Schedule>() {
            for spacing in spaced() {
                check(&spacing, testkit::spacing(&*spacing, &*schedule, steps))?;
            }
        }
    }
}

#[test]
fn spacings_for_zero_terminal_schedules_begin_at_pure_noise() {
    for schedule in all::<dyn Schedule>() {
        for name in ["trailing", "sgm-uniform", "linspace", "normal", "simple", "beta"] {
            let spacing = Choice::<dyn Spacing>::named(name).unwrap();
            for steps in [1, 7, 10, 30, 1000] {
                assert_eq!(spacing.levels(&*schedule, steps)[0].t, 1.0, "{name}, {steps} steps");
            }
        }
    }
}

#[test]
fn densities_are_those_of_the_quantiles() {
    for schedule in &frames()[1..3] {
        for sampler in all::<dyn TimestepSampler>() {
            testkit::density(&*sampler, &**schedule).unwrap_or_else(|e| panic!("{sampler:?} on {schedule:?}: {e}"));
        }
    }
}

#[test]
fn wrappers_pass_the_size_on() {
    let dependent = |s: &Choice<dyn Schedule>| s.at_size(64, 64).is_some();
    assert!(all::<dyn Schedule>().iter().any(dependent));
    for schedule in all::<dyn Schedule>() {
        if let Some(inner) = schedule.table().get("of") {
            let inner = Choice::<dyn Schedule>::from_table(inner).unwrap();
            assert_eq!(dependent(&schedule), dependent(&inner), "{schedule:?}");
        }
    }
}

#[test]
fn without_signal_every_objective_but_epsilon_gives_the_data_back() {
    for schedule in all::<dyn Schedule>().into_iter().filter(|s| s.at(1.0).alpha == 0.0) {
        for objective in all::<dyn Objective>() {
            let noise = schedule.at(1.0);
            let d = noise.determinant(objective.target(&noise));
            assert_eq!(d != 0.0, objective.name() != "epsilon", "{} on {schedule:?}", objective.name());
        }
    }
}

/// Noise is finite, of the latents' shape, and the same at the same point of a run; and only what pairs pictures with noise
/// looks at the pictures.
#[test]
fn noises() {
    for noise in all::<dyn NoiseSource>() {
        let told = |law: Law| law.unwrap_or_else(|broken| panic!("{noise:?}: {broken}"));
        told(sconce_core::testkit::noise(&*noise));
        told(sconce_core::testkit::noise_of_unit_variance(&*noise));
        assert_eq!(sconce_core::testkit::noise_alone(&*noise).is_ok(), noise.name() != "immiscible", "{noise:?}");
    }
}
