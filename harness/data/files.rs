//! Lines of local files: plain, `.zst` or `.gz`; UTF-8 checked line by line; byte order marks and CRLF undone and counted.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How the rows of a file are laid out. Compression is not part of it: that is read off the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// One row per line, no columns.
    Text,
    /// Columns split at tabs; quotes mean nothing.
    Tsv,
    /// Columns split at commas, quoted as in RFC 4180.
    Csv,
    /// One JSON object per line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

impl FileFormat {
    /// By the ending of a file's name, with `.zst` or `.gz` taken off. Unknown endings (`en-ko.ko.zst`) are text.
    pub fn of_name(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let bare = lower
            .strip_suffix(".zst")
            .or_else(|| lower.strip_suffix(".gz"));
        let bare = bare.unwrap_or(&lower);
        let ending = bare.rsplit(['.', '/']).next().unwrap_or_default();
        Ok(match ending {
            "tsv" => Self::Tsv,
            "csv" => Self::Csv,
            "jsonl" | "ndjson" => Self::Jsonl,
            "parquet" => Self::Parquet,
            "json" => {
                bail!("`{name}` is one JSON value; write one object per line and name it .jsonl")
            }
            "zip" | "tar" | "tgz" | "xz" | "bz2" | "7z" => {
                bail!("`{name}` is an archive; unpack it (.zst and .gz files are read as they are)")
            }
            _ => Self::Text,
        })
    }

    pub fn has_columns(self) -> bool {
        self != Self::Text
    }
}

/// What was met while reading files, for the record of a stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    /// Lines read, blank ones and headers included.
    pub lines: u64,
    /// U+FEFF taken off the start of a file.
    pub byte_order_marks: u64,
    /// Lines that ended in CR LF.
    pub carriage_returns: u64,
}

impl LineCounts {
    pub fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.byte_order_marks += other.byte_order_marks;
        self.carriage_returns += other.carriage_returns;
    }
}

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];

/// A file's bytes, decompressed. Compression is recognised by the first bytes, so that a cached file needs no ending.
pub fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let mut file = File::open(path).with_context(|| format!("cannot open `{}`", path.display()))?;
    let mut start = Vec::with_capacity(4);
    let reading = || format!("cannot read `{}`", path.display());
    file.by_ref()
        .take(4)
        .read_to_end(&mut start)
        .with_context(reading)?;
    file.seek(SeekFrom::Start(0)).with_context(reading)?;
    const BUFFER: usize = 1 << 17;
    Ok(if start.starts_with(&ZSTD_MAGIC) {
        let decoder = zstd::Decoder::new(file).with_context(reading)?;
        Box::new(BufReader::with_capacity(BUFFER, decoder))
    } else if start.starts_with(&GZIP_MAGIC) {
        Box::new(BufReader::with_capacity(
            BUFFER,
            flate2::read::MultiGzDecoder::new(file),
        ))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, file))
    })
}

/// The lines of a file, one at a time.
pub struct Lines {
    reader: Box<dyn BufRead>,
    path: PathBuf,
    buffer: Vec<u8>,
    counts: LineCounts,
}

impl Lines {
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self {
            reader: open(path)?,
            path: path.to_owned(),
            buffer: Vec::new(),
            counts: LineCounts::default(),
        })
    }

    /// The next line without its end, or `None` at the end of the file.
    ///
    /// # Errors
    /// Bytes that are not UTF-8 (file, line and byte named), a cut or damaged compressed file.
    pub fn next_line(&mut self) -> Result<Option<&str>> {
        self.buffer.clear();
        let read = self.reader.read_until(b'\n', &mut self.buffer);
        let read = read.with_context(|| {
            format!(
                "`{}` cannot be read past line {}; the file is cut or damaged, fetch it again",
                self.path.display(),
                self.counts.lines
            )
        })?;
        if read == 0 {
            return Ok(None);
        }
        self.counts.lines += 1;
        let mut end = self.buffer.len();
        if self.buffer[end - 1] == b'\n' {
            end -= 1;
            if end > 0 && self.buffer[end - 1] == b'\r' {
                end -= 1;
                self.counts.carriage_returns += 1;
            }
        }
        let mut bytes = &self.buffer[..end];
        if self.counts.lines == 1
            && let Some(rest) = bytes.strip_prefix("\u{FEFF}".as_bytes())
        {
            bytes = rest;
            self.counts.byte_order_marks += 1;
        }
        match std::str::from_utf8(bytes) {
            Ok(line) => Ok(Some(line)),
            Err(error) => {
                let utf_16 = self.counts.lines == 1
                    && (bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]));
                bail!(
                    "`{}` line {} is not UTF-8 (byte {} of the line{}); convert the file to UTF-8",
                    self.path.display(),
                    self.counts.lines,
                    error.valid_up_to() + 1,
                    if utf_16 { ", it looks like UTF-16" } else { "" }
                )
            }
        }
    }

    /// The number of the line last returned, from 1.
    pub fn number(&self) -> u64 {
        self.counts.lines
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn counts(&self) -> LineCounts {
        self.counts
    }
}

/// SHA-256 of a file's bytes in lower-case hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let reading = || format!("cannot read `{}`", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher).with_context(reading)?;
    Ok(hexadecimal(&hasher.finalize()))
}

/// Lower-case hexadecimal digits of bytes.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides_the_format_and_compression_does_not() {
        for (name, format) in [
            ("mono/en.txt.zst", FileFormat::Text),
            ("para/en-ko.ko.zst", FileFormat::Text),
            ("a/b.tsv", FileFormat::Tsv),
            ("a.CSV.gz", FileFormat::Csv),
            ("a.jsonl", FileFormat::Jsonl),
            ("train-00000-of-00001.parquet", FileFormat::Parquet),
        ] {
            assert_eq!(FileFormat::of_name(name).unwrap(), format, "{name}");
        }
        assert!(FileFormat::of_name("XNLI-1.0.zip").is_err());
        assert!(FileFormat::of_name("data.json").is_err());
    }
}
