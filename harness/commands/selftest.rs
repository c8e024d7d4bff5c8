//! `xlt selftest`: whether a card computes what the CPU does, in one table.

use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;

use super::run::MachineArguments;
use super::{DONE, FAILED, exit};
use crate::training::selftest::{self, Check};

#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<ExitCode> {
    let start = Instant::now();
    let device = arguments
        .machine
        .device
        .open(arguments.machine.threads()?)?;
    ensure!(
        device.card().is_some(),
        "no card is used here, and the processor compared with itself says nothing; see why with `--device cuda`"
    );
    let mut checks: Vec<Check> = Vec::new();
    if !arguments.json {
        writeln!(output, "{device:?}")?;
        writeln!(output, "{:>9}  {:>9}", "error", "limit")?;
    }
    selftest::run(&device, true, &mut |check| {
        if !arguments.json {
            let verdict = if check.passes() { "" } else { "  FAILED" };
            // What cannot be printed is still in the exit code.
            let _ = writeln!(
                output,
                "{:9.2e}  {:9.0e}  {}{verdict}",
                check.error, check.limit, check.name
            );
        }
        checks.push(check.clone());
    })?;
    let failed = checks.iter().filter(|check| !check.passes()).count();
    let seconds = start.elapsed().as_secs_f64();
    if arguments.json {
        let object = json!({
            "device": device.description(),
            "checks": checks,
            "failed": failed,
            "seconds": seconds,
        });
        writeln!(output, "{}", serde_json::to_string_pretty(&object)?)?;
    } else {
        writeln!(
            output,
            "{} of {} checks pass, {seconds:.1} s",
            checks.len() - failed,
            checks.len()
        )?;
    }
    Ok(exit(if failed == 0 { DONE } else { FAILED }))
}
