//! `xlt plan`: what would run, why, how long and how much memory, without training.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use super::run::MachineArguments;
use super::{DONE, StudyArguments, exit};
use crate::execution::progress::duration_of;
use crate::fingerprint::Fingerprint;
use crate::kernels::Precision;
use crate::plan::{Job, Plan, calibration};
use crate::spec::Variant;
use crate::store::{Record, Store, nearest};

#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub study: StudyArguments,
    #[command(flatten)]
    pub machine: MachineArguments,
    /// Print every setting of a variant with the line it came from, and nothing else
    #[arg(long, value_name = "VARIANT")]
    pub resolved: Option<String>,
}

/// Whether a job runs, and why.
#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Reused {
        seconds: f64,
    },
    /// There is something to continue from.
    Resumed,
    ToRun {
        why: String,
    },
}

pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<ExitCode> {
    let study = arguments.study.read()?;
    if let Some(name) = &arguments.resolved {
        let variant = study
            .variants
            .iter()
            .find(|variant| variant.name == *name)
            .with_context(|| {
                let names: Vec<&str> = study
                    .variants
                    .iter()
                    .map(|variant| variant.name.as_str())
                    .collect();
                format!("no variant `{name}`; the study has: {}", names.join(", "))
            })?;
        for (path, value, place) in variant.document.leaves() {
            writeln!(
                output,
                "{path}: {value}    # {}:{}",
                study.file.display(),
                place.line
            )?;
        }
        return Ok(exit(DONE));
    }
    let plan = arguments.study.plan(&study)?;
    let store = arguments.study.open_store()?;
    let threads = arguments.machine.threads()?;
    let device = arguments.machine.device.open(threads)?;
    let fates = fates(&plan, &store)?;
    let rate = {
        let hidden = study
            .variants
            .iter()
            .map(|variant| variant.settings.model.hidden)
            .max()
            .unwrap_or(1);
        let rounds = |variant: &Variant| {
            let pretrain = variant.settings.pretrain.settings();
            pretrain.is_some_and(|pretrain| pretrain.precision == Precision::Bf16)
        };
        let precision = match study.variants.iter().any(rounds) {
            true => Precision::Bf16,
            false => Precision::F32,
        };
        calibration::operations_per_second(
            &device,
            hidden,
            precision,
            &arguments.study.store.join("layout.calibration"),
        )?
    };
    let on_card = device.card().is_some();
    let seconds = |job: &Job| job.estimate.operations(on_card) / rate;
    let to_run: Vec<&Job> = plan
        .jobs
        .iter()
        .filter(|job| !matches!(fates[&job.fingerprint], Fate::Reused { .. }))
        .collect();
    let total: f64 = to_run.iter().map(|job| seconds(job)).sum();
    let memory = to_run
        .iter()
        .map(|job| job.estimate.memory_bytes(on_card))
        .max()
        .unwrap_or(0);

    if arguments.study.json {
        let jobs: Vec<_> = plan
            .jobs
            .iter()
            .map(|job| {
                let (state, why) = match &fates[&job.fingerprint] {
                    Fate::Reused { .. } => ("reused", String::new()),
                    Fate::Resumed => ("resumed", String::new()),
                    Fate::ToRun { why } => ("to_run", why.clone()),
                };
                json!({
                    "label": job.label,
                    "stage": job.stage,
                    "fingerprint": job.fingerprint,
                    "inputs": job.inputs,
                    "state": state,
                    "why": why,
                    "estimate": job.estimate,
                    "estimated_seconds": seconds(job),
                })
            })
            .collect();
        let all = json!({"study": study.name, "profile": study.profile, "device": device.description(), "jobs": jobs, "estimated_seconds": total, "peak_memory_bytes": memory});
        writeln!(output, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(exit(DONE));
    }
    let mut printer = Printer {
        plan: &plan,
        fates: &fates,
        rate,
        on_card,
        shown: BTreeSet::new(),
        output,
    };
    let used: BTreeSet<&Fingerprint> = plan
        .jobs
        .iter()
        .flat_map(|job| job.inputs.values())
        .collect();
    for job in plan
        .jobs
        .iter()
        .filter(|job| !used.contains(&job.fingerprint))
    {
        printer.tree(job, "", "")?;
    }
    writeln!(
        output,
        "{} {}: {} jobs to run, {} reused; training takes about {} on {} ({threads} threads, {:.0} GFLOP/s), {} of {} at most",
        study.name,
        study.profile,
        to_run.len(),
        plan.jobs.len() - to_run.len(),
        duration_of(total),
        device.description(),
        rate / 1e9,
        bytes(memory),
        if on_card { "a card's memory" } else { "memory" }
    )?;
    Ok(exit(DONE))
}

fn fates(plan: &Plan, store: &Store) -> Result<BTreeMap<Fingerprint, Fate>> {
    let records: Vec<Record> = store.records()?;
    let unfinished: BTreeSet<Fingerprint> = store
        .unfinished()?
        .into_iter()
        .filter(|job| job.checkpoint)
        .map(|job| job.fingerprint)
        .collect();
    let mut fates = BTreeMap::new();
    for job in &plan.jobs {
        let fate = match store.find(&job.fingerprint)? {
            Some(artifact) => Fate::Reused {
                seconds: artifact.record.seconds,
            },
            None if unfinished.contains(&job.fingerprint) => Fate::Resumed,
            None => Fate::ToRun {
                why: why(job, plan, &records),
            },
        };
        fates.insert(job.fingerprint.clone(), fate);
    }
    Ok(fates)
}

/// What differs from the nearest artifact there is.
fn why(job: &Job, plan: &Plan, records: &[Record]) -> String {
    let Some(nearest) = nearest(job, records) else {
        return "nothing like it in the store".into();
    };
    let Some(first) = nearest.differences.first() else {
        return "nothing like it in the store".into();
    };
    // A changed input is explained where the input itself is listed.
    if let Some(name) = first.field.strip_prefix("inputs.")
        && let Some(input) = job.inputs.get(name).and_then(|input| plan.job(input))
    {
        return format!("its input changed: {}", input.label);
    }
    let shown = |value: &Option<String>| {
        value.as_deref().map_or_else(
            || "absent".to_owned(),
            |value| value.chars().take(60).collect(),
        )
    };
    let others = match nearest.differences.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} more"),
    };
    format!(
        "{} is {}, was {}{others}",
        first.field,
        shown(&first.new),
        shown(&first.old)
    )
}

struct Printer<'a> {
    plan: &'a Plan,
    fates: &'a BTreeMap<Fingerprint, Fate>,
    rate: f64,
    /// Whether models train in a card's memory.
    on_card: bool,
    shown: BTreeSet<Fingerprint>,
    output: &'a mut dyn Write,
}

impl Printer<'_> {
    fn tree(&mut self, job: &Job, branch: &str, below: &str) -> Result<()> {
        let first_time = self.shown.insert(job.fingerprint.clone());
        let fate = match &self.fates[&job.fingerprint] {
            _ if !first_time => "above".to_owned(),
            Fate::Reused { seconds } => format!("reused, took {}", duration_of(*seconds)),
            Fate::Resumed => format!("to go on{}", self.costs(job)),
            Fate::ToRun { why } => format!("to run: {why}{}", self.costs(job)),
        };
        writeln!(self.output, "{branch}{} [{fate}]", job.label)?;
        if !first_time {
            return Ok(());
        }
        // Evaluation sets are excluded from training text all over; they are listed where they are used to evaluate.
        let mut inputs: Vec<&Fingerprint> = job
            .inputs
            .iter()
            .filter(|(name, _)| !name.starts_with("exclude:"))
            .map(|(_, input)| input)
            .collect();
        inputs.dedup();
        let inputs: Vec<&Job> = inputs
            .into_iter()
            .filter_map(|input| self.plan.job(input))
            .collect();
        for (index, input) in inputs.iter().enumerate() {
            let last = index + 1 == inputs.len();
            self.tree(
                input,
                &format!("{below}{}", if last { "└─ " } else { "├─ " }),
                &format!("{below}{}", if last { "   " } else { "│  " }),
            )?;
        }
        Ok(())
    }

    fn costs(&self, job: &Job) -> String {
        let estimate = &job.estimate;
        if estimate.tokens == 0 {
            return String::new();
        }
        let operations = estimate.operations(self.on_card);
        let seconds = operations / self.rate;
        format!(
            "; {:.1} M parameters, {:.1} M tokens, {:.1} TFLOP, {}, {}",
            estimate.parameters as f64 / 1e6,
            estimate.tokens as f64 / 1e6,
            operations / 1e12,
            duration_of(seconds),
            bytes(estimate.memory_bytes(self.on_card))
        )
    }
}

/// "310 MB", "4.2 GB".
pub(super) fn bytes(bytes: u64) -> String {
    if bytes < 1 << 30 {
        format!("{} MB", bytes.div_ceil(1_000_000))
    } else {
        format!("{:.1} GB", bytes as f64 / 1e9)
    }
}
