//! A language of the family: its words, their forms, and their order. Translation is saying the same meaning again.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::logic::{Meaning, Noun, NounPhrase};
use super::script::{SYLLABLES, write_syllable};
use super::settings::{FamilySettings, LanguageSettings, Script, Side, WordOrder, WorldSettings};
use super::world::Concept;
use crate::random::Random;

/// Noun classes of a language with agreement (ours).
const CLASSES: usize = 3;
/// Draws for a word, and for a whole vocabulary, before giving up (ours).
const WORD_DRAWS: usize = 1_000;
const VOCABULARY_DRAWS: u64 = 64;

/// One language; made by [`languages`].
#[derive(Debug)]
pub(super) struct Language {
    pub settings: LanguageSettings,
    world: WorldSettings,
    /// By concept: the word without suffix.
    pub stems: Vec<String>,
    /// By concept, then by inflection.
    forms: Vec<Vec<String>>,
    /// By category of nouns.
    classes: Vec<usize>,
}

/// What a word is in its sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Quantifier,
    SubjectAdjective,
    Subject,
    Negation,
    Verb,
    ObjectAdjective,
    Object,
    Adposition,
    Place,
}

/// The words of a sentence in order, at most nine.
pub(super) type Words = Vec<(Role, Concept)>;

impl Language {
    /// The words of a sentence in this language's order.
    pub fn words(&self, meaning: &Meaning) -> Words {
        let mut words = Words::with_capacity(meaning.words());
        let phrase = |words: &mut Words, phrase: NounPhrase, noun_role, adjective_role| {
            let noun = (noun_role, Concept::Noun(phrase.noun));
            let adjective = phrase
                .adjective
                .map(|word| (adjective_role, Concept::Adjective(word)));
            self.around(words, noun, adjective, self.settings.adjective);
        };
        let subject = |words: &mut Words| {
            words.extend(
                meaning
                    .quantifier
                    .map(|word| (Role::Quantifier, Concept::Quantifier(word))),
            );
            phrase(
                words,
                meaning.subject,
                Role::Subject,
                Role::SubjectAdjective,
            );
        };
        let verb = |words: &mut Words| {
            words.extend(
                meaning
                    .negated
                    .then_some((Role::Negation, Concept::Negation)),
            );
            words.push((Role::Verb, Concept::Verb(meaning.verb)));
        };
        let object = |words: &mut Words| {
            phrase(words, meaning.object, Role::Object, Role::ObjectAdjective);
        };
        let words_mut = &mut words;
        match self.settings.order {
            WordOrder::Svo => {
                subject(words_mut);
                verb(words_mut);
                object(words_mut);
            }
            WordOrder::Sov => {
                subject(words_mut);
                object(words_mut);
                verb(words_mut);
            }
            WordOrder::Vso => {
                verb(words_mut);
                subject(words_mut);
                object(words_mut);
            }
        }
        if let Some(place) = meaning.place {
            let place = (Role::Place, Concept::Place(place));
            let adposition = Some((Role::Adposition, Concept::Adposition));
            self.around(words_mut, place, adposition, self.settings.adposition);
        }
        words
    }

    fn around(
        &self,
        words: &mut Words,
        head: (Role, Concept),
        other: Option<(Role, Concept)>,
        side: Side,
    ) {
        match side {
            Side::Before => {
                words.extend(other);
                words.push(head);
            }
            Side::After => {
                words.push(head);
                words.extend(other);
            }
        }
    }

    /// The form of a word in its sentence.
    pub fn form(&self, meaning: &Meaning, (role, concept): (Role, Concept)) -> &str {
        let class = |noun: Noun| self.classes[usize::from(self.world.category_of(noun))];
        let inflection = match role {
            Role::Object => 1,
            Role::SubjectAdjective | Role::Verb => class(meaning.subject.noun),
            Role::ObjectAdjective => class(meaning.object.noun),
            _ => 0,
        };
        let forms = &self.forms[self.world.index(concept)];
        // A word that does not inflect has one form.
        forms.get(inflection).unwrap_or(&forms[0])
    }

    /// The sentence, words separated by spaces.
    pub fn sentence(&self, meaning: &Meaning) -> String {
        let mut sentence = String::with_capacity(48);
        for word in self.words(meaning) {
            if !sentence.is_empty() {
                sentence.push(' ');
            }
            sentence.push_str(self.form(meaning, word));
        }
        sentence
    }

    /// The form in a dictionary: the first.
    pub fn citation(&self, concept: Concept) -> &str {
        &self.forms[self.world.index(concept)][0]
    }
}

/// All languages of a family. Words that are not shared with the reference differ from every word of every language.
/// Errors when there are too few different words.
pub(super) fn languages(
    family: &FamilySettings,
    source: &str,
    seed: u64,
) -> Result<BTreeMap<String, Language>> {
    // By form: the concept it stands for.
    let mut used = BTreeMap::new();
    let mut languages: BTreeMap<String, Language> = BTreeMap::new();
    let others = family.languages.keys().filter(|code| *code != source);
    for code in std::iter::once(source).chain(others.map(String::as_str)) {
        let settings = &family.languages[code];
        let reference = languages.get(source);
        let language = (0..VOCABULARY_DRAWS)
            .find_map(|step| {
                let mut random = Random::new(seed, &format!("synthetic/language/{code}"), step);
                draw(family, settings, reference, &used, &mut random)
            })
            .with_context(|| {
                format!(
                    "synthetic language `{code}` ran out of different words of {} syllables: \
                     raise `synthetic.syllables_per_word`",
                    family.syllables_per_word
                )
            })?;
        for (concept, forms) in language.forms.iter().enumerate() {
            used.extend(forms.iter().map(|form| (form.clone(), concept)));
        }
        languages.insert(code.to_owned(), language);
    }
    Ok(languages)
}

/// One attempt at a language; `None` when words collide beyond mending.
fn draw(
    family: &FamilySettings,
    settings: &LanguageSettings,
    reference: Option<&Language>,
    used: &BTreeMap<String, usize>,
    random: &mut Random,
) -> Option<Language> {
    let world = family.world;
    let concepts = world.concepts();
    let suffix = |random: &mut Random| {
        word(
            settings.script,
            settings.morphology.suffix_syllables,
            random,
        )
    };
    let cases = [suffix(random), suffix(random)];
    let agreement: [String; CLASSES] = std::array::from_fn(|_| suffix(random));
    let distinct: BTreeSet<&String> = cases.iter().chain(&agreement).collect();
    if distinct.len() < cases.len() + agreement.len() {
        return None;
    }
    let classes = (0..world.categories)
        .map(|_| random.below(CLASSES as u64) as usize)
        .collect();

    let mut shared = vec![false; concepts.len()];
    if reference.is_some() {
        let mut content: Vec<usize> = (0..concepts.len())
            .filter(|&i| concepts[i].is_content())
            .collect();
        random.shuffle(&mut content);
        let anchors = (family.anchors_of(settings) * content.len() as f64).round() as usize;
        content.truncate(anchors);
        content.into_iter().for_each(|i| shared[i] = true);
        if settings
            .shared_function_words
            .unwrap_or(family.shared_function_words)
        {
            (0..concepts.len())
                .filter(|&i| !concepts[i].is_content())
                .for_each(|i| shared[i] = true);
        }
    }

    let inflect = |concept: Concept, stem: &str| -> Vec<String> {
        let with = |suffix: &String| format!("{stem}{suffix}");
        match concept {
            Concept::Noun(_) if settings.morphology.case => {
                vec![stem.to_owned(), with(&cases[0])]
            }
            Concept::Place(_) if settings.morphology.case => vec![with(&cases[1])],
            Concept::Adjective(_) | Concept::Verb(_) if settings.morphology.agreement => {
                agreement.iter().map(with).collect()
            }
            _ => vec![stem.to_owned()],
        }
    };
    let mut own: BTreeMap<String, usize> = BTreeMap::new();
    let mut stems = vec![String::new(); concepts.len()];
    let mut forms = vec![Vec::new(); concepts.len()];
    // Anchors first: they cannot give way to other words.
    let mut order: Vec<usize> = (0..concepts.len()).collect();
    order.sort_by_key(|&i| !shared[i]);
    for i in order {
        let free = |form: &String| {
            !own.contains_key(form)
                && used
                    .get(form)
                    .is_none_or(|&concept| shared[i] && concept == i)
        };
        let (stem, inflected) = match reference.filter(|_| shared[i]) {
            Some(reference) => {
                let stem = reference.stems[i].clone();
                let inflected = inflect(concepts[i], &stem);
                inflected.iter().all(free).then_some((stem, inflected))?
            }
            None => (0..WORD_DRAWS).find_map(|_| {
                let syllables = match concepts[i].is_content() {
                    true => family.syllables_per_word,
                    false => (family.syllables_per_word - 1).max(1),
                };
                let stem = word(settings.script, syllables, random);
                let inflected = inflect(concepts[i], &stem);
                inflected.iter().all(free).then_some((stem, inflected))
            })?,
        };
        own.extend(inflected.iter().map(|form| (form.clone(), i)));
        stems[i] = stem;
        forms[i] = inflected;
    }
    Some(Language {
        settings: settings.clone(),
        world,
        stems,
        forms,
        classes,
    })
}

fn word(script: Script, syllables: usize, random: &mut Random) -> String {
    let mut word = String::new();
    for _ in 0..syllables {
        write_syllable(script, random.below(SYLLABLES as u64) as usize, &mut word);
    }
    word
}

#[cfg(test)]
mod tests {
    use super::super::settings::Morphology;
    use super::super::world::{Scenes, retell};
    use super::*;

    fn family() -> FamilySettings {
        let mut family = FamilySettings::default();
        let scripts = [
            Script::Latin,
            Script::Cyrillic,
            Script::Greek,
            Script::Hangul,
            Script::Han,
        ];
        let orders = [WordOrder::Svo, WordOrder::Sov, WordOrder::Vso];
        for i in 0..12 {
            let sides = [Side::Before, Side::After];
            let language = LanguageSettings {
                script: scripts[i % 5],
                order: orders[i % 3],
                adjective: sides[i % 2],
                adposition: sides[i / 2 % 2],
                morphology: Morphology {
                    case: i % 4 > 1,
                    agreement: i % 4 > 0,
                    suffix_syllables: 1,
                },
                ..LanguageSettings::default()
            };
            family.languages.insert(format!("x{i}"), language);
        }
        family
    }

    /// An independent reading of a sentence by its grammar.
    fn parse(language: &Language, sentence: &str) -> Meaning {
        let mut concepts = Vec::new();
        for word in sentence.split(' ') {
            let known = language.world.concepts().into_iter().filter(|concept| {
                language.forms[language.world.index(*concept)]
                    .iter()
                    .any(|form| form == word)
            });
            let known: Vec<Concept> = known.collect();
            assert_eq!(known.len(), 1, "{word}");
            concepts.push(known[0]);
        }
        let mut quantifier = None;
        let mut negated = false;
        let mut verb = None;
        let mut place = None;
        // What is left are two noun phrases.
        let mut rest = Vec::new();
        for concept in concepts {
            match concept {
                Concept::Quantifier(word) => quantifier = Some(word),
                Concept::Negation => negated = true,
                Concept::Verb(word) => verb = Some(word),
                Concept::Place(word) => place = Some(word),
                Concept::Adposition => {}
                word => rest.push(word),
            }
        }
        let mut phrases: Vec<NounPhrase> = Vec::new();
        let mut waiting = None;
        for word in rest {
            match (word, language.settings.adjective) {
                (Concept::Noun(noun), _) => {
                    phrases.push(NounPhrase {
                        noun,
                        adjective: waiting.take(),
                    });
                }
                (Concept::Adjective(word), Side::Before) => waiting = Some(word),
                (Concept::Adjective(word), Side::After) => {
                    phrases.last_mut().unwrap().adjective = Some(word);
                }
                _ => unreachable!(),
            }
        }
        let [subject, object] = phrases[..] else {
            panic!("{sentence}")
        };
        Meaning {
            quantifier,
            subject,
            negated,
            verb: verb.unwrap(),
            object,
            place,
        }
    }

    #[test]
    fn a_sentence_can_be_read_back_in_every_language() {
        let family = family();
        let languages = languages(&family, "aa", 5).unwrap();
        let scenes = Scenes::new(&family.world, 5, "test");
        for language in languages.values() {
            for step in 0..50 {
                let mut random = Random::new(5, "test", step);
                let mut meaning = retell(&family.world, &scenes.draw(&mut random), &mut random);
                meaning.negated = step % 3 == 0;
                meaning.quantifier = (step % 4 == 0).then_some(super::super::logic::Quantifier::No);
                assert_eq!(parse(language, &language.sentence(&meaning)), meaning);
            }
        }
    }

    #[test]
    fn a_form_has_one_meaning_in_the_whole_family() {
        let family = family();
        let mut meanings = BTreeMap::new();
        for language in languages(&family, "aa", 6).unwrap().values() {
            for (concept, forms) in language.forms.iter().enumerate() {
                for form in forms {
                    assert_eq!(
                        *meanings.entry(form.clone()).or_insert(concept),
                        concept,
                        "{form}"
                    );
                }
            }
        }
    }

    #[test]
    fn words_are_as_long_as_asked_and_in_their_script() {
        let family = FamilySettings {
            syllables_per_word: 3,
            ..family()
        };
        let languages = languages(&family, "aa", 7).unwrap();
        let place = family.world.index(Concept::Verb(0));
        assert_eq!(languages["aa"].stems[place].len(), 6);
        let hangul: Vec<&str> = languages["x3"]
            .stems
            .iter()
            .map(String::as_str)
            .filter(|stem| !stem.is_ascii())
            .collect();
        assert!(hangul.len() > 40);
        let is_hangul = |c: char| ('\u{AC00}'..='\u{D7A3}').contains(&c);
        assert!(hangul.iter().all(|stem| stem.chars().all(is_hangul)));
    }

    #[test]
    fn too_few_words_are_an_error_that_says_what_to_raise() {
        let family = FamilySettings {
            syllables_per_word: 1,
            ..family()
        };
        let message = languages(&family, "aa", 8).unwrap_err().to_string();
        assert!(
            message.contains("synthetic.syllables_per_word"),
            "{message}"
        );
    }
}
