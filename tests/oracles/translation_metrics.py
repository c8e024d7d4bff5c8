"""Writes tests/fixtures/translation_metrics.json, for tests/translation_metrics.rs: what sacreBLEU makes of some lines.

    python tests/oracles/translation_metrics.py > tests/fixtures/translation_metrics.json

Needs sacrebleu 2.6.0 and regex 2026.11.19 under Python 3.11 or earlier: the `sum` of later ones compensates for
rounding, which moves the last digit of BLEU. All sentences were made up for this file; hypotheses are seeded edits of
them. `multi_bleu` is what Moses' multi-bleu.perl would print, computed by its formula below.
"""

import json
import math
import random
import sys
from collections import Counter

from sacrebleu.metrics import BLEU, CHRF

assert sys.version_info < (3, 12), "sum() compensates for rounding"

TOKENIZATIONS = ["13a", "intl", "char", "zh", "none"]

REFERENCES = {
    "English": [
        "The river rose 1,000.50 metres (or so) before 6:30 p.m., said the keeper's wife.",
        "\"Don't touch it!\" she cried -- but he'd already left; 3-4 boats, 50% full.",
        "A &quot;quoted&quot; word, an &amp;lt;escaped&amp;gt; tag &amp; a <b>bold</b> one &apos;here&apos;",
        "<skipped>The well-known part-time guide, e.g. Mr. O'Neill, spoke of the U.N. in 1999.",
        "Prices: $3.99, .5, 5., -7, 8-9 and 1,2,3...; x_1^{2} ~ [9] \\ 10 | 11 @ home #12 * 'tis`",
        "The cat sat on the mat and the dog sat on the log and the frog sat on the dog.",
    ],
    "European": [
        "« L’été », dit-il — d’une voix… étrange : 12\u00a0000\u202f€, n’est-ce pas\u00a0?",
        "„Übermorgen“, rief Jürgen, „kostet’s GROẞE 1.234,56 €!“ – ‚Straße‘ Nr. 7",
        "¿Cuánto vale, señor? ¡Nada! Ni 3½ kg ni 2² m: 5 ‰ o 6°, §7 y ©8.",
        "ΟΔΟΣ Σίσυφος, «Ελλάδα»· ТАК и Ёлка, №5: «что‑то» İstanbul’da ŞİİR",
    ],
    "East Asian": [
        "我们在2023年9月去了北京Airport，花了1,200.5元（大约80%）。",
        "他說：「GPT-4很好用……」對嗎？—是的，𠀀𪛖和㐂䶵龥鿋都是字。",
        "カタカナとひらがな、ﾊﾝｶｸ。ＡＢＣ１２３・「引用」〜㈱㌔℃",
        "서울에서 3.5km 떨어진 '마을'까지 걸어서, 40분(약) 걸렸다. ㅋㅋ",
    ],
    "South and West Asian": [
        "قال: «لن أعود!» ثم مشى ١٬٠٠٠٫٥ مترًا، أليس كذلك؟ نعم؛ ١٢.٥٪",
        "کیا یہ ۲۰۱۹ء کی بات ہے؟ جی ہاں، ’بالکل‘ درست ہے۔",
        "क्या आप १,००० रुपये और ५.५ देंगे? नहीं, धन्यवाद। ॐ॥",
        "ราคา ๑,๒๐๐.๕ บาท ฿ ฯ ๆ, ব্যথা ৫.৬ টাকা ৳।",
    ],
    "symbols and marks": [
        "Nice 👍🏽 work 👨‍👩‍👧 today ❤️!!! ☕→✓ 🇫🇷",
        "e\u0301a\u0323\u0308 .\u0301, 1\u0301.2\u20dd x\u0301- 5\u0301, \u0301 q\u0307\u0323",
        "Ⅷ.① ½,¾ 7.⑦ ٣.٤ x.①y ②,z 𝟘.𝟙 𝒳·𝒴 ≤≥ ∑∫ ⠓⠊ ┌─┐ ←↑ ₹₿",
        "‘a’ “b” …c… –d– —e— ‐f‐ ‹g› †h‡ •i ′j″ \u2000k\u2001 \u2a6dl\u2a6e",
    ],
    "white space": [
        "tab\there  and\u00a0no-break\u202fnarrow\u2009thin\u3000wide 5. ",
        "zero\u200bwidth file\x1cgroup\x1drecord\x1eunit\x1fnext\x85line\u2028para\u2029end.\u00a0",
        "a hyphen-\nated line\nwith breaks-\n and more\r\nof them 1999.\t",
        "  leading, and trailing 7.  \t\n",
    ],
    "short": ["Yes.", "5.", ".5", "No", "-", "...", "a-b", "1-2", "(so)", "(a", "a)", "é", "一", "''", ".'"],
    "long": [
        " ".join(f"w{i * i % 97}{',' if i % 7 == 0 else ''}" for i in range(250)) + ".",
        "ab" * 150,
        "the " * 150,
    ],
    # First and last of the ranges that the Chinese tokenizer knows, and their neighbours.
    "borders": [
        "".join(f"a{chr(code)}" for edge in edges for code in range(edge - 1, edge + 2))
        for edges in [
            (0x2000, 0x2A6D, 0x2E80, 0x2EFF, 0x2F00, 0x2FDF, 0x2FF0, 0x2FFF, 0x3000, 0x303F, 0x3100, 0x312F, 0x31A0),
            (0x31BF, 0x31C0, 0x31EF, 0x3200, 0x33FF, 0x3400, 0x4DB5, 0x4E00, 0x9FBB, 0xF900, 0xFA2D, 0xFA30, 0xFA6A),
            (0xFA70, 0xFAD9, 0xFE10, 0xFE1F, 0xFE30, 0xFE4F, 0xFF00, 0xFFEF, 0x20000, 0x2A6D6, 0x2F800, 0x2FA1D),
        ]
    ],
}

# Hypotheses that no edit would give.
CHOSEN = {
    "identical": (["a b c d e f", "g, h."], ["a b c d e f", "g, h."]),
    "nothing shared": (["u v w x y", "zz"], ["a b c d e", "qq qq"]),
    "no fourgram shared": (["a b c x d e f", "g h"], ["a b c y d e f", "g h"]),
    "no bigram shared": (["d c b a e"], ["a b c d e f"]),
    "only one-word lines": (["Yes", "No", "Perhaps"], ["Yes", "Yes", "Perhaps"]),
    "three words at most": (["a b c", "d e", "f"], ["a b c", "d e", "f"]),
    "empty hypotheses": (["", " ", "a b c d e f"], ["a b c d", "e f", "a b c d e"]),
    "empty hypotheses alone": (["", "\u00a0"], ["a b c d", "e f"]),
    "empty references": (["a b c d e", "f g", "a b c d e"], ["", " \t", "a b c d e"]),
    "empty lines alone": ([""], [""]),
    "clipped": (["the the the the the the the"], ["the cat is on the mat , the end"]),
    "tokenized": (
        ["he said that it was , in his view , quite @-@ late .", "and &quot; no &quot; more was to be done by then ."],
        ["she said that it was , in her view , quite @-@ late .", "then no more was to be done by anyone ."],
    ),
}

INSERTED = [".", ",", "-", "\"", "'", "1,000.5", "&quot;", "<skipped>", "。", "—", "’", "٫", "।", "the", "\u00a0", "\t"]


def edited(reference, others, generator):
    units = reference.split(" ") if " " in reference else list(reference)
    separator = " " if " " in reference else ""
    made = []
    for unit in units:
        draw = generator.random()
        if draw < 0.08:
            continue
        if draw < 0.12:
            made.append(generator.choice(INSERTED))
        if draw < 0.16:
            made.append(generator.choice(others)[:6].strip())
        made.append(unit.swapcase() if 0.16 <= draw < 0.22 else unit)
        if draw > 0.94:
            made.append(unit)
        elif draw > 0.88 and len(made) > 1:
            made[-1], made[-2] = made[-2], made[-1]
    return separator.join(made)


def multi_bleu(hypotheses, references):
    """Moses' multi-bleu.perl: fractions, two decimals. None where it divides by zero, or other white space than ASCII's
    stands, at which it does not split."""
    if any(line.split() != [word.decode() for word in line.encode().split()] for line in hypotheses + references):
        return None
    matches, totals = [0] * 5, [0] * 5
    hypothesis_length = reference_length = 0
    for hypothesis, reference in zip(hypotheses, references):
        hypothesis, reference = hypothesis.split(), reference.split()
        hypothesis_length += len(hypothesis)
        reference_length += len(reference)
        for n in range(1, 5):
            ours = Counter(tuple(hypothesis[i:i + n]) for i in range(len(hypothesis) - n + 1))
            theirs = Counter(tuple(reference[i:i + n]) for i in range(len(reference) - n + 1))
            matches[n] += sum((ours & theirs).values())
            totals[n] += sum(ours.values())
    if hypothesis_length == 0:
        return None
    logarithms = 0.0
    for n in range(1, 5):
        precision = matches[n] / totals[n] if totals[n] else 0
        logarithms += math.log(precision) if precision else -9999999999
    penalty = 1.0
    if hypothesis_length < reference_length:
        penalty = math.exp(1 - reference_length / hypothesis_length)
    return f"{100 * penalty * math.exp(logarithms / 4):.2f}"


def bleu(hypotheses, references, tokenization):
    def metric(**settings):
        return BLEU(tokenize=tokenization, force=True, **settings)

    plain = metric()
    score = plain.corpus_score(hypotheses, [references])
    # Each is [hypothesis length, reference length, matches, totals].
    statistics = plain._extract_corpus_statistics(hypotheses, [references])
    return {
        "tokenized_hypotheses": [plain._preprocess_segment(line) for line in hypotheses],
        "tokenized_references": [plain._preprocess_segment(line) for line in references],
        "lengths": [sentence[:2] for sentence in statistics],
        "matches": [sentence[2:6] for sentence in statistics],
        "totals": [sentence[6:] for sentence in statistics],
        "exp": score.score,
        "precisions": score.precisions,
        "brevity_penalty": score.bp,
        "none": metric(smooth_method="none").corpus_score(hypotheses, [references]).score,
        "lowercase": metric(lowercase=True).corpus_score(hypotheses, [references]).score,
    }


def chrf(hypotheses, references):
    def score(**settings):
        return CHRF(**settings).corpus_score(hypotheses, [references]).score

    statistics = CHRF(word_order=2)._extract_corpus_statistics(hypotheses, [references])
    return {
        "hypothesis": [sentence[0::3] for sentence in statistics],
        "reference": [sentence[1::3] for sentence in statistics],
        "matches": [sentence[2::3] for sentence in statistics],
        "chrf": score(),
        "chrf_plus_plus": score(word_order=2),
        "lowercase": score(lowercase=True),
    }


def signature(metric):
    metric.corpus_score(["a"], [["a"]])
    return str(metric.get_signature()).rsplit("|", 1)[0]


def main():
    generator = random.Random(1)
    corpora = []
    for name, references in REFERENCES.items():
        hypotheses = [edited(line, references, generator) for line in references]
        corpora.append((name, hypotheses, references))
    corpora += [(name, *pair) for name, pair in CHOSEN.items()]

    cases = []
    for name, hypotheses, references in corpora:
        cases.append({
            "name": name,
            "hypotheses": hypotheses,
            "references": references,
            "bleu": {tokenization: bleu(hypotheses, references, tokenization) for tokenization in TOKENIZATIONS},
            "chrf": chrf(hypotheses, references),
            "multi_bleu": multi_bleu(hypotheses, references),
        })
    signatures = {
        "bleu": {tokenization: signature(BLEU(tokenize=tokenization)) for tokenization in TOKENIZATIONS},
        "bleu_lowercase_none": signature(BLEU(lowercase=True, smooth_method="none")),
        "chrf": signature(CHRF()),
        "chrf_plus_plus_lowercase": signature(CHRF(word_order=2, lowercase=True)),
    }
    lines = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in cases)
    print('{"signatures":' + json.dumps(signatures) + ',\n"cases":[\n' + lines + "\n]}")


main()
