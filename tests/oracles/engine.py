"""The trunk of XLM in PyTorch (float64), for tests/engine.rs: losses, gradients and twenty steps of AdamW.

Run from the repository's root: `python tests/oracles/engine.py`. Needs torch and safetensors; writes
tests/fixtures/engine_*.safetensors. Parameters are stored as float32, so both sides start from the same numbers.
"""

import json
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)


def shape(layers, hidden, heads, feed_forward, positions, language_embeddings, vocabulary, languages, decoder=False):
    settings = dict(layers=layers, hidden=hidden, heads=heads, feed_forward=feed_forward, positions=positions,
                    dropout=0.0, attention_dropout=0.0, language_embeddings=language_embeddings)
    return dict(settings=settings, vocabulary=vocabulary, languages=languages) | (dict(decoder=True) if decoder else {})


def parameters(shape):
    p = stack(shape, "", not shape.get("decoder"))
    if shape.get("decoder"):
        p |= stack(shape, "decoder.", True)
    return {name: value.float().double().requires_grad_() for name, value in p.items()}


def stack(shape, prefix, predicts):
    s, d = shape["settings"], shape["settings"]["hidden"]
    p = {prefix + "embeddings.token": torch.randn(shape["vocabulary"], d) * d**-0.5}
    if predicts:
        p[prefix + "output.bias"] = torch.randn(shape["vocabulary"]) * 0.1
    p[prefix + "embeddings.position"] = torch.randn(s["positions"], d) * d**-0.5
    if s["language_embeddings"]:
        p[prefix + "embeddings.language"] = torch.randn(shape["languages"], d) * d**-0.5
    p[prefix + "embeddings.token"][2] = 0

    def norm(name):
        p[name + ".scale"] = 1 + 0.2 * torch.randn(d)
        p[name + ".shift"] = 0.2 * torch.randn(d)

    def linear(name, inputs, outputs):
        p[name + ".weight"] = torch.randn(outputs, inputs) * inputs**-0.5
        p[name + ".bias"] = torch.randn(outputs) * 0.1

    norm(prefix + "embeddings.norm")
    for layer in range(s["layers"]):
        name = f"{prefix}layers.{layer}."
        linear(name + "attention.query_key_value", d, 3 * d)
        linear(name + "attention.output", d, d)
        norm(name + "attention.norm")
        if prefix:
            linear(name + "source_attention.query", d, d)
            linear(name + "source_attention.key_value", d, 2 * d)
            linear(name + "source_attention.output", d, d)
            norm(name + "source_attention.norm")
        linear(name + "feed_forward.inner", d, s["feed_forward"])
        linear(name + "feed_forward.outer", s["feed_forward"], d)
        norm(name + "feed_forward.norm")
    return p


def trunk(p, shape, tokens, positions, languages, causal, prefix="", source=None):
    """One sequence, [length] -> [length, hidden]; a decoder attends to `source`, [source length, hidden]."""
    s = shape["settings"]
    d, h = s["hidden"], s["heads"]

    def norm(x, name):
        return F.layer_norm(x, (d,), p[name + ".scale"], p[name + ".shift"], eps=1e-12)

    def linear(x, name):
        return F.linear(x, p[name + ".weight"], p[name + ".bias"])

    def heads(x):
        return x.view(-1, h, d // h).transpose(0, 1)

    def attend(q, k, v, causal):
        context = F.scaled_dot_product_attention(heads(q), heads(k), heads(v), is_causal=causal)
        return context.transpose(0, 1).reshape(-1, d)

    x = F.embedding(tokens, p[prefix + "embeddings.token"], padding_idx=2) + p[prefix + "embeddings.position"][positions]
    if s["language_embeddings"]:
        x = x + p[prefix + "embeddings.language"][languages]
    x = norm(x, prefix + "embeddings.norm")
    for layer in range(s["layers"]):
        name = f"{prefix}layers.{layer}."
        context = attend(*linear(x, name + "attention.query_key_value").chunk(3, dim=-1), causal)
        x = norm(x + linear(context, name + "attention.output"), name + "attention.norm")
        if source is not None:
            k, v = linear(source, name + "source_attention.key_value").chunk(2, dim=-1)
            context = attend(linear(x, name + "source_attention.query"), k, v, False)
            x = norm(x + linear(context, name + "source_attention.output"), name + "source_attention.norm")
        out = linear(F.gelu(linear(x, name + "feed_forward.inner")), name + "feed_forward.outer")
        x = norm(x + out, name + "feed_forward.norm")
    return x


def loss_sum(p, shape, batch, causal):
    """Sum of cross-entropies over the batch's targets, sequence by sequence."""
    total = 0
    prefix = "decoder." if "source" in batch else ""
    for sequence, (start, end) in enumerate(zip(batch["offsets"], batch["offsets"][1:])):
        rows = [row for row in batch["indices"] if start <= row < end]
        if not rows:
            continue
        part = slice(start, end)
        source = None
        if prefix:
            b = batch["source"]
            of = slice(*b["offsets"][sequence:sequence + 2])
            source = trunk(p, shape, b["tokens"][of], b["positions"][of], b["languages"][of], False)
        x = trunk(p, shape, batch["tokens"][part], batch["positions"][part], batch["languages"][part], causal, prefix,
                  source)
        labels = torch.tensor([batch["labels"][batch["indices"].index(row)] for row in rows])
        logits = F.linear(x[[row - start for row in rows]], p[prefix + "embeddings.token"], p[prefix + "output.bias"])
        total = total + F.cross_entropy(logits, labels, reduction="sum")
    return total


def batch(shape, lengths, share, parts=1):
    tokens, positions, languages, offsets = [], [], [], [0]
    for length in lengths:
        cut = length // parts
        for part in range(parts if length >= parts else 1):
            size = cut if length >= parts and part + 1 < parts else length - cut * part if length >= parts else length
            tokens.append(torch.randint(0, shape["vocabulary"], (size,)))
            positions.append(torch.arange(size))
            languages.append(torch.full((size,), int(torch.randint(0, shape["languages"], ()))))
        offsets.append(offsets[-1] + length)
    indices = [row for row in range(offsets[-1]) if torch.rand(()) < share] or [0]
    labels = torch.randint(0, shape["vocabulary"], (len(indices),)).tolist()
    return dict(tokens=torch.cat(tokens), positions=torch.cat(positions), languages=torch.cat(languages),
                offsets=offsets, indices=indices, labels=labels)


def pairs(shape, source_lengths, lengths):
    """Sentences with their sources, next tokens to be predicted."""
    b = batch(shape, lengths, 1.0)
    b["source"] = batch(shape, source_lengths, 1.0)
    return b


def numbers(b):
    plain = lambda value: value.tolist() if torch.is_tensor(value) else numbers(value) if isinstance(value, dict) else value
    return {key: plain(value) for key, value in b.items()}


def write(name, shape, batches, causal, steps=0):
    p = parameters(shape)
    tensors = {"parameters/" + key: value.detach().float().clone() for key, value in p.items()}
    record = dict(shape=shape, causal=causal, batches=[numbers(b) for b in batches])
    if steps:
        optimizer = torch.optim.AdamW(p.values(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01)
        record["losses"], record["norms"] = [], []
        for step in range(steps):
            b = batches[step % len(batches)]
            optimizer.zero_grad()
            loss = loss_sum(p, shape, b, causal) / len(b["labels"])
            loss.backward()
            record["losses"].append(loss.item())
            record["norms"].append(torch.nn.utils.clip_grad_norm_(p.values(), 1.0).item())
            optimizer.step()
    else:
        loss = sum(loss_sum(p, shape, b, causal) for b in batches)
        loss.backward()
        record["losses"] = [loss.item()]
        tensors |= {"gradients/" + key: value.grad.float() for key, value in p.items()}
    save_file(tensors, f"tests/fixtures/engine_{name}.safetensors", metadata={"record": json.dumps(record)})
    print(name, record["losses"][:2], math.prod((len(tensors),)))


tiny = shape(2, 16, 2, 32, 12, True, 37, 3)
write("bidirectional", tiny, [batch(tiny, [12, 1, 5, 7, 12, 2], 0.4)], False)
write("causal", tiny, [batch(tiny, [12, 1, 5, 7, 12, 2], 0.8)], True)
write("parts", tiny, [batch(tiny, [12, 9, 4], 0.5, parts=2)], False)
# Widths that fill no vector, no language embeddings, one sequence of one token.
odd = shape(1, 15, 3, 21, 5, False, 9, 1)
write("odd", odd, [batch(odd, [1], 1.0), batch(odd, [5, 3], 0.7)], False)
# More tokens than a shard holds, and more targets than a panel.
long = shape(1, 8, 1, 8, 70, True, 50, 2)
write("long", long, [batch(long, [70, 3, 61, 70, 1, 44, 33], 0.9)], False)
write("steps", tiny, [batch(tiny, [12, 8, 10], 0.4) for _ in range(4)], False, steps=20)
# A decoder over an encoder; two batches whose gradients add up, as of auto-encoding and back-translation in one step.
translating = shape(2, 16, 2, 32, 12, True, 37, 3, decoder=True)
write("translation", translating, [pairs(translating, [12, 1, 5, 7], [3, 9, 1, 12]), pairs(translating, [4, 6], [5, 2])], True)
write("translation_steps", translating, [pairs(translating, [12, 8, 10], [7, 11, 3]) for _ in range(4)], True, steps=20)
