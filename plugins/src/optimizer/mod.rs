//! How weights follow their gradients.

mod adafactor;
mod adamw;
mod adamw_8bit;
mod blockwise;
mod came;
mod factored;
mod lion;
mod muon;
mod prodigy;
mod schedule_free_adamw;

pub use adafactor::{Adafactor, Scale};
pub use adamw::AdamW;
pub use adamw_8bit::AdamW8Bit;
pub use came::Came;
pub use lion::Lion;
pub use muon::{Muon, MuonScale};
pub use prodigy::Prodigy;
pub use schedule_free_adamw::ScheduleFreeAdamW;

#[cfg(test)]
mod tests {
    use candle_core::{Device, Result, Var};
    use sconce_core::optimizer::{Rule, Trained, Update};
    use sconce_nn::rng::Stream;

    use super::*;

    /// The path of the CPU and that of other devices, both on the CPU, over twelve updates.
    fn agree(name: &str, rule: &impl Rule, limit: f32) -> Result<()> {
        let shapes: [&[usize]; 8] =
            [&[], &[7], &[5, 6], &[3, 4, 3, 3], &[9, 5, 1, 1], &[70, 80], &[2, 130, 140], &[30, 70, 3, 3]];
        for dims in shapes {
            let normal = |what: &str| Stream::new(1, what).normal(dims, &Device::Cpu);
            let weights = [Var::from_tensor(&normal("weight")?)?, Var::from_tensor(&normal("weight")?)?];
            let fresh = |weight: &Var| -> Result<Vec<Var>> {
                let state = rule.fresh(&Trained::new("unet/w", weight.clone()))?;
                state.iter().map(|(_, t)| Var::from_tensor(&t.copy()?)).collect()
            };
            let states = [fresh(&weights[0])?, fresh(&weights[1])?];
            for count in 1..=12 {
                let grad = (normal(&format!("gradient {count}"))? * (0.01 * count as f64))?;
                let update = Update { lr: 1e-2, weight_decay: None, count };
                rule.fused(&weights[0], &grad, &states[0], &update)?;
                rule.composed(&weights[1], &grad, &states[1], &update)?;
            }
            let [a, b] = weights.map(|w| w.as_tensor().detach());
            let off = (a - b)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(off < limit, "{name} on {dims:?}: {off}");
            let averages =
                [rule.averaged(&normal("weight")?, &states[0])?, rule.averaged(&normal("weight")?, &states[1])?];
            if let [Some(a), Some(b)] = averages {
                assert!((a - b)?.abs()?.max_all()?.to_scalar::<f32>()? < limit, "{name}: the average on {dims:?}");
            }
        }
        Ok(())
    }

    #[test]
    fn the_path_of_the_cpu_and_that_of_other_devices_agree() -> Result<()> {
        const LIMIT: f32 = 2e-5;
        agree("adamw", &AdamW { weight_decay: 0.1, ..AdamW::default() }, LIMIT)?;
        agree("lion", &Lion { weight_decay: 0.1, ..Lion::default() }, LIMIT)?;
        for scale in [Scale::Absolute, Scale::Weight, Scale::Relative] {
            agree("adafactor", &Adafactor { scale, weight_decay: 0.1, ..Adafactor::default() }, LIMIT)?;
            agree("adafactor", &Adafactor { scale, beta1: Some(0.9), ..Adafactor::default() }, LIMIT)?;
        }
        agree("came", &Came { weight_decay: 0.1, ..Came::default() }, LIMIT)?;
        agree("schedule-free", &ScheduleFreeAdamW { weight_decay: 0.1, ..ScheduleFreeAdamW::default() }, LIMIT)?;
        agree("muon", &Muon { adamw_targets: vec![], ..Muon::default() }, LIMIT)?;
        agree("muon", &Muon { scale: MuonScale::MatchRmsAdamw, ..Muon::default() }, LIMIT)?;
        // Rounding may take a number to the other side of the middle between two codes.
        agree("adamw-8bit", &AdamW8Bit::default(), 5e-4)
    }
}
