//! The tokenizer: what it learns, how it encodes, what it refuses.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokenizers::Model as _;
use tokenizers::models::bpe::BPE;
use xlt::data::tokenizer::{
    BpeSettings, FIRST_WORD, LanguageCounts, Sharing, Tokenizer, TokenizerSettings, UNKNOWN,
    count_file, train, words,
};
use xlt::kernels::Device;
use xlt::random::Random;

/// Stems and endings of four scripts; a sentence strings some together.
const SCRIPTS: [(&str, [&str; 8], [&str; 4], &str); 4] = [
    (
        "en",
        [
            "walk", "talk", "token", "model", "lang", "small", "trans", "learn",
        ],
        ["", "ing", "ed", "s"],
        ".",
    ),
    (
        "ko",
        [
            "학교", "사람", "언어", "모델", "번역", "문장", "단어", "작은",
        ],
        ["", "에서", "를", "는"],
        "?",
    ),
    (
        "hi",
        [
            "भाषा",
            "हिन्दी",
            "विद्या",
            "क्षेत्र",
            "शब्द",
            "वाक्य",
            "छोटा",
            "ज्ञान",
        ],
        ["", "ओं", "में", "से"],
        "।",
    ),
    (
        "zh",
        ["语言", "模型", "翻译", "单词", "句子", "学习", "学校", "人"],
        ["", "的", "了", "们"],
        "。",
    ),
];

pub fn sentences(language: &str, count: u64) -> Vec<String> {
    let (_, stems, endings, stop) = SCRIPTS.iter().find(|(name, ..)| *name == language).unwrap();
    let sentence = |number| {
        let mut random = Random::new(7, language, number);
        let words: Vec<String> = (0..3 + random.below(6))
            .map(|_| {
                // The product of two draws makes some words frequent and some rare.
                let mut stem = || stems[(random.below(8) * random.below(8) / 7) as usize];
                let word = format!("{}{}", stem(), stem());
                format!("{word}{}", endings[random.below(4) as usize])
            })
            .collect();
        words.join(if language == "zh" { "" } else { " " }) + stop
    };
    (0..count).map(sentence).collect()
}

pub fn settings(vocabulary: usize, sharing: Sharing) -> TokenizerSettings {
    TokenizerSettings {
        bpe: BpeSettings { vocabulary },
        sharing,
        sampling_exponent: 0.5,
        character_coverage: 1.0,
        maximum_unknown_rate: 0.05,
    }
}

fn count(folder: &Path, sentences: &[String], threads: usize) -> Result<LanguageCounts> {
    let path = folder.join("text.txt");
    fs::write(&path, sentences.join("\n"))?;
    count_file(&path, &Device::cpu(threads))
}

pub fn trained(
    settings: &TokenizerSettings,
    languages: &[&str],
    threads: usize,
) -> Result<Tokenizer> {
    let folder = tempfile::tempdir()?;
    let counted: Vec<(String, LanguageCounts)> = languages
        .iter()
        .enumerate()
        .map(|(index, language)| {
            Ok((
                (*language).to_owned(),
                count(
                    folder.path(),
                    &sentences(language, 200 + 100 * index as u64),
                    threads,
                )?,
            ))
        })
        .collect::<Result<_>>()?;
    train(settings, &counted)
}

fn encode(tokenizer: &Tokenizer, text: &str, language: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encoder(language).unwrap().encode(text, &mut ids);
    ids
}

/// The `tokenizers` crate's own model with the entries and merges of one stored vocabulary.
fn of_the_crate(tokenizer: &Tokenizer, vocabulary: usize) -> Result<BPE> {
    let folder = tempfile::tempdir()?;
    tokenizer.save(folder.path())?;
    let stored: Value = serde_json::from_slice(&fs::read(folder.path().join("tokenizer.json"))?)?;
    let stored = &stored["vocabularies"][vocabulary];
    let first = stored["first"].as_u64().context("first")?;
    let entries = stored["entries"].as_array().context("entries")?;
    let mut ids: BTreeMap<&str, u64> = entries
        .iter()
        .enumerate()
        .map(|(index, entry)| (entry.as_str().unwrap(), first + index as u64))
        .collect();
    ids.insert("<unk>", u64::from(UNKNOWN));
    let entry = |id: &Value| &entries[(id.as_u64().unwrap() - first) as usize];
    let merges: Vec<Value> = stored["merges"]
        .as_array()
        .context("merges")?
        .iter()
        .map(|pair| json!([entry(&pair[0]), entry(&pair[1])]))
        .collect();
    let model = json!({"type": "BPE", "unk_token": "<unk>", "fuse_unk": false, "vocab": ids, "merges": merges});
    Ok(serde_json::from_str(&model.to_string())?)
}

fn encode_with_the_crate(model: &BPE, text: &str) -> Vec<u32> {
    words(text)
        .flat_map(|(starts, word)| {
            model
                .tokenize(&format!("{}{word}", if starts { "▁" } else { "" }))
                .unwrap()
        })
        .map(|token| token.id)
        .collect()
}

#[test]
fn encoding_equals_that_of_the_tokenizers_crate() -> Result<()> {
    let languages = ["en", "ko", "hi", "zh"];
    let tokenizer = trained(&settings(400, Sharing::Shared), &languages, 1)?;
    let model = of_the_crate(&tokenizer, 0)?;
    let mut unknown = 0;
    for language in languages {
        for sentence in sentences(language, 300) {
            // Letters that no training text had, and words glued together.
            for text in [
                sentence.clone(),
                sentence.replace(' ', ""),
                sentence.replace(['a', '언', 'श', '学'], "ß"),
            ] {
                let ids = encode(&tokenizer, &text, language);
                unknown += ids.iter().filter(|id| **id == UNKNOWN).count();
                assert_eq!(ids, encode_with_the_crate(&model, &text), "{text}");
            }
        }
    }
    assert!(unknown > 100, "{unknown}");
    Ok(())
}

#[test]
fn remembering_words_changes_no_encoding() -> Result<()> {
    let tokenizer = trained(&settings(300, Sharing::Shared), &["en", "ko"], 1)?;
    let mut encoder = tokenizer.encoder("en")?;
    for sentence in sentences("en", 50).iter().chain(&sentences("en", 50)) {
        let mut ids = vec![9];
        let count = encoder.encode(sentence, &mut ids);
        assert_eq!(ids[1..], encode(&tokenizer, sentence, "en"));
        assert_eq!(count, words(sentence).count() as u64);
    }
    Ok(())
}

#[test]
fn decoding_gives_the_text_back_up_to_white_space() -> Result<()> {
    for sharing in [Sharing::Shared, Sharing::Separate] {
        let tokenizer = trained(&settings(800, sharing), &["en", "ko", "hi", "zh"], 1)?;
        for language in ["en", "ko", "hi", "zh"] {
            for sentence in sentences(language, 100) {
                let spaced = format!("\u{a0} {}  ", sentence.replace(' ', "\t\u{3000}"));
                assert_eq!(
                    tokenizer.decode(&encode(&tokenizer, &spaced, language)),
                    sentence
                );
            }
        }
    }
    let tokenizer = trained(&settings(400, Sharing::Shared), &["en"], 1)?;
    assert_eq!(
        tokenizer.decode(&encode(&tokenizer, "walk ▁talk", "en")),
        "walk talk"
    );
    Ok(())
}

#[test]
fn text_that_looks_like_a_special_token_is_only_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text: Vec<String> = (0..50)
        .map(|_| "<s> </s> <pad> <unk> <special1>".to_owned())
        .collect();
    let tokenizer = train(
        &settings(200, Sharing::Shared),
        &[("en".into(), count(folder.path(), &text, 1)?)],
    )?;
    let ids = encode(&tokenizer, &text[0], "en");
    assert!(ids.iter().all(|id| *id >= FIRST_WORD), "{ids:?}");
    assert_eq!(tokenizer.decode(&ids), text[0]);
    assert_eq!(tokenizer.entry(5), Some("<special1>"));
    Ok(())
}

#[test]
fn separate_vocabularies_share_only_the_special_tokens() -> Result<()> {
    let tokenizer = trained(&settings(301, Sharing::Separate), &["en", "ko", "zh"], 1)?;
    assert_eq!(tokenizer.vocabulary(), 301);
    let mut next = FIRST_WORD;
    for language in ["en", "ko", "zh"] {
        let range = tokenizer.language_range(language)?;
        assert_eq!(range.start, next);
        next = range.end;
        let own = sentences(language, 50);
        assert!(
            own.iter()
                .flat_map(|text| encode(&tokenizer, text, language))
                .all(|id| range.contains(&id))
        );
    }
    assert_eq!(next, 301);
    // Ids that the crate gives the second language are those of its own range.
    let model = of_the_crate(&tokenizer, 1)?;
    for text in sentences("ko", 100) {
        assert_eq!(
            encode(&tokenizer, &text, "ko"),
            encode_with_the_crate(&model, &text)
        );
    }
    let shared = trained(&settings(301, Sharing::Shared), &["en", "ko", "zh"], 1)?;
    assert_eq!(shared.language_range("zh")?, FIRST_WORD..301);
    let error = shared.encoder("fr").map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("fr") && error.contains("en, ko, zh"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_vocabulary_smaller_than_the_alphabet_is_refused_with_the_size_it_needs() -> Result<()> {
    for sharing in [Sharing::Shared, Sharing::Separate] {
        let refused = trained(&settings(40, sharing), &["en", "ko"], 1)
            .unwrap_err()
            .to_string();
        let needed: usize = refused
            .split("vocabulary to ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next())
            .context(refused.clone())?
            .parse()?;
        let mut size = needed;
        // With separate vocabularies the second language may need more than the first that was named.
        let tokenizer = loop {
            match trained(&settings(size, sharing), &["en", "ko"], 1) {
                Ok(tokenizer) => break tokenizer,
                Err(_) => size += 1,
            }
        };
        assert!(
            sharing == Sharing::Separate || size == needed,
            "{needed} was promised, {size} was needed"
        );
        assert!(tokenizer.vocabulary() <= size);
        assert!(trained(&settings(needed - 1, sharing), &["en", "ko"], 1).is_err());
    }
    Ok(())
}

#[test]
fn rare_characters_become_unknown_and_no_entry_spans_them() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut text = sentences("en", 500);
    text.push("waßlk taßlk".into());
    let mut settings = settings(200, Sharing::Shared);
    settings.character_coverage = 0.999;
    let tokenizer = train(&settings, &[("en".into(), count(folder.path(), &text, 1)?)])?;
    let ids = encode(&tokenizer, "waßlk", "en");
    assert_eq!(
        ids.iter().filter(|id| **id == UNKNOWN).count(),
        1,
        "{ids:?}"
    );
    assert_eq!(tokenizer.decode(&ids), "wa<unk>lk");
    assert!(
        (0..tokenizer.vocabulary() as u32).all(|id| !tokenizer.entry(id).unwrap().contains('ß'))
    );
    Ok(())
}

#[test]
fn a_small_language_keeps_its_alphabet_beside_a_large_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let english: Vec<String> = sentences("en", 500)
        .iter()
        .map(|sentence| format!("{sentence} ").repeat(200))
        .collect();
    let counted = [
        ("en".to_owned(), count(folder.path(), &english, 1)?),
        (
            "ko".to_owned(),
            count(folder.path(), &sentences("ko", 20), 1)?,
        ),
    ];
    let settings = TokenizerSettings {
        character_coverage: 0.999,
        sampling_exponent: 1.0,
        ..settings(200, Sharing::Shared)
    };
    let tokenizer = train(&settings, &counted)?;
    assert!(!encode(&tokenizer, &sentences("ko", 20).join(" "), "ko").contains(&UNKNOWN));
    Ok(())
}

#[test]
fn training_gives_the_same_file_for_any_number_of_threads() -> Result<()> {
    let bytes = |threads| -> Result<Vec<u8>> {
        let folder = tempfile::tempdir()?;
        trained(
            &settings(500, Sharing::Shared),
            &["en", "ko", "hi"],
            threads,
        )?
        .save(folder.path())?;
        Ok(fs::read(folder.path().join("tokenizer.json"))?)
    };
    let one = bytes(1)?;
    assert!(one == bytes(1)? && one == bytes(2)? && one == bytes(3)?);
    Ok(())
}

#[test]
fn counts_are_those_of_encoding_the_training_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = sentences("en", 200);
    let tokenizer = train(
        &settings(100, Sharing::Shared),
        &[("en".into(), count(folder.path(), &text, 1)?)],
    )?;
    let mut counts = vec![0; tokenizer.vocabulary()];
    for id in text
        .iter()
        .flat_map(|sentence| encode(&tokenizer, sentence, "en"))
    {
        counts[id as usize] += 1;
    }
    assert_eq!(tokenizer.counts(), counts);
    Ok(())
}

#[test]
fn a_tokenizer_that_was_changed_or_cut_is_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tokenizer.json");
    trained(&settings(100, Sharing::Shared), &["en"], 1)?.save(folder.path())?;
    let text = fs::read_to_string(&path)?;
    Tokenizer::load(folder.path())?;
    for (damaged, says) in [
        (text[..text.len() / 2].to_owned(), "is not a tokenizer"),
        (
            text.replacen("\"first\":14", "\"first\":15", 1),
            "consecutive",
        ),
        (
            text.replacen("\"entries\":[\"", "\"entries\":[\"q", 1),
            "not those that were written",
        ),
        (text.replacen("\"counts\":[0,", "\"counts\":[", 1), "counts"),
    ] {
        assert_ne!(damaged, text);
        fs::write(&path, damaged)?;
        let error = format!("{:#}", Tokenizer::load(folder.path()).unwrap_err());
        assert!(
            error.contains("tokenizer.json") && error.contains(says),
            "{error}"
        );
    }
    Ok(())
}

#[test]
fn a_language_without_text_is_named() -> Result<()> {
    let error = train(
        &settings(100, Sharing::Shared),
        &[("xx".into(), LanguageCounts::default())],
    )
    .unwrap_err()
    .to_string();
    assert!(error.contains("`xx`"), "{error}");
    Ok(())
}

/// Hours if merging were quadratic in the length of a text without spaces.
#[test]
fn half_a_million_letters_without_a_space_are_encoded() -> Result<()> {
    let tokenizer = trained(&settings(300, Sharing::Shared), &["en", "zh"], 1)?;
    for (stem, language) in [("walking", "en"), ("语言模型", "zh")] {
        let text = stem.repeat(500_000 / stem.chars().count());
        let ids = encode(&tokenizer, &text, language);
        assert!(ids.len() < 300_000, "{}", ids.len());
        assert_eq!(tokenizer.decode(&ids), text);
    }
    Ok(())
}

#[test]
fn settings_out_of_range_are_problems_by_field() {
    let mut wrong = settings(3, Sharing::Shared);
    wrong.sampling_exponent = f64::NAN;
    wrong.character_coverage = 1.5;
    wrong.maximum_unknown_rate = -0.1;
    let fields: Vec<String> = wrong
        .validate()
        .into_iter()
        .map(|problem| problem.field)
        .collect();
    assert_eq!(
        fields,
        [
            "bpe.vocabulary",
            "sampling_exponent",
            "character_coverage",
            "maximum_unknown_rate"
        ]
    );
    assert_eq!(settings(100, Sharing::Shared).validate(), []);
}

/// Real text where there is some.
#[test]
fn encoding_real_text_equals_that_of_the_tokenizers_crate() -> Result<()> {
    let Some(data) = std::env::var_os("XLT_DATA") else {
        return Ok(());
    };
    let languages = ["en", "ko", "hi", "zh", "sw"];
    let folder = tempfile::tempdir()?;
    let mut counted = Vec::new();
    let mut texts = Vec::new();
    for language in languages {
        let file = fs::File::open(Path::new(&data).join(format!("mono/{language}.txt.zst")))?;
        let text = std::io::read_to_string(zstd::Decoder::new(file)?)?;
        let lines: Vec<String> = text.lines().take(6000).map(str::to_owned).collect();
        counted.push((
            language.to_owned(),
            count(folder.path(), &lines[..4000], 2)?,
        ));
        texts.push(lines);
    }
    let settings = TokenizerSettings {
        character_coverage: 0.999,
        ..settings(8000, Sharing::Shared)
    };
    let tokenizer = train(&settings, &counted)?;
    let model = of_the_crate(&tokenizer, 0)?;
    for (language, lines) in languages.iter().zip(&texts) {
        let mut encoder = tokenizer.encoder(language)?;
        let mut ids = Vec::new();
        for line in lines {
            ids.clear();
            encoder.encode(line, &mut ids);
            assert_eq!(
                ids,
                encode_with_the_crate(&model, line),
                "{language}: {line}"
            );
        }
    }
    Ok(())
}
