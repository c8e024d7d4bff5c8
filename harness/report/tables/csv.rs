//! Tables as CSV: the same rows and columns, with the ends of each interval beside its mean. Missing figures are empty.

use anyhow::{Context, Result};

use super::{Layout, Origin};

pub fn render(layout: &Layout) -> Result<Vec<u8>> {
    let mut writer = csv::WriterBuilder::new()
        .terminator(csv::Terminator::Any(b'\n'))
        .from_writer(Vec::new());
    let mut header: Vec<String> = ["regime", "row", "source", "seeds", "asked"]
        .map(str::to_owned)
        .to_vec();
    for column in &layout.columns {
        header.extend([
            column.clone(),
            format!("{column}_low"),
            format!("{column}_high"),
        ]);
    }
    writer
        .write_record(&header)
        .context("cannot encode a table's header")?;
    for group in &layout.groups {
        for row in &group.rows {
            let origin = match &row.origin {
                Origin::Ours { seeds, asked } => {
                    ["this run".to_owned(), seeds.to_string(), asked.to_string()]
                }
                Origin::Published {
                    paper,
                    verified: true,
                } => [paper.clone(), String::new(), String::new()],
                Origin::Published {
                    paper,
                    verified: false,
                } => [
                    format!("{paper} (unverified)"),
                    String::new(),
                    String::new(),
                ],
            };
            let mut fields = vec![group.regime.clone(), row.label.clone()];
            fields.extend(origin);
            for cell in &row.cells {
                let text = cell
                    .as_ref()
                    .map(|entry| entry.text.clone())
                    .unwrap_or_default();
                let interval = cell.as_ref().and_then(|entry| entry.interval.clone());
                let (low, high) = interval
                    .map(|interval| (interval.low, interval.high))
                    .unwrap_or_default();
                fields.extend([text, low, high]);
            }
            writer
                .write_record(&fields)
                .context("cannot encode a table's row")?;
        }
    }
    writer.into_inner().context("cannot finish a table")
}
