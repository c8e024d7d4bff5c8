//! Locks that survive dead holders: the system's own file locks, which vanish with the process that holds them.
//!
//! What is written in a lock file is for people only and decides nothing. Lock files stay behind, empty: removing
//! them would let two processes lock two files of one name.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::disk;

/// Held until dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    exclusive: bool,
}

/// Who holds a lock, as far as is known.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    process: u32,
    host: String,
    /// Seconds since 1970.
    since: u64,
}

impl Lock {
    /// For making or removing an artifact; `None` when anybody holds it.
    pub fn exclusive(path: &Path) -> Result<Option<Self>> {
        let mut file = open(path)?;
        if !taken(file.try_lock(), path)? {
            return Ok(None);
        }
        let holder = Holder {
            process: std::process::id(),
            host: host(),
            since: disk::now(),
        };
        let text = serde_json::to_string(&holder).context("a lock's holder is JSON")?;
        // A disk too full for this text is no reason to go without the lock, which needs no space.
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all(text.as_bytes()));
        Ok(Some(Self {
            file,
            exclusive: true,
        }))
    }

    /// For reading an artifact: several may, nobody can remove it meanwhile. `None` when somebody makes or removes it.
    pub fn shared(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        Ok(taken(file.try_lock_shared(), path)?.then_some(Self {
            file,
            exclusive: false,
        }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.exclusive {
            let _ = self.file.set_len(0);
        }
        // Closing alone would leave the lock with a child process that was forked meanwhile and has not yet begun.
        let _ = self.file.unlock();
    }
}

/// Whether somebody is making or removing what the lock is for; with `readers` also whether somebody reads it.
/// Writes nothing.
pub fn is_held(path: &Path, readers: bool) -> Result<bool> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(disk::trouble("open the lock", path, error)),
        Ok(file) if readers => Ok(!taken(file.try_lock(), path)?),
        Ok(file) => Ok(!taken(file.try_lock_shared(), path)?),
    }
}

/// "process 41 on host, for 3 min".
pub fn holder(path: &Path) -> String {
    let mut text = String::new();
    let read = File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    match read
        .ok()
        .and_then(|_| serde_json::from_str::<Holder>(&text).ok())
    {
        Some(Holder {
            process,
            host,
            since,
        }) => {
            let minutes = disk::now().saturating_sub(since) / 60;
            format!("process {process} on {host}, for {minutes} min")
        }
        None => "another process".to_owned(),
    }
}

fn open(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    file.map_err(|error| disk::trouble("open the lock", path, error))
}

fn taken(result: Result<(), TryLockError>, path: &Path) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => {
            let text = format!(
                "cannot lock {}; name a folder on a file system with locks with --store",
                path.display()
            );
            Err(anyhow::Error::new(error).context(text))
        }
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_default();
    if name.trim().is_empty() {
        "an unnamed host".to_owned()
    } else {
        name.trim().to_owned()
    }
}
