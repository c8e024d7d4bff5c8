//! The bundled fonts: how wide a text is, and its pixels.
//!
//! Widths come from the tables of the embedded TrueType files (OpenType specification: `cmap` format 4, `hmtx`), in
//! units of the em, so that a layout is the same on every machine. Latin, Greek, Cyrillic and signs are in one face
//! (regular and bold), Hangul, kana and hanzi in another; a character that neither has is drawn as an empty box.

use anyhow::{Context, Result, anyhow, bail};
use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};
use std::sync::OnceLock;

/// The family an SVG asks for: the first ones have the widths of the bundled face.
pub const FAMILY: &str = "Arial, Helvetica, Liberation Sans, sans-serif";
const ASIAN_FAMILY: &str = "xlt sans asian";

static REGULAR: &[u8] = include_bytes!("font/xlt-sans-regular.ttf");
static BOLD: &[u8] = include_bytes!("font/xlt-sans-bold.ttf");
static ASIAN: &[u8] = include_bytes!("font/xlt-sans-asian.ttf");

/// One face: for each glyph its advance and left side bearing in em, and where a character finds its glyph.
struct Face {
    family: &'static str,
    style: FontStyle,
    /// (first, last, delta): characters first..=last have glyph `character + delta` modulo 65536.
    segments: Vec<(u16, u16, GlyphRule)>,
    metrics: Vec<(f64, f64)>,
}

#[derive(Clone)]
enum GlyphRule {
    Shift(u16),
    Listed(Vec<u16>),
}

struct Faces {
    regular: Face,
    bold: Face,
    asian: Face,
}

fn word(table: &[u8], at: usize) -> Result<u16> {
    match table.get(at..at + 2) {
        Some(bytes) => Ok(u16::from_be_bytes([bytes[0], bytes[1]])),
        None => bail!("a table ends before byte {at}"),
    }
}

fn double_word(table: &[u8], at: usize) -> Result<usize> {
    Ok(usize::from(word(table, at)?) << 16 | usize::from(word(table, at + 2)?))
}

/// The bytes of the table called `tag`.
fn table<'a>(font: &'a [u8], tag: &str) -> Result<&'a [u8]> {
    for index in 0..usize::from(word(font, 4)?) {
        let entry = 12 + 16 * index;
        if font.get(entry..entry + 4) == Some(tag.as_bytes()) {
            let start = double_word(font, entry + 8)?;
            let end = start + double_word(font, entry + 12)?;
            return font
                .get(start..end)
                .with_context(|| format!("table {tag} lies outside the file"));
        }
    }
    bail!("table {tag} is missing")
}

fn segments(cmap: &[u8]) -> Result<Vec<(u16, u16, GlyphRule)>> {
    for index in 0..usize::from(word(cmap, 2)?) {
        let start = double_word(cmap, 4 + 8 * index + 4)?;
        let map = cmap
            .get(start..)
            .context("a character map lies outside its table")?;
        if word(map, 0)? != 4 {
            continue;
        }
        let count = usize::from(word(map, 6)?) / 2;
        let mut found = Vec::with_capacity(count);
        for segment in 0..count {
            let last = word(map, 14 + 2 * segment)?;
            let first = word(map, 16 + 2 * (count + segment))?;
            let delta = word(map, 16 + 2 * (2 * count + segment))?;
            let offset_at = 16 + 2 * (3 * count + segment);
            let offset = usize::from(word(map, offset_at)?);
            let rule = if offset == 0 {
                GlyphRule::Shift(delta)
            } else {
                let listed = (first..=last).map(|character| {
                    let glyph = word(map, offset_at + offset + 2 * usize::from(character - first))?;
                    Ok(if glyph == 0 {
                        0
                    } else {
                        glyph.wrapping_add(delta)
                    })
                });
                GlyphRule::Listed(listed.collect::<Result<_>>()?)
            };
            found.push((first, last, rule));
        }
        return Ok(found);
    }
    bail!("no character map of format 4")
}

impl Face {
    fn read(family: &'static str, style: FontStyle, font: &'static [u8]) -> Result<Self> {
        let em = f64::from(word(table(font, "head")?, 18)?);
        let long = usize::from(word(table(font, "hhea")?, 34)?);
        let glyphs = usize::from(word(table(font, "maxp")?, 4)?);
        let widths = table(font, "hmtx")?;
        let mut metrics = Vec::with_capacity(glyphs);
        for glyph in 0..glyphs {
            let advance = word(widths, 4 * glyph.min(long.saturating_sub(1)))?;
            let bearing_at = if glyph < long {
                4 * glyph + 2
            } else {
                4 * long + 2 * (glyph - long)
            };
            let bearing = word(widths, bearing_at)? as i16;
            metrics.push((f64::from(advance) / em, f64::from(bearing) / em));
        }
        let segments = segments(table(font, "cmap")?)?;
        register_font(family, style, font)
            .map_err(|_| anyhow!("plotters does not accept the font"))?;
        Ok(Self {
            family,
            style,
            segments,
            metrics,
        })
    }

    /// The glyph of a character; 0, the empty box, when the face lacks it.
    fn glyph(&self, character: char) -> usize {
        let Ok(code) = u16::try_from(u32::from(character)) else {
            return 0;
        };
        let index = self.segments.partition_point(|(_, last, _)| *last < code);
        match self.segments.get(index) {
            Some((first, _, GlyphRule::Shift(delta))) if *first <= code => {
                usize::from(code.wrapping_add(*delta))
            }
            Some((first, _, GlyphRule::Listed(glyphs))) if *first <= code => {
                usize::from(glyphs[usize::from(code - first)])
            }
            _ => 0,
        }
    }

    fn metrics(&self, glyph: usize) -> (f64, f64) {
        self.metrics.get(glyph).copied().unwrap_or((0.5, 0.0))
    }
}

fn faces() -> Result<&'static Faces> {
    static FACES: OnceLock<Result<Faces, String>> = OnceLock::new();
    let read = || {
        Ok(Faces {
            regular: Face::read(FAMILY, FontStyle::Normal, REGULAR)?,
            bold: Face::read(FAMILY, FontStyle::Bold, BOLD)?,
            asian: Face::read(ASIAN_FAMILY, FontStyle::Normal, ASIAN)?,
        })
    };
    FACES
        .get_or_init(|| read().map_err(|error: anyhow::Error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("the bundled font cannot be read: {error}"))
}

impl Faces {
    fn face(&self, character: char, bold: bool) -> (&Face, usize) {
        let latin = if bold { &self.bold } else { &self.regular };
        let glyph = latin.glyph(character);
        if glyph != 0 {
            return (latin, glyph);
        }
        match self.asian.glyph(character) {
            0 => (latin, 0),
            glyph => (&self.asian, glyph),
        }
    }
}

/// Width of a text in units of its size.
pub fn width(text: &str, bold: bool) -> Result<f64> {
    let faces = faces()?;
    Ok(text
        .chars()
        .map(|character| {
            let (face, glyph) = faces.face(character, bold);
            face.metrics(glyph).0
        })
        .sum())
}

/// Calls `pixel` with (right of the start, below the baseline, coverage 0 to 1) for the pixels of a text of `size`
/// pixels to the em.
pub fn draw(text: &str, bold: bool, size: f64, mut pixel: impl FnMut(i32, i32, f32)) -> Result<()> {
    let faces = faces()?;
    // The line is one em high in all three fonts, and plotters puts the baseline half a line below the point it is given.
    let baseline = (size as f32 / 2.0) as i32;
    let mut pen = 0.0;
    for character in text.chars() {
        let (face, glyph) = faces.face(character, bold);
        let (advance, bearing) = face.metrics(glyph);
        // plotters leaves the left side bearing out of a glyph's place.
        let left = (pen + bearing * size).floor() as i32;
        let font = FontDesc::new(FontFamily::Name(face.family), size, face.style);
        let drawn: Result<(), std::convert::Infallible> = font
            .draw(
                character.encode_utf8(&mut [0; 4]),
                (left, -baseline),
                |x, y, coverage| {
                    pixel(x, y, coverage);
                    Ok(())
                },
            )
            .map_err(|error| anyhow!("cannot draw {character:?}: {error}"))?;
        match drawn {
            Ok(()) => pen += advance * size,
            Err(never) => match never {},
        }
    }
    Ok(())
}

/// `text` cut to `limit` times its size, with an ellipsis where something went.
pub fn shorten(text: &str, bold: bool, limit: f64) -> Result<String> {
    if width(text, bold)? <= limit {
        return Ok(text.to_string());
    }
    let room = limit - width("…", bold)?;
    let mut kept = String::new();
    for character in text.chars() {
        kept.push(character);
        if width(&kept, bold)? > room {
            kept.pop();
            break;
        }
    }
    Ok(kept.trim_end().to_string() + "…")
}

/// Lines no wider than `limit` times the size, broken at spaces where there are any.
pub fn wrap(text: &str, bold: bool, limit: f64) -> Result<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        if let Some(line) = lines.last_mut() {
            let longer = format!("{line} {word}");
            if width(&longer, bold)? <= limit {
                *line = longer;
                continue;
            }
        }
        lines.push(shorten(word, bold, limit)?);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Advances of Arial (2048 units to the em): H 1479, i 455, space 569; bold H 1479, i 569.
    #[test]
    fn widths_are_those_of_arial() {
        let units = |text, bold| (width(text, bold).unwrap() * 2048.0).round();
        assert_eq!(units("Hi ", false), 1479.0 + 455.0 + 569.0);
        assert_eq!(units("Hi", true), 1479.0 + 569.0);
    }

    #[test]
    fn every_script_a_study_writes_has_its_glyphs() {
        let faces = faces().unwrap();
        for character in "aé−±×≥→–…·ßşỹĞαЖ한국어힣中文國険あアー「」".chars()
        {
            assert_ne!(faces.face(character, false).1, 0, "{character}");
        }
        assert!((width("한", false).unwrap() - 1.0).abs() < 0.15);
    }

    #[test]
    fn a_character_without_a_glyph_is_a_box() {
        let mut pixels = 0;
        draw("\u{1F600}\u{E123}ไท\u{0}", false, 20.0, |_, _, _| {
            pixels += 1
        })
        .unwrap();
        assert!(pixels > 0);
    }

    #[test]
    fn letters_stand_on_the_baseline_right_of_the_start() {
        let (mut left, mut top, mut bottom) = (i32::MAX, i32::MAX, i32::MIN);
        draw("H", false, 200.0, |x, y, coverage| {
            if coverage > 0.5 {
                (left, top, bottom) = (left.min(x), top.min(y), bottom.max(y));
            }
        })
        .unwrap();
        assert!(
            (14..=18).contains(&left),
            "bearing of H is 0.079 em: {left}"
        );
        assert!((-2..=1).contains(&bottom), "{bottom}");
        assert!(
            (-140..=-136).contains(&top),
            "capitals are 0.688 em high: {top}"
        );
    }

    #[test]
    fn long_words_are_cut_and_long_texts_broken() {
        assert_eq!(shorten("short", false, 10.0).unwrap(), "short");
        let cut = shorten("incomprehensibilities", false, 5.0).unwrap();
        assert!(cut.ends_with('…') && width(&cut, false).unwrap() <= 5.0);
        let lines = wrap("one two three four five six seven", false, 6.0).unwrap();
        assert!(lines.len() > 2 && lines.join(" ") == "one two three four five six seven");
    }
}
