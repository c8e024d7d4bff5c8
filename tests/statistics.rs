//! Metrics and intervals against scipy, scikit-learn and statsmodels, and coverage on simulated data.
//! The expected numbers come from `tests/oracles/intervals.py`; the lines stand above them.

use xlt::metrics::intervals::{
    LEVEL, Score, Spread, collapsed, combine, holm, item_variance, mean, over_seeds, score,
    student_t,
};
use xlt::metrics::{Confusion, Metric};
use xlt::random::Random;

fn close(ours: f64, theirs: f64, tolerance: f64) {
    assert!(
        (ours - theirs).abs() <= tolerance * theirs.abs().max(1e-12),
        "{ours} is not {theirs}"
    );
}

#[test]
fn t_quantiles_equal_those_of_scipy() {
    // stats.t.ppf(0.975, degrees), stats.t.ppf(0.9995, degrees)
    for (degrees, at_95, at_999) in [
        (1.0, 12.706204736174694, 636.6192487687897),
        (2.0, 4.302652729749462, 31.599054576445365),
        (4.0, 2.7764451051977934, 8.610301581379522),
        (9.0, 2.262157162798205, 4.780912585931217),
        (199.0, 1.9719565442517533, 3.3400865561614634),
        (1669.0, 1.9613863711666333, 3.2963658013894293),
    ] {
        close(student_t(0.05, degrees), at_95, 1e-8);
        close(student_t(0.001, degrees), at_999, 1e-8);
    }
}

#[test]
fn holm_equals_statsmodels() {
    // multipletests([0.04, 0.001, 0.03, 0.2, 0.012], method="holm")[1]
    let expected = [0.09, 0.005, 0.09, 0.2, 0.048];
    for (ours, theirs) in holm(&[0.04, 0.001, 0.03, 0.2, 0.012])
        .into_iter()
        .zip(expected)
    {
        close(ours, theirs, 1e-12);
    }
    assert!(holm(&[]).is_empty());
}

/// Thirty examples of ten premises, by the recurrence of the oracle script.
fn thirty_examples() -> Vec<(u32, Confusion)> {
    let mut state: u64 = 12345;
    let mut clusters: Vec<(u32, Confusion)> = Vec::new();
    for row in 0..30_u64 {
        state = (1_103_515_245 * state + 12345) % (1 << 31);
        let gold = row % 3;
        let wrong = (state >> 16) % 10;
        let predicted = if wrong < 6 {
            gold
        } else {
            (gold + 1 + wrong % 2) % 3
        };
        if row % 3 == 0 {
            clusters.push(((row / 3) as u32, Confusion::default()));
        }
        clusters
            .last_mut()
            .unwrap()
            .1
            .add(gold as u8, predicted as u8);
    }
    clusters
}

#[test]
fn metrics_equal_those_of_scikit_learn() {
    let clusters = thirty_examples();
    let value = |metric| score(metric, &clusters).value;
    // 100 * accuracy_score(golds, predictions)
    close(value(Metric::Accuracy), 60.0, 1e-12);
    // precision_recall_fscore_support(golds, predictions, average="macro", zero_division=0)
    close(value(Metric::MacroPrecision), 60.7070707070707, 1e-12);
    close(value(Metric::MacroRecall), 60.0, 1e-12);
    close(value(Metric::MacroF1), 60.258980785296565, 1e-12);
}

#[test]
fn the_item_variance_of_accuracy_is_the_cluster_robust_one() {
    // OLS(correct, ones).fit(cov_type="cluster", cov_kwds={"groups": premises, "use_correction": False}), times G / (G - 1)
    close(
        item_variance(&score(Metric::Accuracy, &thirty_examples())),
        93.82716049382712,
        1e-10,
    );
}

#[test]
fn metrics_of_one_sided_models_do_not_divide_by_zero() {
    let always_neutral = Confusion::of((0..30).map(|row| (row % 3, 1)));
    close(Metric::MacroF1.percent(&always_neutral), 100.0 / 6.0, 1e-12);
    close(
        Metric::MacroPrecision.percent(&always_neutral),
        100.0 / 9.0,
        1e-12,
    );
    for metric in Metric::OF_CLASSES {
        assert_eq!(metric.percent(&Confusion::default()), 0.0);
    }
}

/// The true accuracies of a simulated world, and draws from it.
struct World {
    premises: u32,
    /// Standard deviation of a seed's effect, in probability.
    seed_deviation: f64,
    /// Half-ranges of uniform effects, so that probabilities stay within 0 and 1 and their mean is exact.
    premise_range: f64,
    item_range: f64,
    /// Of a premise's effect that differs from seed to seed.
    interaction_range: f64,
}

impl World {
    const TRUTH: f64 = 60.0;

    /// One test set scored by `seeds` models.
    fn draw(&self, seeds: usize, random: &mut Random) -> Vec<Vec<(u32, Confusion)>> {
        let between = |random: &mut Random, range: f64| range * (2.0 * random.uniform() - 1.0);
        let effects: Vec<f64> = (0..seeds)
            .map(|_| self.seed_deviation * random.normal())
            .collect();
        let mut runs = vec![Vec::with_capacity(self.premises as usize); seeds];
        for premise in 0..self.premises {
            let shared = between(random, self.premise_range);
            let items: [f64; 3] =
                std::array::from_fn(|_| shared + between(random, self.item_range));
            for (run, effect) in runs.iter_mut().zip(&effects) {
                let own = effect + between(random, self.interaction_range);
                let mut counts = Confusion::default();
                for (gold, item) in items.iter().enumerate() {
                    let right = random.uniform() < 0.01 * Self::TRUTH + item + own;
                    counts.add(
                        gold as u8,
                        if right {
                            gold as u8
                        } else {
                            (gold as u8 + 1) % 3
                        },
                    );
                }
                run.push((premise, counts));
            }
        }
        runs
    }
}

fn accuracies(runs: &[Vec<(u32, Confusion)>]) -> Vec<Score> {
    runs.iter()
        .map(|run| score(Metric::Accuracy, run))
        .collect()
}

fn half_width(spread: &Spread) -> f64 {
    spread.half_width(1.0 - LEVEL)
}

/// Percent of `rounds` in which the interval holds the truth.
fn coverage(rounds: u64, interval: impl Fn(&mut Random) -> (f64, f64), truth: f64) -> f64 {
    let held = (0..rounds).filter(|&round| {
        let (middle, half) = interval(&mut Random::new(5, "coverage", round));
        (middle - truth).abs() <= half
    });
    100.0 * held.count() as f64 / rounds as f64
}

#[test]
fn intervals_over_seeds_and_items_cover_the_truth() {
    let items_and_seeds = World {
        premises: 150,
        seed_deviation: 0.04,
        premise_range: 0.2,
        item_range: 0.1,
        interaction_range: 0.0,
    };
    let interaction_too = World {
        premises: 150,
        seed_deviation: 0.04,
        premise_range: 0.1,
        item_range: 0.1,
        interaction_range: 0.1,
    };
    for world in [items_and_seeds, interaction_too] {
        for seeds in [3, 5, 10] {
            let interval = |random: &mut Random| {
                let (average, spread) = over_seeds(&accuracies(&world.draw(seeds, random)));
                (average.value, half_width(&spread))
            };
            // 10,000 rounds give 95.0 to 97.0 % in worlds from 1.5 to 6 points between seeds.
            let covered = coverage(1000, interval, World::TRUTH);
            assert!(
                (93.0..=97.0).contains(&covered),
                "{covered} % with {seeds} seeds"
            );
        }
    }
}

#[test]
fn intervals_of_paired_differences_cover_the_truth() {
    let world = World {
        premises: 150,
        seed_deviation: 0.04,
        premise_range: 0.2,
        item_range: 0.1,
        interaction_range: 0.0,
    };
    for seeds in [3, 5, 10] {
        let interval = |random: &mut Random| {
            // Twice as many models of one world: the two halves see the same items.
            let both = accuracies(&world.draw(2 * seeds, random));
            let pairs: Vec<Score> = both
                .chunks(2)
                .map(|two| combine(&[(1.0, &two[0]), (-1.0, &two[1])]))
                .collect();
            let (average, spread) = over_seeds(&pairs);
            (average.value, half_width(&spread))
        };
        let covered = coverage(1000, interval, 0.0);
        assert!(
            (93.0..=97.0).contains(&covered),
            "{covered} % with {seeds} seeds"
        );
    }
}

#[test]
fn intervals_over_items_cover_the_truth_and_would_not_without_clusters() {
    let world = World {
        premises: 150,
        seed_deviation: 0.0,
        premise_range: 0.38,
        item_range: 0.0,
        interaction_range: 0.0,
    };
    let by_premise = |random: &mut Random| {
        let (average, spread) = over_seeds(&accuracies(&world.draw(1, random)));
        (average.value, half_width(&spread))
    };
    let by_item = |random: &mut Random| {
        let share = accuracies(&world.draw(1, random))[0].value / 100.0;
        (
            100.0 * share,
            196.0 * (share * (1.0 - share) / f64::from(3 * world.premises)).sqrt(),
        )
    };
    let covered = coverage(1000, by_premise, World::TRUTH);
    assert!((93.0..=97.0).contains(&covered), "{covered} %");
    let covered = coverage(1000, by_item, World::TRUTH);
    assert!(
        covered < 92.0,
        "items of a premise are not independent, yet {covered} %"
    );
}

#[test]
fn the_jackknife_agrees_with_a_bootstrap_of_premises() {
    let world = World {
        premises: 300,
        seed_deviation: 0.0,
        premise_range: 0.3,
        item_range: 0.05,
        interaction_range: 0.0,
    };
    let run = world
        .draw(1, &mut Random::new(2, "bootstrap world", 0))
        .remove(0);
    for metric in Metric::OF_CLASSES {
        let resampled: Vec<f64> = (0..2000)
            .map(|round| {
                let mut random = Random::new(3, "bootstrap", round);
                let mut total = Confusion::default();
                for _ in 0..run.len() {
                    total += &run[random.below(run.len() as u64) as usize].1;
                }
                metric.percent(&total)
            })
            .collect();
        let centre = resampled.iter().sum::<f64>() / 2000.0;
        let variance = resampled
            .iter()
            .map(|value| (value - centre).powi(2))
            .sum::<f64>()
            / 1999.0;
        let ratio = (item_variance(&score(metric, &run)) / variance).sqrt();
        assert!((0.95..1.05).contains(&ratio), "{}: {ratio}", metric.name());
    }
}

#[test]
fn translations_of_the_same_items_are_not_new_evidence() {
    let one = score(Metric::Accuracy, &thirty_examples());
    let three_languages = mean(&[one.clone(), one.clone(), one.clone()]);
    close(item_variance(&three_languages), item_variance(&one), 1e-12);
    let difference = combine(&[(1.0, &one), (-1.0, &one)]);
    assert_eq!((difference.value, item_variance(&difference)), (0.0, 0.0));
}

#[test]
fn p_values_and_intervals_say_the_same() {
    let spread = Spread {
        seeds: 3,
        seed_variance: Some(0.8),
        item_variance: 1.5,
        clusters: 200,
    };
    for alpha in [0.3, 0.05, 0.001] {
        close(spread.p_value(spread.half_width(alpha)), alpha, 1e-6);
    }
    assert_eq!(spread.p_value(0.0), 1.0);
    let certain = Spread {
        seeds: 1,
        seed_variance: None,
        item_variance: 0.0,
        clusters: 200,
    };
    assert!(certain.p_value(0.1) < 0.001);
    assert_eq!(certain.p_value(0.0), 1.0);
}

#[test]
fn one_premise_tells_nothing() {
    let lone = &thirty_examples()[..1];
    let (_, spread) = over_seeds(&[score(Metric::Accuracy, lone)]);
    assert_eq!(half_width(&spread), f64::INFINITY);
    assert_eq!(spread.p_value(50.0), 1.0);
}

#[test]
fn chance_and_a_single_class_are_collapse() {
    let run = |right: u64, predicted: fn(u8) -> u8| -> (Score, Confusion) {
        let clusters: Vec<(u32, Confusion)> = (0..200_u64)
            .map(|premise| {
                let wrong = move |gold: u8| {
                    if (premise * 7) % 100 < right {
                        gold
                    } else {
                        predicted(gold)
                    }
                };
                (
                    premise as u32,
                    Confusion::of((0..3).map(|gold| (gold, wrong(gold)))),
                )
            })
            .collect();
        let mut total = Confusion::default();
        for (_, counts) in &clusters {
            total += counts;
        }
        (score(Metric::Accuracy, &clusters), total)
    };
    let is_collapsed = |(accuracy, total): (Score, Confusion)| collapsed(&accuracy, &total);
    assert!(is_collapsed(run(33, |gold| (gold + 1) % 3)));
    assert!(is_collapsed(run(0, |_| 2)));
    assert!(is_collapsed(run(4, |_| 2)));
    assert!(!is_collapsed(run(60, |gold| (gold + 1) % 3)));
    // Worse than chance is transfer of the wrong sort, not collapse.
    assert!(!is_collapsed(run(10, |gold| (gold + 1) % 3)));
}
