//! Known ways to get a reproduction of XLM wrong that no other test bears. `docs/pitfalls.md` lists all of them, by id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use xlt::data::nli::{Label, NliExample};
use xlt::data::tokenizer::{END_OF_SENTENCE, FIRST_WORD};
use xlt::kernels::Device;
use xlt::metrics::Metric;
use xlt::model::{Batch, Direction, Encoder, Model, Shape, Tap};
use xlt::plan::hashes::FileHashes;
use xlt::plan::{Plan, build};
use xlt::spec::anchors::Anchors;
use xlt::spec::claims::{Claim, smallest_tolerance};
use xlt::spec::{self, Study};
use xlt::tasks::pair_classification::{encode_pair, pack};

use crate::engine::{tiny, values};

fn experiment(name: &str) -> String {
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("experiments")
            .join(name),
    )
    .unwrap()
}

/// The quickstart, to be changed and read again: JSON is YAML.
fn quickstart() -> Value {
    serde_yaml::from_str(&experiment("quickstart.yaml")).unwrap()
}

fn read(document: &Value) -> Result<Study, String> {
    spec::read_text(
        Path::new("study.yaml"),
        &document.to_string(),
        None,
        Anchors::default(),
    )
    .map_err(|error| error.to_string())
}

/// The document without the value at a JSON pointer.
fn without(document: &Value, pointer: &str) -> Value {
    let mut document = document.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap();
    assert!(
        parent.as_object_mut().unwrap().remove(field).is_some(),
        "{pointer}"
    );
    document
}

fn plan(document: &Value) -> Plan {
    build(&read(document).unwrap(), None, &mut FileHashes::default()).unwrap()
}

fn last_states(shape: &Shape, language: u32) -> Vec<f32> {
    let mut batch = Batch::new();
    batch.push(&[1, 20, 30, 1], language);
    let encoder = Encoder::new(Model::initialise(shape, 1), &Device::cpu(1));
    values(
        &encoder
            .predict(&batch, Direction::Bidirectional, Tap::Last)
            .unwrap(),
    )
}

#[test]
fn p01_the_language_told_matters_where_there_are_language_embeddings_and_only_there() {
    let with = tiny(0.0);
    let mut without = with.clone();
    without.settings.language_embeddings = false;
    assert!(with.settings.language_embeddings);
    assert_ne!(last_states(&with, 0), last_states(&with, 1));
    assert_eq!(last_states(&without, 0), last_states(&without, 1));
}

#[test]
fn p02_an_inference_pair_has_three_ends_and_positions_that_run_on() {
    let example = NliExample {
        premise: String::new(),
        hypothesis: String::new(),
        label: Label::Neutral,
        premise_id: 0,
        item: 0,
    };
    let (first, second) = (FIRST_WORD, FIRST_WORD + 1);
    let pair = encode_pair(&[first, first], &[second], &example, 2, 10);
    let end = END_OF_SENTENCE;
    assert_eq!(pair.tokens, [end, first, first, end, second, end]);
    let batch = pack([&pair].into_iter());
    assert_eq!(batch.positions, [0, 1, 2, 3, 4, 5]);
    assert_eq!(batch.languages, [2; 6]);
}

#[test]
fn p03_labels_are_numbered_as_in_xlm() {
    let names: Vec<(usize, &str)> = Label::ALL
        .iter()
        .map(|label| (label.index(), label.name()))
        .collect();
    assert_eq!(
        names,
        [(0, "contradiction"), (1, "neutral"), (2, "entailment")]
    );
}

/// P07 and P08, and the other settings about which paper, README and code disagree.
#[test]
fn p07_what_paper_and_readme_disagree_about_has_no_default() {
    let whole = quickstart();
    assert!(read(&whole).is_ok());
    for pointer in [
        "/data/text_pipeline",
        "/tokenizer/sampling_exponent",
        "/pretrain/sampling_exponent",
        "/pretrain/objectives/0/masked_lm/position_sampling",
        "/pretrain/precision",
        "/finetune/precision",
        "/finetune/select_on",
    ] {
        let error = read(&without(&whole, pointer)).unwrap_err();
        let field = pointer.rsplit('/').next().unwrap();
        assert!(
            error.contains("missing") && error.contains(&format!("`{field}`")),
            "{pointer}: {error}"
        );
    }
}

#[test]
fn p09_the_papers_profile_tries_the_learning_rates_that_work() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/xlm_xnli.yaml");
    let study = spec::read(&file, Some("paper")).unwrap();
    for variant in &study.variants {
        let grid = &variant.settings.finetune.as_ref().unwrap().grid;
        assert_eq!(grid.encoder_learning_rate, [1.25e-6, 2.5e-6, 5e-6]);
        assert_eq!(grid.head_learning_rate, [5e-6, 2.5e-5, 1.25e-4]);
        assert_eq!(grid.batch_size, [4, 8]);
    }
}

#[test]
fn p11_pretraining_is_counted_in_updates_and_tokens_and_never_in_epochs() {
    let whole = quickstart();
    for field in ["updates", "tokens_per_batch"] {
        let error = read(&without(&whole, &format!("/pretrain/{field}"))).unwrap_err();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    let mut in_epochs = whole;
    in_epochs["pretrain"]["epochs"] = json!(3);
    let error = read(&in_epochs).unwrap_err();
    assert!(error.contains("unknown field `epochs`"), "{error}");
}

/// Versions of a paper print different figures: every figure says which paper it is of, and where it was read.
#[test]
fn p12_every_figure_says_which_paper_it_is_of_and_where_it_was_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/anchors");
    let anchors = Anchors::load(&folder).unwrap();
    assert!(!anchors.files.is_empty());
    for (file, rows) in &anchors.files {
        for row in rows {
            let place = format!("{file}: {} {} {}", row.row, row.setting, row.language);
            assert!(!row.paper.is_empty() && !row.table.is_empty(), "{place}");
            assert!(!row.verified || !row.source.is_empty(), "{place}");
        }
    }
    let versions = anchors.files["xlmr_xnli"].iter().filter(|row| {
        row.row == "XLM-R Base" && row.setting == "zero-shot" && row.table == "Table 1"
    });
    for row in versions {
        assert!(row.note.contains("version"), "{}", row.language);
    }
}

#[test]
fn p31_no_claim_is_finer_than_figures_are_printed() {
    let claim = Claim {
        says: "x".to_owned(),
        variant: Some("mlm".to_owned()),
        on: Some("xnli/zero_shot/fr".to_owned()),
        anchor: Some("xlm_table1_xnli/XLM (MLM)/zero-shot/fr".to_owned()),
        within: Some(smallest_tolerance(Metric::Accuracy) / 2.0),
        ..Claim::default()
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments/anchors");
    let anchors = Anchors::load(&folder).unwrap();
    let names = xlt::spec::claims::Names {
        variants: vec!["mlm".to_owned()],
        evaluations: vec![("xnli".into(), "zero_shot".into(), vec!["fr".into()])],
        selections: vec!["target_dev".to_owned()],
        anchors: &anchors,
    };
    let problems = claim.validate(&names);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].field, "within");
    let sound = Claim {
        within: Some(smallest_tolerance(Metric::Accuracy)),
        ..claim
    };
    assert_eq!(sound.validate(&names), []);
}

/// XLM's script for XNLI fails where the corpora of pretraining are not there; a random encoder needs none.
#[test]
fn p32_a_stage_waits_for_its_own_inputs_only() {
    let mut random = quickstart();
    random["variants"] = json!({"random": {"pretrain": "none"}});
    random["claims"] = json!([]);
    let stages: BTreeSet<String> = plan(&random)
        .jobs
        .iter()
        .map(|job| job.stage.clone())
        .collect();
    for absent in ["corpus", "parallel", "parallel_corpus", "pretrain"] {
        assert!(!stages.contains(absent), "{stages:?}");
    }
    assert!(stages.contains("finetune") && stages.contains("tokenizer"));
}

/// Summaries have it that translate-train translates into English, and that XLM predicts next sentences.
#[test]
fn p33_translate_train_learns_in_the_target_language() {
    let plan = plan(&quickstart());
    let labels: BTreeMap<&str, &str> = plan
        .jobs
        .iter()
        .map(|job| (job.fingerprint.as_str(), job.label.as_str()))
        .collect();
    let trained_on: BTreeSet<(&str, &str)> = plan
        .jobs
        .iter()
        .filter(|job| job.stage == "finetune")
        .flat_map(|job| &job.inputs)
        .filter_map(|(name, input)| {
            let language = name.strip_prefix("train:")?;
            Some((language, labels[input.as_str()]))
        })
        .collect();
    assert_eq!(
        trained_on,
        BTreeSet::from([("aa", "nli train aa"), ("bb", "nli translated_train bb")])
    );
}

#[test]
fn p33_there_is_no_next_sentence_objective() {
    let schema = spec::schema();
    let objectives = schema["$defs"]["ObjectiveSettings"]["oneOf"]
        .as_array()
        .unwrap();
    let names: BTreeSet<&str> = objectives
        .iter()
        .filter_map(|objective| match objective["const"].as_str() {
            Some(word) => Some(word),
            None => objective["required"][0].as_str(),
        })
        .collect();
    assert_eq!(
        names,
        BTreeSet::from(["masked_lm", "causal_lm", "translation_lm"])
    );
}
