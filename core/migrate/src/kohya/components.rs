//! Which components train, and at which rates. sd-scripts has a rate for each of them, a recipe one rate and factors on it.

use serde_json::Value;

use crate::case::{Case, Learns};
use crate::family::Family;
use crate::optim;

/// The text encoders that train, each with its rate.
pub(super) fn encoders(case: &Case) -> Vec<(&'static str, f64)> {
    let base = case.number("learning_rate").unwrap_or(2e-6);
    let (clips, t5) = match case.learns {
        Learns::Word => (false, false),
        Learns::Adapter => {
            let train = !case.flag("network_train_unet_only");
            (train, train && case.flag("network_args.train_t5xxl"))
        }
        Learns::Whole => {
            let kept = case.number("stop_text_encoder_training").is_none_or(|n| n >= 0.0);
            let rate = case.given("learning_rate_te").is_some();
            let train = case.flag("train_text_encoder") || rate || case.given("stop_text_encoder_training").is_some();
            (train && kept && case.family != Family::Flux, case.flag("train_t5xxl"))
        }
    };
    let rates = case.value("text_encoder_lr");
    let rate = |i: usize| match (&rates, case.learns) {
        // Strings, where they come from a command line.
        (Value::Array(rates), Learns::Adapter) => {
            let rate = rates.get(i).or(rates.last()).map(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()));
            rate.flatten().unwrap_or(base)
        }
        (_, Learns::Whole) => {
            case.number(&format!("learning_rate_te{}", i + 1)).or(case.number("learning_rate_te")).unwrap_or(base)
        }
        _ => base,
    };
    let clips = case.family.clips().iter().copied().filter(|_| clips);
    let all = clips.chain(case.family.t5().filter(|_| t5)).enumerate();
    all.map(|(i, name)| (name, rate(i))).filter(|(_, rate)| *rate > 0.0).collect()
}

/// The rate of the recipe, and the components with their factors on it.
pub(super) fn components(case: &mut Case) {
    let given = if case.learns == Learns::Adapter { case.number("unet_lr") } else { None };
    let rate = given.or(case.number("learning_rate")).unwrap_or(2e-6);
    let only_text = case.flag("network_train_text_encoder_only");
    let encoders = encoders(case);
    let base = match (only_text, encoders.first()) {
        (true, Some((_, rate))) => *rate,
        _ => rate,
    };
    case.set_as("optimizer.lr", base, if given.is_some() { "unet_lr" } else { "learning_rate" });
    if case.learns == Learns::Word {
        return;
    }
    let denoiser = (!only_text).then_some((case.family.denoiser(), base));
    let rates: Vec<(&str, f64)> = denoiser.into_iter().chain(encoders).collect();
    let name = super::optimizer::name(case);
    optim::components(case, &name, base, &rates, "rates of components over optimizer.lr");
}
