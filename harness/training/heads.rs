//! Parameters on top of the trunk: candle variables with their gradient and moments.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::kernels::adam::{Adam, SumOfSquares, Update};
use crate::kernels::lanes::vectorised;

/// Head parameters by name.
#[derive(Default)]
pub(super) struct Heads(pub BTreeMap<String, Head>);

pub(super) struct Head {
    pub variable: Var,
    pub dims: Vec<usize>,
    /// Peak learning rate; the schedule scales it like the trunk's.
    pub learning_rate: f64,
    /// What `variable` holds.
    pub values: Vec<f32>,
    pub gradient: Vec<f32>,
    pub first: Vec<f32>,
    pub second: Vec<f32>,
}

impl Heads {
    pub fn add(
        &mut self,
        name: &str,
        dims: &[usize],
        initial: Vec<f32>,
        learning_rate: f64,
    ) -> Result<()> {
        ensure!(
            !self.0.contains_key(name),
            "head parameter `{name}` exists already; choose another name"
        );
        let size: usize = dims.iter().product();
        ensure!(
            initial.len() == size,
            "head parameter `{name}` has {} initial values for dimensions {dims:?}",
            initial.len()
        );
        ensure!(
            learning_rate >= 0.0 && learning_rate.is_finite(),
            "head parameter `{name}` has learning rate {learning_rate}; use a number from 0"
        );
        let head = Head {
            variable: Var::from_slice(&initial, dims, &candle_core::Device::Cpu)?,
            dims: dims.to_vec(),
            learning_rate,
            values: initial,
            gradient: vec![0.0; size],
            first: vec![0.0; size],
            second: vec![0.0; size],
        };
        self.0.insert(name.to_owned(), head);
        Ok(())
    }

    pub fn get(&self, name: &str) -> Result<&Head> {
        self.0
            .get(name)
            .with_context(|| format!("there is no head parameter `{name}`; add it first"))
    }

    /// Adds what `gradients` holds for the parameters; those that took no part have none.
    pub fn accumulate(&mut self, gradients: &GradStore) -> Result<()> {
        for (name, head) in &mut self.0 {
            if let Some(gradient) = gradients.get(head.variable.as_tensor()) {
                let values = values_of(gradient, &head.dims)
                    .with_context(|| format!("gradient of `{name}`"))?;
                for (sum, value) in head.gradient.iter_mut().zip(values) {
                    *sum += value;
                }
            }
        }
        Ok(())
    }

    pub fn sum_of_squares(&self) -> f64 {
        self.0
            .values()
            .map(|head| {
                vectorised(SumOfSquares {
                    values: &head.gradient,
                })
            })
            .sum()
    }

    pub fn clear_gradients(&mut self) {
        for head in self.0.values_mut() {
            head.gradient.fill(0.0);
        }
    }

    /// One update; `schedule` is the learning rate's share of its peak.
    pub fn update(&mut self, update: Update, schedule: f64) -> Result<()> {
        for head in self.0.values_mut() {
            let update = Update {
                learning_rate: (head.learning_rate * schedule) as f32,
                ..update
            };
            vectorised(Adam {
                update,
                parameters: &mut head.values,
                gradient: &mut head.gradient,
                first: &mut head.first,
                second: &mut head.second,
            });
            head.publish()?;
        }
        Ok(())
    }
}

impl Head {
    /// Copies `values` to the variable.
    pub fn publish(&self) -> Result<()> {
        self.variable.set(&Tensor::from_slice(
            &self.values,
            self.dims.as_slice(),
            &candle_core::Device::Cpu,
        )?)?;
        Ok(())
    }
}

/// A tensor's values in row-major order, after a look at its dimensions.
pub(super) fn values_of(tensor: &Tensor, dims: &[usize]) -> Result<Vec<f32>> {
    ensure!(
        tensor.dims() == dims,
        "has dimensions {:?} where {dims:?} are needed",
        tensor.dims()
    );
    Ok(tensor.flatten_all()?.to_vec1::<f32>()?)
}
