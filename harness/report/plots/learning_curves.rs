//! Learning curves: validation perplexity during pretraining and dev accuracy during fine-tuning, one line per run.

use super::canvas::{Anchor, Canvas, Point};
use super::frame::{self, Area, Axis, LEFT, WIDTH, bold, lettering};
use super::{Material, text};
use crate::metrics::CHANCE;
use crate::report::manifest::Languages;
use crate::report::scores::{CurvePoint, CurveStage};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// Which panel a point belongs to: stage, the series' name without its language, and on which side of the transfer the
/// language is.
type PanelKey = (CurveStage, String, Side);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// Pretraining: all languages together.
    Every,
    Source,
    Targets,
    /// A language by itself, where runs have not the same ones.
    One(String),
}

/// One run's line: variant, pretraining seed, fine-tuning seed.
type Run = (usize, u64, Option<u64>);

/// For each run, for each place on the horizontal axis, the values of the languages.
type Lines = BTreeMap<Run, BTreeMap<u64, BTreeMap<String, f64>>>;

const HEIGHT: f64 = 190.0;
const ABOVE: f64 = 24.0;
const BELOW: f64 = 52.0;
const COLUMNS: usize = 2;

pub(super) fn draw(material: &Material) -> Result<Option<Canvas>> {
    let manifest = &material.input.results.manifest;
    let mut panels: BTreeMap<PanelKey, Lines> = BTreeMap::new();
    for point in material
        .input
        .results
        .curves
        .iter()
        .filter(|point| point.value.is_finite())
    {
        let variant = manifest
            .variants
            .iter()
            .position(|variant| variant.name == point.variant);
        let Some(variant) = variant else { continue };
        let (key, language) = place(point, &manifest.languages);
        let run = (variant, point.pretrain_seed, point.finetune_seed);
        let lines = panels.entry(key).or_default().entry(run).or_default();
        lines
            .entry(point.tokens)
            .or_default()
            .insert(language, point.value);
    }
    if panels.is_empty() {
        return Ok(None);
    }
    let panels = comparable(panels);
    let title = "Learning curves";
    let subtitle = format!(
        "Study {}, profile {}. One line per run, from its first validation to its last; runs of a variant differ in their seeds. \
         Languages are averaged as each panel says. {}",
        manifest.study,
        manifest.profile,
        material.scale_sentence().unwrap_or_default()
    );
    let mut canvas = Canvas::new(WIDTH, 0.0, title);
    let top = frame::header(&mut canvas, title, &subtitle, &material.variant_labels())?;
    let width = (WIDTH - 12.0) / COLUMNS as f64;
    for (index, (key, lines)) in panels.iter().enumerate() {
        let (row, column) = (index / COLUMNS, index % COLUMNS);
        let left = column as f64 * width;
        let top = top + row as f64 * (ABOVE + HEIGHT + BELOW) + ABOVE;
        let area = Area {
            left: left + LEFT,
            right: left + width - 8.0,
            top,
            bottom: top + HEIGHT,
        };
        draw_panel(&mut canvas, area, key, lines, &manifest.languages)?;
    }
    let rows = panels.len().div_ceil(COLUMNS);
    canvas.height = (top + rows as f64 * (ABOVE + HEIGHT + BELOW) + 4.0).ceil();
    Ok(Some(canvas))
}

/// Means over other languages are not to be compared: where runs have not the same ones, each language has a panel.
fn comparable(panels: BTreeMap<PanelKey, Lines>) -> BTreeMap<PanelKey, Lines> {
    let mut split: BTreeMap<PanelKey, Lines> = BTreeMap::new();
    for ((stage, measure, side), lines) in panels {
        let languages = |line: &BTreeMap<u64, BTreeMap<String, f64>>| -> BTreeSet<String> {
            line.values().flat_map(BTreeMap::keys).cloned().collect()
        };
        let sets: BTreeSet<BTreeSet<String>> = lines.values().map(languages).collect();
        if sets.len() <= 1 {
            split.insert((stage, measure, side), lines);
            continue;
        }
        for (run, line) in lines {
            for (place, values) in line {
                for (language, value) in values {
                    let key = (stage, measure.clone(), Side::One(language.clone()));
                    let lines = split.entry(key).or_default().entry(run).or_default();
                    lines.entry(place).or_default().insert(language, value);
                }
            }
        }
    }
    split
}

/// The panel of a point and the language (or pair) in its series' name; empty when there is none.
fn place(point: &CurvePoint, languages: &Languages) -> (PanelKey, String) {
    let known = |word: &str| {
        word == languages.source || languages.targets.iter().any(|target| target == word)
    };
    let mut words: Vec<&str> = point.series.split_whitespace().collect();
    // Of pretraining it stands third, be it one that is pretrained on only.
    let named = match point.stage {
        CurveStage::Pretrain if words.len() > 3 => Some(2),
        _ => words
            .iter()
            .position(|word| word.split('-').all(known) || known(word)),
    };
    let language = named.map(|index| words.remove(index)).unwrap_or_default();
    let side = match point.stage {
        CurveStage::Pretrain | CurveStage::Translation => Side::Every,
        CurveStage::Finetune if language == languages.source => Side::Source,
        CurveStage::Finetune if language.is_empty() => Side::Every,
        CurveStage::Finetune => Side::Targets,
    };
    ((point.stage, words.join(" "), side), language.to_string())
}

/// The run's line: a mean over languages wherever all languages of the run have a value.
fn line(values: &BTreeMap<u64, BTreeMap<String, f64>>, geometric: bool) -> Vec<Point> {
    let all = values.values().map(BTreeMap::len).max().unwrap_or(0);
    let complete = values
        .iter()
        .filter(|(_, languages)| languages.len() == all);
    complete
        .filter_map(|(place, languages)| {
            let count = languages.len() as f64;
            let mean = if geometric {
                (languages.values().map(|value| value.ln()).sum::<f64>() / count).exp()
            } else {
                languages.values().sum::<f64>() / count
            };
            mean.is_finite().then_some((*place as f64, mean))
        })
        .collect()
}

fn draw_panel(
    canvas: &mut Canvas,
    area: Area,
    key: &PanelKey,
    lines: &Lines,
    languages: &Languages,
) -> Result<()> {
    let (stage, measure, side) = key;
    // Perplexities are averaged as logarithms: the mean cross-entropy, exponentiated.
    let geometric = measure.contains("perplexity");
    let drawn: Vec<(usize, Vec<Point>)> = lines
        .iter()
        .map(|(run, values)| (run.0, line(values, geometric)))
        .collect();
    let points = || drawn.iter().flat_map(|(_, points)| points.iter());
    let percent = measure.contains("accuracy");
    let (mut low, mut high) = points()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), point| {
            (low.min(point.1), high.max(point.1))
        });
    if percent {
        (low, high) = (low.min(CHANCE), high.max(CHANCE));
    }
    let vertical = if geometric && low > 0.0 && high.is_finite() {
        Axis::logarithmic(low, high)
    } else if low <= high {
        Axis::around(low, high, 5.0)
    } else {
        Axis::around(0.0, 1.0, 5.0)
    };
    let horizontal = Axis::counts(points().map(|point| point.0).fold(0.0, f64::max), 5.0);

    // The first two words say what is measured (the axis), the rest on which objective or training set (the title).
    let words: Vec<&str> = measure.split_whitespace().collect();
    let (measured, rest) = words.split_at(words.len().min(2));
    let unit = match (percent, vertical.is_logarithmic()) {
        (true, _) => " (%)",
        (false, true) => " (log scale)",
        (false, false) => "",
    };
    let axis_title = format!(
        "{}{unit}",
        measured.join(" ").replace("valid ", "validation ")
    );
    frame::vertical_axis(canvas, area, &vertical, Some(&axis_title));
    let room = area.right - area.left;
    let title = panel_title(
        *stage,
        &rest.join(" ").replace('_', " "),
        side,
        lines,
        languages,
        geometric,
    );
    let title = text::shorten(&title, true, room / 12.0)?;
    canvas.text(
        (area.left, area.top - 9.0),
        &title,
        bold(12.0, frame::INK, Anchor::Start),
    );
    let across = |value: f64| area.left + horizontal.fraction(value) * room;
    for (value, label) in &horizontal.ticks {
        let x = across(*value);
        canvas.line(
            &[(x, area.bottom), (x, area.bottom + 4.0)],
            1.0,
            frame::EDGE,
        );
        let style = lettering(11.0, frame::SOFT, Anchor::Middle);
        canvas.text((x, area.bottom + 16.0), label, style);
    }
    let unit = match stage {
        CurveStage::Pretrain => "tokens seen in pretraining",
        CurveStage::Finetune => "examples seen in fine-tuning",
        CurveStage::Translation => "tokens seen in translation",
    };
    let style = lettering(11.5, frame::INK, Anchor::Middle);
    canvas.text(
        ((area.left + area.right) / 2.0, area.bottom + 33.0),
        unit,
        style,
    );
    if percent {
        let y = vertical.height(CHANCE, area.top, area.bottom);
        canvas.dashed((area.left, y), (area.right, y), 5.0, 1.2, frame::EDGE);
        let style = lettering(10.5, frame::SOFT, Anchor::End);
        canvas.text(
            (area.right - 2.0, y + 12.0),
            &format!("chance {CHANCE:.1}"),
            style,
        );
    }
    for (variant, points) in &drawn {
        let placed: Vec<Point> = points
            .iter()
            .map(|point| {
                (
                    across(point.0),
                    vertical.height(point.1, area.top, area.bottom),
                )
            })
            .collect();
        let colour = frame::colour(*variant);
        if frame::repeats(*variant) {
            for ends in placed.windows(2) {
                canvas.dashed(ends[0], ends[1], 5.0, 1.5, colour);
            }
        } else {
            canvas.line(&placed, 1.5, colour);
        }
        if let Some(last) = placed.last() {
            frame::marker(canvas, *variant, *last, 3.6, false);
        }
    }
    Ok(())
}

fn panel_title(
    stage: CurveStage,
    measure: &str,
    side: &Side,
    lines: &Lines,
    languages: &Languages,
    geometric: bool,
) -> String {
    let stage = match stage {
        CurveStage::Pretrain => "Pretraining",
        CurveStage::Finetune => "Fine-tuning",
        CurveStage::Translation => "Translation",
    };
    let shown = lines
        .values()
        .flat_map(|line| line.values())
        .map(BTreeMap::len)
        .max()
        .unwrap_or(0);
    let mean = if geometric { "geometric mean" } else { "mean" };
    let of = match side {
        Side::Source => languages.source.clone(),
        Side::One(language) => language.clone(),
        Side::Targets if shown > 1 => format!("{mean} of {shown} targets"),
        Side::Every if shown > 1 => format!("{mean} of {shown}"),
        _ => {
            let mut codes = lines
                .values()
                .flat_map(|line| line.values())
                .flat_map(BTreeMap::keys);
            codes.next().cloned().unwrap_or_default()
        }
    };
    let parts = [stage, measure, &of];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_tells_its_panel_and_language() {
        let languages = Languages {
            source: "en".to_string(),
            targets: vec!["ko".to_string(), "zh-classical".to_string()],
            names: BTreeMap::new(),
        };
        let point = |stage, series: &str| CurvePoint {
            variant: "mlm".to_string(),
            pretrain_seed: 1,
            finetune_seed: None,
            stage,
            series: series.to_string(),
            updates: 1,
            tokens: 1,
            value: 1.0,
        };
        let cases = [
            (
                CurveStage::Pretrain,
                "valid perplexity ko masked_lm",
                "valid perplexity masked_lm",
                Side::Every,
                "ko",
            ),
            (
                CurveStage::Pretrain,
                "valid perplexity en-ko translation_lm",
                "valid perplexity translation_lm",
                Side::Every,
                "en-ko",
            ),
            (
                CurveStage::Finetune,
                "dev accuracy en",
                "dev accuracy",
                Side::Source,
                "en",
            ),
            (
                CurveStage::Finetune,
                "dev accuracy zh-classical",
                "dev accuracy",
                Side::Targets,
                "zh-classical",
            ),
        ];
        for (stage, series, measure, side, language) in cases {
            let found = place(&point(stage, series), &languages);
            assert_eq!(
                found,
                ((stage, measure.to_string(), side), language.to_string())
            );
        }
    }

    #[test]
    fn perplexities_are_averaged_as_logarithms_and_only_where_all_languages_are() {
        let at = |values: &[(&str, f64)]| {
            values
                .iter()
                .map(|(name, value)| (name.to_string(), *value))
                .collect()
        };
        let values = BTreeMap::from([
            (10, at(&[("a", 4.0), ("b", 16.0)])),
            (20, at(&[("a", 4.0)])),
        ]);
        let geometric = line(&values, true);
        assert_eq!(geometric.len(), 1);
        assert!((geometric[0].1 - 8.0).abs() < 1e-12);
        assert_eq!(line(&values, false), [(10.0, 10.0)]);
    }
}
