//! What all plots share: colours, markers, axes, title and legend.

use super::canvas::{Anchor, Canvas, Colour, Lettering, Point};
use super::text;
use anyhow::Result;

/// Width of every plot in pixels: a page's text column.
pub const WIDTH: f64 = 860.0;
/// Room left of a panel for its axis.
pub const LEFT: f64 = 62.0;
/// Room right of a panel for the name of its reference line.
pub const RIGHT: f64 = 76.0;

pub const INK: Colour = plotters::style::RGBColor(34, 34, 34);
pub const SOFT: Colour = plotters::style::RGBColor(92, 92, 92);
pub const GRID: Colour = plotters::style::RGBColor(228, 228, 228);
pub const EDGE: Colour = plotters::style::RGBColor(120, 120, 120);
pub const WHITE: Colour = plotters::style::RGBColor(255, 255, 255);

/// Okabe and Ito's colours that readers with any colour vision tell apart ("Color Universal Design", 2008), without the
/// yellow, which is too light for thin lines on white: grey stands in its place.
const PALETTE: [Colour; 8] = [
    plotters::style::RGBColor(0, 114, 178),
    plotters::style::RGBColor(213, 94, 0),
    plotters::style::RGBColor(0, 158, 115),
    plotters::style::RGBColor(204, 121, 167),
    plotters::style::RGBColor(230, 159, 0),
    plotters::style::RGBColor(86, 180, 233),
    plotters::style::RGBColor(0, 0, 0),
    plotters::style::RGBColor(127, 127, 127),
];

/// The colour of a series; after eight they begin again (with another marker and dashed lines).
pub fn colour(series: usize) -> Colour {
    PALETTE[series % PALETTE.len()]
}

/// Whether a series has the colour of an earlier one: its lines are dashed.
pub fn repeats(series: usize) -> bool {
    series >= PALETTE.len()
}

/// A colour half way to white.
pub fn pale(colour: Colour) -> Colour {
    let mix = |channel: u8| ((u16::from(channel) + 255) / 2) as u8;
    plotters::style::RGBColor(mix(colour.0), mix(colour.1), mix(colour.2))
}

pub fn lettering(size: f64, colour: Colour, anchor: Anchor) -> Lettering {
    Lettering {
        size,
        bold: false,
        colour,
        anchor,
    }
}

pub fn bold(size: f64, colour: Colour, anchor: Anchor) -> Lettering {
    Lettering {
        bold: true,
        ..lettering(size, colour, anchor)
    }
}

/// Corners of the markers on a circle of radius one, the first at the angle given in quarter turns from the right.
const DIAMOND: [Point; 4] = [(0.0, -1.15), (0.95, 0.0), (0.0, 1.15), (-0.95, 0.0)];
const SQUARE: [Point; 4] = [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)];
const UP: [Point; 3] = [(0.0, -1.1), (1.05, 0.8), (-1.05, 0.8)];
const DOWN: [Point; 3] = [(0.0, 1.1), (1.05, -0.8), (-1.05, -0.8)];
const LEFTWARD: [Point; 3] = [(-1.1, 0.0), (0.8, -1.05), (0.8, 1.05)];
const RIGHTWARD: [Point; 3] = [(1.1, 0.0), (-0.8, -1.05), (-0.8, 1.05)];
const BAR: [Point; 4] = [(-1.25, -0.5), (1.25, -0.5), (1.25, 0.5), (-1.25, 0.5)];

/// Draws the marker of a series. A hollow one stands for a run that needs a word.
pub fn marker(canvas: &mut Canvas, series: usize, (x, y): Point, radius: f64, hollow: bool) {
    // After eight series colours repeat: shifting the markers by three keeps every pair distinct up to 64 series.
    let kind = (series + 3 * (series / PALETTE.len())) % 8;
    let mut layers = vec![(radius + 1.0, WHITE), (radius, colour(series))];
    if hollow {
        layers.push((radius * 0.5, WHITE));
    }
    for (radius, colour) in layers {
        let corners: &[Point] = match kind {
            0 => {
                canvas.circle((x, y), radius, colour);
                continue;
            }
            1 => &SQUARE,
            2 => &UP,
            3 => &DIAMOND,
            4 => &DOWN,
            5 => &LEFTWARD,
            6 => &RIGHTWARD,
            _ => &BAR,
        };
        let placed: Vec<Point> = corners
            .iter()
            .map(|(right, down)| (x + right * radius, y + down * radius))
            .collect();
        canvas.polygon(&placed, colour);
    }
}

/// An axis with round numbers at its ticks.
#[derive(Debug, Clone, PartialEq)]
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<(f64, String)>,
    logarithmic: bool,
}

impl Axis {
    /// The shortest axis from tick to tick around `low` to `high` with about `wanted` steps of 1, 2 or 5 times a power
    /// of ten.
    pub fn around(low: f64, high: f64, wanted: f64) -> Self {
        let (low, high) = match (low.is_finite() && high.is_finite(), high > low) {
            (true, true) => (low, high),
            (true, false) => (low - 0.5, low + 0.5),
            (false, _) => (0.0, 1.0),
        };
        // Where a value is so large that half is lost in rounding, there is nothing to tell apart.
        let high = high.max(low + 1e-9 * low.abs().max(1e-9));
        let (mantissa, exponent) = step((high - low) / wanted);
        let size = scaled(mantissa, exponent);
        let (first, last) = ((low / size).floor() as i64, (high / size).ceil() as i64);
        let decimals = usize::try_from(-exponent).unwrap_or(0);
        let ticks = (first..=last).map(|index| {
            let value = scaled(index * mantissa, exponent);
            let label = match value.abs() < LARGEST_PLAIN {
                true => format!("{value:.decimals$}"),
                false => format!("{value:.1e}"),
            };
            (value, minus(&label))
        });
        Self {
            low: scaled(first * mantissa, exponent),
            high: scaled(last * mantissa, exponent),
            ticks: ticks.collect(),
            logarithmic: false,
        }
    }

    /// An axis from `low` to `high` whose ticks are counts in thousands or millions.
    pub fn counts(high: f64, wanted: f64) -> Self {
        let mut axis = Self::around(0.0, high.max(1.0), wanted);
        for (value, label) in &mut axis.ticks {
            *label = compact(*value);
        }
        axis
    }

    /// A logarithmic axis between 1, 2 or 5 times powers of ten, with ticks at all of them; a linear one where that would
    /// have less than three. Both ends must be positive.
    pub fn logarithmic(low: f64, high: f64) -> Self {
        let mut ticks: Vec<(f64, String)> = Vec::new();
        for exponent in -12..=15 {
            for mantissa in [1, 2, 5] {
                let value = scaled(mantissa, exponent);
                let ends = ticks.last().is_some_and(|(last, _)| *last >= high);
                if value <= low {
                    ticks.clear();
                }
                if !ends {
                    let decimals = usize::try_from(-exponent).unwrap_or(0);
                    ticks.push((value, format!("{value:.decimals$}")));
                }
            }
        }
        match (ticks.first(), ticks.last()) {
            (Some((first, _)), Some((last, _))) if ticks.len() > 2 => Self {
                low: *first,
                high: *last,
                ticks,
                logarithmic: true,
            },
            _ => Self::around(low, high, 4.0),
        }
    }

    /// Where a value lies between the ends, 0 to 1.
    pub fn fraction(&self, value: f64) -> f64 {
        if self.logarithmic {
            // Last bits of a logarithm differ between machines; rounding to tenths of a pixel removes them.
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    /// A value's height on the page, for an axis that goes up from `bottom` to `top`; what lies beyond an end, such as an interval
    /// without one, stops there.
    pub fn height(&self, value: f64, top: f64, bottom: f64) -> f64 {
        let value = if value.is_nan() { self.low } else { value };
        bottom - self.fraction(value.clamp(self.low, self.high)) * (bottom - top)
    }

    pub fn is_logarithmic(&self) -> bool {
        self.logarithmic
    }
}

/// Numbers from here on are labelled with an exponent.
const LARGEST_PLAIN: f64 = 1e7;

/// The smallest of 1, 2, 5 times a power of ten that is at least `size`.
fn step(size: f64) -> (i64, i32) {
    const SMALLEST: i32 = -18;
    let near = match size > 0.0 && size.is_finite() {
        true => (size.log10().floor() as i32).max(SMALLEST),
        false => SMALLEST,
    };
    for exponent in near - 1..=near + 1 {
        for mantissa in [1, 2, 5] {
            if scaled(mantissa, exponent) >= size * (1.0 - 1e-9) {
                return (mantissa, exponent);
            }
        }
    }
    (1, near + 2)
}

/// `mantissa` times ten to the `exponent`, rounded once.
fn scaled(mantissa: i64, exponent: i32) -> f64 {
    let power = (0..exponent.abs()).fold(1.0, |power, _| power * 10.0);
    if exponent < 0 {
        mantissa as f64 / power
    } else {
        mantissa as f64 * power
    }
}

/// A number with the typographic minus; no negative zero.
pub fn minus(number: &str) -> String {
    match number.strip_prefix('-') {
        Some(digits) if digits.chars().all(|digit| matches!(digit, '0' | '.')) => {
            digits.to_string()
        }
        Some(digits) => format!("−{digits}"),
        None => number.to_string(),
    }
}

/// A count in thousands, millions or billions.
fn compact(value: f64) -> String {
    let (divisor, unit) = match value {
        _ if value >= 1e9 => (1e9, " B"),
        _ if value >= 1e6 => (1e6, " M"),
        _ if value >= 1e3 => (1e3, " k"),
        _ => (1.0, ""),
    };
    let number = format!("{:.2}", value / divisor);
    format!(
        "{}{unit}",
        number.trim_end_matches('0').trim_end_matches('.')
    )
}

/// A count with commas between thousands.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Draws title, subtitle and legend; gives the height where the panels begin.
pub fn header(canvas: &mut Canvas, title: &str, subtitle: &str, legend: &[String]) -> Result<f64> {
    let room = WIDTH - 40.0;
    let mut y = 12.0;
    for line in text::wrap(title, true, room / 15.0)? {
        y += 18.0;
        canvas.text((20.0, y), &line, bold(15.0, INK, Anchor::Start));
    }
    y += 4.0;
    for line in text::wrap(subtitle, false, room / 11.5)? {
        y += 15.5;
        canvas.text((20.0, y), &line, lettering(11.5, SOFT, Anchor::Start));
    }
    y += 12.0;
    let mut x = 28.0;
    for (series, label) in legend.iter().enumerate() {
        if series == 0 {
            y += 14.0;
        }
        let label = text::shorten(label, false, (room - 40.0) / 12.0)?;
        let width = text::width(&label, false)? * 12.0;
        if x > 28.0 && x + 12.0 + width > WIDTH - 20.0 {
            x = 28.0;
            y += 20.0;
        }
        marker(canvas, series, (x, y - 4.2), 4.6, false);
        canvas.text((x + 12.0, y), &label, lettering(12.0, INK, Anchor::Start));
        x += width + 40.0;
    }
    Ok(y + 16.0)
}

/// Where a panel's data are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Area {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
}

/// Draws a panel's grid, the ticks of its vertical axis and, where given, the axis's title.
pub fn vertical_axis(canvas: &mut Canvas, area: Area, axis: &Axis, title: Option<&str>) {
    for (value, label) in &axis.ticks {
        let y = axis.height(*value, area.top, area.bottom);
        canvas.line(&[(area.left, y), (area.right, y)], 0.8, GRID);
        let style = lettering(11.0, SOFT, Anchor::End);
        canvas.text((area.left - 7.0, y + 3.9), label, style);
    }
    canvas.line(
        &[(area.left, area.top), (area.left, area.bottom)],
        1.0,
        EDGE,
    );
    canvas.line(
        &[(area.left, area.bottom), (area.right, area.bottom)],
        1.0,
        EDGE,
    );
    if let Some(title) = title {
        let middle = (area.top + area.bottom) / 2.0;
        let style = lettering(11.5, INK, Anchor::Middle);
        canvas.upright_text((area.left - 42.0, middle), title, style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn axes_end_at_round_numbers() {
        assert_eq!(
            labels(&Axis::around(31.2, 88.0, 6.0)),
            ["30", "40", "50", "60", "70", "80", "90"]
        );
        assert_eq!(
            labels(&Axis::around(-0.12, 0.3, 4.0)),
            ["−0.2", "0.0", "0.2", "0.4"]
        );
        assert_eq!(labels(&Axis::around(5.0, 5.0, 2.0)).len(), 3);
        assert_eq!(
            labels(&Axis::counts(2_600_000.0, 5.0)),
            ["0", "1 M", "2 M", "3 M"]
        );
    }

    #[test]
    fn axes_hold_any_number() {
        for (low, high) in [
            (1e30, 4e35),
            (3e26, 3e26 * (1.0 + 1e-15)),
            (0.0, f64::INFINITY),
            (f64::INFINITY, f64::NEG_INFINITY),
            (-1e-300, 1e-300),
            (0.0, f64::MAX),
        ] {
            let axis = Axis::around(low, high, 5.0);
            assert!((2..40).contains(&axis.ticks.len()), "{low} {high}");
            for value in [low, high, f64::NAN] {
                let height = axis.height(value, 10.0, 200.0);
                assert!((9.9..=200.1).contains(&height), "{value}: {height}");
            }
        }
        let large = Axis::around(0.0, 2e30, 2.0);
        let labels = labels(&large);
        assert!(labels[0] == "0" && labels[1].ends_with("e30"), "{labels:?}");
    }

    #[test]
    fn a_logarithmic_axis_puts_equal_ratios_at_equal_distances() {
        let axis = Axis::logarithmic(10.0, 1000.0);
        assert_eq!(
            labels(&axis),
            ["10", "20", "50", "100", "200", "500", "1000"]
        );
        let distance = |from, to| axis.fraction(to) - axis.fraction(from);
        assert!((distance(10.0, 20.0) - distance(500.0, 1000.0)).abs() < 1e-12);
        assert!(!Axis::logarithmic(61.0, 64.0).is_logarithmic());
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!(minus("-0.0"), "0.0");
        assert_eq!(minus("-1.5"), "−1.5");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(999), "999");
    }
}
