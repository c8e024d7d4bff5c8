//! Token files: what is written is read back, on any number of threads, and damage is named.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use xlt::data::corpus::{Corpus, CorpusFacts, Lines, ParallelCorpus, Part, binarise, side_name};
use xlt::data::tokenizer::{LanguageCounts, Sharing, Tokenizer, UNKNOWN, train};
use xlt::kernels::Device;
use xlt::stages::{self, Context, Interrupted, Progress, Stop, corpus};

use super::tokenizer::{sentences, settings, trained};

fn small() -> Result<Tokenizer> {
    trained(&settings(300, Sharing::Shared), &["en", "ko"], 1)
}

fn write(
    folder: &Path,
    name: &str,
    text: &str,
    kind: Lines,
    tokenizer: &Tokenizer,
    threads: usize,
) -> Result<CorpusFacts> {
    let path = folder.join("text.txt");
    fs::write(&path, text)?;
    binarise(
        (&path, kind),
        (tokenizer, "ko"),
        (folder, name),
        &Device::cpu(threads),
        &|_| Ok(()),
    )
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encoder("ko").unwrap().encode(text, &mut ids);
    ids
}

fn sentence(corpus: &Corpus, index: usize) -> Vec<u32> {
    let mut ids = Vec::new();
    corpus.sentence(index, &mut ids);
    ids
}

#[test]
fn sentences_and_documents_are_read_back() -> Result<()> {
    let tokenizer = small()?;
    let folder = tempfile::tempdir()?;
    let lines = sentences("ko", 5);
    let text = format!(
        "\n\n{}\n{}\r\n \n\n{} ß\n{}\n\n{}",
        lines[0], lines[1], lines[2], lines[3], lines[4]
    );
    let facts = write(
        folder.path(),
        "train",
        &text,
        Lines::Documents,
        &tokenizer,
        1,
    )?;
    let corpus = Corpus::open(folder.path(), Part::Train)?;
    assert_eq!(corpus.facts(), &facts);
    assert_eq!(
        (
            corpus.sentences(),
            facts.documents,
            facts.unknown,
            facts.width
        ),
        (5, 3, 1, 2)
    );
    assert_eq!(corpus.document_starts(), [0, 2, 4]);
    let mut tokens = 0;
    for (index, line) in lines.iter().enumerate() {
        let text = if index == 2 {
            format!("{line} ß")
        } else {
            line.clone()
        };
        assert_eq!(sentence(&corpus, index), encode(&tokenizer, &text));
        assert_eq!(
            corpus.sentence_length(index),
            encode(&tokenizer, &text).len()
        );
        tokens += corpus.sentence_length(index) as u64;
    }
    assert_eq!(corpus.tokens(), tokens);
    corpus.ensure_written_with(&tokenizer)?;
    let other = trained(&settings(200, Sharing::Shared), &["en", "ko"], 1)?;
    assert!(corpus.ensure_written_with(&other).is_err());
    Ok(())
}

#[test]
fn ids_beyond_sixteen_bits_are_read_back() -> Result<()> {
    // Every Hangul syllable and enough ideographs: an alphabet of more than 2^16 characters.
    let characters: Vec<char> = ('\u{ac00}'..='\u{d7a3}')
        .chain('\u{4e00}'..='\u{9fff}')
        .chain('\u{20000}'..='\u{2a6df}')
        .collect();
    let words = characters
        .iter()
        .map(|character| (format!("▁{character}"), 1))
        .collect();
    let counts = LanguageCounts {
        words,
        sentences: 1,
    };
    let tokenizer = train(&settings(80_000, Sharing::Shared), &[("ko".into(), counts)])?;
    let folder = tempfile::tempdir()?;
    let text: Vec<String> = characters
        .chunks(700)
        .map(|chunk| chunk.iter().collect())
        .collect();
    let facts = write(
        folder.path(),
        "valid",
        &text.join("\n"),
        Lines::Documents,
        &tokenizer,
        2,
    )?;
    assert_eq!((facts.width, facts.unknown), (4, 0));
    let corpus = Corpus::open(folder.path(), Part::Valid)?;
    let last = corpus.sentences() - 1;
    assert_eq!(sentence(&corpus, last), encode(&tokenizer, &text[last]));
    assert!(
        sentence(&corpus, last)
            .iter()
            .any(|id| *id > u32::from(u16::MAX))
    );
    Ok(())
}

#[test]
fn files_are_the_same_for_any_number_of_threads() -> Result<()> {
    let tokenizer = small()?;
    // Several pieces of work, one of them a single line longer than a piece.
    let text = format!(
        "{}\n\n{}\n{}",
        sentences("ko", 12_000).join("\n"),
        "언어 ".repeat(60_000),
        sentences("en", 9_000).join("\n")
    );
    let bytes = |threads| -> Result<Vec<Vec<u8>>> {
        let folder = tempfile::tempdir()?;
        write(
            folder.path(),
            "train",
            &text,
            Lines::Documents,
            &tokenizer,
            threads,
        )?;
        ["tokens", "sentences", "documents", "json"]
            .iter()
            .map(|kind| Ok(fs::read(folder.path().join(format!("train.{kind}")))?))
            .collect()
    };
    let one = bytes(1)?;
    assert!(one[0].len() > 100_000);
    assert!(one == bytes(2)? && one == bytes(3)?);
    Ok(())
}

#[test]
fn truncated_and_missing_files_are_named() -> Result<()> {
    let tokenizer = small()?;
    let folder = tempfile::tempdir()?;
    let text = sentences("ko", 50).join("\n");
    for kind in ["tokens", "sentences", "documents", "json"] {
        write(
            folder.path(),
            "train",
            &text,
            Lines::Documents,
            &tokenizer,
            1,
        )?;
        let name = format!("train.{kind}");
        let path = folder.path().join(&name);
        let whole = fs::read(&path)?;
        for damage in [&whole[..whole.len() - 1], &[]] {
            fs::write(&path, damage)?;
            let error = format!(
                "{:#}",
                Corpus::open(folder.path(), Part::Train).unwrap_err()
            );
            assert!(error.contains(&name), "{error}");
        }
        fs::remove_file(&path)?;
        let error = format!(
            "{:#}",
            Corpus::open(folder.path(), Part::Train).unwrap_err()
        );
        assert!(error.contains(&name), "{error}");
    }
    write(
        folder.path(),
        "train",
        &text,
        Lines::Documents,
        &tokenizer,
        1,
    )?;
    let path = folder.path().join("train.sentences");
    let mut bytes = fs::read(&path)?;
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, bytes)?;
    assert!(
        format!(
            "{:#}",
            Corpus::open(folder.path(), Part::Train).unwrap_err()
        )
        .contains("train.sentences")
    );
    Ok(())
}

#[test]
fn an_empty_text_is_a_corpus_without_sentences() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for text in ["", "\n\n"] {
        write(folder.path(), "valid", text, Lines::Documents, &small()?, 2)?;
        let corpus = Corpus::open(folder.path(), Part::Valid)?;
        assert_eq!(
            (
                corpus.sentences(),
                corpus.tokens(),
                corpus.document_starts().len()
            ),
            (0, 0, 0)
        );
    }
    Ok(())
}

#[test]
fn text_that_is_not_utf8_is_refused_with_its_file() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broken.txt");
    fs::write(&path, b"fine\n\xff\n")?;
    let error = binarise(
        (&path, Lines::Documents),
        (&small()?, "en"),
        (folder.path(), "train"),
        &Device::cpu(1),
        &|_| Ok(()),
    )
    .unwrap_err();
    assert!(format!("{error:#}").contains("broken.txt"), "{error:#}");
    Ok(())
}

#[test]
fn pairs_stay_aligned_across_blank_lines_and_unequal_sides_are_refused() -> Result<()> {
    let tokenizer = small()?;
    let folder = tempfile::tempdir()?;
    let (first, second) = (sentences("en", 4), sentences("ko", 4));
    write(
        folder.path(),
        &side_name(Part::Train, "en"),
        &first.join("\n"),
        Lines::Aligned,
        &tokenizer,
        1,
    )?;
    let text = format!("{}\n\n{}\n{}\n", second[0], second[2], second[3]);
    write(
        folder.path(),
        &side_name(Part::Train, "ko"),
        &text,
        Lines::Aligned,
        &tokenizer,
        1,
    )?;
    let corpus = ParallelCorpus::open(folder.path(), ("en", "ko"), Part::Train)?;
    assert_eq!((corpus.pairs(), corpus.languages()), (4, ("en", "ko")));
    let (mut one, mut other) = (Vec::new(), Vec::new());
    corpus.pair(3, &mut one, &mut other);
    assert_eq!(
        (&one, &other),
        (
            &encode(&tokenizer, &first[3]),
            &encode(&tokenizer, &second[3])
        )
    );

    write(
        folder.path(),
        &side_name(Part::Train, "ko"),
        &second[..3].join("\n"),
        Lines::Aligned,
        &tokenizer,
        1,
    )?;
    let error = ParallelCorpus::open(folder.path(), ("en", "ko"), Part::Train)
        .unwrap_err()
        .to_string();
    assert!(error.contains("4 sentences in en but 3 in ko"), "{error}");
    Ok(())
}

struct Silent;

impl Progress for Silent {
    fn begin(&self, _: u64, _: u64, _: &str) {}
    fn advance(&self, _: u64, _: &str) {}
    fn message(&self, _: &str) {}
}

fn run_stage(
    stage: &str,
    settings: &Value,
    inputs: &BTreeMap<String, PathBuf>,
    output: &Path,
    stop: &Stop,
) -> Result<Value> {
    let checkpoints = tempfile::tempdir()?;
    fs::create_dir_all(output)?;
    let context = Context {
        inputs,
        files: &BTreeMap::new(),
        output,
        checkpoints: checkpoints.path(),
        device: &Device::cpu(2),
        progress: &Silent,
        stop,
        checkpoint_interval: Duration::from_secs(60),
    };
    stages::run(stage, settings, &context)
}

#[test]
fn stages_lead_from_text_to_token_files_and_refuse_text_that_the_tokenizer_does_not_know()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let text = |name: &str, train: &[String], valid: &[String]| -> Result<PathBuf> {
        fs::create_dir_all(at(name))?;
        fs::write(at(name).join("train.txt"), train.join("\n"))?;
        fs::write(at(name).join("valid.txt"), valid.join("\n"))?;
        Ok(at(name))
    };
    let (english, korean) = (sentences("en", 300), sentences("ko", 300));
    let en = text("en", &english[..250], &english[250..])?;
    let ko = text("ko", &korean[..250], &korean[250..])?;
    let zh = text("zh", &sentences("zh", 20), &[])?;
    let go = Stop::default();

    let settings = json!({
        "tokenizer": {"bpe": {"vocabulary": 300}, "sharing": "shared", "sampling_exponent": 0.5},
        "languages": ["en", "ko"],
    });
    let inputs = BTreeMap::from([
        ("monolingual:en".to_owned(), en.clone()),
        ("monolingual:ko".to_owned(), ko),
    ]);
    let facts = run_stage("tokenizer", &settings, &inputs, &at("tokenizer"), &go)?;
    assert_eq!(facts["languages"]["en"]["sentences"], 250);

    let settings = serde_json::to_value(corpus::Settings::monolingual("en"))?;
    let inputs = |text: &Path| {
        BTreeMap::from([
            ("tokenizer".to_owned(), at("tokenizer")),
            ("text".to_owned(), text.to_owned()),
        ])
    };
    let facts = run_stage("corpus", &settings, &inputs(&en), &at("corpus"), &go)?;
    assert_eq!(
        (
            &facts["files"]["train"]["sentences"],
            &facts["files"]["valid"]["sentences"]
        ),
        (&json!(250), &json!(50))
    );
    assert_eq!(facts["files"]["train"]["unknown_rate"], json!(0.0));
    assert_eq!(Corpus::open(&at("corpus"), Part::Valid)?.sentences(), 50);

    let error = run_stage("corpus", &settings, &inputs(&zh), &at("refused"), &go)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`<unk>`") && error.contains("5.00 %"),
        "{error}"
    );

    let stop = Stop::default();
    stop.ask();
    let error = run_stage("corpus", &settings, &inputs(&en), &at("stopped"), &stop).unwrap_err();
    assert!(error.is::<Interrupted>());

    let pairs = at("pairs");
    fs::create_dir_all(&pairs)?;
    for (name, lines) in [
        ("train.en", &english[..9]),
        ("train.ko", &korean[..9]),
        ("valid.en", &english[9..12]),
        ("valid.ko", &korean[9..12]),
    ] {
        fs::write(pairs.join(name), lines.join("\n"))?;
    }
    let settings = serde_json::to_value(corpus::Settings::parallel("en", "ko"))?;
    run_stage("corpus", &settings, &inputs(&pairs), &at("parallel"), &go)?;
    assert_eq!(
        ParallelCorpus::open(&at("parallel"), ("en", "ko"), Part::Valid)?.pairs(),
        3
    );
    fs::write(pairs.join("valid.ko"), &korean[9])?;
    let error = run_stage("corpus", &settings, &inputs(&pairs), &at("unequal"), &go)
        .unwrap_err()
        .to_string();
    assert!(error.contains("3 sentences in en but 1 in ko"), "{error}");
    Ok(())
}

#[test]
fn an_unknown_token_is_stored_as_such() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let facts = write(
        folder.path(),
        "train",
        "ßß 언어",
        Lines::Documents,
        &small()?,
        1,
    )?;
    let corpus = Corpus::open(folder.path(), Part::Train)?;
    assert_eq!(
        sentence(&corpus, 0)
            .iter()
            .filter(|id| **id == UNKNOWN)
            .count(),
        2
    );
    assert_eq!(facts.unknown, 2);
    assert!((facts.unknown_rate() - 2.0 / facts.tokens as f64).abs() < 1e-12);
    assert!((facts.tokens_per_word() - facts.tokens as f64 / 2.0).abs() < 1e-12);
    Ok(())
}
