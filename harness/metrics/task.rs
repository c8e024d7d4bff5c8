//! The tasks that results know: what one test item of each is, what it is measured by, and how prose names it.

use super::Metric;

/// Of translation models; its regimes are searches, its languages directions.
pub const TRANSLATION_TASK: &str = Task::Translation.name();
/// Perplexity of held-out text under a pretrained model; its regimes are the units that the text is counted in.
pub const LANGUAGE_MODELLING_TASK: &str = Task::LanguageModelling.name();
/// Likeness of words that translate each other; its regime is where their vectors come from.
pub const WORD_TRANSLATION_TASK: &str = Task::WordTranslation.name();
/// Whether vectors of words are as alike as people find the words; its regime is where the vectors come from.
pub const WORD_SIMILARITY_TASK: &str = Task::WordSimilarity.name();

/// A task that a cell of results is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Natural language inference (Conneau et al. 2018).
    Xnli,
    /// The same where premise and hypothesis are in different languages.
    XnliMixed,
    Translation,
    LanguageModelling,
    WordTranslation,
    WordSimilarity,
}

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

impl Task {
    pub const ALL: [Self; 6] = [
        Self::Xnli,
        Self::XnliMixed,
        Self::Translation,
        Self::LanguageModelling,
        Self::WordTranslation,
        Self::WordSimilarity,
    ];

    /// As results and study files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xnli => "xnli",
            Self::XnliMixed => "xnli_mixed",
            Self::Translation => "translation",
            Self::LanguageModelling => "language_modelling",
            Self::WordTranslation => "word_translation",
            Self::WordSimilarity => "word_similarity",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.name() == name)
    }

    /// Of a name in a study or in results, whose readers refuse a name of no task.
    pub fn of(name: &str) -> Self {
        Self::from_name(name).unwrap_or(Self::Xnli)
    }

    pub fn items(self) -> Items {
        match self {
            Self::Xnli | Self::XnliMixed => Items::Classes,
            Self::Translation => Items::Translations,
            Self::LanguageModelling | Self::WordTranslation | Self::WordSimilarity => {
                Items::Measurements
            }
        }
    }

    /// What it is measured by, the usual metric first.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Xnli | Self::XnliMixed => &Metric::OF_CLASSES,
            Self::Translation => &Metric::OF_TRANSLATIONS,
            Self::LanguageModelling => &[Metric::Perplexity],
            Self::WordTranslation => &[Metric::Cosine, Metric::Distance, Metric::CosineOfOthers],
            Self::WordSimilarity => &[Metric::Pearson, Metric::Spearman],
        }
    }

    /// In the middle of a sentence.
    pub fn prose(self) -> &'static str {
        match self {
            Self::Xnli => "XNLI",
            Self::XnliMixed => "XNLI with premise and hypothesis in different languages",
            Self::Translation => "translation",
            Self::LanguageModelling => "language modelling",
            Self::WordTranslation => "words and their translations",
            Self::WordSimilarity => "word similarity",
        }
    }

    /// What is counted in a cell, and what a cell is of.
    pub fn counted(self) -> (&'static str, &'static str) {
        match self {
            Self::Xnli | Self::XnliMixed => ("test examples", "language"),
            Self::Translation => ("test sentences", "direction"),
            Self::LanguageModelling => ("held-out sentences", "language"),
            Self::WordTranslation | Self::WordSimilarity => ("pairs of words", "language"),
        }
    }
}

impl Items {
    /// Of a task by its name in results.
    pub fn of(task: &str) -> Self {
        Task::of(task).items()
    }
}
