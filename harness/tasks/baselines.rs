//! What labels can be guessed from words alone: baselines that a model must beat to have understood anything.
//!
//! Hypothesis-only classifiers find the artefacts of a data set (Gururangan et al. 2018, "Annotation Artifacts in Natural
//! Language Inference Data"; Poliak et al. 2018); the overlap rule finds the shortcut of shared words (McCoy et al. 2019).

use std::collections::HashMap;

use crate::data::nli::{Label, NliExample};
use crate::random::Random;

/// Passes over the training set of the linear classifiers (ours).
const EPOCHS: u64 = 8;
/// AdaGrad's learning rate (ours).
const LEARNING_RATE: f32 = 0.2;

const CLASSES: usize = Label::ALL.len();

/// The most frequent training label for every test pair; the first in [`Label::ALL`] when they tie.
pub fn majority(train: &[NliExample], test: &[NliExample]) -> Vec<Label> {
    let mut counts = [0usize; CLASSES];
    for example in train {
        counts[example.label.index()] += 1;
    }
    vec![Label::ALL[most(&counts)]; test.len()]
}

/// Labels by how many words of the hypothesis the premise lacks: few, some, many. The two thresholds, and the label of
/// each of the three ranges, are those with the most correct training pairs.
pub fn overlap(train: &[NliExample], test: &[NliExample]) -> Vec<Label> {
    // Training labels by number of missing words.
    let mut counts: Vec<[usize; CLASSES]> = vec![[0; CLASSES]];
    for example in train {
        let missing = missing_words(example);
        if counts.len() <= missing {
            counts.resize(missing + 1, [0; CLASSES]);
        }
        counts[missing][example.label.index()] += 1;
    }
    // Those of pairs with fewer missing words than the index.
    let mut below: Vec<[usize; CLASSES]> = vec![[0; CLASSES]];
    for (missing, row) in counts.iter().enumerate() {
        let sum = std::array::from_fn(|label| below[missing][label] + row[label]);
        below.push(sum);
    }
    let within = |from: usize, to: usize| -> [usize; CLASSES] {
        std::array::from_fn(|label| below[to][label] - below[from][label])
    };
    let mut best = (0, [0, 0], [Label::ALL[0]; 3]);
    for low in 0..=counts.len() {
        for high in low..=counts.len() {
            let ranges = [
                within(0, low),
                within(low, high),
                within(high, counts.len()),
            ];
            let correct: usize = ranges.iter().map(|range| range[most(range)]).sum();
            if correct > best.0 {
                best = (
                    correct,
                    [low, high],
                    ranges.map(|range| Label::ALL[most(&range)]),
                );
            }
        }
    }
    let (_, [low, high], labels) = best;
    let range = |missing| usize::from(missing >= low) + usize::from(missing >= high);
    test.iter()
        .map(|example| labels[range(missing_words(example))])
        .collect()
}

/// A linear classifier of the hypothesis's words that never sees the premise.
pub fn hypothesis_only(train: &[NliExample], test: &[NliExample]) -> Vec<Label> {
    linear(train, test, |example| {
        words(Side::Hypothesis, example).collect()
    })
}

/// A linear classifier of the words of both sentences, each knowing its sentence but not its place.
pub fn bag_of_words(train: &[NliExample], test: &[NliExample]) -> Vec<Label> {
    linear(train, test, |example| {
        words(Side::Premise, example)
            .chain(words(Side::Hypothesis, example))
            .collect()
    })
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Premise,
    Hypothesis,
}

fn words(side: Side, example: &NliExample) -> impl Iterator<Item = (Side, &str)> {
    let sentence = match side {
        Side::Premise => &example.premise,
        Side::Hypothesis => &example.hypothesis,
    };
    sentence.split_whitespace().map(move |word| (side, word))
}

/// Words of the hypothesis, repeated ones counted each time, that are not in the premise.
fn missing_words(example: &NliExample) -> usize {
    let premise: Vec<&str> = example.premise.split_whitespace().collect();
    example
        .hypothesis
        .split_whitespace()
        .filter(|word| !premise.contains(word))
        .count()
}

/// The class with the largest value, the first when they tie.
fn most<T: PartialOrd>(values: &[T; CLASSES]) -> usize {
    (1..CLASSES).fold(0, |best, class| {
        if values[class] > values[best] {
            class
        } else {
            best
        }
    })
}

/// Multinomial logistic regression on the presence of words, by AdaGrad (Duchi et al. 2011) over single examples in a
/// fixed pseudorandom order. Words that training lacks are ignored.
fn linear<'a>(
    train: &'a [NliExample],
    test: &'a [NliExample],
    features: impl Fn(&'a NliExample) -> Vec<(Side, &'a str)>,
) -> Vec<Label> {
    // Feature 0 is the bias.
    let mut index: HashMap<(Side, &str), usize> = HashMap::new();
    let train: Vec<(Vec<usize>, usize)> = train
        .iter()
        .map(|example| {
            let mut present = vec![0];
            for word in features(example) {
                let next = index.len() + 1;
                present.push(*index.entry(word).or_insert(next));
            }
            present.sort_unstable();
            present.dedup();
            (present, example.label.index())
        })
        .collect();

    let mut weights = vec![[0f32; CLASSES]; index.len() + 1];
    let mut squares = vec![[1e-8f32; CLASSES]; index.len() + 1];
    let mut order: Vec<usize> = (0..train.len()).collect();
    for epoch in 0..EPOCHS {
        Random::new(0, "baselines", epoch).shuffle(&mut order);
        for &example in &order {
            let (present, label) = &train[example];
            let mut gradient = probabilities(&weights, present);
            gradient[*label] -= 1.0;
            for &feature in present {
                for class in 0..CLASSES {
                    squares[feature][class] += gradient[class] * gradient[class];
                    weights[feature][class] -=
                        LEARNING_RATE * gradient[class] / squares[feature][class].sqrt();
                }
            }
        }
    }
    test.iter()
        .map(|example| {
            let known = features(example)
                .into_iter()
                .filter_map(|word| index.get(&word).copied());
            let mut present: Vec<usize> = std::iter::once(0).chain(known).collect();
            present.sort_unstable();
            present.dedup();
            Label::ALL[most(&probabilities(&weights, &present))]
        })
        .collect()
}

fn probabilities(weights: &[[f32; CLASSES]], present: &[usize]) -> [f32; CLASSES] {
    let mut scores = [0f32; CLASSES];
    for &feature in present {
        scores
            .iter_mut()
            .zip(weights[feature])
            .for_each(|(score, weight)| *score += weight);
    }
    let largest = scores[most(&scores)];
    let exponentials = scores.map(|score| (score - largest).exp());
    let total: f32 = exponentials.iter().sum();
    exponentials.map(|value| value / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(premise: &str, hypothesis: &str, label: Label) -> NliExample {
        NliExample {
            premise: premise.to_owned(),
            hypothesis: hypothesis.to_owned(),
            label,
            premise_id: 0,
            item: 0,
        }
    }

    /// Each label has its own overlap and its own hypothesis word, in every combination with other words.
    fn artefacts() -> Vec<NliExample> {
        ["a b c", "b c d", "c d e", "d e f"]
            .iter()
            .flat_map(|premise| {
                let word = &premise[..1];
                [
                    example(premise, &format!("{word} no x"), Label::Contradiction),
                    example(premise, &format!("{premise} maybe"), Label::Neutral),
                    example(premise, word, Label::Entailment),
                ]
            })
            .collect()
    }

    fn gold(examples: &[NliExample]) -> Vec<Label> {
        examples.iter().map(|example| example.label).collect()
    }

    #[test]
    fn baselines_find_the_artefacts_that_they_look_for() {
        let examples = artefacts();
        assert_eq!(overlap(&examples, &examples), gold(&examples));
        assert_eq!(hypothesis_only(&examples, &examples), gold(&examples));
        assert_eq!(bag_of_words(&examples, &examples), gold(&examples));
    }

    #[test]
    fn hypothesis_only_does_not_read_the_premise() {
        let examples = artefacts();
        let mut blind = examples.clone();
        blind
            .iter_mut()
            .for_each(|example| example.premise = "z".to_owned());
        assert_eq!(hypothesis_only(&examples, &blind), gold(&examples));
        assert_ne!(overlap(&examples, &blind), gold(&examples));
    }

    #[test]
    fn majority_is_the_most_frequent_training_label() {
        let mut examples = artefacts();
        assert_eq!(majority(&examples, &examples)[0], Label::Contradiction);
        examples.push(example("a", "b", Label::Entailment));
        assert_eq!(
            majority(&examples, &examples),
            vec![Label::Entailment; examples.len()]
        );
    }

    #[test]
    fn no_training_pairs_and_unseen_words_are_no_failure() {
        let examples = artefacts();
        for baseline in [majority, overlap, hypothesis_only, bag_of_words] {
            assert_eq!(baseline(&[], &examples).len(), examples.len());
            assert!(baseline(&examples, &[]).is_empty());
        }
    }
}
