//! The tasks that results know, by what one test item of them is.

/// Of translation models; its regimes are searches, its languages directions.
pub const TRANSLATION_TASK: &str = "translation";
/// Perplexity of held-out text under a pretrained model; its regimes are the units that the text is counted in.
pub const LANGUAGE_MODELLING_TASK: &str = "language_modelling";
/// Likeness of words that translate each other; its regime is where their vectors come from.
pub const WORD_TRANSLATION_TASK: &str = "word_translation";
/// Whether vectors of words are as alike as people find the words; its regime is where the vectors come from.
pub const WORD_SIMILARITY_TASK: &str = "word_similarity";

/// What a test item gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Items {
    /// A class, of a fine-tuned model.
    Classes,
    /// A sentence, of a translation model.
    Translations,
    /// Numbers, of a pretrained model as it is.
    Measurements,
}

impl Items {
    /// Of a task by its name in results.
    pub fn of(task: &str) -> Self {
        match task {
            TRANSLATION_TASK => Self::Translations,
            LANGUAGE_MODELLING_TASK | WORD_TRANSLATION_TASK | WORD_SIMILARITY_TASK => {
                Self::Measurements
            }
            _ => Self::Classes,
        }
    }
}
