//! A weighting as a crate of its own: linked into a program by `use sconce_tempered_snr as _;`, or built as a library and
//! loaded by `--plugin`.

use sconce_sdk::prelude::*;

/// The SNR up to gamma, to a power: with the power 1 it is min-SNR (Hang et al. 2023), with 0 every level counts alike on the
/// error of the data.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TemperedSnr {
    /// Upper bound on the SNR.
    pub gamma: f64,
    /// Between 0 and 1 it takes the difference between levels back.
    pub power: f64,
}

impl Default for TemperedSnr {
    fn default() -> Self {
        Self { gamma: 5.0, power: 0.5 }
    }
}

impl Weighting for TemperedSnr {
    fn on_x0(&self, log_snr: f64) -> f64 {
        log_snr.exp().min(self.gamma).powf(self.power)
    }
}

register!(Weighting, "tempered-snr", TemperedSnr, aliases = ["tempered_snr"]);
export!();

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_sdk::{laws, registry};

    #[test]
    fn keeps_the_laws_and_is_what_it_says() {
        let plugin = registry::find("weighting", "tempered-snr").unwrap();
        laws::check(plugin).expect("weightings have laws").unwrap();
        let weighting = TemperedSnr::default();
        assert_eq!(weighting.on_x0(f64::INFINITY), 5.0f64.sqrt());
        assert!((weighting.on_x0(1.0) - 0.5f64.exp()).abs() < 1e-15);
    }
}
