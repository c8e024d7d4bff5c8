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


def shape(layers, hidden, heads, feed_forward, positions, language_embeddings, vocabulary, languages):
    settings = dict(layers=layers, hidden=hidden, heads=heads, feed_forward=feed_forward, positions=positions,
                    dropout=0.0, attention_dropout=0.0, language_embeddings=language_embeddings)
    return dict(settings=settings, vocabulary=vocabulary, languages=languages)


def parameters(shape):
    s, d = shape["settings"], shape["settings"]["hidden"]
    p = {"embeddings.token": torch.randn(shape["vocabulary"], d) * d**-0.5,
         "output.bias": torch.randn(shape["vocabulary"]) * 0.1,
         "embeddings.position": torch.randn(s["positions"], d) * d**-0.5}
    if s["language_embeddings"]:
        p["embeddings.language"] = torch.randn(shape["languages"], d) * d**-0.5
    p["embeddings.token"][2] = 0

    def norm(name):
        p[name + ".scale"] = 1 + 0.2 * torch.randn(d)
        p[name + ".shift"] = 0.2 * torch.randn(d)

    def linear(name, inputs, outputs):
        p[name + ".weight"] = torch.randn(outputs, inputs) * inputs**-0.5
        p[name + ".bias"] = torch.randn(outputs) * 0.1

    norm("embeddings.norm")
    for layer in range(s["layers"]):
        name = f"layers.{layer}."
        linear(name + "attention.query_key_value", d, 3 * d)
        linear(name + "attention.output", d, d)
        norm(name + "attention.norm")
        linear(name + "feed_forward.inner", d, s["feed_forward"])
        linear(name + "feed_forward.outer", s["feed_forward"], d)
        norm(name + "feed_forward.norm")
    return {name: value.float().double().requires_grad_() for name, value in p.items()}


def trunk(p, shape, tokens, positions, languages, causal):
    """One sequence, [length] -> [length, hidden]."""
    s = shape["settings"]
    d, h = s["hidden"], s["heads"]

    def norm(x, name):
        return F.layer_norm(x, (d,), p[name + ".scale"], p[name + ".shift"], eps=1e-12)

    x = F.embedding(tokens, p["embeddings.token"], padding_idx=2) + p["embeddings.position"][positions]
    if s["language_embeddings"]:
        x = x + p["embeddings.language"][languages]
    x = norm(x, "embeddings.norm")
    for layer in range(s["layers"]):
        name = f"layers.{layer}."
        qkv = F.linear(x, p[name + "attention.query_key_value.weight"], p[name + "attention.query_key_value.bias"])
        q, k, v = (part.view(-1, h, d // h).transpose(0, 1) for part in qkv.chunk(3, dim=-1))
        context = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        context = context.transpose(0, 1).reshape(-1, d)
        out = F.linear(context, p[name + "attention.output.weight"], p[name + "attention.output.bias"])
        x = norm(x + out, name + "attention.norm")
        inner = F.gelu(F.linear(x, p[name + "feed_forward.inner.weight"], p[name + "feed_forward.inner.bias"]))
        out = F.linear(inner, p[name + "feed_forward.outer.weight"], p[name + "feed_forward.outer.bias"])
        x = norm(x + out, name + "feed_forward.norm")
    return x


def loss_sum(p, shape, batch, causal):
    """Sum of cross-entropies over the batch's targets, sequence by sequence."""
    total = 0
    for start, end in zip(batch["offsets"], batch["offsets"][1:]):
        rows = [row for row in batch["indices"] if start <= row < end]
        if not rows:
            continue
        part = slice(start, end)
        x = trunk(p, shape, batch["tokens"][part], batch["positions"][part], batch["languages"][part], causal)
        labels = torch.tensor([batch["labels"][batch["indices"].index(row)] for row in rows])
        logits = F.linear(x[[row - start for row in rows]], p["embeddings.token"], p["output.bias"])
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


def numbers(b):
    return {key: value.tolist() if torch.is_tensor(value) else value for key, value in b.items()}


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
