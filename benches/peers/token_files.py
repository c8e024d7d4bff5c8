"""Encoding text with sentencepiece or tokenizers, as `xlt bench token-files --text FILE` does.

`python benches/peers/token_files.py --text FILE --library sentencepiece|tokenizers`; one JSON object comes back on stdout.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy


def sentencepiece_encoder(text, vocabulary, threads):
    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "model"
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(prefix), vocab_size=vocabulary, model_type="bpe", character_coverage=0.9999,
            input_sentence_size=200_000, shuffle_input_sentence=True, num_threads=threads, minloglevel=2)
        processor = sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model")
    return lambda lines: processor.encode(lines, num_threads=threads)


def tokenizers_encoder(text, vocabulary, threads):
    import os

    os.environ["RAYON_NUM_THREADS"] = str(threads)
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train([str(text)], trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<unk>"], show_progress=False))
    return lambda lines: [encoding.ids for encoding in tokenizer.encode_batch_fast(lines)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--library", choices=["sentencepiece", "tokenizers"], default="sentencepiece")
    parser.add_argument("--vocabulary", type=int, default=8000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    settings = parser.parse_args()
    make = {"sentencepiece": sentencepiece_encoder, "tokenizers": tokenizers_encoder}[settings.library]
    encode = make(settings.text, settings.vocabulary, settings.threads)
    megabytes = settings.text.stat().st_size / 1e6
    walls, processors, tokens = [], [], 0
    for _ in range(settings.steps):
        wall, processor = time.perf_counter(), time.process_time()
        with tempfile.TemporaryFile() as out, settings.text.open(encoding="utf-8") as text:
            tokens = 0
            while lines := text.readlines(1 << 22):
                ids = [numpy.array(sentence, dtype=numpy.uint16) for sentence in encode([line.rstrip("\n") for line in lines])]
                tokens += sum(map(len, ids))
                numpy.concatenate(ids).tofile(out)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    print(json.dumps({
        "library": settings.library,
        "tokens": tokens,
        "megabytes_per_second": megabytes / statistics.median(walls),
        "megabytes_per_processor_second": megabytes / statistics.median(processors),
    }))


main()
