//! Tables in Markdown, LaTeX and CSV.

use std::collections::BTreeMap;

use crate::sample;
use xlt::report::ReportInput;
use xlt::report::results::Results;
use xlt::report::summary::Summary;
use xlt::report::tables::{csv, latex, layout, markdown};
use xlt::spec::anchors::{Anchor, Anchors};
use xlt::spec::claims::Names;
use xlt::spec::tables::{PaperRows, Table, TableColumns, TableRows};

fn anchors() -> Anchors {
    let row = |row: &str, setting: &str, figures: &[(&str, &str)], verified| {
        let figure = |(language, printed): &(&str, &str)| Anchor {
            paper: "XLM & co".to_owned(),
            table: "Table 1".to_owned(),
            row: row.to_owned(),
            setting: setting.to_owned(),
            language: (*language).to_owned(),
            metric: "accuracy".to_owned(),
            printed: (*printed).to_owned(),
            value: printed.parse().ok(),
            source: "a source".to_owned(),
            verified,
            note: String::new(),
        };
        figures.iter().map(figure).collect::<Vec<_>>()
    };
    let mut rows = row(
        "XLM (MLM)",
        "zero-shot",
        &[
            ("en", "83.2"),
            ("fr", "76.5"),
            ("sw", "66.4"),
            ("avg", "71.5"),
            ("ur", "65.3"),
        ],
        true,
    );
    rows.extend(row(
        "same languages",
        "zero-shot",
        &[
            ("en", "80.0"),
            ("fr", "70.0"),
            ("sw", "60.0"),
            ("avg", "70.2"),
        ],
        false,
    ));
    rows.extend(row(
        "English only",
        "translate-train",
        &[("en", "81.9")],
        true,
    ));
    Anchors {
        files: BTreeMap::from([("xlm_table1_xnli".to_owned(), rows)]),
    }
}

fn table(rows: TableRows, columns: TableColumns) -> Table {
    let of_variants = rows == TableRows::Variants;
    Table {
        name: "main".to_owned(),
        rows,
        columns,
        task: "xnli".to_owned(),
        regime: of_variants.then(|| "zero_shot".to_owned()),
        select: None,
        metric: None,
        paper_rows: (columns == TableColumns::Languages).then(|| PaperRows {
            anchor: "xlm_table1_xnli".to_owned(),
            rows: Vec::new(),
        }),
        caption: None,
    }
}

fn rendered(results: &Results, table: &Table) -> (String, String, String) {
    let (labels, anchors) = (
        BTreeMap::from([("random".to_owned(), "random_init".to_owned())]),
        anchors(),
    );
    let input = ReportInput {
        results,
        claims: &[],
        tables: &[],
        labels: &labels,
        anchors: &anchors,
        profile_is_paper: false,
    };
    let layout = layout(table, &input, &Summary::new(results));
    let csv = String::from_utf8(csv::render(&layout).unwrap()).unwrap();
    (markdown::render(&layout), latex::render(&layout), csv)
}

fn partial() -> Results {
    // Four seeds asked; seed 4 has not run, and `random` has not run in Swahili at all.
    sample::results(
        sample::manifest(&[1, 2, 3, 4]),
        |variant, regime, language, seed| {
            if seed == 4 || (variant == "random" && language == "sw" && regime == "zero_shot") {
                return None;
            }
            Some(if variant == "mlm" { 0.7 } else { 0.3333 })
        },
    )
}

#[test]
fn papers_rows_stand_beside_ours_with_intervals_and_dashes() {
    let (markdown, latex, csv) = rendered(
        &partial(),
        &table(TableRows::Variants, TableColumns::Languages),
    );
    for line in [
        "**XNLI: test accuracy in percent, zero-shot, selected on source\\_dev.**",
        "|  | seeds | en | fr | sw | mean |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        // (83.2 + 76.5 + 66.4) / 3: the paper's own average is over other languages.
        "| *XLM (MLM)* | – | *83.2* | *76.5* | *66.4* | *75.4* |",
        "| *same languages*† | – | *80.0* | *70.0* | *60.0* | *70.2* |",
        "Run at small scale.",
        "± is half of the 95 % interval over other seeds and other test items; 600 test examples per language.",
        "† From memory, not verified in a source.",
    ] {
        assert!(
            markdown.lines().any(|found| found == line),
            "{line}\n in\n{markdown}"
        );
    }
    let ours = markdown
        .lines()
        .find(|line| line.starts_with("| random\\_init | 3/4 |"))
        .unwrap();
    assert!(ours.ends_with("| – | – |"), "{ours}");
    assert!(
        latex.contains("random\\_init & 3/4 &") && latex.contains("-- & -- \\\\"),
        "{latex}"
    );
    assert!(latex.contains("XLM \\& co"), "{latex}");
    let first = csv.lines().next().unwrap();
    assert!(
        first.starts_with("regime,row,source,seeds,asked,en,en_low,en_high,fr,"),
        "{first}"
    );
    assert!(
        csv.contains("zero_shot,XLM (MLM),XLM & co,,,83.2,,,76.5,,,66.4,,,75.4,,\n"),
        "{csv}"
    );
    assert!(
        csv.contains("zero_shot,same languages,XLM & co (unverified),"),
        "{csv}"
    );
}

#[test]
fn latex_needs_booktabs_only_and_is_balanced() {
    let (_, latex, _) = rendered(
        &partial(),
        &table(TableRows::Regimes, TableColumns::Languages),
    );
    assert_eq!(latex.matches("\\usepackage").count(), 1);
    assert_eq!(
        latex.matches("\\begin{").count(),
        latex.matches("\\end{").count()
    );
    assert_eq!(latex.matches("\\midrule").count(), 2);
    let braces = |letter: char| {
        latex.matches(letter).count() - latex.matches(&format!("\\{letter}")).count()
    };
    assert_eq!(braces('{'), braces('}'));
    let columns = |line: &str| line.replace("\\&", "").matches('&').count();
    let rows: Vec<&str> = latex
        .lines()
        .filter(|line| line.ends_with("\\\\") && line.contains(" & "))
        .collect();
    assert!(rows.iter().all(|row| columns(row) == 5), "{latex}");
    assert_eq!(
        latex::escape("50 % of a_b ± #1 {x} −"),
        "50 \\% of a\\_b $\\pm$ \\#1 \\{x\\} $-$"
    );
}

#[test]
fn a_table_of_regimes_groups_its_rows() {
    let (markdown, _, csv) = rendered(
        &partial(),
        &table(TableRows::Regimes, TableColumns::Languages),
    );
    let place = |text: &str| {
        markdown
            .find(text)
            .unwrap_or_else(|| panic!("{text} in\n{markdown}"))
    };
    assert!(place("**zero-shot**") < place("**translate-train**"));
    assert!(place("**translate-train**") < place("| *English only* | – | *81.9* | – | – | – |"));
    assert_eq!(
        csv.lines()
            .filter(|line| line.starts_with("translate_train,"))
            .count(),
        3
    );
}

#[test]
fn a_table_of_selection_rules_shows_them_side_by_side() {
    let (markdown, ..) = rendered(
        &partial(),
        &table(TableRows::Variants, TableColumns::Selections),
    );
    assert!(
        markdown.contains("|  | seeds | source\\_dev | target\\_dev |"),
        "{markdown}"
    );
    assert!(
        markdown.contains("Uses labels of the target languages: target\\_dev."),
        "{markdown}"
    );
}

#[test]
fn tables_name_selection_on_target_labels() {
    let mut table = table(TableRows::Variants, TableColumns::Languages);
    table.select = Some("target_dev".to_owned());
    assert!(
        rendered(&partial(), &table)
            .0
            .contains("selected on target\\_dev (uses target labels)")
    );
}

#[test]
fn cells_at_chance_are_marked_and_mixed_machines_said() {
    let mut results = partial();
    results
        .manifest
        .provenance
        .instruction_sets
        .push("avx2".to_owned());
    for one in results
        .predictions
        .iter_mut()
        .filter(|one| one.cell.variant == "random")
    {
        for item in &mut one.items {
            item.predicted = 1;
        }
    }
    let (markdown, latex, _) = rendered(
        &results,
        &table(TableRows::Variants, TableColumns::Languages),
    );
    assert!(markdown.contains("| 33.3\\* ± 0.0 |"), "{markdown}");
    assert!(
        markdown.contains("\\* A seed of it is at chance; it stays in the mean."),
        "{markdown}"
    );
    assert!(latex.contains("33.3$^{*}$"), "{latex}");
    assert!(
        markdown.contains("different kinds of machine (cpu; avx512, avx2)"),
        "{markdown}"
    );
}

#[test]
fn wrong_tables_are_told_what_would_be_right() {
    let anchors = anchors();
    let names = Names {
        variants: vec!["mlm".to_owned()],
        evaluations: vec![(
            "xnli".to_owned(),
            "zero_shot".to_owned(),
            vec!["en".to_owned()],
        )],
        selections: vec!["source_dev".to_owned()],
        anchors: &anchors,
    };
    for (fields, expected) in [
        (
            "{name: a, rows: variants, columns: languages, regime: zero_shot}",
            "",
        ),
        ("{name: a, rows: regimes, columns: selections}", ""),
        (
            "{name: A b, rows: regimes, columns: languages}",
            "name: `A b` cannot be a file name on every machine; use lower-case letters, digits, `_` and `-`",
        ),
        (
            "{name: a, rows: variants, columns: languages}",
            "regime: a table of variants lacks `regime`; add `regime`",
        ),
        (
            "{name: a, rows: variants, columns: languages, regime: zeroshot}",
            "regime: unknown regime `zeroshot`; did you mean `zero_shot`?",
        ),
        (
            "{name: a, rows: regimes, columns: languages, regime: zero_shot}",
            "regime: a table of regimes shows all of them; remove `regime`, or write `rows: variants`",
        ),
        (
            "{name: a, rows: regimes, columns: languages, task: xnl}",
            "task: unknown task `xnl`; did you mean `xnli`?",
        ),
        (
            "{name: a, rows: regimes, columns: languages, select: sorce_dev}",
            "select: unknown selection rule `sorce_dev`; did you mean `source_dev`?",
        ),
        (
            "{name: a, rows: regimes, columns: languages, paper_rows: {anchor: xlm_table1}}",
            "paper_rows.anchor: there is no anchor file `xlm_table1.csv`; name a file of experiments/anchors without `.csv`",
        ),
        (
            "{name: a, rows: regimes, columns: languages, paper_rows: {anchor: xlm_table1_xnli, rows: [XLM (CLM)]}}",
            "paper_rows.rows: the paper's table has no row `XLM (CLM)`; did you mean `XLM (MLM)`?",
        ),
    ] {
        let table: Table = serde_yaml::from_str(fields).unwrap();
        let problems: Vec<String> = table
            .validate(&names)
            .into_iter()
            .map(|problem| format!("{}: {}; {}", problem.field, problem.what, problem.remedy))
            .collect();
        assert_eq!(problems.join("\n"), expected, "{fields}");
    }
}
