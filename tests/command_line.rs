//! The program as its users meet it: exit codes, JSON, what a second run reuses, what a stale report is told.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use xlt::report::results::Results;

/// A study of seconds: one layer of 16, two generated languages, nothing to be learnt.
pub const TINY: &str = "\
study: tiny
languages: {source: aa, targets: [bb]}
data:
  text_pipeline: none
  synthetic:
    monolingual_words: 3000
    parallel: {train: 60, dev: 10, test: 10}
    nli: {train: 300, dev: 60, test: 120}
    annotated: {train: 10, dev: 5, test: 5}
  monolingual_validation: 20
tokenizer: {bpe: {vocabulary: 200}, sharing: shared, sampling_exponent: 0.5}
model:
  layers: 1
  hidden: 16
  heads: 2
  feed_forward: 32
  positions: 128
  dropout: 0.1
  attention_dropout: 0.1
  language_embeddings: true
pretrain:
  objectives: [masked_lm: {rate: 0.3, position_sampling: uniform}]
  sampling_exponent: 0.7
  stream_length: 32
  updates: 20
  tokens_per_batch: 256
  precision: f32
  optimizer: {learning_rate: 5.0e-3, clip: 1.0, schedule: {linear: {warm_up_fraction: 0.1}}}
finetune:
  task: xnli
  regimes: [zero_shot]
  pooling: max
  maximum_length: 40
  examples_per_epoch: 100
  epochs: 2
  grid: {encoder_learning_rate: [2.0e-3], head_learning_rate: [2.0e-3], batch_size: [16]}
  select_on: [source_dev]
  precision: f32
seeds: {data: 0, pretrain: [1], finetune: [1]}
claims:
  - {says: masks help, higher: mlm, than: random, on: xnli/zero_shot/bb}
tables:
  - {name: main, rows: variants, columns: languages, regime: zero_shot}
variants:
  random: {pretrain: none}
  mlm: {}
";

/// A folder with `tiny.yaml`, where `.xlt` and `results` come to lie.
pub struct Place(TempDir);

impl Place {
    pub fn new(study: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write(study);
        place
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, study: &str) {
        fs::write(self.path().join("tiny.yaml"), study).unwrap();
    }

    /// The program in this folder, knowing nothing of the environment's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xlt"));
        command.current_dir(self.path()).args(arguments);
        for name in ["XLT_STORE", "XLT_DATA", "RAYON_NUM_THREADS"] {
            command.env_remove(name);
        }
        command.env("RAYON_NUM_THREADS", "2");
        command
    }

    pub fn xlt(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    pub fn results(&self) -> PathBuf {
        self.path().join("results/tiny/default")
    }

    /// What decides the report: `scores.csv` as it stands, and the predictions.
    pub fn scores(&self) -> (String, Vec<xlt::report::scores::CellPredictions>) {
        let text = fs::read_to_string(self.results().join("scores.csv")).unwrap();
        (text, Results::read(&self.results()).unwrap().predictions)
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().expect("an exit code, not a signal"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// All files below a folder and their bytes.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn replaced(from: &str, to: &str) -> String {
    assert!(TINY.contains(from), "{from}");
    TINY.replacen(from, to, 1)
}

#[test]
fn a_second_run_reuses_every_stage_and_changes_no_file() {
    let place = Place::new(TINY);
    let first = place.xlt(&["run", "tiny.yaml", "--json"]).ends(0).json();
    assert_eq!(first["jobs_reused"], 0);
    assert_eq!(first["claims"][0]["says"], "masks help");
    for name in [
        "manifest.json",
        "scores.csv",
        "scores.parquet",
        "curves.csv",
        "predictions.parquet",
        "claims.md",
        "report.html",
        "tables/main.md",
        "tables/main.tex",
        "tables/main.csv",
        "plots/accuracy.svg",
        "plots/accuracy.png",
    ] {
        assert!(place.results().join(name).is_file(), "{name}");
    }
    assert!(
        !files(&place.path().join("notebooks-export")).is_empty(),
        "no notebook"
    );
    let before = files(place.path());
    let second = place.xlt(&["run", "tiny.yaml", "--json"]).ends(0).json();
    assert_eq!(second["jobs_finished"], 0);
    assert_eq!(second["jobs_failed"], Value::Array(Vec::new()));
    assert_eq!(second["claims"], first["claims"]);
    let after = files(place.path());
    let of_results = |files: &BTreeMap<PathBuf, Vec<u8>>| -> BTreeMap<PathBuf, Vec<u8>> {
        let kept = files
            .iter()
            .filter(|(path, _)| !path.starts_with(place.path().join(".xlt")));
        kept.map(|(path, bytes)| (path.clone(), bytes.clone()))
            .collect()
    };
    assert_eq!(of_results(&before), of_results(&after));

    let plan = place.xlt(&["plan", "tiny.yaml", "--json"]).ends(0).json();
    let jobs = plan["jobs"].as_array().unwrap();
    assert!(
        jobs.len() > 10 && jobs.iter().all(|job| job["state"] == "reused"),
        "{plan}"
    );
    let status = place.xlt(&["status", "tiny.yaml", "--json"]).ends(0).json();
    let lines = status.as_array().unwrap();
    assert!(lines.iter().all(|line| line["state"] == "finished"));
    assert_eq!(lines.len(), jobs.len());
    let check = place.xlt(&["check", "tiny.yaml", "--json"]).ends(0).json();
    assert_eq!(check["claims"], first["claims"]);
    let report = place.xlt(&["report", "tiny.yaml", "--json"]).ends(0).json();
    assert!(report["files"].as_array().unwrap().len() > 5);
    let stale = place
        .xlt(&["report", "tiny.yaml", "--check", "--json"])
        .ends(0);
    assert_eq!(stale.json()["stale"], Value::Array(Vec::new()));
    let folder = place.results();
    let folder = folder.to_str().unwrap();
    let same = place.xlt(&["compare", folder, folder, "--json"]).ends(0);
    assert_eq!(same.json()["different"], Value::Array(Vec::new()));
    let schema = place.xlt(&["schema"]).ends(0).json();
    assert!(schema["properties"]["variants"].is_object());
    for action in ["list", "size", "verify"] {
        place.xlt(&["store", action, "--json"]).ends(0).json();
    }
}

#[test]
fn a_plan_trains_nothing_and_names_the_setting_that_changed() {
    let place = Place::new(TINY);
    let new = place.xlt(&["plan", "tiny.yaml"]).ends(0);
    assert!(
        new.out.contains("nothing like it in the store"),
        "{}",
        new.out
    );
    assert!(!place.path().join("results").exists());
    assert!(files(&place.path().join(".xlt/artifacts")).is_empty());

    place.xlt(&["run", "tiny.yaml"]).ends(0);
    place.write(&replaced("updates: 20", "updates: 21"));
    let before = files(&place.path().join(".xlt/artifacts"));
    let plan = place.xlt(&["plan", "tiny.yaml"]).ends(0).out;
    let line = |start: &str| {
        let name = |line: &str| {
            line.trim_start_matches(['├', '└', '│', '─', ' '])
                .to_owned()
        };
        let found = plan.lines().find(|line| name(line).starts_with(start));
        found
            .unwrap_or_else(|| panic!("{start}: {plan}"))
            .to_owned()
    };
    assert!(
        line("pretrain mlm").contains("pretrain.updates is 21, was 20"),
        "{plan}"
    );
    assert!(
        line("fine-tune mlm").contains("its input changed: pretrain mlm, seed 1"),
        "{plan}"
    );
    for kept in ["fine-tune random", "tokenizer 200", "corpus aa"] {
        assert!(line(kept).contains("reused"), "{plan}");
    }
    assert_eq!(before, files(&place.path().join(".xlt/artifacts")));

    // A label is no setting, and a new seed is only its own work.
    place.write(&replaced("  mlm: {}", "  mlm: {label: MLM}"));
    let plan = place.xlt(&["plan", "tiny.yaml"]).ends(0).out;
    assert!(plan.contains(" 0 jobs to run"), "{plan}");
    place.write(&replaced("finetune: [1]", "finetune: [1, 2]"));
    let plan = place.xlt(&["plan", "tiny.yaml"]).ends(0).out;
    assert!(plan.contains(" 4 jobs to run"), "{plan}");
}

#[test]
fn resolved_settings_name_the_line_they_came_from() {
    let place = Place::new(&replaced("  mlm: {}", "  mlm:\n    model.hidden: 32"));
    let resolved = |variant: &str| place.xlt(&["plan", "tiny.yaml", "--resolved", variant]);
    let line = |text: &str| TINY.lines().position(|line| line.contains(text)).unwrap() + 1;
    let base = format!("model.hidden: 16    # tiny.yaml:{}\n", line("hidden: 16"));
    assert!(resolved("random").ends(0).out.contains(&base));
    let changed = format!(
        "model.hidden: 32    # tiny.yaml:{}\n",
        line("  mlm: {}") + 1
    );
    assert!(resolved("mlm").ends(0).out.contains(&changed));
    let unknown = resolved("clm").ends(2);
    assert!(unknown.err.contains("random, mlm"), "{unknown:?}");
}

#[test]
fn wrong_use_is_told_with_the_remedy() {
    let place = Place::new(TINY);
    let huge = TINY
        .replace("layers: 1", "layers: 1024")
        .replace("hidden: 16", "hidden: 65536");
    fs::write(place.path().join("huge.yaml"), huge).unwrap();
    for (arguments, told) in [
        (
            vec!["run", "huge.yaml", "--device", "cpu"],
            "of memory; choose a smaller model",
        ),
        (vec!["run", "absent.yaml"], "quickstart.yaml"),
        (
            vec!["run", "tiny.yaml", "--profile", "big"],
            "no profile `big`",
        ),
        (vec!["run", "tiny.yaml", "--jobs", "0"], "at least 1"),
        (vec!["run", "tiny.yaml", "--threads", "0"], "at least 1"),
        (
            vec!["run", "tiny.yaml", "--checkpoint-seconds=-1"],
            "number of seconds",
        ),
        (
            vec!["run", "tiny.yaml", "--checkpoint-seconds=1e30"],
            "number of seconds",
        ),
        (vec!["run", "tiny.yaml", "--device", "tpu"], "`cpu`"),
        (vec!["report", "tiny.yaml"], "xlt run tiny.yaml"),
        (vec!["check", "tiny.yaml"], "xlt run tiny.yaml"),
        (
            vec!["compare", "here", "there"],
            "is not a folder of results",
        ),
        (vec!["store", "verify", "ffff"], "ffff"),
        (vec!["fly"], "unrecognized subcommand"),
    ] {
        let ran = place.xlt(&arguments).ends(2);
        assert!(ran.err.contains(told), "{arguments:?}: {ran:?}");
        assert!(ran.out.is_empty(), "{ran:?}");
    }
    assert!(!place.path().join("results").exists());
}

#[test]
fn translations_that_nobody_supplies_are_listed_per_language() {
    let files = "
  monolingual: [{files: \"mono/{language}.txt\"}]
  nli:
    train: [{languages: [en], files: train.tsv, format: {columns: {premise: p, hypothesis: h, label: l}}}]
    dev: [{files: dev.tsv, format: xnli}]
    test: [{files: test.tsv, format: xnli}]
    translated_test: [{languages: [sw], files: sw.tsv, format: {columns: {premise: p, hypothesis: h, label: l}}}]
";
    let synthetic =
        TINY.find("  synthetic:").unwrap()..TINY.find("  monolingual_validation").unwrap();
    let mut study = TINY.to_owned();
    study.replace_range(synthetic, &files[1..]);
    let study = study
        .replace("source: aa, targets: [bb]", "source: en, targets: [fr, sw]")
        .replace("zero_shot/bb", "zero_shot/fr")
        .replace(
            "regimes: [zero_shot]",
            "regimes: [zero_shot, translate_train, translate_test]",
        );
    let place = Place::new(&study);
    fs::create_dir(place.path().join("mono")).unwrap();
    for name in [
        "mono/en.txt",
        "mono/fr.txt",
        "mono/sw.txt",
        "train.tsv",
        "dev.tsv",
        "test.tsv",
        "sw.tsv",
    ] {
        fs::write(place.path().join(name), "p\th\tl\n").unwrap();
    }
    let told = place.xlt(&["plan", "tiny.yaml"]).ends(2).err;
    let lines: Vec<&str> = told.trim().lines().collect();
    assert_eq!(lines.len(), 1 + 3 * 3, "{told}");
    assert!(lines[0].contains("tiny.yaml") && lines[0].contains("nobody supplies"));
    // Where the section is not there, the one around it is shown.
    let number = |text: &str| study.lines().position(|line| line.contains(text)).unwrap() + 1;
    let expected = [
        ("    train: [", "fr: the training set translated into fr"),
        ("    train: [", "sw: the training set translated into sw"),
        (
            "    translated_test: [",
            "fr: the test set translated from fr into en",
        ),
    ];
    for (told_lines, (line, message)) in lines[1..].chunks(3).zip(expected) {
        assert!(
            told_lines[0].starts_with(&format!("tiny.yaml:{}:", number(line)))
                && told_lines[0].contains(message),
            "{told}"
        );
        assert!(told_lines[1].contains(line.trim()), "{told}");
    }
    assert!(told.contains("data.nli.translated_train"), "{told}");
    assert_eq!(place.xlt(&["run", "tiny.yaml"]).ends(2).err, told);

    fs::remove_file(place.path().join("mono/fr.txt")).unwrap();
    let told = place.xlt(&["plan", "tiny.yaml"]).ends(2).err;
    assert!(
        told.contains("fr: monolingual text; `mono/fr.txt` does not exist")
            && told.contains("--data"),
        "{told}"
    );
}

#[test]
fn a_stale_report_is_named_with_its_first_difference() {
    let place = Place::new(TINY);
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let stale = || {
        let ran = place.xlt(&["report", "tiny.yaml", "--check"]).ends(3);
        assert!(ran.out.contains("mend it with `xlt "), "{ran:?}");
        ran.out
    };
    let mend = || {
        place.xlt(&["report", "tiny.yaml"]).ends(0);
        place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
    };
    let edit = |name: &str, from: &str, to: &str| {
        let path = place.results().join(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} lacks {from}: {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    };
    edit("tables/main.md", "mlm", "MLM");
    let told = stale();
    assert!(
        told.contains("tables/main.md: line ") && told.contains("MLM"),
        "{told}"
    );
    mend();

    edit("report.html", "<h1", "<h3");
    assert!(stale().contains("report.html: line "));
    mend();

    edit("claims.md", "masks", "mask");
    fs::remove_file(place.results().join("plots/accuracy.svg")).unwrap();
    fs::write(place.results().join("plots/stray.svg"), "").unwrap();
    let told = stale();
    assert!(told.contains("claims.md: line "), "{told}");
    assert!(
        told.contains("plots/accuracy.svg: the file is missing"),
        "{told}"
    );
    assert!(
        told.contains("plots/stray.svg: the report does not write"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 3, "{told}");
    mend();

    change_pixel(&place.results().join("plots/accuracy.png"), 3, 5);
    let told = stale();
    assert!(
        told.contains("plots/accuracy.png: the first pixel that differs is (3, 5)"),
        "{told}"
    );
    mend();

    // Scores are made from predictions: only a run mends them.
    edit("scores.csv", "accuracy", "acuracy");
    let told = stale();
    assert!(
        told.contains("scores.csv: line ") && told.contains("xlt run tiny.yaml"),
        "{told}"
    );
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    mend();

    place.write(&replaced("updates: 20", "updates: 21"));
    let told = stale();
    assert!(
        told.contains("manifest.json: the scores were made with settings"),
        "{told}"
    );
    place.write(&replaced("  mlm: {}", "  mlm: {label: Masked}"));
    let told = stale();
    assert!(
        told.contains("tables/main.md") && told.contains("Masked"),
        "{told}"
    );
    assert!(
        !told.contains("manifest.json"),
        "a label is no setting: {told}"
    );
    mend();
}

fn change_pixel(path: &Path, x: usize, y: usize) {
    let mut reader = png::Decoder::new(fs::File::open(path).unwrap())
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    let start = y * frame.line_size + x * frame.color_type.samples();
    pixels[start] ^= 1;
    let mut encoder = png::Encoder::new(fs::File::create(path).unwrap(), frame.width, frame.height);
    encoder.set_color(frame.color_type);
    encoder.set_depth(frame.bit_depth);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&pixels).unwrap();
}

#[test]
fn a_failing_job_leaves_the_others_done_and_a_dash() {
    let place = Place::new(&format!(
        "{TINY}  narrow: {{tokenizer.bpe.vocabulary: 20}}\n"
    ));
    let ran = place.xlt(&["run", "tiny.yaml", "--json"]).ends(1);
    let summary = ran.json();
    let failed = summary["jobs_failed"].as_array().unwrap();
    assert_eq!(failed.len(), 1, "{summary}");
    let error = failed[0]["error"].as_str().unwrap();
    assert!(
        error.contains("tokenizer.bpe.vocabulary to ") && error.contains("alphabet"),
        "{error}"
    );
    assert!(ran.err.contains("skipped: pretrain narrow"), "{}", ran.err);
    let table = fs::read_to_string(place.results().join("tables/main.md")).unwrap();
    let row = |name: &str| {
        let start = format!("| {name}");
        table
            .lines()
            .find(|line| line.starts_with(&start))
            .unwrap_or_else(|| panic!("{name}: {table}"))
    };
    assert!(row("narrow").contains('–'), "{table}");
    assert!(!row("mlm").contains('–'), "{table}");
    place.xlt(&["report", "tiny.yaml", "--check"]).ends(0);
}

#[test]
fn a_contradicted_gate_is_4() {
    let gate = "claims:\n  - {says: no model learns this, variant: mlm, on: xnli/zero_shot/bb, at_least: 99, gate: true}\n";
    let place = Place::new(&replaced("claims:\n", gate));
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let ran = place.xlt(&["check", "tiny.yaml"]).ends(4);
    assert!(
        ran.out.contains("gate contradicted: no model learns this"),
        "{ran:?}"
    );
    let ran = place.xlt(&["check", "tiny.yaml", "--json"]).ends(4);
    assert_eq!(ran.json()["gates"][0]["failed"], true);
}

#[test]
fn threads_and_jobs_side_by_side_change_no_byte() {
    let run = |threads: &str, jobs: &str| {
        let place = Place::new(TINY);
        let mut command = place.command(&["run", "tiny.yaml", "--jobs", jobs]);
        let ran = Ran::of(command.env("RAYON_NUM_THREADS", threads).output().unwrap());
        ran.ends(0);
        let mut made = files(place.path());
        made.retain(|path, _| {
            let name = path.file_name().unwrap().to_str().unwrap();
            path.starts_with(place.results()) && !["manifest.json", "report.html"].contains(&name)
                || path.starts_with(place.path().join(".xlt/artifacts")) && name != "record.json"
        });
        made.into_iter()
            .map(|(path, bytes)| (path.strip_prefix(place.path()).unwrap().to_owned(), bytes))
            .collect::<BTreeMap<_, _>>()
    };
    let one = run("1", "1");
    assert!(one.contains_key(Path::new("results/tiny/default/predictions.parquet")));
    for (threads, jobs) in [("2", "1"), ("2", "2")] {
        let other = run(threads, jobs);
        assert_eq!(
            one.keys().collect::<Vec<_>>(),
            other.keys().collect::<Vec<_>>()
        );
        for (path, bytes) in &one {
            assert!(
                other[path] == *bytes,
                "{} differs with {threads} threads, {jobs} jobs",
                path.display()
            );
        }
    }
}

/// Starts a run and waits until it says something.
pub fn started(place: &Place, arguments: &[&str], until: &str) -> Child {
    let mut child = place
        .command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next() {
        if line.unwrap().contains(until) {
            // The rest must be read, or the run stops at a full pipe.
            std::thread::spawn(move || lines.for_each(drop));
            return child;
        }
    }
    let status = child.wait();
    panic!("the run ended before it said `{until}`: {status:?}");
}

#[test]
fn an_interrupted_run_saves_and_goes_on_to_the_same_scores() {
    let study = replaced("updates: 20", "updates: 2000");
    let (place, other) = (Place::new(&study), Place::new(&study));
    let mut child = started(
        &place,
        &["run", "tiny.yaml", "--checkpoint-seconds", "3600"],
        "started: pretrain",
    );
    std::thread::sleep(std::time::Duration::from_millis(50));
    let asked = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(asked.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!place.path().join("results").exists());
    let status = place.xlt(&["status", "tiny.yaml"]).ends(0).out;
    assert!(
        status.contains("interrupted") && status.contains("waiting"),
        "{status}"
    );
    let plan = place.xlt(&["plan", "tiny.yaml", "--json"]).ends(0).json();
    assert!(
        plan["jobs"]
            .as_array()
            .unwrap()
            .iter()
            .any(|job| job["state"] == "resumed")
    );
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    other.xlt(&["run", "tiny.yaml"]).ends(0);
    assert_eq!(place.scores(), other.scores());
    let status = place.xlt(&["status"]).ends(0).out;
    assert!(status.contains("nothing is running"), "{status}");
}

#[test]
fn artifacts_move_between_stores_and_a_damaged_one_is_found() {
    let (place, other) = (Place::new(TINY), Place::new(TINY));
    place.xlt(&["run", "tiny.yaml"]).ends(0);
    let pack = other.path().join("all.pack");
    let pack = pack.to_str().unwrap();
    place.xlt(&["store", "pack", pack]).ends(0);
    place.xlt(&["store", "pack", pack]).ends(2);
    let unpacked = other
        .xlt(&["store", "unpack", pack, "--json"])
        .ends(0)
        .json();
    assert!(unpacked["added"].as_array().unwrap().len() > 10);
    let run = other.xlt(&["run", "tiny.yaml", "--json"]).ends(0).json();
    assert_eq!(run["jobs_finished"], 0);
    assert_eq!(place.scores(), other.scores());

    let list = other.xlt(&["store", "list"]).ends(0).out;
    let dry = other.xlt(&["store", "remove", "pretrain"]).ends(0).out;
    assert!(
        dry.contains("would remove 1") && dry.contains("--yes"),
        "{dry}"
    );
    assert_eq!(other.xlt(&["store", "list"]).ends(0).out, list);
    other.xlt(&["store", "remove", "pretrain", "--yes"]).ends(0);
    assert!(
        !other
            .xlt(&["store", "list"])
            .ends(0)
            .out
            .contains("pretrain mlm")
    );
    // Nothing needs the encoder any more: its evaluation is there.
    let run = other.xlt(&["run", "tiny.yaml", "--json"]).ends(0).json();
    assert_eq!(run["jobs_finished"], 0);
    other.xlt(&["store", "verify"]).ends(0);
}

#[test]
fn bench_measures_every_objective_in_every_precision_and_names_what_is_wrong() {
    let place = Place::new(TINY);
    let bench = |changes: &[(&str, &str)]| {
        let mut options = BTreeMap::from([
            ("--layers", "1"),
            ("--hidden", "16"),
            ("--heads", "2"),
            ("--feed-forward", "32"),
            ("--vocabulary", "50"),
            ("--sequences", "3"),
            ("--steps", "1"),
            ("--threads", "2"),
        ]);
        options.extend(changes.iter().copied());
        let mut arguments = vec!["bench", "--json"];
        arguments.extend(options.into_iter().flat_map(|(name, value)| [name, value]));
        place.xlt(&arguments)
    };
    fs::write(place.path().join("lengths.txt"), "3\n9\n5\n").unwrap();
    for objective in ["masked_lm", "causal_lm", "xnli", "xnli_prediction"] {
        for precision in ["f32", "bf16"] {
            let measured = bench(&[
                ("--objective", objective),
                ("--precision", precision),
                ("--lengths", "lengths.txt"),
            ])
            .ends(0)
            .json();
            assert_eq!(measured["precision"], precision);
            for figure in [
                "tokens_per_second",
                "examples_per_second",
                "milliseconds_per_step",
                "share_of_matrix_product",
            ] {
                assert!(measured[figure].as_f64().unwrap() > 0.0, "{measured}");
            }
            assert!(measured["milliseconds"]["linear"].as_f64().unwrap() > 0.0);
        }
    }
    let text: String = (0..200)
        .map(|line| format!("the cat {} sat on mat {line}\n", line % 7))
        .collect();
    fs::write(place.path().join("text.txt"), text).unwrap();
    let token_files = |text: &str, vocabulary: &str| {
        place.xlt(&[
            "bench",
            "token-files",
            "--text",
            text,
            "--vocabulary",
            vocabulary,
            "--json",
        ])
    };
    let measured = token_files("text.txt", "50").ends(0).json();
    assert!(measured["tokens"].as_u64().unwrap() > 200, "{measured}");
    let huge = u64::MAX.to_string();
    for (text, vocabulary, words) in [
        ("nowhere.txt", "50", "nowhere.txt"),
        ("text.txt", "3", "--vocabulary"),
        ("text.txt", huge.as_str(), "--vocabulary"),
    ] {
        let told = token_files(text, vocabulary).ends(2).err;
        assert!(told.contains(words), "{told}");
    }

    fs::write(place.path().join("lengths.txt"), "3\nmany\n").unwrap();
    for (changes, words) in [
        (vec![("--steps", "0")], "--steps"),
        (vec![("--steps", huge.as_str())], "--steps"),
        (vec![("--vocabulary", huge.as_str())], "--vocabulary"),
        (vec![("--layers", "1000000")], "--layers"),
        (
            vec![
                ("--layers", "1000"),
                ("--hidden", "65536"),
                ("--feed-forward", "262144"),
            ],
            "GB of memory",
        ),
        (vec![("--sequences", "300000000")], "tokens at most"),
        (vec![("--sequences", "0")], "--sequences 0"),
        (vec![("--heads", "3")], "3 heads"),
        (vec![("--length", "0")], "no tokens"),
        (vec![("--vocabulary", "0")], "--vocabulary 0"),
        (vec![("--lengths", "nowhere.txt")], "nowhere.txt"),
        (vec![("--lengths", "lengths.txt")], "lengths.txt:2"),
    ] {
        let told = bench(&changes).ends(2).err;
        assert!(told.contains(words), "{changes:?}: {told}");
    }
}
