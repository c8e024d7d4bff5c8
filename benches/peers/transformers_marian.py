"""transformers' Marian, as shipped: training on sentence pairs, and translating with kept keys and values.

`python benches/peers/transformers_marian.py --help` lists the sizes; one JSON object comes back on stdout. Sentences of a batch
are padded to its longest and sorted by length first, as one does to make padding cheap.
"""

import torch
from transformers import MarianConfig, MarianMTModel

import workload

PAD, END = 2, 1


def main():
    s = workload.arguments(__doc__)
    config = MarianConfig(
        vocab_size=s.vocabulary, d_model=s.hidden, encoder_layers=s.layers, decoder_layers=s.layers,
        encoder_attention_heads=s.heads, decoder_attention_heads=s.heads, encoder_ffn_dim=s.feed_forward,
        decoder_ffn_dim=s.feed_forward, activation_function="gelu", dropout=s.dropout, attention_dropout=s.dropout,
        activation_dropout=0.0, max_position_embeddings=512, pad_token_id=PAD, eos_token_id=END,
        decoder_start_token_id=END, forced_eos_token_id=None, scale_embedding=False)
    model = MarianMTModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def batch(lengths):
        longest = max(lengths)
        tokens = torch.randint(14, s.vocabulary, (len(lengths), longest))
        mask = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
        return tokens.masked_fill(~mask, PAD), mask.long()

    def train(lengths):
        model.train()
        source, mask = batch(lengths)
        target, target_mask = batch(lengths)
        labels = target.masked_fill(target_mask == 0, -100)
        with workload.autocast(s):
            loss = model(input_ids=source, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @torch.inference_mode()
    def generate(lengths):
        model.eval()
        # Sentences of about one length together: each then has as many tokens as the longest of its part.
        lengths = sorted(lengths, reverse=True)
        for start in range(0, len(lengths), 32):
            part = lengths[start:start + 32]
            source, mask = batch(part)
            with workload.autocast(s):
                found = model.generate(
                    input_ids=source, attention_mask=mask, num_beams=s.beam, do_sample=False, use_cache=True,
                    min_new_tokens=part[0], max_new_tokens=part[0], length_penalty=1.0)
            assert found.shape[1] == part[0] + 1, found.shape

    workload.report(s, generate if s.objective == "generation" else train)


main()
