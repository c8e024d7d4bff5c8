//! The optimizer of a training stage: Adam with decoupled weight decay, clipping and a schedule.

use crate::problem::Problem;

/// Adam (Kingma and Ba 2015) as XLM and its followers use it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamSettings {
    /// Highest learning rate of the schedule. XLM pretraining: 1e-4 to 5e-4; fine-tuning: 1e-6 to 1e-5.
    pub learning_rate: f64,
    /// Decay of the mean of gradients. XLM: 0.9.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the mean of squared gradients. XLM with its inverse square root schedule: 0.98.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Added to the root of the mean square. PyTorch's and XLM's default: 1e-8; InfoXLM: 1e-6.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
    /// Share of the learning rate by which every parameter shrinks per update (decoupled). XLM: 0; InfoXLM: 0.01.
    #[serde(default)]
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled down to it. XLM pretraining: 5; XNLI: none.
    #[serde(default)]
    pub clip: Option<f64>,
    /// How the learning rate changes over the updates.
    #[serde(default)]
    pub schedule: Schedule,
}

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.98
}

fn default_epsilon() -> f64 {
    1e-8
}

/// The learning rate over the updates.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// The same for all updates. XLM's XNLI fine-tuning.
    #[default]
    Constant,
    /// Linear warm-up, then falling with the inverse square root of the update (Vaswani et al. 2017). XLM pretraining.
    InverseSquareRoot {
        /// Updates of the warm-up. XLM: 4000 by default, 30000 for English.
        warm_up_updates: u64,
        /// Learning rate of the first update. XLM: 1e-7.
        #[serde(default = "default_initial")]
        initial: f64,
    },
    /// Linear warm-up, then linearly to zero at the last update (Devlin et al. 2019).
    Linear {
        /// Share of the updates that warm up, 0 to 1. BERT: 0.1.
        warm_up_fraction: f64,
    },
}

fn default_initial() -> f64 {
    1e-7
}

impl AdamSettings {
    /// Every problem at once.
    pub fn validate(&self) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let mut check = |field: &str, sound: bool, value: f64, remedy: &str| {
            if !sound {
                problems.push(Problem {
                    field: field.to_owned(),
                    what: format!("is {value}"),
                    remedy: remedy.to_owned(),
                });
            }
        };
        let positive = |value: f64| value > 0.0 && value.is_finite();
        check(
            "learning_rate",
            positive(self.learning_rate),
            self.learning_rate,
            "use a number above 0, such as 1e-4",
        );
        check(
            "beta1",
            (0.0..1.0).contains(&self.beta1),
            self.beta1,
            "use a number from 0 to below 1, such as 0.9",
        );
        check(
            "beta2",
            (0.0..1.0).contains(&self.beta2),
            self.beta2,
            "use a number from 0 to below 1, such as 0.98",
        );
        check(
            "epsilon",
            positive(self.epsilon),
            self.epsilon,
            "use a small number above 0, such as 1e-8",
        );
        let decay = self.weight_decay;
        check(
            "weight_decay",
            decay >= 0.0 && decay.is_finite(),
            decay,
            "use a number from 0, such as 0.01",
        );
        if let Some(clip) = self.clip {
            check(
                "clip",
                positive(clip),
                clip,
                "use a number above 0, such as 5, or leave it out",
            );
        }
        match self.schedule {
            Schedule::Constant => {}
            Schedule::InverseSquareRoot { initial, .. } => {
                check(
                    "schedule",
                    initial >= 0.0 && initial.is_finite(),
                    initial,
                    "use an `initial` from 0, such as 1e-7",
                );
            }
            Schedule::Linear { warm_up_fraction } => {
                check(
                    "schedule",
                    (0.0..=1.0).contains(&warm_up_fraction),
                    warm_up_fraction,
                    "use a `warm_up_fraction` from 0 to 1, such as 0.1",
                );
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// The learning rate of an update, counted from 1, of `total`.
    pub fn learning_rate_at(&self, update: u64, total: u64) -> f64 {
        let peak = self.learning_rate;
        match self.schedule {
            Schedule::Constant => peak,
            // XLM counts from 0: its first update has the initial rate (optim.py, AdamInverseSqrtWithWarmup).
            Schedule::InverseSquareRoot {
                warm_up_updates,
                initial,
            } => {
                let done = update.saturating_sub(1) as f64;
                let warm_up = warm_up_updates as f64;
                if done < warm_up {
                    initial + done * (peak - initial) / warm_up
                } else {
                    peak * (warm_up.max(1.0) / done.max(1.0)).sqrt()
                }
            }
            // Differs: BERT's first update has rate zero and does nothing; ours has the first share of the warm-up.
            Schedule::Linear { warm_up_fraction } => {
                let warm_up = (warm_up_fraction * total as f64).ceil();
                let update = update as f64;
                if update <= warm_up {
                    peak * update / warm_up
                } else {
                    peak * ((total as f64 - update + 1.0) / (total as f64 - warm_up).max(1.0))
                        .clamp(0.0, 1.0)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adam(schedule: Schedule) -> AdamSettings {
        AdamSettings {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip: None,
            schedule,
        }
    }

    #[test]
    fn schedules_pass_through_their_corners() {
        let root = adam(Schedule::InverseSquareRoot {
            warm_up_updates: 100,
            initial: 1e-7,
        });
        assert_eq!(root.learning_rate_at(1, 1000), 1e-7);
        assert!((root.learning_rate_at(101, 1000) - 1e-3).abs() < 1e-12);
        assert!((root.learning_rate_at(401, 1000) - 5e-4).abs() < 1e-12);
        let linear = adam(Schedule::Linear {
            warm_up_fraction: 0.1,
        });
        assert!((linear.learning_rate_at(5, 100) - 5e-4).abs() < 1e-12);
        assert!((linear.learning_rate_at(10, 100) - 1e-3).abs() < 1e-12);
        assert!((linear.learning_rate_at(11, 100) - 1e-3).abs() < 1e-12);
        assert!((linear.learning_rate_at(100, 100) - 1e-3 / 90.0).abs() < 1e-12);
        assert_eq!(linear.learning_rate_at(101, 100), 0.0);
        assert_eq!(adam(Schedule::Constant).learning_rate_at(7, 9), 1e-3);
    }

    #[test]
    fn impossible_settings_are_named() {
        assert!(adam(Schedule::Constant).validate().is_ok());
        let broken = AdamSettings {
            beta2: 1.0,
            epsilon: f64::NAN,
            clip: Some(0.0),
            ..adam(Schedule::Linear {
                warm_up_fraction: 2.0,
            })
        };
        let problems = broken.validate().unwrap_err();
        let fields: Vec<_> = problems
            .iter()
            .map(|problem| problem.field.as_str())
            .collect();
        assert_eq!(fields, ["beta2", "epsilon", "clip", "schedule"]);
    }
}
