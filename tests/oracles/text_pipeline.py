"""Writes tests/fixtures/data_text_pipeline.tsv: script, text, what XLM's lower-casing and accent removal makes of it.

    python3 tests/oracles/text_pipeline.py > tests/fixtures/data_text_pipeline.tsv

The expected column is computed with Python's unicodedata, as XLM's tools/lowercase_and_remove_accent.py computes it:
lower(), NFD, drop category Mn, lower().
"""

import unicodedata

TEXTS = [
    ("latin", "Crème BRÛLÉE à l'Œuvre, naïve Ångström façade Øre Ł ß ẞ ŉ ǅ ﬁ"),
    ("latin", "İstanbul IĞDIR ışık Ḁ ẛ̣"),
    ("vietnamese", "Tiếng Việt: Đường phố, người, ƯỚC MƠ, quyển"),
    ("romanian", "Ştefan și Țara Şi ţine Ăsta Îl â"),
    ("greek", "ΆΝΘΡΩΠΟΣ ὁ ἄνθρωπος ᾠδή ΪΫ ς ΣΑΣ Σ ᾳ Ὀδυσσεύς ΟΔΟΣ."),
    ("cyrillic", "Йод ёлка ЙЁ Їжак Ѓ Ќ ў ѝ"),
    ("arabic", "مُحَمَّدٌ قُرْآنٌ أإآؤئ لآ شدّة ٱلسَّلَامُ"),
    ("urdu", "اُردُو ۂ ۓ گھر ہؤا"),
    ("hebrew", "שָׁלוֹם יְרוּשָׁלַיִם"),
    ("devanagari", "हिन्दी क़िताब ज़्यादा पढ़ना ड़ ढ़ श्री कर्म"),
    ("bengali", "বাংলা ভাষা কো কৌ য়"),
    ("tamil", "தமிழ் மொழி கொ கௌ"),
    ("thai", "ภาษาไทย ที่นี่ น้ำ เก่ง กำ สู้ ปัญหา"),
    ("khmer", "ភាសាខ្មែរ"),
    ("burmese", "မြန်မာဘာသာ"),
    ("hangul", "한국어 힣 각 가 값을"),
    ("japanese", "がぎぐ パピプ ヴ 日本語 ﾊﾟ"),
    ("chinese", "中文 漢字 樂 豈 ＡＢＣ"),
    ("combining", "e\u0301\u0323 q\u0307\u0323 \u0345 a\u20dd \u0bcb \U0001d15e \u0130\u0307"),
    ("empty", "\u0301\u0323"),
    ("swahili", "Ng'ombe Wakati MZURI"),
]


def pipeline(text):
    text = unicodedata.normalize("NFD", text.lower())
    text = "".join(character for character in text if unicodedata.category(character) != "Mn")
    return text.lower()


if __name__ == "__main__":
    for script, text in TEXTS:
        print(script, text, pipeline(text), sep="\t")
