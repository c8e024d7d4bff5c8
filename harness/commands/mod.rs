//! The commands of `xlt`: one file each. They parse nothing and print on what they are handed.

pub mod bench;
pub mod check;
pub mod compare;
pub mod plan;
pub mod report;
pub mod run;
pub mod schema;
pub mod selftest;
pub mod status;
pub mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::plan::hashes::FileHashes;
use crate::plan::{Plan, build};
use crate::spec::{self, Study};
use crate::store::Store;

/// Done.
pub const DONE: u8 = 0;
/// A job failed.
pub const FAILED: u8 = 1;
/// What was asked for cannot be done: arguments, study file, missing data, a disk or a network that fails.
pub const REFUSED: u8 = 2;
/// A committed file no longer follows from the scores.
pub const STALE: u8 = 3;
/// A gate was contradicted.
pub const CONTRADICTED: u8 = 4;
/// Stopped by Ctrl-C or SIGTERM.
pub const INTERRUPTED: u8 = 130;

/// Options of every command that takes a study.
#[derive(Debug, Clone, clap::Args)]
pub struct StudyArguments {
    /// The study file, such as experiments/quickstart.yaml
    pub study: PathBuf,
    /// The size to run it at; the first profile of the file when absent
    #[arg(long)]
    pub profile: Option<String>,
    /// Folder of finished and unfinished artifacts
    #[arg(long, env = "XLT_STORE", default_value = ".xlt")]
    pub store: PathBuf,
    /// Folder of results; a study writes below <results>/<study>/<profile>
    #[arg(long, default_value = "results")]
    pub results: PathBuf,
    /// Where relative paths of data start; the working folder when absent
    #[arg(long, env = "XLT_DATA")]
    pub data: Option<PathBuf>,
    /// Print one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

/// The plan of a study whose data lies below a folder; hashes of data files are remembered beside the store.
fn planned(study: &Study, data: Option<&Path>, store: &Path) -> Result<Plan> {
    let mut hashes = FileHashes::kept_in(&store.join("layout.hashes"));
    build(study, data, &mut hashes).with_context(|| study.file.display().to_string())
}

impl StudyArguments {
    pub fn read(&self) -> Result<Study> {
        spec::read(&self.study, self.profile.as_deref())
    }

    pub fn open_store(&self) -> Result<Store> {
        Store::open(&self.store)
    }

    /// Plans the study; hashes of data files are remembered beside the store.
    pub fn plan(&self, study: &Study) -> Result<Plan> {
        planned(study, self.data.as_deref(), &self.store)
    }

    /// Where the study's results lie.
    pub fn folder(&self, study: &Study) -> PathBuf {
        self.results.join(&study.name).join(&study.profile)
    }
}

/// The command line that runs a study, for messages that say how to go on.
pub fn command_line(verb: &str, arguments: &StudyArguments, study: &Study) -> String {
    let mut line = format!("xlt {verb} {}", arguments.study.display());
    let first = study
        .profiles
        .first()
        .is_none_or(|first| *first == study.profile);
    if !first {
        line.push_str(&format!(" --profile {}", study.profile));
    }
    for (option, value, default) in [
        ("--store", &arguments.store, ".xlt"),
        ("--results", &arguments.results, "results"),
    ] {
        if value != Path::new(default) {
            line.push_str(&format!(" {option} {}", value.display()));
        }
    }
    if let Some(data) = &arguments.data {
        line.push_str(&format!(" --data {}", data.display()));
    }
    line
}

/// An exit code as the process's.
pub fn exit(code: u8) -> ExitCode {
    ExitCode::from(code)
}
