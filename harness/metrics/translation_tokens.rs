//! How a translation is cut into words before they are counted: the tokenizers of sacreBLEU 2.6 (Post 2018).
//!
//! A BLEU score means nothing without the name of its tokenizer, so the set is closed and each gives, character for
//! character, what sacreBLEU gives: compared for every code point, alone and between letters, digits, points and dashes.
//! Rules that look like mistakes are kept, and said to be so.
//!
//! Differs: Unicode categories are those of version 18, sacreBLEU's those of whatever `regex` Python has (2026.11.19 has 18
//! too).

use std::borrow::Cow;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_properties::{GeneralCategoryGroup as Group, UnicodeGeneralCategory};

/// A tokenizer, by sacreBLEU's name of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Tokenization {
    /// That of mteval-v13a, NIST's and WMT's: splits off ASCII punctuation; a point or comma between digits stays.
    #[serde(rename = "13a")]
    Mteval13a,
    /// That of mteval-v14 international-tokenization: splits off what Unicode calls punctuation or a symbol.
    #[serde(rename = "intl")]
    International,
    /// Every character is a word.
    #[serde(rename = "char")]
    Characters,
    /// Every Chinese character is a word; the rest as mteval-v13a has it.
    #[serde(rename = "zh")]
    Chinese,
    /// The words are those between white space: for text that was tokenized beforehand.
    #[serde(rename = "none")]
    None,
}

impl Tokenization {
    pub const ALL: [Self; 5] = [
        Self::Mteval13a,
        Self::International,
        Self::Characters,
        Self::Chinese,
        Self::None,
    ];

    /// As it stands in signatures and study files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mteval13a => "13a",
            Self::International => "intl",
            Self::Characters => "char",
            Self::Chinese => "zh",
            Self::None => "none",
        }
    }

    /// The line with white space between its words. White space at its end goes first, as in sacreBLEU.
    pub fn tokenize(self, line: &str) -> Cow<'_, str> {
        let line = line.trim_end_matches(is_space);
        match self {
            Self::Mteval13a => Cow::Owned(mteval_13a(line)),
            Self::International => Cow::Owned(international(line)),
            Self::Characters => Cow::Owned(characters(line)),
            Self::Chinese => Cow::Owned(chinese(line)),
            Self::None => Cow::Borrowed(line),
        }
    }
}

/// What stands between white space.
pub(super) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(is_space).filter(|word| !word.is_empty())
}

/// White space to Python: that of Unicode, and the four separators of ASCII.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// One after the other: what an earlier one makes, a later one may change.
const REPLACED: [(&str, &str); 7] = [
    ("<skipped>", ""),
    // A word that is hyphenated at the end of a line.
    ("-\n", ""),
    ("\n", " "),
    ("&quot;", "\""),
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
];

fn mteval_13a(line: &str) -> String {
    let mut line = format!(" {line} ");
    for (old, new) in REPLACED {
        if line.contains(old) {
            line = line.replace(old, new);
        }
    }
    western(&line)
}

/// What mteval-v13a does to Western languages.
fn western(line: &str) -> String {
    let point_or_comma = |character| character == '.' || character == ',';
    let digit = |character: char| character.is_ascii_digit();
    let line = isolate(line, |character| {
        character.is_ascii_punctuation() && !['\'', ',', '-', '.'].contains(&character)
    });
    let line = isolate_in_pairs(&line, Isolated::Second, |first, second| {
        point_or_comma(second) && !digit(first)
    });
    let line = isolate_in_pairs(&line, Isolated::First, |first, second| {
        point_or_comma(first) && !digit(second)
    });
    let line = isolate_in_pairs(&line, Isolated::Second, |first, second| {
        second == '-' && digit(first)
    });
    single_spaced(&line)
}

fn international(line: &str) -> String {
    let line = isolate_in_pairs(line, Isolated::Second, |first, second| {
        group(second) == Group::Punctuation && group(first) != Group::Number
    });
    let line = isolate_in_pairs(&line, Isolated::First, |first, second| {
        group(first) == Group::Punctuation && group(second) != Group::Number
    });
    let line = isolate(&line, |character| group(character) == Group::Symbol);
    single_spaced(&line)
}

/// The group of a character. The Unicode tables are searched once for the basic plane, not once a character.
fn group(character: char) -> Group {
    static BASIC_PLANE: LazyLock<Vec<Group>> = LazyLock::new(|| {
        let searched = |code| {
            char::from_u32(code)
                .map_or(Group::Other, UnicodeGeneralCategory::general_category_group)
        };
        (0..0x1_0000).map(searched).collect()
    });
    match BASIC_PLANE.get(character as usize) {
        Some(group) => *group,
        None => character.general_category_group(),
    }
}

fn characters(line: &str) -> String {
    let mut spaced = String::with_capacity(2 * line.len());
    for (number, character) in line.chars().enumerate() {
        if number > 0 {
            spaced.push(' ');
        }
        spaced.push(character);
    }
    spaced
}

fn chinese(line: &str) -> String {
    western(&isolate(line.trim_matches(is_space), is_chinese))
}

/// sacreBLEU means the last line to be CJK extension B and the compatibility supplement (U+20000 to U+2A6D6, U+2F800 to
/// U+2FA1D), but writes them with escapes of four digits. So neither is split, and dashes, curly quotes, arrows,
/// mathematical operators, box drawings and Braille are.
fn is_chinese(character: char) -> bool {
    matches!(character,
        '\u{2e80}'..='\u{2eff}' | '\u{2f00}'..='\u{2fdf}' | '\u{2ff0}'..='\u{2fff}' | '\u{3000}'..='\u{303f}'
        | '\u{3100}'..='\u{312f}' | '\u{31a0}'..='\u{31bf}' | '\u{31c0}'..='\u{31ef}' | '\u{3200}'..='\u{33ff}'
        | '\u{3400}'..='\u{4db5}' | '\u{4e00}'..='\u{9fbb}' | '\u{f900}'..='\u{fa2d}' | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}' | '\u{fe10}'..='\u{fe1f}' | '\u{fe30}'..='\u{fe4f}' | '\u{ff00}'..='\u{ffef}'
        | '\u{2001}'..='\u{2a6d}')
}

/// Puts spaces around the characters that are meant.
fn isolate(line: &str, meant: impl Fn(char) -> bool) -> String {
    let mut spaced = String::with_capacity(2 * line.len());
    let mut copied = 0;
    for (at, character) in line.match_indices(meant) {
        spaced.extend([&line[copied..at], " ", character, " "]);
        copied = at + character.len();
    }
    spaced.push_str(&line[copied..]);
    spaced
}

/// Which of two characters gets the spaces.
#[derive(Clone, Copy)]
enum Isolated {
    First,
    Second,
}

/// Puts spaces around one of two neighbours that are meant. Pairs do not overlap, as matches of a regular expression: the
/// second of a pair is not the first of another.
fn isolate_in_pairs(line: &str, isolated: Isolated, meant: impl Fn(char, char) -> bool) -> String {
    let mut spaced = String::with_capacity(2 * line.len());
    let mut copied = 0;
    let mut rest = line.char_indices().peekable();
    while let Some((start, first)) = rest.next() {
        let Some((middle, second)) = rest.next_if(|(_, second)| meant(first, *second)) else {
            continue;
        };
        let (from, to) = match isolated {
            Isolated::First => (start, middle),
            Isolated::Second => (middle, middle + second.len_utf8()),
        };
        spaced.extend([&line[copied..from], " ", &line[from..to], " "]);
        copied = to;
    }
    spaced.push_str(&line[copied..]);
    spaced
}

/// One space between words, none around the line.
fn single_spaced(line: &str) -> String {
    let mut spaced = String::with_capacity(line.len());
    for word in words(line) {
        if !spaced.is_empty() {
            spaced.push(' ');
        }
        spaced.push_str(word);
    }
    spaced
}
