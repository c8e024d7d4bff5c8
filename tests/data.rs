//! Data sources: what is read, what is counted, what is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use xlt::data::files::FileFormat;
use xlt::data::formats::{NliColumns, NliFormat};
use xlt::data::nli::{Label, NliExample, Split, check_aligned, read_examples, write_examples};
use xlt::data::source::{
    NliInput, NliSource, ParallelInput, ParallelSource, TextInput, TextSource,
};
use xlt::data::tables;
use xlt::data::text::TextPipeline;
use xlt::kernels::Device;
use xlt::stages::{Context, Progress, Stop, monolingual, nli, parallel};

struct Silent;

impl Progress for Silent {
    fn begin(&self, _: u64, _: u64, _: &str) {}
    fn advance(&self, _: u64, _: &str) {}
    fn message(&self, _: &str) {}
}

/// A folder with files, and stages that run on them.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs a stage into the folder `output`.
    fn run(
        &self,
        output: &str,
        files: &BTreeMap<String, PathBuf>,
        inputs: &[(&str, &Path)],
        stage: impl Fn(&Context) -> Result<Value>,
    ) -> Result<Value> {
        let inputs = inputs
            .iter()
            .map(|(name, folder)| ((*name).to_owned(), folder.to_path_buf()));
        let inputs: BTreeMap<String, PathBuf> = inputs.collect();
        let checkpoints = self.path(&format!("{output}.checkpoints"));
        for folder in [&self.path(output), &checkpoints] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).unwrap();
        }
        stage(&Context {
            inputs: &inputs,
            files,
            output: &self.path(output),
            checkpoints: &checkpoints,
            device: &Device::cpu(1),
            progress: &Silent,
            stop: &Stop::default(),
            checkpoint_interval: Duration::from_secs(60),
        })
    }

    fn evaluation(&self, pairs: &[(&str, &str)]) -> PathBuf {
        let folder = self.path("evaluation");
        fs::create_dir_all(&folder).unwrap();
        let examples: Vec<NliExample> = (0..)
            .zip(pairs)
            .map(|(item, (premise, hypothesis))| example(premise, hypothesis, item))
            .collect();
        write_examples(&folder.join("examples.jsonl"), &examples).unwrap();
        folder
    }
}

fn example(premise: &str, hypothesis: &str, item: u32) -> NliExample {
    NliExample {
        premise: premise.into(),
        hypothesis: hypothesis.into(),
        label: Label::Neutral,
        premise_id: item,
        item,
    }
}

fn text(files: &str) -> TextSource {
    TextSource {
        languages: None,
        files: Some(files.into()),
        hub: None,
        column: None,
        limit: None,
        licence: None,
        citation: None,
    }
}

fn pairs(files: &str) -> ParallelSource {
    ParallelSource {
        languages: None,
        files: Some(files.into()),
        hub: None,
        columns: None,
        licence: None,
        citation: None,
    }
}

fn inference(files: &str, format: NliFormat) -> NliSource {
    NliSource {
        languages: None,
        files: Some(files.into()),
        hub: None,
        format,
        premise_rows: None,
        licence: None,
        citation: None,
    }
}

fn sound(problems: &[(String, String)]) -> Result<()> {
    match problems.first() {
        Some((field, message)) => anyhow::bail!("{field}: {message}"),
        None => Ok(()),
    }
}

/// A source of one file, in English.
fn english(files: &str) -> TextSource {
    TextSource {
        languages: Some(vec!["en".into()]),
        ..text(files)
    }
}

fn monolingual_settings(input: TextInput, validation: u64) -> monolingual::Settings {
    monolingual::Settings {
        language: "en".into(),
        input,
        text_pipeline: TextPipeline::None,
        limit: None,
        validation_sentences: validation,
        seed: 1,
    }
}

/// Runs `monolingual` on the files of a source.
fn read_text(place: &Place, source: &TextSource, validation: u64) -> Result<Value> {
    sound(&source.problems())?;
    let files = source.files("en", Some(place.folder.path()))?;
    let settings = monolingual_settings(source.input("en")?, validation);
    place.run("output", &files, &[], |context| {
        monolingual::run(&settings, context)
    })
}

fn read_pairs(place: &Place, source: &ParallelSource, english: &str, other: &str) -> Result<Value> {
    sound(&source.problems())?;
    let files = source.files(english, other, Some(place.folder.path()))?;
    let (first, second) = if english < other {
        (english, other)
    } else {
        (other, english)
    };
    let settings = parallel::Settings {
        first: first.into(),
        second: second.into(),
        input: Some(source.input(english, other)?),
        validation: None,
        text_pipeline: TextPipeline::None,
        limit: None,
        validation_pairs: 0,
        used_for: parallel::Use::Training,
        seed: 1,
    };
    place.run("output", &files, &[], |context| {
        parallel::run(&settings, context)
    })
}

fn nli_settings(input: NliInput, language: &str, split: Split) -> nli::Settings {
    nli::Settings {
        split,
        language: language.into(),
        input,
        text_pipeline: TextPipeline::None,
        limit: None,
        seed: 1,
    }
}

fn read_nli(place: &Place, source: &NliSource, language: &str) -> Result<(Vec<NliExample>, Value)> {
    sound(&source.problems())?;
    let files = source.files(language, Some(place.folder.path()))?;
    let settings = nli_settings(source.input(language)?, language, Split::Test);
    let facts = place.run("output", &files, &[], |context| {
        nli::run(&settings, context)
    })?;
    Ok((
        read_examples(&place.path("output/examples.jsonl")).unwrap(),
        facts,
    ))
}

fn message(result: Result<impl Sized>) -> String {
    match result {
        Ok(_) => panic!("it succeeded"),
        Err(error) => format!("{error:#}"),
    }
}

// Text.

/// Expected values: tests/oracles/text_pipeline.py.
#[test]
fn the_xlm_pipeline_equals_pythons_in_every_script() {
    let golden = include_str!("fixtures/data_text_pipeline.tsv");
    let mut scripts = 0;
    for row in golden.lines() {
        let [script, text, expected] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("a row of the fixture has other than three columns: {row}");
        };
        assert_eq!(TextPipeline::Xlm.apply(text), expected, "{script}: {text}");
        scripts += 1;
    }
    assert!(scripts >= 20);
}

// Files.

#[test]
fn compression_is_recognised_by_its_bytes() {
    let place = Place::new();
    let plain = "one\ntwo\n\nthree\nfour\n";
    place.write("plain.txt", plain);
    place.write(
        "pressed.txt.zst",
        zstd::encode_all(plain.as_bytes(), 3).unwrap(),
    );
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(plain.as_bytes()).unwrap();
    place.write("pressed.txt.gz", gzip.finish().unwrap());
    let mut outputs = Vec::new();
    for name in ["plain.txt", "pressed.txt.zst", "pressed.txt.gz"] {
        let facts = read_text(&place, &english(name), 1).unwrap();
        assert_eq!(facts["sentences"], 4, "{name}");
        outputs.push((
            place.read("output/train.txt"),
            place.read("output/valid.txt"),
        ));
    }
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
}

#[test]
fn byte_order_marks_and_carriage_returns_are_undone_and_counted() {
    let place = Place::new();
    place.write("a.txt", "\u{FEFF}one\r\ntwo\r\nthree");
    let facts = read_text(&place, &english("a.txt"), 0).unwrap();
    assert_eq!(place.read("output/train.txt"), "one\ntwo\nthree\n");
    assert_eq!(facts["byte_order_marks"], 1);
    assert_eq!(facts["carriage_returns"], 2);
    assert_eq!(facts["lines"], 3);
}

#[test]
fn bytes_that_are_not_utf8_are_refused_with_file_and_line() {
    let place = Place::new();
    place.write("a.txt", b"one\ntw\xFFo\n");
    let error = message(read_text(&place, &english("a.txt"), 0));
    assert!(
        error.contains("a.txt` line 2 is not UTF-8 (byte 3"),
        "{error}"
    );
    place.write("b.txt", b"\xFF\xFEo\0n\0e\0\n\0");
    assert!(message(read_text(&place, &english("b.txt"), 0)).contains("UTF-16"));
}

#[test]
fn a_cut_compressed_file_is_refused() {
    let place = Place::new();
    let long: String = (0..20_000)
        .map(|number| format!("sentence {number}\n"))
        .collect();
    let whole = zstd::encode_all(long.as_bytes(), 3).unwrap();
    place.write("cut.txt.zst", &whole[..whole.len() / 2]);
    let error = message(read_text(&place, &english("cut.txt.zst"), 0));
    assert!(error.contains("cut or damaged"), "{error}");
}

#[test]
fn a_missing_file_is_named_with_the_way_to_root_it() {
    let place = Place::new();
    let source = text("mono/{language}.txt");
    let error = message(source.files("en", Some(place.folder.path())));
    assert!(
        error.contains("mono/en.txt") && error.contains("XLT_DATA"),
        "{error}"
    );
    assert!(message(source.files("en", None)).contains("--data DIR"));
}

#[test]
fn stars_take_files_in_the_order_of_their_names() {
    let place = Place::new();
    for name in ["en-b.txt", "en-a.txt", "fr-a.txt", "en-c.txt"] {
        place.write(name, format!("{name}\n"));
    }
    read_text(&place, &text("{language}-*.txt"), 0).unwrap();
    assert_eq!(
        place.read("output/train.txt"),
        "en-a.txt\n\nen-b.txt\n\nen-c.txt\n"
    );
}

#[test]
fn columns_are_read_from_every_kind_of_table() {
    use polars::prelude::{Column, DataFrame, ParquetWriter};
    let place = Place::new();
    place.write("a.tsv", "id\ttext\n1\t\"unpaired\n2\ttwo\n");
    place.write("a.csv", "id,text\n1,\"\"\"unpaired\"\n2,two\n");
    place.write(
        "a.jsonl",
        "{\"id\": 1, \"text\": \"\\\"unpaired\"}\n{\"text\": \"two\"}\n",
    );
    let columns = vec![
        Column::new("id".into(), [1i64, 2]),
        Column::new("text".into(), ["\"unpaired", "two"]),
    ];
    let mut frame = DataFrame::new(2, columns).unwrap();
    let file = fs::File::create(place.path("a.parquet")).unwrap();
    ParquetWriter::new(file).finish(&mut frame).unwrap();
    for name in ["a.tsv", "a.csv", "a.jsonl", "a.parquet"] {
        let mut source = english(name);
        assert_eq!(source.problems()[0].0, "column", "{name}");
        source.column = Some("text".into());
        read_text(&place, &source, 0).unwrap();
        assert_eq!(
            place.read("output/train.txt"),
            "\"unpaired\ntwo\n",
            "{name}"
        );
        source.column = Some("body".into());
        let error = message(read_text(&place, &source, 0));
        assert!(
            error.contains("`body`") && error.contains("text"),
            "{error}"
        );
    }
    let mut numbers = Vec::new();
    tables::for_each_row(
        &place.path("a.parquet"),
        FileFormat::Parquet,
        &["id"],
        &mut |_, row| {
            numbers.push(row[0].to_owned());
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(numbers, ["1", "2"]);
}

#[test]
fn a_row_with_another_number_of_columns_is_refused_with_its_line() {
    let place = Place::new();
    place.write("a.tsv", "text\tid\none\t1\ntwo\n");
    let mut source = english("a.tsv");
    source.column = Some("text".into());
    let error = message(read_text(&place, &source, 0));
    assert!(error.contains("line 3 has 1 columns"), "{error}");
}

#[test]
fn a_table_without_header_is_read_by_position() {
    let place = Place::new();
    place.write("a.tsv", "one\t1\ntwo\t2\n");
    let mut source = english("a.tsv");
    source.column = Some("1".into());
    read_text(&place, &source, 0).unwrap();
    assert_eq!(place.read("output/train.txt"), "one\ntwo\n");
    source.column = Some("3".into());
    assert!(message(read_text(&place, &source, 0)).contains("no column 3"));
}

// Settings.

#[test]
fn problems_of_a_source_name_their_field() {
    use serde_json::json;
    let hub =
        json!({"dataset": "owner/name", "revision": "0".repeat(40), "files": ["{language}.txt"]});
    let fields = |source: Value| -> Vec<String> {
        let source: TextSource = serde_json::from_value(source).unwrap();
        source
            .problems()
            .into_iter()
            .map(|(field, _)| field)
            .collect()
    };
    assert!(fields(json!({"hub": hub})).is_empty());
    assert_eq!(
        fields(json!({"files": "{language}.txt", "hub": hub})),
        ["hub"]
    );
    assert_eq!(fields(json!({})), ["files"]);
    assert_eq!(fields(json!({"files": "a.txt"})), ["files"]);
    assert!(fields(json!({"files": "a.txt", "languages": ["en"]})).is_empty());
    assert_eq!(fields(json!({"files": "{language}.zip"})), ["files"]);
    assert_eq!(
        fields(json!({"files": "{language}.txt", "column": "text"})),
        ["column"]
    );
    assert_eq!(
        fields(json!({"files": "{language}.txt", "languages": ["en", "jp"]})),
        ["languages.1"]
    );
    for (field, value, expected) in [
        ("revision", json!("main"), "hub.revision"),
        ("dataset", json!("owner/../name"), "hub.dataset"),
        ("model", json!("owner/name"), "hub"),
        (
            "files",
            json!(["{language}.txt", "*{language}.txt"]),
            "hub.files.1",
        ),
        ("files", json!(["{language}{lang}.txt"]), "hub.files.0"),
    ] {
        let mut wrong = hub.clone();
        wrong[field] = value;
        assert_eq!(fields(json!({"hub": wrong})), [expected], "{field}");
    }
}

#[test]
fn sources_are_written_in_yaml_as_documented() {
    let translated: NliSource = serde_yaml::from_str(
        "{languages: [sw], files: \"t/{language}.tsv\", format: {columns: {premise: p, hypothesis: h, label: l}}, premise_rows: 3}",
    )
    .unwrap();
    assert!(translated.problems().is_empty());
    let official: NliSource =
        serde_yaml::from_str("{files: xnli/test.tsv.zst, format: xnli}").unwrap();
    assert_eq!(official.format, NliFormat::Xnli);
    assert!(official.problems().is_empty());
    let table: ParallelSource = serde_yaml::from_str(
        "{files: \"newstest.en-{language}.tsv\", columns: {source: \"1\", target: \"2\"}, licence: none}",
    )
    .unwrap();
    assert!(table.problems().is_empty());
    let unknown: Result<TextSource, _> = serde_yaml::from_str("{file: a.txt}");
    assert!(unknown.is_err());
}

#[test]
fn a_source_has_no_files_for_a_language_it_does_not_list() {
    let place = Place::new();
    place.write("a.txt", "one\n");
    let error = message(english("a.txt").files("ko", Some(place.folder.path())));
    assert!(error.contains("does not list ko"), "{error}");
    let mut source = pairs("en-{language}.{side}");
    source.languages = Some(vec!["fr".into()]);
    assert!(!source.covers("ko"));
    assert!(message(source.files("en", "ko", None)).contains("does not list ko"));
}

#[test]
fn the_place_of_files_is_not_part_of_what_a_job_reads() {
    let here = serde_json::to_string(&text("a/{language}.txt.zst").input("en").unwrap()).unwrap();
    let there = serde_json::to_string(&text("b/{language}.txt").input("en").unwrap()).unwrap();
    assert_eq!(here, there);
    assert!(!here.contains("txt"), "{here}");
}

// Monolingual text.

fn numbered(count: usize) -> String {
    (0..count)
        .map(|number| format!("sentence number {number}\n"))
        .collect()
}

#[test]
fn validation_takes_whole_runs_of_lines_and_the_rest_trains() {
    let place = Place::new();
    place.write("a.txt", numbered(1000));
    let facts = read_text(&place, &english("a.txt"), 100).unwrap();
    let (train, valid) = (
        place.read("output/train.txt"),
        place.read("output/valid.txt"),
    );
    let sentences = |text: &str| {
        text.lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (sentences(&train).len(), sentences(&valid).len()),
        (900, 100)
    );
    let mut all = sentences(&train);
    all.extend(sentences(&valid));
    all.sort();
    let mut expected = sentences(&numbered(1000));
    expected.sort();
    assert_eq!(all, expected);
    assert!(
        valid.split("\n\n").count() <= 3,
        "validation is torn: {valid}"
    );
    assert_eq!(facts["validation_sentences"], 100);
    assert_eq!(facts["sentences"], 1000);
}

#[test]
fn documents_keep_their_boundaries() {
    let place = Place::new();
    place.write("a.txt", "\n\na1\na2\n\n\n\nb1\n\nc1\nc2\nc3\n\n");
    let facts = read_text(&place, &english("a.txt"), 0).unwrap();
    assert_eq!(
        place.read("output/train.txt"),
        "a1\na2\n\nb1\n\nc1\nc2\nc3\n"
    );
    assert_eq!(place.read("output/valid.txt"), "");
    assert_eq!(facts["documents"], 3);
}

#[test]
fn a_limit_leaves_validation_as_it_is() {
    let place = Place::new();
    let path = place.write("a.txt", numbered(1000));
    let files = BTreeMap::from([("file:0".to_owned(), path)]);
    let mut settings = monolingual_settings(english("a.txt").input("en").unwrap(), 100);
    place
        .run("all", &files, &[], |context| {
            monolingual::run(&settings, context)
        })
        .unwrap();
    settings.limit = Some(50);
    let facts = place
        .run("few", &files, &[], |context| {
            monolingual::run(&settings, context)
        })
        .unwrap();
    assert_eq!(place.read("all/valid.txt"), place.read("few/valid.txt"));
    assert_eq!(facts["train_sentences"], 50);
    assert_eq!(facts["unused_sentences"], 850);
    settings.seed = 2;
    place
        .run("other", &files, &[], |context| {
            monolingual::run(&settings, context)
        })
        .unwrap();
    assert_ne!(place.read("all/valid.txt"), place.read("other/valid.txt"));
}

#[test]
fn evaluation_sentences_are_removed_from_text_and_counted() {
    let place = Place::new();
    let path = place.write(
        "a.txt",
        "one\ntest  premise\ntwo\ntest hypothesis\nthree\none\n",
    );
    let files = BTreeMap::from([("file:0".to_owned(), path)]);
    let evaluation = place.evaluation(&[("test premise", "test hypothesis")]);
    let settings = monolingual_settings(english("a.txt").input("en").unwrap(), 0);
    let inputs = [("exclude:test", evaluation.as_path())];
    let facts = place
        .run("output", &files, &inputs, |context| {
            monolingual::run(&settings, context)
        })
        .unwrap();
    assert_eq!(place.read("output/train.txt"), "one\ntwo\nthree\none\n");
    assert_eq!(facts["evaluation_sentences_removed"], 2);
    assert_eq!(facts["duplicate_sentences"], 1);
}

#[test]
fn the_pipeline_runs_before_sentences_are_compared() {
    let place = Place::new();
    let path = place.write("a.txt", "Crème\nTEST\n\u{301}\n");
    let files = BTreeMap::from([("file:0".to_owned(), path)]);
    let evaluation = place.evaluation(&[("test", "x")]);
    let mut settings = monolingual_settings(english("a.txt").input("en").unwrap(), 0);
    settings.text_pipeline = TextPipeline::Xlm;
    let inputs = [("exclude:test", evaluation.as_path())];
    let facts = place
        .run("output", &files, &inputs, |context| {
            monolingual::run(&settings, context)
        })
        .unwrap();
    assert_eq!(place.read("output/train.txt"), "creme\n");
    assert_eq!(facts["sentences_emptied_by_the_pipeline"], 1);
    assert_eq!(facts["evaluation_sentences_removed"], 1);
}

#[test]
fn an_empty_language_and_one_too_small_to_split_are_refused() {
    let place = Place::new();
    place.write("a.txt", "\n \n");
    assert!(message(read_text(&place, &english("a.txt"), 0)).contains("en is empty"));
    place.write("b.txt", numbered(10));
    assert!(
        message(read_text(&place, &english("b.txt"), 6)).contains("data.monolingual_validation")
    );
}

#[test]
fn facts_name_no_place_of_this_machine() {
    let place = Place::new();
    place.write("a.txt", numbered(3));
    let facts = read_text(&place, &english("a.txt"), 0).unwrap();
    assert!(
        !facts
            .to_string()
            .contains(place.folder.path().to_str().unwrap())
    );
    assert_eq!(facts["sources"][0]["bytes"], 54);
    assert_eq!(facts["sources"][0]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn pairs_with_a_held_out_sentence_on_either_side_are_removed() {
    let place = Place::new();
    place.write("family/parallel/aa-en.aa", "x\nheld out\ny\nz\n");
    place.write("family/parallel/aa-en.en", "a\nb\nheld  out\nc\n");
    place.write("text/valid.txt", "other\n\nheld out\n");
    place.write("text/train.txt", "z\n");
    let (family, text) = (place.path("family"), place.path("text"));
    let inputs = [
        ("synthesize", family.as_path()),
        ("exclude:held_out:aa", text.as_path()),
    ];
    let settings = parallel::Settings {
        first: "aa".into(),
        second: "en".into(),
        input: Some(ParallelInput::Synthetic),
        validation: None,
        text_pipeline: TextPipeline::None,
        limit: None,
        validation_pairs: 0,
        used_for: parallel::Use::Training,
        seed: 0,
    };
    let facts = place
        .run("pairs", &BTreeMap::new(), &inputs, |context| {
            parallel::run(&settings, context)
        })
        .unwrap();
    assert_eq!(place.read("pairs/train.aa"), "x\nz\n");
    assert_eq!(facts["evaluation_pairs_removed"], 2);
}

#[test]
fn pairs_of_a_dev_set_all_validate_and_no_training_pair_has_a_sentence_of_theirs() {
    let place = Place::new();
    for (name, text) in [
        ("a.en", "one\ntwo\nthree\n"),
        ("a.ko", "hana\ndul\nset\n"),
        ("dev.en", "two\nfour\n\n"),
        ("dev.ko", "x\nset\ny\n"),
    ] {
        place.write(name, text);
    }
    let root = Some(place.folder.path());
    let dev = pairs("dev.{side}");
    let of_dev = dev.files("en", "ko", root).unwrap().into_iter();
    let of_dev = of_dev.map(|(name, path)| (format!("{}{name}", parallel::VALIDATION_FILES), path));
    let of_dev: BTreeMap<String, PathBuf> = of_dev.collect();
    let mut settings = parallel::Settings {
        first: "en".into(),
        second: "ko".into(),
        input: Some(pairs("a.{side}").input("en", "ko").unwrap()),
        validation: Some(dev.input("en", "ko").unwrap()),
        text_pipeline: TextPipeline::None,
        limit: None,
        validation_pairs: 0,
        used_for: parallel::Use::Training,
        seed: 1,
    };
    let mut files = pairs("a.{side}").files("en", "ko", root).unwrap();
    files.extend(of_dev.clone());
    let facts = place.run("both", &files, &[], |context| {
        parallel::run(&settings, context)
    });
    assert_eq!(place.read("both/train.en"), "one\n");
    assert_eq!(place.read("both/valid.en"), "two\nfour\n");
    assert_eq!(place.read("both/valid.ko"), "x\nset\n");
    let facts = facts.unwrap();
    assert_eq!(facts["train_pairs_with_a_validation_sentence_left_out"], 2);
    assert_eq!(facts["validation_pairs"], 2);
    assert_eq!(facts["sources"].as_array().unwrap().len(), 2);
    assert_eq!(facts["validation_sources"].as_array().unwrap().len(), 2);

    settings.input = None;
    place
        .run("dev", &of_dev, &[], |context| {
            parallel::run(&settings, context)
        })
        .unwrap();
    assert_eq!(place.read("dev/train.en"), "");
    assert_eq!(place.read("dev/valid.en"), "two\nfour\n");
}

#[test]
fn pairs_that_leave_nothing_are_told_with_their_files_and_why() {
    let place = Place::new();
    place.write("a.en", "one\n\nsame\n");
    place.write("a.ko", "\nx\nset\n");
    let evaluation = place.evaluation(&[("same", "y")]);
    let source = pairs("a.{side}");
    let files = source.files("en", "ko", Some(place.folder.path())).unwrap();
    let settings = parallel::Settings {
        first: "en".into(),
        second: "ko".into(),
        input: Some(source.input("en", "ko").unwrap()),
        validation: None,
        text_pipeline: TextPipeline::None,
        limit: None,
        validation_pairs: 0,
        used_for: parallel::Use::Training,
        seed: 1,
    };
    let inputs = [("exclude:test", evaluation.as_path())];
    let told = message(place.run("output", &files, &inputs, |context| {
        parallel::run(&settings, context)
    }));
    let counts = "2 have an empty side and 1 have a sentence of an evaluation set";
    assert!(told.contains("a.en") && told.contains(counts), "{told}");
}

#[test]
fn synthetic_text_is_read_from_its_artifact() {
    let place = Place::new();
    place.write("family/monolingual/en.txt", "a b\nc d\n\ne f\n");
    place.write("family/parallel/aa-en.aa", "x\ny\n");
    place.write("family/parallel/aa-en.en", "a\nb\n");
    place.write(
        "family/nli/test.en.tsv",
        "premise\thypothesis\tlabel\tpremise_id\np\th\tentailment\t7\nq\th\tneutral\t7\nq\ti\tcontradiction\t9\n",
    );
    let family = place.path("family");
    let inputs = [("synthesize", family.as_path())];
    let none = BTreeMap::new();
    let settings = monolingual_settings(TextInput::Synthetic, 0);
    place
        .run("mono", &none, &inputs, |context| {
            monolingual::run(&settings, context)
        })
        .unwrap();
    assert_eq!(place.read("mono/train.txt"), "a b\nc d\n\ne f\n");
    let settings = parallel::Settings {
        first: "aa".into(),
        second: "en".into(),
        input: Some(ParallelInput::Synthetic),
        validation: None,
        text_pipeline: TextPipeline::None,
        limit: None,
        validation_pairs: 0,
        used_for: parallel::Use::Training,
        seed: 0,
    };
    place
        .run("pairs", &none, &inputs, |context| {
            parallel::run(&settings, context)
        })
        .unwrap();
    assert_eq!(place.read("pairs/train.aa"), "x\ny\n");
    let settings = nli_settings(NliInput::Synthetic, "en", Split::Test);
    place
        .run("nli", &none, &inputs, |context| {
            nli::run(&settings, context)
        })
        .unwrap();
    let examples = read_examples(&place.path("nli/examples.jsonl")).unwrap();
    let ids: Vec<u32> = examples.iter().map(|example| example.premise_id).collect();
    assert_eq!(ids, [0, 0, 1]);
}

// Parallel text.

#[test]
fn both_ways_of_naming_a_pair_are_found() {
    let place = Place::new();
    place.write("para/en-ar.en", "one\ntwo\n");
    place.write("para/en-ar.ar", "waahid\nithnan\n");
    for pattern in [
        "para/en-{language}.{side}",
        "para/{source}-{target}.{side}",
        "para/{pair}.{side}",
    ] {
        let facts = read_pairs(&place, &pairs(pattern), "en", "ar").unwrap();
        assert_eq!(facts["pairs"], 2, "{pattern}");
        assert_eq!(place.read("output/train.ar"), "waahid\nithnan\n");
        assert_eq!(place.read("output/train.en"), "one\ntwo\n");
    }
    place.write("para/ar-en.en", "other\n");
    place.write("para/ar-en.ar", "other\n");
    assert!(message(read_pairs(&place, &pairs("para/{pair}.{side}"), "en", "ar")).contains("fits"));
}

#[test]
fn unequal_sides_are_refused_with_both_counts() {
    let place = Place::new();
    place.write("en-ko.en", "one\ntwo\nthree\n");
    place.write("en-ko.ko", "hana\n");
    let error = message(read_pairs(
        &place,
        &pairs("en-{language}.{side}"),
        "en",
        "ko",
    ));
    assert!(
        error.contains("has 3 lines") && error.contains("has 1"),
        "{error}"
    );
}

#[test]
fn pairs_with_an_empty_side_are_dropped_and_counted() {
    let place = Place::new();
    place.write("en-ko.en", "one\n\nthree\nthree\n");
    place.write("en-ko.ko", "hana\ndul\nset\nset\n");
    let facts = read_pairs(&place, &pairs("en-{language}.{side}"), "en", "ko").unwrap();
    assert_eq!(place.read("output/train.ko"), "hana\nset\nset\n");
    assert_eq!(facts["pairs_with_an_empty_side_dropped"], 1);
    assert_eq!(facts["duplicate_pairs"], 1);
}

#[test]
fn a_table_of_pairs_is_read_by_its_columns() {
    let place = Place::new();
    place.write("newstest.en-de.tsv", "one \"\teins\ntwo\tzwei\n");
    let mut source = pairs("newstest.en-{language}.tsv");
    assert_eq!(source.problems()[0].0, "files");
    source.columns =
        serde_json::from_value(serde_json::json!({"source": "1", "target": "2"})).unwrap();
    read_pairs(&place, &source, "en", "de").unwrap();
    assert_eq!(place.read("output/train.de"), "eins\nzwei\n");
    assert_eq!(place.read("output/train.en"), "one \"\ntwo\n");
}

#[test]
fn pairs_stay_aligned_when_they_are_split() {
    let place = Place::new();
    place.write(
        "en-ko.en",
        (0..500)
            .map(|number| format!("e{number}\n"))
            .collect::<String>(),
    );
    place.write(
        "en-ko.ko",
        (0..500)
            .map(|number| format!("k{number}\n"))
            .collect::<String>(),
    );
    let source = pairs("en-{language}.{side}");
    let files = source.files("en", "ko", Some(place.folder.path())).unwrap();
    let settings = parallel::Settings {
        first: "en".into(),
        second: "ko".into(),
        input: Some(source.input("en", "ko").unwrap()),
        validation: None,
        text_pipeline: TextPipeline::None,
        limit: Some(300),
        validation_pairs: 50,
        used_for: parallel::Use::Training,
        seed: 3,
    };
    place
        .run("output", &files, &[], |context| {
            parallel::run(&settings, context)
        })
        .unwrap();
    for (part, count) in [("train", 300), ("valid", 50)] {
        let english = place.read(&format!("output/{part}.en"));
        let korean = place.read(&format!("output/{part}.ko"));
        assert_eq!(english.lines().count(), count);
        assert_eq!(english.replace('e', "k"), korean);
    }
}

// Inference.

const XNLI_HEADER: &str = "language\tgold_label\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\tsentence1\tsentence2\tpromptID\tpairID\tgenre\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tsentence1_tokenized\tsentence2_tokenized\tmatch\n";

fn xnli_row(language: &str, label: &str, premise: &str, hypothesis: &str, prompt: &str) -> String {
    format!(
        "{language}\t{label}\t\t\t\t\t{premise}\t{hypothesis}\t{prompt}\t0\tface\t\t\t\t\t\t\t\t\n"
    )
}

#[test]
fn official_xnli_is_read_by_language_with_its_clusters() {
    let place = Place::new();
    let mut file = XNLI_HEADER.to_owned();
    for language in ["ar", "sw"] {
        for (label, prompt) in [
            ("neutral", "31"),
            ("contradiction", "31"),
            ("entailment", "31"),
            ("entailment", "7"),
        ] {
            file += &xnli_row(
                language,
                label,
                &format!("\"{language} {prompt}"),
                "h",
                prompt,
            );
        }
    }
    place.write("xnli.test.tsv", file);
    let source = inference("xnli.test.tsv", NliFormat::Xnli);
    let (swahili, _) = read_nli(&place, &source, "sw").unwrap();
    let (arabic, _) = read_nli(&place, &source, "ar").unwrap();
    assert_eq!(swahili.len(), 4);
    assert_eq!(swahili[3].premise, "\"sw 7");
    let ids: Vec<(u32, u32)> = swahili
        .iter()
        .map(|example| (example.premise_id, example.item))
        .collect();
    assert_eq!(ids, [(0, 0), (0, 1), (0, 2), (1, 3)]);
    check_aligned(&[("ar", &arabic), ("sw", &swahili)]).unwrap();
    let error = message(read_nli(&place, &source, "ko"));
    assert!(
        error.contains("`ko`") && error.contains("ar, sw"),
        "{error}"
    );
}

#[test]
fn xnli_mt_says_contradictory() {
    let place = Place::new();
    place.write(
        "multinli.train.sw.tsv",
        "premise\thypo\tlabel\np\th\tcontradictory\np\ti\tneutral\nq\tj\tentailment\n",
    );
    let source = inference("multinli.train.{language}.tsv", NliFormat::XnliMt);
    let (examples, facts) = read_nli(&place, &source, "sw").unwrap();
    assert_eq!(examples[0].label, Label::Contradiction);
    assert_eq!(facts["labels"]["contradiction"], 1);
    assert_eq!(facts["premises"], 2);
}

#[test]
fn rows_without_a_label_are_skipped_and_leave_a_gap() {
    let place = Place::new();
    place.write(
        "xnli.dev.ko.tsv",
        "sentence1\tsentence2\tgold_label\na\th\tneutral\na\ti\t-\na\tj\tentailment\nb\tk\tneutral\nb\tl\tneutral\nb2\tm\tneutral\n",
    );
    let mut source = inference("xnli.dev.{language}.tsv", NliFormat::Kornli);
    source.premise_rows = Some(3);
    let (examples, facts) = read_nli(&place, &source, "ko").unwrap();
    let ids: Vec<(u32, u32)> = examples
        .iter()
        .map(|example| (example.premise_id, example.item))
        .collect();
    assert_eq!(ids, [(0, 0), (0, 2), (1, 3), (1, 4), (1, 5)]);
    assert_eq!(facts["unlabelled_rows_skipped"], 1);
    source.premise_rows = Some(4);
    assert!(message(read_nli(&place, &source, "ko")).contains("premise_rows"));
}

#[test]
fn unknown_labels_are_refused_with_file_and_line() {
    let place = Place::new();
    place.write(
        "a.ko.tsv",
        "sentence1\tsentence2\tgold_label\na\th\tneutral\na\ti\tyes\n",
    );
    let error = message(read_nli(
        &place,
        &inference("a.{language}.tsv", NliFormat::Kornli),
        "ko",
    ));
    assert!(
        error.contains("a.ko.tsv` line 3") && error.contains("`yes`"),
        "{error}"
    );
}

#[test]
fn placeholder_labels_are_refused() {
    let place = Place::new();
    place.write(
        "a.ko.tsv",
        "sentence1\tsentence2\tgold_label\na\th\tneutral\na\ti\tneutral\nb\tj\tneutral\n",
    );
    let error = message(read_nli(
        &place,
        &inference("a.{language}.tsv", NliFormat::Kornli),
        "ko",
    ));
    assert!(error.contains("placeholders"), "{error}");
}

#[test]
fn numbered_labels_need_their_names() {
    let place = Place::new();
    place.write("a.jsonl", "{\"p\":\"x\",\"h\":\"y\",\"l\":0}\n{\"p\":\"x\",\"h\":\"z\",\"l\":2}\n{\"p\":\"x\",\"h\":\"w\",\"l\":-1}\n");
    let mut columns = NliColumns {
        premise: "p".into(),
        hypothesis: "h".into(),
        label: "l".into(),
        language: None,
        premise_id: None,
        label_names: None,
    };
    let mut source = inference("a.jsonl", NliFormat::Columns(columns.clone()));
    source.languages = Some(vec!["en".into()]);
    assert!(message(read_nli(&place, &source, "en")).contains("`0` is no label"));
    columns.label_names = Some(vec![
        Label::Entailment,
        Label::Neutral,
        Label::Contradiction,
    ]);
    source.format = NliFormat::Columns(columns.clone());
    let (examples, facts) = read_nli(&place, &source, "en").unwrap();
    assert_eq!(examples[0].label, Label::Entailment);
    assert_eq!(examples[1].label, Label::Contradiction);
    assert_eq!(facts["unlabelled_rows_skipped"], 1);
    columns.label_names = Some(vec![Label::Entailment; 3]);
    source.format = NliFormat::Columns(columns);
    assert_eq!(source.problems()[0].0, "format.columns.label_names");
}

#[test]
fn one_file_cannot_stand_for_every_language() {
    let source = inference("train.en.tsv", NliFormat::XnliMt);
    assert!(source.problems()[0].1.contains("languages"));
}

#[test]
fn training_pairs_that_occur_in_evaluation_are_removed() {
    let place = Place::new();
    let path = place.write(
        "train.tsv",
        "premise\thypo\tlabel\np\th\tneutral\nseen\tpair\tneutral\nseen\tother\tentailment\n",
    );
    let evaluation = place.evaluation(&[("seen", "pair")]);
    let source = inference("train.tsv", NliFormat::XnliMt);
    let settings = nli_settings(source.input("en").unwrap(), "en", Split::Train);
    let files = BTreeMap::from([("file:0".to_owned(), path)]);
    let inputs = [("exclude:test", evaluation.as_path())];
    let facts = place
        .run("output", &files, &inputs, |context| {
            nli::run(&settings, context)
        })
        .unwrap();
    assert_eq!(facts["pairs_also_in_evaluation_removed"], 1);
    assert_eq!(facts["sentences_also_in_evaluation"], 1);
    assert_eq!(facts["examples"], 2);
}

#[test]
fn a_limit_draws_the_same_whole_premises_in_every_language() {
    let place = Place::new();
    for language in ["en", "ko"] {
        let mut file = "sentence1\tsentence2\tgold_label\n".to_owned();
        for row in 0..90 {
            let label = Label::ALL[row % 3].name();
            file += &format!("{language}{}\th{row}\t{label}\n", row / 3);
        }
        place.write(&format!("a.{language}.tsv"), file);
    }
    let mut source = inference("a.{language}.tsv", NliFormat::Kornli);
    source.premise_rows = Some(3);
    let chosen = ["en", "ko"].map(|language| {
        let files = source.files(language, Some(place.folder.path())).unwrap();
        let mut settings = nli_settings(source.input(language).unwrap(), language, Split::Test);
        settings.limit = Some(31);
        place
            .run(language, &files, &[], |context| {
                nli::run(&settings, context)
            })
            .unwrap();
        read_examples(&place.path(&format!("{language}/examples.jsonl"))).unwrap()
    });
    assert_eq!(chosen[0].len(), 30);
    check_aligned(&[("en", &chosen[0]), ("ko", &chosen[1])]).unwrap();
}

#[test]
fn shifted_languages_are_not_aligned() {
    let one: Vec<NliExample> = (0..4).map(|item| example("p", "h", item)).collect();
    let mut other = one.clone();
    other[2].label = Label::Entailment;
    let error = message(check_aligned(&[("en", &one), ("ko", &other)]));
    assert!(error.contains("item 2") && error.contains("ko"), "{error}");
    assert!(check_aligned(&[("en", &one), ("ko", &one[1..])]).is_err());
}

// Real text, where XLT_DATA names its folder.

#[test]
fn xnli_and_its_translations_are_whole_balanced_and_aligned() {
    let Some(data) = std::env::var_os("XLT_DATA").map(PathBuf::from) else {
        return;
    };
    let place = Place::new();
    let read = |source: &NliSource, language: &str| {
        sound(&source.problems()).unwrap();
        let files = source.files(language, Some(&data)).unwrap();
        let settings = nli_settings(source.input(language).unwrap(), language, Split::Test);
        place
            .run("output", &files, &[], |context| {
                nli::run(&settings, context)
            })
            .unwrap();
        read_examples(&place.path("output/examples.jsonl")).unwrap()
    };
    let languages = "ar bg de el en es fr hi ru sw th tr ur vi zh";
    for (split, rows) in [("dev", 2490), ("test", 5010)] {
        let official = inference(&format!("xnli/{split}.tsv.zst"), NliFormat::Xnli);
        let mut korean = inference(
            &format!("xnli/{{language}}/xnli.{split}.{{language}}.tsv.zst"),
            NliFormat::Kornli,
        );
        korean.premise_rows = Some(3);
        let mut sets: Vec<(&str, Vec<NliExample>)> = languages
            .split(' ')
            .map(|language| (language, read(&official, language)))
            .collect();
        sets.push(("ko", read(&korean, "ko")));
        if split == "test" {
            let columns = NliColumns {
                premise: "sentence1_en".into(),
                hypothesis: "sentence2_en".into(),
                label: "label".into(),
                language: None,
                premise_id: None,
                label_names: None,
            };
            let mut translated = inference(
                "xnli/translate-test/{language}.trans.test.tsv.zst",
                NliFormat::Columns(columns),
            );
            translated.premise_rows = Some(3);
            for language in ["sw", "ur"] {
                sets.push((language, read(&translated, language)));
            }
        }
        for (language, examples) in &sets {
            assert_eq!(examples.len(), rows, "{split} {language}");
            for label in Label::ALL {
                let count = examples
                    .iter()
                    .filter(|example| example.label == label)
                    .count();
                assert_eq!(count, rows / 3, "{split} {language} {}", label.name());
            }
            let premises = examples.iter().map(|example| example.premise_id).max();
            assert_eq!(premises, Some(rows as u32 / 3 - 1), "{split} {language}");
        }
        let sets: Vec<(&str, &[NliExample])> = sets
            .iter()
            .map(|(language, examples)| (*language, &examples[..]))
            .collect();
        check_aligned(&sets).unwrap();
    }
}

#[test]
fn every_pair_of_real_parallel_text_is_found_from_english() {
    let Some(data) = std::env::var_os("XLT_DATA").map(PathBuf::from) else {
        return;
    };
    let place = Place::new();
    let source = pairs("para/en-{language}.{side}.zst");
    for (language, expected) in [("ko", 51_659), ("ne", 2_388), ("ar", 0)] {
        let files = source.files("en", language, Some(&data));
        if expected == 0 {
            assert!(files.is_err());
            continue;
        }
        let settings = parallel::Settings {
            first: "en".into(),
            second: language.into(),
            input: Some(source.input("en", language).unwrap()),
            validation: None,
            text_pipeline: TextPipeline::Xlm,
            limit: None,
            validation_pairs: 100,
            used_for: parallel::Use::Training,
            seed: 0,
        };
        let facts = place
            .run("output", &files.unwrap(), &[], |context| {
                parallel::run(&settings, context)
            })
            .unwrap();
        let dropped = facts["pairs_with_an_empty_side_dropped"].as_u64().unwrap();
        assert_eq!(
            facts["pairs"].as_u64().unwrap() + dropped,
            expected,
            "{language}: {facts}"
        );
    }
}
