"""XLM's masked-LM training step in PyTorch on one NVIDIA GPU: what `pytorch.py` is on a processor.

    python benches/peers/pytorch_cuda.py --mode compile --precision bf16

`--help` lists the sizes; one JSON object comes back on stdout. `--peak` measures one large matrix product instead. Logits are
computed at predicted positions only, masters and moments have 32 bits, and batches lie on the device before the first step.
"""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F
from torch import nn

DROPOUT = 0.1
POSITIONS = 512
# Batches that steps take in turn; all have one shape and one count of predicted positions, so that nothing is compiled twice.
BATCHES = 8
MASK = 5


class Layer(nn.Module):
    def __init__(self, hidden, heads, feed_forward, dropout):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-12)
        self.inner = nn.Linear(hidden, feed_forward)
        self.outer = nn.Linear(feed_forward, hidden)
        self.feed_forward_norm = nn.LayerNorm(hidden, eps=1e-12)

    def forward(self, x):
        batch, length, hidden = x.shape
        # Parts are taken before heads are moved: the gradients then join in one copy.
        parts = self.query_key_value(x).view(batch, length, 3, self.heads, hidden // self.heads).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        context = F.scaled_dot_product_attention(query, key, value, dropout_p=self.dropout if self.training else 0.0)
        context = context.transpose(1, 2).reshape(batch, length, hidden)
        x = self.attention_norm(x + F.dropout(self.output(context), self.dropout, self.training))
        inner = F.gelu(self.inner(x))
        return self.feed_forward_norm(x + F.dropout(self.outer(inner), self.dropout, self.training))


class Encoder(nn.Module):
    def __init__(self, layers, hidden, heads, feed_forward, vocabulary, languages, dropout=DROPOUT):
        super().__init__()
        self.dropout = dropout
        deviation = hidden**-0.5
        self.token = nn.Parameter(torch.randn(vocabulary, hidden) * deviation)
        self.position = nn.Parameter(torch.randn(POSITIONS, hidden) * deviation)
        self.language = nn.Parameter(torch.randn(languages, hidden) * deviation)
        self.norm = nn.LayerNorm(hidden, eps=1e-12)
        self.layers = nn.ModuleList(Layer(hidden, heads, feed_forward, dropout) for _ in range(layers))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, tokens, languages, predicted, labels):
        """tokens [sequences, length]; languages [sequences, 1]; predicted: places among all tokens; the mean loss in nats."""
        x = F.embedding(tokens, self.token) + self.position[: tokens.shape[1]] + F.embedding(languages, self.language)
        x = F.dropout(self.norm(x), self.dropout, self.training)
        for layer in self.layers:
            x = layer(x)
        # No place is predicted twice: the gradient of index_select needs no sorting, that of indexing sorts.
        states = x.flatten(0, 1).index_select(0, predicted)
        return F.cross_entropy(F.linear(states, self.token, self.bias).float(), labels)


def batch(sequences, length, vocabulary, languages, device):
    """Random tokens, 15 % of them to be predicted: of these 80 % are masked, 10 % replaced and 10 % kept, as XLM does."""
    labels = torch.randint(vocabulary, (sequences * length,), device=device)
    predicted = torch.randperm(len(labels), device=device)[: round(0.15 * len(labels))]
    tokens = labels.clone()
    masked, replaced = round(0.8 * len(predicted)), round(0.9 * len(predicted))
    tokens[predicted[:masked]] = min(MASK, vocabulary - 1)
    tokens[predicted[masked:replaced]] = torch.randint(vocabulary, (replaced - masked,), device=device)
    predicted = predicted.sort().values
    language = torch.randint(languages, (sequences, 1), device=device)
    return tokens.view(sequences, length), language, predicted, labels[predicted]


def stepper(model, run, device, precision):
    """A function that trains `model` on one batch through `run`, which is the model or its compiled form; the loss stays on the device."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.98), weight_decay=0.0, fused=True)

    def step(inputs):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = run(*inputs)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def choose_attention(name):
    """Leaves PyTorch only one of its attention kernels; which is fastest depends on the device and the shape."""
    if name == "default":
        return
    torch.backends.cuda.enable_flash_sdp(name == "flash")
    torch.backends.cuda.enable_cudnn_sdp(name == "cudnn")
    torch.backends.cuda.enable_mem_efficient_sdp(name == "efficient")
    torch.backends.cuda.enable_math_sdp(False)


def timed(function, warmup, count):
    """Milliseconds of each of `count` calls by events on the device, and what the last returned; the host waits only before and after all."""
    for number in range(warmup):
        function(number)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for number in range(count):
        last = function(warmup + number)
        events[number + 1].record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in zip(events, events[1:])], last


def peak(device, size=8192):
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    milliseconds, _ = timed(lambda _: torch.matmul(left, right), 5, 20)
    return {"bf16_tflops": 2 * size**3 / statistics.median(milliseconds) / 1e9}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--feed-forward", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--languages", type=int, default=4)
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=10, help="steps before the measured ones; at least one")
    parser.add_argument("--mode", choices=["eager", "compile"], default="eager")
    parser.add_argument("--max-autotune", action="store_true", help='compile with mode="max-autotune-no-cudagraphs"')
    parser.add_argument("--precision", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--attention", choices=["default", "flash", "cudnn", "efficient"], default="default", help="the only attention kernel PyTorch may use")
    parser.add_argument("--peak", action="store_true", help="measure the rate of a bf16 matrix product of 8192 x 8192 x 8192 instead")
    settings = parser.parse_args()
    if settings.warmup < 1 or settings.steps < 1:
        parser.error("--warmup and --steps must be at least 1")
    if settings.length > POSITIONS:
        parser.error(f"--length must be at most {POSITIONS}")
    if settings.max_autotune and settings.mode != "compile":
        parser.error("--max-autotune needs --mode compile")
    return settings


def main():
    s = arguments()
    torch.manual_seed(1)
    device = torch.device("cuda")
    if s.peak:
        print(json.dumps(peak(device)))
        return
    torch.backends.cuda.matmul.allow_tf32 = s.precision == "bf16"
    choose_attention(s.attention)
    with device:
        model = Encoder(s.layers, s.hidden, s.heads, s.feed_forward, s.vocabulary, s.languages).train()
    run = model
    if s.mode == "compile":
        run = torch.compile(model, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs" if s.max_autotune else "default")
    step = stepper(model, run, device, s.precision)
    batches = [batch(s.sequences, s.length, s.vocabulary, s.languages, device) for _ in range(BATCHES)]
    milliseconds, loss = timed(lambda number: step(batches[number % BATCHES]), s.warmup, s.steps)
    median = statistics.median(milliseconds)
    print(json.dumps({
        "mode": s.mode + (", max-autotune" if s.max_autotune else ""),
        "precision": s.precision,
        "attention": s.attention,
        "milliseconds_per_step": median,
        "tokens_per_second": 1e3 * s.sequences * s.length / median,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(),
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "loss": loss.item(),
    }))


if __name__ == "__main__":
    main()
