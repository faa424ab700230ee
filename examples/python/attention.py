"""Attention on NumPy arrays: one causal layer forward and backward, with grouped heads. It prints what examples/c does.

    python examples/python/attention.py
"""
import dlattn
import numpy as np

B, M, H, G, D = 1, 6, 4, 2, 8  # batch, tokens, query heads, key/value heads, head size
state = 1


def fill(heads):
    """Numbers in [-1, 1), the same in every language."""
    global state
    x = np.empty((B, M, heads, D), np.float32)
    for i in range(x.size):
        state = (state * 1664525 + 1013904223) % 2**32
        x.flat[i] = (state >> 8) / 2**23 - 1
    return x


def show(name, x):
    print(f"{name:20}" + "".join(f" {value: .4f}" for value in x))


q, k, v, dout = fill(H), fill(G), fill(G), fill(H)  # dout: from some loss
out, lse = dlattn.attention(q, k, v, causal=True, return_lse=True)
g = dlattn.attention_backward(dout, q, k, v, out, lse, causal=True)

show("v[0,0,0,:]", v[0, 0, 0])
show("out[0,0,0,:]", out[0, 0, 0])
show("out[0,5,3,:]", out[0, 5, 3])
show("lse[0,0,:]", lse[0, 0])
show("dq[0,5,3,:]", g.dq[0, 5, 3])
show("dk[0,0,0,:]", g.dk[0, 0, 0])
show("dv[0,0,0,:]", g.dv[0, 0, 0])
