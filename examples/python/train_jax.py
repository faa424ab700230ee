"""Trains a small character-level transformer in JAX; attention and its gradients come from dlattn.jax.

    python examples/python/train_jax.py [--steps 100]

The text is examples/data/opticks.txt; its last tenth is held out. A step is one compiled program: layers that are
checkpointed (recomputed in the backward), attention with sliding windows, learned sinks and a learned bias by relative
position, Adam. Exit code 0 when the held-out loss, in bits per character, ends below the unigram entropy of the held-out
text (what a model that knows only how often each character occurs cannot beat), else 1.
"""
import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dlattn.jax import attention

TEXT = Path(__file__).resolve().parents[1] / "data" / "opticks.txt"
LAYERS, WIDTH, HEADS, KV_HEADS, CONTEXT, BATCH, WINDOW = 2, 96, 6, 2, 128, 8, 64
SIZE = WIDTH // HEADS
RATE, DECAY, SECOND_DECAY = 3e-3, 0.9, 0.99  # Adam (Kingma and Ba, 2015)


def initial(key, characters):
    def matrix(key, rows, columns):
        return jax.random.normal(key, (rows, columns)) * rows**-0.5

    layers = []
    for key, *keys in jax.random.split(key, (LAYERS, 5)):
        layers.append({"qkv": matrix(keys[0], WIDTH, (HEADS + 2 * KV_HEADS) * SIZE), "out": matrix(keys[1], WIDTH, WIDTH),
                       "up": matrix(keys[2], WIDTH, 4 * WIDTH), "down": matrix(keys[3], 4 * WIDTH, WIDTH),
                       "sinks": jnp.zeros(HEADS), "relative": jnp.zeros((HEADS, WINDOW))})
    return {"embed": jax.random.normal(key, (characters, WIDTH)) * 0.5, "layers": layers}


def norm(x):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def layer(w, x):
    batch, tokens, _ = x.shape
    qkv = (norm(x) @ w["qkv"]).reshape(batch, tokens, HEADS + 2 * KV_HEADS, SIZE)
    q, k, v = jnp.split(qkv, (HEADS, HEADS + KV_HEADS), axis=2)
    distance = jnp.clip(jnp.arange(tokens)[:, None] - jnp.arange(tokens), 0, WINDOW - 1)
    out = attention(q, k, v, causal=True, window=(WINDOW - 1, 0), sinks=w["sinks"], bias=w["relative"][:, distance])
    x = x + out.reshape(x.shape) @ w["out"]
    return x + jnp.square(jax.nn.relu(norm(x) @ w["up"])) @ w["down"]


def loss(weights, text):
    """Bits per character of text [batch, CONTEXT + 1]."""
    x = weights["embed"][text[:, :-1]]
    for w in weights["layers"]:
        x = jax.checkpoint(layer)(w, x)
    scores = jax.nn.log_softmax(norm(x) @ weights["embed"].T)
    return -jnp.take_along_axis(scores, text[:, 1:, None], -1).mean() / np.log(2)


@jax.jit
def step(weights, first, second, turn, text):
    value, grads = jax.value_and_grad(loss)(weights, text)
    first = jax.tree.map(lambda m, g: DECAY * m + (1 - DECAY) * g, first, grads)
    second = jax.tree.map(lambda m, g: SECOND_DECAY * m + (1 - SECOND_DECAY) * g * g, second, grads)

    def update(w, m, s):
        return w - RATE * (m / (1 - DECAY**turn)) / (jnp.sqrt(s / (1 - SECOND_DECAY**turn)) + 1e-8)

    return jax.tree.map(update, weights, first, second), first, second, value


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    text = np.unique(np.frombuffer(TEXT.read_bytes(), np.uint8), return_inverse=True)[1]
    split = len(text) * 9 // 10
    counts = np.bincount(text[split:])
    shares = counts[counts > 0] / counts.sum()
    entropy = -(shares * np.log2(shares)).sum()

    rng = np.random.default_rng(1)
    windows = np.lib.stride_tricks.sliding_window_view(text, CONTEXT + 1)
    held_out = windows[split::CONTEXT][:16]
    weights = initial(jax.random.key(1), text.max() + 1)
    first = second = jax.tree.map(jnp.zeros_like, weights)
    for turn in range(1, steps + 1):
        batch = windows[rng.integers(0, split - CONTEXT, BATCH)]
        weights, first, second, value = step(weights, first, second, turn, batch)
        if turn == 1 or turn % 20 == 0:
            print(f"step {turn:4d}  {value:.3f} bits per character")
    final = float(jax.jit(loss)(weights, held_out))
    print(f"held out {final:.3f} bits per character; the unigram entropy is {entropy:.3f}")
    return 0 if final < entropy else 1


if __name__ == "__main__":
    sys.exit(main())
