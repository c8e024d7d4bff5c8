//! Content-addressed artifacts: an artifact is finished when its `record.json` is there, and never changes afterwards.
//!
//! ```text
//! <root>/
//!   layout                                  version of this layout
//!   artifacts/<stage>/<fingerprint>/        record.json and the stage's files, read-only
//!   work/<fingerprint>/output/              what a stage writes; becomes the artifact by one rename
//!   work/<fingerprint>/checkpoints/         survive interruption and death
//!   work/<fingerprint>/{origin,status}.json where the checkpoints were made; how far the work is
//!   locks/<fingerprint>                     held while an artifact is made or removed, shared while it is read
//!   verified/<fingerprint>.json             sizes and times of files whose hashes were found right
//!   damaged/<fingerprint>/                  artifacts whose contents were not what was recorded
//!   rubbish/                                on its way out
//! ```
//! Anything unfinished without a live lock is rubbish; [`Store::sweep`] removes it and keeps checkpoints. Several
//! processes, and several versions of the program, may share a store: what a stage of another version wrote has
//! another fingerprint. Nothing is written before something must be, so a read-only store can be read.

mod disk;
mod housekeeping;
mod lock;
mod pack;
mod record;
mod verify;
mod workplace;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};

use crate::fingerprint::Fingerprint;
use crate::plan::Job;

pub use disk::with_remedy;
pub use housekeeping::{Damage, Removal, Selection, Sizes, Summary, Verification};
pub use lock::Lock;
pub use pack::Unpacked;
pub use record::{DIVERGED, Difference, Nearest, RECORD, Record, StoredFile, nearest};
pub use verify::Condition;
pub use workplace::{Machine, Status, Unfinished, Workplace};

/// Raised when a store of this program can no longer be read by an older one, or the reverse.
const LAYOUT: &str = "xlt store, layout 1\n";
const LAYOUT_FILE: &str = "layout";

#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    /// Artifacts whose hashes this process computed and found right.
    hashed: Mutex<BTreeSet<Fingerprint>>,
}

/// A finished artifact.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub folder: PathBuf,
    pub record: Record,
}

/// What [`Store::acquire`] found.
#[derive(Debug)]
pub enum Acquired<'a> {
    /// Nothing to do.
    Finished(Artifact),
    /// The caller's to do.
    Work(Workplace<'a>),
    /// Somebody else is at it: "process 41 on host, for 3 min".
    Busy(String),
}

impl Store {
    /// The store at `root`, which need not exist yet.
    ///
    /// # Errors
    /// When the folder belongs to another layout or is no folder.
    pub fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root)
            .with_context(|| format!("the store's folder `{}`", root.display()))?;
        let file = root.join(LAYOUT_FILE);
        match fs::read_to_string(&file) {
            Ok(text) if text == LAYOUT => {}
            Ok(text) => bail!(
                "{} is a store of another kind ({}); this program reads {}; name another folder with --store",
                root.display(),
                text.trim().escape_default(),
                LAYOUT.trim()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if root.exists()
                    && !disk::names(&root)?
                        .iter()
                        .all(|name| name.starts_with("layout."))
                {
                    bail!(
                        "{} is a folder, but not a store; name another one with --store",
                        root.display()
                    );
                }
            }
            Err(error) => return Err(disk::trouble("read the store's file", &file, error)),
        }
        Ok(Self {
            root,
            hashed: Mutex::default(),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates the store's folders. An error tells early that nothing can be written.
    pub fn create(&self) -> Result<()> {
        // First of all: a folder without it is not a store.
        disk::create_folder(&self.root)?;
        let file = self.root.join(LAYOUT_FILE);
        if !file.exists() {
            // Another process or thread may be at the same: each writes its own file, all of them the same bytes.
            static FILES: AtomicU64 = AtomicU64::new(0);
            let number = FILES.fetch_add(1, Ordering::Relaxed);
            let beside = self
                .root
                .join(format!("{LAYOUT_FILE}.{}.{number}", std::process::id()));
            disk::write_for_good(&beside, LAYOUT.as_bytes())?;
            disk::rename(&beside, &file)?;
        }
        for name in ["artifacts", "work", "locks", "verified", "rubbish"] {
            disk::create_folder(&self.root.join(name))?;
        }
        Ok(())
    }

    /// A finished artifact. Its contents are not looked at: [`Store::condition`] and [`Store::verify`] do that.
    pub fn find(&self, fingerprint: &Fingerprint) -> Result<Option<Artifact>> {
        match self.folder_of(fingerprint)? {
            Some(folder) => Ok(Record::read(&folder)
                .ok()
                .map(|record| Artifact { folder, record })),
            None => Ok(None),
        }
    }

    /// The artifact of a job, the right to make it, or who is making it. An artifact that is not what was recorded is
    /// set aside in `damaged/` and must be made again.
    ///
    /// # Errors
    /// When checkpoints of another device or instruction set are there and `resume_anywhere` is false.
    pub fn acquire(
        &self,
        job: &Job,
        machine: &Machine,
        resume_anywhere: bool,
    ) -> Result<Acquired<'_>> {
        if let Condition::Sound(artifact) = self.condition(&job.fingerprint)? {
            return Ok(Acquired::Finished(*artifact));
        }
        self.create()?;
        let path = self.lock_path(&job.fingerprint);
        let Some(lock) = Lock::exclusive(&path)? else {
            return Ok(Acquired::Busy(lock::holder(&path)));
        };
        match self.condition(&job.fingerprint)? {
            // Somebody finished it between the first look and the lock.
            Condition::Sound(artifact) => return Ok(Acquired::Finished(*artifact)),
            Condition::Damaged { folder, .. } => self.set_aside(&job.fingerprint, &folder)?,
            Condition::Missing => {}
        }
        Workplace::begin(self, job, machine, resume_anywhere, lock).map(Acquired::Work)
    }

    /// Keeps others from removing an artifact while it is read. `None` when somebody is making or removing it.
    pub fn hold(&self, fingerprint: &Fingerprint) -> Result<Option<Lock>> {
        self.create()?;
        Lock::shared(&self.lock_path(fingerprint))
    }

    /// Who holds an artifact's lock, for people.
    pub fn holder(&self, fingerprint: &Fingerprint) -> String {
        lock::holder(&self.lock_path(fingerprint))
    }

    /// Removes what killed runs left behind and nobody holds: unfinished outputs and half-removed artifacts.
    /// Checkpoints stay. Errors of single entries are left for the next sweep.
    pub fn sweep(&self) -> Result<()> {
        self.create()?;
        for name in disk::names(&self.root.join("work"))? {
            let Ok(fingerprint) = disk::fingerprint(&name) else {
                continue;
            };
            let Ok(Some(_lock)) = Lock::exclusive(&self.lock_path(&fingerprint)) else {
                continue;
            };
            let work = self.work_folder(&fingerprint);
            let kept = !disk::names(&work.join(workplace::CHECKPOINTS))?.is_empty();
            let leftover = if kept && self.find(&fingerprint)?.is_none() {
                work.join(workplace::OUTPUT)
            } else {
                work
            };
            let _ = disk::remove_folder(&leftover);
        }
        for stage in disk::names(&self.root.join("artifacts"))? {
            for name in disk::names(&self.root.join("artifacts").join(&stage))? {
                let folder = self.root.join("artifacts").join(&stage).join(&name);
                let Ok(fingerprint) = disk::fingerprint(&name) else {
                    continue;
                };
                if folder.join(RECORD).exists() {
                    continue;
                }
                if let Ok(Some(_lock)) = Lock::exclusive(&self.lock_path(&fingerprint)) {
                    let _ = disk::remove_folder(&folder);
                }
            }
        }
        for name in disk::names(&self.root.join("rubbish"))? {
            let _ = disk::remove_folder(&self.root.join("rubbish").join(name));
        }
        Ok(())
    }

    fn set_aside(&self, fingerprint: &Fingerprint, folder: &Path) -> Result<()> {
        let aside = self.root.join("damaged").join(fingerprint.as_str());
        disk::remove_folder(&aside)?;
        disk::create_folder(&self.root.join("damaged"))?;
        disk::rename(folder, &aside)
    }

    /// Takes a folder out of sight by one rename, then deletes it.
    fn discard(&self, folder: &Path, fingerprint: &Fingerprint) -> Result<()> {
        let rubbish = self.root.join("rubbish");
        disk::create_folder(&rubbish)?;
        let target = rubbish.join(fingerprint.as_str());
        disk::remove_folder(&target)?;
        disk::rename(folder, &target)?;
        disk::remove_folder(&target)
    }

    /// The folder of an artifact that has a record, whatever the record says.
    fn folder_of(&self, fingerprint: &Fingerprint) -> Result<Option<PathBuf>> {
        let artifacts = self.root.join("artifacts");
        let folders = disk::names(&artifacts)?.into_iter();
        let mut folders = folders.map(|stage| artifacts.join(stage).join(fingerprint.as_str()));
        Ok(folders.find(|folder| folder.join(RECORD).exists()))
    }

    fn artifact_folder(&self, stage: &str, fingerprint: &Fingerprint) -> PathBuf {
        self.root
            .join("artifacts")
            .join(stage)
            .join(fingerprint.as_str())
    }

    fn work_folder(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.root.join("work").join(fingerprint.as_str())
    }

    fn lock_path(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.root.join("locks").join(fingerprint.as_str())
    }
}
