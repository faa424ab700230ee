"""
Exact attention, forward and backward, on arrays of any strides: ccalls into the C library dlattn, without copies.

    using DLAttn

    q = randn(Float32, 64, 8, 1024, 2)       # (head size, heads, tokens, batch)
    k = randn(Float32, 64, 2, 1024, 2)       # 2 key/value heads serve 8 query heads
    v = randn(Float32, 64, 2, 1024, 2)
    out, lse = attention(q, k, v; causal=true, return_lse=true)
    g = attention_backward(dout, q, k, v, out, lse; causal=true)    # g.dq, g.dk, g.dv

With ChainRulesCore loaded (Zygote, Flux, Lux) `attention` has its gradient; with CUDA loaded it takes `CuArray`s.
"""
module DLAttn

import Libdl

export attention, attention_backward, DLAttnError

include("raw.jl")
include("library.jl")
include("errors.jl")
include("tensors.jl")
include("options.jl")
include("calls.jl")
include("cache.jl")

__init__() = load()

end
