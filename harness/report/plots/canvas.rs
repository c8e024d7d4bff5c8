//! A drawing as a list of shapes, written as SVG and as PNG by the two backends of plotters.
//!
//! Coordinates are pixels of the page, x to the right and y down. The SVG backend takes whole numbers only, so it draws
//! on a page ten times as large that is shown at its true size: coordinates have one fixed decimal. The PNG has twice the
//! page's pixels in both directions, averaged from three times as many.

use super::text;
use anyhow::{Context, Result, anyhow};
use plotters::backend::{BitMapBackend, DrawingBackend, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontDesc, FontFamily, FontStyle, FontTransform, RGBColor, TextStyle};

/// SVG units per pixel of the page.
const SVG_SCALE: f64 = 10.0;
/// PNG pixels per pixel of the page, in each direction.
const PNG_SCALE: u32 = 2;
/// Pixels drawn per PNG pixel, in each direction.
const SUPERSAMPLING: u32 = 3;
/// plotters divides a size by this before it writes it into an SVG.
const PLOTTERS_SIZE: f64 = 1.24;
/// How far below its anchor plotters puts the baseline of a text whose anchor is its top, in em.
const PLOTTERS_TOP: f64 = 0.76;

pub type Point = (f64, f64);
pub type Colour = RGBColor;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// How a text is set: size in pixels to the em.
#[derive(Debug, Clone, Copy)]
pub struct Lettering {
    pub size: f64,
    pub bold: bool,
    pub colour: Colour,
    pub anchor: Anchor,
}

#[derive(Debug, Clone)]
enum Shape {
    Line {
        points: Vec<Point>,
        width: f64,
        colour: Colour,
    },
    Polygon {
        points: Vec<Point>,
        colour: Colour,
    },
    Circle {
        centre: Point,
        radius: f64,
        colour: Colour,
    },
    /// `at` is the anchor on the baseline; an upright text reads from bottom to top.
    Text {
        at: Point,
        text: String,
        lettering: Lettering,
        upright: bool,
    },
}

/// A page and what is drawn on it, in the order of drawing.
#[derive(Debug, Clone)]
pub struct Canvas {
    pub width: f64,
    pub height: f64,
    /// Read out in place of the drawing.
    title: String,
    shapes: Vec<Shape>,
}

impl Canvas {
    /// An empty white page.
    pub fn new(width: f64, height: f64, title: &str) -> Self {
        Self {
            width: width.ceil(),
            height: height.ceil(),
            title: printable(title),
            shapes: Vec::new(),
        }
    }

    pub fn line(&mut self, points: &[Point], width: f64, colour: Colour) {
        if points.len() > 1 {
            self.shapes.push(Shape::Line {
                points: points.to_vec(),
                width,
                colour,
            });
        }
    }

    /// A straight line in dashes of `dash` pixels with gaps as long.
    pub fn dashed(&mut self, from: Point, to: Point, dash: f64, width: f64, colour: Colour) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = (dx * dx + dy * dy).sqrt();
        let at = |distance: f64| {
            let part = (distance / length).min(1.0);
            (from.0 + part * dx, from.1 + part * dy)
        };
        let mut start = 0.0;
        while start < length {
            self.line(&[at(start), at(start + dash)], width, colour);
            start += 2.0 * dash;
        }
    }

    pub fn polygon(&mut self, points: &[Point], colour: Colour) {
        self.shapes.push(Shape::Polygon {
            points: points.to_vec(),
            colour,
        });
    }

    pub fn circle(&mut self, centre: Point, radius: f64, colour: Colour) {
        self.shapes.push(Shape::Circle {
            centre,
            radius,
            colour,
        });
    }

    /// Text on the baseline through `at`.
    pub fn text(&mut self, at: Point, text: &str, lettering: Lettering) {
        self.push_text(at, text, lettering, false);
    }

    /// Text that reads from bottom to top.
    pub fn upright_text(&mut self, at: Point, text: &str, lettering: Lettering) {
        self.push_text(at, text, lettering, true);
    }

    fn push_text(&mut self, at: Point, text: &str, lettering: Lettering, upright: bool) {
        let text = printable(text);
        self.shapes.push(Shape::Text {
            at,
            text,
            lettering,
            upright,
        });
    }

    /// The drawing as an SVG document.
    pub fn to_svg(&self) -> Result<String> {
        let tenths = |value: f64| (value * SVG_SCALE).round() as i32;
        let place = |(x, y): Point| (tenths(x), tenths(y));
        let size = (tenths(self.width) as u32, tenths(self.height) as u32);
        let mut document = String::new();
        {
            let mut page = SVGBackend::with_string(&mut document, size);
            let white = RGBColor(255, 255, 255).filled();
            page.draw_rect((0, 0), (size.0 as i32, size.1 as i32), &white, true)?;
            for shape in &self.shapes {
                match shape {
                    Shape::Line {
                        points,
                        width,
                        colour,
                    } => {
                        let style = colour.stroke_width(tenths(*width).max(1) as u32);
                        page.draw_path(points.iter().copied().map(place), &style)?;
                    }
                    Shape::Polygon { points, colour } => {
                        page.fill_polygon(points.iter().copied().map(place), &colour.filled())?;
                    }
                    Shape::Circle {
                        centre,
                        radius,
                        colour,
                    } => page.draw_circle(
                        place(*centre),
                        tenths(*radius) as u32,
                        &colour.filled(),
                        true,
                    )?,
                    Shape::Text {
                        at,
                        text,
                        lettering,
                        upright,
                    } => {
                        let drop = PLOTTERS_TOP * lettering.size;
                        let anchor = if *upright {
                            (at.0 - drop, at.1)
                        } else {
                            (at.0, at.1 - drop)
                        };
                        page.draw_text(text, &svg_style(lettering, *upright), place(anchor))?;
                    }
                }
            }
            page.present()?;
        }
        self.finish_svg(&document, size)
    }

    /// Shows the page at its true size and gives it a name for readers who do not see it.
    fn finish_svg(&self, document: &str, size: (u32, u32)) -> Result<String> {
        let enlarged = format!("<svg width=\"{}\" height=\"{}\"", size.0, size.1);
        let (_, rest) = document
            .split_once(&enlarged)
            .context("plotters begins an SVG in another way than expected")?;
        let (attributes, body) = rest
            .split_once('>')
            .context("plotters does not close the SVG tag")?;
        let title = self
            .title
            .replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;");
        let body = self.fix_widths(body)?;
        let (width, height) = (self.width, self.height);
        Ok(format!(
            "<svg width=\"{width}\" height=\"{height}\"{attributes} role=\"img\">\n<title>{title}</title>{body}"
        ))
    }

    /// Gives each text the width it has here, so that a viewer's own font cannot run into its neighbours.
    fn fix_widths(&self, body: &str) -> Result<String> {
        let mut parts = body.split("<text ");
        let mut fixed = parts.next().unwrap_or_default().to_string();
        let texts = self.shapes.iter().filter_map(|shape| match shape {
            Shape::Text {
                text, lettering, ..
            } => Some((text, lettering)),
            _ => None,
        });
        for (part, (text, lettering)) in parts.zip(texts) {
            let width = text::width(text, lettering.bold)? * lettering.size * SVG_SCALE;
            let width = width.round();
            fixed.push_str(&format!(
                "<text textLength=\"{width}\" lengthAdjust=\"spacingAndGlyphs\" {part}"
            ));
        }
        Ok(fixed)
    }

    /// The drawing as a PNG file of twice the page's size.
    pub fn to_png(&self) -> Result<Vec<u8>> {
        let factor = PNG_SCALE * SUPERSAMPLING;
        let (width, height) = (self.width as u32 * factor, self.height as u32 * factor);
        let mut pixels = vec![255; width as usize * height as usize * 3];
        {
            let mut page = BitMapBackend::with_buffer(&mut pixels, (width, height));
            for shape in &self.shapes {
                draw_pixels(&mut page, shape, f64::from(factor))?;
            }
            page.present()?;
        }
        let averaged = average(&pixels, width as usize, height as usize);
        encode_png(&averaged, width / SUPERSAMPLING, height / SUPERSAMPLING)
    }
}

/// XML has no control characters.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() || matches!(character, '\u{FFFE}' | '\u{FFFF}') {
                ' '
            } else {
                character
            }
        })
        .collect()
}

fn svg_style(lettering: &Lettering, upright: bool) -> TextStyle<'static> {
    let style = if lettering.bold {
        FontStyle::Bold
    } else {
        FontStyle::Normal
    };
    let turn = if upright {
        FontTransform::Rotate270
    } else {
        FontTransform::None
    };
    let size = lettering.size * SVG_SCALE * PLOTTERS_SIZE;
    let horizontal = match lettering.anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    FontDesc::new(FontFamily::Name(text::FAMILY), size, style)
        .transform(turn)
        .color(&lettering.colour)
        .pos(Pos::new(horizontal, VPos::Top))
}

/// Draws one shape, enlarged by `scale`.
fn draw_pixels(page: &mut BitMapBackend, shape: &Shape, scale: f64) -> Result<()> {
    let place = |(x, y): Point| ((x * scale).round() as i32, (y * scale).round() as i32);
    match shape {
        Shape::Line {
            points,
            width,
            colour,
        } => {
            let style = colour.filled();
            for ends in points.windows(2) {
                if let Some(corners) = thick_line(ends[0], ends[1], *width) {
                    page.fill_polygon(corners.map(place), &style)?;
                }
            }
            // Round joints, so that a bend has no notch.
            for joint in points.iter().skip(1).take(points.len().saturating_sub(2)) {
                let radius = (width / 2.0 * scale).round() as u32;
                page.draw_circle(place(*joint), radius, &style, true)?;
            }
        }
        Shape::Polygon { points, colour } => {
            page.fill_polygon(points.iter().copied().map(place), &colour.filled())?;
        }
        Shape::Circle {
            centre,
            radius,
            colour,
        } => {
            let radius = (radius * scale).round() as u32;
            page.draw_circle(place(*centre), radius, &colour.filled(), true)?;
        }
        Shape::Text {
            at,
            text,
            lettering,
            upright,
        } => {
            let size = lettering.size * scale;
            let before = match lettering.anchor {
                Anchor::Start => 0.0,
                Anchor::Middle => 0.5,
                Anchor::End => 1.0,
            };
            let back = (text::width(text, lettering.bold)? * size * before).round() as i32;
            let (x, y) = place(*at);
            let mut outcome = Ok(());
            text::draw(text, lettering.bold, size, |right, down, coverage| {
                let right = right - back;
                let point = if *upright {
                    (x + down, y - right)
                } else {
                    (x + right, y + down)
                };
                let colour = lettering
                    .colour
                    .mix(f64::from(coverage.clamp(0.0, 1.0)))
                    .to_backend_color();
                let drawn = page.draw_pixel(point, colour);
                if outcome.is_ok() {
                    outcome = drawn.map_err(|error| anyhow!("cannot draw a text: {error}"));
                }
            })?;
            outcome?;
        }
    }
    Ok(())
}

/// The four corners of a straight line of some width; none for a line without length.
fn thick_line(from: Point, to: Point, width: f64) -> Option<[Point; 4]> {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let length = (dx * dx + dy * dy).sqrt();
    if length == 0.0 {
        return None;
    }
    let (across, along) = (-dy / length * width / 2.0, dx / length * width / 2.0);
    Some([
        (from.0 + across, from.1 + along),
        (to.0 + across, to.1 + along),
        (to.0 - across, to.1 - along),
        (from.0 - across, from.1 - along),
    ])
}

/// Means over squares of supersampled pixels; three bytes each, rows from the top.
fn average(pixels: &[u8], width: usize, height: usize) -> Vec<u8> {
    let side = SUPERSAMPLING as usize;
    let area = (side * side) as u32;
    let mut averaged = Vec::with_capacity(pixels.len() / (side * side));
    for row in 0..height / side {
        for column in 0..width / side {
            for channel in 0..3 {
                let mut sum = 0;
                for y in row * side..(row + 1) * side {
                    for x in column * side..(column + 1) * side {
                        sum += u32::from(pixels[(y * width + x) * 3 + channel]);
                    }
                }
                averaged.push(((sum + area / 2) / area) as u8);
            }
        }
    }
    averaged
}

fn encode_png(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Default);
    let mut writer = encoder
        .write_header()
        .context("cannot write a PNG header")?;
    writer
        .write_image_data(pixels)
        .context("cannot write the pixels of a PNG")?;
    writer.finish().context("cannot finish a PNG")?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLUE: Colour = RGBColor(0, 114, 178);

    fn lettering() -> Lettering {
        Lettering {
            size: 12.0,
            bold: false,
            colour: BLUE,
            anchor: Anchor::Start,
        }
    }

    #[test]
    fn svg_coordinates_have_one_decimal_and_text_is_escaped() {
        let mut canvas = Canvas::new(100.0, 50.0, "a < b & c");
        canvas.line(&[(1.04, 2.0), (30.26, 4.0)], 1.5, BLUE);
        canvas.text((10.0, 20.0), "<script>&\u{0}", lettering());
        let svg = canvas.to_svg().unwrap();
        assert!(svg.starts_with("<svg width=\"100\" height=\"50\" viewBox=\"0 0 1000 500\""));
        assert!(svg.contains("<title>a &lt; b &amp; c</title>"), "{svg}");
        assert!(svg.contains("10,20 303,40"), "{svg}");
        assert!(svg.contains("&lt;script&gt;&amp; \n"), "{svg}");
        assert!(svg.contains("font-size=\"120"), "{svg}");
    }

    #[test]
    fn png_shows_what_was_drawn_at_twice_the_size() {
        let mut canvas = Canvas::new(20.0, 10.0, "");
        canvas.polygon(&[(0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0)], BLUE);
        let file = canvas.to_png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(&file))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((info.width, info.height), (40, 20));
        let pixel = |x: usize, y: usize| &pixels[(y * 40 + x) * 3..][..3];
        assert_eq!(pixel(5, 10), [0, 114, 178]);
        assert_eq!(pixel(35, 10), [255, 255, 255]);
    }

    #[test]
    fn shapes_outside_the_page_are_cut() {
        let mut canvas = Canvas::new(20.0, 10.0, "");
        canvas.circle((-5.0, 30.0), 9.0, BLUE);
        canvas.line(&[(-50.0, -50.0), (80.0, 90.0), (80.0, 90.0)], 3.0, BLUE);
        canvas.upright_text((-3.0, 5.0), "outside", lettering());
        assert!(canvas.to_png().is_ok() && canvas.to_svg().is_ok());
    }
}
