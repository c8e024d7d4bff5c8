"""Makes the three bundled fonts from the free fonts named in LICENCES.md.

    pip install fonttools==4.68.0
    python subset.py LiberationSans-Regular.ttf LiberationSans-Bold.ttf DroidSansFallback.ttf

Keeps Latin, Greek, Cyrillic, punctuation, arrows and signs; every Hangul syllable; kana; and the hanzi, kanji and
hanja of GB 2312, JIS X 0208, KS X 1001 and the first level of Big5. Hinting, layout tables and names go; ascender and
descender are set to one em in all, so that a size means the same in each.
"""

import sys
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

LATIN = [
    (0x0020, 0x052F),  # Latin, its extensions, phonetics, Greek, Cyrillic
    (0x1E00, 0x1FFF),  # Vietnamese, polytonic Greek
    (0x2000, 0x2070),  # punctuation
    (0x2070, 0x20BF),  # superscripts, currency
    (0x2100, 0x22FF),  # letter-like signs, arrows, mathematics
    (0x2500, 0x26FF),  # geometric shapes
]
ASIAN = [
    (0x3000, 0x312F),  # punctuation, kana, bopomofo
    (0x1100, 0x11FF),  # Hangul letters
    (0x3130, 0x318F),
    (0xAC00, 0xD7A3),  # every Hangul syllable
    (0xFF00, 0xFFEF),  # full width forms
]


def common_characters():
    """The hanzi, kanji and hanja that the national standards list."""
    found = set()
    for encoding, leads in (("gb2312", (0xB0, 0xF7)), ("euc_jp", (0xB0, 0xF4)), ("euc_kr", (0xCA, 0xFD))):
        for lead in range(leads[0], leads[1] + 1):
            for trail in range(0xA1, 0xFF):
                found |= set(bytes([lead, trail]).decode(encoding, "ignore"))
    for lead in range(0xA4, 0xC7):
        for trail in [*range(0x40, 0x7F), *range(0xA1, 0xFF)]:
            found |= set(bytes([lead, trail]).decode("big5", "ignore"))
    return {ord(character) for character in found}


def write(source, target, family, style, code_points, note):
    font = TTFont(source, recalcTimestamp=False)
    options = subset.Options(
        hinting=False, layout_features=[], name_IDs=[], notdef_outline=True, glyph_names=False, legacy_kern=False,
        drop_tables=["GPOS", "GSUB", "GDEF", "kern", "DSIG", "FFTM", "LTSH", "VDMX", "hdmx", "vhea", "vmtx", "BASE", "PCLT"],
    )
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=code_points)
    subsetter.subset(font)
    em = font["head"].unitsPerEm
    ascent = round(0.8 * em)
    font["hhea"].ascent, font["hhea"].descent, font["hhea"].lineGap = ascent, ascent - em, 0
    font["OS/2"].fsSelection &= ~(1 << 7)
    font["head"].created = font["head"].modified = 0xA0000000  # any fixed date
    names = font["name"]
    names.names = []
    for identifier, text in ((0, note), (1, family), (2, style), (4, f"{family} {style}"), (6, target.stem)):
        names.setName(text, identifier, 3, 1, 0x409)
    font.save(target)
    print(f"{target.name}: {target.stat().st_size} bytes, {len(font.getBestCmap())} characters")


def main():
    regular, bold, fallback = sys.argv[1:]
    here = Path(__file__).parent
    spread = lambda ranges: {code for first, last in ranges for code in range(first, last + 1)}
    liberation = "Digitized data copyright (c) 2010 Google Corporation, (c) 2012 Red Hat, Inc.; SIL Open Font License 1.1"
    droid = "Digitized data copyright (c) 2006 Google Corporation; Apache License 2.0"
    write(regular, here / "xlt-sans-regular.ttf", "xlt sans", "Regular", spread(LATIN), liberation)
    write(bold, here / "xlt-sans-bold.ttf", "xlt sans", "Bold", spread(LATIN), liberation)
    write(fallback, here / "xlt-sans-asian.ttf", "xlt sans asian", "Regular", spread(ASIAN) | common_characters(), droid)


main()
