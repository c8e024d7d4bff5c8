//! `xlt store`: what the store holds, whether it is sound, removing, and moving artifacts between machines.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::json;

use super::{DONE, FAILED, exit};
use crate::store::{Removal, Selection, Store, Summary};

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    pub action: Action,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// List finished artifacts and interrupted jobs
    List,
    /// Show bytes per stage
    Size,
    /// Hash contents and name what is not as recorded
    Verify {
        /// Stages or the first digits of fingerprints; everything when none is given
        names: Vec<String>,
    },
    /// Show what would be removed, or remove it with --yes; never what a running job holds
    Remove {
        /// Stages or the first digits of fingerprints
        names: Vec<String>,
        /// Every artifact
        #[arg(long, conflicts_with = "names")]
        all: bool,
        /// Checkpoints of interrupted jobs instead of artifacts
        #[arg(long, conflicts_with = "all")]
        unfinished: bool,
        /// Also artifacts that were set aside because they were damaged
        #[arg(long)]
        damaged: bool,
        /// Do it
        #[arg(long)]
        yes: bool,
    },
    /// Write artifacts into one file for another machine
    Pack {
        /// The file to write; it must not exist
        file: PathBuf,
        /// Stages or the first digits of fingerprints; everything when none is given
        names: Vec<String>,
        /// Also everything they were made from
        #[arg(long)]
        with_inputs: bool,
    },
    /// Add a pack's artifacts, verifying them
    Unpack { file: PathBuf },
}

pub fn run(arguments: &Arguments, store: &Store, out: &mut dyn Write) -> Result<ExitCode> {
    let json = arguments.json;
    match &arguments.action {
        Action::List => list(store, json, out)?,
        Action::Size => size(store, json, out)?,
        Action::Verify { names } => return verify(store, names, json, out),
        Action::Remove {
            names,
            all,
            unfinished,
            damaged,
            yes,
        } => {
            let selection = Selection {
                names: names.clone(),
                all: *all,
                unfinished: *unfinished,
                damaged: *damaged,
            };
            let removal = store.remove(&selection, !yes)?;
            if json {
                print_json(&removal, out)?
            } else {
                print_removal(&removal, *yes, out)?
            }
        }
        Action::Pack {
            file,
            names,
            with_inputs,
        } => {
            let artifacts = if names.is_empty() {
                store.artifacts()?
            } else {
                store.select(names, *with_inputs)?
            };
            let bytes = store.pack(&artifacts, file)?;
            if json {
                print_json(&json!({"artifacts": artifacts.len(), "bytes": bytes}), out)?;
            } else {
                writeln!(
                    out,
                    "{} artifacts in {}, {}",
                    artifacts.len(),
                    file.display(),
                    human(bytes)
                )?;
            }
        }
        Action::Unpack { file } => {
            let unpacked = store.unpack(file)?;
            if json {
                print_json(&unpacked, out)?;
            } else {
                print_summaries(&unpacked.added, out)?;
                writeln!(
                    out,
                    "{} artifacts added, {} were here",
                    unpacked.added.len(),
                    unpacked.present.len()
                )?;
            }
        }
    }
    Ok(exit(DONE))
}

fn list(store: &Store, json: bool, out: &mut dyn Write) -> Result<()> {
    let (artifacts, unfinished) = (store.list()?, store.unfinished()?);
    if json {
        return print_json(
            &json!({"artifacts": artifacts, "unfinished": unfinished}),
            out,
        );
    }
    print_summaries(&artifacts, out)?;
    for job in &unfinished {
        let state = if job.running {
            "running"
        } else {
            "interrupted"
        };
        let (short, bytes) = (job.fingerprint.short(), human(job.bytes));
        writeln!(
            out,
            "{:<16} {short} {bytes:>9}  {} ({state})",
            job.status.stage, job.status.label
        )?;
    }
    if artifacts.is_empty() && unfinished.is_empty() {
        writeln!(out, "the store at {} is empty", store.root().display())?;
    }
    Ok(())
}

fn size(store: &Store, json: bool, out: &mut dyn Write) -> Result<()> {
    let sizes = store.sizes()?;
    if json {
        return print_json(&sizes, out);
    }
    for (stage, artifacts, bytes) in &sizes.stages {
        writeln!(
            out,
            "{stage:<16} {artifacts:>6} artifacts {:>9}",
            human(*bytes)
        )?;
    }
    writeln!(
        out,
        "{:<16} {:>16} {:>9}",
        "unfinished",
        "",
        human(sizes.unfinished)
    )?;
    writeln!(
        out,
        "{:<16} {:>16} {:>9}",
        "damaged",
        "",
        human(sizes.damaged)
    )?;
    writeln!(out, "{:<16} {:>16} {:>9}", "total", "", human(sizes.total))?;
    Ok(())
}

fn verify(store: &Store, names: &[String], json: bool, out: &mut dyn Write) -> Result<ExitCode> {
    let verified = store.verify_all(names)?;
    if json {
        print_json(&verified, out)?;
    } else {
        for damage in &verified.damaged {
            writeln!(
                out,
                "{:<16} {} {}",
                damage.stage,
                damage.fingerprint.short(),
                damage.problems.join("; ")
            )?;
        }
        writeln!(
            out,
            "{} artifacts verified, {} damaged",
            verified.artifacts,
            verified.damaged.len()
        )?;
        if !verified.damaged.is_empty() {
            writeln!(out, "the next run that needs them makes them again")?;
        }
    }
    Ok(exit(if verified.damaged.is_empty() {
        DONE
    } else {
        FAILED
    }))
}

fn print_removal(removal: &Removal, done: bool, out: &mut dyn Write) -> Result<()> {
    print_summaries(&removal.artifacts, out)?;
    for fingerprint in &removal.unfinished {
        writeln!(out, "checkpoint       {}", fingerprint.short())?;
    }
    for name in &removal.damaged {
        writeln!(
            out,
            "damaged          {}",
            &name.chars().take(12).collect::<String>()
        )?;
    }
    for (fingerprint, holder) in &removal.held {
        writeln!(
            out,
            "left alone: {} is held by {holder}",
            fingerprint.short()
        )?;
    }
    if !removal.dependents.is_empty() {
        writeln!(out, "made from these, and kept:")?;
        print_summaries(&removal.dependents, out)?;
    }
    let things = removal.artifacts.len() + removal.unfinished.len() + removal.damaged.len();
    let freed = human(removal.bytes);
    if done {
        writeln!(out, "removed {things}, {freed} freed")?;
    } else {
        writeln!(
            out,
            "would remove {things} and free {freed}; say --yes to do it"
        )?;
    }
    Ok(())
}

fn print_summaries(summaries: &[Summary], out: &mut dyn Write) -> Result<()> {
    for summary in summaries {
        let diverged = if summary.diverged { " (diverged)" } else { "" };
        let (short, bytes) = (summary.fingerprint.short(), human(summary.bytes));
        writeln!(
            out,
            "{:<16} {short} {bytes:>9}  {}{diverged}",
            summary.stage, summary.label
        )?;
    }
    Ok(())
}

fn print_json<T: Serialize + ?Sized>(value: &T, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// "12 B", "3.4 MiB".
fn human(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // Not "1024.0 KiB".
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
