//! Which of the scripts a configuration is for, where nothing says it: what it trains, and of which family.

use crate::case::{Case, Learns};
use crate::family::Family;

/// What a configuration trains that names no script.
pub(super) fn learns(case: &Case) -> Learns {
    let any = |keys: &[&str]| keys.iter().any(|k| case.given(k).is_some());
    match () {
        () if any(&["token_string", "init_word", "num_vectors_per_token"]) => Learns::Word,
        () if any(&["network_module", "network_dim", "network_alpha", "unet_lr", "network_train_unet_only"]) => {
            Learns::Adapter
        }
        () => Learns::Whole,
    }
}

/// The family of a configuration whose script does not say it.
pub(super) fn family(case: &mut Case, script: bool) -> Family {
    let any = |keys: &[&str]| keys.iter().any(|k| case.given(k).is_some());
    let path = case.text("pretrained_model_name_or_path").to_ascii_lowercase();
    let module = case.text("network_module");
    let large = super::data::side(&case.value("resolution")).is_some_and(|(side, _)| side >= 900.0);
    let (family, because) = match () {
        () if script => (if case.flag("v2") { Family::Sd2 } else { Family::Sd1 }, ""),
        () if module.ends_with("_flux") || any(&["ae", "timestep_sampling", "model_prediction_type"]) => {
            (Family::Flux, "")
        }
        () if module.ends_with("_sd3") || any(&["clip_g", "training_shift"]) => (Family::Sd3, ""),
        () if path.contains("flux") => (Family::Flux, "its model's name says so"),
        () if path.contains("sd3") || path.contains("stable-diffusion-3") => (Family::Sd3, "its model's name says so"),
        () if case.flag("sdxl") || any(&["learning_rate_te1", "learning_rate_te2"]) => (Family::Sdxl, ""),
        () if path.contains("xl") => (Family::Sdxl, "its model's name says so"),
        () if case.flag("v2") => (Family::Sd2, ""),
        () if large || case.flag("cache_text_encoder_outputs") => {
            (Family::Sdxl, "its pictures are large, or it keeps encodings of captions")
        }
        () => (Family::Sd1, "nothing speaks for another"),
    };
    if !because.is_empty() && case.given("pretrained_model_name_or_path").is_some() {
        case.warn(format!(
            "which script a TOML file is for it does not say: this one is taken for one of {family}, \
                 since {because}. Components and layers in the recipe are named after it"
        ));
    }
    family
}
