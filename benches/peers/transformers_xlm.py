"""transformers' own XLM: fine-tuning on sentence pairs and prediction, padded as its users pad, and its masked LM.

`python benches/peers/transformers_xlm.py --help` lists the sizes; one JSON object comes back on stdout.
"""

import torch
from transformers import XLMConfig, XLMForSequenceClassification, XLMWithLMHeadModel

import workload

PAD = 2


def main():
    s = workload.arguments(__doc__)
    config = XLMConfig(vocab_size=s.vocabulary, emb_dim=s.hidden, n_layers=s.layers, n_heads=s.heads, dropout=s.dropout,
                       attention_dropout=s.dropout, gelu_activation=True, n_langs=s.languages,
                       max_position_embeddings=512, num_labels=3, summary_type="first", summary_first_dropout=0.0,
                       pad_index=PAD, pad_token_id=PAD)
    if config.emb_dim * 4 != s.feed_forward:
        raise SystemExit("transformers' XLM has a feed-forward width of four times the hidden size")
    classify = s.objective.startswith("xnli")
    model = XLMForSequenceClassification(config) if classify else XLMWithLMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    training = s.objective != "xnli_prediction"
    model.train(training)

    def batch(lengths):
        width = s.pad_to or max(lengths)
        lengths = [min(length, width) for length in lengths]
        tokens = torch.full((len(lengths), width), PAD)
        mask = torch.zeros(len(lengths), width, dtype=torch.long)
        for row, length in enumerate(lengths):
            tokens[row, :length] = torch.randint(14, s.vocabulary, (length,))
            mask[row, :length] = 1
        return tokens, mask

    def step(lengths):
        tokens, mask = batch(lengths)
        langs = torch.zeros_like(tokens)
        if classify:
            labels = torch.randint(3, (len(lengths),))
        else:
            labels = torch.where(torch.rand(tokens.shape) < 0.15, tokens, -100)
        with workload.autocast(s):
            if not training:
                with torch.no_grad():
                    model(input_ids=tokens, attention_mask=mask, langs=langs).logits.argmax(-1)
                return
            loss = model(input_ids=tokens, attention_mask=mask, langs=langs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    workload.report(s, step)


main()
