//! The world that all languages of a family speak of: concepts, and how likely scenes are.

use super::logic::{Meaning, Noun, NounPhrase, Quantifier};
use super::settings::WorldSettings;
use crate::random::{Random, key, philox};

/// Exponent of the Zipf law of verbs and of what goes with them (ours, from the prototype).
const ZIPF_EXPONENT: f64 = 0.7;
/// Standard deviation of the log of a preference, such as a verb's for an object (ours, from the prototype).
const PREFERENCE_SPREAD: f64 = 2.0;
/// Chance that a retelling leaves out a modifier (ours, from the prototype).
const DROPPED_MODIFIER: f64 = 0.5;
/// Chance that a retelling names a noun's category instead (ours, from the prototype).
const NAMED_CATEGORY: f64 = 0.35;

/// Draws of an object before the noun after the subject is taken: a preference may be almost certain (ours).
const OBJECT_DRAWS: usize = 32;

/// Shares of all meanings kept for dev and test (ours).
const DEV_SHARE: f64 = 0.05;
const TEST_SHARE: f64 = 0.10;

/// Something a language has a word for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Concept {
    Noun(Noun),
    Adjective(u16),
    Verb(u16),
    Place(u16),
    Quantifier(Quantifier),
    Negation,
    Adposition,
}

impl Concept {
    pub fn is_content(self) -> bool {
        !matches!(
            self,
            Self::Quantifier(_) | Self::Negation | Self::Adposition
        )
    }
}

impl WorldSettings {
    pub(super) fn nouns(&self) -> u16 {
        self.categories * self.nouns_per_category
    }

    pub(super) fn adjectives(&self) -> u16 {
        self.adjective_dimensions * self.adjectives_per_dimension
    }

    pub(super) fn category_of(&self, noun: Noun) -> u16 {
        match noun {
            Noun::Category(category) => category,
            Noun::Leaf(leaf) => leaf / self.nouns_per_category,
        }
    }

    pub(super) fn dimension_of(&self, adjective: u16) -> u16 {
        adjective / self.adjectives_per_dimension
    }

    /// Every concept; its place in the list is its [`WorldSettings::index`].
    pub(super) fn concepts(&self) -> Vec<Concept> {
        let categories = (0..self.categories).map(|i| Concept::Noun(Noun::Category(i)));
        let nouns = (0..self.nouns()).map(|i| Concept::Noun(Noun::Leaf(i)));
        categories
            .chain(nouns)
            .chain((0..self.adjectives()).map(Concept::Adjective))
            .chain((0..self.verbs).map(Concept::Verb))
            .chain((0..self.places).map(Concept::Place))
            .chain(Quantifier::ALL.map(Concept::Quantifier))
            .chain([Concept::Negation, Concept::Adposition])
            .collect()
    }

    pub(super) fn index(&self, concept: Concept) -> usize {
        let nouns = self.categories;
        let adjectives = nouns + self.nouns();
        let verbs = adjectives + self.adjectives();
        let places = verbs + self.verbs;
        let quantifiers = places + self.places;
        usize::from(match concept {
            Concept::Noun(Noun::Category(i)) => i,
            Concept::Noun(Noun::Leaf(i)) => nouns + i,
            Concept::Adjective(i) => adjectives + i,
            Concept::Verb(i) => verbs + i,
            Concept::Place(i) => places + i,
            Concept::Quantifier(quantifier) => quantifiers + quantifier as u16,
            Concept::Negation => quantifiers + 3,
            Concept::Adposition => quantifiers + 4,
        })
    }
}

/// Which text a sentence may stand in. Each meaning belongs to exactly one split, by a keyed hash of the meaning alone,
/// so that no size or rate of one text can leak into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split {
    Train,
    Dev,
    Test,
}

impl Split {
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }
}

/// Assigns meanings to splits.
pub(super) struct Partition {
    key: [u32; 2],
}

impl Partition {
    pub fn new(seed: u64) -> Self {
        let key = key(seed, "synthetic/partition");
        Self {
            key: [key as u32, (key >> 32) as u32],
        }
    }

    pub fn split(&self, meaning: &Meaning) -> Split {
        let optional = |value: Option<u16>| value.map_or(0, |value| u32::from(value) + 1);
        let phrase = |phrase: NounPhrase| {
            let noun = match phrase.noun {
                Noun::Category(i) => u32::from(i) << 1,
                Noun::Leaf(i) => u32::from(i) << 1 | 1,
            };
            noun << 16 | optional(phrase.adjective)
        };
        let quantifier = meaning
            .quantifier
            .map_or(0, |quantifier| quantifier as u32 + 1);
        let head = quantifier << 24 | u32::from(meaning.negated) << 16 | u32::from(meaning.verb);
        let counter = [
            head,
            phrase(meaning.subject),
            phrase(meaning.object),
            optional(meaning.place),
        ];
        let share = f64::from(philox(counter, self.key)[0]) / f64::from(u32::MAX);
        if share < DEV_SHARE {
            Split::Dev
        } else if share < DEV_SHARE + TEST_SHARE {
            Split::Test
        } else {
            Split::Train
        }
    }
}

/// How likely scenes are. A scene is a meaning with every detail: verb ~ Zipf; subject and object given the verb,
/// adjective given the noun and place given the verb, each ~ Zipf times a log-normal preference.
pub(super) struct Scenes {
    verb: Weights,
    subject: Vec<Weights>,
    object: Vec<Weights>,
    adjective: Vec<Weights>,
    place: Vec<Weights>,
}

impl Scenes {
    /// `purpose` names the distribution: the family's, or a language's own domain.
    pub fn new(world: &WorldSettings, seed: u64, purpose: &str) -> Self {
        let mut random = Random::new(seed, purpose, 0);
        let verb = Weights::new(zipf(world.verbs, &mut random));
        let mut preferences = |of: u16, among: u16| {
            let popularity = zipf(among, &mut random);
            (0..of)
                .map(|_| {
                    let prefer =
                        |weight: &f64| weight * (PREFERENCE_SPREAD * random.normal()).exp();
                    Weights::new(popularity.iter().map(prefer).collect())
                })
                .collect::<Vec<_>>()
        };
        Self {
            verb,
            subject: preferences(world.verbs, world.nouns()),
            object: preferences(world.verbs, world.nouns()),
            adjective: preferences(world.nouns(), world.adjectives()),
            place: preferences(world.verbs, world.places),
        }
    }

    /// A scene; its object is not its subject.
    pub fn draw(&self, random: &mut Random) -> Meaning {
        let verb = self.verb.draw(random);
        let subject = self.subject[usize::from(verb)].draw(random);
        let objects = &self.object[usize::from(verb)];
        let object = (0..OBJECT_DRAWS)
            .map(|_| objects.draw(random))
            .find(|&object| object != subject)
            .unwrap_or((subject + 1) % self.adjective.len() as u16);
        let mut phrase = |noun: u16| NounPhrase {
            noun: Noun::Leaf(noun),
            adjective: Some(self.adjective[usize::from(noun)].draw(random)),
        };
        Meaning {
            quantifier: None,
            subject: phrase(subject),
            negated: false,
            verb,
            object: phrase(object),
            place: Some(self.place[usize::from(verb)].draw(random)),
        }
    }
}

/// The same scene with less detail: modifiers dropped, nouns named by their category. It follows from the scene.
pub(super) fn retell(world: &WorldSettings, scene: &Meaning, random: &mut Random) -> Meaning {
    let mut told = *scene;
    for phrase in [&mut told.subject, &mut told.object] {
        if random.uniform() < DROPPED_MODIFIER {
            phrase.adjective = None;
        }
        if random.uniform() < NAMED_CATEGORY {
            phrase.noun = Noun::Category(world.category_of(phrase.noun));
        }
    }
    if random.uniform() < DROPPED_MODIFIER {
        told.place = None;
    }
    told
}

/// Zipf weights in a random order of ranks.
fn zipf(count: u16, random: &mut Random) -> Vec<f64> {
    let mut weights: Vec<f64> = (1..=count)
        .map(|rank| f64::from(rank).powf(-ZIPF_EXPONENT))
        .collect();
    random.shuffle(&mut weights);
    weights
}

/// A distribution over 0..n, drawn from in logarithmic time.
struct Weights {
    cumulative: Vec<f64>,
}

impl Weights {
    fn new(mut weights: Vec<f64>) -> Self {
        let mut total = 0.0;
        for weight in &mut weights {
            total += *weight;
            *weight = total;
        }
        Self {
            cumulative: weights,
        }
    }

    fn draw(&self, random: &mut Random) -> u16 {
        let last = self.cumulative.len() - 1;
        let target = random.uniform() * self.cumulative[last];
        self.cumulative
            .partition_point(|&below| below <= target)
            .min(last) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_concept_is_its_place_in_the_list() {
        let world = WorldSettings::default();
        let concepts = world.concepts();
        assert_eq!(concepts.len(), 6 + 24 + 15 + 15 + 9 + 3 + 2);
        for (index, concept) in concepts.into_iter().enumerate() {
            assert_eq!(world.index(concept), index);
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let weights = Weights::new(vec![1.0, 0.0, 3.0]);
        let mut random = Random::new(1, "test", 0);
        let mut counts = [0u32; 3];
        for _ in 0..4_000 {
            counts[usize::from(weights.draw(&mut random))] += 1;
        }
        assert_eq!(counts[1], 0);
        assert!((900..1_100).contains(&counts[0]), "{counts:?}");
    }
}
