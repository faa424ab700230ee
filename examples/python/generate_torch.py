"""Generates text with a key/value cache in PyTorch; attention, rotation and the cache come from dlattn.flash_attn.

    python examples/python/generate_torch.py [--tokens 64] [--pages] [--device cuda]

A small decoder with random weights (grouped heads, rotary positions, every other layer sees a window) continues prompts
of different lengths. The first call writes whole prompts into the cache, each further one a single token per sequence;
with --pages the cache is a pool of pages in any order. Then the same tokens are computed again without a cache, from all
earlier tokens, packed, in every step. Exit code 0 when both ways choose the same tokens, else 1.
"""
import argparse
import sys
import time

import torch

from dlattn.flash_attn import flash_attn_varlen_func, flash_attn_with_kvcache
from dlattn.flash_attn.layers.rotary import apply_rotary_emb

LAYERS, WIDTH, HEADS, KV_HEADS, VOCABULARY, WINDOW = 4, 256, 8, 2, 512, 32
SIZE = WIDTH // HEADS
PROMPTS = (50, 7, 23)  # lengths
PAGE = 16


class Layer(torch.nn.Module):
    def __init__(self, window):
        super().__init__()
        self.qkv = torch.nn.Linear(WIDTH, (HEADS + 2 * KV_HEADS) * SIZE, bias=False)
        self.out = torch.nn.Linear(WIDTH, WIDTH, bias=False)
        self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)
        self.norms = torch.nn.ModuleList(torch.nn.RMSNorm(WIDTH) for _ in range(2))
        self.options = {"causal": True, "window_size": (window - 1, 0) if window else (-1, -1)}

    def forward(self, x, attend):
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (-1, SIZE)).split((HEADS, KV_HEADS, KV_HEADS), -2)
        x = x + self.out(attend(q, k, v, **self.options).flatten(-2))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norms[1](x))))


class Decoder(torch.nn.Module):
    def __init__(self, positions):
        super().__init__()
        self.embed = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layers = torch.nn.ModuleList(Layer(WINDOW if index % 2 else None) for index in range(LAYERS))
        self.norm, self.head = torch.nn.RMSNorm(WIDTH), torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        angles = torch.arange(positions)[:, None] * 10000.0 ** -torch.linspace(0, 1, SIZE // 2 + 1)[:-1]
        self.register_buffer("cosines", angles.cos())
        self.register_buffer("sines", angles.sin())

    def forward(self, tokens, attentions):
        """Scores of the next token, behind each of `tokens`; attentions: one function of each layer."""
        x = self.embed(tokens)
        for layer, attend in zip(self.layers, attentions):
            x = layer(x, attend)
        return self.head(self.norm(x))


class Cache:
    """Keys and values of every layer: rows for the longest text, or pages that a table gives to the sequences."""

    def __init__(self, model, batch, capacity, paged, device):
        self.model, self.table = model, None
        shape = (batch, capacity, KV_HEADS, SIZE)
        if paged:
            pages = -(-capacity // PAGE)
            self.table = torch.randperm(batch * pages).to(torch.int32).view(batch, pages).to(device)
            shape = (batch * pages, PAGE, KV_HEADS, SIZE)
        self.layers = [(torch.zeros(shape, device=device), torch.zeros(shape, device=device)) for _ in model.layers]

    def attentions(self, lengths):
        """What each layer calls: new tokens go behind `lengths` ones, rotated, and see everything before them."""
        def of_layer(keys, values):
            return lambda q, k, v, **options: flash_attn_with_kvcache(
                q, keys, values, k, v, self.model.cosines, self.model.sines, cache_seqlens=lengths, block_table=self.table,
                rotary_interleaved=False, **options)

        return [of_layer(*layer) for layer in self.layers]


def generate(model, prompts, lengths, count, paged):
    """[batch, count] tokens, each the likeliest behind those before it."""
    batch, longest = prompts.shape
    cache = Cache(model, batch, longest + count, paged, prompts.device)
    # Prompts are padded at their ends: nobody sees what is there, and the next tokens are written over it.
    scores = model(prompts, cache.attentions(torch.zeros_like(lengths)))
    tokens = [scores[torch.arange(batch), lengths.long() - 1].argmax(-1)]
    for step in range(count - 1):
        scores = model(tokens[-1][:, None], cache.attentions(lengths + step))
        tokens.append(scores[:, 0].argmax(-1))
    return torch.stack(tokens, 1)


def recompute(model, texts, count):
    """The same without a cache: every step reads all texts, packed one behind the other."""
    tokens = []
    for _ in range(count):
        cu_seqlens = torch.tensor([0, *(len(text) for text in texts)], device=texts[0].device).cumsum(0).to(torch.int32)
        longest = max(len(text) for text in texts)

        def attend(q, k, v, **options):
            q, k = (apply_rotary_emb(x, model.cosines, model.sines, cu_seqlens=cu_seqlens) for x in (q, k))
            return flash_attn_varlen_func(q, k, v, cu_seqlens, cu_seqlens, longest, longest, **options)

        last = cu_seqlens[1:].long() - 1
        tokens.append(model(torch.cat(texts), [attend] * LAYERS)[last].argmax(-1))
        texts = [torch.cat((text, token[None])) for text, token in zip(texts, tokens[-1])]
    return torch.stack(tokens, 1)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of each sequence")
    parser.add_argument("--pages", action="store_true", help=f"a cache of pages of {PAGE} tokens")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    count, device = arguments.tokens, arguments.device
    torch.manual_seed(1)
    texts = [torch.randint(VOCABULARY, (length,)) for length in PROMPTS]
    model = Decoder(max(PROMPTS) + count).to(device)
    texts = [text.to(device) for text in texts]
    lengths = torch.tensor(PROMPTS, dtype=torch.int32, device=device)
    prompts = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    seconds, found = [], []
    for way in (lambda: generate(model, prompts, lengths, count, arguments.pages), lambda: recompute(model, texts, count)):
        start = time.perf_counter()
        found.append(way().tolist())
        seconds.append(time.perf_counter() - start)
    for length, row in zip(PROMPTS, found[0]):
        print(f"behind {length:2} tokens:", *row[:12], "...")
    total = len(PROMPTS) * count
    print(f"{total} tokens, {total / seconds[0]:.0f} per second; without a cache {total / seconds[1]:.0f}")
    same = found[0] == found[1]
    print("the same tokens as full recomputation" if same else f"full recomputation differs: {found[1]}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
