//! Natural language inference: one hypothesis with three premises, one per label.
//!
//! The hypothesis is drawn first; premises are edits of it, sorted by the label that `logic` gives them. The three that
//! are kept have the same number of words and miss the same number of the hypothesis's words, so that neither the
//! hypothesis alone, nor the majority, nor the overlap of words tells the label (exactly in a language without
//! suffixes). Real XNLI has one premise with three hypotheses: here the cluster, `premise_id`, is the triple.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::Generator;
use super::logic::{Meaning, Noun, NounPhrase, Quantifier, label};
use super::settings::WorldSettings;
use super::world::{Concept, Split, retell};
use crate::data::nli::Label;
use crate::random::Random;

/// Share of triples whose premises also name equally many categories (ours, from the prototype).
const EQUAL_CATEGORIES: f64 = 0.8;
/// Edits tried for one hypothesis before another is drawn, in training text; more where fewer meanings may be used (ours).
const TRIED_EDITS: usize = 200;
const TRIED_EDITS_HELD_OUT: usize = 2_000;
/// Hypotheses in a row that may fail before the family is declared too small (ours).
const FAILED_HYPOTHESES: usize = 2_000;

/// A pair whose label is true by construction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    pub premise: Meaning,
    pub hypothesis: Meaning,
    pub label: Label,
    pub triple: u32,
}

/// `count` pairs of a split: three per hypothesis in a random order of labels, no pair twice.
/// Errors when the world has too few sentences.
pub(super) fn pairs(generator: &Generator, split: Split, count: usize) -> Result<Vec<Pair>> {
    let purpose = format!("synthetic/nli/{}", split.name());
    let mut pairs = Vec::with_capacity(count);
    let mut seen = BTreeSet::new();
    let mut failed = 0;
    for step in 0.. {
        if pairs.len() >= count {
            break;
        }
        let mut random = Random::new(generator.seed, &purpose, step);
        let triple = triple(generator, split, &mut random).filter(|triple| {
            triple
                .iter()
                .all(|pair| !seen.contains(&(pair.premise, pair.hypothesis)))
        });
        let Some(triple) = triple else {
            failed += 1;
            if failed == FAILED_HYPOTHESES {
                bail!(
                    "the synthetic family has too few sentences for {count} NLI pairs ({purpose}): \
                     raise `synthetic.world` or lower `synthetic.nli`"
                );
            }
            continue;
        };
        failed = 0;
        for pair in triple {
            seen.insert((pair.premise, pair.hypothesis));
            pairs.push(Pair {
                triple: (pairs.len() / 3) as u32,
                ..pair
            });
        }
    }
    Ok(pairs)
}

/// What a triple's sentences may contain.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Affirmed,
    Negatable,
    General,
}

/// What the three premises have in common.
#[derive(Clone, Copy, PartialEq)]
struct Surface {
    words: usize,
    missing: usize,
    categories: usize,
}

fn triple(generator: &Generator, split: Split, random: &mut Random) -> Option<[Pair; 3]> {
    let family = generator.family;
    let world = &family.world;
    let draw = random.uniform();
    let kind = if draw < family.quantifiers {
        Kind::General
    } else if draw < family.quantifiers + family.negation {
        Kind::Negatable
    } else {
        Kind::Affirmed
    };
    let mut hypothesis = retell(world, &generator.scenes.draw(random), random);
    match kind {
        Kind::Affirmed => {}
        Kind::Negatable => hypothesis.negated = random.below(2) == 1,
        Kind::General => hypothesis.quantifier = Some(any(&Quantifier::ALL, random)),
    }
    if !generator.may_use(&hypothesis, split) {
        return None;
    }
    let equal_categories = random.uniform() < EQUAL_CATEGORIES;
    let tried = if split == Split::Train {
        TRIED_EDITS
    } else {
        TRIED_EDITS_HELD_OUT
    };
    let mut found: Vec<(Surface, [Option<Meaning>; 3])> = Vec::new();
    for _ in 0..tried {
        let mut premise = hypothesis;
        for _ in 0..1 + random.below(3) {
            premise = edit(world, kind, &premise, random);
        }
        if premise == hypothesis
            || premise.subject.noun == premise.object.noun
            || !generator.may_use(&premise, split)
        {
            continue;
        }
        let surface = Surface {
            words: premise.words(),
            missing: missing(&premise, &hypothesis),
            categories: if equal_categories {
                premise.categories()
            } else {
                0
            },
        };
        let label = label(world, &premise, &hypothesis);
        let slot = found
            .iter()
            .position(|(other, _)| *other == surface)
            .unwrap_or_else(|| {
                found.push((surface, [None; 3]));
                found.len() - 1
            });
        let premises = &mut found[slot].1;
        premises[label.index()] = Some(premise);
        if let [Some(contradiction), Some(neutral), Some(entailment)] = *premises {
            let mut triple = [
                (contradiction, Label::Contradiction),
                (neutral, Label::Neutral),
                (entailment, Label::Entailment),
            ]
            .map(|(premise, label)| Pair {
                premise,
                hypothesis,
                label,
                triple: 0,
            });
            random.shuffle(&mut triple);
            return Some(triple);
        }
    }
    None
}

/// One change: more or less specific, another value, moved, exchanged. May leave the sentence as it is.
fn edit(world: &WorldSettings, kind: Kind, sentence: &Meaning, random: &mut Random) -> Meaning {
    let mut edited = *sentence;
    let at_subject = random.below(2) == 0;
    let phrase = if at_subject {
        &mut edited.subject
    } else {
        &mut edited.object
    };
    // Negatable and general sentences have one more edit of their own, as likely as two others.
    let choices = if kind == Kind::Affirmed { 10 } else { 12 };
    match random.below(choices) {
        0 => phrase.noun = more_or_less_specific(world, phrase.noun, random),
        1 => phrase.noun = another_noun(world, phrase.noun, random),
        2 | 3 => phrase.adjective = Some(random.below(world.adjectives().into()) as u16),
        4 => phrase.adjective = None,
        5 => {
            (edited.subject.adjective, edited.object.adjective) =
                (edited.object.adjective, edited.subject.adjective);
        }
        6 => {
            let exchanged = |to: NounPhrase, from: NounPhrase| NounPhrase {
                noun: from.noun,
                ..to
            };
            (edited.subject, edited.object) = (
                exchanged(edited.subject, edited.object),
                exchanged(edited.object, edited.subject),
            );
        }
        7 => (edited.subject, edited.object) = (edited.object, edited.subject),
        8 => edited.verb = random.below(world.verbs.into()) as u16,
        9 => {
            edited.place = match edited.place {
                Some(_) if random.below(2) == 0 => None,
                _ => Some(random.below(world.places.into()) as u16),
            };
        }
        _ if kind == Kind::Negatable => edited.negated = !edited.negated,
        _ => edited.quantifier = Some(any(&Quantifier::ALL, random)),
    }
    edited
}

fn more_or_less_specific(world: &WorldSettings, noun: Noun, random: &mut Random) -> Noun {
    match noun {
        Noun::Leaf(_) => Noun::Category(world.category_of(noun)),
        Noun::Category(category) => Noun::Leaf(
            category * world.nouns_per_category
                + random.below(world.nouns_per_category.into()) as u16,
        ),
    }
}

/// Half the time of the same category, where that is possible.
fn another_noun(world: &WorldSettings, noun: Noun, random: &mut Random) -> Noun {
    match noun {
        Noun::Category(_) => Noun::Category(random.below(world.categories.into()) as u16),
        Noun::Leaf(_) if random.below(2) == 0 => {
            more_or_less_specific(world, Noun::Category(world.category_of(noun)), random)
        }
        Noun::Leaf(_) => Noun::Leaf(random.below(world.nouns().into()) as u16),
    }
}

fn any<T: Copy>(items: &[T], random: &mut Random) -> T {
    items[random.below(items.len() as u64) as usize]
}

/// Words of the hypothesis that are not in the premise.
fn missing(premise: &Meaning, hypothesis: &Meaning) -> usize {
    let has = |phrase: fn(&NounPhrase, &NounPhrase) -> bool, wanted: &NounPhrase| {
        phrase(&premise.subject, wanted) || phrase(&premise.object, wanted)
    };
    let mut missing = 0;
    for wanted in [hypothesis.subject, hypothesis.object] {
        missing += usize::from(!has(|own, wanted| own.noun == wanted.noun, &wanted));
        missing += usize::from(
            wanted.adjective.is_some()
                && !has(|own, wanted| own.adjective == wanted.adjective, &wanted),
        );
    }
    missing += usize::from(hypothesis.quantifier != premise.quantifier);
    missing += usize::from(hypothesis.negated && !premise.negated);
    missing += usize::from(hypothesis.verb != premise.verb);
    // The place and its adposition.
    missing += usize::from(hypothesis.place.is_some() && hypothesis.place != premise.place);
    missing + usize::from(hypothesis.place.is_some() && premise.place.is_none())
}

/// Pairs of different words, (premise's, hypothesis's), in the same place of the two sentences: what a pair teaches
/// about words.
pub(super) fn exchanged_words(pair: &Pair) -> Vec<(Concept, Concept)> {
    let (premise, hypothesis) = (&pair.premise, &pair.hypothesis);
    let mut words = vec![
        (
            Concept::Noun(premise.subject.noun),
            Concept::Noun(hypothesis.subject.noun),
        ),
        (
            Concept::Noun(premise.object.noun),
            Concept::Noun(hypothesis.object.noun),
        ),
        (Concept::Verb(premise.verb), Concept::Verb(hypothesis.verb)),
    ];
    for (one, two) in [
        (premise.subject.adjective, hypothesis.subject.adjective),
        (premise.object.adjective, hypothesis.object.adjective),
    ] {
        words.extend(
            one.zip(two)
                .map(|(one, two)| (Concept::Adjective(one), Concept::Adjective(two))),
        );
    }
    words.extend(
        premise
            .place
            .zip(hypothesis.place)
            .map(|(one, two)| (Concept::Place(one), Concept::Place(two))),
    );
    words.retain(|(one, two)| one != two);
    words
}
