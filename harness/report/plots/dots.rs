//! Points with intervals, side by side for each series, in groups along the horizontal axis, in one or more panels.

use super::canvas::{Anchor, Canvas};
use super::frame::{self, Area, Axis, LEFT, RIGHT, WIDTH, bold, lettering};
use super::text;
use anyhow::Result;

/// One estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct Dot {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
    pub per_seed: Vec<f64>,
    /// Drawn hollow: a seed of it is at chance.
    pub hollow: bool,
}

/// One position on the horizontal axis.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    pub label: String,
    /// A second line, left out in the whole panel when it does not fit.
    pub detail: String,
    /// A line parts it from the group before.
    pub parted: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    pub title: String,
    pub groups: Vec<Group>,
    /// By series, then group; `None` where nothing was measured.
    pub dots: Vec<Vec<Option<Dot>>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub title: String,
    pub subtitle: String,
    pub axis_title: String,
    /// Names in the legend.
    pub series: Vec<String>,
    pub panels: Vec<Panel>,
    /// A dashed line with its name.
    pub reference: Option<(f64, String)>,
    pub axes: Axes,
}

/// How values are laid on vertical axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axes {
    /// One for all panels, within 0 to 100.
    Percent,
    /// One for all panels.
    Shared,
    /// One for each panel, whose values are of different kinds.
    PerPanel,
}

impl Figure {
    /// The axis of some panels, with the reference line on it.
    fn axis(&self, panels: &[Panel]) -> Axis {
        let dots = || {
            panels
                .iter()
                .flat_map(|panel| panel.dots.iter().flatten().flatten())
        };
        let values =
            || dots().flat_map(|dot| dot.per_seed.iter().copied().chain([dot.low, dot.high]));
        let values = || values().filter(|value| value.is_finite());
        let reference = self.reference.as_ref().map(|(value, _)| *value);
        let low = values().chain(reference).fold(f64::INFINITY, f64::min);
        let high = values().chain(reference).fold(f64::NEG_INFINITY, f64::max);
        match self.axes {
            Axes::Percent => Axis::around(
                (low - 2.0).max(0.0),
                (high + 1.0).clamp(low + 10.0, 100.0),
                7.0,
            ),
            Axes::Shared => Axis::around(low, high.max(low + 1.0), 7.0),
            Axes::PerPanel => Axis::around(low, high, 5.0),
        }
    }
}

/// Height of a panel's data and of what stands below and above it.
const TALL: f64 = 290.0;
const LOW: f64 = 165.0;
const BELOW: f64 = 44.0;
const ABOVE: f64 = 24.0;
/// Series closer than this leave no room for the dots of their seeds.
const ROOM_FOR_SEEDS: f64 = 9.0;

pub fn draw(figure: &Figure) -> Result<Canvas> {
    let mut canvas = Canvas::new(WIDTH, 0.0, &figure.title);
    let top = frame::header(&mut canvas, &figure.title, &figure.subtitle, &figure.series)?;
    let shared = figure.axis(&figure.panels);
    let axis_title = match shared.ticks.first() {
        Some((value, label)) if figure.axes == Axes::Percent && *value > 0.0 => {
            format!("{}, from {label}", figure.axis_title)
        }
        _ => figure.axis_title.clone(),
    };
    let widest = figure
        .panels
        .iter()
        .map(|panel| panel.groups.len())
        .max()
        .unwrap_or(0);
    let crowd = widest * figure.series.len();
    let columns = if figure.panels.len() > 1 && crowd <= 24 {
        2
    } else {
        1
    };
    let height = if figure.panels.len() > 1 { LOW } else { TALL };
    let width = (WIDTH - RIGHT) / columns as f64;
    for (index, panel) in figure.panels.iter().enumerate() {
        let (row, column) = (index / columns, index % columns);
        let left = column as f64 * width + LEFT;
        let top = top + row as f64 * (ABOVE + height + BELOW) + ABOVE;
        let area = Area {
            left,
            right: (column + 1) as f64 * width,
            top,
            bottom: top + height,
        };
        let own = (figure.axes == Axes::PerPanel).then(|| figure.axis(std::slice::from_ref(panel)));
        let axis = own.as_ref().unwrap_or(&shared);
        let last = column + 1 == columns || index + 1 == figure.panels.len();
        frame::vertical_axis(
            &mut canvas,
            area,
            axis,
            (column == 0 && !axis_title.is_empty()).then_some(axis_title.as_str()),
        );
        reference(&mut canvas, area, axis, figure, last)?;
        draw_panel(&mut canvas, area, axis, panel)?;
    }
    let rows = figure.panels.len().div_ceil(columns);
    canvas.height = (top + rows as f64 * (ABOVE + height + BELOW) + 6.0).ceil();
    Ok(canvas)
}

fn reference(
    canvas: &mut Canvas,
    area: Area,
    axis: &Axis,
    figure: &Figure,
    named: bool,
) -> Result<()> {
    let Some((value, name)) = &figure.reference else {
        return Ok(());
    };
    let y = axis.height(*value, area.top, area.bottom);
    canvas.dashed((area.left, y), (area.right, y), 5.0, 1.2, frame::EDGE);
    if named {
        for (line, words) in text::wrap(name, false, (RIGHT - 10.0) / 11.0)?
            .iter()
            .enumerate()
        {
            let at = (area.right + 6.0, y + 3.9 + 13.0 * line as f64);
            canvas.text(at, words, lettering(11.0, frame::SOFT, Anchor::Start));
        }
    }
    Ok(())
}

fn draw_panel(canvas: &mut Canvas, area: Area, axis: &Axis, panel: &Panel) -> Result<()> {
    let title = bold(12.0, frame::INK, Anchor::Start);
    let room = (area.right - area.left) / 12.0;
    canvas.text(
        (area.left, area.top - 9.0),
        &text::shorten(&panel.title, true, room)?,
        title,
    );
    let slot = (area.right - area.left) / panel.groups.len().max(1) as f64;
    let mut details = true;
    for group in &panel.groups {
        details &= text::width(&group.detail, false)? * 10.0 < slot - 4.0;
    }
    let series = panel.dots.len().max(1) as f64;
    let step = (slot * 0.74 / series).min(26.0);
    let radius = (step * 0.38).clamp(2.0, 4.6);
    for (index, group) in panel.groups.iter().enumerate() {
        let edge = area.left + index as f64 * slot;
        let centre = edge + slot / 2.0;
        if group.parted {
            canvas.dashed((edge, area.top), (edge, area.bottom), 2.0, 1.0, frame::EDGE);
        }
        let label = text::shorten(&group.label, false, (slot - 2.0) / 11.5)?;
        let style = lettering(11.5, frame::INK, Anchor::Middle);
        canvas.text((centre, area.bottom + 16.0), &label, style);
        if details {
            let style = lettering(10.0, frame::SOFT, Anchor::Middle);
            canvas.text((centre, area.bottom + 29.0), &group.detail, style);
        }
        for (series_index, dots) in panel.dots.iter().enumerate() {
            let x = centre + (series_index as f64 - (series - 1.0) / 2.0) * step;
            match dots.get(index).and_then(Option::as_ref) {
                Some(dot) => {
                    if dot.per_seed.len() > 1 && step >= ROOM_FOR_SEEDS {
                        draw_seeds(canvas, area, axis, series_index, x - radius - 2.4, dot);
                    }
                    draw_dot(canvas, area, axis, series_index, x, radius, dot);
                }
                None => {
                    let style = lettering(11.0, frame::colour(series_index), Anchor::Middle);
                    canvas.text((x, area.bottom - 4.0), "–", style);
                }
            }
        }
    }
    Ok(())
}

fn draw_seeds(canvas: &mut Canvas, area: Area, axis: &Axis, series: usize, x: f64, dot: &Dot) {
    for value in &dot.per_seed {
        let y = axis.height(*value, area.top, area.bottom);
        canvas.circle((x, y), 1.5, frame::pale(frame::colour(series)));
    }
}

fn draw_dot(
    canvas: &mut Canvas,
    area: Area,
    axis: &Axis,
    series: usize,
    x: f64,
    radius: f64,
    dot: &Dot,
) {
    let place = |value| axis.height(value, area.top, area.bottom);
    let colour = frame::colour(series);
    let (low, high) = (place(dot.low), place(dot.high));
    canvas.line(&[(x, low), (x, high)], 1.6, colour);
    for end in [low, high] {
        canvas.line(
            &[(x - radius * 0.7, end), (x + radius * 0.7, end)],
            1.4,
            colour,
        );
    }
    frame::marker(canvas, series, (x, place(dot.mean)), radius, dot.hollow);
}
