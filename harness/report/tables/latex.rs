//! Tables as LaTeX, for `\input`. They need the package booktabs and nothing else.

use super::{Entry, Layout, Origin, Row};

pub fn render(layout: &Layout) -> String {
    let columns = layout.columns.len() + 2;
    let mut text =
        String::from("% Needs \\usepackage{booktabs}.\n\\begin{table}[t]\n\\centering\n\\small\n");
    text.push_str(&format!(
        "\\caption{{{}}}\n\\label{{tab:{}}}\n",
        escape(&layout.caption),
        layout.name
    ));
    text.push_str(&format!(
        "\\begin{{tabular}}{{l{}}}\n\\toprule\n",
        "r".repeat(columns - 1)
    ));
    let header: Vec<String> = layout.columns.iter().map(|column| escape(column)).collect();
    text.push_str(&format!(" & seeds & {} \\\\\n", header.join(" & ")));
    for group in &layout.groups {
        text.push_str("\\midrule\n");
        if layout.groups.len() > 1 {
            text.push_str(&format!(
                "\\multicolumn{{{columns}}}{{l}}{{\\textit{{{}}}}} \\\\\n",
                escape(&group.title)
            ));
        }
        for row in &group.rows {
            let cells: Vec<String> = row.cells.iter().map(cell).collect();
            text.push_str(&format!(
                "{} & {} & {} \\\\\n",
                label(row),
                escape(&row.seeds()),
                cells.join(" & ")
            ));
        }
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    if !layout.notes.is_empty() {
        let notes: Vec<String> = layout.notes.iter().map(|note| escape(note)).collect();
        text.push_str(&format!(
            "\n\\smallskip\n{{\\footnotesize {}\\par}}\n",
            notes.join(" ")
        ));
    }
    text.push_str("\\end{table}\n");
    text
}

fn label(row: &Row) -> String {
    let label = escape(&row.label);
    match row.origin {
        Origin::Ours { .. } => label,
        Origin::Published { .. } if row.unverified() => {
            format!("\\textit{{{label}}}$^{{\\dagger}}$")
        }
        Origin::Published { .. } => format!("\\textit{{{label}}}"),
    }
}

fn cell(entry: &Option<Entry>) -> String {
    let Some(entry) = entry else {
        return "--".to_owned();
    };
    let mark = if entry.at_chance { "$^{*}$" } else { "" };
    match &entry.interval {
        Some(interval) => format!(
            "{}{mark}\\,{{\\scriptsize$\\pm${}}}",
            entry.text, interval.half_width
        ),
        None => format!("\\textit{{{}}}", escape(&entry.text)),
    }
}

/// Text that LaTeX prints as it stands.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => escaped.push_str("\\textbackslash{}"),
            '{' | '}' | '$' | '&' | '#' | '_' | '%' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '~' => escaped.push_str("\\textasciitilde{}"),
            '^' => escaped.push_str("\\textasciicircum{}"),
            '<' => escaped.push_str("$<$"),
            '>' => escaped.push_str("$>$"),
            '–' => escaped.push_str("--"),
            '−' => escaped.push_str("$-$"),
            '±' => escaped.push_str("$\\pm$"),
            '†' => escaped.push_str("$^{\\dagger}$"),
            '\n' | '\r' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
