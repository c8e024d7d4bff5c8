//! Moving artifacts between machines in one file.
//!
//! A zstd stream of: a title line; then per artifact the length of its record (8 bytes, little endian), the record, and
//! its files' bytes in the order of the record, which names, measures and hashes them; then a zero length. So nothing
//! can be in a pack that no record vouches for.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::lock::{self, Lock};
use super::workplace::{self, OUTPUT};
use super::{Artifact, Condition, Record, Store, Summary, disk};

const TITLE: &[u8] = b"xlt artifacts, format 1\n";
/// Our choice: files are mostly floats, which higher levels hardly shrink.
const COMPRESSION_LEVEL: i32 = 3;
/// Our choice: no real record comes near; a larger one is a broken pack.
const LARGEST_RECORD: u64 = 256 << 20;
const BUFFER: usize = 1 << 20;

/// What came out of a pack.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
pub struct Unpacked {
    pub added: Vec<Summary>,
    /// Was here already.
    pub present: Vec<Summary>,
}

impl Store {
    /// Writes artifacts into a new file, verifying them; returns its size in bytes.
    pub fn pack(&self, artifacts: &[Artifact], destination: &Path) -> Result<u64> {
        if destination.exists() {
            bail!(
                "{} exists; remove it or choose another name",
                destination.display()
            );
        }
        let mut name = destination.as_os_str().to_owned();
        name.push(".partial");
        let partial = Path::new(&name);
        let written = write_pack(self, artifacts, partial);
        if written.is_err() {
            let _ = fs::remove_file(partial);
        }
        written?;
        disk::rename(partial, destination)?;
        let metadata =
            fs::metadata(destination).map_err(|error| disk::trouble("read", destination, error))?;
        Ok(metadata.len())
    }

    /// Adds a pack's artifacts. Each is verified before it becomes one; those before a broken one stay.
    pub fn unpack(&self, source: &Path) -> Result<Unpacked> {
        self.create()?;
        let file = File::open(source).map_err(|error| disk::trouble("open", source, error))?;
        let mut stream = BufReader::with_capacity(
            BUFFER,
            zstd::Decoder::new(file).with_context(|| not_a_pack(source))?,
        );
        let mut title = [0; TITLE.len()];
        stream
            .read_exact(&mut title)
            .with_context(|| not_a_pack(source))?;
        if title != TITLE {
            bail!(not_a_pack(source));
        }
        let mut unpacked = Unpacked::default();
        while let Some(record) = read_record(&mut stream).with_context(|| broken(source))? {
            let named = || {
                format!(
                    "{}: {} {} (`{}`)",
                    broken(source),
                    record.stage,
                    record.fingerprint.short(),
                    record.label
                )
            };
            record.check_identity().with_context(named)?;
            let added = self.add(&record, &mut stream).with_context(named)?;
            let summary = Artifact {
                folder: Default::default(),
                record,
            }
            .summary();
            if added {
                unpacked.added.push(summary)
            } else {
                unpacked.present.push(summary)
            }
        }
        Ok(unpacked)
    }

    /// Reads one artifact's files from `stream`; false when the store has it already.
    fn add(&self, record: &Record, stream: &mut impl Read) -> Result<bool> {
        let path = self.lock_path(&record.fingerprint);
        let Some(_lock) = Lock::exclusive(&path)? else {
            bail!(
                "it is held by {}; unpack again when that is done",
                lock::holder(&path)
            );
        };
        match self.condition(&record.fingerprint)? {
            Condition::Sound(_) => {
                let drained =
                    std::io::copy(&mut stream.take(record.bytes()), &mut std::io::sink())?;
                if drained != record.bytes() {
                    bail!("the file ends early");
                }
                return Ok(false);
            }
            Condition::Damaged { folder, .. } => self.set_aside(&record.fingerprint, &folder)?,
            Condition::Missing => {}
        }
        let work = self.work_folder(&record.fingerprint);
        let output = work.join(OUTPUT);
        disk::remove_folder(&output)?;
        let received = receive(record, stream, &output);
        if received.is_err() {
            let _ = disk::remove_folder(&output);
        }
        received?;
        workplace::publish(self, &output, record.clone(), &work)?;
        Ok(true)
    }
}

/// Writes an artifact's files into the new folder `output`, verifying each.
fn receive(record: &Record, stream: &mut impl Read, output: &Path) -> Result<()> {
    disk::create_folder(output)?;
    for (name, expected) in &record.files {
        let path = output.join(name);
        if let Some(parent) = path.parent() {
            disk::create_folder(parent)?;
        }
        let mut file = File::create(&path).map_err(|error| disk::trouble("write", &path, error))?;
        let (bytes, hash) = copy(&mut stream.take(expected.bytes), &mut file, &path)?;
        if bytes != expected.bytes {
            bail!("the file ends within {name}");
        }
        if hash != expected.blake3 {
            bail!("{name} is not what was packed: its hash does not match");
        }
        file.sync_all()
            .map_err(|error| disk::trouble("write", &path, error))?;
    }
    Ok(())
}

fn write_pack(store: &Store, artifacts: &[Artifact], path: &Path) -> Result<()> {
    let failed = |error| disk::trouble("write", path, error);
    let file = File::create(path).map_err(failed)?;
    let mut stream = zstd::Encoder::new(BufWriter::new(file), COMPRESSION_LEVEL).map_err(failed)?;
    stream.write_all(TITLE).map_err(failed)?;
    for artifact in artifacts {
        let record = &artifact.record;
        let Some(_lock) = store.hold(&record.fingerprint)? else {
            bail!(
                "{} is held by {}; pack again when that is done",
                record.label,
                store.holder(&record.fingerprint)
            );
        };
        let text = record.to_json()?;
        stream
            .write_all(&(text.len() as u64).to_le_bytes())
            .map_err(failed)?;
        stream.write_all(text.as_bytes()).map_err(failed)?;
        for (name, expected) in &record.files {
            let from = artifact.folder.join(name);
            let mut file =
                File::open(&from).map_err(|error| disk::trouble("read", &from, error))?;
            if copy(&mut file, &mut stream, path)? != (expected.bytes, expected.blake3.clone()) {
                bail!(
                    "{} is not what was recorded; `xlt store verify` lists what is damaged, and the next run makes it again",
                    from.display()
                );
            }
        }
    }
    stream.write_all(&0_u64.to_le_bytes()).map_err(failed)?;
    let file = stream
        .finish()
        .map_err(failed)?
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

fn read_record(stream: &mut impl Read) -> Result<Option<Record>> {
    let mut length = [0; 8];
    stream
        .read_exact(&mut length)
        .context("the file ends early")?;
    let length = u64::from_le_bytes(length);
    if length == 0 {
        return Ok(None);
    }
    if length > LARGEST_RECORD {
        bail!("a record of {length} bytes cannot be");
    }
    let mut text = String::new();
    stream
        .take(length)
        .read_to_string(&mut text)
        .context("a record is not text")?;
    if text.len() as u64 != length {
        bail!("the file ends within a record");
    }
    Record::from_json(&text).map(Some)
}

/// Copies to the end of `from`; returns the bytes and their hash. `path` is where `to` goes, for errors.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    path: &Path,
) -> Result<(u64, crate::fingerprint::Fingerprint)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut bytes = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.context("the file cannot be read to its end")?,
        };
        if read == 0 {
            return Ok((bytes, disk::digest(&hasher)?));
        }
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])
            .map_err(|error| disk::trouble("write", path, error))?;
        bytes += read as u64;
    }
}

fn not_a_pack(path: &Path) -> String {
    format!(
        "{} is not a pack of artifacts; `xlt store pack` writes them",
        path.display()
    )
}

fn broken(path: &Path) -> String {
    format!("cannot unpack {}", path.display())
}
