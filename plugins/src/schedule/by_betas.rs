//! What the schedules that are given by the variance of each step have in common: a table, made when it is first asked.

/// Makes a schedule of a plugin that has the variance of each of its `steps` (`betas()`) and a cell for the `table`.
macro_rules! by_betas {
    ($plugin:ty) => {
        impl $plugin {
            fn table(&self) -> &Discrete {
                self.table.get_or_init(|| Discrete::from_betas(self.betas()))
            }
        }

        impl Schedule for $plugin {
            fn at(&self, t: f64) -> Noise {
                self.table().at(t)
            }

            fn t_of(&self, log_snr: f64) -> f64 {
                self.table().t_of(log_snr)
            }

            fn grid(&self) -> Option<usize> {
                Some(self.steps)
            }
        }
    };
}
pub(super) use by_betas;
