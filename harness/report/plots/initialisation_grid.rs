//! BLEU by what the encoder and what the decoder starts from, as Table 2 of Lample and Conneau (2019) has it: a heat map with
//! the figure in each cell, one panel per direction and one for their mean.

use super::canvas::{Anchor, Canvas, Colour};
use super::frame::{self, WIDTH, bold, lettering};
use super::{Material, text};
use crate::report::format;
use crate::report::summary::Estimate;
use crate::spec::TRANSLATION_TASK;
use crate::spec::claims::MEAN;
use crate::spec::settings::Settings;
use crate::spec::translation::Start;
use anyhow::Result;

/// Heights and widths of a cell, and the room beside and above the cells of a panel.
const CELL: (f64, f64) = (74.0, 46.0);
const BESIDE: f64 = 108.0;
const ABOVE: f64 = 74.0;
const GAP: f64 = 26.0;

/// Where there is one variant for each of two encoder starts or more, or of two decoder starts.
pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let Some(evaluation) = manifest
        .evaluations
        .iter()
        .find(|evaluation| evaluation.task == TRANSLATION_TASK)
    else {
        return Ok(None);
    };
    let (mut encoders, mut decoders): (Vec<String>, Vec<String>) = Default::default();
    let mut cells: Vec<(usize, usize, &str)> = Vec::new();
    for variant in &manifest.variants {
        let Some((encoder, decoder)) = starts(material, &variant.name) else {
            return Ok(None);
        };
        let (row, column) = (place(&mut encoders, encoder), place(&mut decoders, decoder));
        // Two variants with the same starts differ in something else: no grid shows that.
        if cells.iter().any(|cell| (cell.0, cell.1) == (row, column)) {
            return Ok(None);
        }
        cells.push((row, column, &variant.name));
    }
    if encoders.len() < 2 && decoders.len() < 2 {
        return Ok(None);
    }
    let several = evaluation.languages.len() > 1;
    let directions: Vec<&str> = several
        .then_some(MEAN)
        .into_iter()
        .chain(evaluation.languages.iter().map(String::as_str))
        .collect();
    let estimate = |variant: &str, direction: &str| -> Option<Estimate> {
        let query = material.query(variant, TRANSLATION_TASK, &evaluation.regime, direction);
        material.summary.estimate(&query)
    };
    let panels: Vec<(&str, Vec<Option<Estimate>>)> = directions
        .iter()
        .map(|direction| {
            let of_cell = |cell: &(usize, usize, &str)| estimate(cell.2, direction);
            (*direction, cells.iter().map(of_cell).collect())
        })
        .collect();
    let all = || {
        panels
            .iter()
            .flat_map(|(_, estimates)| estimates.iter().flatten())
    };
    if all().next().is_none() {
        return Ok(None);
    }
    let high = all().map(|estimate| estimate.mean).fold(1.0, f64::max);
    let title = "Test BLEU by initialisation";
    let scores = manifest.translation_scores.as_ref();
    let signature = scores.map_or("", |scores| scores.bleu_signature.as_str());
    let subtitle = format!(
        "Study {}, profile {}. Rows: what the encoder starts from; columns: what the decoder starts from. {}, {signature}. Below each figure: half of its 95 % interval. Darker is higher, from 0 to {high:.0}. {} {}",
        manifest.study,
        manifest.profile,
        format::capital(&format::regime(&evaluation.regime)),
        material.selection_sentence(TRANSLATION_TASK),
        material.scale_sentence().unwrap_or_default()
    );
    let mut canvas = Canvas::new(WIDTH, 0.0, title);
    let top = frame::header(&mut canvas, title, &subtitle, &[])?;
    let width = BESIDE + decoders.len() as f64 * CELL.0 + GAP;
    let height = ABOVE + encoders.len() as f64 * CELL.1 + GAP;
    let columns = ((WIDTH / width) as usize).clamp(1, panels.len());
    for (index, (direction, estimates)) in panels.iter().enumerate() {
        let left = (index % columns) as f64 * width + BESIDE;
        let top = top + (index / columns) as f64 * height + ABOVE;
        let name = if *direction == MEAN {
            format!("mean of {} directions", evaluation.languages.len())
        } else {
            (*direction).to_owned()
        };
        canvas.text(
            (left, top - 50.0),
            &name,
            bold(12.0, frame::INK, Anchor::Start),
        );
        canvas.text(
            (left, top - 30.0),
            "decoder",
            lettering(10.5, frame::SOFT, Anchor::Start),
        );
        canvas.text(
            (left - 10.0, top - 30.0),
            "encoder",
            lettering(10.5, frame::SOFT, Anchor::End),
        );
        for (column, decoder) in decoders.iter().enumerate() {
            let x = left + (column as f64 + 0.5) * CELL.0;
            let shown = text::shorten(decoder, false, CELL.0 / 11.5)?;
            canvas.text(
                (x, top - 10.0),
                &shown,
                lettering(11.5, frame::INK, Anchor::Middle),
            );
        }
        for (row, encoder) in encoders.iter().enumerate() {
            let y = top + (row as f64 + 0.5) * CELL.1 + 4.0;
            let shown = text::shorten(encoder, false, (BESIDE - 14.0) / 11.5)?;
            canvas.text(
                (left - 10.0, y),
                &shown,
                lettering(11.5, frame::INK, Anchor::End),
            );
        }
        for ((row, column, _), estimate) in cells.iter().zip(estimates) {
            let corner = (left + *column as f64 * CELL.0, top + *row as f64 * CELL.1);
            draw_cell(&mut canvas, corner, estimate.as_ref(), high);
        }
    }
    let rows = panels.len().div_ceil(columns);
    canvas.height = (top + rows as f64 * height + 6.0).ceil();
    Ok(Some(canvas))
}

fn draw_cell(canvas: &mut Canvas, (x, y): (f64, f64), estimate: Option<&Estimate>, high: f64) {
    let share = estimate.map_or(0.0, |estimate| (estimate.mean / high).clamp(0.0, 1.0));
    let fill = shade(share);
    let (right, bottom) = (x + CELL.0 - 2.0, y + CELL.1 - 2.0);
    canvas.polygon(&[(x, y), (right, y), (right, bottom), (x, bottom)], fill);
    let ink = if share > 0.55 {
        frame::WHITE
    } else {
        frame::INK
    };
    let middle = (x + right) / 2.0;
    let Some(estimate) = estimate else {
        let style = lettering(12.0, frame::SOFT, Anchor::Middle);
        canvas.text((middle, y + CELL.1 / 2.0 + 3.0), "–", style);
        return;
    };
    canvas.text(
        (middle, y + CELL.1 / 2.0 - 1.0),
        &format!("{:.1}", estimate.mean),
        bold(13.0, ink, Anchor::Middle),
    );
    let half = (estimate.high - estimate.mean).max(estimate.mean - estimate.low);
    canvas.text(
        (middle, y + CELL.1 / 2.0 + 14.0),
        &format!("± {half:.1}"),
        lettering(10.0, ink, Anchor::Middle),
    );
}

/// White to dark blue: lightness alone tells the order, for any colour vision and in print.
fn shade(share: f64) -> Colour {
    let mix = |from: f64, to: f64| (from + share * (to - from)).round() as u8;
    plotters::style::RGBColor(mix(240.0, 0.0), mix(244.0, 60.0), mix(249.0, 110.0))
}

fn place(known: &mut Vec<String>, name: String) -> usize {
    match known.iter().position(|other| *other == name) {
        Some(index) => index,
        None => {
            known.push(name);
            known.len() - 1
        }
    }
}

/// What both sides of a variant start from.
fn starts(material: &Material, variant: &str) -> Option<(String, String)> {
    let settings = material.input.results.manifest.settings.get(variant)?;
    let settings: Settings = serde_json::from_value(settings.clone()).ok()?;
    let translation = settings.translation.as_ref()?;
    let name = |start: &Start| {
        let objectives = start.objectives().or_else(|| {
            let pretrain = settings.pretrain.settings()?;
            Some(&pretrain.objectives)
        });
        let names: Vec<&str> = objectives
            .into_iter()
            .flatten()
            .map(|objective| objective.abbreviation())
            .collect();
        let names = names.join("+");
        match start {
            Start::Random => "random".to_owned(),
            Start::Embeddings { .. } => format!("{names} emb."),
            Start::Pretrained {
                embeddings: true, ..
            } => names,
            Start::Pretrained {
                embeddings: false, ..
            } => format!("{names} layers"),
        }
    };
    Some((name(&translation.encoder), name(&translation.decoder)))
}
