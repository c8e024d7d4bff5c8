//! Tables as Markdown.

use super::{Entry, Layout, Origin, Row};
use crate::report::format;

pub fn render(layout: &Layout) -> String {
    let mut text = format!("**{}**\n\n", format::markdown(&layout.caption));
    let mut header = vec![String::new(), "seeds".to_owned()];
    header.extend(layout.columns.iter().map(|column| format::markdown(column)));
    line(&mut text, &header);
    let mut rule = vec!["---".to_owned()];
    rule.resize(header.len(), "---:".to_owned());
    line(&mut text, &rule);
    for group in &layout.groups {
        if layout.groups.len() > 1 {
            let mut title = vec![format!("**{}**", format::markdown(&group.title))];
            title.resize(header.len(), String::new());
            line(&mut text, &title);
        }
        for row in &group.rows {
            let mut cells = vec![label(row), row.seeds()];
            cells.extend(row.cells.iter().map(cell));
            line(&mut text, &cells);
        }
    }
    for note in &layout.notes {
        text.push_str(&format!("\n{}\n", format::markdown(note)));
    }
    text
}

fn label(row: &Row) -> String {
    let label = format::markdown(&row.label);
    match row.origin {
        Origin::Ours { .. } => label,
        Origin::Published { .. } if row.unverified() => format!("*{label}*†"),
        Origin::Published { .. } => format!("*{label}*"),
    }
}

fn cell(entry: &Option<Entry>) -> String {
    let Some(entry) = entry else {
        return format::DASH.to_owned();
    };
    let mark = if entry.at_chance { "\\*" } else { "" };
    match &entry.interval {
        Some(interval) => format!("{}{mark} ± {}", entry.text, interval.half_width),
        None => format!("*{}*", entry.text),
    }
}

fn line(text: &mut String, cells: &[String]) {
    text.push_str(&format!("| {} |\n", cells.join(" | ")));
}
