//! What is kept about an artifact: its whole payload, so that a later plan can say what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::disk;
use crate::fingerprint::{Fingerprint, canonical};
use crate::plan::{DataFile, Job};

/// The file whose presence makes a folder an artifact.
pub const RECORD: &str = "record.json";
/// A file of this name in an artifact says that the run met a number that is not finite.
pub const DIVERGED: &str = crate::stages::divergence::FILE;
/// Field of `record.json`: the hash of the others.
const SEAL: &str = "seal";

/// One per artifact, never changed once written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub fingerprint: Fingerprint,
    pub stage: String,
    /// The stage's version, raised by hand whenever what it writes changes.
    pub version: u32,
    pub settings: Value,
    /// Input artifacts by name.
    pub inputs: BTreeMap<String, Fingerprint>,
    /// Files of the user by name; the hash of their bytes.
    pub user_files: BTreeMap<String, Fingerprint>,
    /// For people; the label of the first study that asked for the job.
    pub label: String,
    /// What the artifact's folder holds besides its record.
    pub files: BTreeMap<String, StoredFile>,
    /// What the stage says about its work: counts, losses, tokens.
    pub facts: Value,
    /// Time the work took, interrupted parts included.
    pub seconds: f64,
    pub device: String,
    pub instruction_set: String,
    /// Of the program that finished the work.
    pub program_version: String,
    /// A checkpoint of another device or instruction set was continued: an uninterrupted run may give other bits.
    pub resumed_on_other_kind: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredFile {
    pub bytes: u64,
    pub blake3: Fingerprint,
}

impl Record {
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// The run met a number that is not finite; `facts.diverged` and [`DIVERGED`] say where.
    pub fn diverged(&self) -> bool {
        self.files.contains_key(DIVERGED)
    }

    /// JSON with a seal, so that a damaged record is noticed.
    pub fn to_json(&self) -> Result<String> {
        let mut value = serde_json::to_value(self).context("a record is JSON")?;
        value[SEAL] = json!(seal(&value));
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }

    /// Checks the seal, and that names lead nowhere else.
    pub fn from_json(text: &str) -> Result<Self> {
        let mut value: Value = serde_json::from_str(text).context("the record is not JSON")?;
        let object = value
            .as_object_mut()
            .context("the record is not a JSON object")?;
        let found = object
            .shift_remove(SEAL)
            .context("the record has no seal")?;
        if found != json!(seal(&value)) {
            bail!("the record is not what was written: its seal does not match");
        }
        let record: Self =
            serde_json::from_value(value).context("the record lacks a field of this version")?;
        disk::fingerprint(record.fingerprint.as_str())?;
        check_stage(&record.stage)?;
        for name in record.files.keys() {
            disk::check_relative(name)?;
            if name == RECORD {
                bail!("the record lists itself among the files");
            }
        }
        Ok(record)
    }

    /// Whether the fingerprint follows from the payload: a pack from elsewhere could claim any.
    pub(super) fn check_identity(&self) -> Result<()> {
        let file = |fingerprint: &Fingerprint| DataFile {
            path: PathBuf::new(),
            bytes: 0,
            fingerprint: fingerprint.clone(),
        };
        let files = self
            .user_files
            .iter()
            .map(|(name, fingerprint)| (name.clone(), file(fingerprint)))
            .collect();
        let follows = Job::identify(
            &self.stage,
            self.version,
            &self.settings,
            &self.inputs,
            &files,
        )?;
        if follows != self.fingerprint {
            bail!("its fingerprint does not follow from its settings and inputs");
        }
        Ok(())
    }

    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(RECORD);
        let text =
            fs::read_to_string(&path).map_err(|error| disk::trouble("read", &path, error))?;
        Self::from_json(&text).with_context(|| format!("cannot use {}", path.display()))
    }
}

fn seal(record: &Value) -> Fingerprint {
    Fingerprint::of_bytes(canonical(record).as_bytes())
}

/// Stage names are folder names.
fn check_stage(stage: &str) -> Result<()> {
    let plain = stage
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if stage.is_empty() || !plain {
        bail!(
            "`{}` is not a stage's name: letters, digits, _ and - only",
            stage.escape_default()
        );
    }
    Ok(())
}

/// The record of the same stage that shares most with a job, and what differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Nearest<'a> {
    pub record: &'a Record,
    /// Sorted by field; empty only when the record is the job's own.
    pub differences: Vec<Difference>,
}

/// A field such as `settings.model.layers`, as JSON text before and now; `None` where it is absent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub field: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Why a job must run although its stage ran before. Ties go to the lower fingerprint, so that the answer is stable.
pub fn nearest<'a>(job: &Job, records: &'a [Record]) -> Option<Nearest<'a>> {
    let files: BTreeMap<&String, &Fingerprint> = job
        .files
        .iter()
        .map(|(name, file)| (name, &file.fingerprint))
        .collect();
    let new = fields(&json!({
        "version": job.version, "settings": job.settings, "inputs": job.inputs, "files": files,
    }));
    records
        .iter()
        .filter(|record| record.stage == job.stage)
        .map(|record| {
            let old = fields(&json!({
                "version": record.version, "settings": record.settings, "inputs": record.inputs, "files": record.user_files,
            }));
            Nearest { record, differences: differences(&old, &new) }
        })
        .min_by_key(|nearest| (nearest.differences.len(), nearest.record.fingerprint.clone()))
}

fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| Difference {
            field: name.clone(),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect()
}

/// Every scalar of a JSON value by its path.
fn fields(value: &Value) -> BTreeMap<String, String> {
    fn collect(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    collect(path, value, into);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, value) in items.iter().enumerate() {
                    collect(format!("{path}[{index}]"), value, into);
                }
            }
            scalar => {
                into.insert(path, scalar.to_string());
            }
        }
    }
    let mut into = BTreeMap::new();
    collect(String::new(), value, &mut into);
    into
}
