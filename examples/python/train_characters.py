"""Trains a small character-level transformer in NumPy; attention and its gradients come from dlattn.

    python examples/python/train_characters.py [--steps 300] [--seconds 30]

The text is examples/data/opticks.txt; its last tenth is held out. Exit code 0 when the held-out loss, in bits per
character, ends below three quarters of the unigram entropy of the held-out text (what a model that knows only how
often each character occurs cannot beat), else 1. Everything but attention is written out below: RMS norm, matrix
products, squared ReLU, cross-entropy, Adam. Position is told by ALiBi alone.
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np

import dlattn

TEXT = Path(__file__).resolve().parents[1] / "data" / "opticks.txt"
LAYERS, WIDTH, HEADS, CONTEXT, BATCH = 3, 128, 4, 128, 16
SIZE = WIDTH // HEADS
LEAST_STEPS = 150  # however slow the machine is
SLOPES = np.float32(2.0) ** -np.arange(1, 2 * HEADS, 2, dtype=np.float32)  # 1/2, 1/8, 1/32, 1/128


# ---- layers: each forward returns what its backward needs ------------------------------------------------------------

def norm(x):
    """x / rms(x), and 1 / rms(x)."""
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(1e-5))
    return x * r, r


def norm_backward(dy, y, r):
    return r * (dy - y * np.mean(dy * y, axis=-1, keepdims=True))


def attention(x, w):
    """Causal self-attention. q, k and v stay where the matrix product put them: strided views of one array."""
    batch, tokens, _ = x.shape
    qkv = (x @ w["qkv"]).reshape(batch, tokens, 3, HEADS, SIZE)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    out, lse = dlattn.attention(q, k, v, causal=True, alibi_slopes=SLOPES, return_lse=True)
    return out.reshape(x.shape) @ w["out"], (x, qkv, out, lse)


def attention_backward(dy, w, saved, gradients):
    x, qkv, out, lse = saved
    gradients["out"] = flat(out.reshape(x.shape)).T @ flat(dy)
    dout = (dy @ w["out"].T).reshape(out.shape)
    dqkv = np.empty_like(qkv)
    dlattn.attention_backward(dout, qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2], out, lse, causal=True, alibi_slopes=SLOPES,
                              dq=dqkv[:, :, 0], dk=dqkv[:, :, 1], dv=dqkv[:, :, 2])
    dqkv = dqkv.reshape(*x.shape[:2], -1)
    gradients["qkv"] = flat(x).T @ flat(dqkv)
    return dqkv @ w["qkv"].T


def mlp(x, w):
    hidden = np.maximum(x @ w["up"], 0)
    return (hidden * hidden) @ w["down"], (x, hidden)


def mlp_backward(dy, w, saved, gradients):
    x, hidden = saved
    gradients["down"] = flat(hidden * hidden).T @ flat(dy)
    dhidden = (dy @ w["down"].T) * (2 * hidden)
    gradients["up"] = flat(x).T @ flat(dhidden)
    return dhidden @ w["up"].T


def flat(x):
    return x.reshape(-1, x.shape[-1])


# ---- the model -------------------------------------------------------------------------------------------------------

BLOCKS = [(attention, attention_backward, ("qkv", "out")), (mlp, mlp_backward, ("up", "down"))] * LAYERS


def make_weights(characters, random):
    def matrix(rows, columns, size=1.0):
        return (random.standard_normal((rows, columns)) * size / np.sqrt(rows)).astype(np.float32)

    weights = {"embed": random.standard_normal((characters, WIDTH)).astype(np.float32),
               "head": matrix(WIDTH, characters, 0.5)}
    for n, (_, _, (into, outof)) in enumerate(BLOCKS):
        inner = 3 * WIDTH if into == "qkv" else 4 * WIDTH
        weights[f"{n}.{into}"] = matrix(WIDTH, inner)
        weights[f"{n}.{outof}"] = matrix(WIDTH if outof == "out" else inner, WIDTH, 0.3)
    return weights


def part(weights, n):
    return {name: weights[f"{n}.{name}"] for name in BLOCKS[n][2]}


def forward(weights, tokens):
    """Logits [batch, tokens, characters] and what the backward needs."""
    x, saved = weights["embed"][tokens], []
    for n, (block, _, _) in enumerate(BLOCKS):
        y, r = norm(x)
        change, inside = block(y, part(weights, n))
        x = x + change
        saved.append((y, r, inside))
    y, r = norm(x)
    return y @ weights["head"], (saved, y, r)


def cross_entropy(logits, targets):
    """Mean loss in nats, and the gradient of the logits."""
    logits = logits - logits.max(axis=-1, keepdims=True)
    p = np.exp(logits)
    total = p.sum(axis=-1, keepdims=True)
    rows = np.arange(targets.size)
    loss = np.mean(np.log(total).ravel() - flat(logits)[rows, targets.ravel()])
    p /= total
    flat(p)[rows, targets.ravel()] -= 1
    p /= targets.size
    return float(loss), p


def backward(weights, tokens, dlogits, kept):
    saved, y, r = kept
    gradients = {"head": flat(y).T @ flat(dlogits)}
    dx = norm_backward(dlogits @ weights["head"].T, y, r)
    for n in reversed(range(len(BLOCKS))):
        y, r, inside = saved[n]
        own = {}
        dx = dx + norm_backward(BLOCKS[n][1](dx, part(weights, n), inside, own), y, r)
        gradients.update((f"{n}.{name}", value) for name, value in own.items())
    gradients["embed"] = np.zeros_like(weights["embed"])
    np.add.at(gradients["embed"], tokens.ravel(), flat(dx))
    return gradients


class Adam:
    """Kingma and Ba (2015)."""

    def __init__(self, weights):
        self.first = {name: np.zeros_like(w) for name, w in weights.items()}
        self.second = {name: np.zeros_like(w) for name, w in weights.items()}
        self.count = 0

    def step(self, weights, gradients, rate):
        self.count += 1
        a, b = 1 - 0.9**self.count, 1 - 0.98**self.count
        for name, g in gradients.items():
            m, v = self.first[name], self.second[name]
            m += np.float32(0.1) * (g - m)
            v += np.float32(0.02) * (g * g - v)
            weights[name] -= np.float32(rate / a) * m / (np.sqrt(v / np.float32(b)) + np.float32(1e-8))


# ---- text, evaluation, sampling --------------------------------------------------------------------------------------

def load_text():
    """Training and held-out characters as numbers, and the alphabet."""
    text = TEXT.read_text(encoding="ascii")
    alphabet = sorted(set(text))
    numbers = np.array([alphabet.index(c) for c in text])
    split = len(numbers) * 9 // 10
    return numbers[:split], numbers[split:], alphabet


def unigram_entropy(numbers):
    """Bits per character of the best model that looks at no context."""
    p = np.bincount(numbers) / len(numbers)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def held_out_loss(weights, numbers):
    """Bits per character over the whole held-out text, in windows that do not overlap."""
    count = (len(numbers) - 1) // CONTEXT
    tokens = numbers[:count * CONTEXT].reshape(count, CONTEXT)
    targets = numbers[1:count * CONTEXT + 1].reshape(count, CONTEXT)
    losses = [cross_entropy(forward(weights, tokens[at:at + BATCH])[0], targets[at:at + BATCH])[0] * len(tokens[at:at + BATCH])
              for at in range(0, count, BATCH)]
    return sum(losses) / count / np.log(2)


def sample(weights, start, length, random):
    """Continues `start` one character at a time."""
    numbers = list(start)
    for _ in range(length):
        logits = forward(weights, np.array([numbers[-CONTEXT:]]))[0][0, -1].astype(np.float64) / 0.7
        p = np.exp(logits - logits.max())
        numbers.append(int(random.choice(len(p), p=p / p.sum())))
    return numbers[len(start):]


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--steps", type=int, default=300, help="updates of the weights")
    options.add_argument("--seconds", type=float, default=30, help="stop sooner where the machine is slow")
    options = options.parse_args()
    random = np.random.default_rng(1)
    training, held_out, alphabet = load_text()
    weights = make_weights(len(alphabet), random)
    adam = Adam(weights)
    entropy = unigram_entropy(held_out)
    parameters = sum(w.size for w in weights.values())
    print(f"{TEXT.name}: {len(training)} characters to learn, {len(held_out)} held out, alphabet of {len(alphabet)}; "
          f"{LAYERS} layers, {parameters} parameters")
    print(f"before training: held-out loss {held_out_loss(weights, held_out):.3f} bits per character; "
          f"unigram entropy of the held-out text {entropy:.3f}", flush=True)
    step, progress, start = 0, 0.0, time.monotonic()
    while progress < 1:
        at = random.integers(0, len(training) - CONTEXT, BATCH)[:, None] + np.arange(CONTEXT)
        logits, kept = forward(weights, training[at])
        loss, dlogits = cross_entropy(logits, training[at + 1])
        rate = 4e-3 * min(1, (step + 1) / 20) * (1 - progress)
        adam.step(weights, backward(weights, training[at], dlogits, kept), rate)
        step += 1
        seconds = time.monotonic() - start
        progress = max(step / options.steps, min(seconds / options.seconds, step / LEAST_STEPS))
        if sys.stderr.isatty() or step % 50 == 0:
            end = "" if sys.stderr.isatty() else "\n"
            print(f"\rstep {step:4d}  {seconds:5.1f} s  training loss {loss / np.log(2):.3f} bits", end=end, file=sys.stderr,
                  flush=True)
    loss, seconds = held_out_loss(weights, held_out), time.monotonic() - start
    passed = loss < 0.75 * entropy
    print(f"\rafter {step} steps, {seconds:.0f} s: held-out loss {loss:.3f} bits per character, "
          f"{'below' if passed else 'NOT below'} 75 % of the unigram entropy {entropy:.3f}")
    text = "".join(alphabet[n] for n in sample(weights, held_out[:CONTEXT], 240, random))
    print("it now writes:\n    " + text.strip().replace("\n", "\n    "))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
