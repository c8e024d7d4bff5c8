//! Wrong study files: each is told with file, line, column, the line itself and what would be right; none is a panic.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde_json::Value;
use xlt::random::Random;
use xlt::spec::anchors::Anchors;
use xlt::spec::{Study, read, read_text, schema};

use crate::command_line::{Place, TINY};

const QUICKSTART: &str = include_str!("../experiments/quickstart.yaml");

fn told(text: &str, profile: Option<&str>) -> String {
    match read_text(Path::new("tiny.yaml"), text, profile, Anchors::default()) {
        Ok(study) => panic!("`{}` was taken for a study: {text:.2000}", study.name),
        Err(error) => error.to_string(),
    }
}

/// Replaces `right` by `wrong`; the error must stand where `at` begins in the wrong text, show that line and say all of
/// `says`.
#[track_caller]
fn wrong(right: &str, wrong: &str, at: &str, says: &[&str]) {
    assert_eq!(TINY.matches(right).count(), 1, "{right}");
    refused(&TINY.replacen(right, wrong, 1), None, at, says);
}

#[track_caller]
fn refused(text: &str, profile: Option<&str>, at: &str, says: &[&str]) {
    let error = told(text, profile);
    let start = text
        .find(at)
        .unwrap_or_else(|| panic!("no `{at}` in {text}"));
    let before = &text[..start];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    assert!(
        error.starts_with(&format!("tiny.yaml:{line}:{column}: ")),
        "not at {line}:{column}: {error}"
    );
    let shown = text.lines().nth(line - 1).unwrap().replace('\t', " ");
    assert!(error.contains(&format!("{line} | {shown}\n")), "{error}");
    for words in says {
        assert!(error.contains(words), "`{words}` is not in: {error}");
    }
    for foreign in [
        "u64",
        "usize",
        "f64",
        "struct ",
        "policy",
        "Policy",
        "Budget",
        "from_str",
        "unit value",
    ] {
        assert!(!error.contains(foreign), "the reader's own words: {error}");
    }
}

#[test]
fn the_tiny_study_is_right() {
    let study = read_text(Path::new("tiny.yaml"), TINY, None, Anchors::default()).unwrap();
    assert_eq!(
        (study.name.as_str(), study.profile.as_str()),
        ("tiny", "default")
    );
    let windows = format!("\u{feff}{}", TINY.replace('\n', "\r\n"));
    read_text(Path::new("tiny.yaml"), &windows, None, Anchors::default()).unwrap();
    let empty = format!("{TINY}profiles: {{}}\n");
    let study = read_text(Path::new("tiny.yaml"), &empty, None, Anchors::default()).unwrap();
    assert_eq!(
        (study.profile.as_str(), study.profiles.len()),
        ("default", 0)
    );
}

#[test]
fn unknown_and_missing_fields_are_told_with_the_nearest_name() {
    wrong(
        "  hidden: 16",
        "  hiden: 16",
        "hiden",
        &["unknown field `hiden`, did you mean `hidden`?"],
    );
    wrong("seeds:", "sedes:", "sedes", &["did you mean `seeds`?"]);
    wrong(
        "{rate: 0.3,",
        "{ratio: 0.3,",
        "ratio",
        &["unknown field `ratio`", "rate"],
    );
    wrong(
        "masked_lm:",
        "maskedlm:",
        "maskedlm",
        &["unknown value `maskedlm`, did you mean `masked_lm`?"],
    );
    wrong(
        "  layers: 1\n",
        "",
        "hidden: 16",
        &["`layers` is missing here; add it"],
    );
    wrong(
        "  precision: f32\nseeds",
        "seeds",
        "task: xnli",
        &["`precision` is missing here"],
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_what_belongs_there() {
    let whole = "write a whole number from 0 up";
    wrong(
        "updates: 20",
        "updates: twenty",
        "twenty",
        &["`twenty`", whole],
    );
    wrong("updates: 20", "updates: -20", "-20", &["-20", whole]);
    wrong("updates: 20", "updates: 20.5", "20.5", &["20.5", whole]);
    wrong("updates: 20", "updates: [20]", "[20]", &["a list", whole]);
    wrong(
        "language_embeddings: true",
        "language_embeddings: 1",
        "1\npretrain",
        &["`true` or `false`"],
    );
    wrong("clip: 1.0", "clip: much", "much", &["write a number"]);
    wrong(
        "regimes: [zero_shot]",
        "regimes: zero_shot",
        "zero_shot\n",
        &["a list"],
    );
    wrong("study: tiny", "study: [tiny]", "[tiny]", &["write text"]);
    wrong(
        "{bpe: {vocabulary: 200}, sharing: shared, sampling_exponent: 0.5}",
        "small",
        "small",
        &["a section"],
    );
}

#[test]
fn numbers_out_of_range_are_refused_at_their_place() {
    for (text, says) in [
        (".nan", "finite"),
        (".inf", "finite"),
        ("1e999", "finite"),
        ("1.0", "below 1"),
        ("-0.1", "from 0"),
    ] {
        wrong(
            "  dropout: 0.1",
            &format!("  dropout: {text}"),
            text,
            &[says],
        );
    }
    wrong(
        "heads: 2",
        "heads: 0",
        "0\n  feed",
        &["heads is 0", "from 1"],
    );
    wrong(
        "heads: 2",
        "heads: 3",
        "3\n  feed",
        &["3 heads do not divide", "a multiple of 3"],
    );
    wrong(
        "vocabulary: 200",
        "vocabulary: 3",
        "3}",
        &["a vocabulary of 3 entries", "between 16 and"],
    );
    wrong(
        "batch_size: [16]",
        "batch_size: [16, 0]",
        "0]}",
        &["a batch of 0 pairs"],
    );
    wrong(
        "pretrain: [1]",
        "pretrain: [1, 1]",
        "1], finetune",
        &["named twice"],
    );
    wrong("data: 0", "data: -1", "-1", &["a whole number from 0 up"]);
    wrong(
        "maximum_length: 40",
        "maximum_length: 90",
        "90",
        &["128 positions", "between 1 and 62"],
    );
    wrong(
        "stream_length: 32",
        "stream_length: 300",
        "300\n  updates",
        &["128 positions"],
    );
}

#[test]
fn huge_numbers_are_refused_before_anything_is_allocated() {
    let digits = "99999999999999999999999";
    wrong(
        "updates: 20",
        &format!("updates: {digits}"),
        digits,
        &["a whole number"],
    );
    for huge in ["18446744073709551615", "9223372036854775807"] {
        for field in [
            "updates: 20",
            "data: 0",
            "examples_per_epoch: 100",
            "epochs: 2",
            "hidden: 16",
            "layers: 1",
            "heads: 2",
            "positions: 128",
            "feed_forward: 32",
            "vocabulary: 200",
            "tokens_per_batch: 256",
        ] {
            let name = field.split(':').next().unwrap();
            let text = TINY.replacen(field, &format!("{name}: {huge}"), 1);
            let seed = name == "data" && huge == "9223372036854775807";
            if !seed {
                refused(&text, None, huge, &[]);
            }
        }
    }
    for (field, value) in [
        ("layers: 1", "16000000"),
        ("hidden: 16", "16777216"),
        ("positions: 128", "16777216"),
        ("epochs: 2", "1000000000"),
    ] {
        let name = field.split(':').next().unwrap();
        wrong(field, &format!("{name}: {value}"), value, &[value]);
    }
    let many = (0..300)
        .map(|rate| format!("0.{:03}", rate + 1))
        .collect::<Vec<_>>()
        .join(", ");
    let grid = format!("encoder_learning_rate: [{many}], head_learning_rate: [{many}]");
    let rates = "encoder_learning_rate: [2.0e-3], head_learning_rate: [2.0e-3]";
    let error = told(&TINY.replace(rates, &grid), None);
    assert!(
        error.contains("90000 combinations are more than"),
        "{error}"
    );
}

#[test]
fn languages_must_be_known_and_named_once() {
    wrong(
        "targets: [bb]",
        "targets: [bb, zz]",
        "zz]",
        &["`zz` is not in the synthetic family", "aa, bb"],
    );
    wrong(
        "targets: [bb]",
        "targets: [bb, aa]",
        "aa]",
        &["named twice"],
    );
    wrong(
        "targets: [bb]",
        "targets: []",
        "[]}",
        &["name at least one"],
    );
    let real = TINY.replace("  synthetic:\n", "  monolingual: [{files: x}]\n  unused:\n");
    let start = real.find("  unused:").unwrap();
    let end = real.find("  monolingual_validation").unwrap();
    let real = format!("{}{}", &real[..start], &real[end..]);
    let real = real.replace("source: aa, targets: [bb]", "source: en, targets: [fr, xx]");
    refused(
        &real.replace("zero_shot/bb", "zero_shot/fr"),
        None,
        "xx]",
        &["`xx` is no language code", "ISO 639"],
    );
}

#[test]
fn impossible_synthetic_languages_are_shown_where_they_are_set() {
    wrong(
        "nli: {train: 300",
        "nli: {train: 301",
        "301",
        &["301 pairs", "multiple of 3"],
    );
    wrong(
        "parallel: {train: 60",
        "parallel: {train: 100000000000",
        "100000000000",
        &["100000000000 pairs", "up to 10000000"],
    );
    wrong(
        "monolingual_words: 3000",
        "monolingual_words: 0",
        "0\n    parallel",
        &["0 monolingual words", "1000000000"],
    );
    wrong(
        "  synthetic:\n",
        "  synthetic:\n    anchors: 1.5\n",
        "1.5",
        &["anchors is 1.5", "0 to 1"],
    );
}

#[test]
fn variants_are_evaluated_alike_and_told_apart() {
    for (field, value) in [
        ("regimes", "[zero_shot, translate_test]"),
        ("select_on", "[target_dev]"),
        ("mixed_pairs", "true"),
    ] {
        wrong(
            "  mlm: {}",
            &format!("  mlm: {{finetune.{field}: {value}}}"),
            &format!("{value}}}"),
            &["variant `mlm`", "could not be compared"],
        );
    }
    wrong(
        "  mlm: {}",
        "  mlm: {label: random}",
        "mlm: {label",
        &["labelled `random`", "rename one"],
    );
    wrong(
        "  mlm: {}",
        "  mlm: {label: ' '}",
        "mlm: {label",
        &["empty label"],
    );
    wrong(
        "batch_size: [16]",
        "batch_size: [16, 16]",
        "16]}",
        &["named twice"],
    );
}

#[test]
fn test_sets_never_select() {
    for name in ["test", "source_test", "target_test"] {
        wrong(
            "[source_dev]",
            &format!("[{name}]"),
            &format!("{name}]"),
            &[
                "test sets never select",
                "source_dev, mean_dev or target_dev",
            ],
        );
    }
    wrong(
        "[source_dev]",
        "[source_dve]",
        "source_dve",
        &["did you mean `source_dev`?"],
    );
    wrong(
        "on: xnli/zero_shot/bb}",
        "on: xnli/zero_shot/bb, selection: test}",
        "test}",
        &["test sets never select"],
    );
}

#[test]
fn a_claim_names_what_there_is() {
    wrong(
        "than: random",
        "than: radom",
        "radom",
        &["unknown variant `radom`; did you mean `random`?"],
    );
    wrong(
        "on: xnli/zero_shot/bb}",
        "on: xnli/zero_shot/cc}",
        "xnli/zero_shot/cc",
        &["unknown language `cc`", "`bb`"],
    );
    wrong(
        "on: xnli/zero_shot/bb}",
        "on: xnli/zero_shto/bb}",
        "xnli/zero_shto",
        &["did you mean `zero_shot`?"],
    );
    wrong(
        "on: xnli/zero_shot/bb}",
        "on: xnli/zero_shot/bb/acuracy}",
        "xnli/zero_shot",
        &["did you mean `accuracy`?"],
    );
    wrong(
        "on: xnli/zero_shot/bb}",
        "on: bb}",
        "bb}\ntables",
        &["task/regime/language"],
    );
    wrong(
        "higher: mlm, than: random, on: xnli/zero_shot/bb}",
        "variant: mlm, on: xnli/zero_shot/bb, anchor: xlm_table1/mlm/zero-shot/avg, within: 2}",
        "xlm_table1/",
        &["unknown anchor", "xlm_table1.csv"],
    );
    wrong(
        "higher: mlm, than",
        "higher: mlm, by: .nan, than",
        ".nan",
        &["finite"],
    );
    wrong(
        "higher: mlm, than: random, ",
        "higher: mlm, ",
        "{says",
        &["the claim lacks `than`; add `than`"],
    );
    wrong(
        "name: main",
        "name: Main Table",
        "Main Table",
        &["lower-case letters"],
    );
    wrong(
        "regime: zero_shot}",
        "regime: translate_train}",
        "translate_train}",
        &["unknown regime"],
    );
}

#[test]
fn an_override_is_wrong_at_its_own_line() {
    let with = |lines: &str| format!("{TINY}{lines}");
    refused(
        &with("  deep:\n    model.hiden: 32\n"),
        None,
        "model.hiden",
        &["unknown field `hiden`, did you mean `hidden`?"],
    );
    refused(
        &with("  deep: {modle.hidden: 32}\n"),
        None,
        "modle.hidden",
        &["did you mean `model`?"],
    );
    refused(
        &with("  deep:\n    model.hidden: thirty\n"),
        None,
        "thirty",
        &["a whole number"],
    );
    refused(
        &with("  deep: {model.hidden.more: 3}\n"),
        None,
        "model.hidden.more",
        &["a section"],
    );
    refused(
        &with("  deep:\n    model.heads: 5\n"),
        None,
        "5\n",
        &["5 heads do not divide"],
    );
    refused(
        &with("  deep:\n    model.hidden: 33\n"),
        None,
        "33\n",
        &["2 heads do not divide"],
    );
    refused(
        &with("  deep: {seeds.data: 3}\n"),
        None,
        "seeds.data",
        &["`seeds` cannot be overridden here"],
    );
    refused(
        &with("  deep: {model..hidden: 3}\n"),
        None,
        "model..hidden",
        &["is not a path", "section.field"],
    );
    refused(
        &with("  deep: 3\n"),
        None,
        "3\n",
        &["maps names to what differs"],
    );
    let profiles = with("profiles:\n  quick:\n  large:\n    pretrain.updates: many\n");
    refused(&profiles, Some("large"), "many", &["a whole number"]);
    read_text(
        Path::new("tiny.yaml"),
        &profiles,
        Some("quick"),
        Anchors::default(),
    )
    .unwrap();
    assert!(
        told(&profiles, Some("larger")).contains("no profile `larger`; the file has: quick, large")
    );
    refused(
        &with("profiles:\n  large: {study: other}\n"),
        None,
        "study: other",
        &["cannot be overridden"],
    );
    let long = ["a"; 100_000].join(".");
    let error = told(&with(&format!("  deep:\n    ? {long}\n    : 3\n")), None);
    assert!(
        error.contains("is not a path") && error.len() < 1000,
        "{error}"
    );
}

#[test]
fn names_that_differ_in_case_only_are_refused() {
    refused(
        &format!("{TINY}  MLM: {{}}\n"),
        None,
        "MLM:",
        &["`mlm` and `MLM` differ in case only; rename one"],
    );
    refused(
        &format!("{TINY}profiles: {{a: {{}}, A: {{}}}}\n"),
        None,
        "A:",
        &["differ in case only"],
    );
    refused(
        &format!("{TINY}  ../up: {{}}\n"),
        None,
        "../up",
        &["cannot name a variant"],
    );
    wrong(
        "study: tiny",
        "study: ../up",
        "../up",
        &["cannot name a study"],
    );
}

#[test]
fn what_is_not_one_yaml_section_is_told_so() {
    for empty in ["", "\n\n", "# nothing\n", "---\n", "\u{feff}"] {
        let error = told(empty, None);
        assert!(
            error.starts_with("tiny.yaml: the file is empty; a study needs at least `study`"),
            "{error}"
        );
    }
    for other in ["null\n", "hello\n", "- a\n- b\n", "3\n"] {
        refused(other, None, other.trim(), &["begin", "quickstart"]);
    }
    wrong(
        "  hidden: 16",
        "  layers: 2\n  hidden: 16",
        "layers: 2",
        &["`layers` stands here a second time; keep one"],
    );
    refused(
        &format!("{TINY}  mlm: {{label: again}}\n"),
        None,
        "mlm: {label",
        &["`mlm` stands here a second time"],
    );
    let error = told(&format!("{TINY}---\n{TINY}"), None);
    let line = TINY.lines().count() + 2;
    assert!(
        error.starts_with(&format!(
            "tiny.yaml:{line}:1: a second document begins here"
        )),
        "{error}"
    );
    wrong(
        "  hidden: 16",
        "\thidden: 16",
        "\thidden",
        &["indent with spaces"],
    );
    wrong("[bb]", "[bb", "[bb}", &["bracket"]);
    wrong("study: tiny", "study: \"tiny", "languages", &["quote"]);
    wrong(
        "study: tiny",
        "study: tiny\n3: 4",
        "3: 4",
        &["a key must be text; put it in quotes"],
    );
}

#[test]
fn bombs_and_towers_are_refused_quickly() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for letter in 'b'..='m' {
        let before = char::from(letter as u8 - 1);
        writeln!(
            bomb,
            "{letter}: &{letter} [{}]",
            vec![format!("*{before}"); 9].join(", ")
        )
        .unwrap();
    }
    let error = told(&bomb, None);
    assert!(
        error.contains("far more values than a study has") && error.contains(" | "),
        "{error}"
    );
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let error = told(
            &format!("a: {}1{}", open.repeat(50_000), close.repeat(50_000)),
            None,
        );
        assert!(error.contains("nested too deeply"), "{error:.300}");
        assert!(error.len() < 1000, "a long line is shown around the place");
    }
    let stairs: String = (0..1500)
        .map(|depth| format!("{}a:\n", " ".repeat(depth)))
        .collect();
    assert!(told(&stairs, None).contains("nested too deeply"));
    let itself = told("a: &a [*a]\n", None);
    assert!(itself.contains("tiny.yaml:1:"), "{itself}");
    let crowd: String = (0..20_000)
        .map(|number| format!("  v{number}: {{}}\n"))
        .collect();
    assert!(
        told(&format!("{TINY}{crowd}"), None)
            .contains("variants are more than 1000; split the study")
    );
    let seeds = (0..30_000)
        .map(|seed| seed.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let error = told(
        &TINY.replace("pretrain: [1]", &format!("pretrain: [{seeds}]")),
        None,
    );
    assert!(error.contains("30000 seeds are more than 1000"), "{error}");
}

#[test]
fn files_that_are_no_text_or_too_long_are_refused() {
    let place = Place::new("");
    let file = place.path().join("tiny.yaml");
    let bytes = TINY.replacen("study: tiny", "study: tiny\ntitle: caf?", 1);
    let mut bytes = bytes.into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xe9;
    fs::write(&file, &bytes).unwrap();
    let error = read(&file, None).unwrap_err().to_string();
    assert!(
        error.contains("tiny.yaml:2:11: the byte 0xe9 is not UTF-8 text; save the file as UTF-8"),
        "{error}"
    );
    assert!(error.contains("2 | title: caf"), "{error}");

    fs::write(&file, format!("{TINY}# {}", "x".repeat(5_000_000))).unwrap();
    let error = read(&file, None).unwrap_err().to_string();
    assert!(error.contains("is it the right file?"), "{error}");
    fs::write(&file, format!("{TINY}titel: {}", "x".repeat(4_000_000))).unwrap();
    let error = read(&file, None).unwrap_err().to_string();
    assert!(
        error.contains("did you mean `title`?") && error.len() < 1000,
        "{error:.300}"
    );
    let error = read(place.path(), None).unwrap_err().to_string();
    assert!(error.contains("cannot read the study file"), "{error}");
}

#[test]
fn a_vocabulary_without_room_for_the_alphabet_says_how_much_it_needs() {
    let place = Place::new(&TINY.replace("vocabulary: 200", "vocabulary: 20"));
    let ran = place.xlt(&["run", "tiny.yaml"]).ends(1);
    let needed: usize = ran
        .err
        .split("raise tokenizer.bpe.vocabulary to ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .unwrap_or_else(|| panic!("{}", ran.err))
        .parse()
        .unwrap();
    place.write(&TINY.replace("vocabulary: 200", &format!("vocabulary: {needed}")));
    place.xlt(&["run", "tiny.yaml"]).ends(0);
}

/// Bytes and lines of a right file, swapped, doubled, cut and replaced: an answer each time, and never a panic.
#[test]
fn no_mutilated_study_file_makes_the_reader_panic() {
    let mut random = Random::new(7, "mutilation", 0);
    let snippets = [
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "&a ",
        "*a",
        "!!int ",
        "<<: ",
        "\n",
        "\t",
        "\0",
        "\"",
        "'",
        "#",
        "|",
        ">",
        "~",
        "9999999999999999999",
        "-1",
        ".nan",
        "é",
        "\u{feff}",
        "---\n",
        "%YAML 1.2\n",
    ];
    let mut right = 0;
    for _ in 0..2000 {
        let mut text = QUICKSTART.to_owned();
        for _ in 0..=random.below(3) {
            text = mutilated(&text, &snippets, &mut random);
        }
        let read = |profile| read_text(Path::new("tiny.yaml"), &text, profile, Anchors::default());
        let answer: Result<Study, _> = read(None);
        match &answer {
            Ok(_) => right += 1,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        let again = read(None);
        assert_eq!(
            answer.map_err(|error| error.to_string()).err(),
            again.map_err(|error| error.to_string()).err()
        );
    }
    assert!(
        (100..1500).contains(&right),
        "{right} of 2000 are still right"
    );
}

fn mutilated(text: &str, snippets: &[&str], random: &mut Random) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    let mut line = || random.below(lines.len() as u64) as usize;
    let (one, other) = (line(), line());
    let letters: Vec<char> = text.chars().collect();
    let at = random.below(letters.len() as u64) as usize;
    let rebuilt = |lines: Vec<&str>| lines.join("\n") + "\n";
    match random.below(7) {
        0 => {
            lines.swap(one, other);
            rebuilt(lines)
        }
        1 => {
            lines.insert(one, lines[other]);
            rebuilt(lines)
        }
        2 => {
            lines.remove(one);
            rebuilt(lines)
        }
        3 => letters[..at].iter().collect(),
        4 => {
            let mut letters = letters;
            letters.remove(at);
            letters.into_iter().collect()
        }
        5 => {
            let snippet = snippets[random.below(snippets.len() as u64) as usize];
            let (before, after) = letters.split_at(at);
            before
                .iter()
                .chain(&snippet.chars().collect::<Vec<_>>())
                .chain(after)
                .collect()
        }
        _ => {
            let mut letters = letters;
            letters[at] = char::from(random.below(128) as u8);
            letters.into_iter().collect()
        }
    }
}

/// Whether a value is one that a JSON Schema allows: the parts of the language that our schema uses.
fn allowed(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let path = name.strip_prefix('#').unwrap();
        return allowed(value, root.pointer(path).unwrap(), root);
    }
    for word in ["oneOf", "anyOf"] {
        if let Some(options) = schema[word].as_array() {
            let fits = options
                .iter()
                .filter(|option| allowed(value, option, root).is_ok());
            if fits.count() == 0 {
                return Err(format!("{value} fits none of {schema}"));
            }
        }
    }
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        return Err(format!("{value} is not {constant}"));
    }
    if let Some(options) = schema["enum"].as_array()
        && !options.contains(value)
    {
        return Err(format!("{value} is not in {options:?}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |name: &&str| match *name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other}"),
    };
    if !types.is_empty() && !types.iter().any(is) {
        return Err(format!("{value} is no {types:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        if let Some(items) = schema.get("items") {
            allowed(item, items, root)?;
        }
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                return Err(format!("{name} is missing"));
            }
        }
        for (name, value) in object {
            let others = &schema["additionalProperties"];
            match schema["properties"].get(name) {
                Some(property) => {
                    allowed(value, property, root).map_err(|error| format!("{name}: {error}"))?
                }
                None if *others == Value::Bool(false) => return Err(format!("{name} is unknown")),
                None if others.is_object() => {
                    allowed(value, others, root).map_err(|error| format!("{name}: {error}"))?
                }
                None => {}
            }
        }
    }
    Ok(())
}

#[test]
fn the_schema_allows_every_experiment_and_refuses_a_slip() {
    let schema = schema();
    let json = |text: &str| xlt::spec::document::parse(text).unwrap().to_json();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let mut seen = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            allowed(&json(&text), &schema, &schema)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            read(&path, None).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 2);
    allowed(&json(TINY), &schema, &schema).unwrap();
    for (right, wrong) in [
        ("hidden: 16", "hiden: 16"),
        ("layers: 1", "layers: one"),
        ("[source_dev]", "[test]"),
        ("study: tiny\n", ""),
    ] {
        let text = TINY.replacen(right, wrong, 1);
        assert!(allowed(&json(&text), &schema, &schema).is_err(), "{wrong}");
    }
}
