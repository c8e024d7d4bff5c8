//! `xlt schema`: the JSON Schema of study files, for editors.

use std::io::Write;

use anyhow::Result;

use crate::spec;

pub fn run(output: &mut dyn Write) -> Result<()> {
    writeln!(output, "{}", serde_json::to_string_pretty(&spec::schema())?)?;
    Ok(())
}
