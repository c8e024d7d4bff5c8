//! The files that a stage reads, wherever they lie, and what its record says of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::files;
use super::hub::{self, HubFiles, HubOptions, Watch};

/// A file to read.
#[derive(Debug, Clone)]
pub struct InputFile {
    pub path: PathBuf,
    pub record: SourceRecord,
}

/// Where bytes came from, without a path of this machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Of the file as it lies there, compressed or not.
    pub sha256: String,
    pub bytes: u64,
    /// Of a hub file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// The user's files named `<name>:0`, `<name>:1`, ... in a job.
pub fn local(files: &BTreeMap<String, PathBuf>, name: &str) -> Result<Vec<InputFile>> {
    let paths = (0..).map_while(|number| files.get(&format!("{name}:{number}")));
    let found: Vec<InputFile> = paths.map(|path| of_path(path)).collect::<Result<_>>()?;
    if found.is_empty() {
        bail!("the job has no file named `{name}:0`");
    }
    Ok(found)
}

/// Files of the hub, fetched unless the cache has them.
pub fn from_hub(files: &HubFiles, watch: Watch) -> Result<Vec<InputFile>> {
    let fetched = hub::fetch(files, &HubOptions::from_environment()?, watch)?;
    Ok(fetched
        .into_iter()
        .map(|file| InputFile {
            path: file.path,
            record: SourceRecord {
                sha256: file.sha256,
                bytes: file.bytes,
                repository: Some(files.repository.clone()),
                revision: Some(files.revision.clone()),
                file: Some(file.file),
            },
        })
        .collect())
}

/// A file by its path.
pub fn of_path(path: &Path) -> Result<InputFile> {
    let metadata = path
        .metadata()
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let record = SourceRecord {
        sha256: files::sha256(path)?,
        bytes: metadata.len(),
        repository: None,
        revision: None,
        file: None,
    };
    Ok(InputFile {
        path: path.to_owned(),
        record,
    })
}
