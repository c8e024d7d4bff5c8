//! The command line of `xlt`: parses, dispatches, owns stdout and stderr and the exit code.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xlt::commands::{self, StudyArguments};
use xlt::store::Store;

/// Reproduces studies of cross-lingual transfer: one YAML file declares a study; `xlt run` executes it and writes tables,
/// plots and a verdict for each claim.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Start with: xlt run experiments/quickstart.yaml\n\nExit codes: 0 done, 1 a job failed, 2 cannot be done as asked, 3 stale results, 4 a gate contradicted, 130 interrupted."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run what a study asks for and is not done yet, then write its results
    Run(commands::run::Arguments),
    /// Show what would run, why, how long and how much memory, without training
    Plan(commands::plan::Arguments),
    /// Show what is running, done and waiting
    Status(commands::status::Arguments),
    /// Rebuild tables, plots, claims and pages from the scores of a study
    Report(commands::report::Arguments),
    /// Print the verdicts of a study's claims; fails when a gate is contradicted
    Check(StudyArguments),
    /// List the cells of two results whose difference is larger than its interval
    Compare(commands::compare::Args),
    /// Print what a study file may say: a JSON Schema for editors, or a page for people
    Schema(commands::schema::Arguments),
    /// Compare what a card computes with what the processor does, and print one table
    Selftest(commands::selftest::Arguments),
    /// Measure how fast training and prediction are on this machine
    Bench(commands::bench::Arguments),
    /// List, measure, verify, remove, pack and unpack artifacts
    Store {
        /// Folder of finished and unfinished artifacts
        #[arg(long, env = "XLT_STORE", default_value = ".xlt", global = true)]
        store: PathBuf,
        #[command(flatten)]
        arguments: commands::store::Arguments,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut output = io::stdout().lock();
    match dispatch(&arguments.command, &mut output).and_then(|code| {
        output.flush()?;
        Ok(code)
    }) {
        Ok(code) => code,
        // Whoever reads stdout has read enough (`xlt plan ... | head`).
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            commands::exit(commands::REFUSED)
        }
    }
}

fn dispatch(command: &Command, output: &mut dyn Write) -> Result<ExitCode> {
    match command {
        Command::Run(arguments) => commands::run::run(arguments, output),
        Command::Plan(arguments) => commands::plan::run(arguments, output),
        Command::Report(arguments) => commands::report::run(arguments, output),
        Command::Check(arguments) => commands::check::run(arguments, output),
        Command::Compare(arguments) => {
            commands::compare::run(arguments, output).map(|()| ExitCode::SUCCESS)
        }
        Command::Schema(arguments) => {
            commands::schema::run(*arguments, output).map(|()| ExitCode::SUCCESS)
        }
        Command::Selftest(arguments) => commands::selftest::run(arguments, output),
        Command::Bench(arguments) => commands::bench::run(arguments, output),
        Command::Store { store, arguments } => {
            commands::store::run(arguments, &Store::open(store)?, output)
        }
        Command::Status(arguments) => commands::status::run(arguments, output),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
