//! The plots of a results folder, each as SVG and PNG from one drawing: one file per plot, listed in [`ALL`].
//!
//! Drawn from predictions and curves alone, with the bundled font, so that the same results give the same bytes.

mod accuracy;
mod canvas;
mod dots;
mod frame;
mod initialisation_grid;
mod language_modelling;
mod learning_curves;
mod regimes;
mod text;
mod transfer_gap;
mod translation;
mod word_embeddings;

pub use frame::thousands;

use crate::metrics::{Items, Metric, Task};
use crate::report::ReportInput;
use crate::report::manifest::Scale;
use crate::report::summary::{Estimate, IntervalKind, Query, Summary};
use crate::spec::{LAST_UPDATE, VALIDATION_BLEU};
use anyhow::{Context, Result};
use canvas::Canvas;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// What a plot is made from.
pub struct Material<'a> {
    pub input: &'a ReportInput<'a>,
    pub summary: &'a Summary<'a>,
}

/// One plot: the stem of its files, and the drawing; none where the results have nothing for it.
pub struct Plot {
    pub name: &'static str,
    draw: fn(&Material) -> Result<Option<Canvas>>,
}

/// Every plot, in the order in which the report shows them.
pub const ALL: [Plot; 8] = [
    Plot {
        name: "accuracy",
        draw: accuracy::draw,
    },
    Plot {
        name: "regimes",
        draw: regimes::draw,
    },
    Plot {
        name: "transfer_gap",
        draw: transfer_gap::draw,
    },
    Plot {
        name: "translation",
        draw: translation::draw,
    },
    Plot {
        name: "initialisation_grid",
        draw: initialisation_grid::draw,
    },
    Plot {
        name: "language_modelling",
        draw: language_modelling::draw,
    },
    Plot {
        name: "word_embeddings",
        draw: word_embeddings::draw,
    },
    Plot {
        name: "learning_curves",
        draw: learning_curves::draw,
    },
];

/// One plot's two files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    pub name: &'static str,
    pub svg: String,
    pub png: Vec<u8>,
}

/// Draws all plots that the results have something for.
pub fn draw(input: &ReportInput, summary: &Summary) -> Result<Vec<Drawing>> {
    let material = Material { input, summary };
    let drawn: Result<Vec<Option<Drawing>>> = ALL
        .par_iter()
        .map(|plot| {
            draw_one(plot, &material).with_context(|| format!("cannot draw the plot {}", plot.name))
        })
        .collect();
    Ok(drawn?.into_iter().flatten().collect())
}

fn draw_one(plot: &Plot, material: &Material) -> Result<Option<Drawing>> {
    let Some(canvas) = (plot.draw)(material)? else {
        return Ok(None);
    };
    Ok(Some(Drawing {
        name: plot.name,
        svg: canvas.to_svg()?,
        png: canvas.to_png()?,
    }))
}

/// The drawings as files below the results folder.
pub fn files(drawings: Vec<Drawing>) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for Drawing { name, svg, png } in drawings {
        files.insert(format!("plots/{name}.svg"), svg.into_bytes());
        files.insert(format!("plots/{name}.png"), png);
    }
    files
}

impl Material<'_> {
    /// How a regime or another name of the study is written out.
    pub fn label(&self, name: &str) -> String {
        self.input.label(name)
    }

    fn variant_labels(&self) -> Vec<String> {
        let variants = &self.input.results.manifest.variants;
        variants
            .iter()
            .map(|variant| variant.label.clone())
            .collect()
    }

    /// The rule whose test scores plots show: the study's first for the task.
    fn selection(&self, task: &str) -> &str {
        self.input.results.manifest.selection_of(task)
    }

    fn query<'q>(
        &'q self,
        variant: &'q str,
        task: &'q str,
        regime: &'q str,
        language: &'q str,
    ) -> Query<'q> {
        Query {
            variant,
            task,
            regime,
            language,
            selection: self.selection(task),
            metric: Metric::of_task(task),
        }
    }

    /// The positions of languages and their mean along a plot: the source first, parted from the targets and the mean.
    fn groups(&self, languages: &[String], mean: Option<String>) -> Vec<dots::Group> {
        let known = &self.input.results.manifest.languages;
        let mut groups: Vec<dots::Group> = Vec::new();
        for language in languages {
            let after_source = groups.len() == 1 && languages.first() == Some(&known.source);
            let source = *language == known.source;
            let name = known.names.get(language).filter(|name| *name != language);
            let detail = match (name, source) {
                (Some(name), true) => format!("{name}, source"),
                (Some(name), false) => name.clone(),
                (None, true) => "source".to_string(),
                (None, false) => String::new(),
            };
            groups.push(dots::Group {
                label: language.clone(),
                detail,
                parted: after_source,
            });
        }
        if let Some(mean) = mean {
            groups.push(dots::Group {
                label: "mean".to_string(),
                detail: mean,
                parted: true,
            });
        }
        groups
    }

    /// The sentences under a plot's title that say how much evidence it shows.
    fn evidence(&self, task: &str, panels: &[dots::Panel], estimates: &[Estimate]) -> String {
        let span = |values: &mut dyn Iterator<Item = usize>| {
            let values: Vec<usize> = values.collect();
            let low = values.iter().copied().min().unwrap_or(0);
            let high = values.iter().copied().max().unwrap_or(0);
            if low == high {
                thousands(high as u64)
            } else {
                format!("{} to {}", thousands(low as u64), thousands(high as u64))
            }
        };
        let asked = estimates
            .iter()
            .map(|estimate| estimate.asked)
            .max()
            .unwrap_or(0);
        let seeds = span(&mut estimates.iter().map(|estimate| estimate.seeds));
        let of = if seeds == asked.to_string() {
            String::new()
        } else {
            format!(" of {asked}")
        };
        let plural = if asked == 1 { "seed" } else { "seeds" };
        let items = span(&mut estimates.iter().map(|estimate| estimate.items));
        let kinds = [IntervalKind::Items, IntervalKind::SeedsAndItems];
        let kind = Task::of(task);
        let (counted, cell) = kind.counted();
        let per = format!("{counted} per {cell}");
        let items_are = match kind.items() {
            Items::Classes => "test items (clustered by premise)",
            Items::Translations | Items::Measurements => counted,
        };
        let shown: Vec<String> = kinds
            .iter()
            .filter(|kind| estimates.iter().any(|estimate| estimate.kind == **kind))
            .map(|kind| match kind {
                IntervalKind::Items => format!("over {items_are}, for these seeds"),
                IntervalKind::SeedsAndItems => format!("over seeds and {items_are}"),
            })
            .collect();
        let mut sentences = vec![
            format!("{seeds}{of} {plural}, {items} {per}."),
            format!("Bars: 95 % interval {}.", shown.join(" or ")),
        ];
        if estimates.iter().any(|estimate| estimate.per_seed.len() > 1) {
            sentences.push("Small dots, where there is room: single seeds.".to_string());
        }
        if estimates.iter().any(|estimate| estimate.collapsed > 0) {
            sentences.push("Hollow: a seed is at chance.".to_string());
        }
        if panels
            .iter()
            .flat_map(|panel| panel.dots.iter().flatten())
            .any(Option::is_none)
        {
            sentences.push("Dash: no result.".to_string());
        }
        sentences.push(self.selection_sentence(task));
        sentences.extend(self.scale_sentence());
        sentences.join(" ")
    }

    fn selection_sentence(&self, task: &str) -> String {
        match self.selection(task) {
            VALIDATION_BLEU => "Chosen by BLEU on held-out pairs.".to_string(),
            LAST_UPDATE => "After the last update.".to_string(),
            "source_dev" => "Chosen on the source language's dev set.".to_string(),
            "mean_dev" => "Chosen on the mean of all dev sets (uses target labels).".to_string(),
            "target_dev" => "Chosen on each language's dev set (uses target labels).".to_string(),
            other => format!("Chosen by {other}."),
        }
    }

    fn scale_sentence(&self) -> Option<String> {
        Some(
            match self.input.results.manifest.scale {
                Scale::Synthetic => "Synthetic languages.",
                Scale::Small => "Small scale: real text, far below the paper's sizes.",
                Scale::SingleGpu => "One card: real text, below the paper's sizes.",
                Scale::Paper => return None,
            }
            .to_string(),
        )
    }
}

fn dot(estimate: &Estimate) -> dots::Dot {
    dots::Dot {
        mean: estimate.mean,
        low: estimate.low,
        high: estimate.high,
        per_seed: estimate.per_seed.clone(),
        hollow: estimate.collapsed > 0,
    }
}
