//! The knobs of a family of synthetic languages. Their defaults are the committed default family.
//!
//! The values are ours. A small prototype of this project (two seeds) showed transfer within minutes with this world,
//! these rates of retelling and anchors near 0.3; negation and quantifiers were added later, at moderate rates.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::problem::Problem;

/// A family of synthetic languages that share one grammar and one world.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FamilySettings {
    /// The languages, by code. The study's source language is the reference that the others borrow words from.
    pub languages: BTreeMap<String, LanguageSettings>,
    /// Share of content words (nouns, adjectives, verbs, places) that a language spells as the reference does, 0 to 1.
    pub anchors: f64,
    /// Whether function words (negation, adposition, quantifiers) are spelled as in the reference.
    pub shared_function_words: bool,
    /// Syllables in a content word; a function word has one less, at least one. All words are letters of the
    /// language's script, so subword tokenizers have something to learn.
    pub syllables_per_word: usize,
    /// The concepts that sentences speak of.
    pub world: WorldSettings,
    /// Share of scenes whose retellings, and of NLI hypotheses whose pairs, may deny a verb, 0 to 1.
    /// The premises of a pair are harder with it: keep it moderate for tiny models.
    pub negation: f64,
    /// Share of documents and of NLI hypotheses that are general statements with all, some and no, 0 to 1.
    /// They are the hardest pairs: keep it small for tiny models.
    pub quantifiers: f64,
    /// Running words of monolingual text per language (whole documents, so a few more).
    pub monolingual_words: usize,
    /// Sentence pairs of the reference with each other language.
    pub parallel: SplitSizes,
    /// Natural language inference pairs per language; multiples of three, because three premises share a hypothesis.
    pub nli: SplitSizes,
    /// Sentences with gold tags, entities and dependency trees per language.
    pub annotated: SplitSizes,
}

impl Default for FamilySettings {
    fn default() -> Self {
        Self {
            languages: ["aa", "bb"]
                .into_iter()
                .map(|code| (code.to_owned(), LanguageSettings::default()))
                .collect(),
            anchors: 0.3,
            shared_function_words: true,
            syllables_per_word: 2,
            world: WorldSettings::default(),
            negation: 0.1,
            quantifiers: 0.05,
            monolingual_words: 400_000,
            parallel: SplitSizes {
                train: 10_000,
                dev: 400,
                test: 400,
            },
            nli: SplitSizes {
                train: 8_001,
                dev: 600,
                test: 1_998,
            },
            annotated: SplitSizes {
                train: 2_000,
                dev: 300,
                test: 500,
            },
        }
    }
}

/// One language of the family: how it spells and orders the concepts that all share.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LanguageSettings {
    /// The family's `anchors` for this language alone; never for the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anchors: Option<f64>,
    /// The family's `shared_function_words` for this language alone; never for the reference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_function_words: Option<bool>,
    /// Letters of the words that are not anchors; an anchor keeps the reference's spelling, script included.
    pub script: Script,
    /// Order of subject, verb and object.
    pub order: WordOrder,
    /// Where an adjective stands with respect to its noun.
    pub adjective: Side,
    /// Where the adposition stands with respect to its place.
    pub adposition: Side,
    /// Suffixes.
    pub morphology: Morphology,
    /// Share of the monolingual documents whose scenes follow a distribution of the language's own instead of the
    /// family's, 0 (same domain) to 1. NLI, parallel and annotated text always follow the family's.
    pub domain: f64,
    /// The family's `monolingual_words` for this language alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monolingual_words: Option<usize>,
}

/// A script; every letter used survives lower-casing and accent removal without merging with another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Script {
    /// Two letters a syllable.
    #[default]
    Latin,
    /// Two letters a syllable.
    Cyrillic,
    /// Two letters a syllable.
    Greek,
    /// One block a syllable (two jamo after canonical decomposition).
    Hangul,
    /// One ideograph a syllable.
    Han,
}

/// Order of subject, verb and object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WordOrder {
    #[default]
    Svo,
    Sov,
    Vso,
}

/// Before or after the word it belongs to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    #[default]
    Before,
    After,
}

/// Suffixes of a language; none by default. They carry no meaning that the word order lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Morphology {
    /// Objects and places carry a case suffix; subjects are bare.
    pub case: bool,
    /// Adjectives agree with their noun, and verbs with their subject, in one of three noun classes.
    pub agreement: bool,
    /// Syllables of each suffix.
    pub suffix_syllables: usize,
}

impl Default for Morphology {
    fn default() -> Self {
        Self {
            case: false,
            agreement: false,
            suffix_syllables: 1,
        }
    }
}

/// How many concepts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorldSettings {
    /// Categories of nouns, each with a word of its own (a hypernym).
    pub categories: u16,
    /// Nouns in a category; a thing is exactly one noun.
    pub nouns_per_category: u16,
    /// Dimensions of adjectives, such as size; a thing has exactly one value in each.
    pub adjective_dimensions: u16,
    /// Adjectives in a dimension.
    pub adjectives_per_dimension: u16,
    /// Verbs; an event has exactly one.
    pub verbs: u16,
    /// Places; an event has exactly one.
    pub places: u16,
}

impl Default for WorldSettings {
    fn default() -> Self {
        Self {
            categories: 6,
            nouns_per_category: 4,
            adjective_dimensions: 5,
            adjectives_per_dimension: 3,
            verbs: 15,
            places: 9,
        }
    }
}

/// Sizes of the three splits. No sentence of dev or test occurs in any training or monolingual text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitSizes {
    /// Training items.
    pub train: usize,
    /// Development items.
    pub dev: usize,
    /// Test items.
    pub test: usize,
}

impl FamilySettings {
    /// What cannot be generated; fields below `data.synthetic`. `source` is the reference language.
    pub fn problems(&self, source: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |sound: bool, field: &str, what: String, remedy: &str| {
            let problem = Problem::new(field, what, remedy);
            // Languages without a number of their own share the family's.
            if !sound && !problems.contains(&problem) {
                problems.push(problem);
            }
        };
        match self.languages.get(source) {
            None => {
                let codes: Vec<&str> = self.languages.keys().map(String::as_str).collect();
                check(
                    false,
                    "languages",
                    format!(
                        "source language `{source}` is not in the synthetic family (languages: {})",
                        codes.join(", ")
                    ),
                    "add it here",
                );
            }
            Some(reference) => check(
                reference.anchors.is_none() && reference.shared_function_words.is_none(),
                &format!("languages.{source}"),
                format!("`{source}` is the reference, whose words the others share"),
                "set `anchors` and `shared_function_words` on the family or on another language",
            ),
        }
        const SHARE: &str = "choose a number from 0 to 1";
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        for (field, share) in [
            ("anchors", self.anchors),
            ("negation", self.negation),
            ("quantifiers", self.quantifiers),
        ] {
            check(is_share(share), field, format!("{field} is {share}"), SHARE);
        }
        let both = self.negation + self.quantifiers;
        check(
            both.is_nan() || both <= 1.0,
            "quantifiers",
            format!("negation and quantifiers are {both} together"),
            "choose at most 1 for their sum",
        );
        for (code, language) in &self.languages {
            let path = |field: &str| format!("languages.{code}.{field}");
            check(
                is_code(code),
                &format!("languages.{code}"),
                format!("`{code}` cannot be a language's code, because it names files"),
                "choose lower-case ASCII letters, digits or `_`, starting with a letter",
            );
            for (field, share) in [
                ("anchors", language.anchors.unwrap_or(0.0)),
                ("domain", language.domain),
            ] {
                check(
                    is_share(share),
                    &path(field),
                    format!("{field} is {share}"),
                    SHARE,
                );
            }
            let words = self.words_of(language);
            // The family's number unless the language has its own.
            let of_language = language
                .monolingual_words
                .map(|_| path("monolingual_words"));
            check(
                (1..=1_000_000_000).contains(&words),
                of_language.as_deref().unwrap_or("monolingual_words"),
                format!("{words} monolingual words"),
                "choose between 1 and 1000000000",
            );
            let syllables = language.morphology.suffix_syllables;
            check(
                (1..=4).contains(&syllables),
                &path("morphology.suffix_syllables"),
                format!("suffixes of {syllables} syllables"),
                "choose 1 to 4",
            );
        }
        check(
            (1..=8).contains(&self.syllables_per_word),
            "syllables_per_word",
            format!("words of {} syllables", self.syllables_per_word),
            "choose 1 to 8",
        );
        // The least numbers are those for which the rules of `logic` hold.
        let world = &self.world;
        for (name, count, least) in [
            ("categories", world.categories, 2),
            ("nouns_per_category", world.nouns_per_category, 2),
            ("adjective_dimensions", world.adjective_dimensions, 1),
            (
                "adjectives_per_dimension",
                world.adjectives_per_dimension,
                2,
            ),
            ("verbs", world.verbs, 3),
            ("places", world.places, 2),
        ] {
            check(
                (least..=100).contains(&count),
                &format!("world.{name}"),
                format!("{name} is {count}"),
                &format!("choose {least} to 100"),
            );
        }
        let most = "choose up to 10000000";
        let of_three = "choose a multiple of 3 up to 10000000: three premises share a hypothesis";
        for (field, items, sizes, multiple, remedy) in [
            ("nli", "pairs", self.nli, 3, of_three),
            ("parallel", "pairs", self.parallel, 1, most),
            ("annotated", "sentences", self.annotated, 1, most),
        ] {
            for (name, size) in [
                ("train", sizes.train),
                ("dev", sizes.dev),
                ("test", sizes.test),
            ] {
                check(
                    size.is_multiple_of(multiple) && size <= 10_000_000,
                    &format!("{field}.{name}"),
                    format!("{size} {items}"),
                    remedy,
                );
            }
        }
        problems
    }

    /// What differs from the committed default family, one line a setting, for the report.
    pub fn deviations(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let default = Self::default();
        if self.languages.keys().ne(default.languages.keys()) {
            let codes = |family: &Self| {
                family
                    .languages
                    .keys()
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            lines.push(format!(
                "languages: {} (default {})",
                codes(self),
                codes(&default)
            ));
        }
        let without_languages = |family: &Self| {
            json(&Self {
                languages: BTreeMap::new(),
                ..family.clone()
            })
        };
        differences(
            "",
            &without_languages(self),
            &without_languages(&default),
            &mut lines,
        );
        for (code, language) in &self.languages {
            differences(
                &format!("languages.{code}"),
                &json(language),
                &json(&LanguageSettings::default()),
                &mut lines,
            );
        }
        lines
    }

    /// Running words asked of a language.
    pub(super) fn words_of(&self, language: &LanguageSettings) -> usize {
        language.monolingual_words.unwrap_or(self.monolingual_words)
    }

    /// Share of content words a language takes from the reference.
    pub(super) fn anchors_of(&self, language: &LanguageSettings) -> f64 {
        language.anchors.unwrap_or(self.anchors)
    }
}

fn is_code(code: &str) -> bool {
    code.starts_with(|first: char| first.is_ascii_lowercase())
        && code
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn json<T: Serialize>(settings: &T) -> Value {
    // Settings have string keys and no serializer that fails.
    serde_json::to_value(settings).unwrap_or_default()
}

fn differences(path: &str, value: &Value, default: &Value, lines: &mut Vec<String>) {
    match (value, default) {
        (Value::Object(fields), Value::Object(defaults)) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                differences(
                    &path,
                    value,
                    defaults.get(name).unwrap_or(&Value::Null),
                    lines,
                );
            }
        }
        _ if value == default => {}
        (_, Value::Null) => lines.push(format!("{path}: {value} (default the family's)")),
        _ => lines.push(format!("{path}: {value} (default {default})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_family_is_valid_and_has_no_deviations() {
        let family = FamilySettings::default();
        assert_eq!(family.problems("aa"), []);
        assert_eq!(family.deviations(), Vec::<String>::new());
    }

    #[test]
    fn deviations_name_each_field_and_its_default() {
        let mut family = FamilySettings {
            anchors: 0.1,
            ..Default::default()
        };
        family.world.verbs = 20;
        let bb = family.languages.get_mut("bb").unwrap();
        bb.order = WordOrder::Sov;
        bb.anchors = Some(0.5);
        assert_eq!(
            family.deviations(),
            [
                "anchors: 0.1 (default 0.3)",
                "world.verbs: 20 (default 15)",
                "languages.bb.anchors: 0.5 (default the family's)",
                "languages.bb.order: \"sov\" (default \"svo\")",
            ]
        );
    }

    #[test]
    fn wrong_settings_are_refused_with_the_field() {
        let refused = |change: fn(&mut FamilySettings), field: &str| {
            let mut family = FamilySettings::default();
            change(&mut family);
            let problems = family.problems("aa");
            let fields: Vec<&str> = problems
                .iter()
                .map(|problem| problem.field.as_str())
                .collect();
            assert_eq!(fields, [field]);
        };
        refused(|family| family.anchors = f64::NAN, "anchors");
        refused(
            |family| (family.negation, family.quantifiers) = (0.7, 0.7),
            "quantifiers",
        );
        refused(|family| family.nli.test = 2_000, "nli.test");
        refused(|family| family.world.verbs = 2, "world.verbs");
        refused(|family| family.monolingual_words = 0, "monolingual_words");
        refused(
            |family| family.languages.retain(|code, _| code != "aa"),
            "languages",
        );
        refused(
            |family| family.languages.get_mut("aa").unwrap().anchors = Some(0.2),
            "languages.aa",
        );
        refused(
            |family| {
                let language = LanguageSettings::default();
                family.languages.extend([("../x".to_owned(), language)]);
            },
            "languages.../x",
        );
    }
}
