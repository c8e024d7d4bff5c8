//! Files of Hugging Face Hub repositories at a pinned commit.
//!
//! Names of repositories and of the cache's folders are `hf-hub`'s; the transfer is ours, since that crate (0.5) takes
//! whatever bytes arrive for the file: it neither compares checksums, nor notices that a server ignored `Range`, nor
//! tells 401 from 404. The cache has the layout of `huggingface_hub` and can be shared with it.

mod client;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hf_hub::{Cache, Repo, RepoType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::client::Client;
use super::files::hexadecimal;
use super::git_blob::Sha1;

/// Files of one repository at one commit. The commit pins their bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubFiles {
    /// What kind of repository it is.
    pub kind: RepositoryKind,
    /// `owner/name`.
    pub repository: String,
    /// A commit: 40 hexadecimal digits.
    pub revision: String,
    /// Paths inside the repository.
    pub paths: Vec<String>,
}

/// The hub keeps data sets and models apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryKind {
    Dataset,
    Model,
}

/// How to reach the hub. Nothing in here changes what a file contains.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// The folder with `datasets--owner--name` in it.
    pub cache: PathBuf,
    pub token: Option<String>,
    /// Take files from the cache only.
    pub offline: bool,
    /// Tries in a row that bring nothing before giving up.
    pub attempts: u32,
    /// Wait before the second try, doubled for each further one.
    pub first_wait: Duration,
}

impl HubOptions {
    /// `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN` (else the token that `hf auth login` left in `HF_HOME`), `HF_HUB_OFFLINE`.
    pub fn from_environment() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let home = match variable("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir()
                .context("there is no home folder for the hub's cache; set HF_HOME to a folder")?
                .join(".cache/huggingface"),
        };
        let cache = Cache::new(home.join("hub"));
        let offline = variable("HF_HUB_OFFLINE")
            .unwrap_or_default()
            .to_ascii_lowercase();
        Ok(Self {
            endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into()),
            token: variable("HF_TOKEN").or_else(|| cache.token()),
            cache: cache.path().clone(),
            offline: ["1", "on", "yes", "true"].contains(&offline.as_str()),
            attempts: 5,
            first_wait: Duration::from_secs(1),
        })
    }
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub path: PathBuf,
    /// Path inside the repository.
    pub file: String,
    pub bytes: u64,
    /// Of the bytes as they lie in the cache.
    pub sha256: String,
}

/// Called with a file, the bytes it has so far and its size; an error stops the transfer, which a later call resumes.
pub type Watch<'a> = &'a dyn Fn(&str, u64, u64) -> Result<()>;

/// All files, from the cache or the hub, their checksums compared with what the hub declared.
///
/// # Errors
/// Every error names repository, file and remedy: not there (404), not allowed (401, 403), too many requests (429) or
/// server errors for too long, bytes that are not those declared, a file missing while offline.
pub fn fetch(files: &HubFiles, options: &HubOptions, watch: Watch) -> Result<Vec<Fetched>> {
    check_revision(&files.revision)?;
    let kind = match files.kind {
        RepositoryKind::Dataset => RepoType::Dataset,
        RepositoryKind::Model => RepoType::Model,
    };
    let repo = Repo::with_revision(files.repository.clone(), kind, files.revision.clone());
    let mut fetched = Vec::with_capacity(files.paths.len());
    for path in &files.paths {
        check_path(path)?;
        let one = fetch_one(&repo, files, path, options, watch);
        fetched.push(one.with_context(|| {
            format!(
                "hub file `{path}` of `{}` at {}",
                files.repository,
                &files.revision[..12]
            )
        })?);
    }
    Ok(fetched)
}

/// A revision must be a commit: branches and tags move.
pub fn check_revision(revision: &str) -> Result<()> {
    let pinned = revision.len() == 40
        && revision
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !pinned {
        bail!(
            "revision `{revision}` is not a commit; give its 40 hexadecimal digits (see the repository's history), branches and tags move"
        );
    }
    Ok(())
}

fn check_path(path: &str) -> Result<()> {
    let plain =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
    if !path.split('/').all(plain) {
        bail!("`{path}` is not a path inside a repository");
    }
    Ok(())
}

fn fetch_one(
    repo: &Repo,
    files: &HubFiles,
    file: &str,
    options: &HubOptions,
    watch: Watch,
) -> Result<Fetched> {
    let cache = Cache::new(options.cache.clone()).repo(repo.clone());
    let snapshot = cache.pointer_path(&files.revision).join(file);
    if let Some(cached) = cached(&snapshot, file, options.offline)? {
        return Ok(cached);
    }
    if options.offline {
        bail!(
            "not in the cache `{}` and HF_HUB_OFFLINE is set; unset it, or fetch the file with the hub's own tools first",
            options.cache.display()
        );
    }
    let client = Client::new(options);
    let url = format!(
        "{}/{}/resolve/{}/{}",
        options.endpoint.trim_end_matches('/'),
        repo.url(),
        files.revision,
        escape(file)
    );
    let declared = client.persist(|| client.metadata(&url, files))?;
    let blob = cache.blob_path(declared.checksum.digits());
    let locks = options.cache.join(".locks").join(repo.folder_name());
    for folder in [blob.parent(), snapshot.parent(), Some(&locks)]
        .into_iter()
        .flatten()
    {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    // One transfer of a file at a time; the operating system frees the lock of a process that dies.
    let lock = locks.join(format!("{}.lock", declared.checksum.digits()));
    let lock = File::create(&lock).with_context(|| format!("cannot write `{}`", lock.display()))?;
    lock.lock().context("cannot lock the hub's cache")?;
    if !(blob.is_file() && Sums::of_file(&blob)?.matches(&declared.checksum)) {
        let partial = blob.with_extension("incomplete");
        let mut wrong = 0;
        client.persist(|| client.download(&url, &declared, &partial, file, &mut wrong, watch))?;
        fs::rename(&partial, &blob)
            .with_context(|| format!("cannot write `{}`", blob.display()))?;
    }
    link(&blob, &snapshot, file)?;
    cached(&snapshot, file, false)?.context("the file vanished from the cache as it was written")
}

/// The file if the cache has it whole. A damaged one is removed, or refused when it cannot be fetched again.
fn cached(snapshot: &Path, file: &str, offline: bool) -> Result<Option<Fetched>> {
    let Ok(blob) = snapshot.canonicalize() else {
        return Ok(None);
    };
    let sums = Sums::of_file(&blob)?;
    let name = blob
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if let Some(checksum) = Checksum::of_etag(name)
        && !sums.matches(&checksum)
    {
        if offline {
            bail!(
                "`{}` is damaged: its checksum is not its name; remove it and fetch it again",
                blob.display()
            );
        }
        fs::remove_file(&blob)
            .with_context(|| format!("cannot remove the damaged `{}`", blob.display()))?;
        return Ok(None);
    }
    Ok(Some(Fetched {
        path: snapshot.to_owned(),
        file: file.to_owned(),
        bytes: sums.bytes,
        sha256: sums.sha256,
    }))
}

/// Points `snapshots/<commit>/<file>` at its blob, as `huggingface_hub` does; copies where links cannot be made.
fn link(blob: &Path, snapshot: &Path, file: &str) -> Result<()> {
    match fs::remove_file(snapshot) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace `{}`", snapshot.display()));
        }
        _ => {}
    }
    #[cfg(unix)]
    {
        // From snapshots/<commit>/<file> up to the repository's folder.
        let up = "../".repeat(file.split('/').count() + 1);
        let name = blob.file_name().context("a blob has a name")?;
        let target = Path::new(&up).join("blobs").join(name);
        if std::os::unix::fs::symlink(target, snapshot).is_ok() {
            return Ok(());
        }
    }
    let copied = fs::copy(blob, snapshot);
    copied.with_context(|| format!("cannot write `{}`", snapshot.display()))?;
    Ok(())
}

/// What the hub says a file's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Checksum {
    /// Large-file storage.
    Sha256(String),
    /// Any other file.
    GitBlob(String),
}

impl Checksum {
    fn of_etag(etag: &str) -> Option<Self> {
        let digits = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
        let hexadecimal = digits
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match digits.len() {
            64 if hexadecimal => Some(Self::Sha256(digits.to_owned())),
            40 if hexadecimal => Some(Self::GitBlob(digits.to_owned())),
            _ => None,
        }
    }

    fn digits(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::GitBlob(digits) => digits,
        }
    }
}

/// Both checksums of a file, in one reading.
struct Sums {
    bytes: u64,
    sha256: String,
    git_blob: String,
}

impl Sums {
    fn of_file(path: &Path) -> Result<Self> {
        let reading = || format!("cannot read `{}`", path.display());
        let mut file = File::open(path).with_context(reading)?;
        let bytes = file.metadata().with_context(reading)?.len();
        let mut sha256 = Sha256::new();
        let mut git_blob = Sha1::of_blob(bytes);
        let mut buffer = vec![0; 1 << 17];
        loop {
            let read = file.read(&mut buffer).with_context(reading)?;
            if read == 0 {
                break;
            }
            sha256.update(&buffer[..read]);
            git_blob.update(&buffer[..read]);
        }
        Ok(Self {
            bytes,
            sha256: hexadecimal(&sha256.finalize()),
            git_blob: git_blob.finish(),
        })
    }

    fn matches(&self, checksum: &Checksum) -> bool {
        match checksum {
            Checksum::Sha256(digits) => *digits == self.sha256,
            Checksum::GitBlob(digits) => *digits == self.git_blob,
        }
    }
}

/// A path with everything but unreserved characters percent-encoded (RFC 3986, section 2.3).
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_a_commit() {
        assert!(check_revision("0123456789abcdef0123456789abcdef01234567").is_ok());
        for moving in [
            "main",
            "v1.0",
            "0123456",
            "0123456789ABCDEF0123456789ABCDEF01234567",
        ] {
            assert!(check_revision(moving).is_err(), "{moving}");
        }
    }

    #[test]
    fn paths_cannot_leave_the_repository() {
        assert!(check_path("data/train.parquet").is_ok());
        for path in ["../x", "a//b", "/etc/passwd", "a/./b", ""] {
            assert!(check_path(path).is_err(), "{path}");
        }
        assert_eq!(escape("a b/ü.txt"), "a%20b/%C3%BC.txt");
    }
}
