//! `xlt report`: tables, plots, claims and pages from the scores of a results folder; `--check` compares instead of writing.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use super::{DONE, STALE, StudyArguments, command_line, exit};
use crate::report::claims::Judgement;
use crate::report::provenance::settings_fingerprint;
use crate::report::results::Results;
use crate::report::{self, Files, ReportInput, Stale};
use crate::spec::Study;
use crate::spec::settings::Scale;

#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub study: StudyArguments,
    /// Write nothing; fail when a file of the results folder does not follow from its scores
    #[arg(long)]
    pub check: bool,
}

/// What tables and plots call variants.
pub fn labels(study: &Study) -> BTreeMap<String, String> {
    study
        .variants
        .iter()
        .map(|variant| (variant.name.clone(), variant.label.clone()))
        .collect()
}

/// The generated files of a study's results, and the verdicts.
pub fn rendered(study: &Study, results: &Results) -> Result<(Files, Vec<Judgement>)> {
    let labels = labels(study);
    let input = ReportInput {
        results,
        claims: &study.claims,
        tables: &study.tables,
        labels: &labels,
        anchors: &study.anchors,
        profile_is_paper: study.scale == Scale::Paper,
    };
    report::render(&input)
}

pub fn run(arguments: &Arguments, output: &mut dyn Write) -> Result<ExitCode> {
    let study = arguments.study.read()?;
    let folder = arguments.study.folder(&study);
    let run = command_line("run", &arguments.study, &study);
    let results = Results::read(&folder)
        .with_context(|| format!("no results in {}; make them with `{run}`", folder.display()))?;
    let (files, _) = rendered(&study, &results)?;
    if !arguments.check {
        report::write(&folder, &files)?;
        if arguments.study.json {
            writeln!(
                output,
                "{}",
                json!({"folder": folder, "files": files.keys().collect::<Vec<_>>()})
            )?;
        } else {
            writeln!(output, "{}", folder.join("report.html").display())?;
        }
        return Ok(exit(DONE));
    }
    let mend = command_line("report", &arguments.study, &study);
    let mut stale: Vec<Stale> = report::settings_match(
        &results.manifest,
        settings_fingerprint(&study)?.as_str(),
        &run,
    )
    .into_iter()
    .collect();
    stale.extend(report::check(&folder, &results, &files, &mend, &run)?);
    if arguments.study.json {
        let list: Vec<_> = stale.iter().map(|stale| json!({"file": stale.file, "difference": stale.difference, "command": stale.command})).collect();
        writeln!(output, "{}", json!({"folder": folder, "stale": list}))?;
    } else {
        for stale in &stale {
            writeln!(
                output,
                "stale: {}: {}; mend it with `{}`",
                folder.join(&stale.file).display(),
                stale.difference,
                stale.command
            )?;
        }
        if stale.is_empty() {
            writeln!(
                output,
                "{}: {} files follow from the scores",
                folder.display(),
                files.len()
            )?;
        }
    }
    Ok(exit(if stale.is_empty() { DONE } else { STALE }))
}
