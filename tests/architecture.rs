//! The shape of the program: who may know whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Path below `harness/` -> lines of code with their numbers: no comments, no unit tests.
fn sources() -> BTreeMap<String, Vec<(usize, String)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness");
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
                let text = fs::read_to_string(&path).unwrap();
                // Unit tests stand last in a file.
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
                let lines = code.lines().enumerate().filter(|(_, line)| {
                    let line = line.trim_start();
                    !line.starts_with("//")
                });
                let lines = lines.map(|(index, line)| (index + 1, line.to_owned()));
                found.insert(name.replace('\\', "/"), lines.collect());
            }
        }
    }
    assert!(found.len() > 50);
    found
}

/// `stages` of `stages/nli.rs`.
fn module(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.strip_suffix(".rs").unwrap_or(first)
}

/// The words behind `prefix` in a line: `data` of `use crate::data::text`, and of `use crate::{data, model}`.
fn named(line: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect()
    };
    let mut found = Vec::new();
    for (start, _) in line.match_indices(prefix) {
        let rest = &line[start + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(list.split(',').map(word)),
            None => found.push(word(rest)),
        }
    }
    found
}

/// The list in `lib.rs`, top first.
fn order() -> Vec<String> {
    let text = include_str!("../harness/lib.rs");
    let declared: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect();
    let listed: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("//! ")?.split_whitespace().next())
        .filter(|word| declared.contains(*word))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        listed.iter().cloned().collect::<BTreeSet<_>>(),
        declared,
        "the list in lib.rs names every module"
    );
    assert_eq!(
        listed.len(),
        declared.len(),
        "the list in lib.rs names a module twice"
    );
    listed
}

#[test]
fn a_module_imports_only_from_those_below_it() {
    let order = order();
    let height = |module: &str| order.iter().position(|name| name == module);
    let mut wrong = Vec::new();
    for (file, lines) in sources() {
        let Some(here) = height(module(&file)) else {
            assert!(["lib.rs", "main.rs"].contains(&file.as_str()), "{file}");
            continue;
        };
        for (number, line) in lines {
            for name in named(&line, "crate::") {
                match height(&name) {
                    Some(there) if there < here => {
                        wrong.push(format!("{file}:{number}: {}", line.trim()))
                    }
                    Some(_) => {}
                    None => panic!("{file}:{number}: no module `{name}` in lib.rs"),
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports from above:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn tables_plots_and_the_network_are_known_where_they_belong() {
    let belongs = |library: &str, file: &str| match library {
        "polars" => file.starts_with("report/") || file == "data/parquet.rs",
        "plotters" => file.starts_with("report/plots/"),
        "ureq" | "hf_hub" => file.starts_with("data/hub/"),
        "indicatif" => file.starts_with("execution/"),
        "clap" => file.starts_with("commands/") || file == "main.rs",
        "ctrlc" => file.starts_with("execution/"),
        _ => true,
    };
    for (file, lines) in sources() {
        for (number, line) in lines {
            for library in [
                "polars",
                "plotters",
                "ureq",
                "hf_hub",
                "indicatif",
                "clap",
                "ctrlc",
            ] {
                let uses = line.contains(&format!("{library}::"))
                    || line.contains(&format!("use {library};"));
                assert!(
                    !uses || belongs(library, &file),
                    "{file}:{number} knows {library}: {line}"
                );
            }
            assert!(
                !line.contains("std::net::") || file.starts_with("data/hub/"),
                "{file}:{number} knows the network: {line}"
            );
        }
    }
}

#[test]
fn nothing_that_was_read_can_make_the_program_panic() {
    for (file, lines) in sources() {
        for (number, line) in lines {
            for word in [".unwrap()", "panic!(", "todo!(", "unimplemented!(", "dbg!("] {
                assert!(!line.contains(word), "{file}:{number} has {word}: {line}");
            }
        }
    }
}

#[test]
fn randomness_comes_from_one_generator() {
    for (file, lines) in sources() {
        for (number, line) in lines {
            for word in [
                "rand::",
                "Tensor::rand",
                "VarMap",
                "thread_rng",
                "RandomState",
            ] {
                assert!(!line.contains(word), "{file}:{number} has {word}: {line}");
            }
        }
    }
}

#[test]
fn each_file_says_what_it_is_for() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = fs::read_dir(root.join("tests")).unwrap();
    let tests = tests
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let files = sources()
        .into_keys()
        .map(|file| root.join("harness").join(file));
    for path in files.chain(tests) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} has no word on what it is for",
            path.display()
        );
    }
}
