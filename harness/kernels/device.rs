//! Where a model runs: the CPU with a number of threads.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::lanes::InstructionSet;
use super::pool::Pool;

/// A device and its threads; clones share them.
#[derive(Clone)]
pub struct Device {
    pool: Arc<Pool>,
}

/// A device as a user names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best device there is.
    Auto,
    Cpu,
}

impl FromStr for DeviceChoice {
    type Err = String;
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            other => Err(format!(
                "no device is called `{other}`; use `auto` or `cpu`"
            )),
        }
    }
}

impl DeviceChoice {
    pub fn open(self, threads: usize) -> Device {
        match self {
            DeviceChoice::Auto | DeviceChoice::Cpu => Device::cpu(threads),
        }
    }
}

impl Device {
    /// The CPU with this many threads, the caller's among them: `cpu(1)` starts none; 0 counts as 1.
    pub fn cpu(threads: usize) -> Device {
        Device {
            pool: Arc::new(Pool::new(threads)),
        }
    }

    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The instructions the kernels use here; results do not depend on it, times do.
    pub fn instruction_set(&self) -> &'static str {
        InstructionSet::detect().name()
    }

    /// The processor's name and the instruction set used, such as `AMD EPYC (avx512)`.
    pub fn description(&self) -> String {
        format!("{} ({})", processor_name(), self.instruction_set())
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
        assert_eq!(DeviceChoice::Auto.open(2).threads(), 2);
        assert_eq!(Device::cpu(0).threads(), 1);
    }
}
