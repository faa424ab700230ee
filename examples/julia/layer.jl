# A multi-head attention layer in the manner of NNlib and Flux, trained on associative recall: pairs of key and value are
# shown, then a key, and the layer must say its value. Attention is the only way to know it.
#
#     julia --project=bindings/julia/DLAttn examples/julia/layer.jl
#
# The backward is written out, so the example needs no package for differentiation; with Zygote `gradient` does it.
using DLAttn, Random

const WIDTH, HEADS, GROUPS = 64, 4, 2 # GROUPS: key/value heads
const SIZE = WIDTH ÷ HEADS
const SYMBOLS, PAIRS, BATCH = 16, 8, 32

"Arrays (features, tokens, batch) through dense matrices, as one product."
dense(weight, x) = reshape(weight * reshape(x, size(x, 1), :), :, size(x)[2:end]...)
dense_gradient(dy, x) = reshape(dy, size(dy, 1), :) * reshape(x, size(x, 1), :)'
heads(x, count) = reshape(x, SIZE, count, size(x, 2), size(x, 3)) # (D, H, tokens, batch): no permutedims
flat(x) = reshape(x, :, size(x, 3), size(x, 4))

"The layer's output, and its pullback: the gradients of the four weights."
function layer(w, x, asked)
    q, k, v = heads(dense(w.q, asked), HEADS), heads(dense(w.k, x), GROUPS), heads(dense(w.v, x), GROUPS)
    y, lse = attention(q, k, v; return_lse=true)
    function pullback(dz)
        dy = heads(dense(w.out', dz), HEADS)
        g = attention_backward(dy, q, k, v, y, lse)
        return (q=dense_gradient(flat(g.dq), asked), k=dense_gradient(flat(g.dk), x), v=dense_gradient(flat(g.dv), x),
                out=dense_gradient(dz, flat(y)))
    end
    return dense(w.out, flat(y)), pullback
end

"Tokens that show a key beside its value, the key asked for, and the value's number."
function example(codes)
    shown, asked, answers = zeros(Float32, WIDTH, PAIRS, BATCH), zeros(Float32, WIDTH, 1, BATCH), Int[]
    for b in 1:BATCH
        keys, values = randperm(SYMBOLS)[1:PAIRS], rand(1:SYMBOLS, PAIRS)
        for j in 1:PAIRS
            shown[:, j, b] = codes[:, keys[j]] .+ codes[:, SYMBOLS+values[j]]
        end
        j = rand(1:PAIRS)
        asked[:, 1, b] = codes[:, keys[j]]
        push!(answers, values[j])
    end
    return shown, asked, answers
end

"Cross-entropy of the value's number, with its gradient; the output's product with a code is the value's score."
function loss(z, codes, answers)
    values = codes[:, SYMBOLS+1:end]
    scores = values' * reshape(z, WIDTH, :)
    p = exp.(scores .- maximum(scores; dims=1))
    p ./= sum(p; dims=1)
    right = [CartesianIndex(answers[b], b) for b in 1:BATCH]
    cost = -sum(log, p[right]) / BATCH
    hits = count(b -> argmax(p[:, b]) == answers[b], 1:BATCH) / BATCH
    p[right] .-= 1
    return cost, hits, reshape(values * p ./ BATCH, size(z))
end

function train(steps)
    codes = randn(Float32, WIDTH, 2SYMBOLS) ./ sqrt(Float32(WIDTH)) # of keys, then of values
    start(rows) = randn(Float32, rows, WIDTH) ./ sqrt(Float32(WIDTH))
    w = (q=start(WIDTH), k=start(GROUPS * SIZE), v=start(GROUPS * SIZE), out=start(WIDTH))
    mean, square = map(zero, w), map(zero, w) # of Adam
    recent = 0.0
    for step in 1:steps
        shown, asked, answers = example(codes)
        z, pullback = layer(w, shown, asked)
        cost, hits, dz = loss(z, codes, answers)
        g = pullback(dz)
        for name in keys(w)
            mean[name] .= 0.9f0 .* mean[name] .+ 0.1f0 .* g[name]
            square[name] .= 0.99f0 .* square[name] .+ 0.01f0 .* g[name] .^ 2
            w[name] .-= 0.01f0 .* (mean[name] ./ (1 - 0.9f0^step)) ./ (sqrt.(square[name] ./ (1 - 0.99f0^step)) .+ 1f-8)
        end
        recent = 0.95recent + 0.05hits
        step % 50 == 0 && println("step $step: cross-entropy $(round(cost; digits=3)), right: $(round(100recent; digits=1)) %")
    end
    return recent
end

Random.seed!(1)
right = train(200)
# Without the right key the best guess is one of the values shown: right in 1 of 8, sometimes more where values repeat.
println(right > 0.5 ? "it recalls" : "it does not recall")
exit(right > 0.5 ? 0 : 1)
