"""XLM's encoder in plain PyTorch, as one would write it today: fused attention, logits at predicted positions only.

`python benches/peers/pytorch.py --help` lists the sizes; one JSON object comes back on stdout.
"""

import torch
import torch.nn.functional as F
from torch import nn

import workload


class Layer(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads, self.dropout = s.heads, s.dropout
        self.query_key_value = nn.Linear(s.hidden, 3 * s.hidden)
        self.output = nn.Linear(s.hidden, s.hidden)
        self.attention_norm = nn.LayerNorm(s.hidden, eps=1e-12)
        self.inner = nn.Linear(s.hidden, s.feed_forward)
        self.outer = nn.Linear(s.feed_forward, s.hidden)
        self.feed_forward_norm = nn.LayerNorm(s.hidden, eps=1e-12)

    def forward(self, x, causal):
        batch, length, hidden = x.shape
        parts = self.query_key_value(x).view(batch, length, 3, self.heads, hidden // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)
        context = context.transpose(1, 2).reshape(batch, length, hidden)
        x = self.attention_norm(x + F.dropout(self.output(context), self.dropout, self.training))
        inner = F.gelu(self.inner(x))
        return self.feed_forward_norm(x + F.dropout(self.outer(inner), self.dropout, self.training))


class Encoder(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.s = s
        deviation = s.hidden**-0.5
        self.token = nn.Parameter(torch.randn(s.vocabulary, s.hidden) * deviation)
        self.position = nn.Parameter(torch.randn(512, s.hidden) * deviation)
        self.language = nn.Parameter(torch.randn(s.languages, s.hidden) * deviation)
        self.norm = nn.LayerNorm(s.hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(s) for _ in range(s.layers))
        self.bias = nn.Parameter(torch.zeros(s.vocabulary))

    def forward(self, tokens, languages, predicted, labels):
        """tokens, languages [sequences, length]; predicted: places among all tokens; the mean loss in nats."""
        length = tokens.shape[1]
        x = F.embedding(tokens, self.token) + self.position[:length] + F.embedding(languages, self.language)
        x = F.dropout(self.norm(x), self.s.dropout, self.training)
        for layer in self.layers:
            x = layer(x, self.s.objective == "causal_lm")
        states = x.reshape(-1, self.s.hidden)[predicted]
        return F.cross_entropy(F.linear(states, self.token, self.bias).float(), labels)


def main():
    s = workload.arguments(__doc__)
    model = Encoder(s).train()
    run = torch.compile(model) if s.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(lengths):
        sequences, length = len(lengths), lengths[0]
        tokens = torch.randint(s.vocabulary, (sequences, length))
        languages = torch.randint(s.languages, (sequences, 1)).expand(-1, length)
        count = sequences * length
        targets = count if s.objective == "causal_lm" else round(0.15 * count)
        predicted = torch.randperm(count)[:targets].sort().values
        labels = tokens.reshape(-1)[predicted]
        with workload.autocast(s):
            loss = run(tokens, languages, predicted, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    workload.report(s, step)


main()
