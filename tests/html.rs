//! `report.html`: one page, self-contained, with everything that the results say.

use crate::fake_results::{Shape, results};
use std::collections::BTreeMap;
use xlt::report::results::Results;
use xlt::report::{ReportInput, render};
use xlt::spec::anchors::Anchors;
use xlt::spec::claims::Claim;
use xlt::spec::tables::Table;

fn claims() -> Vec<Claim> {
    let higher = |says: &str, higher: &str, than: &str| Claim {
        says: says.to_string(),
        higher: Some(higher.to_string()),
        than: Some(than.to_string()),
        on: Some("xnli/zero_shot/mean".to_string()),
        gate: true,
        ..Claim::default()
    };
    vec![
        higher(
            "MLM beats random initialisation <b>by far</b>",
            "mlm",
            "random",
        ),
        higher("CLM beats MLM", "clm", "mlm"),
        higher("MLM + TLM beats MLM", "mlm+tlm", "mlm"),
    ]
}

fn tables() -> Vec<Table> {
    let table = |name: &str, rest: &str| -> Table {
        serde_yaml::from_str(&format!("{{name: {name}, columns: languages, {rest}}}")).unwrap()
    };
    vec![
        table("zero_shot", "rows: variants, regime: zero_shot"),
        table("regimes", "rows: regimes"),
    ]
}

pub fn files(results: &Results, claims: &[Claim], tables: &[Table]) -> BTreeMap<String, Vec<u8>> {
    let input = ReportInput {
        results,
        claims,
        tables,
        labels: &BTreeMap::new(),
        anchors: &Anchors::default(),
        profile_is_paper: false,
    };
    render(&input).unwrap().0
}

fn page(results: &Results, claims: &[Claim], tables: &[Table]) -> String {
    String::from_utf8(files(results, claims, tables)["report.html"].clone()).unwrap()
}

#[test]
fn the_page_says_what_the_manifest_says() {
    let page = page(&results(&Shape::usual()), &claims(), &tables());
    let expected = [
        "Of 3 claims",
        "supported",
        "Scale: small.",
        "0123456789abcdef",
        "CC BY-NC 4.0",
        "Conneau et al. 2018",
        "word order of ab: verb last",
        "encoder_learning_rate 5.0e-5, batch_size 16",
        "61.25",
        "hypothesis only",
        "the loss was not finite at update 1200",
        "monolingual · en · tokens",
        "2,450,000",
        "XNLI 1.0&#x27;s machine translation",
        "0123abcd",
        "avx2",
        "&quot;hidden&quot;: 256",
    ];
    for text in expected {
        assert!(page.contains(text), "{text}");
    }
    assert_eq!(page.matches("<svg ").count(), 4);
}

#[test]
fn text_of_a_study_file_is_escaped() {
    let mut results = results(&Shape::usual());
    results.manifest.paper.url = "javascript:alert(1)".to_string();
    results.manifest.variants[1].label = "<img src=x onerror=alert(1)>".to_string();
    let page = page(&results, &claims(), &tables());
    assert!(page.contains("A made-up study of &lt;transfer&gt; &amp; its gaps"));
    assert!(
        page.contains("&lt;b&gt;by far&lt;&#x2f;b&gt;")
            || page.contains("&lt;b&gt;by far&lt;/b&gt;")
    );
    for text in ["<img", "<b>by far", "href=\"javascript"] {
        assert!(!page.contains(text), "{text}");
    }
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let page = page(&results(&Shape::usual()), &claims(), &tables());
    for text in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(text), "{text}");
    }
}

#[test]
fn cells_that_are_missing_or_at_chance_are_listed() {
    let page = page(&results(&Shape::usual()), &[], &[]);
    assert!(page.contains("<td>mlm+tlm</td><td>xnli&#x2f;translate_train, source_dev</td><td>missing</td><td>ko</td>")
        || page.contains("<td>mlm+tlm</td><td>xnli/translate_train, source_dev</td><td>missing</td><td>ko</td>"));
    assert!(page.contains("<td>collapsed</td>"));
    assert!(page.contains("The study makes no claims."));
}

#[test]
fn a_run_without_scores_still_has_a_page() {
    let mut results = results(&Shape::least());
    results.predictions.clear();
    results.scores.clear();
    results.curves.clear();
    results.manifest.configurations.clear();
    let page = page(&results, &[], &tables()[..1]);
    assert!(page.contains("There are no scores to draw yet."));
}

#[test]
fn a_report_is_the_same_twice() {
    let results = results(&Shape::least());
    assert_eq!(files(&results, &[], &[]), files(&results, &[], &[]));
}
