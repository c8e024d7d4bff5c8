//! `xlt check`: the verdicts of a study's claims; fails when a gate is contradicted.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::json;

use super::report::rendered;
use super::{CONTRADICTED, DONE, StudyArguments, command_line, exit};
use crate::report::claims::gates;
use crate::report::results::Results;

pub fn run(arguments: &StudyArguments, output: &mut dyn Write) -> Result<ExitCode> {
    let study = arguments.read()?;
    let folder = arguments.folder(&study);
    let results = Results::read(&folder).with_context(|| {
        format!(
            "no results in {}; make them with `{}`",
            folder.display(),
            command_line("run", arguments, &study)
        )
    })?;
    let (_, judgements) = rendered(&study, &results)?;
    let gates = gates(&judgements);
    let contradicted = gates.iter().any(|gate| gate.failed);
    if arguments.json {
        let claims: Vec<_> = judgements
            .iter()
            .map(|judgement| json!({"says": judgement.says, "verdict": judgement.wording}))
            .collect();
        let gates: Vec<_> = gates
            .iter()
            .map(|gate| json!({"says": gate.says, "failed": gate.failed}))
            .collect();
        writeln!(output, "{}", json!({"claims": claims, "gates": gates}))?;
    } else {
        for judgement in &judgements {
            writeln!(output, "{}: {}", judgement.says, judgement.wording)?;
        }
        for gate in gates.iter().filter(|gate| gate.failed) {
            writeln!(output, "gate contradicted: {}", gate.says)?;
        }
    }
    Ok(exit(if contradicted { CONTRADICTED } else { DONE }))
}
