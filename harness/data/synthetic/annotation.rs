//! Gold tags, entities and dependency trees, known because the sentence was built from its meaning.
//!
//! Tags and relations are those of Universal Dependencies. Entities: nouns of the first category are persons, those of
//! the second organisations (with their adjective, so that spans are longer than a word), places are locations.

use super::language::{Language, Role};
use super::logic::{Meaning, Noun};
use super::settings::WorldSettings;
use super::world::Concept;

/// A sentence with its gold annotation; all vectors have one entry per word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotatedSentence {
    /// The words.
    pub words: Vec<String>,
    /// Universal part-of-speech tags, such as `NOUN`.
    pub tags: Vec<&'static str>,
    /// `O`, or `B-` and `I-` with `PER`, `ORG` or `LOC`.
    pub entities: Vec<&'static str>,
    /// The head of each word, counted from 1; 0 for the root.
    pub heads: Vec<usize>,
    /// The relation of each word to its head, such as `nsubj`.
    pub relations: Vec<&'static str>,
}

/// What a span of words names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entity {
    Person,
    Organisation,
    Location,
}

pub(super) fn annotate(
    world: &WorldSettings,
    language: &Language,
    meaning: &Meaning,
) -> AnnotatedSentence {
    let words = language.words(meaning);
    let position = |role: Role| {
        // Every role that is a head stands in the sentence of its dependent.
        words
            .iter()
            .position(|(other, _)| *other == role)
            .map_or(0, |index| index + 1)
    };
    let mut entities = Vec::with_capacity(words.len());
    let mut inside: Option<(Role, Entity)> = None;
    for &(role, _) in &words {
        let named = entity(world, meaning, role);
        let span = named.map(|entity| (noun_of(role), entity));
        entities.push(match span {
            None => "O",
            Some((_, entity)) => tag(entity, span != inside),
        });
        inside = span;
    }
    AnnotatedSentence {
        tags: words
            .iter()
            .map(|(_, concept)| part_of_speech(*concept))
            .collect(),
        entities,
        heads: words
            .iter()
            .map(|(role, _)| head(*role).map_or(0, position))
            .collect(),
        relations: words.iter().map(|(role, _)| relation(*role)).collect(),
        words: words
            .iter()
            .map(|word| language.form(meaning, *word).to_owned())
            .collect(),
    }
}

/// The noun that an adjective stands with, else the word itself.
fn noun_of(role: Role) -> Role {
    match role {
        Role::SubjectAdjective => Role::Subject,
        Role::ObjectAdjective => Role::Object,
        role => role,
    }
}

fn part_of_speech(concept: Concept) -> &'static str {
    match concept {
        Concept::Noun(_) | Concept::Place(_) => "NOUN",
        Concept::Adjective(_) => "ADJ",
        Concept::Verb(_) => "VERB",
        Concept::Quantifier(_) => "DET",
        Concept::Negation => "PART",
        Concept::Adposition => "ADP",
    }
}

/// The head's role; `None` for the root.
fn head(role: Role) -> Option<Role> {
    match role {
        Role::Verb => None,
        Role::Quantifier | Role::SubjectAdjective => Some(Role::Subject),
        Role::ObjectAdjective => Some(Role::Object),
        Role::Adposition => Some(Role::Place),
        Role::Subject | Role::Object | Role::Negation | Role::Place => Some(Role::Verb),
    }
}

fn relation(role: Role) -> &'static str {
    match role {
        Role::Verb => "root",
        Role::Quantifier => "det",
        Role::SubjectAdjective | Role::ObjectAdjective => "amod",
        Role::Subject => "nsubj",
        Role::Object => "obj",
        Role::Negation => "advmod",
        Role::Adposition => "case",
        Role::Place => "obl",
    }
}

/// What the span that a word belongs to names.
fn entity(world: &WorldSettings, meaning: &Meaning, role: Role) -> Option<Entity> {
    let noun = match role {
        Role::Subject | Role::SubjectAdjective => meaning.subject.noun,
        Role::Object | Role::ObjectAdjective => meaning.object.noun,
        Role::Place => return Some(Entity::Location),
        _ => return None,
    };
    // A category is a common noun, and names nobody.
    match (noun, world.category_of(noun)) {
        (Noun::Leaf(_), 0) => Some(Entity::Person),
        (Noun::Leaf(_), 1) => Some(Entity::Organisation),
        _ => None,
    }
}

fn tag(entity: Entity, begins: bool) -> &'static str {
    match (entity, begins) {
        (Entity::Person, true) => "B-PER",
        (Entity::Person, false) => "I-PER",
        (Entity::Organisation, true) => "B-ORG",
        (Entity::Organisation, false) => "I-ORG",
        (Entity::Location, true) => "B-LOC",
        (Entity::Location, false) => "I-LOC",
    }
}
