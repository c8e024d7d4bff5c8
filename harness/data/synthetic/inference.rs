//! Natural language inference: one hypothesis with three premises, one per label.
//!
//! The hypothesis is drawn first; premises are edits of it, sorted by the label that `logic` gives them. The three that
//! are kept have the same number of words and miss the same number of the hypothesis's words, so that neither the
//! hypothesis alone, nor the majority, nor the overlap of words tells the label (exactly in a language without
//! suffixes). Real XNLI has one premise with three hypotheses: here the cluster, `premise_id`, is the triple.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use rayon::prelude::*;

use super::Generator;
use super::logic::{Meaning, Noun, NounPhrase, Quantifier, label};
use super::settings::WorldSettings;
use super::world::{Concept, Split, retell};
use crate::data::nli::Label;
use crate::random::Random;

/// Chances that 0, 1, 2 words of the hypothesis are missing in its premises (ours: two are hard to find).
const MISSING_SHARES: [f64; 3] = [0.4, 0.5, 0.1];
/// Share of triples whose premises also name equally many categories (ours, from the prototype).
const EQUAL_CATEGORIES: f64 = 0.8;
/// Premises tried for one hypothesis before another is drawn (ours).
const TRIED_EDITS: usize = 300;
/// Triples that may fail before the family is declared too small: at first, and per triple found (ours).
const FAILED_TRIPLES: (usize, usize) = (1_000, 5);
/// Hypotheses tried for one triple: some have no three premises (ours).
const TRIED_HYPOTHESES: usize = 24;
/// Draws for one hypothesis of the split (ours).
const HYPOTHESIS_DRAWS: usize = 64;
/// Hypotheses tried side by side (ours).
const CHUNK: u64 = 512;

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
    let mut steps = 0..CHUNK;
    while pairs.len() < count {
        // Each step has its own random numbers, so that threads change nothing.
        let draw = |step| {
            triple(
                generator,
                split,
                &mut Random::new(generator.seed, &purpose, step),
            )
        };
        let triples: Vec<Option<[Pair; 3]>> = steps.clone().into_par_iter().map(draw).collect();
        steps = steps.end..steps.end + CHUNK;
        for triple in triples {
            if pairs.len() >= count {
                break;
            }
            let new = triple.filter(|triple| {
                triple
                    .iter()
                    .all(|pair| !seen.contains(&(pair.premise, pair.hypothesis)))
            });
            failed += usize::from(new.is_none());
            for pair in new.into_iter().flatten() {
                seen.insert((pair.premise, pair.hypothesis));
                pairs.push(Pair {
                    triple: (pairs.len() / 3) as u32,
                    ..pair
                });
            }
        }
        if failed > FAILED_TRIPLES.0 + FAILED_TRIPLES.1 * pairs.len() / 3 {
            bail!(
                "the synthetic family has too few sentences for {count} NLI pairs ({purpose}): \
                 raise `synthetic.world` or lower `synthetic.nli`"
            );
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
    categories: usize,
}

/// The kind and the number of replaced words are drawn once, so that their shares are as asked whatever is hard to find.
fn triple(generator: &Generator, split: Split, random: &mut Random) -> Option<[Pair; 3]> {
    let family = generator.family;
    let draw = random.uniform();
    let kind = if draw < family.quantifiers {
        Kind::General
    } else if draw < family.quantifiers + family.negation {
        Kind::Negatable
    } else {
        Kind::Affirmed
    };
    // Without a number chosen beforehand, nearly all triples would exchange words and replace none.
    // A general sentence contradicts only few of its own quantifier: there the quantifier is replaced at least.
    let least = usize::from(kind == Kind::General);
    let replaced = random.weighted(&MISSING_SHARES)?.max(least);
    (0..TRIED_HYPOTHESES).find_map(|_| {
        let hypothesis = hypothesis(generator, kind, split, random)?;
        premises(generator, kind, split, hypothesis, replaced, random)
    })
}

fn hypothesis(
    generator: &Generator,
    kind: Kind,
    split: Split,
    random: &mut Random,
) -> Option<Meaning> {
    (0..HYPOTHESIS_DRAWS)
        .map(|_| {
            let scene = generator.scenes.draw(random);
            let mut hypothesis = retell(&generator.family.world, &scene, random);
            match kind {
                Kind::Affirmed => {}
                Kind::Negatable => hypothesis.negated = random.below(2) == 1,
                Kind::General => hypothesis.quantifier = Some(any(&Quantifier::ALL, random)),
            }
            hypothesis
        })
        .find(|hypothesis| generator.may_use(hypothesis, split))
}

/// Three premises of one surface that lack `replaced` words of the hypothesis, in a random order.
fn premises(
    generator: &Generator,
    kind: Kind,
    split: Split,
    hypothesis: Meaning,
    replaced: usize,
    random: &mut Random,
) -> Option<[Pair; 3]> {
    let world = &generator.family.world;
    let equal_categories = random.uniform() < EQUAL_CATEGORIES;
    let mut found: Vec<(Surface, [Option<Meaning>; 3])> = Vec::new();
    for _ in 0..TRIED_EDITS {
        let mut premise = hypothesis;
        for _ in 0..replaced.max(1) as u64 + random.below(3) {
            premise = edit(world, kind, &premise, random);
        }
        if premise == hypothesis
            || premise.subject.noun == premise.object.noun
            || missing(&premise, &hypothesis) != replaced
            || !generator.may_be_premise(&premise, split)
        {
            continue;
        }
        let surface = Surface {
            words: premise.words(),
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
    // Negatable and general sentences have one more edit of their own, as likely as two others.
    let choices = if kind == Kind::Affirmed { 9 } else { 11 };
    let draw = random.below(2 * choices);
    let at_subject = draw < choices;
    let phrase = if at_subject {
        &mut edited.subject
    } else {
        &mut edited.object
    };
    match draw % choices {
        0 => phrase.noun = more_or_less_specific(world, phrase.noun, random),
        1 => phrase.noun = another_noun(world, phrase.noun, random),
        2 | 3 => phrase.adjective = Some(random.below(world.adjectives().into()) as u16),
        4 => phrase.adjective = None,
        5 => {
            (edited.subject.adjective, edited.object.adjective) =
                (edited.object.adjective, edited.subject.adjective);
        }
        6 => {
            (edited.subject, edited.object) = (edited.object, edited.subject);
            // Half the time the adjectives stay where they were.
            if at_subject {
                (edited.subject.adjective, edited.object.adjective) =
                    (edited.object.adjective, edited.subject.adjective);
            }
        }
        7 => edited.verb = random.below(world.verbs.into()) as u16,
        8 => {
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
