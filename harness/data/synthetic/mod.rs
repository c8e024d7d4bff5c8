//! Synthetic languages: a seeded family that shares one world and one grammar, so that translations are exact and
//! labels true by construction.
//!
//! ```text
//! world    concepts, scenes and how likely they are; which sentences are held out
//! logic    meanings, and what follows from what
//! text     documents: one scene told several times       language    words, scripts, suffixes, order
//! inference    hypotheses with three premises            annotation  tags, entities, dependency trees
//! ```
//! A text is made of meanings first and said in each language afterwards. All randomness is keyed by the seed and a
//! purpose: adding a language, or more of one text, leaves every other text as it was.

mod annotation;
mod facts;
mod inference;
mod language;
mod logic;
mod script;
mod settings;
mod text;
mod world;
mod write;

use std::collections::{BTreeMap, HashSet};

use anyhow::{Result, bail, ensure};
use rayon::prelude::*;

pub use annotation::AnnotatedSentence;
pub use settings::{
    FamilySettings, LanguageSettings, Morphology, Script, Side, SplitSizes, WordOrder,
    WorldSettings,
};
pub use write::write;

use crate::data::nli::NliExample;
use inference::Pair;
use language::Language;
use logic::Meaning;
use world::{Partition, Scenes, Split};

/// Sentences that belong together, in order.
pub type Document = Vec<String>;

/// The reference language and another.
pub type LanguagePair = (String, String);

/// Sentences or words of two languages that mean the same.
pub type StringPairs = Vec<(String, String)>;

/// The three splits of one kind of data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Splits<T> {
    /// To learn from.
    pub train: T,
    /// To choose by.
    pub dev: T,
    /// To report.
    pub test: T,
}

impl<T> Splits<T> {
    /// The splits with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &T)> {
        [
            ("train", &self.train),
            ("dev", &self.dev),
            ("test", &self.test),
        ]
        .into_iter()
    }
}

/// Everything a family yields.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// By language.
    pub monolingual: BTreeMap<String, Vec<Document>>,
    /// By (reference, other language): exact translations, in that order.
    pub parallel: BTreeMap<LanguagePair, Splits<StringPairs>>,
    /// By language: row by row the same pair in every language, so that the row of another language is the translation
    /// for translate-train and translate-test. `premise_id` is the triple that shares a hypothesis.
    pub nli: Splits<BTreeMap<String, Vec<NliExample>>>,
    /// By language: row by row the same sentence.
    pub annotated: Splits<BTreeMap<String, Vec<AnnotatedSentence>>>,
    /// By (reference, other language): the content words, in the form a dictionary cites.
    pub dictionary: BTreeMap<LanguagePair, StringPairs>,
    /// Counts and shares (0 to 1) of what was generated, by name.
    pub facts: BTreeMap<String, f64>,
}

/// What the parts of the generator share.
struct Generator<'a> {
    family: &'a FamilySettings,
    languages: BTreeMap<String, Language>,
    scenes: Scenes,
    partition: Partition,
    seed: u64,
    /// Sentences of the dev and test data drawn so far, in every language.
    held_out: HashSet<String>,
}

impl Generator<'_> {
    /// Whether a split may contain a sentence other than as a premise: each meaning belongs to one split.
    fn may_use(&self, meaning: &Meaning, split: Split) -> bool {
        self.partition.split(meaning) == split && !self.is_held_out(meaning)
    }

    /// Whether a split may contain a sentence as a premise. Three premises of one surface within a small split would be
    /// rare and peculiar, so those of dev and test may belong to training, which then avoids them.
    fn may_be_premise(&self, meaning: &Meaning, split: Split) -> bool {
        let owner = self.partition.split(meaning);
        (owner == split || owner == Split::Train) && !self.is_held_out(meaning)
    }

    /// Whether a sentence was used by a split that was drawn before. Languages that share words and differ in order can
    /// say two meanings alike, so sentences are compared as they are said in each language.
    fn is_held_out(&self, meaning: &Meaning) -> bool {
        let mut languages = self.languages.values();
        !self.held_out.is_empty()
            && languages.any(|language| self.held_out.contains(&language.sentence(meaning)))
    }
}

/// A family's data. `source` is the reference language; the same settings, source and seed give the same bytes.
/// Errors when the settings are out of range or the family is too small for the sizes asked.
pub fn generate(settings: &FamilySettings, source: &str, seed: u64) -> Result<Generated> {
    if let Some(problem) = settings.problems(source).first() {
        bail!("data.synthetic.{problem}");
    }
    let world = &settings.world;
    let mut generator = Generator {
        family: settings,
        languages: language::languages(settings, source, seed)?,
        scenes: Scenes::new(world, seed, "synthetic/scenes"),
        partition: Partition::new(seed),
        seed,
        held_out: HashSet::new(),
    };
    let others: Vec<&String> = settings
        .languages
        .keys()
        .filter(|code| *code != source)
        .collect();

    // Each split avoids what those before it say.
    let mut drawn = Drawn::default();
    for split in [Split::Test, Split::Dev, Split::Train] {
        let meanings = drawn.draw(&generator, &others, split)?;
        if split != Split::Train {
            let languages = generator.languages.values();
            let say = |language: &Language| {
                meanings
                    .iter()
                    .map(|meaning| language.sentence(meaning))
                    .collect::<Vec<_>>()
            };
            generator.held_out.extend(languages.flat_map(say));
        }
    }
    let monolingual = settings
        .languages
        .par_iter()
        .map(|(code, language)| {
            let own_scenes = Scenes::new(world, seed, &format!("synthetic/scenes/{code}"));
            let documents = text::documents(
                &generator,
                code,
                (&own_scenes, language.domain),
                settings.words_of(language),
            )?;
            let say = |meaning: &Meaning| generator.languages[code].sentence(meaning);
            let said = documents
                .iter()
                .map(|document| document.iter().map(say).collect());
            Ok((code.clone(), said.collect()))
        })
        .collect::<Result<BTreeMap<String, Vec<Document>>>>()?;

    let dictionary = others
        .iter()
        .map(|other| {
            let words = world
                .concepts()
                .into_iter()
                .filter(|concept| concept.is_content());
            let (one, two) = (&generator.languages[source], &generator.languages[*other]);
            let pairs =
                words.map(|word| (one.citation(word).to_owned(), two.citation(word).to_owned()));
            ((source.to_owned(), (*other).clone()), pairs.collect())
        })
        .collect();
    let mut generated = Generated {
        monolingual,
        parallel: drawn.parallel(&generator, source),
        nli: drawn.nli(&generator),
        annotated: drawn.annotated(&generator),
        dictionary,
        facts: BTreeMap::new(),
    };
    generated.facts = facts::measure(&generator, source, &drawn, &generated);
    ensure!(
        generated.facts["held_out_sentences_in_training_text"] == 0.0,
        "a dev or test sentence stands in the synthetic training text: this is a defect of the generator"
    );
    Ok(generated)
}

/// The meanings of all data that has dev and test splits.
#[derive(Default)]
struct Drawn {
    nli: Splits<Vec<Pair>>,
    annotated: Splits<Vec<Meaning>>,
    parallel: BTreeMap<String, Splits<Vec<Meaning>>>,
}

impl Drawn {
    /// Draws one split of everything, and returns all its meanings.
    fn draw(
        &mut self,
        generator: &Generator,
        others: &[&String],
        split: Split,
    ) -> Result<Vec<Meaning>> {
        let family = generator.family;
        let pairs = inference::pairs(generator, split, size(&family.nli, split))?;
        let mut meanings: Vec<Meaning> = pairs
            .iter()
            .flat_map(|pair| [pair.premise, pair.hypothesis])
            .collect();
        *at_mut(&mut self.nli, split) = pairs;

        let annotated = text::sentences(
            generator,
            split,
            size(&family.annotated, split),
            "annotated",
        )?;
        meanings.extend(&annotated);
        *at_mut(&mut self.annotated, split) = annotated;

        for other in others {
            let purpose = format!("parallel/{other}");
            let sentences =
                text::sentences(generator, split, size(&family.parallel, split), &purpose)?;
            meanings.extend(&sentences);
            *at_mut(self.parallel.entry((*other).clone()).or_default(), split) = sentences;
        }
        Ok(meanings)
    }

    fn parallel(
        &self,
        generator: &Generator,
        source: &str,
    ) -> BTreeMap<LanguagePair, Splits<StringPairs>> {
        self.parallel
            .iter()
            .map(|(other, splits)| {
                let (one, two) = (&generator.languages[source], &generator.languages[other]);
                let say = |meaning: &Meaning| (one.sentence(meaning), two.sentence(meaning));
                let splits = map(splits, |meanings| meanings.iter().map(say).collect());
                ((source.to_owned(), other.clone()), splits)
            })
            .collect()
    }

    fn nli(&self, generator: &Generator) -> Splits<BTreeMap<String, Vec<NliExample>>> {
        map(&self.nli, |pairs| {
            in_each(generator, |language| {
                let example = |(item, pair): (usize, &Pair)| NliExample {
                    premise: language.sentence(&pair.premise),
                    hypothesis: language.sentence(&pair.hypothesis),
                    label: pair.label,
                    premise_id: pair.triple,
                    item: item as u32,
                };
                pairs.iter().enumerate().map(example).collect()
            })
        })
    }

    fn annotated(&self, generator: &Generator) -> Splits<BTreeMap<String, Vec<AnnotatedSentence>>> {
        map(&self.annotated, |meanings| {
            in_each(generator, |language| {
                let annotate = |meaning: &Meaning| {
                    annotation::annotate(&generator.family.world, language, meaning)
                };
                meanings.iter().map(annotate).collect()
            })
        })
    }
}

fn in_each<T>(generator: &Generator, make: impl Fn(&Language) -> T) -> BTreeMap<String, T> {
    let languages = generator.languages.iter();
    languages
        .map(|(code, language)| (code.clone(), make(language)))
        .collect()
}

fn map<T, U>(splits: &Splits<T>, make: impl Fn(&T) -> U) -> Splits<U> {
    Splits {
        train: make(&splits.train),
        dev: make(&splits.dev),
        test: make(&splits.test),
    }
}

fn at_mut<T>(splits: &mut Splits<T>, split: Split) -> &mut T {
    match split {
        Split::Train => &mut splits.train,
        Split::Dev => &mut splits.dev,
        Split::Test => &mut splits.test,
    }
}

fn size(sizes: &SplitSizes, split: Split) -> usize {
    match split {
        Split::Train => sizes.train,
        Split::Dev => sizes.dev,
        Split::Test => sizes.test,
    }
}
