//! Jobs that prepare text: synthetic languages, monolingual and parallel text, inference pairs, tokenizer, token files.

use anyhow::Result;

use super::{Builder, Files, Inputs, nothing};
use crate::data::nli::Split;
use crate::data::source::{
    NliInput, NliSource, ParallelInput, ParallelSource, TextInput, WordInput,
};
use crate::fingerprint::Fingerprint;
use crate::objectives::translation::language_pairs;
use crate::plan::Source;
use crate::spec::Problem;
use crate::spec::settings::{NliData, Settings};
use crate::spec::translation::TranslationSettings;
use crate::spec::translator;
use crate::stages::parallel::{Use, VALIDATION_FILES};
use crate::stages::{corpus, monolingual, nli, parallel, synthesize, tokenizer, word_pairs};

/// Parts of a natural language inference data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Train,
    Dev,
    Test,
    TranslatedTrain,
    TranslatedTest,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
            Self::TranslatedTrain => "translated_train",
            Self::TranslatedTest => "translated_test",
        }
    }

    pub(super) fn split(self) -> Split {
        match self {
            Self::Train | Self::TranslatedTrain => Split::Train,
            Self::Dev => Split::Dev,
            Self::Test | Self::TranslatedTest => Split::Test,
        }
    }

    pub(super) fn sources(self, data: &NliData) -> &[NliSource] {
        match self {
            Self::Train => &data.train,
            Self::Dev => &data.dev,
            Self::Test => &data.test,
            Self::TranslatedTrain => &data.translated_train,
            Self::TranslatedTest => &data.translated_test,
        }
    }
}

/// Files of a source, and what the report says of them.
struct Found {
    /// The fact of the reading job's record that lists them.
    fact: &'static str,
    /// What stands behind the job's label, where a job reads more than one source.
    part: &'static str,
    files: Files,
    revision: Option<String>,
    licence: Option<String>,
    citation: Option<String>,
}

/// The fact under which records list most sources.
const SOURCES: &str = "sources";

/// "8000 shared": what tells the token files of two variants apart.
fn vocabulary_name(settings: &Settings) -> String {
    let tokenizer = &settings.tokenizer;
    format!("{} {:?}", tokenizer.bpe.vocabulary, tokenizer.sharing).to_lowercase()
}

/// The first source that has a language, with its number in the list: later ones are for other languages.
fn first<S>(sources: &[S], covers: impl Fn(&S) -> bool) -> Option<(usize, &S)> {
    sources
        .iter()
        .enumerate()
        .find(|(_, source)| covers(source))
}

/// The language of a pair that is not the study's source.
fn target_of<'a>(pair: (&'a str, &'a str), settings: &Settings) -> &'a str {
    match pair.0 == settings.languages.source {
        true => pair.1,
        false => pair.0,
    }
}

impl Builder<'_> {
    /// Notes that data is missing which the section at `path` should name; the placeholder lets planning go on, so that
    /// everything missing is told at once.
    fn miss(&mut self, path: &str, message: String) -> Fingerprint {
        let place = self
            .document
            .map(|document| document.nearest_to(path).place);
        let problem = Problem { message, place };
        // Variants share most of their data.
        if !self.missing.contains(&problem) {
            self.missing.push(problem);
        }
        nothing()
    }

    /// Notes the files that a job reads, for the report.
    fn note_source(&mut self, job: &Fingerprint, all: impl IntoIterator<Item = Found>) {
        let Some(reader) = self.plan.job(job) else {
            return;
        };
        let label = reader.label.clone();
        for found in all {
            let same = |source: &Source| source.job == *job && source.fact == found.fact;
            if self.plan.sources.iter().any(same) {
                continue;
            }
            self.plan.sources.push(Source {
                job: job.clone(),
                fact: found.fact,
                name: format!("{label}{}", found.part),
                files: found.files,
                revision: found.revision,
                licence: found.licence,
                citation: found.citation,
            });
        }
    }

    fn synthesize(&mut self, settings: &Settings) -> Result<Option<Fingerprint>> {
        let Some(family) = &settings.data.synthetic else {
            return Ok(None);
        };
        self.plan.synthetic_deviations = family.deviations();
        let stage = synthesize::Settings {
            family: family.clone(),
            source: settings.languages.source.clone(),
            seed: settings.seeds.data,
        };
        let identity = (synthesize::NAME, synthesize::VERSION);
        let nothing = (Inputs::new(), Files::new());
        self.add_data(identity, &stage, nothing, "synthetic languages".into())
            .map(Some)
    }

    pub(super) fn nli(
        &mut self,
        settings: &Settings,
        role: Role,
        language: &str,
    ) -> Result<Fingerprint> {
        if self.translates(settings, role, language) {
            return self.translated_nli(settings, role, language);
        }
        let name = format!("nli {} {language}", role.name());
        let mut inputs = Inputs::new();
        let (mut files, mut found) = (Files::new(), None);
        // Of a synthetic family, translations are exact: the same rows in the other language.
        let mut text_language = language.to_owned();
        let input = match self.synthesize(settings)? {
            Some(job) => {
                inputs.insert("synthesize".into(), job);
                if role == Role::TranslatedTest {
                    text_language = settings.languages.source.clone();
                }
                NliInput::Synthetic
            }
            None => {
                let sources = role.sources(&settings.data.nli);
                let section = format!("data.nli.{}", role.name());
                let Some((index, source)) = first(sources, |source| source.covers(language)) else {
                    let source_language = &settings.languages.source;
                    return Ok(self.miss(&section, match role {
                        Role::TranslatedTrain => format!("{language}: the training set translated into {language}; name it under data.nli.translated_train, let data.nli.translator make it, or drop {language} from translate_train with finetune.regime_languages"),
                        Role::TranslatedTest => format!("{language}: the test set translated from {language} into {source_language}; name it under data.nli.translated_test, let data.nli.translator make it, or drop {language} from translate_test with finetune.regime_languages"),
                        _ => format!("{language}: the {} set; name it under data.nli.{}", role.name(), role.name()),
                    }));
                };
                match source.files(language, self.root) {
                    Ok(paths) => files = self.hashed(paths)?,
                    Err(error) => {
                        let path = format!("{section}.{index}");
                        return Ok(self.miss(&path, format!("{name}: {error:#}")));
                    }
                }
                let input = source.input(language)?;
                let revision = match &input {
                    NliInput::Hub { files, .. } => Some(files.revision.clone()),
                    _ => None,
                };
                found = Some(Found {
                    fact: SOURCES,
                    part: "",
                    files: files.clone(),
                    revision,
                    licence: source.licence.clone(),
                    citation: source.citation.clone(),
                });
                input
            }
        };
        inputs.extend(self.exclusions(settings, role, language)?);
        let stage = nli::Settings {
            split: role.split(),
            language: text_language,
            input,
            text_pipeline: settings.data.text_pipeline,
            limit: match role.split() {
                Split::Train => settings.data.nli.train_limit,
                Split::Dev | Split::Test => None,
            },
            seed: settings.seeds.data,
        };
        let job = self.add_data((nli::NAME, nli::VERSION), &stage, (inputs, files), name)?;
        self.note_source(&job, found);
        Ok(job)
    }

    /// Of a training set the evaluation sets of its language, whose pairs must not be among it.
    pub(super) fn exclusions(
        &mut self,
        settings: &Settings,
        role: Role,
        language: &str,
    ) -> Result<Inputs> {
        let mut inputs = Inputs::new();
        if role.split() == Split::Train {
            for (other, role) in [("dev", Role::Dev), ("test", Role::Test)] {
                let evaluation = self.nli(settings, role, language)?;
                inputs.insert(format!("exclude:{other}"), evaluation);
            }
        }
        Ok(inputs)
    }

    /// Dev and test sets of a language, whose sentences must not be trained on.
    fn evaluation_sets(&mut self, settings: &Settings, languages: &[&str]) -> Result<Inputs> {
        let evaluated = match settings.finetune {
            Some(_) => settings.languages.evaluated(),
            None => Vec::new(),
        };
        let mut inputs = Inputs::new();
        let own = settings.translation.iter();
        let mut pairs = language_pairs(
            &own.flat_map(TranslationSettings::tested)
                .cloned()
                .collect::<Vec<_>>(),
        );
        for pair in translator::tested_pairs(settings) {
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        for (first, second) in &pairs {
            let (first, second) = (first.as_str(), second.as_str());
            if languages.contains(&first) || languages.contains(&second) {
                let name = format!("exclude:parallel_test:{first}-{second}");
                let test = self.parallel_test(settings, (first, second))?;
                inputs.insert(name, test);
            }
        }
        for language in languages
            .iter()
            .filter(|language| evaluated.contains(language))
        {
            for role in [Role::Dev, Role::Test] {
                inputs.insert(
                    format!("exclude:{}:{language}", role.name()),
                    self.nli(settings, role, language)?,
                );
            }
        }
        Ok(inputs)
    }

    pub(super) fn monolingual(
        &mut self,
        settings: &Settings,
        language: &str,
    ) -> Result<Fingerprint> {
        let name = format!("monolingual {language}");
        let mut inputs = self.evaluation_sets(settings, &[language])?;
        let (mut files, mut found) = (Files::new(), None);
        let mut limit = settings.data.monolingual_limit;
        let input = match self.synthesize(settings)? {
            Some(job) => {
                inputs.insert("synthesize".into(), job);
                TextInput::Synthetic
            }
            None => {
                let sources = &settings.data.monolingual;
                let root = self.root;
                let Some((index, source)) = first(sources, |source| source.covers(language)) else {
                    return Ok(self.miss(
                        "data.monolingual",
                        format!("{language}: monolingual text; name it under data.monolingual"),
                    ));
                };
                let paths = match source.files(language, root) {
                    Ok(paths) => paths,
                    Err(error) => {
                        return Ok(self.miss(
                            &format!("data.monolingual.{index}"),
                            format!("{language}: monolingual text; {error:#}"),
                        ));
                    }
                };
                files = self.hashed(paths)?;
                limit = source.limit.or(limit);
                let input = source.input(language)?;
                let revision = match &input {
                    TextInput::Hub { files, .. } => Some(files.revision.clone()),
                    _ => None,
                };
                found = Some(Found {
                    fact: SOURCES,
                    part: "",
                    files: files.clone(),
                    revision,
                    licence: source.licence.clone(),
                    citation: source.citation.clone(),
                });
                input
            }
        };
        let stage = monolingual::Settings {
            language: language.to_owned(),
            input,
            text_pipeline: settings.data.text_pipeline,
            limit,
            validation_sentences: settings.data.monolingual_validation,
            seed: settings.seeds.data,
        };
        let identity = (monolingual::NAME, monolingual::VERSION);
        let job = self.add_data(identity, &stage, (inputs, files), name)?;
        self.note_source(&job, found);
        Ok(job)
    }

    /// Words of the source language beside those of another: a dictionary, or pairs that people have rated.
    pub(super) fn word_pairs(
        &mut self,
        settings: &Settings,
        language: &str,
        rated: bool,
    ) -> Result<Fingerprint> {
        let source_language = &settings.languages.source;
        let (section, sources) = match rated {
            true => ("word_similarity", &settings.data.word_similarity),
            false => ("dictionaries", &settings.data.dictionaries),
        };
        let name = format!("{section} {source_language}-{language}").replace('_', " ");
        let (mut inputs, mut files) = (Inputs::new(), Files::new());
        let (mut limit, mut found) = (None, None);
        let family = match rated {
            // Nobody has rated generated words.
            true => None,
            false => self.synthesize(settings)?,
        };
        let input = match family {
            Some(job) => {
                inputs.insert("synthesize".into(), job);
                WordInput::Synthetic
            }
            None => {
                let root = self.root;
                let section = format!("data.{section}");
                let Some((index, source)) = first(sources, |source| source.covers(language)) else {
                    let message = format!("{name}: pairs of words; name them under {section}");
                    return Ok(self.miss(&section, message));
                };
                let paths = match source.files(language, root) {
                    Ok(paths) => paths,
                    Err(error) => {
                        let path = format!("{section}.{index}");
                        return Ok(self.miss(&path, format!("{name}: pairs of words; {error:#}")));
                    }
                };
                files = self.hashed(paths)?;
                limit = source.limit;
                let input = source.input(language)?;
                let revision = match &input {
                    WordInput::Hub { files } => Some(files.revision.clone()),
                    _ => None,
                };
                found = Some(Found {
                    fact: SOURCES,
                    part: "",
                    files: files.clone(),
                    revision,
                    licence: source.licence.clone(),
                    citation: source.citation.clone(),
                });
                input
            }
        };
        let stage = word_pairs::Settings {
            source: source_language.clone(),
            language: language.to_owned(),
            input,
            rated,
            text_pipeline: settings.data.text_pipeline,
            limit,
            seed: settings.seeds.data,
        };
        let identity = (word_pairs::NAME, word_pairs::VERSION);
        let job = self.add_data(identity, &stage, (inputs, files), name)?;
        self.note_source(&job, found);
        Ok(job)
    }

    /// Sentence pairs of two languages in alphabetical order, to validate with and, where there are any, to train with.
    ///
    /// `trained` says that there must be some to train with.
    fn parallel(
        &mut self,
        settings: &Settings,
        pair: (&str, &str),
        trained: bool,
    ) -> Result<Fingerprint> {
        let mut inputs = self.evaluation_sets(settings, &[pair.0, pair.1])?;
        // A monolingual text is split by itself: what it holds out may stand in the pairs as well.
        let measured = settings.language_modelling.iter();
        for language in measured.flat_map(|modelling| &modelling.languages) {
            if [pair.0, pair.1].contains(&language.as_str()) {
                let text = self.monolingual(settings, language)?;
                inputs.insert(format!("exclude:held_out:{language}"), text);
            }
        }
        let target = target_of(pair, settings);
        let covers = |sources: &[ParallelSource]| sources.iter().any(|one| one.covers(target));
        let data = &settings.data;
        let section = ("parallel", data.parallel.as_slice());
        let mut files = Files::new();
        let (mut input, mut validation) = (None, None);
        let mut sources = Vec::new();
        let of_training = match trained || covers(&data.parallel) || !covers(&data.parallel_dev) {
            true => Some(self.pairs(settings, pair, section, &mut inputs)?),
            false => None,
        };
        let section = ("parallel_dev", data.parallel_dev.as_slice());
        let of_dev = match covers(&data.parallel_dev) {
            true => Some(self.pairs(settings, pair, section, &mut inputs)?),
            false => None,
        };
        if let Some(found) = of_training {
            let Some(found) = found else {
                return Ok(nothing());
            };
            files.extend(found.1.iter().flat_map(|found| found.files.clone()));
            input = Some(found.0);
            sources.extend(found.1);
        }
        if let Some(found) = of_dev {
            let Some(found) = found else {
                return Ok(nothing());
            };
            let read = found.1.iter().flat_map(|found| found.files.clone());
            files.extend(read.map(|(name, file)| (format!("{VALIDATION_FILES}{name}"), file)));
            validation = Some(found.0);
            sources.extend(found.1.map(|found| Found {
                fact: parallel::VALIDATION_SOURCES,
                part: ", dev",
                ..found
            }));
        }
        let stage = parallel::Settings {
            first: pair.0.to_owned(),
            second: pair.1.to_owned(),
            input,
            validation_pairs: match validation {
                None => data.parallel_validation,
                Some(_) => 0,
            },
            validation,
            text_pipeline: data.text_pipeline,
            limit: data.parallel_limit,
            used_for: Use::Training,
            seed: settings.seeds.data,
        };
        let identity = (parallel::NAME, stage.used_for.version());
        let name = format!("parallel {}-{}", pair.0, pair.1);
        let job = self.add_data(identity, &stage, (inputs, files), name)?;
        self.note_source(&job, sources);
        Ok(job)
    }

    /// Sentence pairs of two languages in alphabetical order, to test with.
    pub(super) fn parallel_test(
        &mut self,
        settings: &Settings,
        pair: (&str, &str),
    ) -> Result<Fingerprint> {
        let mut inputs = Inputs::new();
        let section = ("parallel_test", settings.data.parallel_test.as_slice());
        let Some((input, found)) = self.pairs(settings, pair, section, &mut inputs)? else {
            return Ok(nothing());
        };
        let files = found.as_ref().map(|found| found.files.clone());
        let stage = parallel::Settings {
            first: pair.0.to_owned(),
            second: pair.1.to_owned(),
            input: Some(input),
            validation: None,
            text_pipeline: settings.data.text_pipeline,
            limit: None,
            validation_pairs: 0,
            used_for: Use::Test,
            seed: settings.seeds.data,
        };
        let identity = (parallel::NAME, stage.used_for.version());
        let name = format!("parallel test {}-{}", pair.0, pair.1);
        let prepared = (inputs, files.unwrap_or_default());
        let job = self.add_data(identity, &stage, prepared, name)?;
        self.note_source(&job, found);
        Ok(job)
    }

    /// Where a section has the sentence pairs of two languages; `None` after noting that they are missing.
    fn pairs(
        &mut self,
        settings: &Settings,
        pair: (&str, &str),
        (section, sources): (&str, &[ParallelSource]),
        inputs: &mut Inputs,
    ) -> Result<Option<(ParallelInput, Option<Found>)>> {
        if let Some(job) = self.synthesize(settings)? {
            inputs.insert("synthesize".into(), job);
            return Ok(Some((ParallelInput::Synthetic, None)));
        }
        let (first, second) = pair;
        let source_language = settings.languages.source.as_str();
        let target = target_of(pair, settings);
        let what = match section {
            "parallel_test" => format!("{first}-{second}: sentence pairs to test translation"),
            _ => format!("{first}-{second}: sentence pairs"),
        };
        let section = format!("data.{section}");
        let Some((index, source)) = self::first(sources, |source| source.covers(target)) else {
            self.miss(&section, format!("{what}; name them under {section}"));
            return Ok(None);
        };
        let files = match source.files(source_language, target, self.root) {
            Ok(paths) => self.hashed(paths)?,
            Err(error) => {
                self.miss(&format!("{section}.{index}"), format!("{what}; {error:#}"));
                return Ok(None);
            }
        };
        let input = source.input(source_language, target)?;
        let revision = match &input {
            ParallelInput::Hub { files, .. } => files.first().map(|files| files.revision.clone()),
            _ => None,
        };
        let found = Found {
            fact: SOURCES,
            part: "",
            files,
            revision,
            licence: source.licence.clone(),
            citation: source.citation.clone(),
        };
        Ok(Some((input, Some(found))))
    }

    pub(super) fn tokenizer(&mut self, settings: &Settings) -> Result<Fingerprint> {
        let languages: Vec<String> = settings
            .languages
            .all()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let mut inputs = Inputs::new();
        for language in &languages {
            let text = self.monolingual(settings, language)?;
            inputs.insert(format!("monolingual:{language}"), text);
        }
        let stage = tokenizer::Settings {
            tokenizer: settings.tokenizer.clone(),
            languages,
        };
        let name = format!("tokenizer {}", vocabulary_name(settings));
        self.add_data(
            (tokenizer::NAME, tokenizer::VERSION),
            &stage,
            (inputs, Files::new()),
            name,
        )
    }

    /// Token files of one language.
    pub(super) fn corpus(&mut self, settings: &Settings, language: &str) -> Result<Fingerprint> {
        let text = self.monolingual(settings, language)?;
        let stage = corpus::Settings::monolingual(language);
        let name = format!("corpus {language}, {}", vocabulary_name(settings));
        self.token_files(settings, &stage, text, name)
    }

    /// Token files of two languages in alphabetical order; `trained` as for their text.
    pub(super) fn parallel_corpus(
        &mut self,
        settings: &Settings,
        pair: (&str, &str),
        trained: bool,
    ) -> Result<Fingerprint> {
        let text = self.parallel(settings, pair, trained)?;
        let stage = corpus::Settings::parallel(pair.0, pair.1);
        self.token_files(
            settings,
            &stage,
            text,
            format!(
                "parallel corpus {}-{}, {}",
                pair.0,
                pair.1,
                vocabulary_name(settings)
            ),
        )
    }

    fn token_files(
        &mut self,
        settings: &Settings,
        stage: &corpus::Settings,
        text: Fingerprint,
        name: String,
    ) -> Result<Fingerprint> {
        let tokenizer = self.tokenizer(settings)?;
        let inputs = Inputs::from([
            ("tokenizer".to_owned(), tokenizer),
            ("text".to_owned(), text),
        ]);
        self.add_data(
            (corpus::NAME, corpus::VERSION),
            stage,
            (inputs, Files::new()),
            name,
        )
    }
}
