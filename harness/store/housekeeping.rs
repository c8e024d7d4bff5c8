//! What is in a store, how much room it takes, and removing some of it.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use serde::Serialize;

use super::lock::{self, Lock};
use super::{Artifact, Condition, Record, Store, disk};
use crate::fingerprint::Fingerprint;

/// Fewer digits than this select nothing: a slip would select too much.
const SHORTEST_PREFIX: usize = 4;

/// One line of `xlt store list`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Summary {
    pub stage: String,
    pub fingerprint: Fingerprint,
    pub label: String,
    pub bytes: u64,
    pub diverged: bool,
}

/// Bytes on disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Sizes {
    /// Per stage: its name, the number of its artifacts and their bytes.
    pub stages: Vec<(String, usize, u64)>,
    /// Outputs and checkpoints of jobs at work or interrupted.
    pub unfinished: u64,
    pub damaged: u64,
    pub total: u64,
}

/// What hashing found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Artifacts looked at.
    pub artifacts: usize,
    pub damaged: Vec<Damage>,
}

/// An artifact that is not what was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    pub stage: String,
    pub fingerprint: Fingerprint,
    /// Each names a file.
    pub problems: Vec<String>,
}

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Stages, or the first digits of fingerprints (at least four).
    pub names: Vec<String>,
    /// Every artifact; `names` must be empty.
    pub all: bool,
    /// Not artifacts but the checkpoints of interrupted jobs: those that `names` select, or all of them.
    pub unfinished: bool,
    /// Also what was set aside because its contents were not what was recorded.
    pub damaged: bool,
}

/// What was, or would be, removed.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Removal {
    pub artifacts: Vec<Summary>,
    /// Interrupted jobs that lose their checkpoints.
    pub unfinished: Vec<Fingerprint>,
    /// Folders of artifacts that were set aside.
    pub damaged: Vec<String>,
    /// Left alone because a live process reads or makes it, with who that is.
    pub held: Vec<(Fingerprint, String)>,
    /// What stays and was made from something removed: still good, but making it again needs the removed first.
    pub dependents: Vec<Summary>,
    pub bytes: u64,
}

impl Store {
    /// Finished artifacts, by stage and fingerprint. Those without a readable record are left out; `verify` names them.
    pub fn artifacts(&self) -> Result<Vec<Artifact>> {
        let mut artifacts = Vec::new();
        for (_, fingerprint) in self.entries()? {
            artifacts.extend(self.find(&fingerprint)?);
        }
        Ok(artifacts)
    }

    /// Records of finished artifacts, for [`super::nearest`].
    pub fn records(&self) -> Result<Vec<Record>> {
        Ok(self
            .artifacts()?
            .into_iter()
            .map(|artifact| artifact.record)
            .collect())
    }

    pub fn list(&self) -> Result<Vec<Summary>> {
        Ok(self.artifacts()?.iter().map(Artifact::summary).collect())
    }

    pub fn sizes(&self) -> Result<Sizes> {
        let mut sizes = Sizes::default();
        for stage in disk::names(&self.root.join("artifacts"))? {
            let folder = self.root.join("artifacts").join(&stage);
            sizes
                .stages
                .push((stage, disk::names(&folder)?.len(), disk::size(&folder)));
        }
        sizes.unfinished = disk::size(&self.root.join("work"));
        sizes.damaged = disk::size(&self.root.join("damaged"));
        sizes.total = disk::size(&self.root);
        Ok(sizes)
    }

    /// Hashes what `names` select, or everything when empty.
    pub fn verify_all(&self, names: &[String]) -> Result<Verification> {
        let entries = self.entries()?;
        let chosen = if names.is_empty() {
            entries
        } else {
            select(&entries, names)?
        };
        let mut verification = Verification {
            artifacts: chosen.len(),
            damaged: Vec::new(),
        };
        for (stage, fingerprint) in chosen {
            if let Condition::Damaged { problems, .. } = self.verify(&fingerprint)? {
                verification.damaged.push(Damage {
                    stage,
                    fingerprint,
                    problems,
                });
            }
        }
        Ok(verification)
    }

    /// The artifacts that `names` select; with `with_inputs` also everything they were made from that is still there.
    pub fn select(&self, names: &[String], with_inputs: bool) -> Result<Vec<Artifact>> {
        let mut left: Vec<Fingerprint> = select(&self.entries()?, names)?
            .into_iter()
            .map(|(_, fingerprint)| fingerprint)
            .collect();
        let mut seen = BTreeSet::new();
        let mut artifacts = Vec::new();
        while let Some(fingerprint) = left.pop() {
            if !seen.insert(fingerprint.clone()) {
                continue;
            }
            if let Some(artifact) = self.find(&fingerprint)? {
                if with_inputs {
                    left.extend(artifact.record.inputs.values().cloned());
                }
                artifacts.push(artifact);
            }
        }
        artifacts.sort_by_key(Artifact::summary);
        Ok(artifacts)
    }

    /// Removes artifacts or checkpoints, or only says what would go. Nothing that a live process holds is touched.
    pub fn remove(&self, selection: &Selection, dry_run: bool) -> Result<Removal> {
        let mut removal = Removal::default();
        if selection.unfinished {
            self.remove_unfinished(selection, dry_run, &mut removal)?;
        } else {
            self.remove_artifacts(selection, dry_run, &mut removal)?;
        }
        if selection.damaged {
            for name in disk::names(&self.root.join("damaged"))? {
                let folder = self.root.join("damaged").join(&name);
                removal.bytes += disk::size(&folder);
                if !dry_run {
                    disk::remove_folder(&folder)?;
                }
                removal.damaged.push(name);
            }
        }
        Ok(removal)
    }

    fn remove_artifacts(
        &self,
        selection: &Selection,
        dry_run: bool,
        removal: &mut Removal,
    ) -> Result<()> {
        let entries = self.entries()?;
        let chosen = match (selection.all, selection.names.is_empty()) {
            (true, false) => bail!("name artifacts or say --all, not both"),
            (true, true) => entries,
            (false, true) if selection.damaged => return Ok(()),
            (false, _) => select(&entries, &selection.names)?,
        };
        let all = self.artifacts()?;
        let mut gone = BTreeSet::new();
        for (stage, fingerprint) in chosen {
            let path = self.lock_path(&fingerprint);
            let folder = self.artifact_folder(&stage, &fingerprint);
            // A dry run takes no lock, so it works on a store that cannot be written.
            let lock = if dry_run {
                None
            } else {
                Lock::exclusive(&path)?
            };
            if lock.is_none() && (!dry_run || lock::is_held(&path, true)?) {
                removal.held.push((fingerprint, lock::holder(&path)));
                continue;
            }
            let summary = match all
                .iter()
                .find(|artifact| artifact.record.fingerprint == fingerprint)
            {
                Some(artifact) => artifact.summary(),
                None => Summary {
                    stage,
                    fingerprint: fingerprint.clone(),
                    label: "without a readable record".to_owned(),
                    bytes: 0,
                    diverged: false,
                },
            };
            removal.bytes += disk::size(&folder);
            if !dry_run {
                self.forget(&fingerprint);
                self.discard(&folder, &fingerprint)?;
            }
            gone.insert(fingerprint);
            removal.artifacts.push(summary);
        }
        let depends = |artifact: &&Artifact| {
            let record = &artifact.record;
            !gone.contains(&record.fingerprint)
                && record.inputs.values().any(|input| gone.contains(input))
        };
        removal.dependents = all.iter().filter(depends).map(Artifact::summary).collect();
        Ok(())
    }

    fn remove_unfinished(
        &self,
        selection: &Selection,
        dry_run: bool,
        removal: &mut Removal,
    ) -> Result<()> {
        let jobs = self.unfinished()?;
        let entries: Vec<(String, Fingerprint)> = jobs
            .iter()
            .map(|job| (job.status.stage.clone(), job.fingerprint.clone()))
            .collect();
        let chosen = if selection.names.is_empty() {
            entries
        } else {
            select(&entries, &selection.names)?
        };
        for (_, fingerprint) in chosen {
            let path = self.lock_path(&fingerprint);
            let lock = if dry_run {
                None
            } else {
                Lock::exclusive(&path)?
            };
            if lock.is_none() && (!dry_run || lock::is_held(&path, true)?) {
                removal.held.push((fingerprint, lock::holder(&path)));
                continue;
            }
            let work = self.work_folder(&fingerprint);
            removal.bytes += disk::size(&work);
            if !dry_run {
                disk::remove_folder(&work)?;
            }
            removal.unfinished.push(fingerprint);
        }
        Ok(())
    }

    /// Stage and fingerprint of whatever has a record.
    fn entries(&self) -> Result<Vec<(String, Fingerprint)>> {
        let mut entries = Vec::new();
        for stage in disk::names(&self.root.join("artifacts"))? {
            for name in disk::names(&self.root.join("artifacts").join(&stage))? {
                if let Ok(fingerprint) = disk::fingerprint(&name)
                    && self
                        .artifact_folder(&stage, &fingerprint)
                        .join(super::RECORD)
                        .exists()
                {
                    entries.push((stage.clone(), fingerprint));
                }
            }
        }
        Ok(entries)
    }
}

impl Artifact {
    pub fn summary(&self) -> Summary {
        let record = &self.record;
        Summary {
            stage: record.stage.clone(),
            fingerprint: record.fingerprint.clone(),
            label: record.label.clone(),
            bytes: record.bytes(),
            diverged: record.diverged(),
        }
    }
}

fn select(
    entries: &[(String, Fingerprint)],
    names: &[String],
) -> Result<Vec<(String, Fingerprint)>> {
    let mut chosen = BTreeSet::new();
    for name in names {
        let by_stage: Vec<_> = entries.iter().filter(|(stage, _)| stage == name).collect();
        let by_digits: Vec<_> = entries
            .iter()
            .filter(|(_, fingerprint)| fingerprint.as_str().starts_with(name))
            .collect();
        match (by_stage.is_empty(), by_digits.as_slice()) {
            (false, _) => chosen.extend(by_stage.into_iter().cloned()),
            (true, []) => bail!(
                "nothing in the store is of stage or fingerprint `{name}`; `xlt store list` shows what there is"
            ),
            (true, _) if name.len() < SHORTEST_PREFIX => {
                bail!(
                    "`{name}` is too short for a fingerprint: give at least {SHORTEST_PREFIX} digits"
                )
            }
            (true, [one]) => {
                chosen.insert((*one).clone());
            }
            (true, several) => {
                let several: Vec<&str> = several
                    .iter()
                    .map(|(_, fingerprint)| fingerprint.short())
                    .collect();
                bail!(
                    "`{name}` could be any of {}; give more digits",
                    several.join(", ")
                );
            }
        }
    }
    if names.is_empty() {
        bail!("name stages or fingerprints; `xlt store list` shows them");
    }
    Ok(chosen.into_iter().collect())
}
