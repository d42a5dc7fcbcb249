//! A few times and no others: for a student of few steps, or to look at single levels.

use sconce_sdk::prelude::*;
use serde::de::{Deserializer, Error};

/// The listed times, each as often as it is listed. Its density is told over thousandths.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = serde_json::json!({ "times": [0.25, 0.5, 0.75, 1.0] }))]
pub struct FixedList {
    /// From 0 to 1, in any order: k steps of a sampler with trailing spacing are at 1/k, 2/k … 1.
    #[serde(deserialize_with = "times")]
    pub times: Vec<f64>,
}

/// In order, whatever the recipe's.
fn times<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
    let mut times = Vec::<f64>::deserialize(d)?;
    if times.is_empty() {
        return Err(D::Error::custom("lists no time"));
    }
    if let Some(t) = times.iter().find(|t| !(0.0..=1.0).contains(*t)) {
        return Err(D::Error::custom(format!("lists {t}: times are from 0 to 1 (a timestep of 1000 is a thousandth)")));
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

impl TimestepSampler for FixedList {
    fn quantile(&self, u: f64, _: &dyn Schedule) -> f64 {
        let n = self.times.len();
        self.times[((u * n as f64) as usize).min(n - 1)]
    }

    fn cumulative(&self, t: f64, _: &dyn Schedule) -> f64 {
        self.times.partition_point(|listed| *listed <= t) as f64 / self.times.len() as f64
    }
}

register!(TimestepSampler, "fixed-list", FixedList, aliases = ["fixed", "list"]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::RectifiedFlow;

    #[test]
    fn each_time_has_its_share() {
        let list = serde_json::json!({ "type": "fixed-list", "times": [1.0, 0.25, 0.5, 0.25] });
        let (list, flow) = (Choice::<dyn TimestepSampler>::from_table(&list).unwrap(), RectifiedFlow::default());
        assert_eq!([0.0, 0.3, 0.6, 0.9].map(|u| list.quantile(u, &flow)), [0.25, 0.25, 0.5, 1.0]);
        // Two of four draws in one thousandth.
        assert_eq!((list.density(0.25, &flow), list.density(0.3, &flow)), (500.0, 0.0));
        assert_eq!(list.cumulative(0.6, &flow), 0.75);
    }
}
