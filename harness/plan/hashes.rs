//! Hashes of the user's files, remembered by path, size and time of change.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprint;
use crate::plan::DataFile;

/// A memory of hashes, kept in a file that may be lost at any time.
#[derive(Debug, Default)]
pub struct FileHashes {
    file: Option<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
    changed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    bytes: u64,
    modified_nanoseconds: u128,
    fingerprint: Fingerprint,
}

impl FileHashes {
    /// Remembers in `file`; a file that is missing or damaged is an empty memory.
    pub fn kept_in(file: &Path) -> Self {
        let known = fs::read(file)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            file: Some(file.to_owned()),
            known,
            changed: false,
        }
    }

    /// The hash of a file's bytes.
    pub fn of(&mut self, path: &Path) -> Result<DataFile> {
        let metadata =
            fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        let absolute = std::path::absolute(path)?;
        let modified_nanoseconds = metadata
            .modified()?
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let bytes = metadata.len();
        if let Some(known) = self.known.get(&absolute)
            && (known.bytes, known.modified_nanoseconds) == (bytes, modified_nanoseconds)
        {
            return Ok(DataFile {
                path: absolute,
                bytes,
                fingerprint: known.fingerprint.clone(),
            });
        }
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_mmap_rayon(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let fingerprint = Fingerprint::of_hash(&hasher.finalize());
        self.known.insert(
            absolute.clone(),
            Known {
                bytes,
                modified_nanoseconds,
                fingerprint: fingerprint.clone(),
            },
        );
        self.changed = true;
        Ok(DataFile {
            path: absolute,
            bytes,
            fingerprint,
        })
    }

    /// Writes the memory down; losing it costs time only, so that a store that cannot be written is no error here.
    pub fn keep(&self) {
        if let (true, Some(file)) = (self.changed, &self.file)
            && let Ok(json) = serde_json::to_vec(&self.known)
        {
            let beside = file.with_extension("new");
            if fs::write(&beside, json).is_ok() {
                let _ = fs::rename(&beside, file);
            }
        }
    }
}
