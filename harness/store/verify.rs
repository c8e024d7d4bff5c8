//! Contents are verified when read: sizes and BLAKE3 hashes against the record.
//!
//! A stamp (sizes and times of the files whose hashes were right) spares a second run the hashing; what a job reads as
//! an input is hashed once per process whatever the stamp says, since a failing disk changes no times.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::UNIX_EPOCH;

use anyhow::Result;

use super::record::RECORD;
use super::{Artifact, Record, Store, disk};
use crate::fingerprint::Fingerprint;

/// What is in the store under a fingerprint.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Missing,
    Sound(Box<Artifact>),
    /// `problems` name the files: "model.safetensors holds 12 of 40 bytes".
    Damaged {
        folder: PathBuf,
        problems: Vec<String>,
    },
}

/// Bytes and time of change of each file, the record included.
type Stamp = BTreeMap<String, (u64, u128)>;

impl Store {
    /// Looks at sizes and times, and hashes what changed since it was last found right.
    pub fn condition(&self, fingerprint: &Fingerprint) -> Result<Condition> {
        self.examine(fingerprint, false)
    }

    /// Hashes every file, once per process.
    pub fn verify(&self, fingerprint: &Fingerprint) -> Result<Condition> {
        let hashed = self
            .hashed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(fingerprint);
        self.examine(fingerprint, !hashed)
    }

    fn examine(&self, fingerprint: &Fingerprint, hash: bool) -> Result<Condition> {
        let Some(folder) = self.folder_of(fingerprint)? else {
            return Ok(Condition::Missing);
        };
        let record = match Record::read(&folder) {
            Ok(record) if record.fingerprint == *fingerprint => record,
            Ok(record) => {
                let problem = format!("{RECORD} is that of {}", record.fingerprint);
                return Ok(Condition::Damaged {
                    folder,
                    problems: vec![problem],
                });
            }
            // Removed by another process since.
            Err(_) if !folder.join(RECORD).exists() => return Ok(Condition::Missing),
            Err(error) => {
                return Ok(Condition::Damaged {
                    folder,
                    problems: vec![format!("{error:#}")],
                });
            }
        };
        let mut problems = sizes(&folder, &record);
        if problems.is_empty() {
            let stamp = stamp(&folder, &record);
            if hash || stamp.is_none() || stamp != self.stamp_of(fingerprint) {
                problems = hashes(&folder, &record)?;
                if problems.is_empty() {
                    self.found_right(&folder, &record);
                }
            }
        }
        if problems.is_empty() {
            Ok(Condition::Sound(Box::new(Artifact { folder, record })))
        } else {
            // The next look must not trust a stamp that a failing disk left true.
            self.forget(fingerprint);
            Ok(Condition::Damaged { folder, problems })
        }
    }

    /// Remembers that an artifact's hashes are right. A stamp that cannot be written only costs time.
    pub(super) fn found_right(&self, folder: &Path, record: &Record) {
        self.hashed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(record.fingerprint.clone());
        if let Some(text) = stamp(folder, record).and_then(|stamp| serde_json::to_vec(&stamp).ok())
        {
            let _ = fs::write(self.stamp_path(&record.fingerprint), text);
        }
    }

    pub(super) fn forget(&self, fingerprint: &Fingerprint) {
        self.hashed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(fingerprint);
        let _ = fs::remove_file(self.stamp_path(fingerprint));
    }

    fn stamp_of(&self, fingerprint: &Fingerprint) -> Option<Stamp> {
        serde_json::from_slice(&fs::read(self.stamp_path(fingerprint)).ok()?).ok()
    }

    fn stamp_path(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.root
            .join("verified")
            .join(format!("{fingerprint}.json"))
    }
}

fn sizes(folder: &Path, record: &Record) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, expected) in &record.files {
        match fs::symlink_metadata(folder.join(name)) {
            Ok(found) if !found.is_file() => problems.push(format!("{name} is not a file")),
            Ok(found) if found.len() != expected.bytes => {
                problems.push(format!(
                    "{name} holds {} of {} bytes",
                    found.len(),
                    expected.bytes
                ));
            }
            Ok(_) => {}
            Err(error) => problems.push(format!("{name} is missing ({error})")),
        }
    }
    problems
}

fn hashes(folder: &Path, record: &Record) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, expected) in &record.files {
        if disk::hash(&folder.join(name))? != expected.blake3 {
            problems.push(format!(
                "{name} is not what was written: its hash does not match"
            ));
        }
    }
    Ok(problems)
}

/// `None` when a time cannot be had.
fn stamp(folder: &Path, record: &Record) -> Option<Stamp> {
    let names = record.files.keys().map(String::as_str).chain([RECORD]);
    names
        .map(|name| {
            let metadata = fs::metadata(folder.join(name)).ok()?;
            let changed = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some((name.to_owned(), (metadata.len(), changed.as_nanos())))
        })
        .collect()
}
