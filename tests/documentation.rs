//! What the documents say of the program is so: fields, commands, options, files, tests, figures.
//!
//! `XLT_UPDATE_DOCS=1 cargo test --release documentation` writes anew what is made from the program and its results:
//! `docs/study-file.md` and the tables of `README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xlt::commands::schema::{self, Format};

const UPDATE: &str = "XLT_UPDATE_DOCS";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// README, everything in docs/, the note beside the anchors.
fn documents() -> Vec<String> {
    let mut names = vec![
        "README.md".to_owned(),
        "experiments/anchors/README.md".to_owned(),
    ];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    names.sort();
    names
}

/// Fails, naming the first line that differs; or writes the file where that is asked for.
fn assert_current(name: &str, wanted: &str) {
    let path = root().join(name);
    let there = fs::read_to_string(&path).unwrap_or_default();
    if there == wanted {
        return;
    }
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, wanted).unwrap();
        return;
    }
    let line = there
        .lines()
        .zip(wanted.lines())
        .position(|(there, wanted)| there != wanted)
        .unwrap_or_else(|| there.lines().count().min(wanted.lines().count()));
    panic!(
        "{name} is stale from line {}: \"{}\" is there, \"{}\" would be written; \
         mend it with `{UPDATE}=1 cargo test --release documentation`",
        line + 1,
        there.lines().nth(line).unwrap_or("nothing"),
        wanted.lines().nth(line).unwrap_or("nothing"),
    );
}

#[test]
fn the_page_of_the_study_file_is_what_the_program_prints() {
    let mut page = Vec::new();
    let arguments = schema::Arguments {
        format: Format::Markdown,
    };
    schema::run(arguments, &mut page).unwrap();
    assert_current("docs/study-file.md", &String::from_utf8(page).unwrap());
}

/// A file as it is committed; as it lies there where nothing is, or without git.
fn committed(name: &str) -> String {
    let shown = Command::new("git")
        .args(["show", &format!("HEAD:./{name}")])
        .current_dir(root())
        .output();
    match shown {
        Ok(shown) if shown.status.success() => String::from_utf8(shown.stdout).unwrap(),
        _ => read(name),
    }
}

/// `<!-- from PATH -->` and `<!-- end -->` enclose the text of a file of results.
fn with_tables(readme: &str, of: fn(&str) -> String) -> String {
    let mut wanted = String::new();
    let mut rest = readme;
    let mut included = 0;
    while let Some(start) = rest.find("<!-- from ") {
        let opened = start + rest[start..].find("-->").expect("a marker ends with -->") + 3;
        let source = rest[start + "<!-- from ".len()..opened - 3].trim();
        let end = opened
            + rest[opened..]
                .find("<!-- end -->")
                .expect("an included text ends with <!-- end -->");
        wanted.push_str(&rest[..opened]);
        wanted.push_str(&format!("\n{}\n", of(source).trim_end()));
        rest = &rest[end..];
        included += 1;
    }
    wanted.push_str(rest);
    assert!(included > 0, "README.md includes no table of results");
    wanted
}

/// The quickstart, run on a processor of another kind, leaves other last digits in the checkout: they are not the README's.
#[test]
fn tables_in_the_readme_are_those_of_the_results() {
    let readme = read("README.md");
    if readme != with_tables(&readme, committed) {
        assert_current("README.md", &with_tables(&readme, read));
    }
}

/// Text between backticks and lines of code blocks, with the document they stand in.
fn code() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for document in documents() {
        let text = read(&document);
        let mut fenced = false;
        let mut prose = String::new();
        for line in text.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if fenced || line.starts_with("    ") {
                found.push((document.clone(), line.trim().to_owned()));
            } else {
                prose.push_str(line);
                prose.push(' ');
            }
        }
        let spans = prose.split('`').skip(1).step_by(2);
        found.extend(spans.map(|span| (document.clone(), span.to_owned())));
    }
    found
}

/// `run` -> its help; `store list` -> its help; the empty name -> the program's.
fn helps() -> BTreeMap<String, String> {
    let help = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_xlt"))
            .args(words)
            .arg("--help")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let commands = |text: &str| -> Vec<String> {
        let Some((_, list)) = text.split_once("\nCommands:\n") else {
            return Vec::new();
        };
        list.lines()
            .take_while(|line| !line.is_empty())
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| *name != "help")
            .map(str::to_owned)
            .collect()
    };
    let whole = help(&[]);
    let mut helps = BTreeMap::new();
    for command in commands(&whole) {
        let text = help(&[&command]);
        for inner in commands(&text) {
            helps.insert(format!("{command} {inner}"), help(&[&command, &inner]));
        }
        helps.insert(command, text);
    }
    helps.insert(String::new(), whole);
    helps
}

fn has_option(help: &str, option: &str) -> bool {
    help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .any(|word| word == option)
}

#[test]
fn documents_name_only_commands_and_options_that_there_are() {
    let helps = helps();
    assert!(helps.len() > 10, "{:?}", helps.keys());
    let known = |option: &str| helps.values().any(|help| has_option(help, option));
    let mut calls = 0;
    for (document, span) in code() {
        let call = span
            .strip_prefix("xlt ")
            .or_else(|| Some(span.split_once("cargo run --release -- ")?.1));
        let words: Vec<&str> = call.unwrap_or_default().split_whitespace().collect();
        let options: BTreeSet<&str> = span
            .split_whitespace()
            .filter(|word| word.starts_with("--") && word.len() > 2)
            .map(|word| word.split('=').next().unwrap_or(word))
            .filter(|option| *option != "--release")
            .collect();
        let Some(command) = words.first() else {
            // An option by itself, or one of another program.
            for option in options.iter().filter(|_| span.starts_with("--")) {
                assert!(known(option), "{document}: no command has {option}");
            }
            continue;
        };
        calls += 1;
        let inner = words.get(1).map(|word| format!("{command} {word}"));
        let help = inner
            .and_then(|name| helps.get(&name))
            .or_else(|| helps.get(*command))
            .unwrap_or_else(|| panic!("{document}: `xlt {command}` is no command: `{span}`"));
        for option in options {
            assert!(
                has_option(help, option),
                "{document}: `xlt {command}` has no {option}: `{span}`"
            );
        }
    }
    assert!(calls > 10, "only {calls} calls were found");
}

#[test]
fn files_that_documents_name_are_there() {
    let folders = [
        "harness/",
        "tests/",
        "docs/",
        "experiments/",
        "benches/",
        "results/",
        ".ci/",
    ];
    let mut named = 0;
    for (document, span) in code() {
        let path = span.split("::").next().unwrap_or_default();
        let pattern = path.contains(['<', '{', '*', ' ']);
        if !folders.iter().any(|folder| path.starts_with(folder)) || pattern {
            continue;
        }
        named += 1;
        assert!(root().join(path).exists(), "{document} names {path}");
    }
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            named += 1;
            let from: PathBuf = root().join(&document);
            let path = from.parent().unwrap().join(target);
            assert!(path.exists(), "{document} links to {target}");
        }
    }
    assert!(named > 30, "only {named} files are named");
}

/// Every id of the list, once each; and beside it a test that exists, or why there is none.
#[test]
fn every_pitfall_ends_in_a_test_or_a_reason() {
    let text = read("docs/pitfalls.md");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| P"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let ids: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let wanted: Vec<String> = (1..=33).map(|number| format!("P{number:02}")).collect();
    assert_eq!(ids, wanted);
    let mut borne = 0;
    for row in &rows {
        let tests: Vec<&str> = row[2]
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|span| span.contains(".rs::"))
            .collect();
        for test in &tests {
            let (file, name) = test.split_once("::").unwrap();
            let source = read(file);
            let there = source.contains(&format!("fn {name}("));
            assert!(there, "{}: {file} has no test {name}", row[0]);
        }
        borne += usize::from(!tests.is_empty());
        let reason = row[2].starts_with("No test") || row[2].starts_with("Not built");
        assert!(
            tests.is_empty() == reason,
            "{}: a test, or \"No test\" or \"Not built\" and why",
            row[0]
        );
    }
    assert!(borne >= 20, "only {borne} pitfalls end in a test");
}
