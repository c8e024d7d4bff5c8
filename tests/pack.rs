//! Packs of artifacts, and the command that makes them: what arrives is what was sent, or nothing.

use std::collections::BTreeMap;
use std::fs;

use clap::Parser as _;
use serde_json::{Value, json};
use xlt::commands;
use xlt::fingerprint::Fingerprint;
use xlt::store::{Store, StoredFile};

use crate::store::{damage, folder, job, make, store_in};

#[test]
fn a_pack_carries_artifacts_to_another_store() {
    let folder = folder();
    let store = store_in(&folder);
    let first = job("tokenizer", json!(0), &[]);
    let second = job("pretrain", json!(0), &[("tokenizer", &first)]);
    let made = [make(&store, &second), make(&store, &first)];
    let pack = folder.path().join("a.xltpack");
    let chosen = store
        .select(&[second.fingerprint.short().to_owned()], true)
        .unwrap();
    assert_eq!(chosen, made);
    store.pack(&chosen, &pack).unwrap();
    assert!(store.pack(&chosen, &pack).is_err(), "never over a file");
    let other = Store::open(&folder.path().join("other")).unwrap();
    assert_eq!(other.unpack(&pack).unwrap().added.len(), 2);
    assert_eq!(other.unpack(&pack).unwrap().present.len(), 2);
    assert!(
        Store::open(other.root())
            .unwrap()
            .verify_all(&[])
            .unwrap()
            .damaged
            .is_empty()
    );
    assert_eq!(other.records().unwrap(), store.records().unwrap());
}

#[test]
fn a_broken_pack_adds_nothing_of_what_is_broken() {
    let folder = folder();
    let store = store_in(&folder);
    let job = job("tokenizer", json!(0), &[]);
    make(&store, &job);
    let pack = folder.path().join("a.xltpack");
    store.pack(&store.artifacts().unwrap(), &pack).unwrap();
    let whole = zstd::decode_all(fs::read(&pack).unwrap().as_slice()).unwrap();
    let other = Store::open(&folder.path().join("other")).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&pack, zstd::encode_all(bytes, 1).unwrap()).unwrap();
        let error = other.unpack(&pack).unwrap_err();
        assert!(format!("{error:#}").contains("a.xltpack"), "{error:#}");
        assert_eq!(other.find(&job.fingerprint).unwrap(), None);
    };
    for length in [0, 10, 24, 30, 100, whole.len() - 10_000, whole.len() - 9] {
        refused(&whole[..length]);
    }
    for place in [3, 27, 200, whole.len() - 5000] {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x40;
        refused(&flipped);
    }
    fs::write(&pack, b"not compressed").unwrap();
    assert!(other.unpack(&pack).is_err());
}

#[test]
fn a_pack_cannot_write_outside_the_store() {
    let folder = folder();
    let store = store_in(&folder);
    let record = make(&store, &job("tokenizer", json!(0), &[])).record;
    let pack = folder.path().join("a.xltpack");
    let other = Store::open(&folder.path().join("other")).unwrap();
    for (stage, file) in [
        ("tokenizer", "../../../evil"),
        ("tokenizer", "/evil"),
        ("..", "fine"),
        ("a/b", "fine"),
        ("tokenizer", "record.json"),
    ] {
        let mut evil = record.clone();
        let stored = StoredFile {
            bytes: 1,
            blake3: Fingerprint::of_bytes(b"x"),
        };
        (evil.stage, evil.files) = (
            stage.to_owned(),
            BTreeMap::from([(file.to_owned(), stored)]),
        );
        let text = evil.to_json().unwrap();
        let mut bytes = b"xlt artifacts, format 1\n".to_vec();
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes.extend(b"x");
        bytes.extend(0_u64.to_le_bytes());
        fs::write(&pack, zstd::encode_all(bytes.as_slice(), 1).unwrap()).unwrap();
        let text = format!("{:#}", other.unpack(&pack).unwrap_err());
        assert!(
            text.contains("plain relative")
                || text.contains("stage's name")
                || text.contains("lists itself"),
            "{text}"
        );
        assert!(other.artifacts().unwrap().is_empty() && !folder.path().join("evil").exists());
    }
}

#[test]
fn a_pack_cannot_claim_a_fingerprint_that_is_not_its_own() {
    let folder = folder();
    let store = store_in(&folder);
    let mut artifact = make(&store, &job("tokenizer", json!(0), &[]));
    artifact.record.settings = json!(1);
    let pack = folder.path().join("a.xltpack");
    store.pack(&[artifact], &pack).unwrap();
    let other = Store::open(&folder.path().join("other")).unwrap();
    let text = format!("{:#}", other.unpack(&pack).unwrap_err());
    assert!(text.contains("does not follow from its settings"), "{text}");
}

#[derive(clap::Parser)]
struct CommandLine {
    #[command(flatten)]
    arguments: commands::store::Arguments,
}

#[test]
fn the_store_command_lists_verifies_removes_and_moves() {
    let folder = folder();
    let store = store_in(&folder);
    let (first, second) = (
        job("tokenizer", json!(0), &[]),
        job("pretrain", json!(0), &[]),
    );
    let model = make(&store, &first).folder.join("model.safetensors");
    make(&store, &second);
    let told = |line: &str| {
        let line = line.replace("PACK", folder.path().join("a.xltpack").to_str().unwrap());
        let arguments = CommandLine::try_parse_from(["store"].into_iter().chain(line.split(' ')))
            .unwrap()
            .arguments;
        let mut out = Vec::new();
        let code = commands::store::run(&arguments, &store, &mut out).unwrap();
        (format!("{code:?}"), String::from_utf8(out).unwrap())
    };
    let (done, failed) = (
        format!("{:?}", commands::exit(0)),
        format!("{:?}", commands::exit(1)),
    );
    let listed = told("list").1;
    assert_eq!(listed.lines().count(), 2);
    assert!(
        listed.starts_with("pretrain ") && listed.contains(second.fingerprint.short()),
        "{listed}"
    );
    let sizes: Value = serde_json::from_str(&told("size --json").1).unwrap();
    assert_eq!(sizes["stages"][1][0], "tokenizer");
    assert!(told("pack PACK").1.starts_with("2 artifacts in "));
    damage(&model, |bytes| bytes.truncate(12));
    let (code, text) = told("verify tokenizer");
    assert!(
        code == failed && text.contains("model.safetensors holds 12 of 10000 bytes"),
        "{text}"
    );
    assert!(told("remove --all").1.contains("would remove 2"));
    assert!(told("remove --all --yes").1.contains("removed 2"));
    assert!(
        told("unpack PACK")
            .1
            .contains("2 artifacts added, 0 were here")
    );
    assert_eq!(
        told("verify"),
        (done, "2 artifacts verified, 0 damaged\n".to_owned())
    );
}
