//! Where one job is done: an empty output folder, checkpoints that outlive the process, and the commit.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::lock::{self, Lock};
use super::record::RECORD;
use super::{Artifact, Record, Store, StoredFile, disk};
use crate::fingerprint::Fingerprint;
use crate::plan::Job;

pub(super) const OUTPUT: &str = "output";
pub(super) const CHECKPOINTS: &str = "checkpoints";
const ORIGIN: &str = "origin.json";
const STATUS: &str = "status.json";

/// What decides the bits besides settings and inputs; recorded with every artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor or graphics card.
    pub device: String,
    pub instruction_set: String,
}

/// Where checkpoints come from.
#[derive(Debug, Serialize, Deserialize)]
struct Origin {
    machine: Machine,
    resumed_on_other_kind: bool,
}

/// How far a job is, for `xlt status`. Decides nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    pub stage: String,
    pub label: String,
    /// Units done, of how many: "updates", "sentences".
    pub done: u64,
    pub total: u64,
    pub unit: String,
    /// "loss 3.21, 41k tokens/s".
    pub note: String,
    /// Spent so far, earlier attempts included.
    pub seconds: f64,
}

/// A job that is being done, or was interrupted and can go on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unfinished {
    pub fingerprint: Fingerprint,
    /// A process is at it.
    pub running: bool,
    /// "process 41 on host, for 3 min"; empty when nobody is at it.
    pub holder: String,
    /// There is something to continue from.
    pub checkpoint: bool,
    pub bytes: u64,
    pub status: Status,
}

/// The right to make one artifact, held until committed or dropped. A process that dies loses the right and nothing else.
#[derive(Debug)]
pub struct Workplace<'a> {
    store: &'a Store,
    job: Job,
    machine: Machine,
    resumed_on_other_kind: bool,
    folder: PathBuf,
    output: PathBuf,
    checkpoints: PathBuf,
    _lock: Lock,
}

impl<'a> Workplace<'a> {
    pub(super) fn begin(
        store: &'a Store,
        job: &Job,
        machine: &Machine,
        resume_anywhere: bool,
        lock: Lock,
    ) -> Result<Self> {
        let folder = store.work_folder(&job.fingerprint);
        let (output, checkpoints) = (folder.join(OUTPUT), folder.join(CHECKPOINTS));
        disk::remove_folder(&output)?;
        disk::create_folder(&output)?;
        disk::create_folder(&checkpoints)?;
        let mut origin = Origin {
            machine: machine.clone(),
            resumed_on_other_kind: false,
        };
        if !disk::names(&checkpoints)?.is_empty() {
            let text = fs::read_to_string(folder.join(ORIGIN)).unwrap_or_default();
            let earlier: Option<Origin> = serde_json::from_str(&text).ok();
            let same = earlier
                .as_ref()
                .is_some_and(|earlier| earlier.machine == *machine);
            if !same && !resume_anywhere {
                let made_on = earlier.map_or_else(
                    || "an unknown machine".to_owned(),
                    |earlier| describe(&earlier.machine),
                );
                bail!(
                    "the checkpoint of `{}` was made on {made_on}; going on here, on {}, may not give the same bits: \
                     pass --resume-anywhere to do so (it will be recorded), or remove the checkpoint with \
                     `xlt store remove --unfinished {}`",
                    job.label,
                    describe(machine),
                    job.fingerprint.short()
                );
            }
            origin.resumed_on_other_kind =
                !same || earlier.is_some_and(|earlier| earlier.resumed_on_other_kind);
        }
        disk::write_for_good(&folder.join(ORIGIN), &serde_json::to_vec(&origin)?)?;
        let resumed_on_other_kind = origin.resumed_on_other_kind;
        let (job, machine) = (job.clone(), machine.clone());
        Ok(Self {
            store,
            job,
            machine,
            resumed_on_other_kind,
            folder,
            output,
            checkpoints,
            _lock: lock,
        })
    }

    /// An empty folder that becomes the artifact.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// A folder that stays until the artifact is finished, whatever happens.
    pub fn checkpoints(&self) -> &Path {
        &self.checkpoints
    }

    /// How far an earlier attempt came.
    pub fn status(&self) -> Status {
        read_status(&self.folder)
    }

    /// Tells `xlt status` how far the work is.
    pub fn write_status(&self, status: &Status) -> Result<()> {
        disk::replace(&self.folder.join(STATUS), &serde_json::to_vec(status)?)
    }

    /// Gives up for now: checkpoints stay, the unfinished output goes.
    pub fn leave(self) {
        let kept = disk::names(&self.checkpoints).is_ok_and(|names| !names.is_empty());
        // What cannot be removed now is swept later.
        let _ = disk::remove_folder(if kept { &self.output } else { &self.folder });
    }

    /// Makes the output the artifact: hashes, record, then one rename. Until that rename there is no artifact.
    pub fn commit(self, facts: Value, seconds: f64) -> Result<Artifact> {
        let mut files = BTreeMap::new();
        for file in disk::walk(&self.output)? {
            if file.name == RECORD {
                bail!(
                    "stage `{}` wrote a {RECORD} of its own; the name is the store's",
                    self.job.stage
                );
            }
            let blake3 = disk::hash(&file.path)?;
            disk::settle(&file.path)?;
            files.insert(
                file.name,
                StoredFile {
                    bytes: file.bytes,
                    blake3,
                },
            );
        }
        let job = &self.job;
        let record = Record {
            fingerprint: job.fingerprint.clone(),
            stage: job.stage.clone(),
            version: job.version,
            settings: job.settings.clone(),
            inputs: job.inputs.clone(),
            user_files: job
                .files
                .iter()
                .map(|(name, file)| (name.clone(), file.fingerprint.clone()))
                .collect(),
            label: job.label.clone(),
            files,
            facts,
            seconds,
            device: self.machine.device.clone(),
            instruction_set: self.machine.instruction_set.clone(),
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            resumed_on_other_kind: self.resumed_on_other_kind,
        };
        publish(self.store, &self.output, record, &self.folder)
        // The lock goes here, after the rename.
    }
}

/// Turns a folder with every file of `record` into an artifact and removes the rest of its work folder. The caller
/// holds the lock and has hashed the files.
pub(super) fn publish(
    store: &Store,
    output: &Path,
    record: Record,
    work: &Path,
) -> Result<Artifact> {
    // What is written must be readable: a stage's or file's name that is not plain is found here, not later.
    let text = record.to_json()?;
    Record::from_json(&text)
        .with_context(|| format!("the record of `{}` cannot be kept", record.label))?;
    disk::write_for_good(&output.join(RECORD), text.as_bytes())?;
    for file in disk::walk(output)? {
        read_only(&file.path)?;
    }
    disk::settle(output)?;
    let folder = store.artifact_folder(&record.stage, &record.fingerprint);
    let parent = store.root.join("artifacts").join(&record.stage);
    disk::create_folder(&parent)?;
    if folder.exists() {
        store.discard(&folder, &record.fingerprint)?;
    }
    disk::rename(output, &folder)?;
    disk::settle(&parent)?;
    store.found_right(&folder, &record);
    // The artifact is there; leftovers of the work are swept later when they cannot be removed now.
    let _ = disk::remove_folder(work);
    Ok(Artifact { folder, record })
}

fn read_only(path: &Path) -> Result<()> {
    let set = || {
        let mut permissions = fs::metadata(path)?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(path, permissions)
    };
    set().map_err(|error| disk::trouble("protect", path, error))
}

fn describe(machine: &Machine) -> String {
    format!("{} with {}", machine.device, machine.instruction_set)
}

fn read_status(work: &Path) -> Status {
    let text = fs::read_to_string(work.join(STATUS)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

impl Store {
    /// Jobs at work or interrupted, sorted by fingerprint. What has neither a holder nor a checkpoint is rubbish and
    /// not listed.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>> {
        let mut jobs = Vec::new();
        for name in disk::names(&self.root.join("work"))? {
            let Ok(fingerprint) = disk::fingerprint(&name) else {
                continue;
            };
            let work = self.work_folder(&fingerprint);
            let path = self.lock_path(&fingerprint);
            let running = lock::is_held(&path, false)?;
            let holder = if running {
                lock::holder(&path)
            } else {
                String::new()
            };
            let checkpoint = !disk::names(&work.join(CHECKPOINTS))?.is_empty();
            if (running || checkpoint) && self.find(&fingerprint)?.is_none() {
                let (bytes, status) = (disk::size(&work), read_status(&work));
                jobs.push(Unfinished {
                    fingerprint,
                    running,
                    holder,
                    checkpoint,
                    bytes,
                    status,
                });
            }
        }
        Ok(jobs)
    }
}
