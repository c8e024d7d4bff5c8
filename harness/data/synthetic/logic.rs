//! What sentences mean and what follows from what: labels are computed here, never guessed.
//!
//! **Plain sentences.** A pair of sentences speaks of one event. An event has exactly one subject, verb, object and
//! place; a thing is exactly one noun and has exactly one adjective of each dimension. A sentence names a *box* of
//! events: for each slot, the values it allows (a category allows its nouns, a missing modifier allows everything, a
//! denied verb allows every other verb; negation denies the verb and nothing else). The premise entails the hypothesis
//! when its box lies within the other's, contradicts it when the boxes are disjoint, and else leaves it open.
//!
//! **General sentences.** `all A B`, `some A B`, `no A B`: A is the box of the subject, B that of verb, object and
//! place. Things of every noun with every combination of adjectives exist, and each takes part in one event or more as
//! a subject. The rules are in [`inconsistent`] and [`entails`]. A pair is plain or general, never mixed.

use super::settings::WorldSettings;
use crate::data::nli::Label;

/// A noun, or the category of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Noun {
    Category(u16),
    Leaf(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NounPhrase {
    pub noun: Noun,
    pub adjective: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Quantifier {
    All,
    Some,
    No,
}

impl Quantifier {
    pub const ALL: [Self; 3] = [Self::All, Self::Some, Self::No];
}

/// A sentence of every language: `[quantifier] [adjective] noun [negation] verb [adjective] noun [adposition place]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Meaning {
    pub quantifier: Option<Quantifier>,
    pub subject: NounPhrase,
    pub negated: bool,
    pub verb: u16,
    pub object: NounPhrase,
    pub place: Option<u16>,
}

impl Meaning {
    /// Words of the sentence in any language of the family.
    pub fn words(&self) -> usize {
        3 + usize::from(self.quantifier.is_some())
            + usize::from(self.subject.adjective.is_some())
            + usize::from(self.negated)
            + usize::from(self.object.adjective.is_some())
            + 2 * usize::from(self.place.is_some())
    }

    /// Nouns that are categories.
    pub fn categories(&self) -> usize {
        [self.subject, self.object]
            .iter()
            .filter(|phrase| matches!(phrase.noun, Noun::Category(_)))
            .count()
    }
}

/// The label of a pair; both sentences plain or both general.
pub(super) fn label(world: &WorldSettings, premise: &Meaning, hypothesis: &Meaning) -> Label {
    let (entailed, contradicted) = match (premise.quantifier, hypothesis.quantifier) {
        (Some(premise_quantifier), Some(hypothesis_quantifier)) => {
            let premise = (premise_quantifier, premise);
            let hypothesis = (hypothesis_quantifier, hypothesis);
            (
                entails(world, premise, hypothesis),
                inconsistent(world, premise, hypothesis),
            )
        }
        _ => (
            subject_within(world, premise, hypothesis)
                && predicate_within(world, premise, hypothesis),
            subject_disjoint(world, premise, hypothesis)
                || predicate_disjoint(world, premise, hypothesis),
        ),
    };
    match (entailed, contradicted) {
        (true, _) => Label::Entailment,
        (_, true) => Label::Contradiction,
        _ => Label::Neutral,
    }
}

/// Whether two general sentences, `quantifier A B` and `quantifier C D`, cannot both be true.
fn inconsistent(
    world: &WorldSettings,
    first: (Quantifier, &Meaning),
    second: (Quantifier, &Meaning),
) -> bool {
    use Quantifier::{All, No, Some};
    let ((one, ab), (two, cd)) = (first, second);
    match (one, two) {
        // A thing that is A and C takes part in an event that is B and D.
        (All, All) => !subject_disjoint(world, ab, cd) && predicate_disjoint(world, ab, cd),
        // The C that does D is an A as well.
        (All, Some) => subject_within(world, cd, ab) && predicate_disjoint(world, ab, cd),
        // A thing that is A and C does B, hence D.
        (All, No) => !subject_disjoint(world, ab, cd) && predicate_within(world, ab, cd),
        // The A that does B is a C that does D.
        (Some, No) => subject_within(world, ab, cd) && predicate_within(world, ab, cd),
        // Several things of a kind may differ.
        (Some, Some) => false,
        // Something else may always be done: B restricts both verb and object, so B and D never cover all events.
        (No, No) => false,
        (Some, All) | (No, All) | (No, Some) => inconsistent(world, second, first),
    }
}

/// Whether the first general sentence implies the second: whether it excludes the second's denial.
fn entails(
    world: &WorldSettings,
    premise: (Quantifier, &Meaning),
    hypothesis: (Quantifier, &Meaning),
) -> bool {
    match hypothesis.0 {
        Quantifier::Some => inconsistent(world, premise, (Quantifier::No, hypothesis.1)),
        Quantifier::No => inconsistent(world, premise, (Quantifier::Some, hypothesis.1)),
        // `some` speaks of one thing only, and `no A B` names no event that must happen.
        Quantifier::All => {
            premise.0 == Quantifier::All
                && subject_within(world, hypothesis.1, premise.1)
                && predicate_within(world, premise.1, hypothesis.1)
        }
    }
}

fn subject_within(world: &WorldSettings, inner: &Meaning, outer: &Meaning) -> bool {
    phrase_within(world, inner.subject, outer.subject)
}

fn subject_disjoint(world: &WorldSettings, one: &Meaning, two: &Meaning) -> bool {
    phrase_disjoint(world, one.subject, two.subject)
}

fn predicate_within(world: &WorldSettings, inner: &Meaning, outer: &Meaning) -> bool {
    let verb_within = match (inner.negated, outer.negated) {
        (false, true) => inner.verb != outer.verb,
        // Two or more other verbs remain.
        (true, false) => false,
        _ => inner.verb == outer.verb,
    };
    verb_within
        && phrase_within(world, inner.object, outer.object)
        && (outer.place.is_none() || inner.place == outer.place)
}

fn predicate_disjoint(world: &WorldSettings, one: &Meaning, two: &Meaning) -> bool {
    let verb_disjoint = match (one.negated, two.negated) {
        (false, false) => one.verb != two.verb,
        // There is a third verb.
        (true, true) => false,
        _ => one.verb == two.verb,
    };
    let place_disjoint =
        matches!((one.place, two.place), (Some(here), Some(there)) if here != there);
    verb_disjoint || place_disjoint || phrase_disjoint(world, one.object, two.object)
}

fn phrase_within(world: &WorldSettings, inner: NounPhrase, outer: NounPhrase) -> bool {
    noun_within(world, inner.noun, outer.noun)
        && (outer.adjective.is_none() || inner.adjective == outer.adjective)
}

fn phrase_disjoint(world: &WorldSettings, one: NounPhrase, two: NounPhrase) -> bool {
    let noun_disjoint =
        !noun_within(world, one.noun, two.noun) && !noun_within(world, two.noun, one.noun);
    let adjective_disjoint = matches!(
        (one.adjective, two.adjective),
        (Some(one), Some(two)) if one != two && world.dimension_of(one) == world.dimension_of(two)
    );
    noun_disjoint || adjective_disjoint
}

fn noun_within(world: &WorldSettings, inner: Noun, outer: Noun) -> bool {
    inner == outer || outer == Noun::Category(world.category_of(inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Small enough to list every thing and every event.
    const WORLD: WorldSettings = WorldSettings {
        categories: 2,
        nouns_per_category: 2,
        adjective_dimensions: 2,
        adjectives_per_dimension: 2,
        verbs: 3,
        places: 2,
    };

    /// A noun and a value in each dimension.
    #[derive(Clone, Copy)]
    struct Thing {
        noun: u16,
        values: [u16; 2],
    }

    #[derive(Clone, Copy)]
    struct Event {
        verb: u16,
        object: Thing,
        place: u16,
    }

    fn things() -> Vec<Thing> {
        let mut things = Vec::new();
        for noun in 0..4 {
            for first in 0..2 {
                for second in 2..4 {
                    things.push(Thing {
                        noun,
                        values: [first, second],
                    });
                }
            }
        }
        things
    }

    fn events() -> Vec<Event> {
        let mut events = Vec::new();
        for verb in 0..3 {
            for object in things() {
                for place in 0..2 {
                    events.push(Event {
                        verb,
                        object,
                        place,
                    });
                }
            }
        }
        events
    }

    fn is(phrase: NounPhrase, thing: Thing) -> bool {
        let noun = match phrase.noun {
            Noun::Leaf(noun) => noun == thing.noun,
            Noun::Category(0) => thing.noun < 2,
            Noun::Category(_) => thing.noun >= 2,
        };
        noun && phrase
            .adjective
            .is_none_or(|adjective| thing.values.contains(&adjective))
    }

    fn does(sentence: &Meaning, event: &Event) -> bool {
        (event.verb == sentence.verb) != sentence.negated
            && is(sentence.object, event.object)
            && sentence.place.is_none_or(|place| place == event.place)
    }

    fn any_phrase(random: &mut Random) -> NounPhrase {
        NounPhrase {
            noun: match random.below(2) {
                0 => Noun::Category(random.below(2) as u16),
                _ => Noun::Leaf(random.below(4) as u16),
            },
            adjective: (random.below(2) == 0).then(|| random.below(4) as u16),
        }
    }

    fn any_sentence(quantifier: Option<Quantifier>, random: &mut Random) -> Meaning {
        Meaning {
            quantifier,
            subject: any_phrase(random),
            negated: random.below(3) == 0,
            verb: random.below(2) as u16,
            object: any_phrase(random),
            place: (random.below(2) == 0).then(|| random.below(2) as u16),
        }
    }

    /// The second sentence, made from the first so that all labels come up.
    fn related(sentence: &Meaning, random: &mut Random) -> Meaning {
        let mut other = any_sentence(sentence.quantifier, random);
        if random.below(2) == 0 {
            other.subject = sentence.subject;
        }
        if random.below(2) == 0 {
            other.object = sentence.object;
        }
        if random.below(2) == 0 {
            (other.verb, other.negated) = (sentence.verb, sentence.negated);
        }
        if random.below(2) == 0 {
            other.place = sentence.place;
        }
        other
    }

    /// Entailment and contradiction by definition, given in how many models each sentence holds.
    fn by_definition(models: impl Iterator<Item = (bool, bool)>) -> Label {
        let (mut entailed, mut contradicted) = (true, true);
        for (premise, hypothesis) in models {
            entailed &= !premise || hypothesis;
            contradicted &= !(premise && hypothesis);
        }
        match (entailed, contradicted) {
            (true, false) => Label::Entailment,
            (false, true) => Label::Contradiction,
            (false, false) => Label::Neutral,
            (true, true) => panic!("a premise that holds nowhere"),
        }
    }

    #[test]
    fn labels_of_plain_sentences_agree_with_every_event() {
        let (things, events) = (things(), events());
        let mut random = Random::new(1, "logic", 0);
        let mut seen = [0; 3];
        for _ in 0..2_000 {
            let premise = any_sentence(None, &mut random);
            let hypothesis = related(&premise, &mut random);
            let all = things
                .iter()
                .flat_map(|thing| events.iter().map(move |event| (thing, event)));
            let holds = |sentence: &Meaning, thing: Thing, event: &Event| {
                is(sentence.subject, thing) && does(sentence, event)
            };
            let expected = by_definition(all.map(|(thing, event)| {
                (
                    holds(&premise, *thing, event),
                    holds(&hypothesis, *thing, event),
                )
            }));
            assert_eq!(
                label(&WORLD, &premise, &hypothesis),
                expected,
                "{premise:?} {hypothesis:?}"
            );
            seen[expected.index()] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
    }

    /// A model gives every thing a nonempty set of events. Two sentences see of a thing only whether each subject fits
    /// it, and of an event only whether each predicate does, so models that agree in this are one; things that look
    /// alike count as one with the union of their sets, since `all`, `some` and `no` cannot tell.
    #[test]
    fn labels_of_general_sentences_agree_with_every_model() {
        let (things, events) = (things(), events());
        let mut random = Random::new(2, "logic", 0);
        let mut seen = [0; 3];
        for step in 0..1_500 {
            let premise = any_sentence(Some(Quantifier::ALL[step % 3]), &mut random);
            let mut hypothesis = related(&premise, &mut random);
            hypothesis.quantifier = Some(Quantifier::ALL[step / 3 % 3]);

            let kinds = |mut looks: Vec<(bool, bool)>| {
                looks.sort_unstable();
                looks.dedup();
                looks
            };
            let subjects = kinds(
                things
                    .iter()
                    .map(|thing| (is(premise.subject, *thing), is(hypothesis.subject, *thing)))
                    .collect(),
            );
            let predicates = kinds(
                events
                    .iter()
                    .map(|event| (does(&premise, event), does(&hypothesis, event)))
                    .collect(),
            );
            let sets = (1usize << predicates.len()) - 1;
            let models = (0..sets.pow(subjects.len() as u32)).map(|mut model| {
                let done: Vec<usize> = subjects
                    .iter()
                    .map(|_| {
                        let set = model % sets + 1;
                        model /= sets;
                        set
                    })
                    .collect();
                let holds = |sentence: &Meaning, side: fn(&(bool, bool)) -> bool| {
                    let mut of_subjects = (0..subjects.len())
                        .filter(|&kind| side(&subjects[kind]))
                        .flat_map(|kind| {
                            let set = done[kind];
                            (0..predicates.len()).filter(move |event| set >> event & 1 == 1)
                        });
                    match sentence.quantifier.unwrap() {
                        Quantifier::All => of_subjects.all(|event| side(&predicates[event])),
                        Quantifier::Some => of_subjects.any(|event| side(&predicates[event])),
                        Quantifier::No => !of_subjects.any(|event| side(&predicates[event])),
                    }
                };
                (
                    holds(&premise, |look| look.0),
                    holds(&hypothesis, |look| look.1),
                )
            });
            let expected = by_definition(models);
            assert_eq!(
                label(&WORLD, &premise, &hypothesis),
                expected,
                "{premise:?} {hypothesis:?}"
            );
            seen[expected.index()] += 1;
        }
        assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
    }
}
