//! Language codes: ISO 639-1, and those codes of ISO 639-3 under which the field's corpora (Wikipedia's editions in XLM-100
//! and mBERT, XTREME) have languages without a two-letter code. Synthetic languages are named by their family's settings.

/// The English name of a natural language.
pub fn name(code: &str) -> Option<&'static str> {
    let found = LANGUAGES.binary_search_by_key(&code, |(code, _)| code);
    found.ok().map(|at| LANGUAGES[at].1)
}

/// Two languages in alphabetical order, as pairs of them are named.
pub fn ordered<'c>(one: &'c str, other: &'c str) -> (&'c str, &'c str) {
    if one < other {
        (one, other)
    } else {
        (other, one)
    }
}

/// Refuses a code that is no natural language's; the error is the remedy.
pub fn check(code: &str) -> Result<(), String> {
    if name(code).is_some() {
        return Ok(());
    }
    Err(match suggestion(code) {
        Some((meant, name)) => format!("`{code}` is no language code; {name} is `{meant}`"),
        None => format!(
            "`{code}` is no language code; use ISO 639-1 (`en`, `ko`), or declare it under `data.synthetic.languages`"
        ),
    })
}

/// What somebody who wrote `code` may have meant: country codes in common use, English names, another case, a regional
/// subtag, one slip of the keyboard.
fn suggestion(code: &str) -> Option<(&'static str, &'static str)> {
    let lower = code.trim().to_lowercase();
    let base = lower.split(['-', '_']).next().unwrap_or_default();
    let mistaken = MISTAKEN.iter().find(|(wrong, _)| *wrong == base);
    let base = mistaken.map_or(base, |(_, meant)| meant);
    let exact = LANGUAGES
        .iter()
        .find(|(code, name)| *code == base || name.to_lowercase() == lower);
    let close = || {
        LANGUAGES.iter().find(|(code, name)| {
            (lower.len() > 2 && one_slip(&lower, code)) || one_slip(&lower, &name.to_lowercase())
        })
    };
    exact.or_else(close).copied()
}

/// Whether two words differ by one letter added, left out or replaced.
fn one_slip(one: &str, other: &str) -> bool {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let same_start = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[same_start..], &other[same_start..]);
    match one.len() as i64 - other.len() as i64 {
        0 => !one.is_empty() && one[1..] == other[1..],
        1 => one[1..] == *other,
        -1 => *one == other[1..],
        _ => false,
    }
}

/// Country codes and others that are written for languages.
const MISTAKEN: &[(&str, &str)] = &[
    ("cn", "zh"),
    ("cz", "cs"),
    ("dk", "da"),
    ("gr", "el"),
    ("iw", "he"),
    ("jp", "ja"),
    ("kor", "ko"),
    ("mandarin", "zh"),
    ("swa", "sw"),
    ("ua", "uk"),
    ("vn", "vi"),
];

/// Codes and English names, sorted by code.
const LANGUAGES: &[(&str, &str)] = &[
    ("aa", "Afar"),
    ("ab", "Abkhazian"),
    ("ae", "Avestan"),
    ("af", "Afrikaans"),
    ("ak", "Akan"),
    ("am", "Amharic"),
    ("an", "Aragonese"),
    ("ar", "Arabic"),
    ("arz", "Egyptian Arabic"),
    ("as", "Assamese"),
    ("ast", "Asturian"),
    ("av", "Avaric"),
    ("ay", "Aymara"),
    ("az", "Azerbaijani"),
    ("azb", "South Azerbaijani"),
    ("ba", "Bashkir"),
    ("bar", "Bavarian"),
    ("be", "Belarusian"),
    ("bg", "Bulgarian"),
    ("bi", "Bislama"),
    ("bm", "Bambara"),
    ("bn", "Bengali"),
    ("bo", "Tibetan"),
    ("bpy", "Bishnupriya"),
    ("br", "Breton"),
    ("bs", "Bosnian"),
    ("ca", "Catalan"),
    ("ce", "Chechen"),
    ("ceb", "Cebuano"),
    ("ch", "Chamorro"),
    ("ckb", "Central Kurdish"),
    ("co", "Corsican"),
    ("cr", "Cree"),
    ("cs", "Czech"),
    ("cu", "Church Slavonic"),
    ("cv", "Chuvash"),
    ("cy", "Welsh"),
    ("da", "Danish"),
    ("de", "German"),
    ("dv", "Divehi"),
    ("dz", "Dzongkha"),
    ("ee", "Ewe"),
    ("el", "Greek"),
    ("en", "English"),
    ("eo", "Esperanto"),
    ("es", "Spanish"),
    ("et", "Estonian"),
    ("eu", "Basque"),
    ("fa", "Persian"),
    ("ff", "Fulah"),
    ("fi", "Finnish"),
    ("fil", "Filipino"),
    ("fj", "Fijian"),
    ("fo", "Faroese"),
    ("fr", "French"),
    ("fy", "Western Frisian"),
    ("ga", "Irish"),
    ("gd", "Scottish Gaelic"),
    ("gl", "Galician"),
    ("gn", "Guarani"),
    ("gsw", "Swiss German"),
    ("gu", "Gujarati"),
    ("gv", "Manx"),
    ("ha", "Hausa"),
    ("he", "Hebrew"),
    ("hi", "Hindi"),
    ("ho", "Hiri Motu"),
    ("hr", "Croatian"),
    ("hsb", "Upper Sorbian"),
    ("ht", "Haitian Creole"),
    ("hu", "Hungarian"),
    ("hy", "Armenian"),
    ("hz", "Herero"),
    ("ia", "Interlingua"),
    ("id", "Indonesian"),
    ("ie", "Interlingue"),
    ("ig", "Igbo"),
    ("ii", "Sichuan Yi"),
    ("ik", "Inupiaq"),
    ("ilo", "Iloko"),
    ("io", "Ido"),
    ("is", "Icelandic"),
    ("it", "Italian"),
    ("iu", "Inuktitut"),
    ("ja", "Japanese"),
    ("jv", "Javanese"),
    ("ka", "Georgian"),
    ("kab", "Kabyle"),
    ("kg", "Kongo"),
    ("ki", "Kikuyu"),
    ("kj", "Kuanyama"),
    ("kk", "Kazakh"),
    ("kl", "Kalaallisut"),
    ("km", "Khmer"),
    ("kn", "Kannada"),
    ("ko", "Korean"),
    ("kr", "Kanuri"),
    ("ks", "Kashmiri"),
    ("ku", "Kurdish"),
    ("kv", "Komi"),
    ("kw", "Cornish"),
    ("ky", "Kyrgyz"),
    ("la", "Latin"),
    ("lb", "Luxembourgish"),
    ("lg", "Ganda"),
    ("li", "Limburgish"),
    ("lmo", "Lombard"),
    ("ln", "Lingala"),
    ("lo", "Lao"),
    ("lt", "Lithuanian"),
    ("lu", "Luba-Katanga"),
    ("lv", "Latvian"),
    ("mg", "Malagasy"),
    ("mh", "Marshallese"),
    ("mi", "Maori"),
    ("mk", "Macedonian"),
    ("ml", "Malayalam"),
    ("mn", "Mongolian"),
    ("mr", "Marathi"),
    ("ms", "Malay"),
    ("mt", "Maltese"),
    ("my", "Burmese"),
    ("mzn", "Mazanderani"),
    ("na", "Nauru"),
    ("nap", "Neapolitan"),
    ("nb", "Norwegian Bokmål"),
    ("nd", "North Ndebele"),
    ("nds", "Low German"),
    ("ne", "Nepali"),
    ("new", "Newari"),
    ("ng", "Ndonga"),
    ("nl", "Dutch"),
    ("nn", "Norwegian Nynorsk"),
    ("no", "Norwegian"),
    ("nr", "South Ndebele"),
    ("nv", "Navajo"),
    ("ny", "Chichewa"),
    ("oc", "Occitan"),
    ("oj", "Ojibwa"),
    ("om", "Oromo"),
    ("or", "Odia"),
    ("os", "Ossetian"),
    ("pa", "Punjabi"),
    ("pi", "Pali"),
    ("pl", "Polish"),
    ("pms", "Piedmontese"),
    ("pnb", "Western Punjabi"),
    ("ps", "Pashto"),
    ("pt", "Portuguese"),
    ("qu", "Quechua"),
    ("rm", "Romansh"),
    ("rn", "Rundi"),
    ("ro", "Romanian"),
    ("ru", "Russian"),
    ("rw", "Kinyarwanda"),
    ("sa", "Sanskrit"),
    ("sah", "Yakut"),
    ("sc", "Sardinian"),
    ("scn", "Sicilian"),
    ("sco", "Scots"),
    ("sd", "Sindhi"),
    ("se", "Northern Sami"),
    ("sg", "Sango"),
    ("si", "Sinhala"),
    ("sk", "Slovak"),
    ("sl", "Slovenian"),
    ("sm", "Samoan"),
    ("sn", "Shona"),
    ("so", "Somali"),
    ("sq", "Albanian"),
    ("sr", "Serbian"),
    ("ss", "Swati"),
    ("st", "Southern Sotho"),
    ("su", "Sundanese"),
    ("sv", "Swedish"),
    ("sw", "Swahili"),
    ("ta", "Tamil"),
    ("te", "Telugu"),
    ("tg", "Tajik"),
    ("th", "Thai"),
    ("ti", "Tigrinya"),
    ("tk", "Turkmen"),
    ("tl", "Tagalog"),
    ("tn", "Tswana"),
    ("to", "Tonga"),
    ("tr", "Turkish"),
    ("ts", "Tsonga"),
    ("tt", "Tatar"),
    ("tw", "Twi"),
    ("ty", "Tahitian"),
    ("ug", "Uyghur"),
    ("uk", "Ukrainian"),
    ("ur", "Urdu"),
    ("uz", "Uzbek"),
    ("ve", "Venda"),
    ("vi", "Vietnamese"),
    ("vo", "Volapük"),
    ("wa", "Walloon"),
    ("war", "Waray"),
    ("wo", "Wolof"),
    ("xh", "Xhosa"),
    ("yi", "Yiddish"),
    ("yo", "Yoruba"),
    ("yue", "Cantonese"),
    ("za", "Zhuang"),
    ("zh", "Chinese"),
    ("zu", "Zulu"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_distinct() {
        assert!(LANGUAGES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn languages_of_xnli_are_known() {
        for code in "ar bg de el en es fr hi ru sw th tr ur vi zh ko ne ro".split(' ') {
            assert_eq!(check(code), Ok(()));
        }
        assert_eq!(name("ko"), Some("Korean"));
    }

    #[test]
    fn mistaken_codes_meet_a_suggestion() {
        for (wrong, meant) in [
            ("jp", "`ja`"),
            ("Korean", "`ko`"),
            ("EN", "`en`"),
            ("zh-Hans", "`zh`"),
            ("germann", "`de`"),
        ] {
            let message = check(wrong).unwrap_err();
            assert!(message.contains(meant), "{message}");
        }
        assert!(check("qqq").unwrap_err().contains("ISO 639-1"));
    }
}
