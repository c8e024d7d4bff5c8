//! `xlt schema`: what a study file may say, as a JSON Schema for editors or as the text of `docs/study-file.md`.

mod markdown;

use std::io::Write;

use anyhow::Result;

use crate::spec;

#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Arguments {
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A JSON Schema, with which editors complete and check study files
    Json,
    /// Every field with its type, default and meaning
    Markdown,
}

pub fn run(arguments: Arguments, output: &mut dyn Write) -> Result<()> {
    let schema = spec::schema();
    match arguments.format {
        Format::Json => writeln!(output, "{}", serde_json::to_string_pretty(&schema)?)?,
        Format::Markdown => write!(output, "{}", markdown::page(&schema))?,
    }
    Ok(())
}
