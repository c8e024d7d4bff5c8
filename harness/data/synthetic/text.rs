//! Monolingual, parallel and annotated sentences: what happens in the world, told again and again in varying detail.
//!
//! A document retells one scene two to four times, so that a noun and its category, or a thing with and without its
//! adjective, occur in each other's company: it is what a language model can learn entailment from.

use anyhow::{Result, bail};

use super::Generator;
use super::logic::{Meaning, Noun, NounPhrase, Quantifier, label};
use super::settings::{FamilySettings, WorldSettings};
use super::world::{Scenes, Split, retell};
use crate::data::nli::Label;
use crate::random::Random;

/// Least and most retellings of a scene in a document (ours, from the prototype).
const RETELLINGS: (u64, u64) = (2, 4);
/// Draws for one sentence before it is left out (ours).
const DRAWS: usize = 64;
/// Scenes in a row that may yield nothing before the family is declared too small (ours).
const FAILED_SCENES: usize = 10_000;

/// Documents of one language until they hold `count` words. A larger corpus begins with the smaller one.
/// `own_scenes` is the language's own domain and the share of its documents.
/// Errors when the world has too few sentences.
pub(super) fn documents(
    generator: &Generator,
    code: &str,
    own_scenes: (&Scenes, f64),
    count: usize,
) -> Result<Vec<Vec<Meaning>>> {
    let purpose = format!("synthetic/monolingual/{code}");
    let mut documents = Vec::new();
    let mut words = 0;
    let mut failed = 0;
    for step in 0.. {
        if words >= count {
            break;
        }
        let mut random = Random::new(generator.seed, &purpose, step);
        let own = random.uniform() < own_scenes.1;
        let scenes = if own { own_scenes.0 } else { &generator.scenes };
        let document = document(generator, scenes, &mut random);
        words += document.iter().map(Meaning::words).sum::<usize>();
        failed = if document.is_empty() { failed + 1 } else { 0 };
        if failed == FAILED_SCENES {
            bail!(
                "the synthetic family has too few sentences ({purpose}): raise `synthetic.world`"
            );
        }
        if !document.is_empty() {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// One document: meanings of the training split, none twice, all true together. May be empty when the world is tiny.
fn document(generator: &Generator, scenes: &Scenes, random: &mut Random) -> Vec<Meaning> {
    let family = generator.family;
    let story = Story::draw(family, scenes, random);
    let (least, most) = RETELLINGS;
    let length = least + random.below(most - least + 1);
    let mut sentences: Vec<Meaning> = Vec::new();
    for _ in 0..length {
        let sentence = (0..DRAWS)
            .map(|_| story.tell(family, random))
            .find(|sentence| {
                generator.may_use(sentence, Split::Train) && !sentences.contains(sentence)
            });
        sentences.extend(sentence);
    }
    sentences
}

/// `count` sentences of a split, each one retelling of its own scene.
/// Errors when the world has too few sentences.
pub(super) fn sentences(
    generator: &Generator,
    split: Split,
    count: usize,
    purpose: &str,
) -> Result<Vec<Meaning>> {
    let family = generator.family;
    let purpose = format!("synthetic/{purpose}/{}", split.name());
    let mut sentences = Vec::with_capacity(count);
    let mut failed = 0;
    for step in 0.. {
        if sentences.len() == count {
            break;
        }
        let mut random = Random::new(generator.seed, &purpose, step);
        let story = Story::draw(family, &generator.scenes, &mut random);
        let told = (0..DRAWS)
            .map(|_| story.tell(family, &mut random))
            .find(|sentence| generator.may_use(sentence, split));
        match told {
            Some(sentence) => {
                failed = 0;
                sentences.push(sentence);
            }
            None => failed += 1,
        }
        if failed == FAILED_SCENES {
            bail!(
                "the synthetic family has too few sentences ({purpose}): raise `synthetic.world`"
            );
        }
    }
    Ok(sentences)
}

/// What a document is about.
enum Story {
    /// One event, whose verb may be told by denying another.
    Scene { scene: Meaning, negatable: bool },
    /// A general statement, told by what follows from it.
    General(Meaning),
}

impl Story {
    fn draw(family: &FamilySettings, scenes: &Scenes, random: &mut Random) -> Self {
        let scene = scenes.draw(random);
        let draw = random.uniform();
        if draw < family.quantifiers {
            // With all its detail, a statement with `all` would speak of one thing in a hundred: leave some out.
            let mut statement = retell(&family.world, &scene, random);
            statement.quantifier = Some(match random.below(2) {
                0 => Quantifier::All,
                _ => Quantifier::No,
            });
            Self::General(statement)
        } else {
            Self::Scene {
                scene,
                negatable: draw < family.quantifiers + family.negation,
            }
        }
    }

    fn tell(&self, family: &FamilySettings, random: &mut Random) -> Meaning {
        let world = &family.world;
        match self {
            Self::Scene { scene, negatable } => {
                let mut told = retell(world, scene, random);
                if *negatable && random.below(2) == 0 {
                    told.negated = true;
                    // Another verb: shift by 1 to verbs - 1.
                    let shift = 1 + random.below(u64::from(world.verbs) - 1) as u16;
                    told.verb = (scene.verb + shift) % world.verbs;
                }
                told
            }
            Self::General(statement) => {
                let told = consequence(world, statement, random);
                let sound = label(world, statement, &told) == Label::Entailment;
                if sound && told.subject.noun != told.object.noun {
                    told
                } else {
                    *statement
                }
            }
        }
    }
}

/// A guess at what follows from a general statement; the caller checks it.
fn consequence(world: &WorldSettings, statement: &Meaning, random: &mut Random) -> Meaning {
    let less_specific = retell(world, statement, random);
    let more_specific = |phrase: NounPhrase, random: &mut Random| NounPhrase {
        noun: match phrase.noun {
            Noun::Category(category) if random.below(2) == 0 => Noun::Leaf(
                category * world.nouns_per_category
                    + random.below(world.nouns_per_category.into()) as u16,
            ),
            noun => noun,
        },
        adjective: phrase.adjective.or_else(|| {
            (random.below(2) == 0).then(|| random.below(world.adjectives().into()) as u16)
        }),
    };
    let mut told = *statement;
    if statement.quantifier == Some(Quantifier::No) {
        told.subject = more_specific(told.subject, random);
        told.object = more_specific(told.object, random);
        told.place = told
            .place
            .or_else(|| (random.below(2) == 0).then(|| random.below(world.places.into()) as u16));
        return told;
    }
    match random.below(3) {
        0 => {
            told = less_specific;
            told.subject = more_specific(statement.subject, random);
        }
        1 => {
            told = less_specific;
            told.quantifier = Some(Quantifier::Some);
        }
        _ => {
            told.quantifier = Some(Quantifier::No);
            told.subject = more_specific(told.subject, random);
            told.verb = random.below(world.verbs.into()) as u16;
        }
    }
    told
}
