//! Where a model runs: the CPU with a number of threads, or a card beside it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::Result;

use super::cuda::{Card, Driver};
use super::lanes::InstructionSet;
use super::pool::Pool;

/// A device and its threads; clones share them.
#[derive(Clone)]
pub struct Device {
    pool: Arc<Pool>,
    card: Option<Arc<dyn Driver>>,
}

/// A device as a user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first card where there is one that can be used, or else the CPU.
    Auto,
    Cpu,
    /// Cards, counted from 0: jobs that run side by side take them in turn.
    Cuda(Vec<usize>),
}

impl FromStr for DeviceChoice {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(vec![0])),
            other => other
                .strip_prefix("cuda:")
                .and_then(|numbers| {
                    let numbers = numbers.split(',').map(str::parse);
                    numbers.collect::<Result<Vec<usize>, _>>().ok()
                })
                .map(DeviceChoice::Cuda)
                .ok_or_else(|| {
                    format!(
                        "no device is called `{other}`; use `auto`, `cpu`, `cuda`, or cards by number as in `cuda:0,1`"
                    )
                }),
        }
    }
}

impl DeviceChoice {
    /// Whether it opens a card, or may open one.
    pub fn may_be_a_card(&self) -> bool {
        match self {
            DeviceChoice::Cpu => false,
            DeviceChoice::Cuda(_) => true,
            DeviceChoice::Auto => Card::driver_is_there(),
        }
    }

    /// The device with this many threads; errs, with what to do, where the card asked for cannot be used.
    pub fn open(&self, threads: usize) -> Result<Device> {
        self.open_in_turn(threads, 0)
    }

    /// The device of the `turn`-th of several jobs that run side by side.
    pub fn open_in_turn(&self, threads: usize, turn: usize) -> Result<Device> {
        match self {
            DeviceChoice::Cpu => Ok(Device::cpu(threads)),
            DeviceChoice::Cuda(cards) => {
                let ordinal = cards.get(turn % cards.len().max(1)).copied().unwrap_or(0);
                Ok(Device::with_card(threads, Card::open(ordinal)?))
            }
            DeviceChoice::Auto if !Card::driver_is_there() => Ok(Device::cpu(threads)),
            DeviceChoice::Auto => match Card::open(0) {
                Ok(card) => Ok(Device::with_card(threads, card)),
                Err(error) => {
                    // Once, however many jobs run side by side.
                    if turn == 0 {
                        eprintln!("the card is not used: {error:#}");
                    }
                    Ok(Device::cpu(threads))
                }
            },
        }
    }
}

impl Device {
    /// The CPU with this many threads, the caller's among them: `cpu(1)` starts none; 0 counts as 1.
    pub fn cpu(threads: usize) -> Device {
        Device {
            pool: Arc::new(Pool::new(threads)),
            card: None,
        }
    }

    /// A card, with threads for what the CPU does beside it.
    pub fn with_card(threads: usize, card: Arc<dyn Driver>) -> Device {
        Device {
            card: Some(card),
            ..Device::cpu(threads)
        }
    }

    /// The same threads without a card.
    pub fn without_card(&self) -> Device {
        Device {
            card: None,
            ..self.clone()
        }
    }

    /// The card that models run on, if they do.
    pub fn card(&self) -> Option<&Arc<dyn Driver>> {
        self.card.as_ref()
    }

    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instructions the kernels use here; results do not depend on it, times do.
    pub fn instruction_set(&self) -> String {
        match &self.card {
            Some(card) => card.versions(),
            None => InstructionSet::detect().name().to_owned(),
        }
    }

    /// The processor's name and the instruction set used, such as `AMD EPYC (avx512)`; or the card's with its versions.
    pub fn description(&self) -> String {
        let name = match &self.card {
            Some(card) => card.name(),
            None => processor_name(),
        };
        format!("{name} ({})", self.instruction_set())
    }

    /// Where heads' tensors live.
    pub fn candle(&self) -> &candle_core::Device {
        &candle_core::Device::Cpu
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} x {}", self.threads(), self.description())
    }
}

fn processor_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            text.lines()
                .find(|line| line.starts_with("model name"))
                .and_then(|line| line.split_once(':'))
                .map(|(_, name)| name.trim().to_owned())
        })
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_refused_with_the_names_that_exist() {
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        let error = "tpu".parse::<DeviceChoice>().unwrap_err();
        assert!(
            error.contains("tpu") && error.contains("auto") && error.contains("cpu"),
            "{error}"
        );
        assert_eq!("cuda:3,1".parse(), Ok(DeviceChoice::Cuda(vec![3, 1])));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(vec![0])));
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
        assert_eq!(DeviceChoice::Cpu.open(2).unwrap().threads(), 2);
        assert_eq!(Device::cpu(0).threads(), 1);
    }
}
