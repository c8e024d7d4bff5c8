//! Files and folders: walking, hashing, writing for good, and errors that say what to do.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::fingerprint::Fingerprint;

/// A file below a folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Relative to the folder, with `/` between its parts.
    pub name: String,
    pub path: PathBuf,
    pub bytes: u64,
}

/// Every file below `folder`, sorted by name. Links and other oddities are errors: an artifact is plain files only.
pub fn walk(folder: &Path) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    walk_into(folder, "", &mut found)?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn walk_into(folder: &Path, prefix: &str, found: &mut Vec<Found>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|error| trouble("read", folder, error))? {
        let entry = entry.map_err(|error| trouble("read", folder, error))?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name
            .to_str()
            .with_context(|| format!("the file name {} is not UTF-8", path.display()))?;
        let name = format!("{prefix}{name}");
        let kind = entry
            .file_type()
            .map_err(|error| trouble("read", &path, error))?;
        if kind.is_dir() {
            walk_into(&path, &format!("{name}/"), found)?;
        } else if kind.is_file() {
            let metadata = entry
                .metadata()
                .map_err(|error| trouble("read", &path, error))?;
            found.push(Found {
                name,
                path,
                bytes: metadata.len(),
            });
        } else {
            bail!(
                "{} is neither a file nor a folder; an artifact holds nothing else",
                path.display()
            );
        }
    }
    Ok(())
}

/// Names of the entries of `folder`, sorted; none when it does not exist.
pub fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| trouble("read", folder, error))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| trouble("read", folder, error))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Bytes of all files below `folder`, zero when it does not exist. Files that vanish meanwhile do not count.
pub fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(&entry.path()),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |metadata| metadata.len()),
            _ => 0,
        })
        .sum()
}

pub fn hash(path: &Path) -> Result<Fingerprint> {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update_mmap_rayon(path)
        .map_err(|error| trouble("read", path, error))?;
    digest(&hasher)
}

/// What a hasher has seen so far.
pub fn digest(hasher: &blake3::Hasher) -> Result<Fingerprint> {
    fingerprint(hasher.finalize().to_hex().as_str())
}

/// Refuses anything but 64 lower-case hexadecimal digits: fingerprints become file names.
pub fn fingerprint(text: &str) -> Result<Fingerprint> {
    let valid = text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !valid {
        bail!(
            "`{}` is not a fingerprint of 64 lower-case hexadecimal digits",
            text.escape_default()
        );
    }
    serde_json::from_value(serde_json::Value::from(text)).context("a fingerprint is a string")
}

/// Refuses names that would lead out of a folder, or mean another file on another system.
pub fn check_relative(name: &str) -> Result<()> {
    let path = Path::new(name);
    let plain = !name.is_empty()
        && !name.contains(['\\', '\0'])
        && path
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
        && name
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..");
    if !plain {
        bail!(
            "`{}` is not a plain relative file name",
            name.escape_default()
        );
    }
    Ok(())
}

pub fn create_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| trouble("create the folder", folder, error))
}

/// Removes a folder and what is in it; fine when it is not there.
pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(trouble("remove", folder, error))
        }
        _ => Ok(()),
    }
}

pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| trouble(&format!("move {} to", from.display()), to, error))
}

/// Writes a file whole and waits until the disk has it.
pub fn write_for_good(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| trouble("write", path, error))
}

/// Replaces a file so that readers see the old bytes or the new ones. Only one writer per `path` at a time.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).map_err(|error| trouble("write", &beside, error))?;
    rename(&beside, path)
}

/// Waits until the disk has a file's bytes, or a folder's list of names.
pub fn settle(path: &Path) -> Result<()> {
    let settled = File::open(path).and_then(|file| file.sync_all());
    settled.map_err(|error| trouble("write", path, error))
}

/// Seconds since 1970: shown to people, never compared for a decision, never part of a result.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// An error that names the action and the path, and the remedy where there is one.
pub fn trouble(action: &str, path: &Path, error: io::Error) -> anyhow::Error {
    let mut text = format!("cannot {action} {}", path.display());
    if let Some(remedy) = remedy(&error) {
        text = format!("{text}: {remedy}");
    }
    anyhow::Error::new(error).context(text)
}

/// Adds the remedy to an error that came from elsewhere, for example from a stage that filled the disk.
pub fn with_remedy(error: anyhow::Error) -> anyhow::Error {
    let io = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>());
    match io.and_then(remedy) {
        Some(remedy) if !format!("{error:#}").contains(remedy) => error.context(remedy),
        _ => error,
    }
}

fn remedy(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "no space is left there; what is finished and the last checkpoints are kept: free some space \
             (`xlt store size` and `xlt store remove` help) or name another folder with --store, and run the same command again",
        ),
        io::ErrorKind::FileTooLarge => Some(
            "the system allows no larger file there (see `ulimit -f`); what is finished and the last checkpoints are kept: \
             raise the limit and run the same command again",
        ),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Some(
            "it is not writable for this user; nothing was changed: make it writable or name another folder with --store",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_a_folder_are_refused() {
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "./a",
            "a/",
            "a\\b",
            "a\0b",
        ] {
            assert!(check_relative(name).is_err(), "{name:?}");
        }
        for name in ["a", "a/b.txt", "train.en", "..a"] {
            assert!(check_relative(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_full_disk_says_what_where_and_what_to_do() {
        let path = Path::new("somewhere/model.safetensors");
        let text = format!(
            "{:#}",
            trouble("write", path, io::ErrorKind::StorageFull.into())
        );
        assert!(
            text.contains("cannot write somewhere/model.safetensors: no space is left"),
            "{text}"
        );
        assert!(text.contains("xlt store remove"), "{text}");
        let text = format!(
            "{:#}",
            trouble("write", path, io::ErrorKind::ReadOnlyFilesystem.into())
        );
        assert!(
            text.contains("not writable") && text.contains("--store"),
            "{text}"
        );
    }

    #[test]
    fn a_remedy_is_added_once() {
        let stage = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull))
            .context("writing tokens.bin");
        let once = with_remedy(stage);
        assert!(format!("{once:#}").starts_with("no space is left"));
        let twice = format!("{:#}", with_remedy(once));
        assert_eq!(twice.matches("no space is left there").count(), 1);
    }
}
