//! The notebook: valid, without outputs, and reading the results folder by its relative path.

use crate::fake_results::{Shape, results};
use serde_json::Value;
use std::collections::BTreeSet;
use xlt::report::notebook::{notebook, path};

fn document() -> Value {
    let results = results(&Shape::usual());
    serde_json::from_str(&notebook(&results.manifest).unwrap()).unwrap()
}

/// What nbformat 4.5 requires of a notebook and its cells.
#[test]
fn the_notebook_is_valid_and_has_no_outputs() {
    let document = document();
    assert_eq!(
        (&document["nbformat"], &document["nbformat_minor"]),
        (&Value::from(4), &Value::from(5))
    );
    assert!(document["metadata"].is_object());
    let mut names = BTreeSet::new();
    for cell in document["cells"].as_array().unwrap() {
        let name = cell["id"].as_str().unwrap();
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
        assert!(
            (1..=64).contains(&name.len()) && name.chars().all(allowed),
            "{name}"
        );
        assert!(names.insert(name.to_string()), "{name} occurs twice");
        assert!(cell["metadata"].is_object() && cell["source"].is_array());
        if cell["cell_type"] == "code" {
            assert!(cell["execution_count"].is_null() && cell["outputs"] == Value::Array(vec![]));
        } else {
            assert_eq!(cell["cell_type"], "markdown");
        }
    }
}

#[test]
fn the_notebook_finds_the_results_from_its_own_folder() {
    let results = results(&Shape::usual());
    assert_eq!(
        path(&results.manifest),
        "../../../notebooks-export/made-up/small.ipynb"
    );
    let text = notebook(&results.manifest).unwrap();
    assert!(text.contains(r#"results = Path(\"../../results/made-up/small\")"#));
    assert!(text.ends_with("}\n") && !text.contains("RESULTS_FOLDER"));
}
