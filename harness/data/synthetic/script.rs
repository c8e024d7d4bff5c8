//! Syllables, and the letters that write them in each script.

use super::settings::Script;

const CONSONANTS: usize = 14;
const VOWELS: usize = 5;
/// Syllables of every language: a consonant and a vowel.
pub(super) const SYLLABLES: usize = CONSONANTS * VOWELS;

const LATIN: ([char; CONSONANTS], [char; VOWELS]) = (
    [
        'b', 'd', 'f', 'g', 'h', 'k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'z',
    ],
    ['a', 'e', 'i', 'o', 'u'],
);
/// Without the letters that lose a mark when accents are removed.
const CYRILLIC: ([char; CONSONANTS], [char; VOWELS]) = (
    [
        'б', 'д', 'ф', 'г', 'х', 'к', 'л', 'м', 'н', 'п', 'р', 'с', 'т', 'з',
    ],
    ['а', 'е', 'и', 'о', 'у'],
);
/// Without sigma, whose lower case depends on its place.
const GREEK: ([char; CONSONANTS], [char; VOWELS]) = (
    [
        'β', 'δ', 'φ', 'γ', 'χ', 'κ', 'λ', 'μ', 'ν', 'π', 'ρ', 'ξ', 'τ', 'ζ',
    ],
    ['α', 'ε', 'ι', 'ο', 'υ'],
);
/// Medial vowels a, e, i, o, u in the order of Unicode's Hangul syllables.
const HANGUL_VOWELS: [u32; VOWELS] = [0, 5, 20, 8, 13];
/// Spreads syllables over the unified ideographs.
const HAN_STEP: u32 = 13;

/// Appends a syllable (below [`SYLLABLES`]) to a word.
pub(super) fn write_syllable(script: Script, syllable: usize, word: &mut String) {
    let (consonant, vowel) = (syllable / VOWELS, syllable % VOWELS);
    let mut letters = |(consonants, vowels): &([char; CONSONANTS], [char; VOWELS])| {
        word.push(consonants[consonant]);
        word.push(vowels[vowel]);
    };
    match script {
        Script::Latin => letters(&LATIN),
        Script::Cyrillic => letters(&CYRILLIC),
        Script::Greek => letters(&GREEK),
        // Unicode 15, section 3.12: a block is 0xAC00 + (initial * 21 + medial) * 28 + final.
        Script::Hangul => {
            word.extend(char::from_u32(
                0xAC00 + (consonant as u32 * 21 + HANGUL_VOWELS[vowel]) * 28,
            ));
        }
        Script::Han => word.extend(char::from_u32(0x4E00 + HAN_STEP * syllable as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn syllables_differ_within_and_between_scripts() {
        let mut seen = BTreeSet::new();
        for script in [
            Script::Latin,
            Script::Cyrillic,
            Script::Greek,
            Script::Hangul,
            Script::Han,
        ] {
            for syllable in 0..SYLLABLES {
                let mut word = String::new();
                write_syllable(script, syllable, &mut word);
                assert!(!word.is_empty());
                assert!(seen.insert(word.clone()), "{script:?} {word}");
            }
        }
    }
}
