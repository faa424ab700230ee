# Attention on arrays: one causal layer forward and backward, with grouped heads. It prints what examples/c does.
#
#     julia --project=bindings/julia/DLAttn examples/julia/attention.jl
using DLAttn, Printf

const B, M, H, G, D = 1, 6, 4, 2, 8 # batch, tokens, query heads, key/value heads, head size

let state = UInt32(1)
    "Numbers in [-1, 1), the same in every language."
    global function fill_heads(heads)
        x = Array{Float32}(undef, D, heads, M, B)
        for i in eachindex(x)
            state = state * UInt32(1664525) + UInt32(1013904223)
            x[i] = Float32(state >> 8) / Float32(1 << 23) - 1
        end
        return x
    end
end

show_row(name, x) = println(rpad(name, 20), join(@sprintf(" % .4f", value) for value in x))

q, k, v, dout = fill_heads(H), fill_heads(G), fill_heads(G), fill_heads(H) # dout: from some loss
out, lse = attention(q, k, v; causal=true, return_lse=true)
g = attention_backward(dout, q, k, v, out, lse; causal=true)

# The names are C's, which counts from 0 and in the other order.
show_row("v[0,0,0,:]", v[:, 1, 1, 1])
show_row("out[0,0,0,:]", out[:, 1, 1, 1])
show_row("out[0,5,3,:]", out[:, 4, 6, 1])
show_row("lse[0,0,:]", lse[:, 1, 1])
show_row("dq[0,5,3,:]", g.dq[:, 4, 6, 1])
show_row("dk[0,0,0,:]", g.dk[:, 1, 1, 1])
show_row("dv[0,0,0,:]", g.dv[:, 1, 1, 1])
