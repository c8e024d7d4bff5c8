//! The jobs of a study, in order: `data.rs` those that prepare text, `training.rs` those that pretrain,
//! fine-tune and evaluate, `probes.rs` those that measure pretrained models as they are, `translation.rs` those that train and test translation models and translate with them.

mod data;
mod probes;
mod training;
mod translation;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::to_value;

use crate::fingerprint::Fingerprint;
use crate::plan::estimate::Estimate;
use crate::plan::hashes::FileHashes;
use crate::plan::{DataFile, Job, Plan};
use crate::spec::document::Node;
use crate::spec::{Problem, SpecError, Study};

/// Data that a study asks for and nobody supplies, each at the place of the section that should name it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the study asks for data that nobody supplies:\n{0}")]
pub struct Missing(pub SpecError);

/// Plans a study. `root` is where relative paths of data start; none means the working folder.
///
/// # Errors
/// [`Missing`] with every language and role that has no data; files that cannot be read.
pub fn build(study: &Study, root: Option<&Path>, hashes: &mut FileHashes) -> Result<Plan> {
    let mut builder = Builder {
        plan: Plan::default(),
        known: BTreeSet::new(),
        missing: Vec::new(),
        document: None,
        study,
        translator: None,
        root,
        hashes,
    };
    for variant in &study.variants {
        builder.document = Some(&variant.document);
        builder.variant(&variant.name, &variant.settings)?;
    }
    builder.hashes.keep();
    if !builder.missing.is_empty() {
        let mut missing = builder.missing;
        missing.sort_by(|a, b| (a.place, &a.message).cmp(&(b.place, &b.message)));
        return Err(Missing(study.wrong(missing)).into());
    }
    Ok(builder.plan)
}

struct Builder<'a> {
    plan: Plan,
    known: BTreeSet<Fingerprint>,
    missing: Vec<Problem>,
    /// Of the variant that is being planned.
    document: Option<&'a Node>,
    study: &'a Study,
    /// The study's translator once it is planned: its training and its test.
    translator: Option<(Fingerprint, Option<Fingerprint>)>,
    root: Option<&'a Path>,
    hashes: &'a mut FileHashes,
}

/// Input artifacts of a job by name.
type Inputs = BTreeMap<String, Fingerprint>;
/// Files of the user by name.
type Files = BTreeMap<String, DataFile>;

/// A placeholder for the artifact of data that is missing: planning goes on, so that everything missing is told at once.
fn nothing() -> Fingerprint {
    Fingerprint::of_bytes(b"missing")
}

impl Builder<'_> {
    fn add(
        &mut self,
        (stage, version): (&str, u32),
        settings: &impl Serialize,
        inputs: Inputs,
        files: Files,
        label: String,
        estimate: Estimate,
    ) -> Result<Fingerprint> {
        let settings =
            to_value(settings).with_context(|| format!("the settings of {label} are not JSON"))?;
        let fingerprint = Job::identify(stage, version, &settings, &inputs, &files)?;
        if self.known.insert(fingerprint.clone()) {
            let label = self.unused(label);
            self.plan.jobs.push(Job {
                stage: stage.to_owned(),
                version,
                settings,
                inputs,
                files,
                fingerprint: fingerprint.clone(),
                label,
                estimate,
            });
        }
        Ok(fingerprint)
    }

    fn hashed(&mut self, files: BTreeMap<String, PathBuf>) -> Result<Files> {
        files
            .into_iter()
            .map(|(name, path)| Ok((name, self.hashes.of(&path)?)))
            .collect()
    }

    /// Adds a job that prepares data; what its record counts is printed in the report under its name.
    fn add_data(
        &mut self,
        stage: (&str, u32),
        settings: &impl Serialize,
        (inputs, files): (Inputs, Files),
        name: String,
    ) -> Result<Fingerprint> {
        let none = Estimate::default();
        let job = self.add(stage, settings, inputs, files, name.clone(), none)?;
        let named = self.plan.data_jobs.get(&name);
        let name = match (named, self.plan.job(&job)) {
            (Some(other), Some(added)) if *other != job => added.label.clone(),
            _ => name,
        };
        self.plan.data_jobs.insert(name, job.clone());
        Ok(job)
    }

    /// A job's label that no other job has: variants may prepare the same thing from other data.
    fn unused(&self, label: String) -> String {
        let taken = |label: &str| self.plan.jobs.iter().any(|job| job.label == label);
        let numbered = (2..).map(|number| format!("{label} ({number})"));
        let mut labels = std::iter::once(label.clone()).chain(numbered);
        labels.find(|label| !taken(label)).unwrap_or(label)
    }
}
