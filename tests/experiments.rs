//! The committed study files: each reads at every profile, and editors that know the schema accept it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xlt::plan::hashes::FileHashes;
use xlt::plan::{Missing, Plan, build};
use xlt::spec::settings::{Scale, Settings};
use xlt::spec::{self, Study};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments")
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    files.sort();
    files
}

fn study(name: &str, profile: Option<&str>) -> Study {
    spec::read(&folder().join(name), profile).unwrap_or_else(|error| panic!("{error:#}"))
}

fn settings(study: &Study, variant: &str) -> Settings {
    let found = study.variants.iter().find(|found| found.name == variant);
    found.unwrap().settings.clone()
}

fn plan(study: &Study, root: Option<&Path>) -> anyhow::Result<Plan> {
    build(study, root, &mut FileHashes::default())
}

#[test]
fn every_study_reads_at_every_profile_under_its_own_name() {
    assert!(files().len() >= 3);
    for file in files() {
        let first = spec::read(&file, None).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(
            Some(first.name.as_str()),
            file.file_stem().unwrap().to_str()
        );
        assert!(!first.profiles.is_empty(), "{}", first.name);
        for profile in &first.profiles {
            let study =
                spec::read(&file, Some(profile)).unwrap_or_else(|error| panic!("{error:#}"));
            assert_eq!(&study.profile, profile);
            assert!(!study.claims.is_empty() && !study.tables.is_empty());
        }
    }
}

#[test]
fn every_study_is_valid_by_the_schema() {
    let schema = spec::schema();
    for file in files() {
        let text = fs::read_to_string(&file).unwrap();
        let document: Value = serde_yaml::from_str(&text).unwrap();
        let problems = violations(&schema, &schema, &document, "");
        assert_eq!(problems, [""; 0], "{}", file.display());
    }
}

/// The settings that profiles and variants lead to are written by the schema too: an override is anything to an editor.
#[test]
fn every_resolved_variant_is_valid_by_the_schema() {
    let schema = spec::schema();
    for file in files() {
        for profile in spec::read(&file, None).unwrap().profiles {
            for variant in spec::read(&file, Some(&profile)).unwrap().variants {
                let mut document = variant.document.to_json();
                document["study"] = json!("resolved");
                document["variants"] = json!({});
                let problems = violations(&schema, &schema, &document, "");
                assert_eq!(
                    problems,
                    [""; 0],
                    "{} {profile} {}",
                    file.display(),
                    variant.name
                );
            }
        }
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema = spec::schema();
    let text = fs::read_to_string(folder().join("quickstart.yaml")).unwrap();
    let good: Value = serde_yaml::from_str(&text).unwrap();
    let wrong = |path: &str, value: Value| {
        let mut document = good.clone();
        *document.pointer_mut(path).unwrap() = value;
        violations(&schema, &schema, &document, "")
    };
    for (path, value, named) in [
        ("/model/layers", json!("three"), "/model/layers"),
        ("/model/layers", json!(2.5), "/model/layers"),
        ("/model/layers", json!(-1), "/model/layers"),
        ("/model", json!({"layers": 1}), "/model: hidden is missing"),
        (
            "/finetune/regimes/0",
            json!("zero-shot"),
            "/finetune/regimes/0",
        ),
        ("/tokenizer/sharing", json!("both"), "/tokenizer/sharing"),
        (
            "/pretrain/objectives/0",
            json!({"masked_lm": {}}),
            "/pretrain",
        ),
        (
            "/claims/0",
            json!({"says": "x", "hihger": "mlm"}),
            "/claims/0: hihger is unknown",
        ),
    ] {
        let problems = wrong(path, value);
        assert!(
            problems.iter().any(|problem| problem.contains(named)),
            "{path}: {problems:?}"
        );
    }
}

/// What a document violates of a schema, for the keywords that the study file's schema has; a keyword that this validator
/// does not know is a violation, so that none is passed over.
fn violations(root: &Value, schema: &Value, document: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some(keywords) = schema.as_object() else {
        return found;
    };
    for (keyword, value) in keywords {
        match keyword.as_str() {
            "description" | "title" | "default" | "format" | "$schema" | "$defs" => {}
            "$ref" => {
                let pointer = value.as_str().unwrap().trim_start_matches('#');
                found.extend(violations(
                    root,
                    root.pointer(pointer).unwrap(),
                    document,
                    at,
                ));
            }
            "type" => {
                let names: Vec<&str> = match value {
                    Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                    name => name.as_str().into_iter().collect(),
                };
                if !names.iter().any(|name| is_of_type(document, name)) {
                    found.push(format!("{at}: {document} is not {}", names.join(" or ")));
                }
            }
            "const" if document != value => found.push(format!("{at}: {document} is not {value}")),
            "enum" if !value.as_array().unwrap().contains(document) => {
                found.push(format!("{at}: {document} is none of {value}"));
            }
            "const" | "enum" => {}
            "minimum" | "maximum" => {
                let bound = value.as_f64().unwrap();
                let outside = |number: f64| match keyword.as_str() {
                    "minimum" => number < bound,
                    _ => number > bound,
                };
                if document.as_f64().is_some_and(outside) {
                    found.push(format!("{at}: {document} is beyond the {keyword} {bound}"));
                }
            }
            "minItems" | "maxItems" => {
                let (count, bound) = (document.as_array().map(Vec::len), value.as_u64().unwrap());
                let outside = |count: u64| match keyword.as_str() {
                    "minItems" => count < bound,
                    _ => count > bound,
                };
                if count.is_some_and(|count| outside(count as u64)) {
                    found.push(format!("{at}: {document} is beyond the {keyword} {bound}"));
                }
            }
            "prefixItems" => {
                let pairs = document.as_array().into_iter().flatten();
                for (index, (item, schema)) in pairs.zip(value.as_array().unwrap()).enumerate() {
                    found.extend(violations(root, schema, item, &format!("{at}/{index}")));
                }
            }
            // Of directions alone: two languages and a hyphen between them.
            "pattern" => {
                assert_eq!(value, "^[^-]+-[^-]+$");
                let parts: Vec<&str> = document.as_str().unwrap_or_default().split('-').collect();
                if parts.len() != 2 || parts.contains(&"") {
                    found.push(format!("{at}: {document} does not match {value}"));
                }
            }
            "items" => {
                for (index, item) in document.as_array().into_iter().flatten().enumerate() {
                    found.extend(violations(root, value, item, &format!("{at}/{index}")));
                }
            }
            "required" => {
                for name in value.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if document.is_object() && document.get(name).is_none() {
                        found.push(format!("{at}: {name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, property) in value.as_object().unwrap() {
                    if let Some(field) = document.get(name) {
                        found.extend(violations(root, property, field, &format!("{at}/{name}")));
                    }
                }
            }
            "additionalProperties" => {
                let known = schema["properties"].as_object();
                for (name, field) in document.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    match value {
                        Value::Bool(true) => {}
                        Value::Bool(false) => found.push(format!("{at}: {name} is unknown")),
                        rest => {
                            found.extend(violations(root, rest, field, &format!("{at}/{name}")))
                        }
                    }
                }
            }
            "oneOf" | "anyOf" => {
                let choices = value.as_array().unwrap().iter();
                let fitting = choices
                    .filter(|choice| violations(root, choice, document, at).is_empty())
                    .count();
                if fitting == 0 || (keyword == "oneOf" && fitting > 1) {
                    found.push(format!("{at}: {document} fits {fitting} of the choices"));
                }
            }
            unknown => found.push(format!("{at}: the schema says `{unknown}`")),
        }
    }
    found
}

fn is_of_type(document: &Value, name: &str) -> bool {
    match name {
        "null" => document.is_null(),
        "boolean" => document.is_boolean(),
        "string" => document.is_string(),
        "integer" => document.is_i64() || document.is_u64(),
        "number" => document.is_number(),
        "array" => document.is_array(),
        "object" => document.is_object(),
        _ => false,
    }
}

#[test]
fn synthetic_studies_need_no_data() {
    for (name, jobs) in [
        ("quickstart.yaml", 41),
        ("initialisation_ablation.yaml", 47),
    ] {
        assert_eq!(
            plan(&study(name, Some("quick")), None).unwrap().jobs.len(),
            jobs
        );
    }
}

#[test]
fn the_papers_profile_lacks_nothing_but_files() {
    let study = study("xlm_xnli.yaml", Some("paper"));
    assert_eq!(study.scale, Scale::Paper);
    let nothing = tempfile::tempdir().unwrap();
    let error = plan(&study, Some(nothing.path())).unwrap_err();
    let Missing(missing) = error.downcast_ref().unwrap();
    let missing = &missing.problems;
    for problem in missing {
        assert!(problem.message.contains("does not exist"), "{problem:?}");
        assert!(problem.place.is_some(), "{problem:?}");
    }
    // 15 languages of text, 14 of sentence pairs; XNLI: 15 dev and test sets, a training set, 14 translations of each.
    assert_eq!(missing.len(), 15 + 14 + 15 + 15 + 1 + 14 + 14);
}

#[test]
fn real_text_is_there_for_every_language() {
    let Some(data) = std::env::var_os("XLT_DATA") else {
        return;
    };
    for (name, profile) in [
        ("xlm_xnli.yaml", "small"),
        ("xlm_xnli.yaml", "gpu"),
        ("initialisation_ablation.yaml", "small"),
        ("xlm_supervised_mt.yaml", "small"),
        ("xlm_unsupervised_mt.yaml", "gpu"),
        ("xlm_low_resource_lm.yaml", "small"),
        ("xlm_word_embeddings.yaml", "small"),
    ] {
        let planned = plan(&study(name, Some(profile)), Some(Path::new(&data)));
        assert!(
            planned.is_ok(),
            "{name} {profile}: {:#}",
            planned.unwrap_err()
        );
    }
}

#[test]
fn masks_at_the_papers_scale_are_the_papers() {
    let mut checked = 0;
    for file in files() {
        let first = spec::read(&file, None).unwrap();
        for profile in &first.profiles {
            let study = spec::read(&file, Some(profile)).unwrap();
            for variant in study
                .variants
                .iter()
                .filter(|_| study.scale == Scale::Paper)
            {
                let document = serde_json::to_value(&variant.settings).unwrap().to_string();
                for masks in document.split(r#""masked_lm":"#).skip(1) {
                    checked += 1;
                    let paper =
                        r#"{"rate":0.15,"position_sampling":{"count_power":{"exponent":0.5}}"#;
                    assert!(
                        masks.starts_with(paper),
                        "{} {profile} {}: {}",
                        study.name,
                        variant.name,
                        &masks[..masks.len().min(80)]
                    );
                }
            }
        }
    }
    assert!(checked > 50, "{checked}");
}

/// The ablation says that its profiles have the settings of two other studies.
#[test]
fn the_ablation_has_the_settings_of_the_studies_that_it_names() {
    for (profile, other, other_profile) in [
        ("quick", "quickstart.yaml", "quick"),
        ("small", "xlm_xnli.yaml", "small"),
    ] {
        let ours = settings(&study("initialisation_ablation.yaml", Some(profile)), "mlm");
        let mut theirs = settings(&study(other, Some(other_profile)), "mlm");
        if let (Some(theirs), Some(ours)) = (&mut theirs.finetune, &ours.finetune) {
            theirs.regimes.clone_from(&ours.regimes);
            theirs.regime_languages = BTreeMap::new();
        }
        theirs.data.parallel.clear();
        theirs.data.parallel_validation = 0;
        theirs.data.nli.translated_test.clear();
        theirs.data.nli.translator = None;
        assert_eq!(ours, theirs, "{profile}");
    }
}
