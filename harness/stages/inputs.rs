//! What several stages read alike: files of the hub, and text that is kept for evaluation.

use anyhow::Result;

use super::Context;
use crate::data::hub::HubFiles;
use crate::data::input::{self, InputFile};
use crate::data::leakage::EvaluationText;

/// The evaluation sets among the inputs of a job: those that begin with `exclude:`.
pub fn evaluation_text(context: &Context) -> Result<EvaluationText> {
    let mut evaluation = EvaluationText::default();
    for (name, folder) in context.inputs {
        if name.starts_with("exclude:") {
            evaluation.add(folder)?;
        }
    }
    Ok(evaluation)
}

/// Files of the hub; transfers are shown, and stop when asked.
pub fn from_hub(files: &HubFiles, context: &Context) -> Result<Vec<InputFile>> {
    input::from_hub(files, &|file, done, total| {
        context.progress.begin(total, done, "bytes");
        context.progress.advance(done, file);
        context.stop_if_asked()
    })
}
