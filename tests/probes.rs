//! What pretrained models are asked as they are: perplexity of held-out text, likeness of words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use xlt::data::source::WordInput;
use xlt::data::text::TextPipeline;
use xlt::kernels::Device;
use xlt::metrics::intervals::{item_variance, score_of};
use xlt::metrics::{Measurement, Metric, Moments, ranked};
use xlt::model::{
    Batch, Direction, Encoder, LanguageModelBatch, Model, ModelSettings, Shape, Targets,
};
use xlt::probes::perplexity::{self, Unit};
use xlt::probes::word_embeddings::{Embeddings, TokenPair, WordVectors, likeness};
use xlt::report::compare::compare;
use xlt::report::results::Results;
use xlt::report::summary::{Query, Summary};
use xlt::stages::word_pairs::{self, Settings};
use xlt::stages::{Context, Progress, Stop};
use xlt::store::Store;

use crate::command_line::{Place, TINY};

/// The tiny study with both sections in place of fine-tuning.
fn study() -> String {
    let start = TINY.find("finetune:\n").unwrap();
    let end = TINY.find("seeds:").unwrap();
    let sections = "\
language_modelling: {languages: [bb, aa]}
word_embeddings: {words: mean_of_tokens, same_tokens: keep}
";
    format!("{}{sections}{}", &TINY[..start], &TINY[end..])
        .replace("objectives: [masked_lm: {rate: 0.3, position_sampling: uniform}]", "objectives: [causal_lm]")
        .replace("pretrain: [1], finetune: [1]", "pretrain: [1, 2, 3], finetune: [1, 2]")
        .replace("{says: masks help, higher: mlm, than: random, on: xnli/zero_shot/bb}", "{says: both help, lower: both, than: alone, on: language_modelling/word/bb}\n  - {says: likeness, variant: both, higher_on: word_translation/input_embeddings/bb, than_on: word_translation/input_embeddings/bb/cosine_of_others}")
        .replace("  random: {pretrain: none}\n  mlm: {}", "  alone: {pretrain.objectives: [causal_lm, masked_lm: {rate: 0.3, position_sampling: uniform}]}\n  both: {}\n  named: {pretrain.languages: [bb, aa]}")
        .replace("columns: languages, regime: zero_shot}", "columns: languages, task: language_modelling, regime: word}\n  - {name: words, rows: variants, columns: metrics, task: word_translation, regime: input_embeddings}")
}

#[test]
fn a_study_of_pretrained_models_alone_runs_from_text_to_verdicts() {
    let place = Place::new(&study());
    let ran = place.xlt(&["run", "tiny.yaml", "--json"]).ends(0).json();
    // `named` names what `both` has anyway: nothing of it is trained again.
    let plan = place.xlt(&["plan", "tiny.yaml"]).ends(0).out;
    assert!(!plan.contains("pretrain named"), "{plan}");
    assert_eq!(ran["claims"][0]["says"], "both help");

    let results = Results::read(&place.results()).unwrap();
    assert!(results.predictions.is_empty() && results.translations.is_empty());
    // Three variants and seeds, three units of two languages, one dictionary. Seeds of fine-tuning play no part.
    assert_eq!(results.measurements.len(), 3 * 3 * (3 * 2 + 1));
    let find = |variant: &str, task: &str, regime: &str, language: &str| {
        let mut cells = results.measurements.iter();
        let found = cells.find(|one| {
            let cell = &one.cell;
            let place = (
                cell.variant.as_str(),
                cell.task.as_str(),
                cell.regime.as_str(),
            );
            place == (variant, task, regime) && cell.language == language && cell.pretrain_seed == 1
        });
        found.unwrap()
    };
    let sums = |regime: &str| {
        let cell = find("both", "language_modelling", regime, "bb");
        assert_eq!(cell.cell.selection, "last_update");
        let runs: BTreeSet<u32> = cell.items.iter().map(|(run, _)| *run).collect();
        assert!(
            runs.len() < cell.items.len(),
            "sentences of a document are one cluster"
        );
        let items = cell.items.iter().map(|(_, item)| match item {
            Measurement::Text { loss, units } => (*loss, *units),
            other => panic!("{other:?}"),
        });
        items.fold((0.0, 0), |sum, item| (sum.0 + item.0, sum.1 + item.1))
    };
    let (loss, tokens) = sums("token");
    let (of_words, words) = sums("word");
    let (of_characters, characters) = sums("character");
    assert_eq!((loss, loss), (of_words, of_characters));
    assert!(
        words <= tokens && tokens < characters,
        "{words} {tokens} {characters}"
    );
    let scored = results.scores.iter().find(|row| {
        let place = (
            row.variant.as_str(),
            row.regime.as_str(),
            row.language.as_str(),
        );
        place == ("both", "token", "bb") && row.pretrain_seed == 1
    });
    let expected = (loss / tokens as f64).exp();
    assert!((scored.unwrap().value - expected).abs() < 1e-9 * expected);
    // Words that both languages have are one token, and one vector.
    let pairs = find("both", "word_translation", "input_embeddings", "bb");
    let alike = pairs.items.iter().filter(|(_, item)| match item {
        Measurement::Pair { cosine, .. } => *cosine > 0.999_999,
        other => panic!("{other:?}"),
    });
    assert!(alike.count() > 3);

    let summary = Summary::new(&results);
    let query = |metric| Query {
        variant: "both",
        task: "language_modelling",
        regime: "token",
        language: "bb",
        selection: "last_update",
        metric,
    };
    let estimate = summary.estimate(&query(Metric::Perplexity)).unwrap();
    assert_eq!((estimate.seeds, estimate.asked), (3, 3));
    assert!(
        estimate.mean > 100.0 || estimate.high > estimate.mean,
        "{estimate:?}"
    );

    for name in [
        "measurements.parquet",
        "plots/language_modelling.svg",
        "plots/word_embeddings.png",
        "plots/learning_curves.svg",
        "tables/main.md",
        "tables/words.tex",
    ] {
        assert!(place.results().join(name).is_file(), "{name}");
    }
    for absent in ["plots/accuracy.svg", "translations.parquet"] {
        assert!(!place.results().join(absent).exists(), "{absent}");
    }
    let table = fs::read_to_string(place.results().join("tables/words.md")).unwrap();
    assert!(
        table.contains("cosine") && table.contains("distance"),
        "{table}"
    );
    let comparison = compare(&results, &results);
    assert_eq!(
        (comparison.compared, comparison.different.len()),
        (3 * 7, 0)
    );
    place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
}

#[test]
fn pairs_are_cleared_of_the_text_whose_perplexity_is_measured() {
    let with_pairs = study().replace(
        "alone: {pretrain.objectives: [causal_lm,",
        "alone: {pretrain.objectives: [causal_lm, translation_lm: {rate: 0.3, position_sampling: uniform},",
    );
    let excluded = |study: &str| {
        let plan = Place::new(study).xlt(&["plan", "tiny.yaml", "--json"]);
        let plan = plan.ends(0).json();
        let jobs = plan["jobs"].as_array().unwrap();
        let pairs = jobs.iter().find(|job| job["stage"] == "parallel").unwrap();
        let inputs = pairs["inputs"].as_object().unwrap().keys();
        let excluded = inputs.filter(|name| name.starts_with("exclude:"));
        excluded.cloned().collect::<Vec<_>>()
    };
    assert_eq!(
        excluded(&with_pairs),
        ["exclude:held_out:aa", "exclude:held_out:bb"]
    );
    let of_one = with_pairs.replace("languages: [bb, aa]}\nword", "languages: [bb]}\nword");
    assert_eq!(excluded(&of_one), ["exclude:held_out:bb"]);
}

#[test]
fn wrong_settings_of_probes_are_shown_at_their_lines() {
    for (from, to, told) in [
        (
            "languages: [bb, aa]}\nword",
            "languages: [cc]}\nword",
            "`cc`",
        ),
        (
            "languages: [bb, aa]}\nword",
            "languages: []}\nword",
            "no languages",
        ),
        (
            "languages: [bb, aa]}\nword",
            "languages: [bb], units: [token, token]}\nword",
            "second time",
        ),
        (
            "objectives: [causal_lm]",
            "objectives: [masked_lm: {rate: 0.3, position_sampling: uniform}]",
            "add causal_lm",
        ),
        (
            "monolingual_validation: 20",
            "monolingual_validation: 0",
            "held-out text",
        ),
        ("words: mean_of_tokens", "words: sum", "mean_of_tokens"),
        (
            "words: mean_of_tokens",
            "words: mean_of_tokens, dictionaries: [aa]",
            "`aa`",
        ),
        (
            "words: mean_of_tokens",
            "words: mean_of_tokens, similarity: [bb]",
            "data.word_similarity",
        ),
        (
            "pretrain.languages: [bb, aa]}",
            "pretrain.languages: [bb, cc]}",
            "`cc`",
        ),
        (
            "pretrain.languages: [bb, aa]}",
            "pretrain.languages: []}",
            "empty",
        ),
        (
            "pretrain.languages: [bb, aa]}",
            "pretrain.languages: [bb]}",
            "measured but not pretrained on",
        ),
        (
            "pretrain.languages: [bb, aa]}",
            "pretrain: none}",
            "this one is not",
        ),
        (
            "pretrain.languages: [bb, aa]}",
            "data.monolingual_limit: 5}",
            "another `data`",
        ),
        ("same_tokens: keep", "same_tokens: drop", "leave_out"),
        ("lower: both", "lower: neither", "neither"),
        (
            "lower: both, than: alone",
            "lower: both, higher: both, than: alone",
            "does not go with",
        ),
        (
            "language_modelling/word/bb",
            "language_modelling/sentence/bb",
            "`word`",
        ),
        (
            "language_modelling/word/bb",
            "language_modelling/word/bb/cosine",
            "perplexity",
        ),
        (
            "columns: metrics",
            "columns: metrics, metric: cosine",
            "shows all of them",
        ),
    ] {
        let study = study();
        assert!(study.contains(from), "{from}");
        let place = Place::new(&study.replacen(from, to, 1));
        let ran = place.xlt(&["plan", "tiny.yaml"]).ends(2);
        assert!(ran.err.contains(told), "{to}: {}", ran.err);
        assert!(ran.err.contains("tiny.yaml:"), "{to}: {}", ran.err);
    }
}

fn fixture() -> Value {
    serde_json::from_str(include_str!("fixtures/probes.json")).unwrap()
}

fn close(found: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    let tolerance = 1e-9 * expected.abs().max(1.0);
    assert!(
        (found - expected).abs() < tolerance,
        "{found}, not {expected}"
    );
}

fn model() -> Model {
    let shape = Shape {
        settings: ModelSettings {
            layers: 2,
            hidden: 16,
            heads: 2,
            feed_forward: 32,
            positions: 8,
            dropout: 0.1,
            attention_dropout: 0.1,
            language_embeddings: true,
        },
        vocabulary: 30,
        languages: 2,
        decoder: false,
    };
    Model::initialise(&shape, 3)
}

#[test]
fn every_token_of_a_sentence_is_predicted_once_however_long_it_is() {
    let encoder = Encoder::new(model(), &Device::cpu(1));
    let alone = |tokens: &[u32]| {
        let mut batch = Batch::new();
        batch.push(tokens, 1);
        let input = LanguageModelBatch {
            batch,
            targets: Targets {
                indices: (0..tokens.len() as u32 - 1).collect(),
                labels: tokens[1..].to_vec(),
            },
            direction: Direction::Causal,
            source: None,
        };
        encoder.language_model_loss(&input).unwrap()
    };
    let sentence: Vec<u32> = (0..20).map(|place| 5 + place % 23).collect();
    for length in [2, 7, 8, 9, 15, 16, 20] {
        let sentence = &sentence[..length];
        let sum = perplexity::loss(&encoder, sentence, 1, 100).unwrap();
        assert_eq!(sum.targets as usize, length - 1);
        // Eight positions: each part begins with the last token of the one before.
        let parts: f64 = (0..length - 1)
            .step_by(7)
            .map(|start| alone(&sentence[start..length.min(start + 8)]).nats)
            .sum();
        assert_eq!(sum.nats, parts);
    }
    assert_eq!(perplexity::loss(&encoder, &[1], 1, 100).unwrap().targets, 0);
    // Positions that pretraining never read are left alone.
    let short = perplexity::loss(&encoder, &sentence[..8], 1, 4).unwrap();
    let parts = [&sentence[..4], &sentence[3..7], &sentence[6..8]];
    let parts = parts.map(|part| alone(part).nats);
    assert_eq!(short.nats, parts.iter().sum::<f64>());
}

#[test]
fn units_count_a_sentences_end() {
    let sentence = "ein  kleines Haus";
    assert_eq!(Unit::Token.count(sentence, 5), 6);
    assert_eq!(Unit::Word.count(sentence, 5), 4);
    assert_eq!(Unit::Character.count(sentence, 5), 18);
    assert_eq!(Unit::Character.count("हिन्दी", 2), 7);
}

/// Numbers of `tests/oracles/probes.py`.
#[test]
fn correlations_equal_scipys() {
    for list in fixture()["correlation"].as_array().unwrap() {
        let number = |value: &Value| value.as_f64().unwrap();
        let items: Vec<(u32, Measurement)> = list["pairs"]
            .as_array()
            .unwrap()
            .iter()
            .zip(0..)
            .map(|(pair, index)| {
                let (cosine, rating) = (number(&pair[0]), number(&pair[1]));
                (index, Measurement::Rated { cosine, rating })
            })
            .collect();
        let value = |items: &[(u32, Measurement)], metric| {
            let mut sums = Moments::default();
            for (_, item) in items {
                sums += &item.into();
            }
            sums.value(metric).unwrap()
        };
        close(value(&items, Metric::Pearson), &list["pearson"]);
        close(value(&ranked(&items), Metric::Spearman), &list["spearman"]);
        if !list["jackknife_variance"].is_null() {
            let moments: Vec<(u32, Moments)> = items
                .iter()
                .map(|(number, item)| (*number, item.into()))
                .collect();
            let score = score_of(&moments, |sums| sums.value(Metric::Pearson).unwrap());
            close(item_variance(&score), &list["jackknife_variance"]);
        }
    }
}

#[test]
fn perplexity_is_exp_of_the_mean_loss() {
    for list in fixture()["perplexity"].as_array().unwrap() {
        let mut sums = Moments::default();
        for sentence in list["sentences"].as_array().unwrap() {
            let (loss, units) = (sentence[0].as_f64().unwrap(), sentence[1].as_u64().unwrap());
            sums += &(&Measurement::Text { loss, units }).into();
        }
        close(sums.value(Metric::Perplexity).unwrap(), &list["perplexity"]);
    }
}

#[test]
fn likeness_equals_pytorchs() {
    let fixture = &fixture()["likeness"];
    let numbers = |value: &Value| -> Vec<f64> {
        let values = value.as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    };
    let table: Vec<f32> = fixture["table"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(numbers)
        .map(|value| value as f32)
        .collect();
    let shape = Shape {
        settings: ModelSettings {
            layers: 1,
            hidden: 6,
            heads: 1,
            feed_forward: 4,
            positions: 8,
            dropout: 0.0,
            attention_dropout: 0.0,
            language_embeddings: false,
        },
        vocabulary: table.len() / 6,
        languages: 1,
        decoder: false,
    };
    let mut model = Model::initialise(&shape, 1);
    model
        .parameter_mut("embeddings.token")
        .unwrap()
        .copy_from_slice(&table);
    let tokens =
        |value: &Value| -> Vec<u32> { numbers(value).into_iter().map(|id| id as u32).collect() };
    let pairs = fixture["pairs"].as_array().unwrap();
    let words: Vec<TokenPair> = pairs
        .iter()
        .map(|pair| (tokens(&pair["first"]), tokens(&pair["second"])))
        .collect();
    let cluster = |pair: &Value| pair["cluster"].as_u64().unwrap() as u32;
    let clusters: Vec<u32> = pairs.iter().map(cluster).collect();
    let embeddings = Embeddings::of(&model, WordVectors::MeanOfTokens).unwrap();
    for (found, pair) in likeness(&words, &clusters, &embeddings).iter().zip(pairs) {
        let Measurement::Pair {
            cosine,
            distance,
            cosine_of_others,
        } = found
        else {
            panic!("{found:?}");
        };
        close(*cosine, &pair["cosine"]);
        close(*distance, &pair["distance"]);
        close(*cosine_of_others, &pair["cosine_of_others"]);
    }
    let single = Embeddings::of(&model, WordVectors::SingleTokens).unwrap();
    assert!(single.has(&[3]) && !single.has(&[3, 4]) && !single.has(&[]));
}

struct Silent;

impl Progress for Silent {
    fn begin(&self, _: u64, _: u64, _: &str) {}
    fn advance(&self, _: u64, _: &str) {}
    fn message(&self, _: &str) {}
}

/// Pairs of words from the text of a file.
fn words(text: &str, rated: bool, limit: Option<u64>) -> Result<Vec<word_pairs::WordPair>> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    fs::write(path("words.txt"), text)?;
    fs::create_dir(path("output"))?;
    let files = BTreeMap::from([("file:0".to_owned(), path("words.txt"))]);
    word_pairs::run(
        &Settings {
            source: "en".to_owned(),
            language: "de".to_owned(),
            input: WordInput::Files,
            rated,
            text_pipeline: TextPipeline::Xlm,
            limit,
            seed: 0,
        },
        &Context {
            inputs: &BTreeMap::new(),
            files: &files,
            output: &path("output"),
            checkpoints: folder.path(),
            device: &Device::cpu(1),
            progress: &Silent,
            stop: &Stop::default(),
            checkpoint_interval: Duration::from_secs(60),
        },
    )?;
    word_pairs::read(&path("output"))
}

#[test]
fn pairs_of_words_are_piped_once_each_and_drawn_alike() {
    let pair = |first: &str, second: &str| (first.to_owned(), second.to_owned(), None);
    let found = words(
        "House Häuser\nhouse\tHauser\n\nnew york\tNew York\n",
        false,
        None,
    )
    .unwrap();
    assert_eq!(
        found,
        [pair("house", "hauser"), pair("new york", "new york")]
    );
    let rated = words("cat\tKatze\t3.5\ncat\tHund\t1\n", true, None).unwrap();
    assert_eq!(rated[0], ("cat".to_owned(), "katze".to_owned(), Some(3.5)));
    for (text, rated, told) in [
        ("cat\n", false, "line 1"),
        ("cat Katze\ncat Katze 3.5\n", false, "line 2"),
        ("cat\tKatze\n", true, "rating"),
        ("cat\tKatze\tgreat\n", true, "`great`"),
        ("\ncat Katze\ncat\n", false, "line 3 of `"),
        ("\n", false, "there are no words of"),
        (
            "cat\tKatze\t1\ndog\tHund\t1\n",
            true,
            "one and the same rating",
        ),
    ] {
        let error = format!("{:#}", words(text, rated, None).unwrap_err());
        assert!(error.contains(told), "{error}");
    }
    let many: String = (0..50)
        .map(|number| format!("w{number} v{number}\n"))
        .collect();
    let drawn = words(&many, false, Some(20)).unwrap();
    assert_eq!(drawn.len(), 20);
    assert_eq!(drawn, words(&many, false, Some(20)).unwrap());
    let order: Vec<usize> = drawn
        .iter()
        .map(|(first, ..)| first[1..].parse().unwrap())
        .collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn rated_words_of_a_study_give_correlations() {
    let rated = "  word_similarity: [{files: words.txt, languages: [bb]}]\n";
    let text = study()
        .replace(
            "  monolingual_validation: 20\n",
            &format!("  monolingual_validation: 20\n{rated}"),
        )
        .replace(
            "words: mean_of_tokens",
            "words: mean_of_tokens, similarity: [bb], dictionaries: []",
        )
        .replace(
            "pretrain: [1, 2, 3], finetune: [1, 2]",
            "pretrain: [1], finetune: [1]",
        );
    let start = text.find("\n  - {says: likeness").unwrap();
    let end = text.find("\ntables:").unwrap();
    let text = format!("{}{}", &text[..start], &text[end..]);
    let start = text.find("\n  - {name: words").unwrap();
    let end = text.find("\nvariants:").unwrap();
    let place = Place::new(&format!("{}{}", &text[..start], &text[end..]));
    let letters: Vec<char> = "abdegiklmnoprstu".chars().collect();
    let lines: String = letters
        .windows(2)
        .enumerate()
        .map(|(index, pair)| format!("{}\t{}\t{}\n", pair[0], pair[1], index % 5))
        .collect();
    fs::write(place.path().join("words.txt"), lines).unwrap();
    place.xlt(&["run", "tiny.yaml", "--data", "."]).ends(0);
    let results = Results::read(&place.results()).unwrap();
    for metric in ["pearson", "spearman"] {
        let found = results.scores.iter().filter(|row| row.metric == metric);
        let values: Vec<f64> = found.map(|row| row.value).collect();
        assert_eq!(values.len(), 3);
        assert!(
            values
                .iter()
                .all(|value| value.abs() <= 1.0 && *value != 0.0),
            "{values:?}"
        );
    }
    // Without the words the plan says where they are missing.
    let ran = place
        .xlt(&["plan", "tiny.yaml", "--data", "nowhere"])
        .ends(2);
    assert!(ran.err.contains("word similarity aa-bb"), "{}", ran.err);
}

#[test]
fn held_out_sentences_that_training_text_has_are_left_out() {
    let place = Place::new(&study());
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let results = Results::read(&place.results()).unwrap();
    let facts = &results.manifest.data_facts["perplexity of both, seed 1"]["held_out"];
    let store = Store::open(&place.path().join(".xlt")).unwrap();
    for artifact in store.artifacts().unwrap() {
        if artifact.record.stage != "monolingual" {
            continue;
        }
        let read = |name: &str| fs::read_to_string(artifact.folder.join(name)).unwrap();
        let (train, valid) = (read("train.txt"), read("valid.txt"));
        let trained: BTreeSet<&str> = train.lines().collect();
        let held_out = valid.lines().filter(|line| !line.is_empty());
        let (seen, unseen): (Vec<&str>, Vec<&str>) =
            held_out.partition(|line| trained.contains(line));
        let of_language = &facts[artifact.record.settings["language"].as_str().unwrap()];
        assert_eq!(of_language["sentences"], unseen.len());
        assert_eq!(of_language["left_out_as_training_has_them"], seen.len());
    }
}
