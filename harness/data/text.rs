//! Text pipelines: what is done to every sentence, of every corpus and task alike, before the tokenizer.

use std::borrow::Cow;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// What is done to a sentence. There is no default: papers, releases and READMEs disagree about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextPipeline {
    /// The text as it is.
    None,
    /// That of XLM-15 (Lample and Conneau 2019): lower case, decomposition (NFD), removal of combining marks
    /// (category Mn), lower case. XLM-17, XLM-100 and the translation models do without it.
    Xlm,
}

impl TextPipeline {
    pub fn apply(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::None => Cow::Borrowed(text),
            Self::Xlm => lowercase_and_remove_accents(text),
        }
    }
}

/// What `tools/lowercase_and_remove_accent.py` of XLM does to a line. It takes off more than accents: the virama and the
/// vowel signs of Devanagari that are not spacing, the upper and lower vowels and tones of Thai, Arabic harakat, the breve
/// of the Cyrillic short i; and it leaves Hangul decomposed into jamo.
///
/// Differs: XLM runs Moses' normaliser and tokenizer (and segmenters for Chinese and Thai) before it; words are split by
/// the tokenizer here, or beforehand by whoever supplies the files.
///
/// Differs: Unicode 18 tables against whatever Python has. Against Python 3.11's (14) every assigned character, alone and
/// between letters, gives the same but two: U+1171E is no longer Mn, U+0295 no longer cased (it decides a final sigma).
fn lowercase_and_remove_accents(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(text.to_ascii_lowercase()),
            false => Cow::Borrowed(text),
        };
    }
    let stripped: String = text
        .to_lowercase()
        .nfd()
        .filter(|&character| !is_nonspacing_mark(character))
        .collect();
    Cow::Owned(stripped.to_lowercase())
}

/// Whether a character is of category Mn. The Unicode tables are searched once for the basic plane, not once a character.
fn is_nonspacing_mark(character: char) -> bool {
    static BASIC_PLANE: LazyLock<Vec<bool>> = LazyLock::new(|| {
        let is_mark = |code| char::from_u32(code).is_some_and(searched);
        (0..0x1_0000).map(is_mark).collect()
    });
    fn searched(character: char) -> bool {
        character.general_category() == GeneralCategory::NonspacingMark
    }
    match BASIC_PLANE.get(character as usize) {
        Some(&is_mark) => is_mark,
        None => searched(character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_changes_nothing() {
        assert_eq!(TextPipeline::None.apply("Ünïcode  ÇA"), "Ünïcode  ÇA");
    }

    #[test]
    fn xlm_is_idempotent_and_keeps_plain_text() {
        assert!(matches!(
            TextPipeline::Xlm.apply("plain text."),
            Cow::Borrowed(_)
        ));
        let once = TextPipeline::Xlm
            .apply("Ünïcode ΣΑΣ İstanbul 한국어 ड़")
            .into_owned();
        assert_eq!(TextPipeline::Xlm.apply(&once), once);
    }
}
