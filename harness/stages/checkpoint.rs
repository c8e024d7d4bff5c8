//! Checkpoints of a stage that takes long: whole or not there at all.
//!
//! A checkpoint is a folder `at-<update>`. It is written beside under another name, synced and renamed; the one before is
//! removed only then, so that a kill at any moment leaves at least one whole checkpoint.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;

const UNFINISHED: &str = "unfinished";

/// Writes a checkpoint for `update` with `write`, then drops older ones.
pub fn save(
    checkpoints: &Path,
    update: u64,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let unfinished = checkpoints.join(UNFINISHED);
    let finished = checkpoints.join(format!("at-{update}"));
    let attempt = || -> Result<()> {
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        fs::create_dir_all(&unfinished)?;
        write(&unfinished)?;
        for entry in fs::read_dir(&unfinished)? {
            File::open(entry?.path())?.sync_all()?;
        }
        if finished.exists() {
            fs::remove_dir_all(&finished)?;
        }
        fs::rename(&unfinished, &finished)?;
        File::open(checkpoints)?.sync_all()?;
        for (older, folder) in all(checkpoints)? {
            if older != update {
                fs::remove_dir_all(folder)?;
            }
        }
        Ok(())
    };
    attempt().with_context(|| {
        format!(
            "cannot save a checkpoint in {}; is the disk full? the checkpoint before it is kept",
            checkpoints.display()
        )
    })
}

/// The newest whole checkpoint: its update and folder.
pub fn latest(checkpoints: &Path) -> Result<Option<(u64, PathBuf)>> {
    Ok(all(checkpoints)?.into_iter().max())
}

/// What `position.json` of a checkpoint holds.
pub fn position<T: DeserializeOwned>(folder: &Path) -> Result<T> {
    let path = folder.join("position.json");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "the checkpoint {} is damaged; remove it and start again",
            folder.display()
        )
    })
}

fn all(checkpoints: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = fs::read_dir(checkpoints)
        .with_context(|| format!("cannot list {}", checkpoints.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(update) = name
            .strip_prefix("at-")
            .and_then(|update| update.parse().ok())
        {
            found.push((update, path));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_save_leaves_the_checkpoint_before_it() -> Result<()> {
        let folder = tempfile::tempdir()?;
        save(folder.path(), 10, |folder| {
            Ok(fs::write(folder.join("state"), "ten")?)
        })?;
        let failed = save(folder.path(), 20, |folder| {
            fs::write(folder.join("state"), "half")?;
            anyhow::bail!("no space left on device")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("kept"));
        assert_eq!(latest(folder.path())?.map(|(update, _)| update), Some(10));
        save(folder.path(), 20, |folder| {
            Ok(fs::write(folder.join("state"), "twenty")?)
        })?;
        let (update, newest) = latest(folder.path())?.unwrap();
        assert_eq!(
            (update, fs::read_to_string(newest.join("state"))?.as_str()),
            (20, "twenty")
        );
        assert_eq!(all(folder.path())?.len(), 1);
        Ok(())
    }
}
